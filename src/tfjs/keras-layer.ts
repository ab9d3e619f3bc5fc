// `tf.layers.batchNormalization` on the kernels of this package. It extends tfjs' own class, which does everything
// but the computation.

import {
  reshape,
  type serialization as Serialization,
  type Tensor,
  tidy,
  type Variable,
} from "@tensorflow/tfjs-core";
import { type LayerVariable, layers } from "@tensorflow/tfjs-layers";
import { checkKeys, ShapeError, StateError } from "../errors.js";
import { BatchNorm } from "../layer/batch-norm.js";
import { keeping, kerasOptions } from "../layer/frameworks.js";
import { oursOf } from "../layer/options.js";
import { choice } from "../values/check.js";
import { CHANNELS_FIRST, CHANNELS_LAST, ofRank, product } from "../values/layout.js";
import { itselfOf, requireFloatTensor, requireHostBackend } from "./check.js";
import { TfBatchNorm } from "./layer.js";
import type { Asked } from "./operation.js";
import { knownOnly, LAYER_KEYS, maskFor, storedTraining } from "./rules.js";

/** The configuration of `tf.layers.batchNormalization`, and of every layer, with one option more. */
export type BatchNormalizationArgs = NonNullable<
  Parameters<typeof layers.batchNormalization>[0]
> & {
  /**
   * `"keras"` (default), or `"tfjs"` for a model that was trained by tfjs' own layer and depends on what it does
   * otherwise: see {@link BatchNormalization}. It is not saved with a model; {@link register} takes it too.
   */
  rules?: "keras" | "tfjs";
};

/** What `tf.layers.batchNormalization` takes, and every layer. */
const KNOWN: readonly string[] = [
  "axis",
  "momentum",
  "epsilon",
  "center",
  "scale",
  "betaInitializer",
  "gammaInitializer",
  "movingMeanInitializer",
  "movingVarianceInitializer",
  "betaConstraint",
  "gammaConstraint",
  "betaRegularizer",
  "gammaRegularizer",
  ...LAYER_KEYS,
];

/** What options are called here. */
const NAMES: Readonly<Record<string, unknown>> = {
  __proto__: null,
  decay: "momentum",
  eps: "epsilon",
  layout: "axis",
  gamma: "scale",
  usescale: "scale",
  beta: "center",
  usebias: "center",
  affine: "scale and center",
};

// tfjs numbers layers that are given no name; this one has a name, so that the user's layers keep their numbers.
const Theirs = layers.batchNormalization({ name: "batch_normalization" })
  .constructor as unknown as Serialization.SerializableConstructor<layers.Layer> &
  (new (
    args?: BatchNormalizationArgs,
  ) => layers.Layer);

/** Members of tfjs' class that are private there. */
interface Inside {
  /** In a model converted from Keras, it is an array of one number. */
  readonly axis: number | [number];
  readonly momentum: number;
  readonly epsilon: number;
  readonly center: boolean;
  readonly scale: boolean;
  readonly gamma?: LayerVariable;
  readonly beta?: LayerVariable;
  readonly movingMean: LayerVariable;
  readonly movingVariance: LayerVariable;
}

/**
 * The layer that takes the place of `tf.layers.batchNormalization(args)`. It has the same arguments and defaults
 * (`momentum` 0.99, the weight of the old average; `epsilon` 1e-3; `axis` −1), weights of the same names in the
 * same order (gamma, beta, moving_mean, moving_variance) and the same `className`. So a model that was saved
 * with one of the two layers can be loaded with the other; to load it with ours, call {@link register} first.
 *
 * ```ts
 * import * as tf from "@tensorflow/tfjs";
 * import { batchNormalization } from "batchnorm-wasm/tfjs-layers";
 *
 * const model = tf.sequential();
 * model.add(tf.layers.dense({ units: 64, inputShape: [784], useBias: false }));
 * model.add(batchNormalization());
 * ```
 *
 * Input and output: float32, any rank from 2 on, channels on `axis`. In training (`model.fit`, or
 * `layer.apply(x, { training: true })`) a mini-batch is normalized by its own mean and population
 * variance over all other axes. The moving averages, which are also kept in float64, then move by
 * 1 − `momentum`. Otherwise the moving averages normalize (Ioffe & Szegedy 2015, algorithms 1 and 2).
 *
 * It differs from tfjs' own layer where that one differs from Keras:
 *
 * - `trainable: false`, of the layer or of a model that holds it, means test time in training too: the moving averages
 *   normalize, stay as they are, and count as constants in the gradient. tfjs freezes gamma and beta alone. (tfjs does
 *   not tell layers of a model that is the first of a `Sequential`, of a model inside the one that is frozen, or that have
 *   neither gamma nor beta. There, set `trainable` of the layers: `for (const layer of base.layers) layer.trainable =
 *   false`.)
 * - A `training` that the layer was applied with when the model was made is obeyed in `fit`, `evaluate` and `predict`,
 *   as Keras 2 does. tfjs stores it and ignores it. (One that a model inside a model, or a wrapper of the layer, was applied
 *   with cannot be seen from here.)
 * - The mask of `Masking` or `Embedding` reaches the statistics of a training step: they are taken of the data alone.
 *   All positions are normalized by them, and all count in the gradient. It needs the channels on the last axis, and is
 *   refused inside `TimeDistributed`. (tfjs passes no mask into or out of a model inside a model, and of the masks of
 *   `Add` and its like the first.)
 * - `center: false` and `scale: false` can be trained, 5-D input is taken, and every `axis` is right on the cpu and wasm
 *   backends.
 *
 * `rules: "tfjs"` undoes the first three. These hold in any case:
 *
 * - A mini-batch of a single value per channel, as the last of an epoch may be, or with nothing but padding, does not
 *   move the averages: it is normalized by them, and a warning says so once. Keras and tfjs take 0 for its variance.
 * - Arguments that are none (`decay`, `eps`) are refused, and named as they are here. In a file they are ignored.
 * - NaN or infinity in training throws `NonFiniteError`.
 * - It runs on the backends `cpu`, `wasm` and `tensorflow`, and throws `UnsupportedError` on others. First derivatives
 *   only. The wasm backend of tfjs has no gradient of conv2d: train convolutions on `cpu` or `tensorflow`.
 */
