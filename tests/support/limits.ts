// How far from the same formulas in float64 (oracle.ts) results may be. Every limit stands here, once, with
// its reason; the tests, the conformance suite and the benchmark take it from here, and a test holds the
// table of docs/guides/exactness.md to it. A rounding to float32 is off by at most 2^-24 = 6e-8 of the
// number that is rounded. What each limit is a share of, compare.ts works out.

/**
 * y, as a share of max(1, |γ·x̂|, |β|), the largest of the terms that meet in it: some eight roundings. The 1
 * is there for the rounding of x - mean itself.
 */
export const Y_ERROR = 5e-7;

/** The mean, in standard deviations. It moves y by no more than Y_ERROR allows. */
export const MEAN_ERROR = 5e-7;

/** The variance, relative to its value. By the square root, half of that reaches y. */
export const VARIANCE_ERROR = 1e-6;

/** dx, as a share of the channel's largest |γ·dy|/√(σ² + ε): it goes through twice the roundings of y. */
export const DX_ERROR = 1e-6;

/**
 * The same for a channel in which a few values lie far from all others. The x̂ of these values is large, and the
 * error of a sum over the channel is multiplied by it.
 */
export const DX_FAR_ERROR = 2e-6;

/**
 * dgamma, dbeta and the sums behind them, as a share of the sum of their terms' magnitudes: they add float32
 * products and are rounded to float32.
 */
export const SUM_ERROR = 1e-6;

/** Two ways to pool the same moments, relative; they are float64. */
export const POOLING_ERROR = 1e-12;

/**
 * How far two float64 sums of the same few hundred numbers may be apart, relative to them. It matters only if the
 * limits above are 0, as for the mean of a channel whose variance is zero.
 */
export const FLOAT64_ERROR = 1e-14;
