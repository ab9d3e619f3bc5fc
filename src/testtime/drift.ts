// How far running averages are from the statistics of some data: what `diagnose` judges and `calibrate` reports.

import type { Statistics } from "../values/terms.js";

/** How far averages are from the statistics of data, for each channel. */
export interface Drift {
  /** (average - mean)/√(variance + ε), [channels]: in standard deviations of the data. */
  readonly meanDrift: Float64Array;
  /** (average + ε)/(variance + ε) of the variances, [channels]; 1 where they agree. */
  readonly varianceRatio: Float64Array;
}

/** How far `averages` are from `data`, ε counted in as in normalization. */
export function driftOf(averages: Statistics, data: Statistics, epsilon: number): Drift {
  const ratio = (a: number, b: number): number => (a === b ? 1 : a / b);
  return {
    meanDrift: data.mean.map((mean, c) => {
      const apart = averages.mean[c]! - mean;
      return apart === 0 ? 0 : apart / Math.sqrt(data.variance[c]! + epsilon);
    }),
    varianceRatio: data.variance.map((variance, c) =>
      ratio(averages.variance[c]! + epsilon, variance + epsilon),
    ),
  };
}
