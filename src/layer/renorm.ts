// Batch renormalization (Ioffe 2017, "Batch Renormalization: Towards Reducing Minibatch Dependence in
// Batch-Normalized Models", algorithm 1): training normalizes by something nearer to the running averages, as far as
// limits allow, so that it does at test time what it did in training.

import { checkKeys, describe, OptionError } from "../errors.js";
import { changed, type JsonNumber, named, toNumber } from "../values/json.js";
import {
  type AverageUpdate,
  type Correction,
  checkVariances,
  type Statistics,
} from "../values/terms.js";

/**
 * How far `train` may correct x̂ towards the running averages: r within [rmin, rmax], d within [-dmax, dmax], in
 * y = γ·(r·x̂ + d) + β. Ioffe 2017 begins with rmax 1 and dmax 0, which is plain batch normalization, and relaxes
 * them step by step to rmax 3 and dmax 5.
 */
export interface Renorm {
  /** The largest r, >= 1; may be Infinity. */
  readonly rmax: number;
  /** The largest |d|, >= 0, in standard deviations; may be Infinity. */
  readonly dmax: number;
  /** The least r, 0 <= rmin <= 1. Default 1/rmax. */
  readonly rmin?: number;
  /**
   * Weight of the OLD value, 0 to 1, in averages of renormalization's own, which r and d then come from: `bn.renormMean`
   * and `bn.renormDeviation`. They move whenever the running averages do, by 1 - decay, whatever the layer's `decay` and
   * `debias` are. They are those of Keras 3, and this is its `renorm_momentum`
   * (keras/src/layers/normalization/batch_normalization.py). As in Keras, the running variance then is an average of
   * deviations too: √(running variance + ε) moves towards √(new + ε). Default: none; r and d come from the running
   * averages.
   */
  readonly decay?: number;
}

/** Batch renormalization as `bn.renorm` gives it: with rmin, and with `decay` where it was given. */
export interface Renormalization extends Renorm {
  /** The least r, 0 <= rmin <= 1. */
  readonly rmin: number;
}

/** The same in JSON, where numbers that JSON lacks are texts. */
export type RenormJSON = { readonly [K in keyof Renormalization]: JsonNumber };

/** Returns it with the default of rmin filled in, `null` for none; throws OptionError for anything else. */
export function checkRenorm(value: unknown): Renormalization | null {
  if (value === undefined || value === null) return null;
  checkKeys("renorm", value, ["rmax", "dmax", "rmin", "decay"]);
  const { rmax, dmax, rmin, decay } = value as Record<keyof Renorm, unknown>;
  const within = (name: string, given: unknown, least: number, most: number): number => {
    if (typeof given === "number" && given >= least && given <= most) return given;
    throw new OptionError(`renorm.${name}`, `a number from ${least} to ${most}`, describe(given));
  };
  const highest = within("rmax", rmax, 1, Infinity);
  return Object.freeze({
    rmax: highest,
    dmax: within("dmax", dmax, 0, Infinity),
    rmin: rmin === undefined ? 1 / highest : within("rmin", rmin, 0, 1),
    ...(decay === undefined ? {} : { decay: within("decay", decay, 0, 1) }),
  });
}

/** Limits as JSON has them. */
export const writeRenorm = (limits: Renormalization): RenormJSON =>
  changed(limits, toNumber) as RenormJSON;

/** The limits that `writeRenorm` wrote; `null` for none. Throws OptionError for anything else. */
export const readRenorm = (value: unknown): Renormalization | null =>
  checkRenorm(Object(value) === value ? changed(value as object, named) : value);

/** The averages that batch renormalization has of its own, [channels], and the weight of the old value in them. */
interface OwnAverages {
  readonly decay: number;
  readonly renormMean: Float64Array;
  readonly renormDeviation: Float64Array;
}

/** Those of a layer, `null` if `renorm` has none. Throws StateError if a user transferred their buffers. */
export function ownAverages(
  renorm: Renormalization | null,
  averages: Omit<OwnAverages, "decay">,
): OwnAverages | null {
  const decay = renorm?.decay;
  if (decay === undefined) return null;
  const { renormMean, renormDeviation } = averages;
  return { decay, renormMean, renormDeviation };
}

/**
 * r = σ/s and d = (μ - mean)/s within their limits, where μ and σ = √(variance + ε) are those of the mini-batch. The
 * mean and s = √(variance + ε) come from the running averages, or from averages of its own, of which s is taken as at
 * least √ε. Where s is 0, the averages say nothing: r is 1 and d is 0, as without renormalization.
 * Throws StateError for an invalid variance or deviation.
 */
export function correctionOf(
  batch: Statistics & { readonly meanLow: Float64Array },
  running: Statistics,
  own: OwnAverages | null,
  epsilon: number,
  { rmax, dmax, rmin }: Renormalization,
): Correction {
  checkVariances(running.variance);
  if (own) checkVariances(own.renormDeviation, "renormDeviation");
  const mean = own ? own.renormMean : running.mean;
  const r = new Float64Array(batch.mean.length);
  const d = new Float64Array(r.length);
  for (let c = 0; c < r.length; c++) {
    const s = own
      ? Math.max(own.renormDeviation[c]!, Math.sqrt(epsilon))
      : Math.sqrt(running.variance[c]! + epsilon);
    const ratio = Math.sqrt(batch.variance[c]! + epsilon) / s;
    const apart = (batch.mean[c]! - mean[c]! + batch.meanLow[c]!) / s;
    r[c] = s === 0 ? 1 : Math.min(rmax, Math.max(rmin, ratio));
    d[c] = s === 0 ? 0 : Math.min(dmax, Math.max(-dmax, apart));
  }
  return { r, d };
}

/**
 * Moves averages of its own and the running ones towards the mean and the deviation of a mini-batch. The running
 * variances have to be valid, since their roots are taken.
 */
export function moveDeviations(
  { decay, renormMean, renormDeviation }: OwnAverages,
  { runningMean, runningVariance, weight, bessel }: AverageUpdate,
  { mean, variance }: Statistics,
  epsilon: number,
): void {
  for (let c = 0; c < mean.length; c++) {
    const deviation = Math.sqrt(variance[c]! + epsilon);
    renormMean[c] = moved(renormMean[c]!, mean[c]!, 1 - decay);
    renormDeviation[c] = moved(renormDeviation[c]!, deviation, 1 - decay);
    runningMean[c] = moved(runningMean[c]!, mean[c]!, weight);
    const to = bessel * variance[c]!;
    runningVariance[c] = movedVariance(runningVariance[c]!, to, weight, epsilon);
  }
}

/** At weight 1 it is exactly the new value. By the formula it might not be: 1 + (1e-30 - 1) is 0. */
const moved = (from: number, to: number, weight: number): number =>
  weight === 1 ? to : from + weight * (to - from);

/**
 * The variance whose √(variance + ε) is `weight` of the way from that of one variance to that of another. The average of
 * the deviations R and S has the square (1 - w)²·R² + 2·w·(1 - w)·R·S + w²·S². Here ε is taken from each part of it and
 * not from the sum, because a variance that is small beside ε would lose its digits in that difference.
 */
function movedVariance(from: number, to: number, weight: number, epsilon: number): number {
  const product = Math.sqrt(from + epsilon) * Math.sqrt(to + epsilon);
  const sum = product + epsilon;
  // R·S - ε, as (R²·S² - ε²)/(R·S + ε).
  const middle = sum === 0 ? 0 : from * ((to + epsilon) / sum) + to * (epsilon / sum);
  const rest = 1 - weight;
  return rest * rest * from + 2 * rest * weight * middle + weight * weight * to;
}
