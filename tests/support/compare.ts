// Results against the float64 oracle, with the bounds that the package promises.

import * as oracle from "./oracle.js";

type Floats = Float32Array | Float64Array;

/** Any NaN counts as any NaN; 0 and -0 differ. */
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

/** Throws unless |actual - expected| <= bound for each value. */
export function assertWithin(
  name: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: (i: number) => number,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${name}: expected ${expected.length} values, got ${actual.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    if (!(error <= bound(i))) {
      throw new Error(
        `${name}[${i}]: expected ${expected[i]} ± ${bound(i)}, got ${actual[i]}, off by ${error}`,
      );
    }
  }
}

/** Bounds that the package promises (docs/guides/exactness.md). */
export const Y_ERROR = 5e-7;
export const MEAN_ERROR = 5e-7;
export const VARIANCE_ERROR = 1e-6;
export const DX_ERROR = 1e-6;
/**
 * dgamma and dbeta are sums of float32 products, rounded to float32: this share of the sum of their
 * magnitudes.
 */
export const SUM_ERROR = 1e-6;

export interface Terms {
  mean: ArrayLike<number>;
  variance: ArrayLike<number>;
  gamma: ArrayLike<number> | null;
  beta: ArrayLike<number> | null;
  epsilon: number;
}

/** Mean within 5e-7 sigma, variance within 1e-6 of itself: without any spread both are exact. */
export function assertMoments(
  actual: { mean: ArrayLike<number>; variance: ArrayLike<number> },
  expected: { mean: number[]; variance: number[] },
): void {
  const { mean, variance } = expected;
  assertWithin("mean", actual.mean, mean, (c) => MEAN_ERROR * Math.sqrt(variance[c]!));
  assertWithin("variance", actual.variance, variance, (c) => VARIANCE_ERROR * variance[c]!);
}

/** y = γ·(x - mean)/√(variance + ε) + β to 5e-7·max(1, |γ·x̂|, |β|). */
export function assertNormalized(
  y: Float32Array,
  x: Float32Array,
  view: oracle.View,
  { mean, variance, gamma, beta, epsilon }: Terms,
): void {
  const xhat = oracle.standardize(x, view, mean, variance, epsilon);
  const scaled = oracle.affine(xhat, view, gamma, null);
  const expected = oracle.affine(xhat, view, gamma, beta);
  const channelOf = (i: number): number => Math.floor(i / view.inner) % view.channels;
  assertWithin(
    "y",
    y,
    expected,
    (i) => Y_ERROR * Math.max(1, Math.abs(scaled[i]!), Math.abs(beta?.[channelOf(i)] ?? 0)),
  );
}

export interface Gradients {
  dx: Float32Array;
  dgamma: Float32Array | null;
  dbeta: Float32Array | null;
}

export interface GradientOptions {
  /** The statistics are constants. */
  frozen?: boolean;
  /**
   * Data with outliers: dx itself may be far above the channel's largest |γ·dy|/√(σ²+ε) there,
   * and its own rounding to float32 with it, so that the bound counts from the larger of the two.
   */
  outliers?: boolean;
}

/** dx to 1e-6 of the channel's largest |γ·dy|/√(σ²+ε); dgamma and dbeta as sums. */
export function assertGradients(
  actual: Gradients,
  dy: Float32Array,
  x: Float32Array,
  view: oracle.View,
  { mean, variance, gamma, beta, epsilon }: Terms,
  { frozen = false, outliers = false }: GradientOptions = {},
): void {
  const expected = oracle.gradient(dy, x, view, mean, variance, gamma, epsilon, frozen);
  const xhat = oracle.standardize(x, view, mean, variance, epsilon);
  const largest: number[] = [];
  const products: number[] = [];
  const magnitudes: number[] = [];
  for (let c = 0; c < view.channels; c++) {
    const root = Math.sqrt(variance[c]! + epsilon);
    const scale = root === 0 ? 0 : Math.abs(gamma?.[c] ?? 1) / root;
    let most = 0;
    let product = 0;
    let magnitude = 0;
    for (const i of oracle.indices(view, c)) {
      most = Math.max(most, Math.abs(dy[i]!));
      product += Math.abs(dy[i]! * xhat[i]!);
      magnitude += Math.abs(dy[i]!);
    }
    largest.push(scale * most);
    products.push(product);
    magnitudes.push(magnitude);
  }
  const channelOf = (i: number): number => Math.floor(i / view.inner) % view.channels;
  assertWithin("dx", actual.dx, expected.dx, (i) => {
    const scale = largest[channelOf(i)]!;
    return DX_ERROR * (outliers ? Math.max(scale, Math.abs(expected.dx[i]!)) : scale);
  });
  const sums = (
    name: string,
    values: Float32Array | null,
    parameter: ArrayLike<number> | null,
    reference: number[],
    scale: number[],
  ): void => {
    if ((values === null) !== (parameter === null)) {
      throw new Error(`${name}: expected ${parameter ? "values" : "null"}, got ${values}`);
    }
    if (values) assertWithin(name, values, reference, (c) => SUM_ERROR * scale[c]!);
  };
  sums("dgamma", actual.dgamma, gamma, expected.dgamma, products);
  sums("dbeta", actual.dbeta, beta, expected.dbeta, magnitudes);
}
