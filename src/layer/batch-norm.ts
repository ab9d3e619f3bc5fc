// The layer: checks its arguments, has the engine compute, and keeps running averages and the latest batch.
//
// Ioffe & Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
// Shift": algorithm 1 is `train`, section 3's gradient is `backward`, algorithm 2 is `infer`.

import { normalize } from "../engine/affine.js";
import { computeGradients, computeSums } from "../engine/gradient.js";
import { type Kernels, sharedKernels } from "../engine/kernels.js";
import { computeMoments } from "../engine/moments.js";
import { checkKeys, describe } from "../errors.js";
import type { InferOptions } from "../frozen/frozen.js";
import { type FrozenBatchNorm, freeze } from "../frozen/frozen-batch-norm.js";
import type { Activation } from "../values/activation.js";
import { copy, isSame, residualOf } from "../values/arrays.js";
import { checkChannels, flag, INFER_KEYS, NO_OPTIONS } from "../values/check.js";
import type { Widened } from "../values/json.js";
import { countOf, type Layout, sizeOf, sizesOf, viewOf } from "../values/layout.js";
import { maskOf, pad, seenBy } from "../values/mask.js";
import {
  asSums,
  checkMeans,
  type GradientSums,
  type Moments,
  type MomentsLike,
  momentsIn,
  type VarianceKind,
} from "../values/moments.js";
import { Raw } from "../values/raw.js";
import type { Given, Gradients } from "../values/terms.js";
import { type Batch, type Collector, checkSums, LatestBatch, marksOf } from "./batch.js";
import * as frameworks from "./frameworks.js";
import { type Buffers, buffersOf, gradientArrays, outputFor, readOut } from "./gradient-arrays.js";
import {
  type BackwardOptions,
  type BackwardSumsOptions,
  type BatchNormOptions,
  type MomentsOptions,
  type Settings,
  settingsOf,
  statisticsOf,
  type TrainOptions,
} from "./options.js";
import { Parameters } from "./parameters.js";
import { checkRenorm, type Renorm } from "./renorm.js";
import { RunningAverages } from "./running-averages.js";
import { checkFits, readSnapshot, type Snapshot, type State, writeSnapshot } from "./snapshot.js";
import { type Parts, trainByBatch, trainByMoments, trainByStatistics } from "./training.js";

const TRAIN_KEYS = ["shape", "out", "mask", "statistics", "updateRunning", "add"];
const BACKWARD_KEYS = ["batch", "x", "add", "out", "sums"];
const SUMS_KEYS = ["batch", "x", "add"];
const MOMENTS_KEYS = ["shape", "mask"];

/**
 * Batch normalization of `channels` features (Ioffe & Szegedy 2015, "Batch Normalization: Accelerating
 * Deep Network Training by Reducing Internal Covariate Shift").
 *
 * @throws StateError from every member that is used through a proxy of the layer (Vue's `reactive`, valtio's `proxy`).
 *
 * @example
 * const bn = new BatchNorm(64);
 * const y = bn.train(x); // x: Float32Array [m, 64], normalized by its own mean and variance
 * const { dx, dgamma, dbeta } = bn.backward(dy);
 * const z = bn.infer(one); // one example [1, 64], by the running averages
 */
export class BatchNorm extends Raw {
  readonly #channels: number;
  readonly #settings: Settings;
  readonly #parameters: Parameters;
  readonly #averages: RunningAverages;
  readonly #latest: LatestBatch;
  readonly #parts: Parts;
  readonly #buffers: Buffers;
  #kernels: Kernels | undefined;
  /** Takes the moments of each batch while a `calibrate` runs. */
  #collector: Collector | null = null;

