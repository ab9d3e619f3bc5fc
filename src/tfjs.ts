/**
 * Batch normalization inside a TensorFlow.js network: a `BatchNorm` of this package as one
 * differentiable operation (`tf.customGrad`), its gamma and beta as `tf.Variable`s.
 *
 * Formulas: Ioffe & Szegedy 2015, "Batch Normalization", Algorithm 1 (training), section 3 (the
 * gradient) and Algorithm 2 (test time). They are computed by the layer; this file only carries
 * data and gradients between it and tfjs.
 *
 * `batchNorm` is the bare operation, with the statistics as inputs: `tf.batchNorm` on our kernels.
 *
 * @module
 */

import * as tf from "@tensorflow/tfjs-core";
import { type Batch, forgetInput } from "./batch.js";
import { BatchNorm } from "./batch-norm.js";
import {
  checkKeys,
  describe,
  OptionError,
  ShapeError,
  StateError,
  UnsupportedError,
} from "./errors.js";
import { show } from "./layout.js";
import type { GradientSums, GradientSumsLike, Moments, MomentsLike } from "./moments.js";
import { epsilonOf } from "./options.js";
import type { Gradients } from "./run.js";
import { filled, valuesOf } from "./tfjs-data.js";

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
      throw new StateError("apply: expected a layer in use, got one that was disposed");
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

/**
 * Batch normalization by given statistics: `tf.batchNorm`, with its arguments in its order, on the
 * kernels of this package.
 *
 * y = scale · (x − mean) / √(variance + varianceEpsilon) + offset, differentiable with respect to all
 * five (first derivatives). Every tensor is float32, or a nested array of numbers.
 *
 * ```ts
 * const y = batchNorm(x, mean, variance, offset, scale, 1e-3); // x [N, H, W, C], the others [C]
 * ```
 *
 * @param x […, C], any rank from 1 on, channels last.
 * @param mean [C], or in the shape of `x`: a mean for every value.
 * @param variance [C], or in the shape of `x`, as `mean`; >= 0.
 * @param offset beta, in the shape of `mean`; 0 where left out.
 * @param scale gamma, in the shape of `mean`; 1 where left out.
 * @param varianceEpsilon added to the variance under the square root. Default 1e-3, as in tfjs.
 * @returns y in the shape of `x`.
 * @throws ShapeError where a tensor is not float32 or does not fit; OptionError for the epsilon;
 *   StateError for a negative variance; UnsupportedError on a backend that keeps its data on a
 *   graphics processor, or where a second derivative is asked for.
 */
export function batchNorm<T extends tf.Tensor>(
  x: T | tf.TensorLike,
  mean: tf.Tensor | tf.TensorLike,
  variance: tf.Tensor | tf.TensorLike,
  offset?: tf.Tensor | tf.TensorLike | null,
  scale?: tf.Tensor | tf.TensorLike | null,
  varianceEpsilon?: number,
): T {
  requireHostBackend("batchNorm");
  return tf.tidy(() => {
    const epsilon = epsilonOf("varianceEpsilon", varianceEpsilon, 1e-3);
    const input = tensorOf("x", x) as T;
    const means = tensorOf("mean", mean);
    requireShape("mean", means, means.rank === 1 ? input.shape.slice(-1) : input.shape);
    const variances = tensorOf("variance", variance);
    requireShape("variance", variances, means.shape);
    const like = (name: string, value: typeof offset): tf.Tensor | null => {
      if (value === undefined || value === null) return null;
      const tensor = tensorOf(name, value);
      requireShape(name, tensor, means.shape);
      return tensor;
    };
    const parameters = {
      mean: means,
      variance: variances,
      gamma: like("scale", scale),
      beta: like("offset", offset),
    };
    if (input.size === 0) return tf.clone(input);

    // A mean for every value: as many channels, one row.
    const layer = new BatchNorm(means.size, { epsilon });
    layer.runningMean.set(valuesOf(means));
    layer.runningVariance.set(valuesOf(variances));
    if (parameters.gamma) layer.gamma?.set(valuesOf(parameters.gamma));
    if (parameters.beta) layer.beta?.set(valuesOf(parameters.beta));
    return normalize(layer, input, {}, parameters, {});
  });
}

/** The tensors that receive gradients beside x: parameters of a layer, statistics as inputs. */
interface Inputs {
  readonly gamma: tf.Tensor | null;
  readonly beta: tf.Tensor | null;
  readonly mean?: tf.Tensor;
  readonly variance?: tf.Tensor;
}

/**
 * The differentiable operation: y from x and what the layer holds, which has the values of `inputs`.
 */
