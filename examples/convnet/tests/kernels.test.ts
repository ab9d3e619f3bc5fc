/** The gradients that the example registers for the wasm backend, against those of TensorFlow.js' cpu backend. */

import "@tensorflow/tfjs-backend-cpu";
import * as tf from "@tensorflow/tfjs-core";
import { initializers, layers, sequential } from "@tensorflow/tfjs-layers"; // registers the gradients of all operations, too
import { batchNormalization } from "batchnorm-wasm/tfjs-layers";
import { beforeAll, describe, expect, test } from "vitest";
import { startBackend } from "../backend.js";

type Shape = [number, number, number, number];
type Pad = "same" | "valid" | number;
type Values = Float32Array;

beforeAll(async () => {
  await startBackend();
  tf.env().set("IS_TEST", true); // then tfjs checks each operation for leaks
});

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
    [[16, 28, 28, 1], [3, 3, 1, 8], 1, "same"], // those of the network
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
    [[300, 14, 14, 8], [3, 3, 8, 1], 2, "same"], // several parts
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
    [[8, 28, 28, 8], 2, 2, "same"],
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

test("a layers model with convolutions is trained by fit, as on the cpu backend", async () => {
  tf.env().set("IS_TEST", false); // it takes what tfjs' own fused convolution keeps for its gradient for a leak
  const losses = async (backend: string): Promise<number[]> => {
    await tf.setBackend(backend);
    const seeded = (seed: number) => ({ kernelInitializer: initializers.heNormal({ seed }) });
    const model = sequential({
      layers: [
        layers.conv2d({ inputShape: [9, 8, 1], filters: 4, kernelSize: 3, ...seeded(1) }),
        batchNormalization(),
        layers.reLU(),
        layers.maxPooling2d({ poolSize: 2 }),
        layers.conv2d({ filters: 3, kernelSize: 2, padding: "same", strides: 2, ...seeded(2) }),
        layers.flatten(),
        layers.dense({ units: 1, ...seeded(3) }),
      ],
    });
    model.compile({ optimizer: tf.train.sgd(0.05), loss: "meanSquaredError" });
    const x = tf.tensor4d(values([16, 9, 8, 1], 1.37), [16, 9, 8, 1]);
    const y = tf.tensor2d(values([16, 1], 0.77), [16, 1]);
    const { history } = await model.fit(x, y, { epochs: 8, verbose: 0, shuffle: false });
    return history.loss as number[];
  };
  const wanted = await losses("cpu");
  const got = await losses("wasm");
  expect(got[7]).toBeLessThan(0.8 * got[0]);
  got.forEach((loss, i) => {
    expect(Math.abs(loss - wanted[i])).toBeLessThan(1e-4 * wanted[i]);
  });
});