  /**
   * @param channels how many features are normalized, each with its own mean, variance, γ and β.
   * @throws OptionError for channels or an option unknown or out of range.
   */
  constructor(channels: number, options: BatchNormOptions = {}) {
    super();
    this.#channels = checkChannels(channels);
    this.#settings = settingsOf(options);
    this.#parameters = new Parameters(channels, this.#settings);
    this.#averages = new RunningAverages(channels, this.#settings);
    this.#buffers = buffersOf(this);
    this.#latest = new LatestBatch(this, channels, this.#settings.layout);
    this.#parts = { parameters: this.#parameters, averages: this.#averages, latest: this.#latest };
    this.#kernels = this.#settings.kernels;
  }

  /**
   * A layer with the names, defaults and conventions of `torch.nn.BatchNorm1d`, `2d`, `3d`
   * (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html).
   *
   * @throws as `new BatchNorm`, and OptionError for a momentum under which nothing would ever move.
   */
  static torch(channels: number, options: frameworks.TorchOptions = {}): BatchNorm {
    return create(channels, frameworks.torchOptions(options));
  }

  /**
   * A layer with the names, defaults and conventions of `keras.layers.BatchNormalization`
   * (https://keras.io/api/layers/normalization_layers/batch_normalization/).
   *
   * @param channels how many features are normalized.
   * @throws as `new BatchNorm`, and OptionError for a momentum under which nothing would ever move.
   */
  static keras(channels: number, options: frameworks.KerasOptions = {}): BatchNorm {
    return create(channels, frameworks.kerasOptions(options));
  }

  /**
   * A layer with the names, defaults and conventions of ONNX' BatchNormalization, opset 15
   * (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
   *
   * @param channels how many features are normalized.
   * @throws as `new BatchNorm`, and OptionError for a momentum under which nothing would ever move.
   */
  static onnx(channels: number, options: frameworks.OnnxOptions = {}): BatchNorm {
    return create(channels, frameworks.onnxOptions(options));
  }

  /**
   * A layer with the names, defaults and conventions of `flax.linen.BatchNorm`
   * (https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/layers.html).
   *
   * @param channels how many features are normalized.
   * @throws as `new BatchNorm`, and OptionError for a momentum under which nothing would ever move.
   */
  static flax(channels: number, options: frameworks.FlaxOptions = {}): BatchNorm {
    return create(channels, frameworks.flaxOptions(options));
  }

  /** How many features are normalized. */
  get channels(): number {
    return this.raw.#channels;
  }

  /** Order of the axes of the data. */
  get layout(): Layout {
    return this.raw.#settings.layout;
  }

  /** Added to the variance under the square root, in the unit of the data squared. */
  get epsilon(): number {
    return this.raw.#settings.epsilon;
  }

  /** Weight of the old value in the running averages, or `"cumulative"`; 1 only if a file says so: see `train`. */
  get decay(): number | "cumulative" {
    return this.raw.#settings.decay;
  }

  /** Whether the share of the initial 0 and 1 is taken out of early averages. */
  get debias(): boolean {
    return this.raw.#settings.debias;
  }

  /** Which variance of a mini-batch enters the running average. */
  get runningVarianceOf(): VarianceKind {
    return this.raw.#settings.runningVarianceOf;
  }

  /** What limits the output: `"relu"`, `"relu6"`, [low, high], or `null`. */
  get activation(): Activation | null {
    return this.raw.#settings.activation;
  }

  /**
   * The limits of batch renormalization, `null` without it. Writable between steps, as Ioffe 2017 relaxes them; rmin
   * is 1/rmax unless given.
   *
   * @throws OptionError if what is written is neither limits nor `null`.
   */
  get renorm(): Required<Renorm> | null {
    return this.raw.#parameters.renorm;
  }

  /**
   * Takes other limits, from the next `train` on; `null` for none.
   *
   * @throws OptionError if it is neither.
   */
  set renorm(limits: Renorm | null) {
    this.raw.#parameters.renorm = checkRenorm(limits);
  }

  /**
   * γ, the learned scale, [channels], initially 1; writable in place; `null` where left out.
   * @throws StateError if its buffer was transferred to another thread, as all methods that need it.
   */
  get gamma(): Float32Array<ArrayBuffer> | null {
    return this.raw.#parameters.gamma;
  }

