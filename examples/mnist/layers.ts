/**
 * The network of Ioffe & Szegedy 2015, section 4.1, as plain numbers: 784 pixels, three layers of
 * 100 sigmoids, ten classes, with batch normalization before each sigmoid or without. No
 * TensorFlow.js in here, nor in saved.ts: whoever only wants to use a trained network needs none.
 */

import { BatchNorm, type BatchNormOptions } from "batchnorm-wasm";
import type { Random } from "./random.js";

/** Width of each layer, input first. */
export const SIZES = [784, 100, 100, 100, 10] as const;
/** How many layers end in sigmoids. */
export const HIDDEN = SIZES.length - 2;

/** x · weight + bias, normalized where there is a norm; then, but for the last layer, sigmoids. */
export interface Layer {
  readonly inputs: number;
  readonly outputs: number;
  /** [inputs, outputs], row-major. */
  readonly weight: Float32Array;
  /** [outputs]; `null` where batch norm follows, whose beta has its place (paper, section 3.2). */
  readonly bias: Float32Array | null;
  readonly norm: BatchNorm | null;
}

/** Gaussian weights of every layer; `deviation` is their standard deviation. */
export function initialWeights(random: Random, deviation: number): Float32Array[] {
  return SIZES.slice(1).map((outputs, i) =>
    Float32Array.from({ length: SIZES[i] * outputs }, () => deviation * random.normal()),
  );
}

/** Untrained layers with copies of these weights; `options` of their batch norm, or `null`. */
export function untrained(
  weights: readonly Float32Array[],
  options: BatchNormOptions | null,
): Layer[] {
  return SIZES.slice(1).map((outputs, i) => {
    const norm = options !== null && i < HIDDEN ? new BatchNorm(outputs, options) : null;
    const bias = norm === null ? new Float32Array(outputs) : null;
    return { inputs: SIZES[i], outputs, weight: weights[i].slice(), bias, norm };
  });
}
