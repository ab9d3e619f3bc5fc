// A layer as one differentiable operation of tfjs (`tf.customGrad`). This file carries data and gradients between
// the two; the layer computes them.

import * as tf from "@tensorflow/tfjs-core";
import { StateError, UnsupportedError } from "../errors.js";
import type { Batch } from "../layer/batch.js";
import { BatchNorm } from "../layer/batch-norm.js";
import { epsilonOf } from "../layer/options.js";
import type { GradientSums, GradientSumsLike, Moments, MomentsLike } from "../values/moments.js";
import type { Gradients } from "../values/terms.js";
import { requireHostBackend, requireShape, tensorOf } from "./check.js";
import { filled, same, valuesOf } from "./data.js";

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
export function normalize<T extends tf.Tensor>(
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
  if (kept) batch.forgetInput();
  if (!taped) return y;

  // Another use may follow before the gradient of this one is taken, with another gamma.
  const gammaThen = layer.gamma?.slice() ?? null;
  const others = (["gamma", "beta", "mean", "variance"] as const).filter((key) => inputs[key]);
  const all = [x, ...others.map((key) => inputs[key] as tf.Tensor)];

  const gradient = (dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor[] => {
    if (!kept) {
      throw new StateError(
        "apply",
        "gradients outside calibrate, whose training calls keep no batch",
        "one inside",
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
      "apply",
      "first derivatives only",
      "a gradient of a gradient. Where second derivatives are needed, write the formula in tfjs operations (tf.moments)",
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
