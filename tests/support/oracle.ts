// Batch normalization in float64, as the paper writes it (Ioffe & Szegedy 2015): algorithm 1, the gradient of
// section 3 term by term, and algorithm 2. It is slow, because it is to be read and compared with.

/** Data as (outer, channels, inner), row-major. */
export interface View {
  outer: number;
  channels: number;
  inner: number;
}

type Values = ArrayLike<number>;

/** The indices of a channel's values. */
export function indices({ outer, channels, inner }: View, c: number): number[] {
  const list: number[] = [];
  for (let n = 0; n < outer; n++) {
    for (let i = 0; i < inner; i++) list.push((n * channels + c) * inner + i);
  }
  return list;
}

/** Sum of float64 numbers with Neumaier's compensation (1974). It is exact to about one ulp. */
export function sum(values: Iterable<number>): number {
  let total = 0;
  let lost = 0;
  for (const value of values) {
    const next = total + value;
    lost += Math.abs(total) >= Math.abs(value) ? total - next + value : value - next + total;
    total = next;
  }
  return total + lost;
}

/** μ = Σx/m and σ² = Σ(x - μ)²/m of each channel. */
export function moments(x: Values, view: View): { mean: number[]; variance: number[] } {
  const mean: number[] = [];
  const variance: number[] = [];
  for (let c = 0; c < view.channels; c++) {
    const values = indices(view, c).map((i) => x[i]!);
    const m = values.length;
    // The first value is subtracted, so that no digits are lost if the mean is far above sigma.
    const first = values[0]!;
    const rest = sum(values.map((v) => v - first)) / m;
    mean.push(first + rest);
    variance.push(sum(values.map((v) => (v - first - rest) ** 2)) / m);
  }
  return { mean, variance };
}

/** x̂ = (x - μ)/√(σ² + ε); 0 if σ² + ε is 0. */
export function standardize(
  x: Values,
  view: View,
  mean: Values,
  variance: Values,
  epsilon: number,
): Float64Array {
  const xhat = new Float64Array(x.length);
  for (let c = 0; c < view.channels; c++) {
    const root = Math.sqrt(variance[c]! + epsilon);
    for (const i of indices(view, c)) xhat[i] = root === 0 ? 0 : (x[i]! - mean[c]!) / root;
  }
  return xhat;
}

/** y = γ·x̂ + β. */
export function affine(
  xhat: Values,
  view: View,
  gamma: Values | null,
  beta: Values | null,
): Float64Array {
  const y = new Float64Array(xhat.length);
  for (let c = 0; c < view.channels; c++) {
    for (const i of indices(view, c)) y[i] = (gamma?.[c] ?? 1) * xhat[i]! + (beta?.[c] ?? 0);
  }
  return y;
}

/** ∂l/∂x, ∂l/∂γ and ∂l/∂β of a layer that normalized x by its own mean and variance, or by constant ones. */
export function gradient(
  dy: Values,
  x: Values,
  view: View,
  mean: Values,
  variance: Values,
  gamma: Values | null,
  epsilon: number,
  frozen = false,
): { dx: Float64Array; dgamma: number[]; dbeta: number[] } {
  const xhat = standardize(x, view, mean, variance, epsilon);
  const dx = new Float64Array(x.length);
  const dgamma: number[] = [];
  const dbeta: number[] = [];
  for (let c = 0; c < view.channels; c++) {
    const at = indices(view, c);
    const m = at.length;
    const root = Math.sqrt(variance[c]! + epsilon);
    const scale = root === 0 ? 0 : (gamma?.[c] ?? 1) / root;
    dgamma.push(sum(at.map((i) => dy[i]! * xhat[i]!)));
    dbeta.push(sum(at.map((i) => dy[i]!)));
    for (const i of at) {
      const throughMean = frozen ? 0 : dbeta[c]! / m;
      const throughVariance = frozen ? 0 : (xhat[i]! * dgamma[c]!) / m;
      dx[i] = scale * (dy[i]! - throughMean - throughVariance);
    }
  }
  return { dx, dgamma, dbeta };
}
