// Each framework's own names, defaults and conventions, turned into ours. `momentum` appears only
// here: PyTorch's is the weight of the new value, that of Keras, ONNX and Flax of the old one.

import type { Kernels } from "../engine/kernels.js";
import { checkKeys, OptionError } from "../errors.js";
import { flag, number } from "../values/check.js";
import { CHANNELS_FIRST, checkLayout, LAYOUTS, type Layout } from "../values/layout.js";
import { type BatchNormOptions, epsilonOf } from "./options.js";

/** Options of `BatchNorm.torch`, as of `torch.nn.BatchNorm1d`, `2d`, `3d`. */
export interface TorchOptions {
  /** Default 1e-5. */
  eps?: number;
  /** Weight of the NEW value, 0 < momentum <= 1, or `null` for the cumulative average. Default 0.1. */
  momentum?: number | null;
  /** False leaves weight and bias out. Default true. */
  affine?: boolean;
  /** A layout with channels first. Default `"NC"`. */
  layout?: Layout;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/** Options of `BatchNorm.keras`, as of `keras.layers.BatchNormalization`. */
export interface KerasOptions {
  /** Default 1e-3. */
  epsilon?: number;
  /** Weight of the OLD value, 0 <= momentum < 1. Default 0.99. */
  momentum?: number;
  /** False leaves gamma out. Default true. */
  scale?: boolean;
  /** False leaves beta out. Default true. */
  center?: boolean;
  /** Default `"NC"`. */
  layout?: Layout;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/** Options of `BatchNorm.onnx`, as of the operator BatchNormalization, opset 15. */
export interface OnnxOptions {
  /** Default 1e-5. */
  epsilon?: number;
  /** Weight of the OLD value, 0 <= momentum < 1. Default 0.9. */
  momentum?: number;
  /** A layout with channels first. Default `"NC"`. */
  layout?: Layout;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/** Options of `BatchNorm.flax`, as of `flax.linen.BatchNorm`. */
export interface FlaxOptions {
  /** Default 1e-5. */
  epsilon?: number;
  /** Weight of the OLD value, 0 <= momentum < 1. Default 0.99. */
  momentum?: number;
  /** False leaves the scale out. Default true. */
  useScale?: boolean;
  /** False leaves the bias out. Default true. */
  useBias?: boolean;
  /** Default `"NC"`. */
  layout?: Layout;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

const STILL = "nothing would ever move; for that train with { updateRunning: false }";

/** The weight of the old value that a momentum in the sense of Keras, ONNX and Flax is. */
function decayOf(momentum: unknown, fallback: number): number {
  if (momentum === 1) {
    throw new OptionError("momentum", "0 <= momentum < 1", `1, under which ${STILL}`);
  }
  return number("momentum", momentum, fallback, "0 <= momentum < 1", (m) => m >= 0 && m < 1);
}

/** https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html */
export function torchOptions(options: TorchOptions): BatchNormOptions {
  checkKeys("options", options, ["eps", "momentum", "affine", "layout", "kernels"]);
  const { momentum, layout = "NC" } = options;
  // So small a momentum that 1 - momentum is 1 moves nothing either.
  if (typeof momentum === "number" && momentum >= 0 && 1 - momentum === 1) {
    throw new OptionError(
      "momentum",
      "0 < momentum <= 1 or null",
      `${momentum}, under which ${STILL}`,
    );
  }
  const affine = flag("affine", options.affine, true);
  const expected = "0 < momentum <= 1 or null";
  return {
    layout: checkLayout(layout, CHANNELS_FIRST),
    epsilon: epsilonOf("eps", options.eps, 1e-5),
    decay:
      momentum === null
        ? "cumulative"
        : 1 - number("momentum", momentum, 0.1, expected, (m) => m > 0 && m <= 1),
    runningVarianceOf: "sample",
    gamma: affine,
    beta: affine,
    ...kernelsOf(options),
  };
}

/** https://keras.io/api/layers/normalization_layers/batch_normalization/ */
export function kerasOptions(options: KerasOptions): BatchNormOptions {
  checkKeys("options", options, ["epsilon", "momentum", "scale", "center", "layout", "kernels"]);
  const { layout = "NC" } = options;
  return {
    layout: checkLayout(layout, LAYOUTS),
    epsilon: epsilonOf("epsilon", options.epsilon, 1e-3),
    decay: decayOf(options.momentum, 0.99),
    runningVarianceOf: "population",
    gamma: flag("scale", options.scale, true),
    beta: flag("center", options.center, true),
    ...kernelsOf(options),
  };
}

/** https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, version 15 */
export function onnxOptions(options: OnnxOptions): BatchNormOptions {
  checkKeys("options", options, ["epsilon", "momentum", "layout", "kernels"]);
  const { layout = "NC" } = options;
  return {
    layout: checkLayout(layout, CHANNELS_FIRST),
    epsilon: epsilonOf("epsilon", options.epsilon, 1e-5),
    decay: decayOf(options.momentum, 0.9),
    runningVarianceOf: "population",
    ...kernelsOf(options),
  };
}

/** https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/layers.html#flax.linen.BatchNorm */
export function flaxOptions(options: FlaxOptions): BatchNormOptions {
  checkKeys("options", options, [
    "epsilon",
    "momentum",
    "useScale",
    "useBias",
    "layout",
    "kernels",
  ]);
  const { layout = "NC" } = options;
  return {
    layout: checkLayout(layout, LAYOUTS),
    epsilon: epsilonOf("epsilon", options.epsilon, 1e-5),
    decay: decayOf(options.momentum, 0.99),
    runningVarianceOf: "population",
    gamma: flag("useScale", options.useScale, true),
    beta: flag("useBias", options.useBias, true),
    ...kernelsOf(options),
  };
}

const kernelsOf = ({ kernels }: { kernels?: Kernels }): { kernels?: Kernels } =>
  kernels === undefined ? {} : { kernels };
