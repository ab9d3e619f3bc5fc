/** The gradients that the example registers for the wasm backend, against those of TensorFlow.js' cpu backend. */

import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-layers"; // registers the gradients of all operations
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, describe, expect, test } from "vitest";
import { startBackend } from "../backend.js";

type Shape = [number, number, number, number];
type Pad = "same" | "valid" | number;
type Values = Float32Array;

beforeAll(startBackend);

/** Values between -2 and 2 that repeat nowhere. */
const values = (shape: number[], step: number): Values =>
  Float32Array.from(
    { length: tf.util.sizeFromShape(shape) },
    (_, i) => 2 * Math.sin(step * (i + 1)),
  );
const absolute = (v: Values): Values => v.map(Math.abs);

/** dx and dW of a convolution on a backend. */
async function gradients(
  backend: string,
  [x, w, dy]: readonly [Values, Values, Values],
  [input, filter, output]: readonly [Shape, Shape, Shape],
  strides: number | [number, number],
  pad: Pad,
): Promise<Values[]> {
  await tf.setBackend(backend);
  return tf.tidy(() => {
    const convolution = (...[a, b]: tf.Tensor[]) =>
      tf.conv2d(a as tf.Tensor4D, b as tf.Tensor4D, strides, pad);
    const inputs = [tf.tensor4d(x, input), tf.tensor4d(w, filter)];
    return tf
      .grads(convolution)(inputs, tf.tensor4d(dy, output))
      .map((g) => g.dataSync<"float32">());
  });
}

describe("convolution", () => {
  const cases: [input: Shape, filter: Shape, strides: number | [number, number], pad: Pad][] = [
    [[64, 28, 28, 1], [3, 3, 1, 8], 1, "same"], // those of the network
    [[16, 14, 14, 8], [3, 3, 8, 16], 1, "same"],
    [[3, 7, 9, 2], [3, 3, 2, 5], 1, "valid"],
    [[3, 8, 9, 2], [3, 3, 2, 3], 2, "same"],
    [[2, 9, 8, 3], [5, 3, 3, 4], [2, 3], "valid"],
    [[2, 9, 8, 3], [2, 4, 3, 4], [3, 1], "same"],
    [[2, 6, 6, 1], [3, 3, 1, 2], 2, 1],
    [[2, 5, 5, 2], [2, 2, 2, 2], 1, "same"], // more padding behind than in front
    [[2, 5, 5, 2], [1, 1, 2, 2], 1, "same"],
    [[2, 3, 3, 2], [7, 7, 2, 2], 1, "same"], // a filter larger than the image
    [[2, 3, 3, 2], [2, 2, 2, 2], 1, 3], // outputs that see nothing but padding
    [[300, 14, 14, 8], [3, 3, 8, 1], 2, "same"], // patches in several parts
  ];

  test.each(cases)("%j, filter %j, strides %j, padding %j", async (input, filter, strides, pad) => {
    const { outShape } = tf.backend_util.computeConv2DInfo(input, filter, strides, 1, pad);
    const shapes = [input, filter, outShape] as const;
    const data = [values(input, 1.37), values(filter, 0.77), values(outShape, 0.3)] as const;
    const [dx, dw] = await gradients("wasm", data, shapes, strides, pad);
    const [wantedDx, wantedDw] = await gradients("cpu", data, shapes, strides, pad);
    // Of absolute values the same sums are the sums of the terms' sizes, to which rounding is in proportion.
    const sizes = [absolute(data[0]), absolute(data[1]), absolute(data[2])] as const;
    const [sizeDx, sizeDw] = await gradients("cpu", sizes, shapes, strides, pad);
    // Rounding of n terms, added up one after the other in float32, grows with the root of n in practice.
    const dwTerms = outShape[0] * outShape[1] * outShape[2];
    expect(worst(dw, wantedDw, sizeDw)).toBeLessThan((2 + Math.sqrt(dwTerms)) * 2 ** -24);
    const dxTerms = filter[0] * filter[1] * filter[3];
    expect(worst(dx, wantedDx, sizeDx)).toBeLessThan((2 + Math.sqrt(dxTerms)) * 2 ** -24);
  });
});

/** The largest difference in proportion to `size`. */
function worst(got: Values, wanted: Values, size: Values): number {
  expect(got.length).toBe(wanted.length);
  return got.reduce((most, v, i) => Math.max(most, Math.abs(v - wanted[i]) / (size[i] || 1)), 0);
}

describe("max pooling", () => {
  type Case = [
    shape: Shape,
    size: number | [number, number],
    strides: number | [number, number],
    pad: "same" | "valid",
  ];
  const cases: Case[] = [
    [[64, 28, 28, 8], 2, 2, "same"],
    [[2, 7, 5, 3], 2, 2, "same"],
    [[2, 7, 5, 3], 2, 2, "valid"],
    [[2, 7, 8, 3], 3, 1, "same"], // windows that overlap
    [[2, 7, 8, 3], [3, 2], [1, 2], "valid"],
  ];

  test.each(cases)("%j, window %j, strides %j, padding %j", async (shape, size, strides, pad) => {
    const gradient = async (backend: string): Promise<Values> => {
      await tf.setBackend(backend);
      return tf.tidy(() => {
        // After a ReLU many values are equal: then the first one in the window gets the gradient.
        const x = tf.relu(tf.tensor4d(values(shape, 1.37), shape));
        const pool = (t: tf.Tensor) => tf.maxPool(t as tf.Tensor4D, size, strides, pad);
        const y = pool(x);
        const dy = tf.tensor(values(y.shape, 0.3), y.shape);
        return tf.grad(pool)(x, dy).dataSync<"float32">();
      });
    };
    const [got, wanted] = [await gradient("wasm"), await gradient("cpu")];
    const difference = got.reduce((most, v, i) => Math.max(most, Math.abs(v - wanted[i])), 0);
    expect(wanted.some((v) => v !== 0)).toBe(true);
    expect(difference).toBeLessThan(9 * 2 * 2 ** -24); // a sum of up to nine values below 2
  });
});
