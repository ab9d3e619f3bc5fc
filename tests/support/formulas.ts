// Batch normalization as each framework defines it, in float64, one channel at a time, with the
// names of its own text; and how far from these formulas a layer that stores float32 may be.
//
//   ONNX     operator BatchNormalization, version 15
//   Keras    keras.layers.BatchNormalization (Keras 3)
//   Flax     flax.linen.BatchNorm
//   PyTorch  torch.nn.BatchNorm1d/2d/3d
//   gradient Ioffe & Szegedy 2015, section 3

/** The values of one channel, in any order that is kept. */
export type Channel = readonly number[];

// ---- layouts ----------------------------------------------------------------------------------

/** Gathers a tensor into its channels; the "C" of the layout's name is their axis. */
export function split(tensor: ArrayLike<number>, shape: number[], layout: string): number[][] {
  const { channels, channelOf } = channelAxis(shape, layout);
  const values: number[][] = Array.from({ length: channels }, () => []);
  for (let i = 0; i < tensor.length; i++) values[channelOf(i)].push(tensor[i]);
  return values;
}

/** The inverse of `split`: it meets the positions of a channel in the same order in every layout. */
export function join(values: readonly Channel[], shape: number[], layout: string): Float64Array {
  const { channelOf } = channelAxis(shape, layout);
  const taken = values.map(() => 0);
  return Float64Array.from({ length: product(shape) }, (_, i) => {
    const c = channelOf(i);
    return values[c][taken[c]++];
  });
}

function channelAxis(shape: number[], layout: string) {
  const axis = layout.indexOf("C");
  const channels = shape[axis];
  const inner = product(shape.slice(axis + 1));
  return { channels, channelOf: (i: number) => Math.floor(i / inner) % channels };
}

const product = (factors: number[]): number => factors.reduce((a, b) => a * b, 1);

// ---- reductions -------------------------------------------------------------------------------

export const sum = (X: Channel): number => X.reduce((total, x) => total + x, 0);

export const reduceMean = (X: Channel): number => sum(X) / X.length;

/** The population variance: sum(sqrd(x_i - x_avg)) / N. */
export function reduceVar(X: Channel): number {
  const average = reduceMean(X);
  return reduceMean(X.map((x) => (x - average) ** 2));
}

/** The sample variance: divided by N - 1. */
export const sampleVar = (X: Channel): number => (reduceVar(X) * X.length) / (X.length - 1);

// ---- the frameworks ---------------------------------------------------------------------------

/** What normalizes a channel: a mini-batch's own, or running averages. */
export interface Statistics {
  mean: number;
  variance: number;
}

/** What a channel has learned, and its running averages. */
export interface State extends Statistics {
  gamma: number;
  beta: number;
}

export interface Step {
  Y: number[];
  mean: number;
  variance: number;
}

/** Test time, the same in every framework: Y = (X - mean) / sqrt(var + epsilon) * scale + B. */
export function normalize(X: Channel, state: State, epsilon: number): number[] {
  const { gamma, beta, mean, variance } = state;
  return X.map((x) => ((x - mean) / Math.sqrt(variance + epsilon)) * gamma + beta);
}

/** ONNX, training_mode = 1. */
export function onnxStep(
  X: Channel,
  { gamma: scale, beta: B, mean: input_mean, variance: input_var }: State,
  { epsilon = 1e-5, momentum = 0.9 },
): Step {
  const current_mean = reduceMean(X);
  const current_var = reduceVar(X);
  const running_mean = input_mean * momentum + current_mean * (1 - momentum);
  const running_var = input_var * momentum + current_var * (1 - momentum);
  const Y = X.map((x) => ((x - current_mean) / Math.sqrt(current_var + epsilon)) * scale + B);
  return { Y, mean: running_mean, variance: running_var };
}

/**
 * Keras: "gamma * (batch - mean(batch)) / sqrt(var(batch) + epsilon) + beta",
 * "moving_var = moving_var * momentum + var(batch) * (1 - momentum)"; var divides by m.
 */
