// What the pictures show, computed by the package on the page.

import { adapt, BatchNorm, diagnose, type Moments } from "batchnorm-wasm";
import { normals } from "../../../tests/support/data.js";

/** One feature of a mini-batch on its way through the layer. */
export interface Normalized {
  readonly mean: number;
  readonly variance: number;
  readonly epsilon: number;
  readonly zNorm: Float32Array;
  readonly zTilde: Float32Array;
}

/** Algorithm 1 of Ioffe & Szegedy 2015 for one feature. */
export function normalize(z: Float32Array, gamma: number, beta: number): Normalized {
  const bn = new BatchNorm(1);
  bn.gamma!.fill(gamma);
  bn.beta!.fill(beta);
  const zTilde = bn.train(z);
  const zNorm = new BatchNorm(1, { gamma: false, beta: false }).train(z);
  const { mean, variance } = bn.lastBatch!;
  return { mean: mean[0]!, variance: variance[0]!, epsilon: bn.epsilon, zNorm, zTilde };
}

/** The data of the later pictures: examples around a mean, with a standard deviation. */
export const MEAN = 5;
export const SIGMA = 2;

/** Draws mini-batches of one feature. */
export function batchesOf(seed: number): (examples: number, mean?: number) => Float32Array {
  const normal = normals(seed);
  return (examples, mean = MEAN) =>
    Float32Array.from({ length: examples }, () => mean + SIGMA * normal());
}

/** What one example becomes in so many mini-batches of other examples. */
export function withCompanions(z: number, size: number, batches: number): number[] {
  const draw = batchesOf(7);
  const bn = new BatchNorm(1);
  return Array.from({ length: batches }, () => {
    const batch = draw(size);
    batch[0] = z;
    return bn.train(batch)[0]!;
  });
}

/** A layer whose averages are the exact statistics of many examples. */
export function settled(): BatchNorm {
  const bn = new BatchNorm(1);
  bn.setRunning(bn.moments(batchesOf(11)(8192)));
  return bn;
}

export interface AveragesOptions {
  readonly decay: number;
  readonly size: number;
  readonly steps: number;
  readonly debias: boolean;
  /** By how many standard deviations the data move in the middle. */
  readonly shift: number;
}

/** The statistics of every mini-batch, and the running averages after it; at index 0 before the first. */
export interface Averages {
  readonly batchMean: readonly number[];
  readonly batchVariance: readonly number[];
  readonly runningMean: readonly number[];
  readonly runningVariance: readonly number[];
}

export function averages({ decay, size, steps, debias, shift }: AveragesOptions): Averages {
  const draw = batchesOf(23);
  const bn = new BatchNorm(1, { decay, debias });
  const all = {
    batchMean: [] as number[],
    batchVariance: [] as number[],
    runningMean: [bn.runningMean[0]!],
    runningVariance: [bn.runningVariance[0]!],
  };
  for (let step = 0; step < steps; step++) {
    bn.train(draw(size, MEAN + (step >= steps / 2 ? shift * SIGMA : 0)));
    const { count, mean, variance } = bn.lastBatch!;
    all.batchMean.push(mean[0]!);
    all.batchVariance.push((variance[0]! * count) / (count - 1)); // the one that is averaged
    all.runningMean.push(bn.runningMean[0]!);
    all.runningVariance.push(bn.runningVariance[0]!);
  }
  return all;
}

export interface GapOptions {
  readonly decay: number;
  readonly size: number;
  readonly steps: number;
  /** By how many standard deviations the data at test time differ from those of training. */
  readonly shift: number;
}

export interface Gap {
  /** The gap after each step. */
  readonly course: readonly number[];
  /** The gap at the end; with exact statistics of the training data; adapted to the data of test time. */
  readonly asItIs: number;
  readonly exact: number;
  readonly adapted: number;
  readonly verdict: string;
  readonly advice: string;
}

/** The largest difference between what training makes of the data and what a layer at test time does. */
function gapOf(served: Float32Array, trained: Float32Array): number {
  return served.reduce((most, y, i) => Math.max(most, Math.abs(y - trained[i]!)), 0);
}

const TEST_EXAMPLES = 1024;

/** Trains, and after each step compares both ways to normalize the same data. */
export function gap({ decay, size, steps, shift }: GapOptions): Gap {
  const draw = batchesOf(31);
  const test = batchesOf(37)(TEST_EXAMPLES, MEAN + shift * SIGMA);
  const bn = new BatchNorm(1, { decay });
  const trained = bn.train(test, { updateRunning: false });
  const course: number[] = [];
  const moments: Moments[] = [];
  for (let step = 0; step < steps; step++) {
    const batch = draw(size);
    bn.train(batch);
    moments.push(bn.moments(batch));
    course.push(gapOf(bn.infer(test), trained));
  }
  const { verdict, advice } = diagnose(bn, test);
  const exact = bn.clone();
  exact.setRunning(moments.reduce((all, each) => all.merge(each)));
  const adapted = adapt(exact, test, { prior: 16 });
  return {
    course,
    asItIs: course.at(-1)!,
    exact: gapOf(exact.infer(test), trained),
    adapted: gapOf(adapted.infer(test), trained),
    verdict,
    advice,
  };
}

/** What `train` says about a single example. */
export function refusal(z: number): string {
  try {
    new BatchNorm(1).train(Float32Array.of(z));
  } catch (error) {
    return String(error);
  }
  throw new Error("expected train to refuse a single example.");
}
