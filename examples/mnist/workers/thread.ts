/** One thread's share of the training: its part of each mini-batch, all else as if it had it whole. */

import { parentPort, workerData } from "node:worker_threads";
import * as tf from "@tensorflow/tfjs";
import { GradientSums, Moments } from "batchnorm-wasm";
import type { Pool, TfBatchNorm } from "batchnorm-wasm/tfjs";
import { startBackend } from "../backend.js";
import { loadMnist } from "../data.js";
import { accuracy, CLASSES, labelsOf, miniBatches, PIXELS, pixels } from "../digits.js";
import { predict } from "../evaluate.js";
import { initialWeights, untrained } from "../layers.js";
import { Network, runningAverages } from "../network.js";
import { Random } from "../random.js";
import { Exchange, type Seat } from "./exchange.js";

/** What a thread is given. */
export interface Work {
  readonly seat: Seat;
  readonly steps: number;
  readonly batchSize: number;
  readonly seed: number;
  readonly learningRate: number;
}

/** What it tells in the end. */
export interface Done {
  /** All variables of the network. */
  readonly weights: readonly Float32Array[];
  /** Running mean and variance of each batch-norm layer. */
  readonly averages: readonly Float64Array[];
  /** Test accuracy by running averages, 0 … 1. */
  readonly accuracy: number;
  /** Milliseconds per step. */
  readonly stepTime: number;
}

const { seat, steps, batchSize, seed, learningRate } = workerData as Work;
const exchange = new Exchange(seat);

/** Batch normalization over the threads: the two lines that data-parallel training needs. */
const pool: Pool = {
  moments: (own) => Moments.pool(exchange.all(own)),
  sums: (own) => GradientSums.pool(exchange.all(own)),
};
const training = (norm: TfBatchNorm, x: tf.Tensor2D) => norm.apply(x, { training: true, pool });

/** The gradient of the whole mini-batch's loss: the sum of what the threads have of it. */
function total(gradients: tf.NamedTensorMap, normed: ReadonlySet<string>): tf.NamedTensorMap {
  return Object.fromEntries(
    Object.entries(gradients).map(([name, own]) => {
      // Those of gamma and beta are of the whole mini-batch already.
      if (normed.has(name)) return [name, own];
      const parts = exchange.all(own.dataSync<"float32">());
      const sum = parts[0].map((_, i) => parts.reduce((all, part) => all + part[i], 0));
      return [name, tf.tensor(sum, own.shape)];
    }),
  );
}

await startBackend();
const digits = loadMnist();
const random = new Random(seed);
const network = new Network(untrained(initialWeights(random, 0.1), {}));
const normed = new Set(network.norms.flatMap((norm) => norm.trainableVariables.map((v) => v.name)));
const optimizer = tf.train.sgd(learningRate);
const batches = miniBatches(digits.train, batchSize, random);

const threads = seat.ports.length;
const start = performance.now();
for (let step = 0; step < steps; step++) {
  const whole = batches.next().value;
  const [from, to] = [seat.index, seat.index + 1].map((i) => Math.round((i * batchSize) / threads));
  const part = whole.subarray(from, to);
  tf.tidy(() => {
    const x = tf.tensor2d(pixels(digits.train, part), [part.length, PIXELS]);
    const labels = tf.oneHot(labelsOf(digits.train, part), CLASSES).toFloat();
    // This thread's part of the mean over the whole mini-batch.
    const loss = () =>
      tf.losses
        .softmaxCrossEntropy<tf.Tensor, tf.Scalar>(labels, network.logits(x, training))
        .mul<tf.Scalar>(part.length / batchSize);
    const { grads } = optimizer.computeGradients(loss, network.variables);
    optimizer.applyGradients(total(grads, normed));
  });
  parentPort?.postMessage(step + 1);
}
const stepTime = (performance.now() - start) / steps;

const scores = await predict(network, digits.test, runningAverages);
parentPort?.postMessage({
  weights: network.variables.map((variable) => variable.dataSync<"float32">().slice()),
  averages: network.norms.flatMap(({ layer }) => [layer.runningMean, layer.runningVariance]),
  accuracy: accuracy(scores, digits.test),
  stepTime,
} satisfies Done);
exchange.close();