export function kerasStep(
  batch: Channel,
  { gamma, beta, mean: moving_mean, variance: moving_var }: State,
  { epsilon = 1e-3, momentum = 0.99 },
): Step {
  const mean = reduceMean(batch);
  const variance = reduceVar(batch);
  return {
    Y: batch.map((x) => (gamma * (x - mean)) / Math.sqrt(variance + epsilon) + beta),
    mean: moving_mean * momentum + mean * (1 - momentum),
    variance: moving_var * momentum + variance * (1 - momentum),
  };
}

/** Flax: "mul = rsqrt(var + epsilon)", "ra_var = momentum * ra_var + (1 - momentum) * var". */
export function flaxStep(
  x: Channel,
  { gamma: scale, beta: bias, mean: ra_mean, variance: ra_var }: State,
  { epsilon = 1e-5, momentum = 0.99 },
): Step {
  const mean = reduceMean(x);
  const variance = reduceMean(x.map((value) => (value - mean) ** 2));
  const mul = scale / Math.sqrt(variance + epsilon);
  return {
    Y: x.map((value) => (value - mean) * mul + bias),
    mean: momentum * ra_mean + (1 - momentum) * mean,
    variance: momentum * ra_var + (1 - momentum) * variance,
  };
}

/**
 * PyTorch: "x_new = (1 - momentum) * x + momentum * x_t"; the variance of the running average
 * divides by m - 1, that of the normalization by m. `momentum: null` is the cumulative average,
 * 1 / num_batches_tracked, this batch counted.
 */
export function torchStep(
  x: Channel,
  { gamma: weight, beta: bias, mean: running_mean, variance: running_var }: State,
  { eps = 1e-5, momentum = 0.1 as number | null },
  num_batches_tracked: number,
): Step {
  const factor = momentum ?? 1 / num_batches_tracked;
  const mean = reduceMean(x);
  const std = Math.sqrt(reduceVar(x) + eps);
  return {
    Y: x.map((value) => ((value - mean) / std) * weight + bias),
    mean: (1 - factor) * running_mean + factor * mean,
    variance: (1 - factor) * running_var + factor * sampleVar(x),
  };
}

// ---- gradients --------------------------------------------------------------------------------

export interface Gradient {
  dx: number[];
  dgamma: number;
  dbeta: number;
}

/** Through the mini-batch's own mean and variance, one line for each of the paper's. */
export function batchGradient(
  x: Channel,
  dy: Channel,
  { gamma }: { gamma: number },
  epsilon: number,
): Gradient {
  const m = x.length;
  const mean = reduceMean(x);
  const variance = reduceVar(x);
  const std = Math.sqrt(variance + epsilon);
  const deviation = x.map((value) => value - mean);

  const dxhat = dy.map((g) => g * gamma);
  const dvariance =
    sum(dxhat.map((g, i) => g * deviation[i])) * -0.5 * (variance + epsilon) ** -1.5;
  const dmean =
    sum(dxhat.map((g) => -g / std)) + (dvariance * sum(deviation.map((d) => -2 * d))) / m;
  return {
    dx: dxhat.map((g, i) => g / std + (dvariance * 2 * deviation[i]) / m + dmean / m),
    dgamma: sum(dy.map((g, i) => (g * deviation[i]) / std)),
    dbeta: sum(dy),
  };
}

/** With running averages for constants: a frozen layer. */
export function frozenGradient(x: Channel, dy: Channel, state: State, epsilon: number): Gradient {
  const std = Math.sqrt(state.variance + epsilon);
  return {
    dx: dy.map((g) => (g * state.gamma) / std),
    dgamma: sum(dy.map((g, i) => (g * (x[i] - state.mean)) / std)),
    dbeta: sum(dy),
  };
}

// ---- how far from these a layer may be --------------------------------------------------------

/**
 * The project's goal for y: a handful of float32 roundings (2^-24 = 6e-8 each) of the largest of
 * the terms that meet in it. The term 1 is there for the rounding of x - mean itself.
 */
export const Y_ERROR = 5e-7;

/** Goal for the mean, in standard deviations: as much as y can take without noticing. */
export const MEAN_ERROR = 5e-7;

/** Goal for the variance, relative: half of it reaches y, by the square root. */
export const VARIANCE_ERROR = 1e-6;

