/** Trains networks side by side on the same mini-batches, and writes down how they come along. */

import { setImmediate } from "node:timers/promises";
import * as tf from "@tensorflow/tfjs";
import type { BatchNormOptions, Statistics } from "batchnorm-wasm";
import { accuracy, CLASSES, type Digits, labelsOf, miniBatches, PIXELS, pixels } from "./digits.js";
import { Beside } from "./estimates.js";
import { predict } from "./evaluate.js";
import { HIDDEN, initialWeights, untrained } from "./layers.js";
import { Network, runningAverages } from "./network.js";
import { Random } from "./random.js";

/** The unit that is watched: the first of the last hidden layer, none better than another. */
export const WATCHED = { layer: HIDDEN - 1, unit: 0 } as const;
/** Mini-batches at the beginning of which every one is written down. */
export const SETTLING = 100;

export interface TrainOptions {
  readonly steps: number;
  readonly seed: number;
  readonly learningRate: number;
  /** Examples in a mini-batch. The paper: 60. */
  readonly batchSize?: number;
  /** Standard deviation of the initial weights. */
  readonly deviation?: number;
  readonly batchNorm?: BatchNormOptions;
  readonly onStep?: (step: number, loss: { with: number; without: number }) => void;
}

/** Test accuracy after `step` mini-batches, and what the watched sigmoid is fed then. */
export interface Milestone {
  readonly step: number;
  readonly network: "with" | "without";
  readonly accuracy: number;
  /** 15th, 50th and 85th percentile of the watched unit's input over the test digits. */
  readonly percentiles: readonly [number, number, number];
}

/** The watched unit before normalization: this mini-batch's own statistics and the averages. */
export interface UnitStatistics {
  readonly step: number;
  readonly mean: number;
  /** Of the sample (divided by m − 1), as the running average has it. */
  readonly variance: number;
  readonly runningMean: number;
  readonly runningVariance: number;
}

export interface Trained {
  readonly with: Network;
  readonly without: Network;
  readonly milestones: Milestone[];
  readonly unit: UnitStatistics[];
  /** The plain average over all mini-batches, of each layer of `with`. */
  readonly cumulative: Statistics[];
  /** Mean time of a training step, both networks together, in milliseconds. */
  readonly stepTime: number;
}

/** Both networks from the same weights, on the same mini-batches, by the same plain descent. */
export async function train(
  digits: { train: Digits; test: Digits },
  {
    steps,
    seed,
    learningRate,
    batchSize = 60,
    deviation = 0.1,
    batchNorm = {},
    onStep = () => {},
  }: TrainOptions,
): Promise<Trained> {
  const random = new Random(seed);
  const initial = initialWeights(random, deviation);
  const networks = {
    with: new Network(untrained(initial, batchNorm)),
    without: new Network(untrained(initial, null)),
  };
  const cumulative = new Beside(networks.with, { decay: "cumulative" });
  const optimizer = tf.train.sgd(learningRate);
  const batches = miniBatches(digits.train, batchSize, random);
  const milestoneSteps = new Set(milestonesUpTo(steps));
  const milestones: Milestone[] = [];
  const unit: UnitStatistics[] = [];
  let trainingTime = 0;

  for (let step = 0; ; step++) {
    if (milestoneSteps.has(step)) {
      for (const name of ["with", "without"] as const) {
        milestones.push({ step, network: name, ...(await examine(networks[name], digits.test)) });
      }
    }
    if (step === steps) break;

    const start = performance.now();
    const indices = batches.next().value;
    const loss = {
      with: descend(networks.with, optimizer, digits.train, indices),
      without: descend(networks.without, optimizer, digits.train, indices),
    };
    trainingTime += performance.now() - start;
    cumulative.follow(networks.with);
    if (step < SETTLING || step % Math.ceil(steps / 200) === 0) {
      unit.push(statistics(networks.with, step + 1));
    }
    onStep(step + 1, loss);
    await setImmediate(); // the progress bar's timer may have something to do
  }
  optimizer.dispose();
  const stepTime = trainingTime / Math.max(1, steps);
  return { ...networks, milestones, unit, cumulative: cumulative.averages, stepTime };
}

/** When the networks are examined: densely at first, then every 500 steps or 40 times in all. */
export function milestonesUpTo(steps: number): number[] {
  const dense = [0, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900];
  const interval = Math.max(500, Math.ceil(steps / 40 / 500) * 500);
  const sparse = Array.from({ length: Math.floor(steps / interval) }, (_, i) => (i + 1) * interval);
  const all = [...dense, ...sparse, steps].filter((step) => step <= steps);
  return [...new Set(all)].sort((a, b) => a - b);
}

/** One step of gradient descent; the loss before it. */
export function descend(
  network: Network,
  optimizer: tf.Optimizer,
  digits: Digits,
  indices: Uint32Array,
): number {
  const loss = tf.tidy(() => {
    const x = tf.tensor2d(pixels(digits, indices), [indices.length, PIXELS]);
    const labels = tf.oneHot(labelsOf(digits, indices), CLASSES).toFloat() as tf.Tensor2D;
    const cost = () => network.loss(x, labels);
    return (optimizer.minimize(cost, true, network.variables) as tf.Scalar).dataSync()[0];
  });
  if (Number.isFinite(loss)) return loss;
  throw new Error(`the loss is ${loss}: the learning rate is too high. Try a smaller one.`);
}

async function examine(
  network: Network,
  test: Digits,
): Promise<Pick<Milestone, "accuracy" | "percentiles">> {
  const inputs: number[] = [];
  const watch = (x: tf.Tensor2D, index: number) => {
    if (index !== WATCHED.layer) return;
    const values = x.dataSync();
    for (let i = WATCHED.unit; i < values.length; i += x.shape[1]) inputs.push(values[i]);
  };
  const scores = await predict(network, test, runningAverages, { watch });
  inputs.sort((a, b) => a - b);
  const percentile = (p: number) => inputs[Math.round((p / 100) * (inputs.length - 1))];
  return {
    accuracy: accuracy(scores, test),
    percentiles: [percentile(15), percentile(50), percentile(85)],
  };
}

function statistics(network: Network, step: number): UnitStatistics {
  const layer = network.norms[WATCHED.layer].layer;
  const batch = layer.lastBatch;
  if (batch === null) throw new Error("expected a network that has been trained for a step.");
  const { unit } = WATCHED;
  return {
    step,
    mean: batch.mean[unit],
    variance: (batch.variance[unit] * batch.count) / (batch.count - 1),
    runningMean: layer.runningMean[unit],
    runningVariance: layer.runningVariance[unit],
  };
}
