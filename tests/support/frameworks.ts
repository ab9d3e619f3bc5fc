// One training step of one channel as each framework defines it, in float64. All normalize alike, by the
// mini-batch's mean and population variance (oracle.ts). They differ in their defaults, in the direction of
// `momentum`, and in the variance of which they keep a running average.
//
//   ONNX     operator BatchNormalization, version 15
//   Keras    keras.layers.BatchNormalization (Keras 3)
//   Flax     flax.linen.BatchNorm
//   PyTorch  torch.nn.BatchNorm1d/2d/3d

import { assertWithin, boundsOfMoments, unitsOfGradients, unitsOfY } from "./compare.js";
import { DGAMMA_ERROR, DX_ERROR, SUM_ERROR } from "./limits.js";
import * as oracle from "./oracle.js";

/** How far two float32 y may be apart, ours and a framework's, as a share of max(1, |γ·x̂|, |β|). */
const Y_OF_FRAMEWORK = 5e-7;

/** The values of one channel. Any order will do, as long as x, y and their gradients have the same. */
export type Channel = readonly number[];

// ---- layouts ----------------------------------------------------------------------------------

/** Sorts a tensor's values by channel; the "C" of the layout's name is their axis. */
export function split(tensor: ArrayLike<number>, shape: number[], layout: string): number[][] {
  const { channels, channelOf } = channelAxis(shape, layout);
  const values: number[][] = Array.from({ length: channels }, () => []);
  for (let i = 0; i < tensor.length; i++) values[channelOf(i)].push(tensor[i]);
  return values;
}

/** The inverse of `split`. In every layout, both take the values of a channel in the same order. */
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

/** One channel, as the oracle takes data. */
const viewOf = (x: Channel): oracle.View => ({ outer: x.length, channels: 1, inner: 1 });

// ---- the frameworks ---------------------------------------------------------------------------

/** What a channel is normalized by: the statistics of a mini-batch, or running averages. */
export interface Statistics {
  mean: number;
  variance: number;
}

/** What a channel has learned, and its running averages. */
export interface State extends Statistics {
  gamma: number;
  beta: number;
}

/** The running averages after one mini-batch. */
export type Step<Options> = (
  x: Channel,
  running: Statistics,
  options: Options,
  batches: number,
) => Statistics;

/** Mean and population variance of a mini-batch. */
export function statisticsOf(x: Channel): Statistics {
  const { mean, variance } = oracle.moments(x, viewOf(x));
  return { mean: mean[0], variance: variance[0] };
}

/** y of a channel, normalized by `statistics`. */
export function normalize(
  x: Channel,
  { gamma, beta }: Pick<State, "gamma" | "beta">,
  { mean, variance }: Statistics,
  epsilon: number,
): number[] {
  const xhat = oracle.standardize(x, viewOf(x), [mean], [variance], epsilon);
  return [...oracle.affine(xhat, viewOf(x), [gamma], [beta])];
}

/**
 * ONNX, training_mode = 1: "running_mean = input_mean * momentum + current_mean * (1 - momentum)", the same
 * for the variance, which divides by N.
 */
export const onnxStep: Step<{ momentum?: number }> = (x, input, { momentum = 0.9 }) => {
  const current = statisticsOf(x);
  return {
    mean: input.mean * momentum + current.mean * (1 - momentum),
    variance: input.variance * momentum + current.variance * (1 - momentum),
  };
};

/** Keras: "moving_var = moving_var * momentum + var(batch) * (1 - momentum)"; var divides by m. */
export const kerasStep: Step<{ momentum?: number }> = (x, moving, { momentum = 0.99 }) => {
  const batch = statisticsOf(x);
  return {
    mean: moving.mean * momentum + batch.mean * (1 - momentum),
    variance: moving.variance * momentum + batch.variance * (1 - momentum),
  };
};

/** Flax: "ra_var = momentum * ra_var + (1 - momentum) * var"; var divides by m. */
export const flaxStep: Step<{ momentum?: number }> = (x, ra, { momentum = 0.99 }) => {
  const batch = statisticsOf(x);
  return {
    mean: momentum * ra.mean + (1 - momentum) * batch.mean,
    variance: momentum * ra.variance + (1 - momentum) * batch.variance,
  };
};

/**
 * PyTorch: "x_new = (1 - momentum) * x + momentum * x_t". The variance that enters the running average divides by
 * m - 1, the one that normalizes divides by m. `momentum: null` is the cumulative average: the momentum is then
 * 1 / num_batches_tracked, which counts this batch too.
 */
export const torchStep: Step<{ momentum?: number | null }> = (
  x,
  running,
  { momentum = 0.1 },
  num_batches_tracked,
) => {
  const factor = momentum ?? 1 / num_batches_tracked;
  const { mean, variance } = statisticsOf(x);
  const ofSample = (variance * x.length) / (x.length - 1);
  return {
    mean: (1 - factor) * running.mean + factor * mean,
    variance: (1 - factor) * running.variance + factor * ofSample,
  };
};

// ---- comparisons ------------------------------------------------------------------------------

/** What one forward and backward pass over one channel starts from. */
export interface Given {
  x: Channel;
  dy: Channel;
  state: State;
  epsilon: number;
}

/** What such a pass gives. A gradient is `null` if the layer has no gamma or no beta. */
export interface Passed {
  y: Channel;
  dx: Channel;
  dgamma: number | null;
  dbeta: number | null;
}

/** What the oracle gives. `frozen`: the statistics are constants. */
export function expectedOf({ x, dy, state, epsilon }: Given, frozen: boolean) {
  const { mean, variance, gamma } = state;
  const gradient = oracle.gradient(dy, x, viewOf(x), [mean], [variance], [gamma], epsilon, frozen);
  return {
    y: normalize(x, state, state, epsilon),
    dx: [...gradient.dx],
    dgamma: gradient.dgamma[0],
    dbeta: gradient.dbeta[0],
  };
}

/**
 * Throws unless a channel's output and gradients are within `slack` times the limits. With a slack above 1
 * it is x̂ itself that `expected` is unsure of, in every term of dgamma.
 */
export function assertPass(
  what: string,
  actual: Passed,
  expected: Passed,
  { x, dy, state, epsilon }: Given,
  slack = 1,
): void {
  const { mean, variance, gamma, beta } = state;
  const terms = { mean: [mean], variance: [variance], gamma: [gamma], beta: [beta], epsilon };
  const y = unitsOfY(x, viewOf(x), terms);
  const { dx, dgamma, dbeta } = unitsOfGradients(dy, x, viewOf(x), terms);
  const within = (name: keyof Passed, bound: (i: number) => number): void => {
    const [got, wanted] = [actual[name], expected[name]];
    if (got === null || wanted === null) {
      if (got !== wanted) throw new Error(`${what}: ${name} is ${got}, expected ${wanted}`);
      return;
    }
    assertWithin(`${what}: ${name}`, [got].flat(), [wanted].flat(), bound);
  };
  within("y", (i) => slack * Y_OF_FRAMEWORK * y[i]);
  within("dx", () => slack * DX_ERROR * dx[0]);
  within("dgamma", () => DGAMMA_ERROR * (slack * dgamma[0] + (slack - 1) * dbeta[0]));
  within("dbeta", () => slack * SUM_ERROR * dbeta[0]);
}

export const meanBound = ({ mean, variance }: Statistics): number =>
  boundsOfMoments(mean, variance).mean;

export const varianceBound = ({ mean, variance }: Statistics): number =>
  boundsOfMoments(mean, variance).variance;
