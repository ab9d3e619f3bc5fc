// Says which layers of Keras a batch norm can be folded into, and how their kernels are laid out
// (keras/src/layers/convolutional, keras/src/layers/core/dense.py;
// tfjs-layers/src/layers/convolutional.ts). The spatial axes of a kernel come first. Two axes follow: in
// and out channels in a convolution, out and in channels in a transposed one, and in a depthwise one the
// in channels and the number of out channels for each of them. A SeparableConv is a depthwise convolution without a
// bias and then a pointwise one, which is an ordinary convolution of a single tap.

import { StateError } from "../../errors.js";
import type { FoldOptions } from "../../testtime/fold.js";
import { show } from "../../values/layout.js";
import { isCount } from "../bytes.js";
import { type Into, SPATIAL } from "../folding.js";
import type { Layer } from "./network.js";

const LINEAR = /^(?:Dense|(Depthwise|Separable)?Conv([123])D(Transpose)?)$/;
const DEPTHWISE = "depthwise_kernel";

/** A kernel of a layer: the name of the weight, and its shape in the file. */
interface Shaped {
  readonly name: string;
  readonly shape: unknown;
}

/**
 * The names of a layer's kernels, in the order in which its input goes through them. A norm before the layer is folded
 * into the first of them, a norm behind it into the last.
 *
 * @throws StateError for a layer that cannot take the norm in.
 */
export function kernelsOf({ kind, config }: Layer, into: Into): readonly [string, ...string[]] {
  const known = LINEAR.exec(kind);
  if (known === null) throw new StateError(`no norm can be folded into ${kind}`);
  const { activation = "linear" } = config;
  if (into === "before" && activation !== "linear" && activation !== null) {
    throw new StateError("its activation stands between");
  }
  const [, first] = known;
  if (first === "Separable") return [DEPTHWISE, "pointwise_kernel"];
  return [first === "Depthwise" ? DEPTHWISE : "kernel"];
}

/**
 * What `fold` must know about one of a layer's kernels.
 *
 * @throws StateError for a shape that the weight of such a layer cannot have.
 */
export function linearOf(
  { kind, config }: Layer,
  { name, shape }: Shaped,
): Pick<FoldOptions, "kind" | "order" | "shape" | "groups" | "padding" | "strides"> {
  const [, , axes = "0", transposed] = LINEAR.exec(kind)!;
  const order = SPATIAL[Number(axes)] + (transposed ? "OI" : "IO");
  if (!Array.isArray(shape) || shape.length !== order.length || !shape.every(isCount)) {
    throw new StateError("shape", `${order.length} sizes for ${kind}`, show(shape));
  }
  const [ins, times] = shape.slice(-2) as [number, number];
  const depthwise = name === DEPTHWISE;
  const { strides = 1, output_padding: added } = config;
  const groups = depthwise ? ins : isCount(config.groups) ? config.groups : 1;
  return {
    kind: transposed ? "convTranspose" : axes === "0" ? "linear" : "conv",
    order,
    shape: depthwise ? [...shape.slice(0, -2), 1, ins * times] : shape,
    groups,
    // Other paddings, such as "causal", put zeros beside the values. 1 stands for some padding.
    padding: config.padding === "valid" || config.padding === "same" ? config.padding : 1,
    // An output padding adds outputs that see no input. Then no strides are stated, and `fold` refuses.
    strides: [added].flat().some(Boolean) ? [] : (strides as number | readonly number[]),
  };
}

/** True for a layer that has its channels on axis 1, of those that it sees. */
export const isFirst = ({ config }: Layer): boolean => config.data_format === "channels_first";
