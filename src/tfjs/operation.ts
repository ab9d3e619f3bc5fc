// A layer as one differentiable operation of tfjs (`tf.customGrad`). The layer computes; this file passes data and
// gradients between it and tfjs.

import * as tf from "@tensorflow/tfjs-core";
import { StateError, UnsupportedError } from "../errors.js";
import type { Batch } from "../layer/batch.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { copy, copyOf } from "../values/arrays.js";
import type { GradientSums, GradientSumsLike, Moments, MomentsLike } from "../values/moments.js";
import type { Gradients } from "../values/terms.js";
import { filled, same, valuesOf } from "./data.js";

/** How one call of {@link TfBatchNorm.apply} normalizes. */
export interface ApplyOptions {
  /**
   * `true`: normalize by the mean and variance of this mini-batch, and move the running averages.
   * `false`: normalize by the running averages, which stay as they are. There is no default, since a
   * training step that lacks it would train nothing, and say nothing.
   */
  training: boolean;
  /** `false`: do not move the running averages in this training call. Default `true`. */
  updateRunning?: boolean;
  /**
   * A residual, float32 in the shape of `x`: it is added before the activation of the layer, in the same pass, and
   * gets its gradient.
   */
  add?: tf.Tensor;
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

/** What a call is asked for, with what only {@link BatchNormalization} of tfjs-layers has to say. */
export interface Asked extends ApplyOptions {
  /**
   * In training, the positions that statistics are taken of (nonzero), where the channels are last. As in Keras, all
   * positions are normalized by these statistics, and all count in the gradient.
   */
  mask?: Uint8Array | null;
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
  { training, updateRunning = true, pool, mask, add }: Asked,
): T {
  const statistics = !training
    ? "running"
    : pool
      ? pool.moments(layer.moments(valuesOf(x), view))
      : mask
        ? layer.moments(valuesOf(x), { ...view, mask })
        : "batch";
  const taped = tf.engine().isTapeOn();
  const before = layer.lastBatch;
  const y = filled<T>(x.shape, (place) => {
    const given = { ...view, ...place, ...(add && { add: valuesOf(add) }) };
    return training || taped
      ? layer.train(valuesOf(x), { ...given, statistics, updateRunning })
      : layer.infer(valuesOf(x), given);
  });
  if (!training && !taped) return y;
  const batch = layer.lastBatch as Batch;
  const kept = batch !== before; // False inside a `calibrate`, where `train` leaves `lastBatch` alone.
  if (kept) batch.forgetInput();
  if (!taped) return y;

  // Before the gradient of this call is taken, the layer may be called again, with another gamma. Where the activation
  // limits depends on beta too.
  const gammaThen = layer.gamma && copyOf(layer.gamma);
  const betaThen = layer.activation && layer.beta && copyOf(layer.beta);
  const others = (["gamma", "beta", "mean", "variance"] as const).filter((key) => inputs[key]);
  const large = add ? [x, add] : [x];
  const all = [...large, ...others.map((key) => inputs[key] as tf.Tensor)];

  const gradient = (dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor[] => {
    if (!kept) {
      throw new StateError(
        "apply",
        "gradients outside calibrate, whose training calls keep no batch",
        "one inside",
      );
    }
    // The memory of tfjs may have grown since, which detaches views of it; so the view is made anew.
    const now = () => ({
      batch,
      x: valuesOf(saved[0] as tf.Tensor),
      ...(add && { add: valuesOf(saved[1] as tf.Tensor) }),
    });
    const then = <R>(f: () => R): R =>
      withValues(layer.gamma, gammaThen, () => withValues(layer.beta, betaThen, f));
    const own = training && (pool || mask) && then(() => layer.backwardSums(valuesOf(dy), now()));
    // What a mask leaves out has a part in these sums, but none in the statistics.
    const sums = own && (pool ? pool.sums(own) : { ...own, count: batch.count });
    const passes = add && layer.activation === null;
    let gradients: Gradients | undefined;
    const dx = filled(x.shape, ({ out }) => {
      const given = valuesOf(dy);
      // Without an activation the gradient of a residual is dy as it is, so that nothing is changed there.
      const into = { ...(out && { dx: out }), ...(passes && { dadd: given }) };
      const options = { ...now(), ...(sums && { sums }), out: into };
      gradients = then(() => layer.backward(given, options));
      if (training && mask) leftOut(gradients.dx, given, mask, batch, gammaThen, layer);
      return gradients.dx;
    });
    const tensors = others.map((key) => {
      const values = gradientOf(key, gradients as Gradients, batch, gammaThen, layer.epsilon);
      return tf.tensor(values, (inputs[key] as tf.Tensor).shape);
    });
    const { dadd } = gradients as unknown as Gradients;
    const residual = add ? [passes ? tf.clone(dy) : tf.tensor(dadd!, x.shape)] : [];
    return [dx, ...residual, ...tensors].map((value) => firstDerivative(value, [dy, ...all]));
  };
  const operation = tf.customGrad((...given) => {
    (given[given.length - 1] as unknown as (tensors: tf.Tensor[]) => void)(large);
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

/** Positions that a mask leaves out move no statistics: there dx = γ·dy/√(σ² + ε). */
function leftOut(
  dx: Float32Array,
  dy: Float32Array,
  mask: Uint8Array,
  { variance }: Batch,
  gamma: Float32Array | null,
  { channels, epsilon }: BatchNorm,
): void {
  for (let c = 0; c < channels; c++) {
    const scale = (gamma?.[c] ?? 1) / Math.sqrt(variance[c]! + epsilon);
    for (let p = 0; p < mask.length; p++) {
      if (mask[p] === 0) dx[p * channels + c] = scale * dy[p * channels + c]!;
    }
  }
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

/** Gives a parameter of the layer earlier values while `f` runs. */
function withValues<R>(now: Float32Array | null, then: Float32Array | null, f: () => R): R {
  if (now === null || then === null || same(now, then)) return f();
  const kept = copyOf(now);
  copy(now, then);
  try {
    return f();
  } finally {
    copy(now, kept);
  }
}
