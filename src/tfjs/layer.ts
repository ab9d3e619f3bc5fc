// A layer with its gamma and beta as variables of tfjs, which optimizers train.

import * as tf from "@tensorflow/tfjs-core";
import { describe, OptionError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { requireFloatTensor, requireHostBackend, requireOptions, requireShape } from "./check.js";
import { same, valuesOf } from "./data.js";
import { type ApplyOptions, normalize, type Pool } from "./operation.js";

/** Options of {@link TfBatchNorm}. */
export interface TfBatchNormOptions {
  /**
   * The variables are named `{name}/gamma` and `{name}/beta`; tfjs wants every name once.
   * Default: `batch_norm`, `batch_norm_1`, … in order of creation.
   */
  name?: string;
  /** Variables to use instead of new ones, float32 [C]; `dispose` leaves them alone. */
  variables?: TfBatchNormVariables;
}

/**
 * Variables that a {@link TfBatchNorm} is given, all of them float32 [C]. Their values win over the
 * layer's. Those of the running averages, not to be trained, follow every training step; what is
 * written into them is what test time uses from then on.
 */
export interface TfBatchNormVariables {
  /** Learned scale; refused where the layer has none. */
  gamma?: tf.Variable;
  /** Learned shift; refused where the layer has none. */
  beta?: tf.Variable;
  /** Running average of the means. */
  movingMean?: tf.Variable;
  /** Running average of the variances, >= 0. */
  movingVariance?: tf.Variable;
}

/** A variable and the array of the layer that it stands for. */
interface Link {
  readonly variable: tf.Variable;
  readonly values: Float32Array | Float64Array;
  /** As both sides last had it, in float32, to tell which side was written since. */
  readonly agreed: Float32Array;
  /** What to do when the layer takes over what was written into the variable. */
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
 * Runs on the tfjs backends `cpu`, `wasm` and `tensorflow` (tfjs-node), whose data are in main
 * memory; on the first two without copies. First derivatives only. The values of `x` stay tfjs'
 * own: `layer.lastBatch.x` is `null`.
 *
 * Gamma and beta live in the variables. They are read into `layer.gamma` and `layer.beta`, in
 * place, before every use. What is written into the layer instead (`norm.layer.restore(s)`,
 * `norm.layer.gamma.fill(1)`) is taken over by the variables at the next use; where tfjs has
 * written a variable since, the variable wins.
 */
export class TfBatchNorm {
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
      // As of `setRunning`: averages from elsewhere are averages of something.
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
   * The layer, its `gamma` and `beta` brought up to date first: the way to `freeze`, `infer`,
   * `snapshot`, `runningMean` and all else the layer has. After `dispose` the layer stays usable,
   * with the values it had then.
   */
  get layer(): BatchNorm {
    this.#synchronize();
    return this.#layer;
  }

  /**
   * Normalizes a tensor; differentiable with respect to `x`, gamma and beta in both modes, any
   * number of times before the gradients are taken. With `training: false` inside a gradient this
   * is the frozen gradient: the running averages are constants.
   *
   * @param x float32, in the rank and order of the layer's `layout`: `"NC"` [N, C], `"NHWC"`
   *   [N, H, W, C] (tfjs' own order for images), `"NCHW"` [N, C, H, W], …
   * @returns gamma · (x − mean) / √(variance + epsilon) + beta, in the shape of `x`.
   * @throws ShapeError where `x` is no float32 tensor or does not fit the layout; OptionError for an
   *   unknown option; SingleValueError and NonFiniteError in training, as from `BatchNorm.train`,
   *   with nothing changed; StateError after `dispose`, or where a gradient is asked for inside a
   *   `calibrate`; MemoryError where the wasm backend has no
   *   room for the result; UnsupportedError on a backend that keeps its data on a graphics
   *   processor, or where a second derivative is asked for.
   */
  apply<T extends tf.Tensor>(x: T, options: ApplyOptions = {}): T {
    if (this.#disposed) {
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

  /** Frees the variables it made. The layer keeps their values and can be used by itself. */
  dispose(): void {
    this.#synchronize();
    this.#disposed = true;
    for (const variable of this.#own) variable.dispose();
  }

  /** Whichever side was written since the last use is copied to the other. */
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

/** A variable and what it stands for, which takes over its values. */
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

// A layer made by another copy of this package (one for each bundle) will do.
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
