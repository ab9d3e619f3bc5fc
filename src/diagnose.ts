// How far a layer's running averages are from some data, and what to do about it.

import { StateError } from "./errors.js";
import { checkVariance, type Statistics } from "./run.js";

/** How far averages are from the statistics of data, for each channel. */
export interface Drift {
  /** (average - mean)/√(variance + ε), [channels]: in standard deviations of the data. */
  readonly meanDrift: Float64Array;
  /** (average + ε)/(variance + ε) of the variances, [channels]; 1 where they agree. */
  readonly varianceRatio: Float64Array;
}

/** How far `averages` are from `data`, ε counted in as in normalization. */
export function driftOf(averages: Statistics, data: Statistics, epsilon: number): Drift {
  const ratio = (a: number, b: number): number => (a === b ? 1 : a / b);
  return {
    meanDrift: data.mean.map((mean, c) => {
      const apart = averages.mean[c]! - mean;
      return apart === 0 ? 0 : apart / Math.sqrt(data.variance[c]! + epsilon);
    }),
    varianceRatio: data.variance.map((variance, c) =>
      ratio(averages.variance[c]! + epsilon, variance + epsilon),
    ),
  };
}

/**
 * What `diagnose` found, the first that holds:
 * - `"untrained"`: the averages are still 0 and 1;
 * - `"undertrained"`: they are off, because they hold much of their start still;
 * - `"drifted"`: they are off;
 * - `"epsilon"`: some channels vary less than ε says;
 * - `"dead"`: some channels do not vary at all;
 * - `"fit"`: they fit the data.
 */
export type Verdict = "untrained" | "undertrained" | "drifted" | "epsilon" | "dead" | "fit";

/** What `bn.diagnose` returns. */
export interface Diagnosis {
  /** What was found, in a word. */
  readonly verdict: Verdict;
  /** One sentence: what was found and what to do; one more where the age is unknown. */
  readonly advice: string;
  /** How far each channel is off, and which have a trouble of their own. */
  readonly channels: Drift & {
    /** Channels all of whose values in the data are the same. */
    readonly dead: readonly number[];
    /** Channels that vary, but with a variance below ε: their output is smaller than it should be. */
    readonly epsilonDominates: readonly number[];
  };
  /** How many mini-batches entered the averages. */
  readonly batchesSeen: number;
  /** False where more may have: the file they came from does not say. */
  readonly ageKnown: boolean;
  /** A few lines for people. */
  toString(): string;
}

/** What `diagnose` looks at. */
export interface Examined {
  readonly averages: Statistics;
  readonly data: Statistics;
  /** How many values of each channel the data have. */
  readonly count: number;
  readonly epsilon: number;
  /** How much of the initial 0 and 1 the averages still hold, 0 … 1. */
  readonly start: number;
  readonly batchesSeen: number;
  readonly ageKnown: boolean;
}

/** Off: by half a standard deviation, or by a factor of two of the variance … */
const MEAN = 0.5;
const FACTOR = 2;
/** … and by four standard errors of a mean, σ/√m, and of a logarithm of a variance, √(2/(m - 1)). */
const CHANCE = 4;
/** A share of the start that is worth a word. */
const START = 0.05;

const AGE_UNKNOWN =
  "The age of the averages is unknown: the file they came from counts no mini-batches.";

