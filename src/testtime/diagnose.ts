// Says how far the running averages of a layer are from some data, and what to do about it.

import { checkKeys, SingleValueError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import type { MomentsOptions } from "../layer/options.js";
import { checkSeen, shareOfStart } from "../layer/running-averages.js";
import { copyOf } from "../values/arrays.js";
import { NO_OPTIONS } from "../values/check.js";
import { checkVariance, type Statistics } from "../values/terms.js";
import { type Drift, driftOf } from "./drift.js";
import { checkLayer } from "./layer.js";

/**
 * What `diagnose` found. It is the first of these that is true:
 * - `"untrained"`: the averages are still the initial 0 and 1;
 * - `"undertrained"`: the averages do not fit the data, because the initial 0 and 1 still weigh too much in them;
 * - `"drifted"`: the averages do not fit the data, for another reason;
 * - `"epsilon"`: the variance of some channels is below ε;
 * - `"dead"`: some channels do not vary at all;
 * - `"fit"`: the averages fit the data, or the data are too few to tell.
 */
export type Verdict = "untrained" | "undertrained" | "drifted" | "epsilon" | "dead" | "fit";

/** What `diagnose` returns. */
export interface Diagnosis {
  /** What was found, in a word. */
  readonly verdict: Verdict;
  /** One sentence that says what was found and what to do; a second one if `ageKnown` is false. */
  readonly advice: string;
  /** How far the averages of each channel are from the data, and which channels have another problem. */
  readonly channels: Drift & {
    /** Channels whose values in the data are all the same. */
    readonly dead: readonly number[];
    /** Channels that vary, but with a variance below ε: their output is smaller than it should be. */
    readonly epsilonDominates: readonly number[];
  };
  /** How many mini-batches entered the averages. */
  readonly batchesSeen: number;
  /** False if more mini-batches may have entered, since the averages come from a file that does not say. */
  readonly ageKnown: boolean;
  /** The diagnosis as a few lines of text. */
  toString(): string;
}

/**
 * Averages do not fit if both are true: they are off by this many standard deviations of the data, or by a
 * factor of two in the variance; and they are off by more than chance explains (CHANCE).
 */
const MEAN = 0.5;
const FACTOR = 2;
/**
 * So many standard errors may be chance: σ/√m is that of a mean, √(2/(m - 1)) that of the logarithm of a
 * variance.
 */
const CHANCE = 4;
/** If the initial 0 and 1 weigh at least this much in the averages, the advice says so. */
const START = 0.05;

const AGE_UNKNOWN =
  "The age of the averages is unknown: the file they came from counts no mini-batches.";

/**
 * Says how far the running averages of a layer are from some data, and what to do about it. Changes nothing.
 *
 * @param bn the layer.
 * @param x values that the layer meets, float32 in its layout. At least two per channel, better hundreds: the
 * fewer there are, the larger are the differences that are put down to chance.
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
  if (moments.count < 2) {
    throw new SingleValueError(
      "x",
      "at least two values per channel, better hundreds",
      `${moments.count}, which says nothing of a variance`,
    );
  }
  const batchesSeen = checkSeen("batchesSeen", bn.batchesSeen);
  const { ageKnown, epsilon } = bn;
  const averages = { mean: copyOf(bn.runningMean), variance: copyOf(bn.runningVariance) };
  checkAverages(averages);
  const found = examine(
    averages,
    { mean: moments.mean, variance: moments.variance(bn.runningVarianceOf) },
    moments.count,
    epsilon,
    ageKnown ? shareOfStart(bn, batchesSeen) : 0,
    bn.renorm?.decay !== undefined,
  );
  const untouched =
    averages.mean.every((v) => v === 0) &&
    averages.variance.every((v) => v === 1) &&
    (batchesSeen === 0 || !ageKnown);
  const [verdict, finding] = untouched ? UNTRAINED : judge(found, batchesSeen, moments.count);
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

/** Throws StateError for averages that are not finite. No comparison with NaN is true, so it would seem to fit. */
function checkAverages({ mean, variance }: Statistics): void {
  mean.forEach((value, c) => {
    checkVariance(variance, c);
    if (Number.isFinite(value)) return;
    throw new StateError("runningMean", "finite numbers", `${value} for channel ${c}`);
  });
}

/** What comparing the averages of a layer with some data gave. */
interface Findings extends Drift {
  readonly channels: number;
  /** Channels whose averages do not fit the data. */
  readonly off: readonly number[];
  readonly dead: readonly number[];
  readonly epsilonDominates: readonly number[];
  /** The weight that the initial 0 and 1 still have in the averages, if that is why they do not fit; else 0. */
  readonly start: number;
}

function examine(
  averages: Statistics,
  data: Statistics,
  count: number,
  epsilon: number,
  start: number,
  deviations: boolean,
): Findings {
  const all = [...data.variance.keys()];
  const farthest = Math.max(MEAN, CHANCE / Math.sqrt(count));
  const factor = Math.max(FACTOR, Math.exp(CHANCE * Math.sqrt(2 / (count - 1))));
  const offIn = ({ meanDrift, varianceRatio }: Drift): number[] =>
    all.filter((c) => Math.abs(meanDrift[c]!) > farthest || apart(varianceRatio[c]!) > factor);
  const drift = driftOf(averages, data, epsilon);
  const off = offIn(drift);
  // Averages that are only too young fit once the share of the initial 0 and 1 is taken out; others do not.
  const without = (value: number, initial: number): number =>
    (value - start * initial) / (1 - start);
  // Batch renormalization may have averaged √(variance + ε) in place of variances.
  const freed = {
    mean: averages.mean.map((m) => without(m, 0)),
    variance: averages.variance.map((v) =>
      deviations
        ? without(Math.sqrt(v + epsilon), Math.sqrt(1 + epsilon)) ** 2 - epsilon
        : without(v, 1),
    ),
  };
  // A share of 1 is that before the first mini-batch. Averages that are not 0 and 1 then were written by hand.
  const young =
    start > START && start < 1 && 2 * offIn(driftOf(freed, data, epsilon)).length <= off.length;
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

/** The verdict on what was found in so many values per channel, and a sentence of advice. */
function judge(found: Findings, batchesSeen: number, count: number): readonly [Verdict, string] {
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
  return [
    "fit",
    `The running averages fit these data, as far as ${count} values per channel tell.`,
  ];
}

/** The findings as a few lines of text. */
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

/** The factor, at least 1, by which two variances differ whose ratio is given. */
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
