/**
 * The demo's network in plain TypeScript: dense layers, sigmoids, cross-entropy and gradient
 * descent in loops. Batch normalization, forward and backward, is the package's.
 *
 * Activations are rows of one example each, [m, width], row-major.
 */

import type { BatchNorm } from "batchnorm-wasm";
import { CLASSES } from "../../mnist/digits.js";
import type { Layer } from "../../mnist/layers.js";

/** How a layer is normalized, [m, channels] to [m, channels]. `index` counts from 0. */
export type Normalize = (norm: BatchNorm, x: Float32Array, index: number) => Float32Array;

/** Test time: by the running averages. */
export const byRunningAverages: Normalize = (norm, x) => norm.infer(x);

/**
 * By the batch at hand, as in training, but nothing moves. Of one value alone the mean is that value
 * and the variance 0: what remains is β, whatever the value. (`train` refuses such a batch with a
 * SingleValueError, rightly; here it is to be seen.)
 */
export const byMiniBatch: Normalize = (norm, x) =>
  x.length === norm.channels
    ? (norm.beta as Float32Array).slice()
    : norm.train(x, { updateRunning: false });

/**
 * sum += Σ value·row over the rows of a matrix of sum's width. Values of 0, as four of five pixels
 * are, cost nothing; four rows at a time are more than twice as fast as one at a time.
 *
 * @param at where the first row's value lies in `values`; the next ones follow at `stride`
 */
function addRows(
  sum: Float32Array,
  matrix: Float32Array,
  values: Float32Array,
  at: number,
  stride: number,
  rows: number,
): void {
  const width = sum.length;
  const used: number[] = [];
  for (let k = 0; k < rows; k++) if (values[at + k * stride] !== 0) used.push(k);
  let k = 0;
  for (; k + 4 <= used.length; k += 4) {
    const [a, b, c, d] = [used[k], used[k + 1], used[k + 2], used[k + 3]];
    const va = values[at + a * stride];
    const vb = values[at + b * stride];
    const vc = values[at + c * stride];
    const vd = values[at + d * stride];
    for (let o = 0; o < width; o++) {
      sum[o] +=
        va * matrix[a * width + o] +
        vb * matrix[b * width + o] +
        vc * matrix[c * width + o] +
        vd * matrix[d * width + o];
    }
  }
  for (; k < used.length; k++) {
    const value = values[at + used[k] * stride];
    for (let o = 0; o < width; o++) sum[o] += value * matrix[used[k] * width + o];
  }
}

/** x · weight + bias, [m, inputs] to [m, outputs]. */
export function dense({ inputs, outputs, weight, bias }: Layer, x: Float32Array): Float32Array {
  const rows = x.length / inputs;
  const y = new Float32Array(rows * outputs);
  for (let r = 0; r < rows; r++) {
    const row = y.subarray(r * outputs, (r + 1) * outputs);
    if (bias) row.set(bias);
    addRows(row, weight, x, r * inputs, 1, inputs);
  }
  return y;
}

export function sigmoid(x: Float32Array): Float32Array {
  return x.map((value) => 1 / (1 + Math.exp(-value)));
}

/** What the layers from `first` on make of the input of layer `first`'s normalization. */
export function fromNorm(
  layers: readonly Layer[],
  first: number,
  x: Float32Array,
  normalize: Normalize,
): Float32Array {
  const { norm } = layers[first];
  if (norm === null) return x;
  const h = sigmoid(normalize(norm, x, first));
  return fromNorm(layers, first + 1, dense(layers[first + 1], h), normalize);
}

/** Scores of the ten classes, [m, 10], before the softmax. `x`: [m, 784]. */
export function logits(
  layers: readonly Layer[],
  x: Float32Array,
  normalize: Normalize,
): Float32Array {
  return fromNorm(layers, 0, dense(layers[0], x), normalize);
}

/** Probabilities of the classes, row by row. */
export function softmax(scores: Float32Array): Float32Array {
  const result = new Float32Array(scores.length);
  for (let from = 0; from < scores.length; from += CLASSES) {
    const row = scores.subarray(from, from + CLASSES);
    const most = Math.max(...row);
    const powers = row.map((score) => Math.exp(score - most));
    const sum = powers.reduce((all, p) => all + p, 0);
    for (let k = 0; k < CLASSES; k++) result[from + k] = powers[k] / sum;
  }
  return result;
}

