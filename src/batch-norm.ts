// The layer: owns its state, plain typed arrays, and knows no pointers.
//
// Ioffe & Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing
// Internal Covariate Shift": algorithm 1 is `train`, section 3's gradient is `backward`,
// algorithm 2 is `infer`.

import {
  Adapter,
  type AdapterOptions,
  type AdaptOptions,
  type Blended,
  blend,
  checkSpread,
  examplesOf,
  type Source,
} from "./adapt.js";
import {
  arrayOf,
  float32,
  float32Of,
  isSame,
  refuseShared,
  resultOf,
  unzeroedOutputOf,
} from "./arrays.js";
import { Batch, type BatchSource, insideOf, type StatisticsKind } from "./batch.js";
import { type Diagnosis, diagnosisOf } from "./diagnose.js";
import {
  checkKeys,
  describe,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
} from "./errors.js";
import {
  type FlaxOptions,
  flaxOptions,
  type KerasOptions,
  kerasOptions,
  type OnnxOptions,
  onnxOptions,
  type TorchOptions,
  torchOptions,
} from "./frameworks.js";
import type { InferOptions } from "./frozen.js";
import { FrozenBatchNorm } from "./frozen-batch-norm.js";
import { toNumbers, type Widened } from "./json.js";
import { type Kernels, sharedKernels } from "./kernels.js";
import { countOf, type Layout, noShape, sizeOf, type View, viewOf } from "./layout.js";
import { type Selection, selectionOf } from "./mask.js";
import {
  asMoments,
  asSums,
  type GradientSums,
  type GradientSumsLike,
  type Moments,
  type MomentsLike,
} from "./moments.js";
import {
  type BatchNormOptions,
  checkChannels,
  checkSeen,
  choice,
  flag,
  INFER_KEYS,
  NO_OPTIONS,
  type Settings,
  settingsOf,
  type VarianceKind,
} from "./options.js";
import * as run from "./run.js";
import { readSnapshot, type Snapshot, type State } from "./snapshot.js";

/** Options of `train`. */
export interface TrainOptions<Out extends Float32Array = Float32Array> {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Where the result goes, of x's length; may be x itself. Default: a fresh array. */
  out?: Out;
  /**
   * Which of x is data: one entry per example and position, row-major (N, then spatial), nonzero =
   * data. The rest is padding: whatever it holds, NaN included, it takes no part, and its outputs
   * are beta.
   */
  mask?: Uint8Array;
  /**
   * Normalize by the mini-batch (default), or, frozen, by the running averages, or by moments pooled
   * over all parts of a batch that is split over workers.
   */
  statistics?: StatisticsKind | MomentsLike;
  /** False leaves the running averages and `batchesSeen` alone. Default true. */
  updateRunning?: boolean;
}

/** Options of `backward`. */
export interface BackwardOptions<Out extends Float32Array = Float32Array> {
  /** The `lastBatch` of the `train` to differentiate. Default: that of the latest one. */
  batch?: Batch;
  /** The input of that `train`, in its shape, needed again if it was in place. */
  x?: Float32Array;
  /** Arrays to fill and return. Default: fresh ones. */
  out?: {
    /** In the shape of x; may be `dy`. */
    dx?: Out;
    /** [channels]. */
    dgamma?: Out;
    /** [channels]. */
    dbeta?: Out;
  };
  /**
   * What `backwardSums` gave for all parts of a batch that is split over workers, merged. dgamma and
   * dbeta are those of the whole batch then.
   */
  sums?: GradientSumsLike;
}

/** Options of `backwardSums`. */
export type BackwardSumsOptions = Pick<BackwardOptions, "batch" | "x">;

/** Options of `moments` and `diagnose`. */
export interface MomentsOptions {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Which of x is data, as in `train`. */
  mask?: Uint8Array;
}

/** Takes what a layer's `train` met: its moments, and how many examples. */
type Gathered = (moments: Moments, examples: number) => void;

