// The subject of this package: what a layer remembers of the mini-batches it has seen, to normalize single
// examples at test time (Ioffe & Szegedy 2015, section 3.1 and algorithm 2). The averages are exponentially
// weighted, v += w·(new - v), with
//
//   w = 1 - decay                       the usual weight
//   w = (1 - decay)/(1 - decay^t)       with `debias`: the initial 0 and 1 have no share in early averages
//                                       (Kingma & Ba 2015, "Adam", section 3)
//   w = 1/t                             with "cumulative": the plain average over all batches so far
//
// for the t-th mini-batch. All of this is float64. The kernel `moveRunning` moves the averages.
//
// The last two weights are 1 for the first mini-batch, so it replaces whatever stands in the averages, values that a
// user wrote there included. It is the same in PyTorch with momentum=None, where num_batches_tracked is 0. To have
// written values count, `batchesSeen` is set too; a guess from the values (are they still 0 and 1?) would make
// trajectories depend on the data.

import { describe, StateError } from "../errors.js";
import { copy } from "../values/arrays.js";
import { isWhole } from "../values/check.js";
import { type MomentsLike, type VarianceKind, varianceOf } from "../values/moments.js";
import { type AverageUpdate, present, type Statistics } from "../values/terms.js";
import { WEIGHT } from "./options.js";

/** The options of a layer that say how its averages move. */
export interface AverageOptions {
  readonly decay: number | "cumulative";
  /** The usual weight of a new value, if that is not 1 - decay. */
  readonly [WEIGHT]: number | undefined;
  readonly debias: boolean;
  readonly runningVarianceOf: VarianceKind;
}

/** Running averages as snapshots and files hold them. */
export interface AverageState {
  readonly runningMean: ArrayLike<number>;
  readonly runningVariance: ArrayLike<number>;
  readonly batchesSeen: number;
  readonly ageKnown: boolean;
  /** The averages that batch renormalization may have of its own: both, or none. */
  readonly renormMean?: ArrayLike<number> | undefined;
  readonly renormDeviation?: ArrayLike<number> | undefined;
}

/** Running mean and variance, how many mini-batches entered them, and how they move. */
export class RunningAverages implements Statistics {
  readonly #mean: Float64Array;
  readonly #variance: Float64Array;
  readonly #renormMean: Float64Array;
  readonly #renormDeviation: Float64Array;
  readonly #options: AverageOptions;
  /** How many mini-batches entered. Users can write anything into it, so it is checked when it is used. */
  batchesSeen = 0;
  /** False if the averages come from a file that does not say how many mini-batches entered them. */
  ageKnown = true;

  constructor(channels: number, options: AverageOptions) {
    this.#mean = new Float64Array(channels);
    this.#variance = new Float64Array(channels).fill(1);
    this.#renormMean = new Float64Array(channels);
    this.#renormDeviation = new Float64Array(channels).fill(1);
    this.#options = options;
  }

