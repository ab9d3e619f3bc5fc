// `tf.batchNorm` on the kernels of this package: normalization by given statistics, which are inputs.

import * as tf from "@tensorflow/tfjs-core";
import { ShapeError } from "../errors.js";
import { BatchNorm } from "../layer/batch-norm.js";
import { copy } from "../values/arrays.js";
import { epsilonOf } from "../values/check.js";
import { show } from "../values/layout.js";
import { broadcasts, requireHostBackend, requireVariances, tensorOf } from "./check.js";
import { valuesOf } from "./data.js";
import { normalize } from "./operation.js";

/**
 * Batch normalization by given statistics: `tf.batchNorm`, with its arguments in its order, on the
 * kernels of this package.
 *
 * y = scale · (x − mean) / √(variance + varianceEpsilon) + offset, differentiable with respect to all
 * five (first derivatives). Every tensor is float32, or numbers as `tf.tensor` takes them.
 *
 * ```ts
 * const y = batchNorm(x, mean, variance, offset, scale, 1e-3); // x [N, H, W, C], the others [C]
 * ```
 *
 * @param x […, C], channels last.
 * @param mean [C], or any shape that broadcasts to that of `x`: [1, 1, 1, C], a number, a mean for every value.
 *   Broadcasting is that of all other operations, [N, 1] included, where tf.batchNorm on the cpu and wasm
 *   backends repeats the values in their order.
 * @param variance [C], or as `mean`; >= 0.
 * @param offset beta, [C], or as `mean`; 0 where left out.
 * @param scale gamma, [C], or as `mean`; 1 where left out.
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
  varianceEpsilon?: number | null,
): T {
  requireHostBackend("batchNorm");
  return tf.tidy(() => {
    const epsilon = epsilonOf("varianceEpsilon", varianceEpsilon ?? undefined, 1e-3);
    const input = tensorOf("x", x) as T;
    const optional = (name: string, value: typeof offset): tf.Tensor | null =>
      value === undefined || value === null ? null : tensorOf(name, value);
    const [means, variances, beta, gamma] = together(input.shape, [
      ["mean", tensorOf("mean", mean)],
      ["variance", tensorOf("variance", variance)],
      ["offset", optional("offset", offset)],
      ["scale", optional("scale", scale)],
    ]) as [tf.Tensor, tf.Tensor, tf.Tensor | null, tf.Tensor | null];
    if (input.size === 0) return tf.clone(input);

    // With a mean for every value, every value is a channel, and x a single row of them.
    const layer = new BatchNorm(means.size, { epsilon });
    copy(layer.runningMean, valuesOf(means));
    copy(layer.runningVariance, requireVariances(valuesOf(variances)));
    if (layer.gamma && gamma) copy(layer.gamma, valuesOf(gamma));
    if (layer.beta && beta) copy(layer.beta, valuesOf(beta));
    const parameters = { mean: means, variance: variances, gamma, beta };
    return normalize(layer, input, {}, parameters, { training: false });
  });
}

/**
 * Brings parameters to one shape by operations of tfjs, which pass gradients on: a value per channel if all of them
 * can be that, else one for every value of x.
 */
function together(
  shape: readonly number[],
  named: readonly (readonly [string, tf.Tensor | null])[],
): (tf.Tensor | null)[] {
  const whole = [...(shape.length > 0 ? shape : [1])];
  const channels = whole.slice(-1);
  for (const [name, parameter] of named) {
    if (parameter === null || broadcasts(parameter.shape, whole, whole.length)) continue;
    throw new ShapeError(name, `a shape that broadcasts to ${show(whole)}`, show(parameter.shape));
  }
  const perChannel = named.every(
    ([, parameter]) => !parameter || broadcasts(parameter.shape, channels, whole.length),
  );
  return named.map(([, parameter]) => {
    if (parameter === null) return null;
    const to = perChannel ? channels : whole;
    if (tf.util.arraysEqual(parameter.shape, to)) return parameter;
    const { size } = parameter;
    const flat = perChannel ? tf.reshape(parameter, [size]) : parameter;
    return tf.util.arraysEqual(flat.shape, to) ? flat : tf.broadcastTo(flat, to);
  });
}
