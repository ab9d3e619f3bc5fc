// Turns the names, defaults and conventions of each framework into those of this package. Only this file
// reads `momentum`, because it has two meanings: in PyTorch it is the weight of the new value, in Keras, ONNX
// and Flax the weight of the old one.

import type { Kernels } from "../engine/kernels.js";
import { checkKeys } from "../errors.js";
import { epsilonOf, flag, number } from "../values/check.js";
import { CHANNELS_FIRST, checkLayout, LAYOUTS, type Layout } from "../values/layout.js";
import type { VarianceKind } from "../values/moments.js";
import { type BatchNormOptions, METHODS, oursOf, WEIGHT } from "./options.js";

/** Options of `BatchNorm.torch`, as of `torch.nn.BatchNorm1d`, `2d`, `3d`. */
export interface TorchOptions {
  /** Default 1e-5. */
  eps?: number;
  /** Weight of the NEW value, 2^-54 < momentum <= 1, or `null` for the cumulative average. Default 0.1. */
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

/** A momentum as an option of a layer. */
type Moving = Pick<BatchNormOptions, "decay" | typeof WEIGHT>;

/**
 * A momentum under which nothing would ever move is refused, since there is a better way to say that. (`keeping` is for
 * options that no caller has given.)
 */
const STILL = "; to move nothing, train with { updateRunning: false }";

/** Keras', ONNX' and Flax' momentum is the weight of the old value. */
const ofOld =
  (fallback: number) =>
  (momentum: unknown): Moving => ({
    decay: number(
      "momentum",
      momentum,
      fallback,
      `0 <= momentum < 1${STILL}`,
      (m) => m >= 0 && m < 1,
    ),
  });

/**
 * PyTorch's momentum is the weight of the new value; `null` means the cumulative average. Of a momentum from 1e-4 on,
 * 1 - momentum keeps at least 12 digits. A smaller one would lose more of them, so it is kept itself.
 */
function ofNew(momentum: unknown): Moving {
  if (momentum === null) return { decay: "cumulative" };
  // Where 1 - momentum rounds to 1, it would not move anything either.
  const holds = (m: number): boolean => 1 - m < 1 && m <= 1;
  const weight = number("momentum", momentum, 0.1, `2^-54 < momentum <= 1 or null${STILL}`, holds);
  return weight < 1e-4 ? { [WEIGHT]: weight } : { decay: 1 - weight };
}

/** Turns a framework's options into ours. */
function translated(
  options: object,
  epsilonName: string,
  epsilon: number,
  /** The options that say whether there are gamma and beta: one for each, or a single one for both. */
  parameters: readonly string[],
  layouts: readonly Layout[],
  movingOf: (momentum: unknown) => Moving,
  runningVarianceOf: VarianceKind,
): BatchNormOptions {
  const names = [epsilonName, "momentum", ...parameters, "layout", "kernels"];
  checkKeys("options", options, names, (key) => oursOf(METHODS, key));
  const given = options as Record<string, unknown>;
  const { layout = "NC", kernels } = given;
  const moving = movingOf(given.momentum);
  const [gamma = true, beta = gamma] = parameters.map((name) => flag(name, given[name], true));
  return {
    layout: checkLayout(layout, layouts),
    epsilon: epsilonOf(epsilonName, given[epsilonName], epsilon),
    ...moving,
    runningVarianceOf,
    gamma,
    beta,
    kernels: kernels as Kernels,
  };
}

/** https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html */
export const torchOptions = (options: TorchOptions): BatchNormOptions =>
  translated(options, "eps", 1e-5, ["affine"], CHANNELS_FIRST, ofNew, "sample");

/** https://keras.io/api/layers/normalization_layers/batch_normalization/ */
export const kerasOptions = (options: KerasOptions): BatchNormOptions =>
  translated(options, "epsilon", 1e-3, ["scale", "center"], LAYOUTS, ofOld(0.99), "population");

/** https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, version 15 */
export const onnxOptions = (options: OnnxOptions): BatchNormOptions =>
  translated(options, "epsilon", 1e-5, [], CHANNELS_FIRST, ofOld(0.9), "population");

/** https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/layers.html#flax.linen.BatchNorm */
export const flaxOptions = (options: FlaxOptions): BatchNormOptions =>
  translated(options, "epsilon", 1e-5, ["useScale", "useBias"], LAYOUTS, ofOld(0.99), "population");

/**
 * Does what `translate`, one of the functions above, does with options that do not come from the caller. A file, or a layer
 * of a framework, may have a momentum under which no average ever moves, which `translate` refuses. It is kept, as the
 * weight of the new value, so that it is written again. `train` refuses to move averages by it.
 */
export function keeping<T extends { momentum?: unknown }>(
  translate: (options: T) => BatchNormOptions,
  options: T,
): BatchNormOptions {
  const { momentum } = options;
  if (typeof momentum === "number") {
    const weight = (translate as unknown) === torchOptions ? momentum : 1 - momentum;
    // PyTorch's may be so small that it is lost beside 1.
    if (weight >= 0 && 1 - weight === 1) {
      return { ...translate({ ...options, momentum: undefined }), [WEIGHT]: weight };
    }
  }
  return translate(options);
}
