// Compares results with those of the float64 oracle (oracle.ts), within the limits of limits.ts.

import {
  DBETA_ERROR,
  DGAMMA_ERROR,
  DX_ERROR,
  FLOAT64_ERROR,
  MEAN_ERROR,
  MEAN_ROUNDING,
  VARIANCE_ERROR,
  Y_ERROR,
} from "./limits.js";
import * as oracle from "./oracle.js";

type Floats = Float32Array | Float64Array;
type Values = ArrayLike<number>;

/** All NaN count as the same value; 0 and -0 do not. */
const same: (a: number, b: number) => boolean = Object.is;

/** Throws unless both hold the same bits. */
export function assertSameBits(name: string, actual: Floats, expected: Floats): void {
  if (actual.length !== expected.length) {
    throw new Error(`${name}: expected ${expected.length} values, got ${actual.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    if (!same(actual[i]!, expected[i]!)) {
      throw new Error(`${name}[${i}]: expected ${expected[i]}, got ${actual[i]}`);
    }
  }
}

/** Throws, naming the worst, unless |actual - expected| <= bound for each value. */
export function assertWithin(
  name: string,
  actual: Values,
  expected: Values,
  bound: (i: number) => number,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${name}: expected ${expected.length} values, got ${actual.length}`);
  }
  let worst = -1;
  let most = 1;
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    const limit = bound(i);
    if (error <= limit) continue; // Not `error > limit`, which would let NaN pass.
    const times = error / limit;
    if (worst >= 0 && !(times > most)) continue;
    worst = i;
    most = Number.isNaN(times) ? Number.POSITIVE_INFINITY : times;
  }
  if (worst < 0) return;
  const [got, wanted] = [actual[worst]!, expected[worst]!];
  throw new Error(
    `${name}[${worst}]: expected ${wanted} ± ${bound(worst)}, got ${got}, off by ${Math.abs(got - wanted)}`,
  );
}

// ---- what the limits are shares of --------------------------------------------------------------

/** What a layer computes with. */
export interface Terms {
  mean: Values;
  variance: Values;
  gamma: Values | null;
  beta: Values | null;
  epsilon: number;
}

const channelOf = ({ channels, inner }: oracle.View, i: number): number =>
  Math.floor(i / inner) % channels;

/** What the limit of each y is a share of: max(1, |γ·x̂|, |β|). */
export function unitsOfY(
  x: Values,
  view: oracle.View,
  { mean, variance, gamma, beta, epsilon }: Terms,
): Float64Array {
  const xhat = oracle.standardize(x, view, mean, variance, epsilon);
  return oracle
    .affine(xhat, view, gamma, null)
    .map((scaled, i) => Math.max(1, Math.abs(scaled), Math.abs(beta?.[channelOf(view, i)] ?? 0)));
}

/**
 * What the limits of the gradients of each channel are shares of. For dx it is the largest |γ·dy|/√(σ² + ε). dgamma
 * and dbeta are sums; for them it is the sum of the magnitudes of their terms, Σ|dy|·(|x̂| + ρ) and Σ|dy|, where ρ is
 * what the mean's rounding may add.
 */
export function unitsOfGradients(
  dy: Values,
  x: Values,
  view: oracle.View,
  { mean, variance, gamma, epsilon }: Omit<Terms, "beta">,
): { dx: number[]; dgamma: number[]; dbeta: number[] } {
  const xhat = oracle.standardize(x, view, mean, variance, epsilon);
  const units = { dx: [] as number[], dgamma: [] as number[], dbeta: [] as number[] };
  for (let c = 0; c < view.channels; c++) {
    const root = Math.sqrt(variance[c]! + epsilon);
    const scale = root === 0 ? 0 : Math.abs(gamma?.[c] ?? 1) / root;
    let most = 0;
    let products = 0;
    let magnitudes = 0;
    for (const i of oracle.indices(view, c)) {
      most = Math.max(most, Math.abs(dy[i]!));
      products += Math.abs(dy[i]! * xhat[i]!);
      magnitudes += Math.abs(dy[i]!);
    }
    units.dx.push(scale * most);
    const rounding = root === 0 ? 0 : (MEAN_ROUNDING * Math.abs(mean[c]!)) / root;
    units.dgamma.push(products + rounding * magnitudes);
    units.dbeta.push(magnitudes);
  }
  return units;
}

// ---- a whole pass -------------------------------------------------------------------------------

interface Statistics {
  mean: Values;
  variance: Values;
}

/** Throws unless mean and variance of a mini-batch are within their limits; without any spread, exact. */
export function assertMoments(actual: Statistics, { mean, variance }: Statistics): void {
  assertWithin("mean", actual.mean, mean, (c) => MEAN_ERROR * Math.sqrt(variance[c]!));
  assertWithin("variance", actual.variance, variance, (c) => VARIANCE_ERROR * variance[c]!);
}

/** How far a mean, and a variance, may be from one that another program worked out in float64. */
export function boundsOfMoments(
  mean: number,
  variance: number,
): { mean: number; variance: number } {
  return {
    mean: MEAN_ERROR * Math.sqrt(variance) + FLOAT64_ERROR * Math.abs(mean),
    variance: VARIANCE_ERROR * variance + (FLOAT64_ERROR * mean) ** 2,
  };
}

/** Throws unless y is γ·(x - mean)/√(variance + ε) + β within its limit. */
export function assertNormalized(
  y: Float32Array,
  x: Float32Array,
  view: oracle.View,
  terms: Terms,
): void {
  const { mean, variance, gamma, beta, epsilon } = terms;
  const xhat = oracle.standardize(x, view, mean, variance, epsilon);
  const units = unitsOfY(x, view, terms);
  assertWithin("y", y, oracle.affine(xhat, view, gamma, beta), (i) => Y_ERROR * units[i]!);
}

export interface Gradients<T = Values> {
  dx: T;
  dgamma: T | null;
  dbeta: T | null;
}

export interface GradientOptions {
  /** True if the statistics count as constants. */
  frozen?: boolean;
  /**
   * True for data with outliers. There, dx may be far above the channel's largest |γ·dy|/√(σ²+ε), and so is its
   * rounding to float32; so the bound is relative to the larger of the two.
   */
  outliers?: boolean;
}

/** Throws unless dx, dgamma and dbeta are within their limits. That of a parameter that is left out is null. */
export function assertGradients(
  actual: Gradients,
  dy: Float32Array,
  x: Float32Array,
  view: oracle.View,
  terms: Terms,
  { frozen = false, outliers = false }: GradientOptions = {},
): void {
  const { mean, variance, gamma, epsilon } = terms;
  const expected = oracle.gradient(dy, x, view, mean, variance, gamma, epsilon, frozen);
  const units = unitsOfGradients(dy, x, view, terms);
  assertWithin("dx", actual.dx, expected.dx, (i) => {
    const unit = units.dx[channelOf(view, i)]!;
    return DX_ERROR * (outliers ? Math.max(unit, Math.abs(expected.dx[i]!)) : unit);
  });
  for (const [name, parameter] of [
    ["dgamma", gamma],
    ["dbeta", terms.beta],
  ] as const) {
    const values = actual[name];
    if ((values === null) !== (parameter === null)) {
      throw new Error(`${name}: expected ${parameter ? "values" : "null"}, got ${values}`);
    }
    const limit = name === "dbeta" ? DBETA_ERROR : DGAMMA_ERROR;
    if (values) assertWithin(name, values, expected[name], (c) => limit * units[name][c]!);
  }
}
