// How far from the same formulas in float64 (oracle.ts) results may be. Every limit stands here, once, with
// its reason; the tests, the conformance suite and the benchmark take it from here, and a test holds the
// table of docs/guides/exactness.md to it. A rounding to float32 is off by at most 2^-24 = 6e-8 of the
// number that is rounded. What each limit is a share of, compare.ts works out.

/** Half an ulp of 1 in float32: a rounding is off by at most this share of the number that is rounded. */
const UNIT = 2 ** -24;

/**
 * y of `train` and of `infer`, as a share of max(1, |γ·x̂|, |β|), the largest of the terms that meet in it, on data
 * that nobody built to be bad. The 1 is there for the rounding of x - mean itself.
 */
export const Y_ERROR = 3e-7;

/** The same on any data: proved in docs/guides/exactness.md. y of `train` has half of the variance's error besides. */
export const Y_BOUND = 6.5e-7;
export const Y_INFER_BOUND = 3.6e-7;

/** The mean, in standard deviations, for up to 10⁸ values. */
export const MEAN_ERROR = 5e-7;

/** The variance, relative to its value, on any data: nine roundings. By the square root, half of that reaches y. */
export const VARIANCE_ERROR = 5.5e-7;

/**
 * dx, as a share of the channel's largest |γ·dy|/√(σ² + ε), on data that nobody built to be bad: it goes through
 * twice the roundings of y.
 */
export const DX_ERROR = 1e-6;

/**
 * The same for a channel in which a small share of the values lies far from all others. The x̂ of these values is
 * large, and the error of a sum over the channel is multiplied by it.
 */
export const DX_FAR_ERROR = 2e-6;

/**
 * The same on any data, as a share of the larger of that and the channel's largest |dx|: proved in
 * docs/guides/exactness.md. `product` is max|x̂|·(mean|x̂| + 1.2e-7·|mean|/σ).
 */
export const dxBound = (product: number): number => (51.5 + 7 * product) * UNIT;

/**
 * dgamma, dbeta and the sums behind them, as a share of the sum of their terms' magnitudes: they add float32
 * products and are rounded to float32.
 */
export const SUM_ERROR = 1e-6;

/** dbeta alone, on any data: six roundings. */
export const DBETA_ERROR = 3.6e-7;

/** Two ways to pool the same moments, relative, for up to 2000 parts; they are float64. */
export const POOLING_ERROR = 1e-12;

/**
 * How far two float64 sums of the same few hundred numbers may be apart, relative to them. It matters only if the
 * limits above are 0, as for the mean of a channel whose variance is zero.
 */
export const FLOAT64_ERROR = 1e-14;
