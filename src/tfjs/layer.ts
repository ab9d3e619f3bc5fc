// `TfBatchNorm`: a layer whose gamma and beta are variables of tfjs, so that tfjs' optimizers train them.

import * as tf from "@tensorflow/tfjs-core";
import { describe, OptionError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { Raw } from "../values/raw.js";
import { requireFloatTensor, requireHostBackend, requireOptions, requireShape } from "./check.js";
import { same, valuesOf } from "./data.js";
import { type ApplyOptions, normalize, type Pool } from "./operation.js";

/** Options of {@link TfBatchNorm}. */
export interface TfBatchNormOptions {
  /**
   * The variables are named `{name}/gamma` and `{name}/beta`. tfjs refuses a name that is used already.
   * Default: `batch_norm`, `batch_norm_1`, … in order of creation.
   */
  name?: string;
  /** Variables to use instead of new ones, float32 [C]. `dispose` does not free them. */
  variables?: TfBatchNormVariables;
}

/**
 * Variables that a {@link TfBatchNorm} is given, all of them float32 [C]. Their values replace those of the
 * layer. The two of the running averages must not be trained. They are updated in every training step, and what
 * you write into them is used at test time from then on.
 */
export interface TfBatchNormVariables {
  /** Learned scale; an error if the layer has none. */
  gamma?: tf.Variable;
  /** Learned shift; an error if the layer has none. */
  beta?: tf.Variable;
  /** Running average of the means. */
  movingMean?: tf.Variable;
  /** Running average of the variances, >= 0. */
  movingVariance?: tf.Variable;
}

/** A variable, and the array of the layer that holds the same values. */
interface Link {
  readonly variable: tf.Variable;
  readonly values: Float32Array | Float64Array;
  /** The values when both sides last agreed, in float32. They show which side has been written since. */
  readonly agreed: Float32Array;
  /** Is called after the layer has taken over what was written into the variable. */
  readonly taken?: () => void;
}

/**
 * A `BatchNorm` of this package as a layer of a TensorFlow.js network.
 *
 * ```ts
 * import * as tf from "@tensorflow/tfjs";
 * import { BatchNorm } from "batchnorm-wasm";
 * import { TfBatchNorm } from "batchnorm-wasm/tfjs";
 *
 * const norm = new TfBatchNorm(new BatchNorm(100));
 *
 * const loss = () => {
 *   const h = tf.sigmoid(norm.apply(tf.matMul(x, w), { training: true }));   // x [60, 784], w [784, 100]
 *   return tf.losses.softmaxCrossEntropy(labels, tf.matMul(h, v)).asScalar(); // v [100, 10]
 * };
 * tf.train.sgd(0.1).minimize(loss);       // trains w, v, norm.gamma and norm.beta
 *
 * const frozen = norm.layer.freeze();     // as the optimizer left them
 * ```
 *
 * Runs on the tfjs backends `cpu`, `wasm` and `tensorflow` (tfjs-node), whose data are in main memory; the first
 * two need no copies. First derivatives only. The values of `x` belong to tfjs, so `layer.lastBatch.x` is `null`.
 *
 * Gamma and beta live in the variables, and are copied into `layer.gamma` and `layer.beta` before every use. If
 * you write into the layer instead (`norm.layer.restore(s)`, `norm.layer.gamma.fill(1)`), the variables take
 * that over at the next use. If both sides were written, the variable wins.
 *
 * @throws StateError from every member that is used through a proxy of it (Vue's `reactive`, valtio's `proxy`).
 */
export class TfBatchNorm extends Raw {
  /** Learned scale, [C], trainable; `null` where the layer has none. */
  readonly gamma: tf.Variable<tf.Rank.R1> | null;
  /** Learned shift, [C], trainable; `null` where the layer has none. */
  readonly beta: tf.Variable<tf.Rank.R1> | null;

  readonly #layer: BatchNorm;
  readonly #links: readonly Link[];
  /** The variables that `dispose` frees. */
  readonly #own: readonly tf.Variable[];
  #disposed = false;

  /**
   * @param layer the layer; its gamma and beta are the variables' first values. It may have been
   *   trained before, or come from `BatchNorm.fromSnapshot`.
   * @throws OptionError where `layer` is no `BatchNorm` or an option is unknown; ShapeError for a
   *   variable that is not float32 [C]; UnsupportedError on a backend that keeps its data on a
   *   graphics processor.
   */
  constructor(layer: BatchNorm, options: TfBatchNormOptions = {}) {
    super();
    requireLayer(layer);
    requireOptions(options, { name: "string", variables: "object" });
    requireHostBackend("new TfBatchNorm");
    const given = options.variables ?? {};
    requireVariables(given, layer);
    const name = options.name ?? nextName();
    const { gamma, beta, runningMean, runningVariance } = layer;
    this.#layer = layer;
    this.gamma =
      gamma && ((given.gamma as tf.Variable<tf.Rank.R1>) ?? variable(gamma, `${name}/gamma`));
    this.beta = beta && ((given.beta as tf.Variable<tf.Rank.R1>) ?? variable(beta, `${name}/beta`));
    const taken = () => {
      // Averages that were written are not the initial ones, so at least one mini-batch counts, as in `setRunning`.
      layer.batchesSeen = Math.max(1, layer.batchesSeen);
    };
    this.#links = [
      linked(this.gamma, gamma),
      linked(this.beta, beta),
      linked(given.movingMean, runningMean, taken),
      linked(given.movingVariance, runningVariance, taken),
    ].filter((link) => link !== null);
    this.#own = this.trainableVariables.filter((v) => v !== given.gamma && v !== given.beta);
  }

  /** `[gamma, beta]`, without those left out: for an optimizer's list of variables. */
  get trainableVariables(): tf.Variable[] {
    return [this.gamma, this.beta].filter((v) => v !== null);
  }

  /**
   * The layer, after its `gamma` and `beta` have been brought up to date. Use it to reach `freeze`, `infer`,
   * `snapshot`, `runningMean` and everything else that a layer has. After `dispose` it stays usable, with the
   * values that it had then.
   */
  get layer(): BatchNorm {
    this.raw.#synchronize();
    return this.#layer;
  }

  /**
   * Normalizes a tensor. It can be differentiated with respect to `x`, gamma and beta, in training and at test
   * time, and may be called any number of times before gradients are taken. With `training: false`, the running
   * averages count as constants in the gradient.
   *
   * @param x float32, in the rank and order of the layer's `layout`: `"NC"` [N, C], `"NHWC"`
   *   [N, H, W, C] (tfjs' own order for images), `"NCHW"` [N, C, H, W], …
   * @returns gamma · (x − mean) / √(variance + epsilon) + beta, in the shape of `x`.
   * @throws ShapeError where `x` is no float32 tensor or does not fit the layout; OptionError for an
   *   unknown option; SingleValueError and NonFiniteError in training, as from `BatchNorm.train`,
   *   with nothing changed; StateError after `dispose`, or where a gradient is asked for inside a
   *   `calibrate`; MemoryError if the wasm backend has no room for the result; UnsupportedError on a
   *   backend that keeps its data on a graphics processor, or if a second derivative is asked for.
   */
  apply<T extends tf.Tensor>(x: T, options: ApplyOptions = {}): T {
    if (this.raw.#disposed) {
      throw new StateError("apply", "a layer in use", "one that was disposed");
    }
    requireOptions(options, { training: "boolean", updateRunning: "boolean", pool: "object" });
    requirePool(options.pool);
    requireHostBackend("apply");
    requireFloatTensor("x", x);
    const y = normalize(this.layer, x, { shape: x.shape }, this, options);
    if (options.training) this.#synchronize();
    return y;
  }

  /** The layer in one line, which Node's `console.log` shows too. */
  override toString(): string {
    return `Tf${this.raw.#layer}`;
  }

  /** Frees the variables that the constructor made. The layer keeps their values, and can be used by itself. */
  dispose(): void {
    this.raw.#synchronize();
    this.#disposed = true;
    for (const variable of this.#own) variable.dispose();
  }

  /** Compares each variable with its array in the layer, and copies the side that was written to the other one. */
  #synchronize(): void {
    if (this.#disposed) return;
    for (const { variable, values, agreed, taken } of this.#links) {
      if (variable.isDisposed) continue;
      const trained = valuesOf(variable);
      if (!same(trained, agreed)) {
        agreed.set(trained);
        values.set(trained);
        taken?.();
      } else if (!same(values, agreed)) {
        agreed.set(values);
        tf.tidy(() => variable.assign(tf.tensor1d(agreed.slice())));
      }
    }
  }
}

function variable(values: Float32Array, name: string): tf.Variable<tf.Rank.R1> {
  return tf.tidy(() => tf.variable(tf.tensor1d(values.slice()), true, name));
}

/** Links a variable with an array of the layer, which takes over its values. */
function linked(
  variable: tf.Variable | null | undefined,
  values: Link["values"] | null,
  taken?: () => void,
): Link | null {
  if (!variable || !values) return null;
  const agreed = valuesOf(variable).slice();
  if (!same(values, agreed)) values.set(agreed);
  return { variable, values, agreed, ...(taken && { taken }) };
}

let created = 0;
function nextName(): string {
  const name = created === 0 ? "batch_norm" : `batch_norm_${created}`;
  created++;
  return name;
}

// Not by instanceof: the layer may come from another copy of this package, since each bundle has one.
function requireLayer(layer: unknown): void {
  if (typeof (layer as Partial<BatchNorm> | null | undefined)?.backward === "function") return;
  throw new OptionError("layer", "a BatchNorm", describe(layer));
}

function requirePool(pool: Pool | null | undefined): void {
  if (!pool || (typeof pool.moments === "function" && typeof pool.sums === "function")) return;
  throw new OptionError("pool", "functions moments and sums", describe(pool));
}

function requireVariables(variables: TfBatchNormVariables, layer: BatchNorm): void {
  const known = ["gamma", "beta", "movingMean", "movingVariance"];
  for (const [key, value] of Object.entries(variables)) {
    const name = `variables.${key}`;
    if (!known.includes(key)) {
      throw new OptionError(name, `a variable among ${known.join(", ")}`, `"${key}"`);
    }
    if (value === undefined) continue;
    if (!(value instanceof tf.Variable)) {
      throw new OptionError(name, "a tf.Variable", describe(value));
    }
    if (layer[key as "gamma" | "beta"] === null) {
      throw new OptionError(name, `none, since ${key} is left out`, "a variable");
    }
    requireFloatTensor(name, value);
    requireShape(name, value, [layer.channels]);
  }
}
