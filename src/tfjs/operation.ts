// A layer as one differentiable operation of tfjs (`tf.customGrad`). The layer computes; this file passes data and
// gradients between it and tfjs.

import * as tf from "@tensorflow/tfjs-core";
import { StateError, UnsupportedError } from "../errors.js";
import type { Batch } from "../layer/batch.js";
import { BatchNorm } from "../layer/batch-norm.js";
import { copy, copyOf } from "../values/arrays.js";
import { epsilonOf } from "../values/check.js";
import type { GradientSums, GradientSumsLike, Moments, MomentsLike } from "../values/moments.js";
import type { Gradients } from "../values/terms.js";
import { requireHostBackend, requireShape, tensorOf } from "./check.js";
import { filled, same, valuesOf } from "./data.js";

/** How one call of {@link TfBatchNorm.apply} normalizes. */
export interface ApplyOptions {
  /**
   * `true`: normalize by the mean and variance of this mini-batch, and move the running averages.
   * `false` (default, as in tfjs): normalize by the running averages, which stay as they are.
   */
  training?: boolean;
  /** `false`: do not move the running averages in this training call. Default `true`. */
  updateRunning?: boolean;
  /** Needed if `x` is one worker's part of a mini-batch: how the statistics of all parts are merged. */
  pool?: Pool;
}

/**
 * Two functions with which a mini-batch that is split over workers is normalized and differentiated as a whole.
 * They are called in every worker in the same order, and each must wait until all workers have called it. The
 * gradients of gamma and beta are then those of the whole mini-batch: do not add those of the workers.
 */
export interface Pool {
  /** Is given this worker's moments, and returns those of all workers, merged. */
  moments(own: Moments): MomentsLike;
  /** Is given this worker's sums, and returns those of all workers, merged. */
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

    // With a mean for every value, every value is a channel, and x a single row of them.
    const layer = new BatchNorm(means.size, { epsilon });
    copy(layer.runningMean, valuesOf(means));
    copy(layer.runningVariance, valuesOf(variances));
    if (layer.gamma && parameters.gamma) copy(layer.gamma, valuesOf(parameters.gamma));
    if (layer.beta && parameters.beta) copy(layer.beta, valuesOf(parameters.beta));
    return normalize(layer, input, {}, parameters, {});
  });
}

/** The tensors besides x that receive gradients: parameters of a layer, and statistics if they are inputs. */
interface Inputs {
  readonly gamma: tf.Tensor | null;
  readonly beta: tf.Tensor | null;
  readonly mean?: tf.Tensor;
  readonly variance?: tf.Tensor;
}

/**
 * The differentiable operation: y from x and from what the layer holds. The layer has the values of `inputs`
 * already; tfjs is given them so that it passes gradients on to them.
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
  const kept = batch !== before; // False inside a `calibrate`, where `train` leaves `lastBatch` alone.
  if (kept) batch.forgetInput();
  if (!taped) return y;

  // Before the gradient of this call is taken, the layer may be called again, with another gamma.
  const gammaThen = layer.gamma && copyOf(layer.gamma);
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
    // The memory of tfjs may have grown since, which detaches views of it; so the view is made anew.
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
 * The gradient of a parameter, or of a statistic that is an input. With r = 1/√(σ² + ε):
 * ∂/∂μ = −γ·r·Σdy, ∂/∂σ² = −½·γ·r³·Σdy·(x − μ), ∂/∂β = Σdy and ∂/∂γ = r·Σdy·(x − μ). If σ² + ε is 0, those of
 * μ and σ² are 0, as dx is.
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
 * Makes a gradient that was computed outside tfjs into an operation that depends on `inputs` and has no
 * derivative. Otherwise tfjs would take it for a constant, and second derivatives would be wrong without an error.
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

/** Gives the layer an earlier gamma while `f` runs. */
function withGamma<R>(layer: BatchNorm, gamma: Float32Array | null, f: () => R): R {
  const now = layer.gamma;
  if (now === null || gamma === null || same(now, gamma)) return f();
  const kept = copyOf(now);
  copy(now, gamma);
  try {
    return f();
  } finally {
    copy(now, kept);
  }
}