  /**
   * β, the learned shift, [channels], initially 0; writable in place; `null` where left out.
   * @throws StateError as `gamma`.
   */
  get beta(): Float32Array<ArrayBuffer> | null {
    return this.raw.#parameters.beta;
  }

  /**
   * Running average of the means, [channels], in the unit of the data, initially 0; writable in place.
   * @throws StateError as `gamma`.
   */
  get runningMean(): Float64Array {
    return this.raw.#averages.mean;
  }

  /**
   * Running average of the variances, [channels], in that unit squared, initially 1; writable in place.
   * @throws StateError as `gamma`.
   */
  get runningVariance(): Float64Array {
    return this.raw.#averages.variance;
  }

  /** How many mini-batches entered the averages, a whole number >= 0. Writable: set it when you write averages. */
  get batchesSeen(): number {
    return this.raw.#averages.batchesSeen;
  }

  /** After this, the age of the averages is known. */
  set batchesSeen(count: number) {
    this.raw.#averages.batchesSeen = count;
    this.#averages.ageKnown = true;
  }

  /**
   * False if the layer was read from a file that does not count mini-batches (`batchnorm-wasm/state`): more
   * than `batchesSeen` may have entered. True once `calibrate`, `setRunning`, `reset` or you set that.
   */
  get ageKnown(): boolean {
    return this.raw.#averages.ageKnown;
  }

  /** What `backward` needs of the latest `train`; `null` before it. */
  get lastBatch(): Batch | null {
    return this.raw.#latest.batch;
  }

  /**
   * The kernels whose tensors the layer takes without copying.
   *
   * @throws UnsupportedError or MemoryError at their first use, as `new Kernels`.
   */
  get kernels(): Kernels {
    return this.raw.#own;
  }

  /** The same, for methods: a subclass may have a getter `kernels` that calls this layer. */
  get #own(): Kernels {
    return (this.#kernels ??= sharedKernels());
  }

