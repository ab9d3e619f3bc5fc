// How far from the same formulas in float64 (oracle.ts) results may be. Every limit stands here, once, with
// its reason; the tests, the conformance suite and the benchmark take it from here, and a test holds the
// table of docs/guides/exactness.md to it. A rounding to float32 is off by at most 2^-24 = 6e-8 of the
// number that is rounded. What each limit is a share of, compare.ts works out.

/** Half an ulp of 1 in float32: a rounding is off by at most this share of the number that is rounded. */
const UNIT = 2 ** -24;

/**
 * y of `train` and of `infer`, as a share of max(1, |γ·x̂|, |β|), the largest of the terms that meet in it: what is
 * usual, and what the random data of the tests stay below. It is no maximum: of 10⁷ to 10⁸ normal values, about one is
 * beyond it. The 1 is there for the rounding of x - mean itself.
 */
export const Y_ERROR = 3e-7;

/**
 * The same where β is about as large as γ·x̂: no larger share of ordinary data is beyond Y_ERROR, and by no more. The
 * numbers that are rounded on the way are all about as large as the largest of the terms then.
 */
export const Y_OFFSET_SHARE = 1 / 40_000;
export const Y_OFFSET_ERROR = 4e-7;

/** The same on any data: proved in docs/guides/exactness.md. y of `train` has half of the variance's error besides. */
export const Y_BOUND = 6.5e-7;
export const Y_INFER_BOUND = 3.6e-7;

/** The mean, in standard deviations, for up to 10⁷ values. */
export const MEAN_ERROR = 5e-7;

/** The variance, relative to its value, on any data: nine roundings. By the square root, half of that reaches y. */
export const VARIANCE_ERROR = 5.5e-7;

/**
 * dx, as a share of the channel's largest |γ·dy|/√(σ² + ε), as is usual where no value lies far from all others: it
 * goes through twice the roundings of y. Of random channels with no |x̂| above 16, none was above 5.1e-7.
 */
export const DX_ERROR = 1e-6;

/**
 * The same for a channel in which a small share of the values lies far from all others. The x̂ of these values is
 * large, and the error of a sum over the channel is multiplied by it. That error may be one rounding of every term,
 * always in the same direction: all x of a binade are rounded alike when the center is subtracted. `product` is
 * max|x̂|·mean|x̂|. Of 15,898 random channels none was above 1e-6 + 0.7 · 2^-24 · product.
 */
export const dxFarError = (product: number): number => 2e-6 + product * UNIT;

/**
 * The same on any data, as a share of the larger of that and the channel's largest |dx|: proved in
 * docs/guides/exactness.md. `product` is max|x̂|·(mean|x̂| + 1.2e-7·|mean|/σ). Of the 52 roundings, 0.3 come from the
 * distance between the mean and its float32, where |mean|/σ is 1e6.
 */
export const dxBound = (product: number): number => (52 + 7 * product) * UNIT;

/**
 * dgamma, dbeta and the sums behind them, as a share of the sum of their terms' magnitudes: they add float32
 * products and are rounded to float32.
 */
export const SUM_ERROR = 1e-6;

/**
 * dgamma alone, on any data, as a share of Σ|dy|·(|x̂| + ρ), where ρ is MEAN_ROUNDING·|mean|/σ: proved in
 * docs/guides/exactness.md.
 */
export const DGAMMA_ERROR = 7.5e-7;

/** Twice the rounding of a mean to float32, which takes part in the sums. */
export const MEAN_ROUNDING = 1.2e-7;

/** dbeta alone, on any data: six roundings. */
export const DBETA_ERROR = 3.6e-7;

/** Two ways to pool the same moments, relative, for up to 2000 parts; they are float64. */
export const POOLING_ERROR = 1e-12;

/**
 * How far two float64 sums of the same few hundred numbers may be apart, relative to them. It matters only if the
 * limits above are 0, as for the mean of a channel whose variance is zero.
 */
export const FLOAT64_ERROR = 1e-14;
