/** What a trained network answers on the test digits, by each way of normalizing at test time. */

import { setImmediate } from "node:timers/promises";
import * as tf from "@tensorflow/tfjs";
import { SingleValueError } from "batchnorm-wasm";
import { accuracy, answers, CLASSES, type Digits, inOrder, PIXELS, pixels } from "./digits.js";
import {
  batchAtHand,
  betaAlone,
  type Network,
  type Normalization,
  runningAverages,
} from "./network.js";

/** Test batch sizes for mini-batch statistics; one alone has no variance. */
export const TEST_BATCHES = [1, 2, 4, 16, 64, 256] as const;
/** Batch size where the size makes no difference to the answers. */
const FAST_BATCH = 1000;

/** One way to normalize at test time, measured. */
export interface Way {
  /** Which figure of the report it belongs to. */
  readonly kind: "running" | "mini-batch" | "none";
  readonly batchSize: number;
  /** Share of test digits answered rightly, 0 … 1. */
  readonly accuracy: number;
  readonly label: string;
  readonly remark: string;
}

/** All ways, and how the answers one at a time compare with those in batches. */
export interface Evaluation {
  readonly ways: Way[];
  /** Digits answered differently one at a time and in batches. */
  readonly differentAnswers: number;
  /** Scores (10 a digit) whose bits differ between the two. */
  readonly differentScores: number;
}

export interface PredictOptions {
  readonly batchSize?: number;
  readonly watch?: (x: tf.Tensor2D, index: number) => void;
  readonly onProgress?: (digits: number) => void;
}

/** Scores of every digit for every class: [count, 10], row-major. */
export async function predict(
  network: Network,
  digits: Digits,
  normalize: Normalization,
  { batchSize = FAST_BATCH, watch, onProgress }: PredictOptions = {},
): Promise<Float32Array> {
  const scores = new Float32Array(digits.count * CLASSES);
  for (const indices of inOrder(digits, batchSize)) {
    tf.tidy(() => {
      const x = tf.tensor2d(pixels(digits, indices), [indices.length, PIXELS]);
      scores.set(network.logits(x, normalize, watch).dataSync(), indices[0] * CLASSES);
    });
    onProgress?.(indices[0] + indices.length);
    await setImmediate(); // the progress bar's timer may have something to do
  }
  return scores;
}

/**
 * Test accuracy by running averages one digit at a time and in batches, by the statistics of test
 * batches of several sizes, and of the network without batch norm.
 *
 * @param onProgress how many of the digits were answered one at a time (the slow part)
 */
export async function evaluate(
  withNorm: Network,
  without: Network,
  digits: Digits,
  onProgress: (digits: number) => void = () => {},
): Promise<Evaluation> {
  const alone = await predict(withNorm, digits, runningAverages, { batchSize: 1, onProgress });
  const together = await predict(withNorm, digits, runningAverages);
  const plain = await predict(without, digits, runningAverages);
  const aloneAnswers = answers(alone);
  const differentAnswers = answers(together).filter((a, i) => a !== aloneAnswers[i]).length;
  const differentScores = together.filter((score, i) => !Object.is(score, alone[i])).length;

  const byTestBatch: Way[] = [];
  for (const batchSize of TEST_BATCHES) {
    byTestBatch.push(await byTestBatches(withNorm, digits, batchSize));
  }

  const ways: Way[] = [
    {
      kind: "running",
      batchSize: 1,
      accuracy: accuracy(alone, digits),
      label: "running averages, one digit at a time",
      remark: "test time as it should be",
    },
    {
      kind: "running",
      batchSize: FAST_BATCH,
      accuracy: accuracy(together, digits),
      label: `running averages, batches of ${FAST_BATCH}`,
      remark: sameAnswers(differentAnswers, differentScores),
    },
    ...byTestBatch,
    {
      kind: "none",
      batchSize: 1,
      accuracy: accuracy(plain, digits),
      label: "no batch norm",
      remark: "same initial weights, same mini-batches",
    },
  ];
  return { ways, differentAnswers, differentScores };
}

async function byTestBatches(network: Network, digits: Digits, batchSize: number): Promise<Way> {
  const label = `mini-batch statistics, batches of ${batchSize}`;
  const refusal = batchSize === 1 ? await refusalOfOne(network, digits) : null;
  if (refusal !== null) {
    const scores = await predict(network, digits, betaAlone);
    const remark = `refused (${refusal}); beta alone gives this, the same answer for every digit`;
    return { kind: "mini-batch", batchSize, accuracy: accuracy(scores, digits), label, remark };
  }
  const scores = await predict(network, digits, batchAtHand, { batchSize });
  const remark = batchSize < 16 ? "each answer depends on the digits beside it" : "";
  return { kind: "mini-batch", batchSize, accuracy: accuracy(scores, digits), label, remark };
}

/** The layer's error on a batch of one digit, by name; `null` if there is none. */
async function refusalOfOne(network: Network, digits: Digits): Promise<string | null> {
  try {
    await predict(network, { ...digits, count: 1 }, batchAtHand, { batchSize: 1 });
    return null;
  } catch (error) {
    if (error instanceof SingleValueError) return error.name;
    throw error;
  }
}

function sameAnswers(answersThatDiffer: number, scoresThatDiffer: number): string {
  if (scoresThatDiffer === 0) return "the same answers, every score bit for bit";
  if (answersThatDiffer === 0) return `the same answers; ${scoresThatDiffer} scores differ in bits`;
  return `${answersThatDiffer} answers differ`;
}
