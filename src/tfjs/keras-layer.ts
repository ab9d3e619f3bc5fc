// `tf.layers.batchNormalization` on the kernels of this package. It extends tfjs' own class, which does everything
// but the computation.

import {
  reshape,
  type serialization as Serialization,
  serialization,
  type Tensor,
  tidy,
  type Variable,
} from "@tensorflow/tfjs-core";
import { type LayerVariable, layers } from "@tensorflow/tfjs-layers";
import { ShapeError, SingleValueError, StateError } from "../errors.js";
import { BatchNorm } from "../layer/batch-norm.js";
import { keeping, kerasOptions } from "../layer/frameworks.js";
import { CHANNELS_FIRST, CHANNELS_LAST, ofRank } from "../values/layout.js";
import { TfBatchNorm } from "./layer.js";

/** The configuration of `tf.layers.batchNormalization`, and of every layer. */
export type BatchNormalizationArgs = NonNullable<Parameters<typeof layers.batchNormalization>[0]>;

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
 * 1 − `momentum`. Otherwise the moving averages normalize (Ioffe & Szegedy 2015, algorithms 1 and 2). As in
 * tfjs, the layer passes a mask on but does not use it, and `trainable: false` freezes gamma and beta but not
 * the moving averages.
 *
 * Unlike tfjs' own layer, it is right for every `axis` on the cpu and wasm backends, takes 5-D input, and can be
 * trained without `center` or `scale`. Training on one value per channel (which happens if the last batch of an
 * epoch has one example) throws `SingleValueError`, on NaN or infinity `NonFiniteError`. It runs on the backends
 * `cpu`, `wasm` and `tensorflow`, and throws `UnsupportedError` on others. First derivatives only.
 */
export class BatchNormalization extends Theirs {
  /** The name under which tfjs saves this layer. It is that of tfjs' own layer. */
  static override readonly className = "BatchNormalization";

  #norm: TfBatchNorm | null = null;
  #moves = true;
  /** Turns the sizes of the input into the shape that the `BatchNorm` is given. */
  #view: (shape: number[]) => number[] = (shape) => shape;

  /**
   * @throws OptionError, when it is built, for a momentum outside 0 … 1 or an epsilon below 0.
   */
  constructor(args?: BatchNormalizationArgs) {
    super(args);
  }

  /**
   * The `BatchNorm` of this package that computes the layer, with the weights as they are now. Use it to
   * `freeze`, `diagnose`, `calibrate`, `adapt` or take `moments`. What you write into it is taken over by the
   * weights when they are next used. Its `layout` follows from `axis` and the rank of the input.
   *
   * @throws StateError before the layer is built, and as `TfBatchNorm.layer`; ShapeError as that.
   */
  get batchNorm(): BatchNorm {
    return this.#built("batchNorm").layer;
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
    super.build(inputShape);
    const inside = this as unknown as Inside;
    const rank = this.inputSpec[0]?.ndim as number;
    const given = Number(inside.axis);
    const axis = given < 0 ? given + rank : given;
    const layouts = axis === rank - 1 ? CHANNELS_LAST : axis === 1 ? CHANNELS_FIRST : [];
    const layout = ofRank(layouts, rank);
    if (layout === undefined) this.#view = (shape) => aroundAxis(shape, axis);
    const { scale, center, epsilon, momentum, gamma, beta, movingMean, movingVariance } = inside;
    const [channels] = movingMean.shape as [number];
    const settings = { momentum, epsilon, scale, center, layout: layout ?? "NCL" } as const;
    // tfjs takes a momentum of 1, under which averages do not move: see `call`.
    const layer = new BatchNorm(channels, keeping(kerasOptions, settings));
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
   * @param kwargs with `training: true`, the statistics are those of this mini-batch, and the averages move.
   * @throws as `TfBatchNorm.apply`, with nothing changed.
   */
  override call(inputs: Tensor | Tensor[], kwargs: { [key: string]: unknown } = {}): Tensor {
    const norm = this.#built("call");
    const x = (Array.isArray(inputs) ? inputs[0] : inputs) as Tensor;
    if (Array.isArray(inputs) && inputs.length !== 1) {
      throw new ShapeError("inputs", "one tensor", inputs.length);
    }
    const training = Boolean(kwargs.training);
    const updateRunning = this.#moves;
    return tidy(() => {
      try {
        const view = this.#view(x.shape);
        const seen = view === x.shape ? x : reshape(x, view);
        const y = norm.apply(seen, { training, updateRunning });
        return view === x.shape ? y : reshape(y, x.shape);
      } catch (error) {
        if (!(error instanceof SingleValueError)) throw error;
        throw new SingleValueError(
          `${error.message}. In model.fit, choose a batchSize that leaves no last batch of one ` +
            `example (layer ${this.name})`,
        );
      }
    });
  }

  /**
   * gamma and beta, [C] each, with what was written into the `BatchNorm`; tfjs saves the model through this.
   *
   * @throws ShapeError and StateError as `TfBatchNorm.layer`.
   */
  override get trainableWeights(): LayerVariable[] {
    this.#norm?.layer;
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
    this.#norm?.layer;
    return super.nonTrainableWeights;
  }

  /** For tfjs' own use. */
  override set nonTrainableWeights(weights: LayerVariable[]) {
    super.nonTrainableWeights = weights;
  }
}

/** A shape in the layout "NCL": the size of the axes before `axis`, of `axis`, and of the axes after it. */
function aroundAxis(shape: number[], axis: number): number[] {
  const product = (sizes: number[]) => sizes.reduce((a, b) => a * b, 1);
  return [product(shape.slice(0, axis)), shape[axis] as number, product(shape.slice(axis + 1))];
}

/** A new {@link BatchNormalization}. Call this in place of `tf.layers.batchNormalization(args)`. */
export function batchNormalization(args?: BatchNormalizationArgs): BatchNormalization {
  return new BatchNormalization(args);
}

/**
 * Makes tfjs use this package's layer for every `BatchNormalization` in models that are loaded
 * (`tf.loadLayersModel`, `tf.models.modelFromJSON`) or cloned from now on, whichever layer they were saved with.
 * Models that exist already, and `tf.layers.batchNormalization`, stay as they are.
 *
 * @returns a function that gives the name back to tfjs' own class.
 */
export function register(): () => void {
  serialization.SerializationMap.register(BatchNormalization);
  return () => serialization.SerializationMap.register(Theirs);
}