const TRAIN_KEYS = ["shape", "out", "mask", "statistics", "updateRunning"];
const BACKWARD_KEYS = ["batch", "x", "out", "sums"];
const SUMS_KEYS = ["batch", "x"];
const MOMENTS_KEYS = ["shape", "mask"];
const ADAPT_KEYS = ["prior", "shape", "mask"];
const OUT_KEYS = ["dx", "dgamma", "dbeta"];
const NAMES = ["x", "dy", "gamma", "beta", "out.dx", "out.dgamma", "out.dbeta"];
const KINDS: readonly StatisticsKind[] = ["batch", "running"];

/**
 * Batch normalization of `channels` features (Ioffe & Szegedy 2015, "Batch Normalization: Accelerating
 * Deep Network Training by Reducing Internal Covariate Shift").
 *
 * @example
 * const bn = new BatchNorm(64);
 * const y = bn.train(x); // x: Float32Array [m, 64], normalized by its own mean and variance
 * const { dx, dgamma, dbeta } = bn.backward(dy);
 * const z = bn.infer(one); // one example [1, 64], by the running averages
 */
export class BatchNorm {
  readonly #channels: number;
  readonly #settings: Settings;
  readonly #gamma: Float32Array<ArrayBuffer> | null;
  readonly #beta: Float32Array<ArrayBuffer> | null;
  readonly #running: run.Statistics;
  #kernels: Kernels | undefined;
  // A train in a loop allocates nothing but its output: the statistics of the latest one lie in
  // #last, a train fills #next, and they change places when it has not thrown. A Batch with copies
  // is made when someone asks for it.
  #last: Last;
  #next: Last;
  #lastBatch: Batch | null = null;
  /** Takes the moments of each batch while a `calibrate` runs. */
  #gathered: Gathered | null = null;

  #batchesSeen = 0;
  #ageKnown = true;

