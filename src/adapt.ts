// Test-time adaptation: the statistics of shifted targets, with the running averages as a prior
// (Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
// adaptation", section 3, eq. 2).

import { checkKeys, describe, OptionError, SingleValueError } from "./errors.js";
import type { InferOptions } from "./frozen.js";
import type { FrozenBatchNorm } from "./frozen-batch-norm.js";
import { addTo, Moments, pool } from "./moments.js";
import { INFER_KEYS, NO_OPTIONS } from "./options.js";
import { checkVariance, type Statistics } from "./run.js";

/** Options of `adapt`. */
export interface AdaptOptions {
  /** As how many examples the running averages count, >= 0; may be Infinity. */
  prior: number;
  /** Sizes of the axes of `x`; may be left out for `"NC"`, whose rows are the examples. */
  shape?: readonly number[];
  /** Which of x is data, as in `train`. */
  mask?: Uint8Array;
}

/** Options of `adapter`. */
export interface AdapterOptions {
  /** As how many examples the running averages count, >= 0; may be Infinity. */
  prior: number;
  /** How many examples are remembered at most, >= 1; may be Infinity. */
  memory: number;
}

/** `value`, if it is a number of examples, infinity included. */
export function examplesOf(name: string, value: unknown, least: number): number {
  if (typeof value !== "number" || !(value >= least)) {
    throw new OptionError(
      `${name}: expected a number of examples >= ${least}, or Infinity, got ${describe(value)}`,
    );
  }
  return value;
}

/** Throws if a target of `count` values per channel would be normalized by nothing but itself. */
export function checkSpread(prior: number, count: number): void {
  if (prior > 0 || count !== 1) return;
  throw new SingleValueError(
    "x: expected at least two values per channel for prior 0, got one, whose variance says nothing",
  );
}

/** Statistics, and what float64 rounds off the mean, where it is known. */
export interface Blended extends Statistics {
  readonly meanLow?: Float64Array;
}

/** w·averages + (1 - w)·target, with w = prior/(prior + examples). */
export function blend(
  averages: Statistics,
  target: Moments | null,
  prior: number,
  examples: number,
): Blended {
  // Without examples there is nothing to adapt to; infinity is not moved by any.
  const w = examples === 0 || prior === Infinity ? 1 : prior / (prior + examples);
  if (target === null || w === 1) return averages;
  const { count, m2 } = target;
  const [mean, meanLow] = [target.mean.slice(), target.meanLow.slice()];
  mean.forEach((own, c) => {
    addTo(mean, meanLow, c, own, w * (averages.mean[c]! - own), (1 - w) * meanLow[c]!);
  });
  const variance = averages.variance.map((average, c) => {
    // The target's could hide that it is below 0.
    checkVariance(averages.variance, c);
    return w * average + (1 - w) * (m2[c]! / count);
  });
  return { mean, meanLow, variance };
}

/** What an adapter asks of the layer it was made of. */
export interface Source {
  /** The moments of x and how many examples they are of. */
  gather(x: Float32Array, options: InferOptions): { moments: Moments; examples: number };
  /** The layer with its averages adapted to a target. */
  adapted(target: Moments | null, examples: number): FrozenBatchNorm;
}

/**
 * The streaming form of `bn.adapt`, for serving where targets come one at a time: made by
 * `bn.adapter`. Each target joins what is remembered before it is normalized; the oldest weigh less
 * and less once `memory` is full.
 */
export class Adapter {
  readonly #source: Source;
  readonly #prior: number;
  readonly #memory: number;
  #target: Moments | null = null;
  #examples = 0;

  /** @internal Use `bn.adapter`. */
  constructor(source: Source, prior: number, memory: number) {
    this.#source = source;
    this.#prior = prior;
    this.#memory = memory;
  }

  /** As how many examples the targets so far count: at most `memory`. */
  get examples(): number {
    return this.#examples;
  }

  /**
   * Takes targets into account, then normalizes them (Schneider et al. 2020, eq. 2).
   *
   * @param x float32 values in the layer's layout; shape is needed but for `"NC"`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws as `bn.adapt` and `bn.infer`. Nothing was remembered then.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    checkKeys("options", options, INFER_KEYS);
    const { moments, examples } = this.#source.gather(x, options);
    const remembered = Math.min(this.#memory, this.#examples + examples);
    const kept = Math.max(0, remembered - examples);
    if (kept === 0) checkSpread(this.#prior, moments.count);
    const fresh = examples > remembered ? weigh(moments, remembered / examples) : moments;
    const target =
      this.#target === null || kept === 0
        ? fresh
        : pool(weigh(this.#target, kept / this.#examples), fresh);
    const y = this.#source.adapted(target, remembered).infer(x, options);
    this.#target = target;
    this.#examples = remembered;
    return y;
  }

  /** The layer as adapted so far, by itself. */
  freeze(): FrozenBatchNorm {
    return this.#source.adapted(this.#target, this.#examples);
  }

  /** Forgets all targets. */
  reset(): void {
    this.#target = null;
    this.#examples = 0;
  }
}

/** Moments that weigh less. */
const weigh = ({ count, mean, m2, meanLow }: Moments, share: number): Moments =>
  new Moments(
    count * share,
    mean,
    m2.map((sum) => sum * share),
    meanLow,
  );
