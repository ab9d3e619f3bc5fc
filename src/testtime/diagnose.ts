// How far a layer's running averages are from some data, and what to do about it.

import { checkKeys, StateError } from "../errors.js";
import { checkCount } from "../layer/batch.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import type { MomentsOptions } from "../layer/options.js";
import { checkSeen, shareOfStart } from "../layer/running-averages.js";
import { NO_OPTIONS } from "../values/check.js";
import { checkVariance, type Statistics } from "../values/terms.js";
import { type Drift, driftOf } from "./drift.js";
import { checkLayer } from "./layer.js";

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

/** What `diagnose` returns. */
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

/** Averages are off by half a standard deviation, or by a factor of two of the variance … */
const MEAN = 0.5;
const FACTOR = 2;
/** … and by four standard errors of a mean, σ/√m, and of a logarithm of a variance, √(2/(m - 1)). */
const CHANCE = 4;
/** From this share on, what the averages still hold of their start is worth a word. */
const START = 0.05;

const AGE_UNKNOWN =
  "The age of the averages is unknown: the file they came from counts no mini-batches.";

/**
 * How far the running averages of a layer are from some data, and what to do about it. Changes nothing.
 *
 * @param bn the layer.
 * @param x values that the layer meets, float32 in its layout; at least two per channel, better
 * hundreds: what so many normal numbers differ by chance is not held against the averages.
 * @throws OptionError for what is no layer; as `bn.moments`; SingleValueError for fewer than two values per
 * channel; StateError for running averages that are not finite, a variance below 0, or an invalid `batchesSeen`.
 *
 * @example
 * console.log(String(diagnose(bn, x))); // drifted: 3 of 64 channels are off, by up to …
 */
export function diagnose(
  bn: BatchNorm,
  x: Float32Array,
  options: MomentsOptions = NO_OPTIONS,
): Diagnosis {
  checkLayer(bn);
  checkKeys("options", options, ["shape", "mask"]);
  const moments = bn.moments(x, options);
  checkCount(moments.count, true);
  const batchesSeen = checkSeen("batchesSeen", bn.batchesSeen);
  const { ageKnown, epsilon } = bn;
  const averages = { mean: bn.runningMean, variance: bn.runningVariance };
  checkAverages(averages);
  const found = examine(
    averages,
    { mean: moments.mean, variance: moments.variance(bn.runningVarianceOf) },
    moments.count,
    epsilon,
    ageKnown ? shareOfStart(bn, batchesSeen) : 0,
  );
  const untouched =
    averages.mean.every((v) => v === 0) &&
    averages.variance.every((v) => v === 1) &&
    (batchesSeen === 0 || !ageKnown);
  const [verdict, finding] = untouched ? UNTRAINED : judge(found, batchesSeen);
  const advice = ageKnown ? finding : `${finding} ${AGE_UNKNOWN}`;
  const seen = `${batchesSeen}${ageKnown ? "" : " or more"}`;
  const text = describeFindings(`${verdict}: ${advice}`, seen, found);
  const { meanDrift, varianceRatio, dead, epsilonDominates } = found;
  return {
    verdict,
    advice,
    channels: { meanDrift, varianceRatio, dead, epsilonDominates },
    batchesSeen,
    ageKnown,
    toString: () => text,
  };
}

/** Throws StateError for averages that are not finite: NaN would pass for fitting. */
function checkAverages({ mean, variance }: Statistics): void {
  mean.forEach((value, c) => {
    checkVariance(variance, c);
    if (Number.isFinite(value)) return;
    throw new StateError("runningMean", "finite numbers", `${value} for channel ${c}`);
  });
}

/** What the averages of a layer and some data have to do with each other. */
interface Findings extends Drift {
  readonly channels: number;
  /** Channels whose averages are off. */
  readonly off: readonly number[];
  readonly dead: readonly number[];
  readonly epsilonDominates: readonly number[];
  /** How much of the initial 0 and 1 the averages still hold, where that is why they are off; else 0. */
  readonly start: number;
}

