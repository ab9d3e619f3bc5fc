/** How the statistics for test time are estimated, and what comes of it. */

import * as tf from "@tensorflow/tfjs";
import { diagnose, type Statistics } from "batchnorm-wasm";
import { accuracy, type Digits, inOrder, miniBatches, PIXELS, pixels } from "./digits.js";
import { type Distance, distance } from "./distance.js";
import { adapting, averagesOf, Beside, calibrateOn, setAverages, TARGETS } from "./estimates.js";
import { predict } from "./evaluate.js";
import { initialWeights, untrained } from "./layers.js";
import { Network, runningAverages } from "./network.js";
import { Random } from "./random.js";
import { shift } from "./shift.js";
import { descend } from "./train.js";

/** One estimate, on the test digits as they are and shifted. */
export interface Estimate {
  readonly label: string;
  /** Shares answered rightly, 0 … 1. */
  readonly plain: number;
  readonly shifted: number;
  readonly remark: string;
}

/** What the first layer's `diagnose` says of some digits. */
export interface Diagnosed {
  readonly verdict: string;
  readonly text: string;
}

/** A network trained for a few steps only, before and after `calibrate`. */
export interface Brief {
  readonly steps: number;
  readonly decay: number;
  readonly diagnosis: Diagnosed;
  readonly before: number;
  readonly after: number;
  readonly diagnosisAfter: Diagnosed;
}

/** One point of the sweep. */
export interface SweepPoint {
  readonly batchSize: number;
  /** `null`: the exact statistics. */
  readonly decay: number | null;
  readonly accuracy: number;
  readonly distance: Distance;
}

export interface TestTime {
  readonly estimates: readonly Estimate[];
  /** Largest difference of the first layer's exact mean (in σ) and variance (relative) from float64. */
  readonly exactness: { readonly mean: number; readonly variance: number };
  readonly plainDiagnosis: Diagnosed;
  readonly shiftedDiagnosis: Diagnosed;
  readonly brief: Brief;
  readonly sweep: { readonly steps: number; readonly points: readonly SweepPoint[] };
}

export const BRIEF = { steps: 50, decay: 0.99 } as const;
export const SWEEP = { decays: [0.5, 0.9, 0.99, 0.999], batchSizes: [16, 60, 256] } as const;

/** What is going on, for a progress bar: `done` of `total`. */
export type OnProgress = (title: string, done: number, total: number) => void;

/**
 * Estimates of every kind for a trained network; its own averages are as before in the end.
 *
 * @param cumulative the plain average over all its mini-batches
 */
export async function estimate(
  network: Network,
  cumulative: readonly Statistics[],
  { train, test }: { train: Digits; test: Digits },
  seed: number,
  onProgress: OnProgress,
): Promise<Pick<TestTime, "estimates" | "exactness" | "plainDiagnosis" | "shiftedDiagnosis">> {
  const own = averagesOf(network);
  const shifted = shift(test, seed);
  const both = async (
    label: string,
    remark: string,
    normalize = () => runningAverages,
    batchSize?: number,
  ): Promise<Estimate> => {
    const of = async (digits: Digits) =>
      accuracy(await predict(network, digits, normalize(), batchSize ? { batchSize } : {}), digits);
    return { label, remark, plain: await of(test), shifted: await of(shifted) };
  };

  const running = await both("running averages", "decay 0.9: the last twenty mini-batches or so");
  const plainDiagnosis = diagnosisOf(network, test);
  const shiftedDiagnosis = diagnosisOf(network, shifted);
  const adapted = await both(
    "adapted running averages",
    `each layer adapts to the digits as they come, ${TARGETS} at a time`,
    () => adapting(network),
    TARGETS,
  );
  setAverages(network, cumulative);
  const average = await both(
    "cumulative averages",
    "all mini-batches alike, those of the untrained network as well",
  );

  const inputs = new Float32Array(train.count * own[0].mean.length);
  let filled = 0;
  await calibrateOn(
    network,
    train,
    (done) => onProgress("calibrating", done, train.count),
    (x) => {
      inputs.set(x.dataSync(), filled);
      filled += x.size;
    },
  );
  const exactness = apart(averagesOf(network)[0], inputs);
  const exact = await both(
    "exact statistics (calibrate)",
    `of all ${train.count.toLocaleString("en-US")} training digits, through the final network, in one pass`,
  );
  setAverages(network, own);
  return {
    estimates: [running, average, exact, adapted],
    exactness,
    plainDiagnosis,
    shiftedDiagnosis,
  };
}

