// Batch renormalization (Ioffe 2017, "Batch Renormalization: Towards Reducing Minibatch Dependence in
// Batch-Normalized Models", algorithm 1): training normalizes by something nearer to the running averages, as far as
// limits allow, so that it does at test time what it did in training.

import { checkKeys, describe, OptionError } from "../errors.js";
import { changed, type JsonNumber, named, toNumber } from "../values/json.js";
import { type Correction, checkVariances, type Statistics } from "../values/terms.js";

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
}

/** The limits in JSON, where numbers that JSON lacks are texts. */
export type RenormJSON = { readonly [K in keyof Renorm]-?: JsonNumber };

/** Returns limits with their default filled in, `null` for none; throws OptionError for anything else. */
export function checkRenorm(value: unknown): Required<Renorm> | null {
  if (value === undefined || value === null) return null;
  checkKeys("renorm", value, ["rmax", "dmax", "rmin"]);
  const { rmax, dmax, rmin } = value as Record<keyof Renorm, unknown>;
  const within = (name: string, given: unknown, least: number, most: number): number => {
    if (typeof given === "number" && given >= least && given <= most) return given;
    throw new OptionError(`renorm.${name}`, `a number from ${least} to ${most}`, describe(given));
  };
  const highest = within("rmax", rmax, 1, Infinity);
  return Object.freeze({
    rmax: highest,
    dmax: within("dmax", dmax, 0, Infinity),
    rmin: rmin === undefined ? 1 / highest : within("rmin", rmin, 0, 1),
  });
}

/** Limits as JSON has them. */
export const writeRenorm = (limits: Required<Renorm>): RenormJSON =>
  changed(limits, toNumber) as RenormJSON;

/** The limits that `writeRenorm` wrote; `null` for none. Throws OptionError for anything else. */
export const readRenorm = (value: unknown): Required<Renorm> | null =>
  checkRenorm(Object(value) === value ? changed(value as object, named) : value);

/**
 * r = σ/s and d = (μ - running mean)/s within their limits, where σ = √(variance + ε) of the mini-batch and
 * s = √(running variance + ε). Where s is 0, the averages say nothing: r is 1 and d is 0, as without renormalization.
 * Throws StateError for an invalid running variance.
 */
export function correctionOf(
  batch: Statistics & { readonly meanLow: Float64Array },
  running: Statistics,
  epsilon: number,
  { rmax, dmax, rmin }: Required<Renorm>,
): Correction {
  checkVariances(running.variance);
  const r = new Float64Array(batch.mean.length);
  const d = new Float64Array(r.length);
  for (let c = 0; c < r.length; c++) {
    const s = Math.sqrt(running.variance[c]! + epsilon);
    const ratio = Math.sqrt(batch.variance[c]! + epsilon) / s;
    const apart = (batch.mean[c]! - running.mean[c]! + batch.meanLow[c]!) / s;
    r[c] = s === 0 ? 1 : Math.min(rmax, Math.max(rmin, ratio));
    d[c] = s === 0 ? 0 : Math.min(dmax, Math.max(-dmax, apart));
  }
  return { r, d };
}
