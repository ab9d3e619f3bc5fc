/**
 * What tfjs-layers' own tests of batch normalization ask of its layer (tfjs-layers/src/layers/normalization_test.ts,
 * which npm does not have), asked of ours: the same inputs, and the figures that Keras gave for them.
 */

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import * as tfl from "@tensorflow/tfjs-layers";
import { batchNorm } from "batchnorm-wasm/tfjs";
import { BatchNormalization, batchNormalization, register } from "batchnorm-wasm/tfjs-layers";
import { describe, expect, test } from "vitest";
import { BACKENDS, onBackend } from "./support/tfjs.js";

/** Twelve values, in whatever shape, for which Keras gave the figures of the tests in training. */
const TWELVE = [1, 2, 3, 4, 2, 4, 6, 8, 12, 11, 10, 9];
const BY_FOUR = {
  y: [
    -0.805371, -0.9502233, -1.1624058, -1.3885813, -0.6040282, -0.4319197, -0.11624074, 0.46286058,
    1.4093992, 1.3821429, 1.2786462, 0.92572117,
  ],
  mean: [5, 5.6666665, 6.3333335, 7],
  variance: [24.666666, 14.888889, 8.222222, 4.6666665],
};
const BY_TWO = {
  y: [
    -1.1355163, -1.3552775, -0.6488664, -0.7297648, -0.8921913, -0.7297648, 0.08110833, 0.5212605,
    1.5410578, 1.4595294, 1.0544081, 0.8340168,
  ],
  mean: [5.6666665, 6.3333335],
  variance: [16.88889, 10.222222],
};

interface Options {
  readonly gamma?: number[];
  readonly beta?: number[];
  /** The statistics are one for each channel. */
  readonly wide?: boolean;
  readonly epsilon?: number;
}

/** As close as their tests want it: 1e-3, absolute, unless they say so. */
function expectNear(actual: tf.Tensor | number[], expected: readonly number[], tolerance = 1e-3) {
  const values = Array.isArray(actual) ? actual : [...actual.dataSync()];
  expect(values.length).toBe(expected.length);
  values.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(tolerance);
  });
}

const weightsOf = (layer: tfl.layers.Layer | undefined): number[][] =>
  layer!.getWeights().map((weight) => [...weight.dataSync()]);

