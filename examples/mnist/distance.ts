import type { Statistics } from "batchnorm-wasm";

/** How far averages are from exact statistics, over all channels of all layers. */
export interface Distance {
  /** Root mean square of the means' drift, in standard deviations. */
  readonly mean: number;
  /** Root mean square of the natural logarithm of the variances' ratio. */
  readonly variance: number;
}

export function distance(
  averages: readonly Statistics[],
  exact: readonly Statistics[],
  epsilon: number,
): Distance {
  const means: number[] = [];
  const variances: number[] = [];
  averages.forEach(({ mean, variance }, i) => {
    mean.forEach((m, c) => {
      const sigma2 = exact[i].variance[c] + epsilon;
      means.push((m - exact[i].mean[c]) / Math.sqrt(sigma2));
      variances.push(Math.log((variance[c] + epsilon) / sigma2));
    });
  });
  return { mean: rootMeanSquare(means), variance: rootMeanSquare(variances) };
}

const rootMeanSquare = (values: readonly number[]): number =>
  Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