  /**
   * @param channels how many features are normalized, each with its own mean, variance, γ and β.
   * @throws OptionError for channels or an option unknown or out of range.
   */
  constructor(channels: number, options: BatchNormOptions = {}) {
    this.#channels = checkChannels(channels);
    this.#settings = settingsOf(options);
    this.#gamma = this.#settings.gamma ? new Float32Array(channels).fill(1) : null;
    this.#beta = this.#settings.beta ? new Float32Array(channels) : null;
    this.#running = {
      mean: new Float64Array(channels),
      variance: new Float64Array(channels).fill(1),
    };
    this.#kernels = this.#settings.kernels;
    this.#last = lastOf(channels);
    this.#next = lastOf(channels);
  }

  /**
   * A layer with the names, defaults and conventions of `torch.nn.BatchNorm1d`, `2d`, `3d`
   * (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html).
   *
   * @param channels how many features are normalized.
   * @throws OptionError for channels or an option unknown or out of range, or a momentum under which nothing
   * would ever move.
   */
  static torch(channels: number, options: TorchOptions = {}): BatchNorm {
    return create(channels, torchOptions(options));
  }

  /**
   * A layer with the names, defaults and conventions of `keras.layers.BatchNormalization`
   * (https://keras.io/api/layers/normalization_layers/batch_normalization/).
   *
   * @param channels how many features are normalized.
   * @throws OptionError for channels or an option unknown or out of range, or a momentum under which nothing
   * would ever move.
   */
  static keras(channels: number, options: KerasOptions = {}): BatchNorm {
    return create(channels, kerasOptions(options));
  }

  /**
   * A layer with the names, defaults and conventions of ONNX' BatchNormalization, opset 15
   * (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
   *
   * @param channels how many features are normalized.
   * @throws OptionError for channels or an option unknown or out of range, or a momentum under which nothing
   * would ever move.
   */
  static onnx(channels: number, options: OnnxOptions = {}): BatchNorm {
    return create(channels, onnxOptions(options));
  }

  /**
   * A layer with the names, defaults and conventions of `flax.linen.BatchNorm`
   * (https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/layers.html).
   *
   * @param channels how many features are normalized.
   * @throws OptionError for channels or an option unknown or out of range, or a momentum under which nothing
   * would ever move.
   */
  static flax(channels: number, options: FlaxOptions = {}): BatchNorm {
    return create(channels, flaxOptions(options));
  }

  /** How many features are normalized. */
  get channels(): number {
    return this.#channels;
  }

  /** Order of the axes of the data. */
  get layout(): Layout {
    return this.#settings.layout;
  }

  /** Added to the variance under the square root, in the unit of the data squared. */
  get epsilon(): number {
    return this.#settings.epsilon;
  }

  /** Weight of the old value in the running averages, or `"cumulative"`. */
  get decay(): number | "cumulative" {
    return this.#settings.decay;
  }

  /** Whether early averages are freed of the initial 0 and 1. */
  get debias(): boolean {
    return this.#settings.debias;
  }

  /** Which variance of a mini-batch enters the running average. */
  get runningVarianceOf(): VarianceKind {
    return this.#settings.runningVarianceOf;
  }

  /** γ, the learned scale, [channels], initially 1; writable in place; `null` where left out. */
  get gamma(): Float32Array<ArrayBuffer> | null {
    return this.#gamma;
  }

  /** β, the learned shift, [channels], initially 0; writable in place; `null` where left out. */
  get beta(): Float32Array<ArrayBuffer> | null {
    return this.#beta;
  }

  /** Running average of the means, [channels], in the unit of the data, initially 0; writable in place. */
  get runningMean(): Float64Array {
    return this.#running.mean;
  }

  /** Running average of the variances, [channels], in that unit squared, initially 1; writable in place. */
  get runningVariance(): Float64Array {
    return this.#running.variance;
  }

  /** How many mini-batches entered the running averages. Writable: a whole number >= 0. */
  get batchesSeen(): number {
    return this.#batchesSeen;
  }

  /** From then on, the age of the averages is known. */
  set batchesSeen(count: number) {
    this.#batchesSeen = count;
    this.#ageKnown = true;
  }

  /**
   * False for a layer from a file without a counter (`batchnorm-wasm/state`), until `batchesSeen` is
   * set, by `calibrate`, `setRunning`, `reset` or by hand: more mini-batches than that may have entered.
   */
  get ageKnown(): boolean {
    return this.#ageKnown;
  }

  /** What `backward` needs of the latest `train`; `null` before it. */
  get lastBatch(): Batch | null {
    const { source, mean, variance } = this.#last;
    if (source !== null) {
      this.#lastBatch ??= new Batch(this, this.layout, source, mean.slice(), variance.slice());
    }
    return this.#lastBatch;
  }

  /**
   * The kernels whose tensors the layer takes without copying.
   *
   * @throws UnsupportedError or MemoryError at their first use, as `new Kernels`.
   */
  get kernels(): Kernels {
    return (this.#kernels ??= sharedKernels());
  }

  /**
   * Normalizes a mini-batch by its own mean μ and variance σ² (over m = count values per channel,
   * divided by m): y = γ·(x - μ)/√(σ² + ε) + β, and moves the running averages towards them:
   * v += w·(new - v), with w = 1 - decay (Ioffe & Szegedy 2015, algorithm 1 and section 3.1).
   *
   * Largest error against float64: 5e-7 · max(1, |γ·x̂|, |β|) for |μ|/σ up to 1e6.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]. `lastBatch` refers to it:
   * leave it unchanged until `backward`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape, mask or out do not fit, or there is no example; SingleValueError
   * for one value per channel, or none but padding, by `"batch"` or in all parts of pooled moments;
   * NonFiniteError if x holds NaN or infinity, or a variance overflows;
   * StateError for a freed tensor, an invalid `batchesSeen`, or, by `"running"`, an invalid running
   * variance; OptionError for an unknown option. Nothing has changed then. The first use of kernels,
   * here and in other methods: UnsupportedError or MemoryError, as of `new Kernels`.
   */
  train<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: TrainOptions<Out> = NO_OPTIONS,
  ): Out {
    checkKeys("options", options, TRAIN_KEYS);
    const statistics = this.#statisticsOf(options.statistics);
    const update = flag("updateRunning", options.updateRunning, true);
    const { full, selection, view } = this.#seen(x, options);
    const out = unzeroedOutputOf(options.out, x) as Out;
    const machine = this.kernels.machine;
    const next = this.#next;
    const terms = this.#terms(next, next.meanLow);
    const gathered = this.#gathered;
    let count = countOf(view);
    let seen = this.batchesSeen;
    if (statistics === "batch" && gathered === null) {
      checkCount(count, selection !== null);
      const moved = this.#update(count);
      run.train(machine, terms, out, x, view, selection, update ? moved : null);
      if (update) seen++;
    } else if (statistics === "running") {
      next.mean.set(this.#running.mean);
      next.meanLow.fill(0);
      next.variance.set(this.#running.variance);
      run.normalize(machine, out, x, view, terms, selection);
    } else {
      const own = statistics === "batch";
      const moments = own ? run.momentsOf(machine, x, view, selection) : statistics;
      count = checkCount(moments.count, !own || selection !== null);
      const moved = this.#update(count);
      next.mean.set(moments.mean);
      next.meanLow.set(moments.meanLow);
      next.variance.set(moments.variance("population"));
      run.normalize(machine, out, x, view, terms, selection);
      if (gathered !== null) gathered(moments, options.shape?.[0] ?? full.outer);
      else if (update) {
        run.moveTo(machine, moved, next);
        seen++;
      }
    }
    if (gathered !== null) return out;
    this.#batchesSeen = seen;
    next.source = {
      view,
      selection,
      mask: options.mask ?? null,
      count,
      x: isSame(out, x) ? null : x,
      shape: options.shape?.slice() ?? null,
      statistics,
    };
    this.#next = this.#last;
    this.#last = next;
    this.#lastBatch = null;
    return out;
  }

  /** What `train` is to normalize by, checked. */
  #statisticsOf(value: TrainOptions["statistics"]): StatisticsKind | Moments {
    return typeof value === "object" && value !== null
      ? asMoments("statistics", value, this.#channels)
      : choice("statistics", value, "batch", KINDS);
  }

  /** How the running averages move towards a batch of `count` values per channel. */
  #update(count: number): run.Update {
    return {
      mean: this.runningMean,
      variance: this.runningVariance,
      weight: this.#weight(checkSeen("batchesSeen", this.batchesSeen) + 1),
      correction: this.runningVarianceOf === "sample" ? count / (count - 1) : 1,
    };
  }

  /** Weight of the batch that is the t-th to enter the running averages. */
  #weight(t: number): number {
    const { decay, debias } = this.#settings;
    if (decay === "cumulative") return 1 / t;
    return debias ? (1 - decay) / (1 - power(decay, t)) : 1 - decay;
  }

  #terms({ mean, variance }: run.Statistics, meanLow: Float64Array | null = null): run.Terms {
    const { epsilon } = this.#settings;
    return { mean, meanLow, variance, gamma: this.#gamma, beta: this.#beta, epsilon };
  }

  /**
   * The gradients of a loss whose gradient with respect to a `train`'s output is dy (Ioffe &
   * Szegedy 2015, section 3), with the γ of now. Pure: adds into nothing, changes no state. After
   * `statistics: "running"` the statistics are constants: dx = γ·dy/√(σ² + ε).
   *
   * Largest error of dx against float64: 1e-6 of the channel's largest |γ·dy|/√(σ² + ε) or |dx|; 2e-6
   * where up to thirty values lie three σ or more from all others.
   *
   * @param dy float32 values in the shape of x.
   * @returns dx in the shape of x; dgamma and dbeta [channels], `null` where left out.
   * @throws StateError before any `train`, after an in-place one unless given `x`, after one by pooled
   * moments unless given `sums`, for `sums` of another count, a batch of another layer, or a freed
   * tensor; ShapeError if an array does not fit; OptionError for an unknown
   * option or an `out` of a parameter that is left out. Nothing has been written then.
   */
  backward<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    dy: Float32Array,
    options: BackwardOptions<Out> = NO_OPTIONS,
  ): run.Gradients<Out | Float32Array<ArrayBuffer>> {
    checkKeys("options", options, BACKWARD_KEYS);
    const { source, x, terms } = this.#differentiated(dy, options);
    const { view, selection, statistics, count } = source;
    const frozen = statistics === "running";
    const sums = options.sums === undefined ? null : asSums("sums", options.sums, this.#channels);
    if (sums === null ? typeof statistics === "object" : !frozen && sums.count !== count) {
      throw new StateError(
        `sums: expected backwardSums of all parts, merged, of ${count} values per channel, got ` +
          `${sums === null ? "none" : `those of ${sums.count}`}`,
      );
    }
    const into = this.#outputs(options.out === undefined ? NO_OPTIONS : options.out, dy, x);
    const perValue = frozen ? 0 : 1 / count;
    run.backward(this.kernels.machine, into, dy, x, view, terms, selection, perValue, sums);
    return into as run.Gradients<Out>;
  }

  /**
   * Σdy and Σdy·(x - μ) of each channel, what the gradient needs of every part of a batch that is
   * split over workers (Ioffe & Szegedy 2015, section 3): merge those of all parts and give them to
   * each part's `backward`. Changes nothing.
   *
   * @param dy float32 values in the shape of this part's x, the gradient of the whole batch's loss.
   * @throws as `backward`.
   */
  backwardSums(dy: Float32Array, options: BackwardSumsOptions = NO_OPTIONS): GradientSums {
    checkKeys("options", options, SUMS_KEYS);
    const { source, x, terms } = this.#differentiated(dy, options);
    const machine = this.kernels.machine;
    return run.gradientSumsOf(machine, dy, x, source.view, terms.mean, source.selection);
  }

  /** The `train` that dy is the gradient of, and its input; checked. */
  #differentiated(
    dy: Float32Array,
    options: BackwardSumsOptions,
  ): { source: BatchSource; x: Float32Array; terms: run.Terms } {
    const { source, mean, variance } =
      options.batch === undefined ? this.#last : this.#own(options.batch);
    if (source === null) throw new StateError("batch: expected a train before backward, got none");
    const { view, selection } = source;
    const size = sizeOf(selection === null ? view : selection.full);
    const given = options.x === undefined ? source.x : options.x;
    if (given === null && options.x === undefined) {
      throw new StateError(
        "x: expected the input of train, got none, as lastBatch.x is null: backward(dy, { x }), a copy made before",
      );
    }
    const x = float32Of("x", given, size);
    float32Of("dy", dy, size);
    return { source, x, terms: this.#terms({ mean, variance }) };
  }

  /** What `batch` holds, if it is a lastBatch of this layer. */
  #own(batch: Batch): Omit<Last, "meanLow"> {
    const inside = insideOf(batch);
    if (inside?.owner !== this) {
      throw new StateError(
        `batch: expected a lastBatch of this layer, got ${inside ? "one of another layer" : describe(batch)}`,
      );
    }
    return { source: inside.source, mean: batch.mean, variance: batch.variance };
  }

  /** The arrays that `backward` fills, checked against its inputs and each other. */
  #outputs(
    out: NonNullable<BackwardOptions["out"]>,
    dy: Float32Array,
    x: Float32Array,
  ): run.Gradients {
    if (out === NO_OPTIONS) {
      const parameter = (given: Float32Array | null): Float32Array | null =>
        given && new Float32Array(given.length);
      return {
        dx: resultOf(x.length),
        dgamma: parameter(this.#gamma),
        dbeta: parameter(this.#beta),
      };
    }
    checkKeys("out", out, OUT_KEYS);
    const dx = out.dx === undefined ? resultOf(x.length) : float32Of("out.dx", out.dx, x.length);
    const dgamma = this.#parameterOf("gamma", out.dgamma);
    const dbeta = this.#parameterOf("beta", out.dbeta);
    const given = isSame(dx, dy) ? null : dy;
    refuseShared(NAMES, [x, given, this.#gamma, this.#beta, dx, dgamma, dbeta], 4);
    return { dx, dgamma, dbeta };
  }

  /** The array for the gradient of a parameter: `value`, or a fresh one, or none. */
  #parameterOf(name: "gamma" | "beta", value: unknown): Float32Array | null {
    if (this[name]) return arrayOf(`out.d${name}`, value, this.#channels);
    if (value === undefined) return null;
    throw new OptionError(
      `out.d${name}: expected none, since ${name} is left out, got ${describe(value)}`,
    );
  }

  /**
   * Test time: y = γ·(x - running mean)/√(running variance + ε) + β (Ioffe & Szegedy 2015,
   * algorithm 2, line 11). Changes nothing. Each example by itself: alone or in a batch, the same
   * bits. NaN passes to its own outputs.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]; unchanged unless it is `out`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape or out do not fit; StateError for an invalid running variance or
   * a freed tensor; OptionError for an unknown option. Nothing has been written then. The first use of
   * kernels: UnsupportedError or MemoryError.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    if (options !== NO_OPTIONS) checkKeys("options", options, INFER_KEYS);
    const view = viewOf(this.layout, this.#channels, float32("x", x).length, options.shape);
    const out = unzeroedOutputOf(options.out, x) as Out;
    run.normalize(this.kernels.machine, out, x, view, this.#terms(this.#running));
    return out;
  }

  /**
   * Count, mean and sum of squared deviations of each channel of x, to be pooled with those of other
   * batches, workers or machines (`Moments.merge`; Chan et al. 1983). Changes nothing. Of no values:
   * count 0.
   *
   * Largest error against float64: of the mean 5e-7 σ, of m2 1e-6 of itself.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C].
   * @throws ShapeError if x, shape or mask do not fit; NonFiniteError if x holds NaN or infinity, or
   * a variance overflows; StateError for a freed tensor; OptionError for an unknown option.
   */
  moments(x: Float32Array, options: MomentsOptions = NO_OPTIONS): Moments {
    checkKeys("options", options, MOMENTS_KEYS);
    return this.#momentsOf(x, options);
  }

  #momentsOf(x: Float32Array, options: MomentsOptions): Moments {
    const { view, selection } = this.#seen(x, options);
    return run.momentsOf(this.kernels.machine, x, view, selection);
  }

  /** How the kernels see x: whole, or what a mask selects of it. */
  #seen(
    x: Float32Array,
    { shape, mask }: MomentsOptions,
  ): { full: View; selection: Selection | null; view: View } {
    const full = viewOf(this.layout, this.#channels, float32("x", x).length, shape);
    const selection = selectionOf(mask, full);
    return { full, selection, view: selection === null ? full : selection.view };
  }

  /** @internal For `calibrate`: gives moments away instead of moving; returns who took them before. */
  gatherInto(gathered: Gathered | null): Gathered | null {
    const before = this.#gathered;
    this.#gathered = gathered;
    return before;
  }

  /**
   * Stores exact statistics: the mean, and the variance that `runningVarianceOf` names, become the
   * running averages; `batchesSeen` becomes at least 1 (Ioffe & Szegedy 2015, algorithm 2, line 10).
   *
   * @param moments of a whole training set, say, or their structured clone.
   * @throws ShapeError for other channels; StateError for invalid numbers; SingleValueError where too
   * few values went in for a variance. Nothing has changed then.
   */
  setRunning(moments: MomentsLike): void {
    const checked = asMoments("moments", moments, this.#channels);
    const variance = checked.variance(this.runningVarianceOf);
    const seen = Math.max(1, checkSeen("batchesSeen", this.batchesSeen));
    this.#running.mean.set(checked.mean);
    this.#running.variance.set(variance);
    this.batchesSeen = seen;
  }

  /**
   * An immutable copy for test time, with the scale and shift of each channel worked out once (Ioffe &
   * Szegedy 2015, algorithm 2, lines 8 to 12).
   *
   * @throws StateError for an invalid running variance.
   */
  freeze(): FrozenBatchNorm {
    return this.#frozen(this.#running);
  }

  #frozen(statistics: Blended): FrozenBatchNorm {
    const terms = this.#terms(statistics, statistics.meanLow);
    const affine = run.affineOf(this.kernels.machine, terms);
    return new FrozenBatchNorm(this.#channels, this.layout, affine, this.#kernels);
  }

  /**
   * How far the running averages are from some data, and what to do about it. Changes nothing.
   *
   * @param x values that the layer meets, float32 in its layout; at least two per channel, better
   * hundreds: what so many normal numbers differ by chance is not held against the averages.
   * @throws as `moments`; SingleValueError for fewer than two values per channel; StateError for
   * running averages that are not finite, a variance below 0, or an invalid `batchesSeen`.
   *
   * @example
   * console.log(String(bn.diagnose(x))); // drifted: 3 of 64 channels are off, by up to …
   */
  diagnose(x: Float32Array, options: MomentsOptions = NO_OPTIONS): Diagnosis {
    checkKeys("options", options, MOMENTS_KEYS);
    const moments = this.#momentsOf(x, options);
    checkCount(moments.count, true);
    checkSeen("batchesSeen", this.batchesSeen);
    const { decay, debias } = this.#settings;
    return diagnosisOf({
      averages: this.#running,
      data: { mean: moments.mean, variance: moments.variance(this.runningVarianceOf) },
      count: moments.count,
      epsilon: this.epsilon,
      start:
        decay === "cumulative" || debias || !this.#ageKnown ? 0 : power(decay, this.batchesSeen),
      batchesSeen: this.batchesSeen,
      ageKnown: this.#ageKnown,
    });
  }

  /**
   * Test-time adaptation to data that differ from those of training: a frozen copy with
   * mean = w·running + (1 - w)·that of x, the variance likewise (population), w = prior/(prior + n),
   * n examples in x (Schneider et al. 2020, eq. 2). The layer is unchanged. Prior 0 normalizes as
   * `train` would, Infinity as `infer`.
   *
   * @param x targets, float32 in the layer's layout.
   * @throws OptionError without a prior; ShapeError without a shape where examples do not follow from
   * a length (all layouts but `"NC"`); SingleValueError for prior 0 and one value per channel;
   * StateError for an invalid running variance; otherwise as `moments`.
   */
  adapt(x: Float32Array, options: AdaptOptions): FrozenBatchNorm {
    checkKeys("options", options, ADAPT_KEYS);
    const prior = examplesOf("prior", options.prior, 0);
    const { moments, examples } = this.#gather(x, options);
    checkSpread(prior, moments.count);
    return this.#frozen(blend(this.#running, moments, prior, examples));
  }

  /**
   * The streaming form of `adapt`: its `infer` takes targets as they come and remembers at most
   * `memory` examples of them. It works with a copy of the layer as it is now.
   *
   * @throws OptionError without a prior >= 0 and a memory >= 1, in examples.
   */
  adapter(options: AdapterOptions): Adapter {
    checkKeys("options", options, ["prior", "memory"]);
    const prior = examplesOf("prior", options.prior, 0);
    const memory = examplesOf("memory", options.memory, 1);
    const copy = this.clone();
    const source: Source = {
      gather: (x, { shape }) => copy.#gather(x, shape ? { shape } : NO_OPTIONS),
      adapted: (target, examples) => copy.#frozen(blend(copy.#running, target, prior, examples)),
    };
    return new Adapter(source, prior, memory);
  }

  /** The moments of x, and of how many examples. */
  #gather(x: Float32Array, options: MomentsOptions): { moments: Moments; examples: number } {
    if (this.layout !== "NC" && options.shape === undefined) {
      throw noShape(this.layout);
    }
    const { full, selection, view } = this.#seen(x, options);
    // Examples without a position hold nothing.
    const all = countOf(view) === 0 ? 0 : (options.shape?.[0] ?? full.outer);
    return {
      moments: run.momentsOf(this.kernels.machine, x, view, selection),
      examples: selection === null ? all : selection.examples(all),
    };
  }

  /** Options and state as a JSON-able object, exact. Not in it: `lastBatch`, `kernels`. */
  snapshot(): Snapshot {
    const { kernels: _own, ...settings } = this.#settings;
    return {
      format: "batchnorm-wasm/layer",
      version: 1,
      channels: this.#channels,
      ...settings,
      gamma: this.#gamma && toNumbers(this.#gamma),
      beta: this.#beta && toNumbers(this.#beta),
      runningMean: toNumbers(this.#running.mean),
      runningVariance: toNumbers(this.#running.variance),
      batchesSeen: this.batchesSeen,
      ...(this.#ageKnown ? {} : { ageKnown: false }),
    };
  }

  /** The snapshot, so that JSON.stringify of a layer keeps all of it. */
  toJSON(): Snapshot {
    return this.snapshot();
  }

  /**
   * The layer that a snapshot, the object or its JSON text, was taken of.
   *
   * @throws StateError where it is no snapshot; OptionError for an unknown option.
   */
  static fromSnapshot(
    snapshot: Widened<Snapshot> | string,
    options: { kernels?: Kernels } = {},
  ): BatchNorm {
    checkKeys("options", options, ["kernels"]);
    const restored = readSnapshot(snapshot);
    const { kernels: _none, ...settings } = restored.settings;
    const layer = create(restored.channels, { ...settings, ...options });
    layer.setState(restored);
    return layer;
  }

  /**
   * Takes over the state of a snapshot: γ, β, running averages, `batchesSeen`. Options stay.
   *
   * @throws StateError where it is no snapshot, or one of other channels or parameters. Nothing has
   * changed then.
   */
  restore(snapshot: Widened<Snapshot> | string): void {
    const restored = readSnapshot(snapshot);
    if (restored.channels !== this.#channels) {
      throw new StateError(
        `snapshot.channels: expected the layer's ${this.#channels}, got ${restored.channels}`,
      );
    }
    for (const name of ["gamma", "beta"] as const) {
      if ((restored[name] === null) !== (this[name] === null)) {
        const [expected, got] = this[name] ? ["values", "null"] : ["null", "values"];
        throw new StateError(
          `snapshot.${name}: expected ${expected}, as the layer has it, got ${got}`,
        );
      }
    }
    this.setState(restored);
  }

  /**
   * @internal Takes over a state that is checked, in `batchnorm-wasm/state` as well. Not a symbol:
   * bundlers keep a class with a computed name, whether it is used or not.
   */
  setState(state: State): void {
    if (state.gamma) this.#gamma?.set(state.gamma);
    if (state.beta) this.#beta?.set(state.beta);
    this.#running.mean.set(state.runningMean);
    this.#running.variance.set(state.runningVariance);
    this.#batchesSeen = state.batchesSeen;
    this.#ageKnown = state.ageKnown;
  }

  /** Back to averages of 0 and 1, no mini-batch seen, no `lastBatch`. γ and β stay. */
  reset(): void {
    this.#running.mean.fill(0);
    this.#running.variance.fill(1);
    this.batchesSeen = 0;
    this.#last.source = null;
    this.#lastBatch = null;
  }

  /** Another layer with the same options, kernels and state; `lastBatch` is not taken along. */
  clone(): BatchNorm {
    const { kernels, ...settings } = this.#settings;
    const copy = create(this.#channels, kernels ? { ...settings, kernels } : settings);
    copy.setState({
      gamma: this.#gamma,
      beta: this.#beta,
      runningMean: this.runningMean,
      runningVariance: this.runningVariance,
      batchesSeen: this.batchesSeen,
      ageKnown: this.#ageKnown,
    });
    return copy;
  }
}

// A class that names itself is renamed when it is bundled, and prints as _BatchNorm.
const create = (channels: number, options: BatchNormOptions): BatchNorm =>
  new BatchNorm(channels, options);

/** The statistics that a train normalized with, and on what; `null` before any train. */
interface Last extends run.Statistics {
  source: BatchSource | null;
  readonly meanLow: Float64Array;
}

const lastOf = (channels: number): Last => ({
  source: null,
  mean: new Float64Array(channels),
  meanLow: new Float64Array(channels),
  variance: new Float64Array(channels),
});

/** `count`, if that many values per channel have a variance; `chosen`: by a mask, or by moments. */
function checkCount(count: number, chosen: boolean): number {
  if (count === 0 && !chosen) {
    throw new ShapeError(
      "x: expected at least two values per channel, got a batch of zero examples",
    );
  }
  if (count < 2) {
    throw new SingleValueError(
      `x: expected at least two values per channel, got ${count === 0 ? "none" : "one"}, whose ` +
        'variance says nothing; use infer, or train with { statistics: "running" }',
    );
  }
  return count;
}

/** base^t for a whole t >= 0 by squaring: products alone, since Math.pow differs between engines. */
function power(base: number, t: number): number {
  let result = 1;
  for (let factor = base, left = t; left > 0; left = Math.floor(left / 2), factor *= factor) {
    if (left % 2 === 1) result *= factor;
  }
  return result;
}
