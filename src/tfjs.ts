/**
 * Batch normalization inside a TensorFlow.js network: a `BatchNorm` of this package as one
 * differentiable operation (`tf.customGrad`), its gamma and beta as `tf.Variable`s.
 *
 * Formulas: Ioffe & Szegedy 2015, "Batch Normalization", Algorithm 1 (training), section 3 (the
 * gradient) and Algorithm 2 (test time). They are computed by the layer; this file only carries
 * data and gradients between it and tfjs.
 */

import * as tf from "@tensorflow/tfjs-core";
import type { Batch } from "./batch.js";
import type { BatchNorm } from "./batch-norm.js";
import { describe, OptionError, ShapeError, StateError, UnsupportedError } from "./errors.js";
import type { GradientSums, GradientSumsLike, Moments, MomentsLike } from "./moments.js";

/** Backends whose data `dataSync()` reads without waiting for a graphics processor. */
const HOST_BACKENDS: readonly string[] = ["cpu", "wasm", "tensorflow"];

/** How one call of {@link TfBatchNorm.apply} normalizes. */
export interface ApplyOptions {
  /**
   * `true`: by the mean and variance of this mini-batch, and the running averages move.
   * `false` (default, as in tfjs): by the running averages, which stay as they are.
   */
  training?: boolean;
  /** `false`: a training call that leaves the running averages alone. Default `true`. */
  updateRunning?: boolean;
  /** Where `x` is one worker's part of a mini-batch: how the parts find together. */
  pool?: Pool;
}

/**
 * How a mini-batch that is split over workers is normalized as one, and differentiated as one. Every
 * worker calls both, in the same order; both wait until all have given theirs. With `pool`, the
 * gradients of gamma and beta are those of the whole mini-batch: do not add them over workers again.
 */
export interface Pool {
  /** Gives this worker's moments, takes those of all, merged. */
  moments(own: Moments): MomentsLike;
  /** Gives this worker's sums, takes those of all, merged. */
  sums(own: GradientSums): GradientSumsLike;
}

