/**
 * Trains the network, with the batch norm of this package, with that of TensorFlow.js or with both in turns, on the
 * same mini-batches from the same weights. Nothing here needs Node.
 */

import * as tf from "@tensorflow/tfjs-core";
import { accuracy, CLASSES, type Digits, inOrder, miniBatches } from "../mnist/digits.js";
import { Random } from "../mnist/random.js";
import { initialWeights, Network, type Whose } from "./network.js";
import { BATCH_SIZE } from "./sizes.js";

/** Descent with momentum. The rate falls to nothing along half a cosine (Loshchilov & Hutter 2017, eq. 5). */
const RATE = 0.05;
const MOMENTUM = 0.9;
/** Test digits that are answered together. */
const TOGETHER = 250;
/** Steps that are not timed, in which tfjs and the JavaScript engine warm up. */
export const WARM_UP = 10;

/** A network of one kind, its optimizer, and what was measured of it. */
export interface Side {
  readonly whose: Whose;
  readonly network: Network;
  /** The loss of each mini-batch before its step. */
  readonly losses: number[];
  /** The time of each step in milliseconds. */
  readonly times: number[];
}

export interface TrainOptions {
  /** Whose batch norms train beside each other. */
  readonly sides: readonly Whose[];
  readonly steps: number;
  readonly seed: number;
  /** Is called after each step. What it returns is awaited, so that a page or a terminal can draw. */
  readonly onStep?: (step: number, sides: readonly Side[]) => unknown;
}

/** Trains. In each step all sides go down on the same mini-batch; who is first changes from step to step. */
export async function train(
  digits: Digits,
  { sides: kinds, steps, seed, onStep }: TrainOptions,
): Promise<Side[]> {
  const random = new Random(seed);
  const weights = initialWeights(random);
  const sides = kinds.map((whose): Side & { optimizer: tf.MomentumOptimizer } => ({
    whose,
    network: new Network(weights, whose),
    optimizer: tf.train.momentum(RATE, MOMENTUM),
    losses: [],
    times: [],
  }));
  const batches = miniBatches(digits, BATCH_SIZE, random);
  for (let step = 0; step < steps; step++) {
    const indices = batches.next().value;
    const rate = (RATE / 2) * (1 + Math.cos((Math.PI * step) / steps));
    for (const side of step % 2 === 0 ? sides : [...sides].reverse()) {
      side.optimizer.setLearningRate(rate);
      const start = performance.now();
      side.losses.push(side.network.descend(side.optimizer, digits, indices));
      side.times.push(performance.now() - start);
    }
    await onStep?.(step + 1, sides);
  }
  for (const { optimizer } of sides) optimizer.dispose();
  return sides;
}

/** Share of digits that the network answers rightly by its running averages, 0 … 1. */
export function accuracyOf(network: Network, digits: Digits): number {
  const scores = new Float32Array(digits.count * CLASSES);
  for (const indices of inOrder(digits, TOGETHER)) {
    scores.set(network.predict(digits, indices), indices[0] * CLASSES);
  }
  return accuracy(scores, digits);
}

/** The time in the middle of the sorted times. */
export function median(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
