// The subject of this package: what a layer remembers of the mini-batches it has seen, to normalize single
// examples at test time (Ioffe & Szegedy 2015, section 3.1 and algorithm 2). The averages are exponentially
// weighted, v += w·(new - v), with
//
//   w = 1 - decay                       the usual weight
//   w = (1 - decay)/(1 - decay^t)       debias: the early averages are free of the initial 0 and 1
//                                       (Kingma & Ba 2015, "Adam", section 3)
//   w = 1/t                             "cumulative": the plain average over all batches so far
//
// for the t-th mini-batch. All in float64; the kernel that moves them is `moveRunning`.

import { describe, StateError } from "../errors.js";
import type { Moments, VarianceKind } from "../values/moments.js";
import type { AverageUpdate, Statistics } from "../values/terms.js";

/** How averages move: the options of a layer that say so. */
export interface AverageOptions {
  readonly decay: number | "cumulative";
  readonly debias: boolean;
  readonly runningVarianceOf: VarianceKind;
}

/** Averages as snapshots and files hold them. */
export interface AverageState {
  readonly runningMean: ArrayLike<number>;
  readonly runningVariance: ArrayLike<number>;
  readonly batchesSeen: number;
  readonly ageKnown: boolean;
}

/** Mean and variance over mini-batches, how many entered them, and how they move. */
export class RunningAverages implements Statistics {
  readonly mean: Float64Array;
  readonly variance: Float64Array;
  readonly #options: AverageOptions;
  /** How many mini-batches entered; whatever users wrote, so that it is checked when it is used. */
  count = 0;
  /** False where the averages come from a file that does not say how many entered. */
  ageKnown = true;

  constructor(channels: number, options: AverageOptions) {
    this.mean = new Float64Array(channels);
    this.variance = new Float64Array(channels).fill(1);
    this.#options = options;
  }

  /**
   * How they move towards the statistics of the next mini-batch, of `values` values per channel. Throws
   * StateError for a `count` that is none.
   */
  updateFor(values: number): AverageUpdate {
    return {
      runningMean: this.mean,
      runningVariance: this.variance,
      weight: this.#weight(checkSeen("batchesSeen", this.count) + 1),
      correction: this.#options.runningVarianceOf === "sample" ? values / (values - 1) : 1,
    };
  }

  #weight(t: number): number {
    const { decay, debias } = this.#options;
    if (decay === "cumulative") return 1 / t;
    return debias ? (1 - decay) / (1 - power(decay, t)) : 1 - decay;
  }

  /** Takes exact statistics in place of averages; at least one mini-batch has entered then. */
  set(moments: Moments): void {
    const variance = moments.variance(this.#options.runningVarianceOf);
    const count = Math.max(1, checkSeen("batchesSeen", this.count));
    this.mean.set(moments.mean);
    this.variance.set(variance);
    this.count = count;
    this.ageKnown = true;
  }

  /** Takes over averages from elsewhere, which are checked. */
  restore(state: AverageState): void {
    this.mean.set(state.runningMean);
    this.variance.set(state.runningVariance);
    this.count = state.batchesSeen;
    this.ageKnown = state.ageKnown;
  }

  /** Back to 0 and 1, no mini-batch seen. */
  reset(): void {
    this.mean.fill(0);
    this.variance.fill(1);
    this.count = 0;
    this.ageKnown = true;
  }
}

/** How much of the initial 0 and 1 the averages of a layer still hold, 0 to 1. */
export function shareOfStart(
  { decay, debias }: Pick<AverageOptions, "decay" | "debias">,
  batchesSeen: number,
): number {
  return decay === "cumulative" || debias ? 0 : power(decay, batchesSeen);
}

/** A count of mini-batches, as users may write it. */
export function checkSeen(name: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new StateError(name, "a whole number >= 0", describe(value));
  }
  return value as number;
}

/** base^t for a whole t >= 0 by squaring: products alone, since Math.pow differs between engines. */
function power(base: number, t: number): number {
  let result = 1;
  for (let factor = base, left = t; left > 0; left = Math.floor(left / 2), factor *= factor) {
    if (left % 2 === 1) result *= factor;
  }
  return result;
}