function examine(
  averages: Statistics,
  data: Statistics,
  count: number,
  epsilon: number,
  start: number,
): Findings {
  const all = [...data.variance.keys()];
  const farthest = Math.max(MEAN, CHANCE / Math.sqrt(count));
  const factor = Math.max(FACTOR, Math.exp(CHANCE * Math.sqrt(2 / (count - 1))));
  const offIn = ({ meanDrift, varianceRatio }: Drift): number[] =>
    all.filter((c) => Math.abs(meanDrift[c]!) > farthest || apart(varianceRatio[c]!) > factor);
  const drift = driftOf(averages, data, epsilon);
  const off = offIn(drift);
  // Averages that are merely too young fit as soon as they are freed of their start; others do not.
  const freed = {
    mean: averages.mean.map((m) => m / (1 - start)),
    variance: averages.variance.map((v) => (v - start) / (1 - start)),
  };
  const young = start > START && 2 * offIn(driftOf(freed, data, epsilon)).length <= off.length;
  return {
    ...drift,
    channels: all.length,
    off,
    dead: all.filter((c) => data.variance[c] === 0),
    epsilonDominates: all.filter((c) => data.variance[c]! > 0 && data.variance[c]! < epsilon),
    start: young ? start : 0,
  };
}

const UNTRAINED: readonly [Verdict, string] = [
  "untrained",
  "The running averages are still 0 and 1: train, or calibrate, before infer.",
];

/** The verdict on what was found, and one sentence. */
function judge(found: Findings, batchesSeen: number): readonly [Verdict, string] {
  const { channels, off, dead, epsilonDominates, start } = found;
  if (off.length > 0) {
    const measured =
      `${off.length} of ${channels} channels are off, by up to ${show(worstMean(found))} standard deviations ` +
      `and a factor of ${show(maximum(Array.from(found.varianceRatio, apart)))} in variance`;
    if (start > 0) {
      const batches = `${batchesSeen} mini-batch${batchesSeen === 1 ? "" : "es"}`;
      return [
        "undertrained",
        `After ${batches} the running averages still hold ${show(100 * start)} % of their start, and ` +
          `${measured}: calibrate, or train on.`,
      ];
    }
    return [
      "drifted",
      `${measured}: if these data are like those of training, calibrate; if the world has changed, adapt.`,
    ];
  }
  if (epsilonDominates.length > 0) {
    return [
      "epsilon",
      `In ${epsilonDominates.length} of ${channels} channels the variance is below epsilon, which ` +
        "sets their scale: make it smaller, or scale these inputs up.",
    ];
  }
  if (dead.length > 0) {
    return ["dead", `${dead.length} of ${channels} channels do not vary: look at what feeds them.`];
  }
  return ["fit", "The running averages fit these data."];
}

/** A few lines for people. */
function describeFindings(title: string, seen: string, found: Findings): string {
  const { off, meanDrift, varianceRatio, dead, epsilonDominates } = found;
  const list = (channels: readonly number[]): string =>
    channels.length === 0
      ? "none"
      : `${channels.length} (${channels.slice(0, 8).join(", ")}${channels.length > 8 ? ", …" : ""})`;
  const least = -maximum(varianceRatio.map((ratio) => -ratio));
  return [
    title,
    `  mini-batches seen   ${seen}`,
    `  channels off        ${list(off)}`,
    `  mean drift          up to ${show(worstMean(found))} standard deviations (channel ${indexOfLargest(meanDrift)})`,
    `  variance ratio      ${show(least)} to ${show(maximum(varianceRatio))}`,
    `  below epsilon       ${list(epsilonDominates)}`,
    `  dead                ${list(dead)}`,
  ].join("\n");
}

const worstMean = ({ meanDrift }: Drift): number => maximum(meanDrift.map(Math.abs));

/** By what factor two variances of this ratio differ, whichever is the larger. */
const apart = (ratio: number): number => Math.max(ratio, 1 / ratio);

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
