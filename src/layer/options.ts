// Options of the layer and of its methods: their types, and the check of those of the layer, which is made once.

import { checkKernels, type Kernels } from "../engine/kernels.js";
import { checkKeys, describe, OptionError } from "../errors.js";
import { type Activation, checkActivation } from "../values/activation.js";
import { choice, epsilonOf, flag, number } from "../values/check.js";
import { checkLayout, LAYOUTS, type Layout } from "../values/layout.js";
import {
  asMoments,
  checkMeans,
  type GradientSumsLike,
  type Moments,
  type MomentsLike,
  VARIANCES,
  type VarianceKind,
} from "../values/moments.js";
import type { Batch, StatisticsKind } from "./batch.js";
import { checkRenorm, type Renorm, type Renormalization } from "./renorm.js";

/**
 * The key of an option that only this package can give: the weight of the new value in the running averages, from which
 * `decay` then follows. PyTorch's momentum may be so small that 1 - momentum loses its digits, and a file may have a
 * weight of 0, with which no average ever moves.
 */
export const WEIGHT = /* @__PURE__ */ Symbol("weight");

/** Options of `new BatchNorm`. */
export interface BatchNormOptions {
  /** Order of the axes of the data. Default `"NC"`. */
  layout?: Layout;
  /** Added to the variance under the square root, >= 0, in the unit of the data squared. Default 1e-5. */
  epsilon?: number;
  /**
   * Weight of the OLD value in the running averages, 0 <= decay < 1, or `"cumulative"`: the plain
   * average over all mini-batches so far. Default 0.9. (PyTorch's momentum is 1 - decay.)
   */
  decay?: number | "cumulative";
  /**
   * True takes the share of the initial 0 and 1 out of early averages (as Kingma & Ba 2015, "Adam", section 3,
   * do with their moments). Default false. Changes nothing with `"cumulative"`, which has no such share.
   */
  debias?: boolean;
  /**
   * Which variance of a mini-batch of m values per channel enters the running average: `"sample"` divides by
   * m - 1, as in the paper (algorithm 2, line 10) and in PyTorch; `"population"` divides by m, as in Keras, ONNX
   * and Flax. Default `"sample"`.
   */
  runningVarianceOf?: VarianceKind;
  /** False leaves the scale out. Default true. */
  gamma?: boolean;
  /** False leaves the shift out. Default true. */
  beta?: boolean;
  /**
   * Limits γ·x̂ + β, and the residual that is added to it if there is one, to a range in the same pass: `"relu"` is
   * [0, Infinity], `"relu6"` [0, 6]; of [low, high], in the unit of y, low < high, and either may be infinite. They are
   * rounded to float32. Default: none.
   */
  activation?: Activation | null;
  /**
   * Batch renormalization (Ioffe 2017): training by `"batch"` then corrects x̂ towards the running averages, or
   * towards averages of its own, within these limits. Default: none. It can be changed between steps: `bn.renorm`.
   */
  renorm?: Renorm | null;
  /** Kernels of your own, for tensors in their memory. Default: one shared instance per realm. */
  kernels?: Kernels;
  /** @internal */
  [WEIGHT]?: number | undefined;
}

/** Options with every default filled in, as a layer has them now. */
export interface Settings {
  readonly layout: Layout;
  readonly epsilon: number;
  readonly decay: number | "cumulative";
  /** The weight of the new value in the running averages, if that is not 1 - decay. */
  readonly [WEIGHT]: number | undefined;
  readonly debias: boolean;
  readonly runningVarianceOf: VarianceKind;
  readonly gamma: boolean;
  readonly beta: boolean;
  readonly activation: Activation | null;
  /** Batch renormalization, which users may change between steps. */
  renorm: Renormalization | null;
  /** Undefined for the shared ones, until they are needed. */
  kernels: Kernels | undefined;
}

/** The options that every snapshot states, and every record of a layer in a file. */
export const RECORDED = ["layout", "epsilon", "decay", "debias", "runningVarianceOf"] as const;

const decayOf = (decay: unknown): number | "cumulative" =>
  decay === "cumulative"
    ? decay
    : number("decay", decay, 0.9, '0 <= decay < 1 or "cumulative"', (d) => d >= 0 && d < 1);

// Names of options in other packages, in small letters and without underscores, and what they are called here. The
// tables have no prototype of their own, in which `constructor` would be found.

/** For all layers, those of the factories too. */
export const METHODS: Readonly<Record<string, unknown>> = {
  __proto__: null,
  axis: "layout",
  trackrunningstats: "train with { updateRunning }",
  trainingmode: "train or infer",
};

