/**
 * The layers as a network that trains: TensorFlow.js does the dense algebra and the gradients,
 * `batchnorm-wasm` the batch normalization.
 */

import * as tf from "@tensorflow/tfjs";
import { TfBatchNorm } from "batchnorm-wasm/tfjs";
import type { Layer } from "./layers.js";

/** How one layer is normalized, [m, channels] to [m, channels]. `index` counts from 0. */
export type Normalization = (norm: TfBatchNorm, x: tf.Tensor2D, index: number) => tf.Tensor2D;

/** Training: by the mini-batch, and the running averages move. */
export const training: Normalization = (norm, x) => norm.apply(x, { training: true });
/** Test time: by the running averages. */
export const runningAverages: Normalization = (norm, x) => norm.apply(x, { training: false });
/** By the batch at hand, as in training, but nothing moves: what test time should not do. */
export const batchAtHand: Normalization = (norm, x) =>
  norm.apply(x, { training: true, updateRunning: false });
/** What a value normalized by itself alone would be: it minus itself, plus beta. */
export const betaAlone: Normalization = (norm, x) =>
  tf.broadcastTo(tf.tensor1d(norm.layer.beta as Float32Array), x.shape) as tf.Tensor2D;

interface Variables {
  readonly weight: tf.Variable<tf.Rank.R2>;
  readonly bias: tf.Variable<tf.Rank.R1> | null;
  readonly norm: TfBatchNorm | null;
}

export class Network {
  readonly #layers: readonly Variables[];

  /** @param layers their numbers are copied into tf.Variables; a `norm` is used as it is. */
  constructor(layers: readonly Layer[]) {
    this.#layers = layers.map(({ inputs, outputs, weight, bias, norm }) => ({
      weight: tf.tidy(() => tf.variable(tf.tensor2d(weight.slice(), [inputs, outputs]))),
      bias: bias && tf.tidy(() => tf.variable(tf.tensor1d(bias.slice()))),
      norm: norm && new TfBatchNorm(norm),
    }));
  }

  /** The batch-norm layers, first to last. */
  get norms(): TfBatchNorm[] {
    return this.#layers.flatMap(({ norm }) => norm ?? []);
  }

  /** What the optimizer trains. */
  get variables(): tf.Variable[] {
    return this.#layers.flatMap(({ weight, bias, norm }) => [
      weight,
      ...(bias ? [bias] : []),
      ...(norm?.trainableVariables ?? []),
    ]);
  }

  /** The numbers as they are now; the norms are the network's own. */
  get layers(): Layer[] {
    return this.#layers.map(({ weight, bias, norm }) => ({
      inputs: weight.shape[0],
      outputs: weight.shape[1],
      weight: weight.dataSync<"float32">(),
      bias: bias?.dataSync<"float32">() ?? null,
      norm: norm?.layer ?? null,
    }));
  }

  /**
   * Scores of the ten classes, [m, 10], before the softmax.
   *
   * @param x [m, 784]
   * @param watch is shown what goes into the sigmoids of each hidden layer, [m, 100]
   */
  logits(
    x: tf.Tensor2D,
    normalize: Normalization,
    watch?: (x: tf.Tensor2D, index: number) => void,
  ): tf.Tensor2D {
    return this.#layers.reduce((h, { weight, bias, norm }, index) => {
      const product = multiply(h, weight);
      const shifted = bias ? tf.add<tf.Tensor2D>(product, bias) : product;
      if (index === this.#layers.length - 1) return shifted;
      const input = norm ? normalize(norm, shifted, index) : shifted;
      watch?.(input, index);
      return tf.sigmoid(input);
    }, x);
  }

  /** Cross-entropy, averaged over the mini-batch. `labels`: [m, 10], one-hot. */
  loss(x: tf.Tensor2D, labels: tf.Tensor2D): tf.Scalar {
    return tf.losses.softmaxCrossEntropy(labels, this.logits(x, training));
  }

  dispose(): void {
    for (const { weight, bias, norm } of this.#layers) {
      weight.dispose();
      bias?.dispose();
      norm?.dispose();
    }
  }
}

/**
 * The matrix product with its gradient written out: tfjs' wasm backend has a fast kernel for a
 * product of plain matrices, and a slow one for the transposed operands that tf.matMul's own
 * gradient uses (one training step of this network: 9.5 ms with that, 4.7 ms with this).
 */
const multiply = tf.customGrad((...inputs) => {
  const [a, b, save] = inputs as [tf.Tensor2D, tf.Tensor2D, tf.GradSaveFunc];
  save([a, b]);
  const gradFunc = (dy: tf.Tensor2D, saved: tf.Tensor[]) => {
    const [a, b] = saved as [tf.Tensor2D, tf.Tensor2D];
    return [tf.matMul(dy, tf.transpose(b)), tf.matMul(tf.transpose(a), dy)];
  };
  return { value: tf.matMul(a, b), gradFunc };
}) as (a: tf.Tensor2D, b: tf.Tensor2D) => tf.Tensor2D;