/** Options of {@link TfBatchNorm}. */
export interface TfBatchNormOptions {
  /**
   * The variables are named `{name}/gamma` and `{name}/beta`; tfjs wants every name once.
   * Default: `batch_norm`, `batch_norm_1`, … in order of creation.
   */
  name?: string;
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
 *   return tf.losses.softmaxCrossEntropy(labels, tf.matMul(h, v));           // v [100, 10]
 * };
 * tf.train.sgd(0.1).minimize(loss);       // trains w, v, norm.gamma and norm.beta
 *
 * const frozen = norm.layer.freeze();     // as the optimizer left them
 * ```
 *
 * Runs on the tfjs backends `cpu`, `wasm` and `tensorflow` (tfjs-node), whose data are in main
 * memory. First derivatives only.
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
  /** Gamma and beta as both sides last had them, to tell which side was written since. */
  readonly #agreed: { gamma: Float32Array | null; beta: Float32Array | null };
  #disposed = false;

  /**
   * @param layer the layer; its gamma and beta are the variables' first values. It may have been
   *   trained before, or come from `BatchNorm.fromSnapshot`.
   * @throws OptionError where `layer` is no `BatchNorm` or an option is unknown; UnsupportedError on
   *   a backend that keeps its data on a graphics processor.
   */
  constructor(layer: BatchNorm, options: TfBatchNormOptions = {}) {
    requireLayer(layer);
    requireOptions(options, { name: "string" });
    requireHostBackend("new TfBatchNorm");
    const name = options.name ?? nextName();
    this.#layer = layer;
    this.#agreed = { gamma: layer.gamma?.slice() ?? null, beta: layer.beta?.slice() ?? null };
    this.gamma = layer.gamma && variable(layer.gamma, `${name}/gamma`);
    this.beta = layer.beta && variable(layer.beta, `${name}/beta`);
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
   *   with nothing changed; StateError after `dispose`; UnsupportedError on a backend that keeps
   *   its data on a graphics processor, or where a second derivative is asked for.
   */
  apply<T extends tf.Tensor>(x: T, options: ApplyOptions = {}): T {
    if (this.#disposed) {
      throw new StateError("apply: expected a layer in use, got one that was disposed");
    }
    requireOptions(options, { training: "boolean", updateRunning: "boolean", pool: "object" });
    requireHostBackend("apply");
    requireFloatTensor(x);
    return normalize(this.layer, x, this.gamma, this.beta, options);
  }

  /** Frees the two variables. The layer keeps their values and can be used by itself. */
  dispose(): void {
    this.#synchronize();
    this.#disposed = true;
    this.gamma?.dispose();
    this.beta?.dispose();
  }

  /** Whichever side was written since the last use is copied to the other. */
  #synchronize(): void {
    if (this.#disposed) return;
    for (const key of ["gamma", "beta"] as const) {
      const variable = this[key];
      const values = this.#layer[key];
      const agreed = this.#agreed[key];
      if (variable === null || values === null || agreed === null) continue;
      const trained = read(variable);
      if (!same(trained, agreed)) {
        values.set(trained);
      } else if (!same(values, agreed)) {
        tf.tidy(() => variable.assign(tf.tensor1d(values.slice())));
      }
      agreed.set(values);
    }
  }
}

/**
 * The differentiable operation: y from x, gamma and beta, the latter two as they are in `layer`.
 * `gamma` and `beta` are the tensors that receive their gradients.
 */
function normalize<T extends tf.Tensor>(
  layer: BatchNorm,
  x: T,
  gamma: tf.Tensor | null,
  beta: tf.Tensor | null,
  { training = false, updateRunning = true, pool }: ApplyOptions,
): T {
  const shape = x.shape;
  const values = read(x);
  const trained = (): Float32Array => {
    const statistics = pool ? pool.moments(layer.moments(values, { shape })) : "batch";
    return layer.train(values, { shape, statistics, updateRunning });
  };
  if (!tf.engine().isTapeOn()) {
    const y = training ? trained() : layer.infer(values, { shape });
    return tf.tensor(y, shape) as T;
  }

  const y = training ? trained() : layer.train(values, { shape, statistics: "running" });
  const batch = layer.lastBatch as Batch;
  // Another use may follow before the gradient of this one is taken, with another gamma.
  const gammaThen = layer.gamma?.slice() ?? null;
  const inputs = [x, gamma, beta].filter((tensor) => tensor !== null);

  const gradient = (dy: tf.Tensor): tf.Tensor[] => {
    const slopes = read(dy);
    const sums = training && pool ? pool.sums(layer.backwardSums(slopes, { batch })) : undefined;
    const { dx, dgamma, dbeta } = withGamma(layer, gammaThen, () =>
      layer.backward(slopes, sums ? { batch, sums } : { batch }),
    );
    const gradients = [tf.tensor(dx, shape)];
    if (gamma !== null && dgamma !== null) gradients.push(tf.tensor1d(dgamma));
    if (beta !== null && dbeta !== null) gradients.push(tf.tensor1d(dbeta));
    return gradients.map((value) => firstDerivative(value, [dy, ...inputs]));
  };
  const operation = tf.customGrad(() => ({ value: tf.tensor(y, shape), gradFunc: gradient }));
  return operation(...inputs) as T;
}

/**
 * A gradient computed outside tfjs. To a tape that records the gradient itself it would look like
 * a constant, and second derivatives would come out wrong without a word: there it is an operation
 * that has no derivative.
 */
function firstDerivative(value: tf.Tensor, inputs: tf.Tensor[]): tf.Tensor {
  if (!tf.engine().isTapeOn()) return value;
  const gradFunc = () => {
    throw new UnsupportedError(
      "apply: expected first derivatives only, got a gradient of a gradient. " +
        "Where second derivatives are needed, write the formula in tfjs operations (tf.moments)",
    );
  };
  return tf.customGrad(() => ({ value, gradFunc }))(...inputs);
}

/** Runs `f` while the layer has an earlier gamma. */
function withGamma<R>(layer: BatchNorm, gamma: Float32Array | null, f: () => R): R {
  const now = layer.gamma;
  if (now === null || gamma === null || same(now, gamma)) return f();
  const kept = now.slice();
  now.set(gamma);
  try {
    return f();
  } finally {
    now.set(kept);
  }
}

/** A tensor's values. On the cpu backend the array behind the tensor itself, not to be written. */
function read(tensor: tf.Tensor): Float32Array {
  return tensor.dataSync<"float32">();
}

function variable(values: Float32Array, name: string): tf.Variable<tf.Rank.R1> {
  return tf.tidy(() => tf.variable(tf.tensor1d(values.slice()), true, name));
}

function same(a: Float32Array, b: Float32Array): boolean {
  return a.every((value, i) => Object.is(value, b[i]));
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
  throw new OptionError(`layer: expected a BatchNorm, got ${describe(layer)}`);
}

function requireOptions(
  options: object,
  types: Record<string, "boolean" | "string" | "object">,
): void {
  for (const [key, value] of Object.entries(options)) {
    const type = types[key];
    if (type === undefined) {
      const known = Object.keys(types).join(", ");
      throw new OptionError(`options: expected ${known}, got ${describe(key)}`);
    }
    if (value === undefined || typeof value === type) continue;
    throw new OptionError(
      `${key}: expected ${type === "object" ? "an" : "a"} ${type}, got ${describe(value)}`,
    );
  }
}

function requireHostBackend(method: string): void {
  tf.backend(); // starts one where none was used yet
  const name = tf.getBackend();
  if (HOST_BACKENDS.includes(name)) return;
  throw new UnsupportedError(
    `${method}: expected a tfjs backend with its data in main memory ` +
      `(${HOST_BACKENDS.join(", ")}), got "${name}". ` +
      'Call `await tf.setBackend("wasm")` (package @tensorflow/tfjs-backend-wasm) before building ' +
      "the network, or use tf.layers.batchNormalization on this backend",
  );
}

function requireFloatTensor(x: tf.Tensor): void {
  if (!(x instanceof tf.Tensor)) {
    throw new ShapeError(`x: expected a tf.Tensor, got ${describe(x)}`);
  }
  if (x.dtype !== "float32") {
    throw new ShapeError(`x: expected a tensor of float32, got ${x.dtype}`);
  }
}