/** Gradients of the loss with respect to what a layer learns. */
export interface LayerGradients {
  readonly weight: Float32Array;
  readonly bias: Float32Array | null;
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
}

/**
 * One mini-batch forward, by its own statistics (the running averages move), and backward.
 *
 * @param x [m, 784]
 * @param labels [m]
 * @returns the cross-entropy, averaged over the mini-batch, and its gradients
 */
export function gradients(
  layers: readonly Layer[],
  x: Float32Array,
  labels: ArrayLike<number>,
): { loss: number; gradients: LayerGradients[] } {
  const inputs: Float32Array[] = []; // of each dense layer
  const outputs: Float32Array[] = []; // of each sigmoid
  let h = x;
  for (const layer of layers) {
    inputs.push(h);
    h = dense(layer, h);
    if (layer.norm === null) continue;
    h = sigmoid(layer.norm.train(h));
    outputs.push(h);
  }

  const m = labels.length;
  let loss = 0;
  let dy = softmax(h); // the gradient of softmax and cross-entropy together: p - one-hot
  for (let r = 0; r < m; r++) {
    const at = r * CLASSES + labels[r];
    loss -= Math.log(dy[at]) / m;
    dy[at] -= 1;
  }
  dy = dy.map((value) => value / m);

  const result: LayerGradients[] = [];
  for (let index = layers.length - 1; index >= 0; index--) {
    const layer = layers[index];
    let gamma: Float32Array | null = null;
    let beta: Float32Array | null = null;
    if (layer.norm !== null) {
      const s = outputs[index];
      const ds = dy.map((value, i) => value * s[i] * (1 - s[i]));
      const back = layer.norm.backward(ds);
      dy = back.dx as Float32Array<ArrayBuffer>;
      gamma = back.dgamma;
      beta = back.dbeta;
    }
    const { weight, bias } = weightGradients(layer, inputs[index], dy);
    result.unshift({ weight, bias, gamma, beta });
    if (index > 0) dy = inputGradient(layer, dy) as Float32Array<ArrayBuffer>;
  }
  return { loss, gradients: result };
}

/** xᵀ · dy, and the sums of dy's columns. */
function weightGradients(
  { inputs, outputs, bias }: Layer,
  x: Float32Array,
  dy: Float32Array,
): Pick<LayerGradients, "weight" | "bias"> {
  const rows = dy.length / outputs;
  const weight = new Float32Array(inputs * outputs);
  for (let i = 0; i < inputs; i++) {
    addRows(weight.subarray(i * outputs, (i + 1) * outputs), dy, x, i, inputs, rows);
  }
  const sums = bias && new Float32Array(outputs);
  if (sums) addRows(sums, dy, new Float32Array(rows).fill(1), 0, 1, rows);
  return { weight, bias: sums };
}

/** dy · weightᵀ */
function inputGradient({ inputs, outputs, weight }: Layer, dy: Float32Array): Float32Array {
  const rows = dy.length / outputs;
  const dx = new Float32Array(rows * inputs);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < inputs; i++) {
      let sum = 0;
      for (let o = 0; o < outputs; o++) sum += dy[r * outputs + o] * weight[i * outputs + o];
      dx[r * inputs + i] = sum;
    }
  }
  return dx;
}

/**
 * One step of gradient descent.
 *
 * @returns the loss before it
 */
export function descend(
  layers: readonly Layer[],
  x: Float32Array,
  labels: ArrayLike<number>,
  learningRate: number,
): number {
  const { loss, gradients: all } = gradients(layers, x, labels);
  layers.forEach(({ weight, bias, norm }, i) => {
    const move = (values: Float32Array | null | undefined, gradient: Float32Array | null) => {
      if (!values || !gradient) return;
      for (let k = 0; k < values.length; k++) values[k] -= learningRate * gradient[k];
    };
    move(weight, all[i].weight);
    move(bias, all[i].bias);
    move(norm?.gamma, all[i].gamma);
    move(norm?.beta, all[i].beta);
  });
  return loss;
}
