// The types that pass between a layer and the engine: what a layer normalizes with, and what kernels make of it.

import { StateError } from "../errors.js";
import type { Limits } from "./activation.js";
import { sizeIn, type Typed } from "./arrays.js";

/** Mean and variance per channel. */
export interface Statistics {
  /** [channels], in the unit of the values. */
  readonly mean: Float64Array;
  /** [channels], in the unit of the values squared. */
  readonly variance: Float64Array;
}

/** Everything in y = γ·(x - mean)/√(variance + ε) + β other than x. */
export interface Normalizer extends Statistics {
  /** The range of the activation; `null` if there is none. */
  readonly limits: Limits | null;
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly epsilon: number;
  /** What float64 rounds off the mean, where it is known. */
  readonly meanLow: Float64Array | null;
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

/** How running averages move towards a batch: running += weight·(batch - running). */
export interface AverageUpdate {
  readonly runningMean: Float64Array;
  readonly runningVariance: Float64Array;
  readonly weight: number;
  /** The batch's population variance is multiplied by this first: by m/(m - 1) to make it a sample variance. */
  readonly correction: number;
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

/** Returns `value`, which holds arrays of these names, unless one of them is not `present`. */
export function whole<K extends string, T extends Readonly<Record<K, Float64Array>>>(
  value: T,
  keys: readonly K[],
): T {
  for (const key of keys) present(key, value[key]);
  return value;
}

export const isVariance = (value: number): boolean =>
  value >= 0 && value < Number.POSITIVE_INFINITY;

/** Throws StateError if a channel's variance is negative or not finite. */
export function checkVariance(variance: Float64Array, channel: number): void {
  const value = variance[channel]!;
  if (!isVariance(value)) {
    throw new StateError(
      "runningVariance",
      "finite numbers >= 0",
      `${value} for channel ${channel}`,
    );
  }
}
