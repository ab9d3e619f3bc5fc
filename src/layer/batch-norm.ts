// The layer: its methods, with what they promise. Its properties are in properties.ts. The work of the longer methods is in
// files of their own: training.ts, gradients.ts, inference.ts.
//
// Ioffe & Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
// Shift": algorithm 1 is `train`, section 3's gradient is `backward`, algorithm 2 is `infer`.

import type { Kernels } from "../engine/kernels.js";
import { computeMoments } from "../engine/moments.js";
import { checkKeys } from "../errors.js";
import type { InferOptions } from "../frozen/frozen.js";
import { type FrozenBatchNorm, freeze } from "../frozen/frozen-batch-norm.js";
import { copy } from "../values/arrays.js";
import { checkChannels, INFER_KEYS, NO_OPTIONS } from "../values/check.js";
import type { Widened } from "../values/json.js";
import { listed } from "../values/layout.js";
import { seenBy } from "../values/mask.js";
import {
  checkMeans,
  type GradientSums,
  type Moments,
  type MomentsLike,
  momentsIn,
} from "../values/moments.js";
import type { Given, Gradients } from "../values/terms.js";
import type { Collector } from "./batch.js";
import * as frameworks from "./frameworks.js";
import { gradientSumsOf, gradientsOf } from "./gradients.js";
import { inferBy } from "./inference.js";
import {
  type BackwardOptions,
  type BackwardSumsOptions,
  type BatchNormOptions,
  type MomentsOptions,
  settingsOf,
  type TrainOptions,
} from "./options.js";
import { kernelsOf, LayerProperties, type Parts, partsOf } from "./properties.js";
import { checkFits, readSnapshot, type Snapshot, type State, writeSnapshot } from "./snapshot.js";
import { trainLayer } from "./training.js";

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
export class BatchNorm extends LayerProperties {
  /** The base class has these too: private members are known to the class alone that declares them. */
  readonly #parts: Parts;

  /**
   * @param channels how many features are normalized, each with its own mean, variance, γ and β.
   * @throws OptionError for channels or an option unknown or out of range.
   */
  constructor(channels: number, options: BatchNormOptions = {}) {
    const parts = partsOf(checkChannels(channels), settingsOf(options));
    super(parts);
    this.#parts = parts;
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

  /**
   * Normalizes a mini-batch by its own mean μ and variance σ² of m values per channel (σ² divides by m):
   * y = γ·(x - μ)/√(σ² + ε) + β. A residual is added to that, and an activation limits it: min(max(y + add, low), high),
   * with the bits of separate steps. NaN of `add` stays NaN; -0 stays -0 where low is 0.
   * Then moves each running average v towards the statistics:
   * v += w·(new - v), with w = 1 - decay (Ioffe & Szegedy 2015, algorithm 1 and section 3.1). The option `renorm` says
   * what it changes in all of this.
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
   * invalid `batchesSeen`, an invalid running variance with `"running"` or `renorm`, an invalid `renormDeviation`, or
   * averages that are to move by a momentum of a file under which none moves; OptionError for an unknown option. When it throws, nothing has changed. The
   * first use of kernels, here and in other methods, may throw UnsupportedError or MemoryError, as `new Kernels`.
   */
  train<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: TrainOptions<Out> = NO_OPTIONS,
  ): Out {
    return trainLayer(this.itself.#parts, x, options) as Out;
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
    return gradientsOf(this.itself.#parts, dy, options) as Gradients<Out>;
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
    return gradientSumsOf(this.itself.#parts, dy, options);
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
    const parts = this.itself.#parts;
    return inferBy(parts, parts.averages, x, options) as Out;
  }

  /** @internal The same by other statistics, for `Adapter`. */
  inferBy<Out extends Float32Array>(
    given: Given,
    x: Float32Array,
    options: InferOptions<Out>,
  ): Out {
    return inferBy(this.itself.#parts, given, x, options) as Out;
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
    return this.momentsInto(x, options.shape, options.mask);
  }

  /** @internal The same in the arrays of `into`, if x holds values, or in new ones. */
  momentsInto(x: Float32Array, shape: unknown, mask: unknown, into?: Moments): Moments {
    const parts = this.itself.#parts;
    const { view, selection } = seenBy(parts.settings.layout, parts.channels, x, shape, mask);
    return computeMoments(kernelsOf(parts).machine, x, view, selection, into);
  }

  /** @internal For `calibrate`: while set, `train` hands moments to it, and averages stay. Returns the one before. */
  collectInto(collector: Collector | null): Collector | null {
    const before = this.itself.#parts.collector;
    this.#parts.collector = collector;
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
    const own = momentsIn("moments", moments, this.itself.#parts.channels);
    this.#parts.averages.set(checkMeans("moments", own));
  }

  /**
   * An immutable copy for test time, with the scale and shift of each channel worked out once (Ioffe &
   * Szegedy 2015, algorithm 2, lines 8 to 12).
   *
   * @throws StateError for an invalid running variance.
   */
  freeze(): FrozenBatchNorm {
    return freeze(this, this.itself.#parts.averages);
  }

  /**
   * Options and state as an object for JSON, exact to the bit. `lastBatch` and `kernels` are not in it.
   * @throws StateError as `gamma`, and for an invalid `batchesSeen`, with which nobody could read the snapshot again.
   */
  snapshot(): Snapshot {
    return writeSnapshot(this.itself.#parts.settings, this);
  }

  /**
   * The snapshot: with this method, JSON.stringify of a layer writes one.
   * @throws StateError as `snapshot`.
   */
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
   * Takes over the state of a snapshot: γ, β, running averages, `batchesSeen`, and the averages of batch renormalization
   * if the snapshot has them. The layer keeps its options.
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
    const { gamma, beta } = this.itself.#parts.parameters;
    const { gamma: scale, beta: shift } = state;
    this.#parts.averages.restore(state);
    if (gamma && scale) copy(gamma, scale);
    if (beta && shift) copy(beta, shift);
  }

  /** The layer in one line, which Node's `console.log` shows too. */
  override toString(): string {
    const options = listed(this, ["layout", "decay", "epsilon", "activation", "renorm"]);
    return `BatchNorm(${this.channels}, ${options}), mini-batches seen: ${this.batchesSeen}`;
  }

  /**
   * Sets all averages back to 0 and 1, `batchesSeen` to 0, `lastBatch` to `null`. γ and β stay as they are.
   * @throws StateError as `gamma`, with nothing changed.
   */
  reset(): void {
    this.itself.#parts.averages.reset();
    this.#parts.latest.clear();
  }

  /**
   * Another layer with the same options, kernels and state. Its `lastBatch` is `null`.
   * @throws StateError as `gamma`.
   */
  clone(): BatchNorm {
    const { channels, settings } = this.itself.#parts;
    const copy = create(channels, settings);
    copy.setState(this);
    return copy;
  }
}

// Not inside the class: bundlers rename a class whose body names it, and it would print as _BatchNorm.
const create = (channels: number, options: object): BatchNorm => new BatchNorm(channels, options);