  /**
   * Normalizes a mini-batch by its own mean μ and variance σ² of m values per channel (σ² divides by m):
   * y = γ·(x - μ)/√(σ² + ε) + β. A residual is added to that, and an activation limits it: min(max(y + add, low), high),
   * with the bits of separate steps. NaN of `add` stays NaN; -0 stays -0 where low is 0.
   * Then moves each running average v towards the statistics:
   * v += w·(new - v), with w = 1 - decay (Ioffe & Szegedy 2015, algorithm 1 and section 3.1).
   *
   * Largest error against float64, for |μ|/σ up to 1e6: 6.5e-7 · max(1, |γ·x̂|, |β|); usual is less than half of it.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]. `lastBatch` refers to it:
   * leave it unchanged until `backward`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape, mask, add or out do not fit, or there is no example; SingleValueError if the
   * batch, or all parts of pooled moments together, have one value per channel, or only padding;
   * NonFiniteError if, with the mini-batch's own statistics, x holds NaN or infinity, a variance overflows, or
   * 1/√(σ² + ε) of a σ > 0 is beyond float32 (elsewhere that is limited to the range of float32, and NaN and infinity
   * reach only their own outputs); StateError for a freed tensor, an
   * invalid `batchesSeen`, with `"running"` an invalid running variance, or averages that are to move by a momentum
   * of a file under which none moves; OptionError for an unknown option. When it throws, nothing has changed. The
   * first use of kernels, here and in other methods, may throw UnsupportedError or MemoryError, as `new Kernels`.
   */
  train<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: TrainOptions<Out> = NO_OPTIONS,
  ): Out {
    checkKeys("options", options, TRAIN_KEYS);
    // Every option is read once, and all before anything else: a getter may do anything, even train this layer.
    const { mask, out: into, updateRunning, statistics: by, add: residual } = options;
    const shape = sizesOf(options.shape);
    const statistics = statisticsOf(by, this.raw.#channels);
    const moving = flag("updateRunning", updateRunning, true);
    const seen = seenBy(this.raw.#settings.layout, this.#channels, x, shape, mask);
    const size = sizeOf(seen.full);
    const add = residualOf(residual, size);
    const out = outputFor(into, x, add, size, this.#buffers) as Out;
    const marks = marksOf(x, seen);
    const addMarks = add && marksOf(add, seen);
    const collector = this.#collector;
    const { machine } = this.#own;
    const parts = this.#parts;
    const tensors = { out, x, add, seen };
    let count = countOf(seen.view);
    if (statistics === "running") {
      trainByStatistics(parts, machine, tensors, this.#averages, null, null);
    } else if (statistics === "batch" && collector === null && parts.parameters.renorm === null) {
      trainByBatch(parts, machine, tensors, moving);
    } else {
      const examples = shape?.[0] ?? seen.full.outer;
      count = trainByMoments(parts, machine, tensors, statistics, moving, collector, examples);
    }
    if (collector !== null) return out;
    this.#latest.commit({
      seen,
      mask: mask ?? null,
      count,
      x: isSame(out, x) ? null : x,
      marks,
      add: add === null || isSame(out, add) ? null : add,
      addMarks,
      shape: shape ?? null,
      statistics,
    });
    return out;
  }

  /**
   * Given dy, the gradient of a loss with respect to the output of a `train`, works out those with respect to
   * x, γ and β (Ioffe & Szegedy 2015, section 3), with the present γ. Accumulates nothing, changes no state.
   * After `statistics: "running"` the statistics count as constants: dx = γ·dy/√(σ² + ε), NaN where x is not finite.
   *
   * With an activation, dy counts where the value that it limited lies strictly between low and high, and is 0 elsewhere,
   * so also where that value is NaN. This dy is `dadd`, the gradient of the residual.
   *
   * Usual error of dx against float64: at most 1e-6 of the channel's largest |γ·dy|/√(σ² + ε) or |dx|, and with
   * values far from all others 2e-6 + 6e-8 · max|x̂| · mean|x̂|. On any data: 3.1e-6 + 4.2e-7 · max|x̂| · mean|x̂| of it.
   *
   * @param dy float32 values in the shape of x.
   * @returns dx and dadd in the shape of x, dadd `null` where nothing was added; dgamma and dbeta [channels], `null`
   * where left out.
   * @throws StateError before any `train`, without `x` or `add` if that `train` or anything since wrote over it, without
   * `sums` if it was given pooled moments, for `sums` of another count (unless by `"running"`), a batch of another layer,
   * or a freed tensor; ShapeError if an array does not fit; OptionError for an unknown option, an `out` for a parameter
   * that is left out, or `add` or `dadd` where nothing was added.
   * When it throws, nothing has been written.
   */
  backward<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    dy: Float32Array,
    options: BackwardOptions<Out> = NO_OPTIONS,
  ): Gradients<Out | Float32Array<ArrayBuffer>> {
    checkKeys("options", options, BACKWARD_KEYS);
    const { batch, x: input, add: residual, out, sums: merged } = options;
    const arrays = readOut(out);
    const sums = merged === undefined ? null : asSums("sums", merged, this.raw.#channels);
    const normalized = this.raw.#latest.differentiated(this.#own, dy, batch, input, residual);
    const { source, x, add } = normalized;
    const { statistics, count } = source;
    const { full, view, selection } = source.seen;
    const frozen = statistics === "running";
    checkSums(sums, source);
    const { machine } = this.#own;
    const normalizer = this.#parameters.with(normalized, normalized.meanLow, normalized.correction);
    const into = gradientArrays(arrays, dy, x, add, sizeOf(full), normalizer, this.#buffers);
    const perValue = frozen ? 0 : 1 / count;
    computeGradients(machine, into, dy, x, view, normalizer, selection, perValue, sums, add);
    return into as Gradients<Out>;
  }

  /**
   * Σdy and Σdy·(x - μ) of each channel (Ioffe & Szegedy 2015, section 3). If a batch is split over workers,
   * its gradient needs these sums over all parts: merge them, and give the result to each part's `backward`.
   * Changes nothing.
   *
   * @param dy float32 values in the shape of this part's x, the gradient of the whole batch's loss.
   * @throws as `backward`.
   */
  backwardSums(dy: Float32Array, options: BackwardSumsOptions = NO_OPTIONS): GradientSums {
    checkKeys("options", options, SUMS_KEYS);
    const { batch, x: input, add: residual } = options;
    const normalized = this.raw.#latest.differentiated(this.#own, dy, batch, input, residual);
    const { source, x, add } = normalized;
    const { view, selection } = source.seen;
    const normalizer = this.#parameters.with(normalized, normalized.meanLow, normalized.correction);
    return computeSums(this.#own.machine, dy, x, view, normalizer, selection, add);
  }

  /**
   * Test time: y = γ·(x - running mean)/√(running variance + ε) + β (Ioffe & Szegedy 2015, algorithm 2,
   * line 11), and then the residual and the activation as in `train`. Changes nothing. An example gives the same bits
   * alone and in any batch; NaN reaches only its own outputs.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]; unchanged unless it is `out`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape, mask, add or out do not fit; StateError for an invalid running variance or a freed
   * tensor; OptionError for an unknown option. When it throws, nothing has been written. The first use of
   * kernels may throw UnsupportedError or MemoryError.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    if (options !== NO_OPTIONS) checkKeys("options", options, INFER_KEYS);
    return this.raw.inferBy(this.#averages, x, options);
  }

  /** @internal The same by other statistics, for `Adapter`. */
  inferBy<Out extends Float32Array>(
    statistics: Given,
    x: Float32Array,
    options: InferOptions<Out>,
  ): Out {
    const { layout } = this.raw.#settings;
    const { shape, mask: given, out: into, add: residual } = options;
    const view = viewOf(layout, this.#channels, x, shape);
    const mask = maskOf(given, view);
    const length = sizeOf(view);
    const add = residualOf(residual, length);
    const out = outputFor(into, x, add, length, this.#buffers) as Out;
    const normalizer = this.#parameters.with(statistics, statistics.meanLow);
    normalize(this.#own.machine, out, x, view, normalizer, null, add);
    if (mask !== null) pad(out, view, mask, normalizer.beta, normalizer.limits);
    return out;
  }

  /**
   * Count, mean and sum of squared deviations of each channel of x. They can be pooled with those of other
   * batches, workers or machines (`Moments.merge`; Chan et al. 1983). Changes nothing. If x holds no values,
   * the count is 0.
   *
   * Largest error against float64: 5e-7 σ in the mean, 5.5e-7 of its value in m2.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C].
   * @throws ShapeError if x, shape or mask do not fit; NonFiniteError if x holds NaN or infinity, or
   * a variance overflows; StateError for a freed tensor; OptionError for an unknown option.
   */
  moments(x: Float32Array, options: MomentsOptions = NO_OPTIONS): Moments {
    checkKeys("options", options, MOMENTS_KEYS);
    return this.raw.momentsInto(x, options.shape, options.mask);
  }

  /** @internal The same in the arrays of `into`, if x holds values, or in new ones. */
  momentsInto(x: Float32Array, shape: unknown, mask: unknown, into?: Moments): Moments {
    const { view, selection } = seenBy(this.raw.#settings.layout, this.#channels, x, shape, mask);
    return computeMoments(this.#own.machine, x, view, selection, into);
  }

  /** @internal For `calibrate`: while set, `train` hands moments to it, and averages stay. Returns the one before. */
  collectInto(collector: Collector | null): Collector | null {
    const before = this.raw.#collector;
    this.#collector = collector;
    return before;
  }

  /**
   * Stores exact statistics: the mean, and the variance that `runningVarianceOf` names, become the
   * running averages; `batchesSeen` becomes at least 1 (Ioffe & Szegedy 2015, algorithm 2, line 10).
   *
   * @param moments for instance those of a whole training set, or their structured clone.
   * @throws ShapeError for another number of channels; StateError for invalid numbers; SingleValueError if
   * they are of too few values for a variance. When it throws, nothing has changed.
   */
  setRunning(moments: MomentsLike): void {
    const own = momentsIn("moments", moments, this.raw.#channels);
    this.#averages.set(checkMeans("moments", own));
  }

  /**
   * An immutable copy for test time, with the scale and shift of each channel worked out once (Ioffe &
   * Szegedy 2015, algorithm 2, lines 8 to 12).
   *
   * @throws StateError for an invalid running variance.
   */
  freeze(): FrozenBatchNorm {
    return freeze(this, this.raw.#averages);
  }

  /** Options and state as an object for JSON, exact to the bit. `lastBatch` and `kernels` are not in it. */
  snapshot(): Snapshot {
    return writeSnapshot({ ...this.raw.#settings, renorm: this.#parameters.renorm }, this);
  }

  /** The snapshot: with this method, JSON.stringify of a layer writes one. */
  toJSON(): Snapshot {
    return this.snapshot();
  }

  /**
   * A new layer with the options and the state that a snapshot holds, given as object or as JSON text.
   *
   * @throws StateError if it is no snapshot; OptionError for an unknown option.
   */
  static fromSnapshot(
    snapshot: Widened<Snapshot> | string,
    options: { kernels?: Kernels } = {},
  ): BatchNorm {
    checkKeys("options", options, ["kernels"]);
    const restored = readSnapshot(snapshot);
    const layer = create(restored.channels, { ...restored.settings, kernels: options.kernels });
    layer.setState(restored);
    return layer;
  }

  /**
   * Takes over the state of a snapshot: γ, β, running averages, `batchesSeen`. The layer keeps its options.
   *
   * @throws StateError if it is no snapshot, or if channels or parameters are not those of the layer. When it
   * throws, nothing has changed.
   */
  restore(snapshot: Widened<Snapshot> | string): void {
    const restored = readSnapshot(snapshot);
    checkFits(restored, this);
    this.setState(restored);
  }

  /** @internal Takes over a state that has been checked; `batchnorm-wasm/state` calls it too. */
  setState(state: State): void {
    const { gamma, beta } = this.raw.#parameters;
    const { gamma: scale, beta: shift } = state;
    this.#averages.restore(state);
    if (gamma && scale) copy(gamma, scale);
    if (beta && shift) copy(beta, shift);
  }

  /** The layer in one line, which Node's `console.log` shows too. */
  override toString(): string {
    const { channels, layout, decay, epsilon, batchesSeen } = this;
    return `BatchNorm(${channels}, { layout: "${layout}", decay: ${describe(decay)}, epsilon: ${epsilon} }), mini-batches seen: ${batchesSeen}`;
  }

  /**
   * Sets the averages back to 0 and 1, `batchesSeen` to 0, `lastBatch` to `null`. γ and β stay as they are.
   * @throws StateError as `gamma`, with nothing changed.
   */
  reset(): void {
    this.raw.#averages.reset();
    this.#latest.clear();
  }

  /**
   * Another layer with the same options, kernels and state. Its `lastBatch` is `null`.
   * @throws StateError as `gamma`.
   */
  clone(): BatchNorm {
    const copy = create(this.raw.#channels, { ...this.#settings, renorm: this.#parameters.renorm });
    copy.setState(this);
    return copy;
  }
}

// Not inside the class: bundlers rename a class whose body names it, and it would print as _BatchNorm.
const create = (channels: number, options: object): BatchNorm => new BatchNorm(channels, options);