/** The verdict on a layer. */
export function diagnosisOf(examined: Examined): Diagnosis {
  const { averages, data, count, epsilon, start, batchesSeen, ageKnown } = examined;
  const { meanDrift, varianceRatio } = driftOf(averages, data, epsilon);
  const all = [...data.variance.keys()];
  const dead = all.filter((c) => data.variance[c] === 0);
  // NaN would pass for fitting.
  averages.mean.forEach((mean, c) => {
    checkVariance(averages.variance, c);
    if (Number.isFinite(mean)) return;
    throw new StateError(`runningMean: expected finite numbers, got ${mean} for channel ${c}`);
  });
  const epsilonDominates = all.filter((c) => data.variance[c]! > 0 && data.variance[c]! < epsilon);
  const farthest = Math.max(MEAN, CHANCE / Math.sqrt(count));
  const factor = Math.max(FACTOR, Math.exp(CHANCE * Math.sqrt(2 / (count - 1))));
  const spread = (ratio: number): number => Math.max(ratio, 1 / ratio);
  const offIn = (drift: Drift): number[] =>
    all.filter(
      (c) => Math.abs(drift.meanDrift[c]!) > farthest || spread(drift.varianceRatio[c]!) > factor,
    );
  const off = offIn({ meanDrift, varianceRatio });
  // Freed of their start, averages that are only too young fit; such as were set by hand do not.
  const freed = {
    mean: averages.mean.map((m) => m / (1 - start)),
    variance: averages.variance.map((v) => (v - start) / (1 - start)),
  };
  const young = start > START && 2 * offIn(driftOf(freed, data, epsilon)).length <= off.length;

  const worst = maximum(meanDrift.map(Math.abs));
  const measured =
    `${off.length} of ${all.length} channels are off, by up to ${show(worst)} standard deviations ` +
    `and a factor of ${show(maximum(Array.from(varianceRatio, spread)))} in variance`;
  const untouched = averages.mean.every((v) => v === 0) && averages.variance.every((v) => v === 1);
  const [verdict, finding]: [Verdict, string] =
    untouched && (batchesSeen === 0 || !ageKnown)
      ? ["untrained", "The running averages are still 0 and 1: train, or calibrate, before infer."]
      : off.length > 0 && young
        ? [
            "undertrained",
            `After ${batchesSeen} mini-batch${batchesSeen === 1 ? "" : "es"} the running averages still hold ${show(100 * start)} % of ` +
              `their start, and ${measured}: calibrate, or train on.`,
          ]
        : off.length > 0
          ? [
              "drifted",
              `${measured}: if these data are like those of training, calibrate; if the world has changed, adapt.`,
            ]
          : epsilonDominates.length > 0
            ? [
                "epsilon",
                `In ${epsilonDominates.length} of ${all.length} channels the variance is below epsilon, which ` +
                  "sets their scale: make it smaller, or scale these inputs up.",
              ]
            : dead.length > 0
              ? [
                  "dead",
                  `${dead.length} of ${all.length} channels do not vary: look at what feeds them.`,
                ]
              : ["fit", "The running averages fit these data."];

  const advice = ageKnown ? finding : `${finding} ${AGE_UNKNOWN}`;
  const list = (channels: readonly number[]): string =>
    channels.length === 0
      ? "none"
      : `${channels.length} (${channels.slice(0, 8).join(", ")}${channels.length > 8 ? ", …" : ""})`;
  const text = [
    `${verdict}: ${advice}`,
    `  mini-batches seen   ${batchesSeen}${ageKnown ? "" : " or more"}`,
    `  channels off        ${list(off)}`,
    `  mean drift          up to ${show(worst)} standard deviations (channel ${indexOfLargest(meanDrift)})`,
    `  variance ratio      ${show(-maximum(varianceRatio.map((r) => -r)))} to ${show(maximum(varianceRatio))}`,
    `  below epsilon       ${list(epsilonDominates)}`,
    `  dead                ${list(dead)}`,
  ].join("\n");
  return {
    verdict,
    advice,
    channels: { meanDrift, varianceRatio, dead, epsilonDominates },
    batchesSeen,
    ageKnown,
    toString: () => text,
  };
}

const maximum = (values: ArrayLike<number> & Iterable<number>): number => {
  let most = -Infinity;
  for (const value of values) if (value > most) most = value;
  return most;
};

const indexOfLargest = (values: Float64Array): number => {
  const sizes = values.map(Math.abs);
  return sizes.indexOf(maximum(sizes));
};

const show = (value: number): string => String(Number(value.toPrecision(3)));
