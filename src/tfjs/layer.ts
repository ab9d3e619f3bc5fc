// `TfBatchNorm`: a layer whose gamma and beta are variables of tfjs, so that tfjs' optimizers train them.

import * as tf from "@tensorflow/tfjs-core";
import { describe, OptionError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { copy, copyOf } from "../values/arrays.js";
import { Raw } from "../values/raw.js";
import {
  IN_MODELS,
  requireFloatTensor,
  requireHostBackend,
  requireOptions,
  requireShape,
} from "./check.js";
import { same, valuesOf } from "./data.js";
import { type ApplyOptions, type Asked, normalize, type Pool } from "./operation.js";

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
  readonly key: "gamma" | "beta" | "runningMean" | "runningVariance";
  /** The values when both sides last agreed, in float32. They show which side has been written since. */
  readonly agreed: Float32Array;
}

const KEYS = ["gamma", "beta", "runningMean", "runningVariance"] as const;

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
   * @throws OptionError where `layer` is no `BatchNorm`, an option is unknown, or a variable has the name already;
   *   ShapeError for a variable that is not float32 [C]; StateError where an array of the layer is gone, since its
   *   buffer was transferred; UnsupportedError on a backend that keeps its data on a graphics processor. When it
   *   throws, nothing has changed.
   */
  constructor(layer: BatchNorm, options: TfBatchNormOptions = {}) {
    super();
    requireLayer(layer);
    const read = requireOptions(options, { name: "string", variables: "object" });
    requireHostBackend("new TfBatchNorm");
    const given = requireVariables(read.variables ?? {}, layer);
    // Asks for all arrays of the layer, one of which may be gone.
    const { gamma, beta } = stateOf(layer);
    const name = read.name ?? nextName();
    const fresh = { gamma: gamma && !given.gamma, beta: beta && !given.beta };
    for (const key of ["gamma", "beta"] as const) if (fresh[key]) requireFree(`${name}/${key}`);
    // Nothing throws from here on.
    this.#layer = layer;
    this.gamma =
      gamma && ((given.gamma as tf.Variable<tf.Rank.R1>) ?? variable(gamma, `${name}/gamma`));
    this.beta = beta && ((given.beta as tf.Variable<tf.Rank.R1>) ?? variable(beta, `${name}/beta`));
    const { movingMean: runningMean, movingVariance: runningVariance } = given;
    const variables = { gamma: this.gamma, beta: this.beta, runningMean, runningVariance };
    this.#links = KEYS.flatMap((key): Link[] => {
      const variable = variables[key];
      return variable ? [{ variable, key, agreed: copyOf(valuesOf(variable)) }] : [];
    });
    this.#own = this.trainableVariables.filter((v) => v !== given.gamma && v !== given.beta);
    for (const { key, agreed } of this.#links) {
      const own = layer[key]!;
      if (!same(own, agreed)) copy(own, agreed);
    }
  }

  /** `[gamma, beta]`, without those left out: for an optimizer's list of variables. */
  get trainableVariables(): tf.Variable[] {
    return [this.gamma, this.beta].filter((v) => v !== null);
  }

  /**
   * The layer, after its `gamma` and `beta` have been brought up to date. Use it to reach `freeze`, `infer`,
   * `snapshot`, `runningMean` and everything else that a layer has. After `dispose` it stays usable, with the
   * values that it had then.
   *
   * @throws ShapeError if the values of a variable are gone, StateError if those of the layer are: their buffer was
   * transferred.
   */
  get layer(): BatchNorm {
    this.synchronize();
    return this.#layer;
  }

  /**
   * Normalizes a tensor. It can be differentiated with respect to `x`, `add`, gamma and beta, in training and at test
   * time, and may be called any number of times before gradients are taken. With `training: false`, the running
   * averages count as constants in the gradient.
   *
   * @param x float32, in the rank and order of the layer's `layout`: `"NC"` [N, C], `"NHWC"`
   *   [N, H, W, C] (tfjs' own order for images), `"NCHW"` [N, C, H, W], …
   * @returns the layer's activation of gamma · (x − mean) / √(variance + epsilon) + beta [+ add], in the shape of `x`.
   *   All of it is one operation with one gradient, which passes no value through memory more often than it must.
   * @throws ShapeError where `x` or `add` is no float32 tensor or does not fit the layout; OptionError for an
   *   unknown option, or without `training`; SingleValueError and NonFiniteError in training, as from `BatchNorm.train`,
   *   with nothing changed; StateError after `dispose`, or where a gradient is asked for inside a
   *   `calibrate`; MemoryError if the wasm backend has no room for the result; UnsupportedError on a
   *   backend that keeps its data on a graphics processor, or if a second derivative is asked for.
   */
  apply<T extends tf.Tensor>(x: T, options: ApplyOptions): T {
    if (this.itself.#disposed) {
      throw new StateError("apply", "a layer in use", "one that was disposed");
    }
    requireFloatTensor("x", x);
    const read = requireOptions(options ?? {}, {
      training: "boolean",
      updateRunning: "boolean",
      add: "object",
      pool: "object",
    });
    if (read.training === undefined) {
      throw new OptionError("training", "true in a training step, false at test time", "none");
    }
    if (read.add) {
      requireFloatTensor("add", read.add);
      requireShape("add", read.add, x.shape);
    }
    if (read.pool) read.pool = poolOf(read.pool);
    requireHostBackend("apply");
    return this.compute(x, read);
  }

  /** @internal Does the work of `apply`, all of whose arguments have been checked. */
  compute<T extends tf.Tensor>(x: T, asked: Asked): T {
    const undo = this.synchronize();
    let y: T;
    try {
      y = normalize(this.#layer, x, { shape: x.shape }, this, asked);
    } catch (error) {
      undo();
      throw error;
    }
    if (asked.training) this.synchronize();
    return y;
  }

  /** @internal What `sequential.add` of tfjs-layers asks a first layer for; later ones have their `apply` called. */
  get inboundNodes(): never {
    throw new OptionError("layer", `a tf.layers.Layer${IN_MODELS}`, String(this.itself));
  }

  /** The layer in one line, which Node's `console.log` shows too. */
  override toString(): string {
    return `Tf${this.itself.#layer}`;
  }

  /**
   * Frees the variables that the constructor made. The layer keeps their values, and can be used by itself.
   *
   * @throws as `layer`.
   */
  dispose(): void {
    this.synchronize();
    this.#disposed = true;
    for (const variable of this.#own) variable.dispose();
  }

  /**
   * @internal Compares each variable with its array in the layer, and copies the side that was written to the other one.
   * Returns a function that takes that back. When it throws, nothing has changed.
   */
  synchronize(): () => void {
    const layer = this.itself.#layer;
    const undo: (() => void)[] = [];
    const undoAll = (): void => {
      for (const each of undo.reverse()) each();
    };
    try {
      for (const { variable, key, agreed } of this.#disposed ? [] : this.#links) {
        if (variable.isDisposed) continue;
        const values = layer[key]!;
        const trained = valuesOf(variable);
        const written = !same(trained, agreed);
        if (!written && same(values, agreed)) continue;
        const [before, state] = [copyOf(agreed), stateOf(layer)];
        undo.push(() => copy(agreed, before));
        if (written) {
          undo.push(() => layer.setState(state));
          copy(agreed, trained);
          copy(values, agreed);
          // Averages that were written are not the initial ones, so at least one mini-batch counts, as in `setRunning`.
          if (key.startsWith("running")) layer.batchesSeen = Math.max(1, layer.batchesSeen);
        } else {
          undo.push(() => assign(variable, before));
          copy(agreed, values);
          assign(variable, agreed);
        }
      }
    } catch (error) {
      undoAll();
      throw error;
    }
    return undoAll;
  }
}

/** The state of a layer, in arrays of its own. */
function stateOf(layer: BatchNorm): Parameters<BatchNorm["setState"]>[0] {
  const { gamma, beta, runningMean, runningVariance, batchesSeen, ageKnown } = layer;
  return {
    gamma: gamma && copyOf(gamma),
    beta: beta && copyOf(beta),
    runningMean: copyOf(runningMean),
    runningVariance: copyOf(runningVariance),
    batchesSeen,
    ageKnown,
  };
}

const assign = (variable: tf.Variable, values: Float32Array): void =>
  tf.tidy(() => variable.assign(tf.tensor1d(copyOf(values))));

const isFree = (name: string): boolean => !(name in tf.engine().registeredVariables);

/** Throws OptionError if tfjs has a variable of this name. */
function requireFree(name: string): void {
  if (isFree(name)) return;
  throw new OptionError("name", "one that is new to tfjs", `"${name}", which a variable has`);
}

function variable(values: ArrayLike<number>, name: string): tf.Variable<tf.Rank.R1> {
  return tf.tidy(() => tf.variable(tf.tensor1d(Float32Array.from(values)), true, name));
}

let created = 0;

/** The next name that is new to tfjs. Another copy of this package, or the user, may have given some of them. */
function nextName(): string {
  for (;;) {
    const name = created === 0 ? "batch_norm" : `batch_norm_${created}`;
    created++;
    if (isFree(`${name}/gamma`) && isFree(`${name}/beta`)) return name;
  }
}

// Not by instanceof: the layer may come from another copy of this package, since each bundle has one.
function requireLayer(layer: unknown): void {
  if (typeof (layer as Partial<BatchNorm> | null | undefined)?.backward === "function") return;
  throw new OptionError("layer", `a BatchNorm${IN_MODELS}`, describe(layer));
}

/** Checks the functions of a pool, each of which is read once, and returns them in an object of ours. */
function poolOf(pool: Pool): Pool {
  const { moments, sums } = pool;
  if (typeof moments !== "function" || typeof sums !== "function") {
    throw new OptionError("pool", "functions moments and sums", describe(pool));
  }
  return { moments: (own) => moments.call(pool, own), sums: (own) => sums.call(pool, own) };
}

/** Checks the variables, each of which is read once, and returns them in an object of ours. */
function requireVariables(variables: TfBatchNormVariables, layer: BatchNorm): TfBatchNormVariables {
  const known = ["gamma", "beta", "movingMean", "movingVariance"] as const;
  for (const key of Object.keys(variables)) {
    if (known.includes(key as "gamma")) continue;
    throw new OptionError(`variables.${key}`, `a variable among ${known.join(", ")}`, `"${key}"`);
  }
  const read: TfBatchNormVariables = {};
  for (const key of known) {
    const name = `variables.${key}`;
    const value = variables[key];
    if (value === undefined) continue;
    if (!(value instanceof tf.Variable)) {
      throw new OptionError(name, "a tf.Variable", describe(value));
    }
    if (layer[key as "gamma" | "beta"] === null) {
      throw new OptionError(name, `none, since ${key} is left out`, "a variable");
    }
    requireFloatTensor(name, value);
    requireShape(name, value, [layer.channels]);
    valuesOf(value); // Throws if they are gone.
    read[key] = value;
  }
  return read;
}
