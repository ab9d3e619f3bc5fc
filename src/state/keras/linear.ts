// The layers of Keras that a batch norm beside them can be folded into, and where their weights lie
// (keras/src/layers/convolutional, keras/src/layers/core/dense.py; tfjs-layers/src/layers/convolutional.ts).
// The kernel of a convolution has its spatial axes first, then in and out channels; a transposed one out
// and in channels; a depthwise one in channels and how many out channels each of them has.

import { StateError } from "../../errors.js";
import type { FoldOptions } from "../../testtime/fold.js";
import { show } from "../../values/layout.js";
import { isCount } from "../bytes.js";
import type { Layer } from "./network.js";

const LINEAR = /^(?:Dense|(Depthwise|Separable)?Conv([123])D(Transpose)?)$/;

/** Letters of the spatial axes, by how many there are. */
const SPATIAL = ["", "L", "HW", "DHW"];

/** The name of the weight of a layer that can take a norm in, or why it cannot. */
export function kernelOf(
  { name, kind, config }: Layer,
  into: "before" | "after",
): { readonly weight: string } | { readonly reason: string } {
  const known = LINEAR.exec(kind);
  if (known === null) return { reason: `"${name}" is a ${kind}, which takes no norm in` };
  const [, first] = known;
  if (first === "Separable" && into === "after") {
    // Depthwise, then pointwise: a norm before it would need both.
    return { reason: `"${name}" is a ${kind}, two layers in one` };
  }
  const { activation = "linear" } = config;
  if (into === "before" && activation !== "linear" && activation !== null) {
    return { reason: `the activation of "${name}" stands between` };
  }
  const which = first === "Depthwise" ? "depthwise_" : first === "Separable" ? "pointwise_" : "";
  return { weight: `${which}kernel` };
}

/**
 * What `fold` is to know of a layer whose weight has this shape.
 *
 * @throws StateError for a shape that is not that of the layer's weight.
 */
export function linearOf(
  { kind, config }: Layer,
  shape: unknown,
): Pick<FoldOptions, "kind" | "order" | "shape" | "groups" | "padding"> {
  const [, first, axes = "0", transposed] = LINEAR.exec(kind)!;
  const order = SPATIAL[Number(axes)] + (transposed ? "OI" : "IO");
  if (!Array.isArray(shape) || shape.length !== order.length || !shape.every(isCount)) {
    throw new StateError("shape", `${order.length} sizes for ${kind}`, show(shape));
  }
  const [ins, times] = shape.slice(-2) as [number, number];
  const depthwise = first === "Depthwise";
  const groups = depthwise ? ins : isCount(config.groups) ? config.groups : 1;
  return {
    kind: transposed ? "convTranspose" : axes === "0" ? "linear" : "conv",
    order,
    shape: depthwise ? [...shape.slice(0, -2), 1, ins * times] : shape,
    groups,
    // Any other padding than these, "causal" for instance, puts zeros before the values.
    padding: config.padding === "valid" || config.padding === "same" ? config.padding : 1,
  };
}

/** How many axes the inputs and outputs of a layer have, `null` where its class does not say. */
export function rankOf({ kind }: Layer): number | null {
  const axes = LINEAR.exec(kind)![2];
  return axes === undefined ? null : Number(axes) + 2;
}

/** True for a layer whose channels are on axis 1. */
export const isFirst = ({ config }: Layer): boolean => config.data_format === "channels_first";