function normalize<T extends tf.Tensor>(
  layer: BatchNorm,
  x: T,
  view: { shape?: number[] },
  inputs: Inputs,
  { training = false, updateRunning = true, pool }: ApplyOptions,
): T {
  const statistics = !training
    ? "running"
    : pool
      ? pool.moments(layer.moments(valuesOf(x), view))
      : "batch";
  const taped = tf.engine().isTapeOn();
  const before = layer.lastBatch;
  const y = filled<T>(x.shape, (place) =>
    training || taped
      ? layer.train(valuesOf(x), { ...view, ...place, statistics, updateRunning })
      : layer.infer(valuesOf(x), { ...view, ...place }),
  );
  if (!training && !taped) return y;
  const batch = layer.lastBatch as Batch;
  const kept = batch !== before; // not inside a calibrate
  if (kept) forgetInput(batch);
  if (!taped) return y;

  // Another use may follow before the gradient of this one is taken, with another gamma.
  const gammaThen = layer.gamma?.slice() ?? null;
  const others = (["gamma", "beta", "mean", "variance"] as const).filter((key) => inputs[key]);
  const all = [x, ...others.map((key) => inputs[key] as tf.Tensor)];

  const gradient = (dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor[] => {
    if (!kept) {
      throw new StateError(
        "apply: expected gradients outside calibrate, whose training calls keep no batch, got one inside",
      );
    }
    // Views of the memory of tfjs are asked for anew wherever it may have grown.
    const now = () => ({ batch, x: valuesOf(saved[0] as tf.Tensor) });
    const sums = training ? pool?.sums(layer.backwardSums(valuesOf(dy), now())) : undefined;
    let gradients: Gradients | undefined;
    const dx = filled(x.shape, ({ out }) => {
      const options = { ...now(), ...(sums && { sums }), ...(out && { out: { dx: out } }) };
      gradients = withGamma(layer, gammaThen, () => layer.backward(valuesOf(dy), options));
      return gradients.dx;
    });
    const tensors = others.map((key) => {
      const values = gradientOf(key, gradients as Gradients, batch, gammaThen, layer.epsilon);
      return tf.tensor(values, (inputs[key] as tf.Tensor).shape);
    });
    return [dx, ...tensors].map((value) => firstDerivative(value, [dy, ...all]));
  };
  const operation = tf.customGrad((...given) => {
    (given[given.length - 1] as unknown as (tensors: tf.Tensor[]) => void)([x]);
    return { value: y, gradFunc: gradient };
  });
  return operation(...all) as T;
}

/**
 * The gradient of a parameter, or of a statistic that is an input: with r = 1/√(σ² + ε),
 * ∂/∂μ = −γ·r·Σdy and ∂/∂σ² = −½·γ·r³·Σdy·(x − μ); dbeta is Σdy, dgamma r·Σdy·(x − μ). Where
 * σ² + ε is 0, so are both, as dx is.
 */
function gradientOf(
  key: keyof Inputs,
  { dgamma, dbeta }: Gradients,
  { variance }: Batch,
  gamma: Float32Array | null,
  epsilon: number,
): Float32Array {
  if (key === "gamma") return dgamma as Float32Array;
  if (key === "beta") return dbeta as Float32Array;
  const sums = (key === "mean" ? dbeta : dgamma) as Float32Array;
  return sums.map((sum, c) => {
    const square = variance[c]! + epsilon;
    if (square === 0) return 0;
    return (-(gamma?.[c] ?? 1) * sum) / (key === "mean" ? Math.sqrt(square) : 2 * square);
  });
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

/** True if both are the same in float32, bit for bit. A loop: `every` took a third of a small step. */
function same(a: Float32Array | Float64Array, b: Float32Array): boolean {
  for (let i = 0; i < b.length; i++) {
    if (!Object.is(Math.fround(a[i]!), b[i])) return false;
  }
  return true;
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
  checkKeys("options", options, Object.keys(types));
  for (const [key, value] of Object.entries(options)) {
    const type = types[key]!;
    if (value === undefined || typeof value === type) continue;
    throw new OptionError(
      `${key}: expected ${type === "object" ? "an" : "a"} ${type}, got ${describe(value)}`,
    );
  }
}

function requirePool(pool: Pool | null | undefined): void {
  if (!pool || (typeof pool.moments === "function" && typeof pool.sums === "function")) return;
  throw new OptionError(`pool: expected functions moments and sums, got ${describe(pool)}`);
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

function requireFloatTensor(name: string, x: tf.Tensor): void {
  if (!(x instanceof tf.Tensor)) {
    throw new ShapeError(`${name}: expected a tf.Tensor, got ${describe(x)}`);
  }
  if (x.dtype !== "float32") {
    throw new ShapeError(`${name}: expected a tensor of float32, got ${x.dtype}`);
  }
}

function requireShape(name: string, { shape }: tf.Tensor, expected: readonly number[]): void {
  if (tf.util.arraysEqual(shape, [...expected])) return;
  throw new ShapeError(`${name}: expected shape ${show([...expected])}, got ${show(shape)}`);
}

function requireVariables(variables: TfBatchNormVariables, layer: BatchNorm): void {
  const known = ["gamma", "beta", "movingMean", "movingVariance"];
  for (const [key, value] of Object.entries(variables)) {
    const name = `variables.${key}`;
    if (!known.includes(key)) {
      throw new OptionError(`${name}: expected a variable among ${known.join(", ")}, got "${key}"`);
    }
    if (value === undefined) continue;
    if (!(value instanceof tf.Variable)) {
      throw new OptionError(`${name}: expected a tf.Variable, got ${describe(value)}`);
    }
    if (layer[key as "gamma" | "beta"] === null) {
      throw new OptionError(`${name}: expected none, since ${key} is left out, got a variable`);
    }
    requireFloatTensor(name, value);
    requireShape(name, value, [layer.channels]);
  }
}

/** A tensor, or one of the numbers in a nested array. */
function tensorOf(name: string, value: unknown): tf.Tensor {
  const isArray = Array.isArray(value) || ArrayBuffer.isView(value);
  const tensor = isArray ? tensorFrom(name, value as tf.TensorLike) : (value as tf.Tensor);
  requireFloatTensor(name, tensor);
  return tensor;
}

function tensorFrom(name: string, values: tf.TensorLike): tf.Tensor {
  try {
    return tf.tensor(values);
  } catch (cause) {
    throw new ShapeError(`${name}: expected what tf.tensor takes, got ${cause}`, { cause });
  }
}