/** What the first layer says of its inputs for these digits. */
function diagnosisOf(network: Network, digits: Digits): Diagnosed {
  let found: Diagnosed | undefined;
  const [indices] = inOrder(digits, 1000);
  tf.tidy(() => {
    const x = tf.tensor2d(pixels(digits, indices), [indices.length, PIXELS]);
    network.logits(x, (norm, input, index) => {
      if (index === 0) {
        const diagnosis = diagnose(norm.layer, input.dataSync<"float32">());
        found = { verdict: diagnosis.verdict, text: String(diagnosis) };
      }
      return runningAverages(norm, input, index);
    });
  });
  return found as Diagnosed;
}

/** The float64 mean and sample variance of each column, against `averages`. */
function apart({ mean, variance }: Statistics, values: Float32Array): TestTime["exactness"] {
  const channels = mean.length;
  const count = values.length / channels;
  const worst = { mean: 0, variance: 0 };
  for (let c = 0; c < channels; c++) {
    let sum = 0;
    for (let i = c; i < values.length; i += channels) sum += values[i];
    const m = sum / count;
    let squares = 0;
    for (let i = c; i < values.length; i += channels) squares += (values[i] - m) ** 2;
    const v = squares / (count - 1);
    worst.mean = Math.max(worst.mean, Math.abs(mean[c] - m) / Math.sqrt(v));
    worst.variance = Math.max(worst.variance, Math.abs(variance[c] - v) / v);
  }
  return worst;
}

/** Trains a network for a few steps with a long memory, then repairs its averages. */
export async function trainBriefly(
  { train, test }: { train: Digits; test: Digits },
  { seed, learningRate, batchSize }: { seed: number; learningRate: number; batchSize: number },
): Promise<Brief> {
  const { steps, decay } = BRIEF;
  const random = new Random(seed);
  const network = new Network(untrained(initialWeights(random, 0.1), { decay }));
  const optimizer = tf.train.sgd(learningRate);
  const batches = miniBatches(train, batchSize, random);
  for (let step = 0; step < steps; step++) {
    descend(network, optimizer, train, batches.next().value);
  }
  const measured = async () => accuracy(await predict(network, test, runningAverages), test);
  const diagnosis = diagnosisOf(network, train);
  const before = await measured();
  await calibrateOn(network, train);
  const after = await measured();
  const diagnosisAfter = diagnosisOf(network, train);
  network.dispose();
  optimizer.dispose();
  return { steps, decay, diagnosis, before, after, diagnosisAfter };
}

/**
 * How robust test time is to the way the estimate is made: training does not depend on the decay, so
 * one network for each batch size serves all decays.
 */
export async function sweep(
  { train, test }: { train: Digits; test: Digits },
  { seed, learningRate, steps }: { seed: number; learningRate: number; steps: number },
  onProgress: OnProgress,
): Promise<TestTime["sweep"]> {
  const points: SweepPoint[] = [];
  const total = SWEEP.batchSizes.length * steps;
  for (const [i, batchSize] of SWEEP.batchSizes.entries()) {
    const random = new Random(seed);
    const network = new Network(untrained(initialWeights(random, 0.1), {}));
    const beside = SWEEP.decays.map((decay) => new Beside(network, { decay }));
    const optimizer = tf.train.sgd(learningRate);
    const batches = miniBatches(train, batchSize, random);
    for (let step = 0; step < steps; step++) {
      descend(network, optimizer, train, batches.next().value);
      for (const averages of beside) averages.follow(network);
      if (step % 10 === 9) {
        onProgress(`batches of ${batchSize}`, i * steps + step + 1, total);
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    await calibrateOn(network, train);
    const exact = averagesOf(network);
    const candidates = [
      { decay: null, averages: exact },
      ...beside.map(({ averages }, k) => ({ decay: SWEEP.decays[k], averages })),
    ];
    for (const { decay, averages } of candidates) {
      setAverages(network, averages);
      points.push({
        batchSize,
        decay,
        accuracy: accuracy(await predict(network, test, runningAverages), test),
        distance: distance(averages, exact, network.norms[0].layer.epsilon),
      });
    }
    network.dispose();
    optimizer.dispose();
  }
  return { steps, points };
}
