// Test-time adaptation: the statistics of shifted targets, with the running averages as a prior
// (Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
// adaptation", section 3, eq. 2).

import { checkKeys, describe, OptionError, SingleValueError } from "../errors.js";
import type { InferOptions } from "../frozen/frozen.js";
import { type FrozenBatchNorm, freeze } from "../frozen/frozen-batch-norm.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import type { MomentsOptions } from "../layer/options.js";
import { copyOf, lengthOf } from "../values/arrays.js";
import { INFER_KEYS, NO_OPTIONS } from "../values/check.js";
import { noShape, sizesOf } from "../values/layout.js";
import { Moments, pool } from "../values/moments.js";
import { Raw } from "../values/raw.js";
import { checkVariance, type Statistics } from "../values/terms.js";
import { addTo } from "../values/two-sum.js";
import { checkLayer } from "./layer.js";

/** Options of `adapt`. */
export interface AdaptOptions {
  /** How many examples the running averages count as, >= 0; may be Infinity. */
  prior: number;
  /** Sizes of the axes of `x`. May be left out for `"NC"`, where each row is an example. */
  shape?: readonly number[];
  /** Which of x is data, as in `train`. */
  mask?: Uint8Array;
}

/** Options of `adapter`. */
export interface AdapterOptions {
  /** How many examples the running averages count as, >= 0; may be Infinity. */
  prior: number;
  /** The largest number of examples that is remembered, >= 1; may be Infinity. */
  memory: number;
}

/**
 * Test-time adaptation to data that differ from those of training: returns a frozen copy of the layer whose
 * mean is w·(running mean) + (1 - w)·(mean of x), with w = prior/(prior + n) for n examples in x. The variance
 * is mixed in the same way, with the population variance of x (Schneider et al. 2020, eq. 2). The layer is
 * unchanged. With prior 0 the copy normalizes x as `train` would, with Infinity as `infer`.
 *
 * @param bn the layer, as it was trained.
 * @param x targets, float32 in the layer's layout.
 * @throws OptionError if `bn` is no layer, or without a prior; ShapeError without a shape in all layouts but
 * `"NC"`, where the length alone does not tell the number of examples; SingleValueError for prior 0 and one value
 * per channel; StateError for an invalid running variance; otherwise as `bn.moments`.
 */
export function adapt(bn: BatchNorm, x: Float32Array, options: AdaptOptions): FrozenBatchNorm {
  checkLayer(bn);
  checkKeys("options", options, ["prior", "shape", "mask"]);
  const prior = examplesOf("prior", options.prior, 0);
  const { moments, examples } = targetOf(bn, x, options);
  checkSpread(prior, moments.count);
  return freeze(bn, blend(bn, moments, prior, examples));
}

/**
 * The streaming form of `adapt`. Its `infer` takes targets as they come and remembers statistics of them that
 * count as at most `memory` examples. It works on a copy of the layer, so later training does not reach it.
 *
 * @param bn the layer, as it was trained.
 * @throws OptionError if `bn` is no layer, or without a prior >= 0 and a memory >= 1, in examples; StateError as
 * `bn.clone`.
 */
export function adapter(bn: BatchNorm, options: AdapterOptions): Adapter {
  checkLayer(bn);
  checkKeys("options", options, ["prior", "memory"]);
  const prior = examplesOf("prior", options.prior, 0);
  const memory = examplesOf("memory", options.memory, 1);
  return new Adapter(bn.clone(), prior, memory);
}

/**
 * The streaming form of `adapt`, for servers whose targets come one at a time; `adapter` makes one. Each target
 * is first added to what is remembered and then normalized. Once `memory` is full, old targets weigh less and
 * less.
 *
 * @throws StateError from every member that is used through a proxy of it (Vue's `reactive`, valtio's `proxy`).
 */
export class Adapter extends Raw {
  readonly #layer: BatchNorm;
  readonly #prior: number;
  readonly #memory: number;
  #target: Moments | null = null;
  #examples = 0;

  /** @internal Use `adapter`. */
  constructor(layer: BatchNorm, prior: number, memory: number) {
    super();
    this.#layer = layer;
    this.#prior = prior;
    this.#memory = memory;
  }

  /** How many examples the targets so far count as: at most `memory`. */
  get examples(): number {
    return this.raw.#examples;
  }

