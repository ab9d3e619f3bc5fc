/**
 * The trained network as one serves it: the batch norms are frozen and folded into the convolutions before them, so
 * that there are two convolutions with ReLU, two pools and a dense layer. It is plain numbers, and can be saved as
 * JSON.
 */

import * as tf from "@tensorflow/tfjs-core";
import { fold } from "batchnorm-wasm";
import { PIXELS } from "../mnist/digits.js";
import type { Network, OurNorm } from "./network.js";
import { SIZE } from "./sizes.js";

/** A layer as numbers: the weight in `shape`, row after row, and the bias, one for each output. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/** Two convolutions and a dense layer. */
export interface Folded {
  readonly layers: readonly Numbers[];
  /** The largest difference that `fold` found between a convolution with its norm and the folded one. */
  readonly maxDifference: number;
}

/** Freezes the norms of a network of ours and folds them. The network is not changed. */
export function foldNetwork({ filters, norms, weight, bias }: Network): Folded {
  let maxDifference = 0;
  const convolutions = filters.map((filter, i) => {
    const { norm } = norms[i] as OurNorm;
    const folded = fold(norm.layer.freeze(), {
      weight: filter.dataSync<"float32">(),
      shape: filter.shape,
      kind: "conv",
      order: "HWIO",
      into: "before",
    });
    if (folded.activation !== "relu") throw new Error("expected a ReLU behind each convolution.");
    maxDifference = Math.max(maxDifference, folded.maxDifference);
    return { shape: filter.shape, weight: folded.weight, bias: folded.bias };
  });
  const dense = {
    shape: weight.shape,
    weight: weight.dataSync<"float32">(),
    bias: bias.dataSync<"float32">(),
  };
  return { layers: [...convolutions, dense], maxDifference };
}

/** Answers one digit at a time. */
export class Served {
  readonly #weights: readonly tf.Tensor[];
  readonly #biases: readonly tf.Tensor1D[];

  constructor({ layers }: Folded) {
    this.#weights = layers.map(({ weight, shape }) => tf.tensor(weight, [...shape]));
    this.#biases = layers.map(({ bias }) => tf.tensor1d(bias));
  }

  /** Scores of the ten classes, of one digit: `pixels` [784], 0 … 1. */
  scores(pixels: Float32Array): Float32Array {
    if (pixels.length !== PIXELS)
      throw new Error(`expected ${PIXELS} pixels, got ${pixels.length}.`);
    return tf.tidy(() => {
      let h = tf.tensor4d(pixels, [1, SIZE, SIZE, 1]);
      for (const i of [0, 1]) {
        const filter = this.#weights[i] as tf.Tensor4D;
        const bias = this.#biases[i];
        h = tf.maxPool(
          tf.fused.conv2d({ x: h, filter, strides: 1, pad: "same", bias, activation: "relu" }),
          2,
          2,
          "same",
        );
      }
      const product = tf.matMul(tf.reshape(h, [1, -1]), this.#weights[2] as tf.Tensor2D);
      return tf.add(product, this.#biases[2]).dataSync<"float32">();
    });
  }

  dispose(): void {
    for (const tensor of [...this.#weights, ...this.#biases]) tensor.dispose();
  }
}