/** Goal for the gradient, relative to the channel's largest |gamma·dy| / sqrt(variance + epsilon). */
export const GRADIENT_ERROR = 1e-6;

/**
 * float64 against float64: two ways to sum the same few hundred numbers. It counts only where the
 * goals above ask for nothing at all, for the mean of a channel whose variance is zero.
 */
export const FLOAT64_ERROR = 1e-14;

/** For each y of a channel, given what it should be. */
export function yBound(Y: Channel, beta: number): number[] {
  return Y.map((y) => Y_ERROR * Math.max(1, Math.abs(y - beta), Math.abs(beta)));
}

export function meanBound({ mean, variance }: Statistics): number {
  return MEAN_ERROR * Math.sqrt(variance) + FLOAT64_ERROR * Math.abs(mean);
}

export function varianceBound({ mean, variance }: Statistics): number {
  return VARIANCE_ERROR * variance + (FLOAT64_ERROR * mean) ** 2;
}

export interface Gradients<T> {
  dx: T;
  dgamma: T;
  dbeta: T;
}

/**
 * For dx as above. dgamma and dbeta are sums over the channel, of dy·x̂ and dy: as much of every
 * term as y may be off, however the terms cancel.
 */
export function gradientBound(
  x: Channel,
  dy: Channel,
  { gamma, mean, variance }: Omit<State, "beta">,
  epsilon: number,
): Gradients<number> {
  const std = Math.sqrt(variance + epsilon);
  const largest = dy.reduce((most, g) => Math.max(most, Math.abs(gamma * g)), 0);
  const xhat = x.map((value) => Math.abs(value - mean) / std);
  return {
    dx: (GRADIENT_ERROR * largest) / std,
    dgamma: GRADIENT_ERROR * sum(dy.map((g, i) => Math.abs(g) * Math.max(1, xhat[i]))),
    dbeta: GRADIENT_ERROR * sum(dy.map(Math.abs)),
  };
}

/** One pass over one channel: what goes in, and what normalizes it. */
export interface Given {
  x: Channel;
  dy: Channel;
  state: State;
  epsilon: number;
}

/** And what comes out; `null` where the layer has no gamma or no beta. */
export interface Passed {
  y: Channel;
  dx: Channel;
  dgamma: number | null;
  dbeta: number | null;
}

/** Throws unless a channel's output and gradients are within `slack` times the bounds above. */
export function assertPass(
  what: string,
  actual: Passed,
  expected: Passed,
  { x, dy, state, epsilon }: Given,
  slack = 1,
): void {
  const gradient = gradientBound(x, dy, state, epsilon);
  const bounds = {
    y: yBound(expected.y, state.beta),
    dx: x.map(() => gradient.dx),
    dgamma: [gradient.dgamma],
    dbeta: [gradient.dbeta],
  };
  for (const name of ["y", "dx", "dgamma", "dbeta"] as const) {
    const [got, want] = [actual[name], expected[name]];
    if (got === null || want === null) {
      if (got !== want) throw new Error(`${what}: ${name} is ${got}, expected ${want}`);
      continue;
    }
    const bound = bounds[name].map((b) => b * slack);
    assertWithin(`${what}: ${name}`, [got].flat(), [want].flat(), bound);
  }
}

/** Throws, naming the worst element, unless every |actual - expected| is within its bound. */
export function assertWithin(
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: ArrayLike<number>,
): void {
  if (actual.length !== expected.length || actual.length !== bound.length) {
    throw new Error(`${what}: ${actual.length} values, expected ${expected.length}`);
  }
  let worst = -1;
  let worstRatio = 1;
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i] - expected[i]);
    const ratio = error === 0 ? 0 : error / bound[i];
    if (ratio <= worstRatio) continue; // a NaN is never within
    worst = i;
    worstRatio = Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : ratio;
  }
  if (worst >= 0) {
    throw new Error(
      `${what}[${worst}] is ${actual[worst]}, expected ${expected[worst]}: ` +
        `${worstRatio.toPrecision(3)} times the allowed error ${bound[worst]}`,
    );
  }
}