  /**
   * Takes targets into account, then normalizes them (Schneider et al. 2020, eq. 2).
   *
   * @param x float32 values in the layer's layout; all layouts but `"NC"` need `shape`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws as `adapt` and `bn.infer`. When it throws, nothing has been remembered.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    checkKeys("options", options, INFER_KEYS);
    const { shape, mask, out, add } = options;
    const given = { shape: sizesOf(shape), mask, out, add } as InferOptions<Out>;
    const { moments, examples } = targetOf(this.raw.#layer, x, given);
    const remembered = Math.min(this.#memory, this.#examples + examples);
    const kept = Math.max(0, remembered - examples);
    if (kept === 0) checkSpread(this.#prior, moments.count);
    const fresh = examples > remembered ? weigh(moments, remembered / examples) : moments;
    const target =
      this.#target === null || kept === 0
        ? fresh
        : pool(weigh(this.#target, kept / this.#examples), fresh);
    const y = this.#adapted(target, remembered).infer(x, given);
    this.#target = target;
    this.#examples = remembered;
    return y;
  }

  /**
   * A frozen layer with the statistics adapted so far, which later targets do not change.
   *
   * @throws StateError for an invalid running variance.
   */
  freeze(): FrozenBatchNorm {
    return this.raw.#adapted(this.#target, this.#examples);
  }

  #adapted(target: Moments | null, examples: number): FrozenBatchNorm {
    return freeze(this.#layer, blend(this.#layer, target, this.#prior, examples));
  }

  /** The adapter in one line, which Node's `console.log` shows too. */
  override toString(): string {
    const { channels, layout } = this.raw.#layer;
    return `Adapter(${channels}, { layout: "${layout}", prior: ${this.#prior}, memory: ${this.#memory} }), examples: ${this.#examples}`;
  }

  /** Forgets all targets. */
  reset(): void {
    this.raw.#target = null;
    this.#examples = 0;
  }
}

/** Returns `value` if it is a number of examples, which may be infinite; throws OptionError if not. */
function examplesOf(name: string, value: unknown, least: number): number {
  if (typeof value !== "number" || !(value >= least)) {
    throw new OptionError(name, `a number of examples >= ${least}, or Infinity`, describe(value));
  }
  return value;
}

/** The moments of targets, and how many examples these are. */
function targetOf(
  bn: BatchNorm,
  x: Float32Array,
  { shape: given, mask }: MomentsOptions,
): { moments: Moments; examples: number } {
  const shape = sizesOf(given);
  if (bn.layout !== "NC" && shape === undefined) throw noShape(bn.layout);
  const moments = bn.moments(x, { shape, mask } as MomentsOptions);
  const all = shape?.[0] ?? lengthOf(x) / bn.channels;
  // Examples all of whose positions are padding say nothing, so they do not count.
  if (moments.count === 0) return { moments, examples: 0 };
  return { moments, examples: mask === undefined ? all : examplesIn(mask, all) };
}

/** How many of `all` examples have a position that a mask marks as data. */
function examplesIn(mask: Uint8Array, all: number): number {
  const positions = lengthOf(mask) / all;
  let held = 0;
  for (let example = 0; example < all; example++) {
    let p = example * positions;
    const end = p + positions;
    while (p < end && mask[p] === 0) p++;
    if (p < end) held++;
  }
  return held;
}

/** Throws if a target has `count` = 1 value per channel and no prior: its own variance would be 0. */
function checkSpread(prior: number, count: number): void {
  if (prior > 0 || count !== 1) return;
  throw new SingleValueError(
    "x",
    "at least two values per channel for prior 0",
    "one, whose variance says nothing",
  );
}

/** w·averages + (1 - w)·target, with w = prior/(prior + examples). */
function blend(
  { runningMean, runningVariance }: BatchNorm,
  target: Moments | null,
  prior: number,
  examples: number,
): Statistics & { readonly meanLow?: Float64Array } {
  // Without examples there is nothing to adapt to, and no number of examples moves an infinite prior.
  const w = examples === 0 || prior === Infinity ? 1 : prior / (prior + examples);
  if (target === null || w === 1) return { mean: runningMean, variance: runningVariance };
  const { count, m2 } = target;
  const [mean, meanLow] = [target.mean.slice(), target.meanLow.slice()];
  mean.forEach((own, c) => {
    addTo(mean, meanLow, c, own, w * (runningMean[c]! - own), (1 - w) * meanLow[c]!);
  });
  const variance = copyOf(runningVariance).map((average, c) => {
    // Checked before the mixing, since the target's variance could make up for one below 0.
    checkVariance(runningVariance, c);
    return w * average + (1 - w) * (m2[c]! / count);
  });
  return { mean, meanLow, variance };
}

/** The same moments, as if only this `share` of their values had been there. */
const weigh = ({ count, mean, m2, meanLow }: Moments, share: number): Moments =>
  new Moments(
    count * share,
    mean,
    m2.map((sum) => sum * share),
    meanLow,
  );
