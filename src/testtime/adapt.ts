// Test-time adaptation: the statistics of shifted targets, with the running averages as a prior
// (Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
// adaptation", section 3, eq. 2).

import { checkKeys, describe, OptionError, SingleValueError } from "../errors.js";
import { type FrozenBatchNorm, freeze } from "../frozen/frozen-batch-norm.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import type { MomentsOptions } from "../layer/options.js";
import { lengthOf } from "../values/arrays.js";
import { noShape, sizesOf } from "../values/layout.js";
import type { Moments } from "../values/moments.js";
import { checkVariance, type Given, type Statistics } from "../values/terms.js";
import { addTo } from "../values/two-sum.js";
import { checkLayer } from "./layer.js";

/** Options of `adapt`. */
export interface AdaptOptions {
  /** How many examples the running averages count as, >= 0; may be Infinity. */
  prior: number;
  /** Sizes of the axes of `x`. May be left out for `"NC"`, where each row is an example. */
  shape?: readonly number[];
  /** Which of x is data, as in `train`. */
  mask?: Uint8Array;
}

/**
 * Test-time adaptation to data that differ from those of training: returns a frozen copy of the layer whose
 * mean is w·(running mean) + (1 - w)·(mean of x), with w = prior/(prior + n) for n examples in x. The variance
 * is mixed in the same way, with the population variance of x (Schneider et al. 2020, eq. 2). The layer is
 * unchanged. With prior 0 the copy normalizes x as `train` would, with Infinity as `infer`.
 *
 * @param bn the layer, as it was trained.
 * @param x targets, float32 in the layer's layout.
 * @throws OptionError if `bn` is no layer, or without a prior; ShapeError without a shape in all layouts but
 * `"NC"`, where the length alone does not tell the number of examples; SingleValueError for prior 0 and one value
 * per channel; StateError for an invalid running variance; otherwise as `bn.moments`.
 */
export function adapt(bn: BatchNorm, x: Float32Array, options: AdaptOptions): FrozenBatchNorm {
  checkLayer(bn);
  checkKeys("options", options, ["prior", "shape", "mask"]);
  const prior = examplesOf("prior", options.prior, 0);
  const { moments, examples } = targetOf(bn, x, options);
  checkSpread(prior, moments.count);
  return freeze(bn, blend(bn, moments, prior, examples));
}

/** Returns `value` if it is a number of examples, which may be infinite; throws OptionError if not. */
export function examplesOf(name: string, value: unknown, least: number): number {
  if (typeof value !== "number" || !(value >= least)) {
    throw new OptionError(name, `a number of examples >= ${least}, or Infinity`, describe(value));
  }
  return value;
}

/**
 * The moments of targets, and how many examples these are. They are written into the arrays of `into`, if there is at
 * least one example, or into new ones.
 */
export function targetOf(
  bn: BatchNorm,
  x: Float32Array,
  { shape: given, mask }: MomentsOptions,
  into?: Moments,
): { moments: Moments; examples: number } {
  const shape = sizesOf(given);
  const { layout, channels } = bn;
  if (layout !== "NC" && shape === undefined) throw noShape(layout);
  const moments = bn.momentsInto(x, shape, mask, into);
  const all = shape?.[0] ?? lengthOf(x) / channels;
  // Examples all of whose positions are padding say nothing, so they do not count.
  if (moments.count === 0) return { moments, examples: 0 };
  return { moments, examples: mask === undefined ? all : examplesIn(mask, all) };
}

/** How many of `all` examples have a position that a mask marks as data. */
function examplesIn(mask: Uint8Array, all: number): number {
  const positions = lengthOf(mask) / all;
  let held = 0;
  for (let example = 0; example < all; example++) {
    let p = example * positions;
    const end = p + positions;
    while (p < end && mask[p] === 0) p++;
    if (p < end) held++;
  }
  return held;
}

/** Throws if a target has `count` = 1 value per channel and no prior: its own variance would be 0. */
export function checkSpread(prior: number, count: number): void {
  if (prior > 0 || count !== 1) return;
  throw new SingleValueError(
    "x",
    "at least two values per channel for prior 0",
    "one, whose variance says nothing",
  );
}

/** What `blend` writes. */
export interface Blend extends Statistics {
  /** What float64 rounds off the mean, [channels]. */
  readonly meanLow: Float64Array;
}

/** Arrays for `blend`. */
export function zeroBlend(channels: number): Blend {
  const array = (): Float64Array => new Float64Array(channels);
  return { mean: array(), meanLow: array(), variance: array() };
}

/** w·averages + (1 - w)·target, with w = prior/(prior + examples), in the arrays of `into` or in new ones. */
export function blend(
  { runningMean, runningVariance, channels }: BatchNorm,
  target: Moments | null,
  prior: number,
  examples: number,
  into = zeroBlend(channels),
): Given {
  // Without examples there is nothing to adapt to, and no number of examples moves an infinite prior.
  const w = examples === 0 || prior === Infinity ? 1 : prior / (prior + examples);
  if (target === null || w === 1) return { mean: runningMean, variance: runningVariance };
  const { mean, meanLow, variance } = into;
  for (let c = 0; c < channels; c++) {
    // Checked before the mixing, since the target's variance could make up for one below 0.
    checkVariance(runningVariance, c);
    const own = target.mean[c]!;
    addTo(mean, meanLow, c, own, w * (runningMean[c]! - own), (1 - w) * target.meanLow[c]!);
    variance[c] = w * runningVariance[c]! + (1 - w) * (target.m2[c]! / target.count);
  }
  return into;
}