export class BatchNormalization extends Theirs {
  /** The name under which tfjs saves this layer. It is that of tfjs' own layer. */
  static override readonly className = "BatchNormalization";

  /** Reads a configuration in a model file, where Keras may have written more than tfjs knows. */
  static override fromConfig<T extends Serialization.Serializable>(
    cls: Serialization.SerializableConstructor<T>,
    config: Serialization.ConfigDict,
  ): T {
    return new cls(knownOnly(config, KNOWN));
  }

  readonly #rules: "keras" | "tfjs";
  #warned = false;
  #norm: TfBatchNorm | null = null;
  #moves = true;
  #channelsLast = true;
  /** Turns the sizes of the input into the shape that the `BatchNorm` is given. */
  #view: (shape: number[]) => number[] = (shape) => shape;

  /**
   * @throws OptionError for an argument that is none, and for other `rules`; when the layer is built, for a momentum outside 0 … 1 or an epsilon
   *   below 0.
   */
  constructor(args: BatchNormalizationArgs = {}) {
    checkKeys("args", args, [...KNOWN, "rules"], (key) => {
      const spelled = key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
      return KNOWN.includes(spelled) ? spelled : oursOf(NAMES, key);
    });
    const { rules } = args;
    super(args);
    this.#rules = choice("rules", rules, "keras", ["keras", "tfjs"]);
  }

  /**
   * The `BatchNorm` of this package that computes the layer, with the weights as they are now. Use it to
   * `freeze`, `diagnose`, `calibrate`, `adapt` or take `moments`. What you write into it is taken over by the
   * weights when they are next used. Its `layout` follows from `axis` and the rank of the input.
   *
   * @throws StateError before the layer is built, and as `TfBatchNorm.layer`; ShapeError as that.
   */
  get batchNorm(): BatchNorm {
    return this.itself.#built("batchNorm").layer;
  }