  /** The running means. Throws StateError if a user transferred their buffer, as all that needs them. */
  get mean(): Float64Array {
    return present("runningMean", this.#mean);
  }

  /** The running variances. Throws StateError as `mean`. */
  get variance(): Float64Array {
    return present("runningVariance", this.#variance);
  }

  /** The means that batch renormalization averages by a `decay` of its own. Throws StateError as `mean`. */
  get renormMean(): Float64Array {
    return present("renormMean", this.#renormMean);
  }

  /** The deviations √(variance + ε) that it averages. Throws StateError as `mean`. */
  get renormDeviation(): Float64Array {
    return present("renormDeviation", this.#renormDeviation);
  }

  /**
   * How the averages move towards the statistics of the next mini-batch, which has `values` values per channel;
   * `null` if they are not to move. Throws StateError if `batchesSeen` is no number of mini-batches, if the averages
   * are gone, or if they are to move and have a decay of 1, under which they never would.
   */
  updateFor(values: number, moving: boolean): AverageUpdate | null {
    const { mean, variance } = this;
    const seen = checkSeen("batchesSeen", this.batchesSeen);
    if (!moving) return null;
    const { decay, runningVarianceOf } = this.#options;
    if (decay === 1) {
      throw new StateError(
        "decay",
        "one below 1, by a momentum given when the file was read, or { updateRunning: false }",
        1,
      );
    }
    return {
      runningMean: mean,
      runningVariance: variance,
      weight: this.#weight(seen + 1),
      bessel: runningVarianceOf === "sample" ? values / (values - 1) : 1,
    };
  }

  #weight(t: number): number {
    const { decay, debias, [WEIGHT]: weight } = this.#options;
    if (decay === "cumulative") return 1 / t;
    return debias ? (1 - decay) / complement(decay, t) : (weight ?? 1 - decay);
  }

  /** Counts a mini-batch that entered. The count stays at the largest whole number that a float64 counts to. */
  count(): void {
    this.batchesSeen = Math.min(this.batchesSeen + 1, Number.MAX_SAFE_INTEGER);
  }

  /** Replaces the averages by exact statistics. `batchesSeen` becomes at least 1: they no longer are the initial ones. */
  set(moments: Required<MomentsLike>): void {
    const { mean, variance } = this;
    const seen = checkSeen("batchesSeen", this.batchesSeen);
    varianceOf(moments, this.#options.runningVarianceOf, variance);
    copy(mean, moments.mean);
    this.batchesSeen = seen || 1;
    this.ageKnown = true;
  }

  /** Takes over averages from a snapshot or a file. They have been checked. */
  restore(state: AverageState): void {
    const { mean, variance, renormMean, renormDeviation } = this;
    copy(mean, state.runningMean);
    copy(variance, state.runningVariance);
    copy(renormMean, state.renormMean ?? renormMean);
    copy(renormDeviation, state.renormDeviation ?? renormDeviation);
    this.batchesSeen = state.batchesSeen;
    this.ageKnown = state.ageKnown;
  }

  /** Sets the averages back to 0 and 1, with no mini-batch seen. */
  reset(): void {
    const { mean, variance, renormMean, renormDeviation } = this;
    mean.fill(0);
    variance.fill(1);
    renormMean.fill(0);
    renormDeviation.fill(1);
    this.batchesSeen = 0;
    this.ageKnown = true;
  }
}

/**
 * The weight, 0 to 1, that the initial 0 and 1 still have in the averages of a layer. With a decay of 1 averages do
 * not move, so that those of a file cannot have come from the initial ones by training.
 */
export function shareOfStart(
  { decay, debias }: Pick<AverageOptions, "decay" | "debias">,
  batchesSeen: number,
): number {
  return decay === "cumulative" || decay === 1 || debias ? 0 : power(decay, batchesSeen);
}

/** Returns `value` if it is a count of mini-batches; throws StateError if not. */
export function checkSeen(name: string, value: unknown): number {
  if (!isWhole(value)) throw new StateError(name, "a whole number >= 0", describe(value));
  return value;
}

/**
 * 1 - base^t for a whole t >= 1. Near base 1, subtracting the power would lose nearly all digits. The complements of
 * two powers give that of their product, 1 - ab = (1 - a) + a·(1 - b), in which nothing cancels.
 */
function complement(base: number, t: number): number {
  let result = 0;
  for (let factor = 1 - base, left = t; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result += (1 - result) * factor;
    factor += (1 - factor) * factor;
  }
  return result;
}

/** base^t for a whole t >= 0. By products alone, because Math.pow gives other bits in other JavaScript engines. */
function power(base: number, t: number): number {
  let result = 1;
  for (let factor = base, left = t; left > 0; left = Math.floor(left / 2), factor *= factor) {
    if (left % 2 === 1) result *= factor;
  }
  return result;
}
