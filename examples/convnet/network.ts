/**
 * A small convolutional network for the digits, after LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998) with batch
 * normalization: twice a convolution, batch norm with ReLU, and a pool; then a dense layer. TensorFlow.js computes
 * all of it but the batch norm, which is that of this package or, to compare, TensorFlow.js' own layer.
 */

import * as tf from "@tensorflow/tfjs-core";
import { layers } from "@tensorflow/tfjs-layers";
import { BatchNorm } from "batchnorm-wasm";
import { TfBatchNorm } from "batchnorm-wasm/tfjs";
import { CLASSES, type Digits, labelsOf, pixels } from "../mnist/digits.js";
import type { Random } from "../mnist/random.js";
import { SIZE } from "./sizes.js";

/** Channels after each of the two convolutions. */
export const CHANNELS = [8, 16] as const;
/** Height and width of a filter. */
const FILTER = 3;
/** Numbers that go into the dense layer: both pools halve height and width. */
const FEATURES = (SIZE / 4) ** 2 * CHANNELS[1];
/** The same for both kinds of layer, where each has a default of its own. */
const SETTINGS = { epsilon: 1e-3, decay: 0.9 } as const;

/** Whose batch norm it is: `"ours"`, or the layer of TensorFlow.js. */
export type Whose = "ours" | "tfjs";

/** Batch norm and ReLU of [N, height, width, C]. */
export interface Norm {
  apply(x: tf.Tensor4D, training: boolean): tf.Tensor4D;
  /** gamma and beta. */
  readonly variables: tf.Variable[];
  /** The running average of the means, [C]. */
  readonly runningMean: ArrayLike<number>;
  dispose(): void;
}

/** One differentiable operation does both, and has one gradient. */
export class OurNorm implements Norm {
  readonly norm: TfBatchNorm;

  constructor(channels: number) {
    this.norm = new TfBatchNorm(
      new BatchNorm(channels, { ...SETTINGS, layout: "NHWC", activation: "relu" }),
    );
  }
  apply(x: tf.Tensor4D, training: boolean): tf.Tensor4D {
    return this.norm.apply(x, { training });
  }
  get variables(): tf.Variable[] {
    return this.norm.trainableVariables;
  }
  get runningMean(): ArrayLike<number> {
    return this.norm.layer.runningMean;
  }
  dispose(): void {
    this.norm.dispose();
  }
}

/** `tf.layers.batchNormalization`, then `tf.relu`. */
class TfjsNorm implements Norm {
  readonly #layer = layers.batchNormalization({
    epsilon: SETTINGS.epsilon,
    momentum: SETTINGS.decay,
  });

  constructor(channels: number) {
    this.#layer.build([null, null, null, channels]);
  }
  apply(x: tf.Tensor4D, training: boolean): tf.Tensor4D {
    return tf.relu(this.#layer.apply(x, { training }) as tf.Tensor4D);
  }
  get variables(): tf.Variable[] {
    return this.#layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
  }
  get runningMean(): ArrayLike<number> {
    const [mean] = this.#layer.nonTrainableWeights;
    return mean.read().dataSync();
  }
  dispose(): void {
    for (const weight of this.#layer.weights) weight.dispose();
  }
}

/** Weights of both convolutions [3, 3, in, out] and of the dense layer [in, out]. */
export type Weights = readonly [Float32Array, Float32Array, Float32Array];
const SHAPES = [
  [FILTER, FILTER, 1, CHANNELS[0]],
  [FILTER, FILTER, CHANNELS[0], CHANNELS[1]],
  [FEATURES, CLASSES],
] as const;

/** Normal deviates with variance 2/(inputs of a unit) (He, Zhang, Ren & Sun 2015, eq. 10). */
export function initialWeights(random: Random): Weights {
  return SHAPES.map((shape) => {
    const size = shape.reduce((product, n) => product * n, 1);
    const deviation = Math.sqrt((2 * shape[shape.length - 1]) / size);
    return Float32Array.from({ length: size }, () => deviation * random.normal());
  }) as unknown as Weights;
}

/** The network while it trains. */
export class Network {
  readonly filters: readonly tf.Variable<tf.Rank.R4>[];
  readonly norms: readonly Norm[];
  readonly weight: tf.Variable<tf.Rank.R2>;
  readonly bias: tf.Variable<tf.Rank.R1>;

  constructor([first, second, dense]: Weights, whose: Whose) {
    this.filters = [first, second].map((values, i) =>
      tf.tidy(() =>
        tf.variable(tf.tensor4d(values.slice(), SHAPES[i] as [number, number, number, number])),
      ),
    );
    this.norms = CHANNELS.map((n) => (whose === "ours" ? new OurNorm(n) : new TfjsNorm(n)));
    this.weight = tf.tidy(() =>
      tf.variable(tf.tensor2d(dense.slice(), SHAPES[2] as [number, number])),
    );
    this.bias = tf.tidy(() => tf.variable(tf.zeros([CLASSES])));
  }

  /** What the optimizer trains. */
  get variables(): tf.Variable[] {
    return [
      ...this.filters,
      ...this.norms.flatMap(({ variables }) => variables),
      this.weight,
      this.bias,
    ];
  }

  /** Scores of the ten classes [N, 10], before the softmax, of digits [N, 28, 28, 1]. */
  logits(x: tf.Tensor4D, training: boolean): tf.Tensor2D {
    let h = x;
    for (const [i, filter] of this.filters.entries()) {
      h = tf.maxPool(this.norms[i].apply(tf.conv2d(h, filter, 1, "same"), training), 2, 2, "same");
    }
    const features = tf.reshape(h, [x.shape[0], FEATURES]);
    return tf.add(tf.matMul(features, this.weight), this.bias);
  }

  /** One step of descent on a mini-batch; the loss before it. */
  descend(optimizer: tf.Optimizer, digits: Digits, indices: Uint32Array): number {
    return tf.tidy(() => {
      const x = images(digits, indices);
      const labels = tf.oneHot(labelsOf(digits, indices), CLASSES);
      const cost = () => tf.losses.softmaxCrossEntropy(labels, this.logits(x, true)) as tf.Scalar;
      return (optimizer.minimize(cost, true, this.variables) as tf.Scalar).dataSync()[0];
    });
  }

  /** Scores of the classes by running averages, row after row. */
  predict(digits: Digits, indices: Uint32Array): Float32Array {
    return tf.tidy(() => this.logits(images(digits, indices), false).dataSync<"float32">());
  }

  dispose(): void {
    for (const one of [...this.filters, ...this.norms, this.weight, this.bias]) one.dispose();
  }
}

/** Digits as the network takes them, [indices.length, 28, 28, 1]. */
function images(digits: Digits, indices: Uint32Array): tf.Tensor4D {
  return tf.tensor4d(pixels(digits, indices), [indices.length, SIZE, SIZE, 1]);
}
