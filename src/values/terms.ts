// The types that pass between a layer and the engine: what a layer normalizes with, and what kernels make of it.

import { StateError } from "../errors.js";
import type { Limits } from "./activation.js";
import { isFloat64Array, sizeIn, type Typed } from "./arrays.js";
import { notRaw } from "./raw.js";

/** Mean and variance per channel. */
export interface Statistics {
  /** [channels], in the unit of the values. */
  readonly mean: Float64Array;
  /** [channels], in the unit of the values squared. */
  readonly variance: Float64Array;
}

/** Statistics that were worked out elsewhere. */
export interface Given extends Statistics {
  /** What float64 rounds off the mean, [channels], where it is known. */
  readonly meanLow?: Float64Array | null;
}

/**
 * What batch renormalization makes of a normalized value, r·x̂ + d (Ioffe 2017, "Batch Renormalization: Towards Reducing
 * Minibatch Dependence in Batch-Normalized Models", algorithm 1). Both are constants of the gradient; [channels].
 */
export interface Correction {
  readonly r: Float64Array;
  readonly d: Float64Array;
}

/** Everything in y = γ·(x - mean)/√(variance + ε) + β other than x; with a correction y = γ·(r·x̂ + d) + β. */
export interface Normalizer extends Statistics {
  /** The range of the activation; `null` if there is none. */
  readonly limits: Limits | null;
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly epsilon: number;
  /** What float64 rounds off the mean, where it is known. */
  readonly meanLow: Float64Array | null;
  /** `null` without batch renormalization. */
  readonly correction: Correction | null;
}

/** What kernels take instead, worked out once per channel: y = (x - center)·scale + shift. */
export interface AffineTerms {
  /** The range of the activation; `null` if there is none. */
  readonly limits: Limits | null;
  /** float32(mean), [channels]. */
  readonly center: Float32Array;
  /** γ/√(variance + ε), [channels]. */
  readonly scale: Float32Array;
  /** β - (mean - center)·scale, [channels]. */
  readonly shift: Float32Array;
}

const MOST = 2 ** 128 - 2 ** 104;

/** 1/√(variance + ε). It is 0 where both are 0, so that a channel without any spread gives beta. */
export function inverseDeviation({ variance, epsilon }: Normalizer, c: number): number {
  const square = variance[c]! + epsilon;
  return square === 0 ? 0 : 1 / Math.sqrt(square);
}

/** γ·r/√(variance + ε) within the range of float32, since an infinite scale times x - mean = 0 would be NaN. */
export function scaleOf(normalizer: Normalizer, c: number): number {
  const { gamma, correction } = normalizer;
  const inverse = inverseDeviation(normalizer, c);
  const scale = correction === null ? inverse : inverse * correction.r[c]!;
  return Math.max(-MOST, Math.min(MOST, scale * (gamma === null ? 1 : gamma[c]!)));
}

/**
 * Writes the terms of `n` channels from `first` on into the first places of arrays: the same formula, bit for bit, as
 * `scaleShift` of assembly/channel.ts, in JavaScript. A layer can be frozen so before any kernels have been started,
 * and a correction needs no kernel of its own.
 */
export function writeTerms(
  { center, scale, shift }: Pick<AffineTerms, "center" | "scale" | "shift">,
  normalizer: Normalizer,
  first: number,
  n: number,
): void {
  const { mean, meanLow, gamma, beta, correction } = normalizer;
  for (let i = 0; i < n; i++) {
    const c = first + i;
    const s = scaleOf(normalizer, c);
    const b = beta === null ? 0 : beta[c]!;
    const moved = correction === null ? b : b + (gamma === null ? 1 : gamma[c]!) * correction.d[c]!;
    center[i] = mean[c]!;
    scale[i] = s;
    shift[i] = moved - (mean[c]! - center[i]! + (meanLow === null ? 0 : meanLow[c]!)) * s;
  }
}

/** How running averages move towards a batch: running += weight·(batch - running). */
export interface AverageUpdate {
  readonly runningMean: Float64Array;
  readonly runningVariance: Float64Array;
  readonly weight: number;
  /**
   * The batch's population variance is multiplied by this first: by m/(m - 1), Bessel's correction, to make it a sample
   * variance, or by 1.
   */
  readonly bessel: number;
}

/** Which values of y are above 0, as `train` keeps it for `backward` (assembly/bits.ts). */
export interface Bits {
  /** A bit for each value, in their order; eight are a byte. */
  readonly array: Uint8Array;
  /** How many values a traversal has gone through; NaN if one above 0 was not finite, which has no gradient. */
  at: number;
  /** γ and β of the `train`: with other ones, `backward` would work out other values. */
  readonly gamma: Float32Array;
  readonly beta: Float32Array;
}

/** What `backward` returns. */
export interface Gradients<Out extends Float32Array = Float32Array> {
  /** ∂loss/∂x, in the shape of x. */
  readonly dx: Out;
  /** ∂loss/∂γ, one per channel; `null` where gamma is left out. */
  readonly dgamma: Out | null;
  /** ∂loss/∂β, one per channel; `null` where beta is left out. */
  readonly dbeta: Out | null;
  /** ∂loss/∂add, in the shape of x; `null` if nothing was added. */
  readonly dadd: Out | null;
}

/** Returns an array that an object holds. Throws StateError if a user transferred its buffer, so that it has no values. */
export function present<A extends Typed | null>(name: string, array: A): A {
  if (array !== null && sizeIn(array) < 0) {
    throw new StateError(name, "its values", "none: its buffer was transferred");
  }
  return array;
}

/**
 * Returns `value`, which holds arrays of these names, unless one of them is not `present`. Throws StateError if it is a
 * proxy that puts one before each array too.
 */
export function whole<K extends string, T extends Readonly<Record<K, Float64Array>>>(
  value: T,
  keys: readonly K[],
): T {
  for (const key of keys) {
    if (!isFloat64Array(value[key])) throw notRaw();
    present(key, value[key]);
  }
  return value;
}

export const isVariance = (value: number): boolean => value >= 0 && value < Infinity;

/** Throws StateError if the variance of any channel is negative or not finite. `name` is what users call the array. */
export function checkVariances(variance: Float64Array, name?: string): void {
  for (let c = 0; c < variance.length; c++) checkVariance(variance, c, name);
}

/** Throws StateError if a channel's variance is negative or not finite. */
export function checkVariance(
  variance: Float64Array,
  channel: number,
  name = "runningVariance",
): void {
  const value = variance[channel]!;
  if (!isVariance(value)) {
    throw new StateError(name, "finite numbers >= 0", `${value} for channel ${channel}`);
  }
}