/** For layers that are made with the names of this package. What is not here is looked for in METHODS. */
const NAMES: typeof METHODS = {
  __proto__: METHODS,
  eps: "epsilon",
  momentum: "decay (1 - momentum in PyTorch), or a factory such as BatchNorm.torch",
  affine: "gamma and beta",
  scale: "gamma",
  usescale: "gamma",
  center: "beta",
  usebias: "beta",
};

/** What an option of another package is called here; undefined if it has no place. */
export const oursOf = (names: typeof METHODS, key: string): unknown =>
  names[key.toLowerCase().replaceAll("_", "")];

export function settingsOf(options: BatchNormOptions): Settings {
  checkKeys(
    "options",
    options,
    [...RECORDED, "gamma", "beta", "activation", "renorm", "kernels"],
    (key) => oursOf(NAMES, key),
  );
  return completed(options);
}

/** Checks options other than for their names, and fills in defaults. */
export function completed(options: BatchNormOptions): Settings {
  const { layout, decay, kernels, [WEIGHT]: weight } = options;
  return {
    layout: layout === undefined ? "NC" : checkLayout(layout, LAYOUTS),
    epsilon: epsilonOf("epsilon", options.epsilon, 1e-5),
    decay: weight === undefined ? decayOf(decay) : 1 - weight,
    [WEIGHT]: weight,
    debias: flag("debias", options.debias, false),
    runningVarianceOf: choice("runningVarianceOf", options.runningVarianceOf, "sample", VARIANCES),
    gamma: flag("gamma", options.gamma, true),
    beta: flag("beta", options.beta, true),
    activation: checkActivation(options.activation),
    renorm: checkRenorm(options.renorm),
    kernels: checkKernels(kernels),
  };
}

/** Checks what `train` is to normalize by; moments are copied. */
export function statisticsOf(value: unknown = "batch", channels: number): StatisticsKind | Moments {
  if (value === "batch" || value === "running") return value;
  if (typeof value === "object" && value !== null) {
    return checkMeans("statistics", asMoments("statistics", value, channels));
  }
  throw new OptionError("statistics", '"batch", "running" or Moments', describe(value));
}

/** Options of `train`. */
export interface TrainOptions<Out extends Float32Array = Float32Array> {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Where the result goes, of x's length; may be x or `add` itself. Default: a fresh array. */
  out?: Out;
  /**
   * Says which positions of x hold data: one entry per example and position, row-major (N, then the spatial
   * axes), nonzero for data. All else is padding. It takes no part, even if it or `add` holds NaN there, and its
   * outputs are the activation of beta.
   */
  mask?: Uint8Array;
  /**
   * What to normalize by: the mini-batch's own statistics (`"batch"`, the default); the running averages
   * (`"running"`), as a frozen layer does; or, if a batch is split over workers, the moments of all its parts,
   * merged.
   */
  statistics?: StatisticsKind | MomentsLike;
  /** False leaves the running averages and `batchesSeen` alone. Default true. */
  updateRunning?: boolean;
  /**
   * A residual in the shape of x, added to γ·x̂ + β before the activation. `out` may be it. `lastBatch` refers to it:
   * leave it unchanged until `backward`. With a ReLU the layer may keep a bit for each value of this step and of the one
   * before, outside of kernel memory: together 1/16 of the bytes of x, as long as the layer lives. Default: none.
   */
  add?: Float32Array;
}

/** Options of `backward`. */
export interface BackwardOptions<Out extends Float32Array = Float32Array> {
  /** The `lastBatch` of the `train` to differentiate. Default: the layer's `lastBatch` now. */
  batch?: Batch;
  /** The input of that `train`, in the shape of dy. Needed if the `train` was in place, and overwrote it. */
  x?: Float32Array;
  /** What that `train` added, in the shape of dy. Needed if it has been overwritten by `out`. */
  add?: Float32Array;
  /** Arrays to fill and return. Default: fresh ones. */
  out?: {
    /** In the shape of x; may be `dy`. */
    dx?: Out;
    /** [channels]. */
    dgamma?: Out;
    /** [channels]. */
    dbeta?: Out;
    /** In the shape of x, if `train` was given `add`; may be `dy`. */
    dadd?: Out;
  };
  /**
   * Needed if a batch is split over workers: what `backwardSums` gave for each of its parts, merged. dgamma and
   * dbeta are then those of the whole batch.
   */
  sums?: GradientSumsLike;
}

/** Options of `backwardSums`. */
export type BackwardSumsOptions = Pick<BackwardOptions, "batch" | "x" | "add">;

/** Options of `moments` and `diagnose`. */
export interface MomentsOptions {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Which of x is data, as in `train`. */
  mask?: Uint8Array;
}
