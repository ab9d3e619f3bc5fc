// Measures how far running averages are from the statistics of data. `diagnose` judges it, `calibrate` reports it.

import type { Statistics } from "../values/terms.js";

/** How far averages are from the statistics of data, for each channel. */
export interface Drift {
  /** (running mean - mean of the data)/√(variance of the data + ε), [channels]: in standard deviations. */
  readonly meanDrift: Float64Array;
  /** (running variance + ε)/(variance of the data + ε), [channels]; 1 if they agree. */
  readonly varianceRatio: Float64Array;
}

/** Measures how far `averages` are from `data`. ε is added to variances, as when a layer normalizes. */
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
