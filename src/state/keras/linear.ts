// The layers of Keras that a batch norm beside them can be folded into, and where their weights lie
// (keras/src/layers/convolutional, keras/src/layers/core/dense.py; tfjs-layers/src/layers/convolutional.ts).

import { StateError } from "../../errors.js";
import type { FoldOptions } from "../../testtime/fold.js";
import { show } from "../../values/layout.js";
import { isCount } from "../bytes.js";
import type { Layer } from "./network.js";

/** A class of layers: the weight, its axes, and what kind of layer it is. */
interface Kind {
  readonly kernel: string;
  readonly order: string;
  readonly kind: FoldOptions["kind"];
  /** Whether a norm before it can be taken in. */
  readonly after: boolean;
}

const conv = (order: string, kernel = "kernel", after = true): Kind => ({
  kernel,
  order,
  kind: "conv",
  after,
});
const transposed = (order: string): Kind => ({
  kernel: "kernel",
  order,
  kind: "convTranspose",
  after: true,
});

const KINDS: Readonly<Record<string, Kind>> = {
  Dense: { kernel: "kernel", order: "IO", kind: "linear", after: true },
  Conv1D: conv("LIO"),
  Conv2D: conv("HWIO"),
  Conv3D: conv("DHWIO"),
  DepthwiseConv2D: conv("HWIO", "depthwise_kernel"),
  // Depthwise, then pointwise: a norm after it goes into the second, one before it would need both.
  SeparableConv1D: conv("LIO", "pointwise_kernel", false),
  SeparableConv2D: conv("HWIO", "pointwise_kernel", false),
  Conv2DTranspose: transposed("HWOI"),
  Conv3DTranspose: transposed("DHWOI"),
};

/** The name of the weight of a layer that can take a norm in, or why it cannot. */
export function kernelOf(
  { name, kind, config }: Layer,
  into: "before" | "after",
): { readonly weight: string } | { readonly reason: string } {
  const known = Object.hasOwn(KINDS, kind) ? KINDS[kind]! : null;
  if (known === null) return { reason: `"${name}" is a ${kind}, which takes no norm in` };
  if (into === "after" && !known.after)
    return { reason: `"${name}" is a ${kind}, two layers in one` };
  const { activation = "linear" } = config;
  if (into === "before" && activation !== "linear" && activation !== null) {
    const what = typeof activation === "string" ? `${activation} of` : "activation of";
    return { reason: `the ${what} "${name}" stands between` };
  }
  return { weight: known.kernel };
}

/**
 * What `fold` is to know of a layer whose weight has this shape.
 *
 * @throws StateError for a shape that is not that of the layer's weight.
 */
export function linearOf({ kind, config }: Layer, shape: unknown) {
  const { order, kind: type } = KINDS[kind]!;
  if (!Array.isArray(shape) || shape.length !== order.length || !shape.every(isCount)) {
    throw new StateError(`shape: expected ${order.length} sizes for ${kind}, got ${show(shape)}`);
  }
  // Any other padding than these, "causal" for instance, puts zeros before the values.
  const padding = config.padding === "valid" || config.padding === "same" ? config.padding : 1;
  if (kind === "DepthwiseConv2D") {
    const [height, width, ins, times] = shape as [number, number, number, number];
    return {
      kind: type,
      order,
      shape: [height, width, 1, ins * times],
      groups: ins,
      padding,
    } as const;
  }
  const groups = isCount(config.groups) && type === "conv" ? config.groups : 1;
  return { kind: type, order, shape: shape as number[], groups, padding } as const;
}

/** How many axes the inputs and outputs of a layer have, `null` where its class does not say. */
export const rankOf = ({ kind }: Layer): number | null => {
  const { order } = KINDS[kind]!;
  return order === "IO" ? null : order.length;
};

/** True for a layer whose channels are on axis 1. */
export const isFirst = ({ config }: Layer): boolean => config.data_format === "channels_first";