describe.each(BACKENDS)("%s", (backend) => {
  onBackend(backend);

  describe("in training", () => {
    test.each([
      { name: "2D", shape: [3, 4], ...BY_FOUR },
      { name: "3D", shape: [3, 2, 2], ...BY_TWO },
      // Here they keep two axes; the layer keeps one, which is both of them.
      { name: "3D, two axes kept", shape: [3, 4], ...BY_FOUR },
      { name: "4D, two axes kept", shape: [1, 3, 1, 4], ...BY_FOUR },
    ])("$name", ({ shape, y, mean, variance }) => {
      const layer = batchNormalization({ momentum: 0 });
      expectNear(layer.apply(tf.tensor(TWELVE, shape), { training: true }) as tf.Tensor, y);
      expectNear(weightsOf(layer)[2]!, mean);
      expectNear(weightsOf(layer)[3]!, variance);
    });
  });

  describe("by given statistics", () => {
    const two = {
      x: [10, 20, 30, 40],
      shape: [2, 2],
      mean: [5, 5, 5, 5],
      variance: [4, 16, 4, 16],
    };
    const three = {
      x: [10, 20, 30, 40, 10, 20, 30, 40],
      shape: [2, 2, 2],
      mean: [5, 5, 5, 5, 5, 5, 5, 5],
      variance: [4, 16, 4, 16, 16, 25, 16, 25],
    };
    const minus = (values: readonly number[]) => [...values, ...values.map((v) => -v)];
    const four = {
      x: minus(three.x),
      shape: [2, 2, 2, 2],
      mean: minus(three.mean),
      variance: [...three.variance, ...three.variance],
    };
    const gamma3 = [2, 2, 2, 2, 4, 4, 4, 4];
    const beta3 = [-1, -1, -2, -2, -1, -1, -2, -2];
    const y3 = [2.5, 3.75, 12.5, 8.75, 1.25, 3, 6.25, 7];
    const z3 = [4, 6.5, 23, 15.5, 4, 11, 23, 26];
    const perChannel = {
      mean: [5, 5],
      variance: [4, 16],
      gamma: [2, 4],
      beta: [-1, -2],
      wide: true,
    };
    test.each([
      { name: "2D", ...two, y: [2.5, 3.75, 12.5, 8.75] },
      {
        name: "2D, epsilon",
        ...two,
        x: [30, 30, 60, 60],
        mean: [0, 0, 0, 0],
        variance: [7, 7, 7, 7],
        epsilon: 2,
        y: [10, 10, 20, 20],
      },
      { name: "2D, gamma", ...two, gamma: [1, 2, 3, 4], y: [2.5, 7.5, 37.5, 35] },
      {
        name: "2D, gamma and beta",
        ...two,
        gamma: [1, 2, 3, 4],
        beta: [-1, -1, -2, -2],
        y: [1.5, 6.5, 35.5, 33],
      },
      {
        name: "2D, per channel",
        ...two,
        mean: [2, 5],
        variance: [1, 4],
        gamma: [3, 4],
        beta: [-1, -2],
        wide: true,
        y: [23, 28, 83, 68],
      },
      { name: "3D", ...three, y: y3 },
      { name: "3D, gamma and beta", ...three, gamma: gamma3, beta: beta3, y: z3 },
      { name: "3D, per channel", ...three, ...perChannel, y: [4, 13, 24, 33, 4, 13, 24, 33] },
      { name: "4D", ...four, y: minus(y3) },
      {
        name: "4D, gamma and beta",
        ...four,
        gamma: [...gamma3, ...gamma3],
        beta: minus(beta3),
        y: minus(z3),
      },
      {
        name: "4D, per channel",
        ...three,
        shape: [2, 1, 2, 2],
        ...perChannel,
        y: [4, 13, 24, 33, 4, 13, 24, 33],
      },
    ])("$name", ({ x, shape, y, ...all }) => {
      const { gamma, beta, wide, epsilon = 0 } = all as Options;
      const of = (values: number[]) => tf.tensor(values, wide ? [2] : shape);
      const input = tf.tensor(x, shape);
      const [offset, scale] = [beta && of(beta), gamma && of(gamma)];
      expectNear(batchNorm(input, of(all.mean), of(all.variance), offset, scale, epsilon), y);
    });
  });

  describe("the layer", () => {
    test.each([[[4, 6]], [[2, 3, 4]], [[2, 3, 4, 5]]])("symbolic, %j", (shape) => {
      const x = tfl.input({ batchShape: shape });
      const y = batchNormalization({}).apply(x) as tfl.SymbolicTensor;
      expect([y.dtype, y.shape]).toEqual([x.dtype, x.shape]);
    });

    test("an axis of unknown size is refused", () => {
      const layer = batchNormalization({ axis: 0 });
      expect(() => layer.apply(tfl.input({ shape: [2, 3] }))).toThrow(
        /Axis 0 of input tensor should have a defined dimension/,
      );
    });

    test("without arguments", () => {
      expect(batchNormalization().getConfig().axis).toBe(-1);
    });

    test.each([2, 3, 4].flatMap((rank) => [0, -1].map((axis) => ({ rank, axis }))))(
      "at test time, before any training: x, $rank axes, axis $axis",
      ({ rank, axis }) => {
        const values = [1, 2, 3, 4, -1, -2, -3, -4, -1, -2, -3, -4, 1, 2, 3, 4].slice(0, 2 ** rank);
        const x = tf.tensor(values, Array(rank).fill(2));
        const y = batchNormalization({ axis }).apply(x, { training: false }) as tf.Tensor;
        expectNear(y, values, 0.01);
      },
    );

    test.each([
      { center: false, axis: 0, weights: [1, 0, 1] },
      { scale: false, axis: 0, weights: [0, 0, 1] },
      { center: false, scale: false, weights: [0, 1] },
    ])("$center $scale", ({ weights, ...args }) => {
      const layer = batchNormalization(args);
      expectNear(layer.apply(tf.tensor2d([1, 2, 3, 4], [2, 2])) as tf.Tensor, [1, 2, 3, 4], 0.01);
      expect(weightsOf(layer)).toEqual(weights.map((value) => [value, value]));
    });

    test.each([
      {
        shape: [3, 4],
        loss: [0.9998891353607178, 0.9899163246154785],
        gamma: [0.9900254, 0.9900257, 0.9900262, 0.9900271],
        mean: [0.09949999, 0.11276666, 0.12603334, 0.13929999],
        variance: [1.4709667, 1.2763889, 1.1437222, 1.0729666],
      },
      {
        shape: [3, 2, 2],
        loss: [0.9999215006828308, 0.980024516582489],
        gamma: [0.98010117, 0.98010194],
        mean: [0.11276666, 0.12603334],
        variance: [1.3161889, 1.1835222],
      },
    ])("alone in fit, $shape", async ({ shape, loss, gamma, mean, variance }) => {
      const layer = batchNormalization({ inputShape: shape.slice(1) });
      const model = tfl.sequential({ layers: [layer] });
      model.compile({ loss: "meanSquaredError", optimizer: "sgd" });
      const data = [tf.tensor(TWELVE, shape), tf.zeros(shape)] as const;
      const { history } = await model.fit(...data, { epochs: 2, batchSize: 3, verbose: 0 });
      expectNear(history.loss as number[], loss, 5e-3);
      const zeros = gamma.map(() => 0);
      [gamma, zeros, mean, variance].forEach((expected, i) => {
        expectNear(weightsOf(layer)[i]!, expected);
      });
    });

    test("between two dense layers in fit", async () => {
      const kernelInitializer = "ones";
      const args = { useBias: false, kernelInitializer } as const;
      const model = tfl.sequential({
        layers: [
          tfl.layers.dense({ units: 4, inputShape: [4], ...args }),
          batchNormalization({ inputShape: [4] }),
          tfl.layers.dense({ units: 1, ...args }),
        ],
      });
      model.compile({ loss: "meanSquaredError", optimizer: tf.train.sgd(0.1) });
      const data = [tf.tensor2d(TWELVE, [3, 4]), tf.zeros([3, 1])] as const;
      const { history } = await model.fit(...data, { epochs: 3, batchSize: 3, verbose: 0 });
      const losses = [15.999907493591309, 0.025602197274565697, 0.022478966042399406];
      expectNear(history.loss as number[], losses, 5e-3);
      const [first, norm, last] = model.layers.map(weightsOf);
      expectNear(first![0]!, Array(16).fill(1));
      [0.18779878, 0, 0.7128234, 6.276868].forEach((expected, i) => {
        expectNear(norm![i]!, Array(4).fill(expected));
      });
      expectNear(last![0]!, Array(4).fill(0.18779878));
    });

    const behind = (layer: tfl.layers.Layer) => {
      const ones = { kernelInitializer: "ones", biasInitializer: "zeros" } as const;
      const model = tfl.sequential({
        layers: [
          layer,
          batchNormalization(),
          tfl.layers.flatten(),
          tfl.layers.dense({ units: 1, ...ones }),
        ],
      });
      model.compile({ loss: "meanSquaredError", optimizer: "sgd" });
      return model;
    };
    const convolution = {
      filters: 4,
      kernelSize: 2,
      kernelInitializer: "ones",
      biasInitializer: "zeros",
      inputShape: [5, 5, 1],
    } satisfies Parameters<typeof tfl.layers.conv2d>[0];
    const image = () => tf.reshape(tf.range(0, 50), [2, 5, 5, 1]);
    const target = () => tf.tensor2d([0, 1], [2, 1]);
    /** tfjs' wasm backend has no gradient of a convolution's kernel, whatever stands behind it. */
    const MISSING = /Kernel 'Conv2DBackpropFilter' not registered for backend 'wasm'/;

    test("behind a convolution in fit", async () => {
      const fit = behind(tfl.layers.conv2d(convolution)).fit(image(), target(), {
        epochs: 2,
        verbose: 0,
      });
      if (backend === "wasm") return expect(fit).rejects.toThrow(MISSING);
      const [first, second] = (await fit).history.loss as number[];
      expectNear([first!, second!], [3332.9971, 2122.5361], 0.01);
    });

    test("behind a transposed convolution in fit", async () => {
      const model = behind(tfl.layers.conv2dTranspose(convolution));
      const x = tf.div(tf.sub(image(), 25), 100);
      const fit = model.fit(x, target(), { epochs: 2, verbose: 0 });
      if (backend === "wasm") return expect(fit).rejects.toThrow(MISSING);
      const [first, second] = (await fit).history.loss as number[];
      expect(first).toBeCloseTo(13922.4492);
      expect(second).toBeCloseTo(106532048, -3);
      const [gamma, beta, mean, variance] = weightsOf(model.layers[1]);
      expectNear(gamma!, Array(4).fill(7661.0874), 1e-2);
      expectNear(beta!, Array(4).fill(-118.35103), 1e-2);
      expectNear(mean!, Array(4).fill(-0.00026271));
      expectNear(variance!, Array(4).fill(0.98333836));
    });

    test("in a model of Keras between two dense layers", async () => {
      const dense = (name: string, units: number, shape?: number[]) => ({
        class_name: "Dense",
        config: {
          name,
          units,
          activation: "linear",
          ...(shape && { batch_input_shape: [null, ...shape] }),
        },
      });
      const norm = {
        class_name: "BatchNormalization",
        config: { name: "bn", axis: [1], momentum: 0.99, epsilon: 0.001 },
      };
      const layers = [dense("first", 10, [5]), norm, dense("last", 1)];
      const modelTopology = { class_name: "Sequential", config: { name: "sequential", layers } };
      const undo = register();
      const model = await tfl.models.modelFromJSON({ modelTopology }).finally(undo);
      expect((model.predict(tf.zeros([3, 5])) as tf.Tensor).shape).toEqual([3, 1]);
      expect(model.layers[1]).toBeInstanceOf(BatchNormalization);
      expect(model.layers[1]!.getWeights().length).toBe(4);
    });
  });
});