  /** @internal This object, as `Raw` has it (values/raw.ts), whose place tfjs' own layer takes here. */
  get itself(): this {
    return itselfOf(this, () => this.#norm);
  }

  /** The layer in one line. */
  override toString(): string {
    return `BatchNormalization({ name: "${this.name}" })`;
  }

  /** @internal Vue's mark of what stays outside of its proxies: see values/raw.ts. */
  get __v_skip(): boolean {
    return true;
  }

  #built(use: string): TfBatchNorm {
    if (this.#norm !== null) return this.#norm;
    throw new StateError(
      use,
      "a layer that is built, by a model or by its first input",
      `${this.name} before that`,
    );
  }

  /**
   * Creates the weights, [C] each. Called by tfjs.
   *
   * @param inputShape sizes of the axes of the input; `null` for the axis of the examples.
   * @throws as `new TfBatchNorm`, with nothing created; OptionError for a momentum outside 0 … 1 or an epsilon below 0.
   */
  override build(inputShape: Parameters<layers.Layer["build"]>[0]): void {
    requireHostBackend("batchNormalization");
    const inside = this.itself as unknown as Inside;
    const { scale, center, epsilon, momentum } = inside;
    const settings = { momentum, epsilon, scale, center };
    // Before tfjs makes variables.
    keeping(kerasOptions, settings);
    super.build(inputShape);
    const rank = this.inputSpec[0]?.ndim as number;
    const given = Number(inside.axis);
    const axis = given < 0 ? given + rank : given;
    const layouts = axis === rank - 1 ? CHANNELS_LAST : axis === 1 ? CHANNELS_FIRST : [];
    const layout = ofRank(layouts, rank);
    this.#channelsLast = axis === rank - 1;
    if (layout === undefined) this.#view = (shape) => aroundAxis(shape, axis);
    const { gamma, beta, movingMean, movingVariance } = inside;
    const [channels] = movingMean.shape as [number];
    // tfjs takes a momentum of 1, under which averages do not move: see `call`.
    const layer = new BatchNorm(
      channels,
      keeping(kerasOptions, { ...settings, layout: layout ?? "NCL" }),
    );
    this.#moves = layer.decay !== 1;
    this.#norm = new TfBatchNorm(layer, {
      name: this.name,
      variables: {
        ...(gamma && { gamma: gamma.read() as Variable }),
        ...(beta && { beta: beta.read() as Variable }),
        movingMean: movingMean.read() as Variable,
        movingVariance: movingVariance.read() as Variable,
      },
    });
  }

  /**
   * Normalizes a tensor. Called by tfjs, and by `apply`.
   *
   * @param inputs float32 in the shape that the layer was built for, or an array of one such.
   * @param kwargs with `training: true`, the statistics are those of this mini-batch, and the averages move; `mask`, in
   *   the shape of the input without its last axis, says where data are.
   * @throws as `TfBatchNorm.apply`, with nothing changed; ShapeError for a mask that does not fit; StateError if
   *   models call the layer several times, with different values of `training`, or with a mask and without.
   */
  override call(inputs: Tensor | Tensor[], kwargs: { [key: string]: unknown } = {}): Tensor {
    const norm = this.itself.#built("call");
    const x = (Array.isArray(inputs) ? inputs[0] : inputs) as Tensor;
    if (Array.isArray(inputs) && inputs.length !== 1) {
      throw new ShapeError("inputs", "one tensor", inputs.length);
    }
    requireHostBackend("batchNormalization");
    requireFloatTensor("inputs", x);
    const asked = this.#asked(x, Array.isArray(inputs), kwargs);
    return tidy(() => {
      const view = this.#view(x.shape);
      if (view === x.shape) return norm.compute(x, asked);
      return reshape(norm.compute(reshape(x, view), asked), x.shape);
    });
  }

  /** What a call is asked for, by the rules of Keras or of tfjs. Models call with an array of inputs. */
  #asked(x: Tensor, inModel: boolean, kwargs: { [key: string]: unknown }): Asked {
    const { movingMean, scale, center } = this as unknown as Inside;
    const keras = this.#rules === "keras";
    const stored = keras && inModel ? storedTraining(this) : undefined;
    // A model that is not trainable says so to the weights of its layers alone.
    const frozen = !this.trainable || ((scale || center) && super.trainableWeights.length === 0);
    const training = Boolean(stored ?? kwargs.training) && !(keras && frozen);
    const updateRunning = this.#moves;
    if (!training) return { training, updateRunning };
    const mask = keras ? maskFor(this, x, inModel, kwargs.mask, this.#channelsLast) : null;
    const data = mask ? mask.reduce((n, entry) => n + entry, 0) : x.size / movingMean.shape[0]!;
    if (data > 1) return { training, updateRunning, mask };
    if (!this.#warned) {
      this.#warned = true;
      console.warn(
        `${this.name}: a mini-batch of ${data} values per channel has no variance. It is normalized by the moving ` +
          "averages and does not move them. In model.fit, choose a batchSize that leaves no last batch of one example.",
      );
    }
    return { training: false, updateRunning };
  }

  /**
   * gamma and beta, [C] each, with what was written into the `BatchNorm`; tfjs saves the model through this.
   *
   * @throws ShapeError and StateError as `TfBatchNorm.layer`.
   */
  override get trainableWeights(): LayerVariable[] {
    this.itself.#norm?.synchronize();
    return super.trainableWeights;
  }

  /** For tfjs' own use. */
  override set trainableWeights(weights: LayerVariable[]) {
    super.trainableWeights = weights;
  }

  /**
   * Moving mean and variance, [C] each, as the `BatchNorm` has them; also gamma and beta if not `trainable`.
   *
   * @throws ShapeError and StateError as `TfBatchNorm.layer`.
   */
  override get nonTrainableWeights(): LayerVariable[] {
    this.itself.#norm?.synchronize();
    return super.nonTrainableWeights;
  }

  /** For tfjs' own use. */
  override set nonTrainableWeights(weights: LayerVariable[]) {
    super.nonTrainableWeights = weights;
  }
}

/** A shape in the layout "NCL": the size of the axes before `axis`, of `axis`, and of the axes after it. */
function aroundAxis(shape: number[], axis: number): number[] {
  return [product(shape.slice(0, axis)), shape[axis] as number, product(shape.slice(axis + 1))];
}

/**
 * A new {@link BatchNormalization}. Call this in place of `tf.layers.batchNormalization(args)`.
 *
 * @throws OptionError for an argument that is none, and for other `rules`.
 */
export function batchNormalization(args?: BatchNormalizationArgs): BatchNormalization {
  return new BatchNormalization(args);
}
