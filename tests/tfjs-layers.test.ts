/**
 * The layer for tfjs-layers models, against tfjs' own on both backends, and, where that one is wrong
 * (an axis other than the last: its kernels take a [1, C, 1, 1] for a [C] at the end), against the
 * formula.
 */

import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import {
  BatchNorm,
  calibrate,
  NonFiniteError,
  OptionError,
  ShapeError,
  StateError,
  UnsupportedError,
} from "batchnorm-wasm";
import { writeKeras } from "batchnorm-wasm/state";
import {
  BatchNormalization,
  type BatchNormalizationArgs,
  batchNormalization,
  register,
} from "batchnorm-wasm/tfjs-layers";
import { beforeAll, describe, expect, test } from "vitest";
import { BACKENDS, expectClose, onBackend, random, useBackend } from "./support/tfjs.js";

type AnyLayer = tfl.layers.Layer;

function expectSameWeights(
  actual: AnyLayer | tfl.LayersModel,
  expected: AnyLayer | tfl.LayersModel,
) {
  const weights = expected.getWeights();
  expect(actual.getWeights().length).toBe(weights.length);
  actual.getWeights().forEach((weight, i) => {
    expectClose(weight, weights[i] as tf.Tensor);
  });
}

/** Gradients of x and the trainable weights for a loss that differs in every element, and y. */
function derive(layer: AnyLayer, x: tf.Tensor, training: boolean) {
  const variables = layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const input = tf.variable(x);
  let y: tf.Tensor | undefined;
  const { grads } = tf.variableGrads(() => {
    y = tf.keep(layer.apply(input, { training }) as tf.Tensor);
    const weights = tf.reshape(tf.sin(tf.range(0, x.size)), x.shape);
    return tf.sum(tf.mul(tf.square(y), weights)) as tf.Scalar;
  }, [input, ...variables]);
  return [y as tf.Tensor, ...[input, ...variables].map(({ name }) => grads[name] as tf.Tensor)];
}

/** Layers, ours and tfjs' own, with the same weights, unlike the initial ones. */
function pair(shape: number[], args: BatchNormalizationArgs = {}): [BatchNormalization, AnyLayer] {
  const { rules: _, ...theirs } = args;
  const layers = [batchNormalization(args), tfl.layers.batchNormalization(theirs)] as const;
  for (const layer of layers) {
    layer.build([null, ...shape.slice(1)]);
    const weights = layer.getWeights().map((w, i) => tf.add(1, tf.abs(random(w.shape, 7 + i))));
    layer.setWeights(weights);
  }
  return [...layers];
}

/** Saves a model, and reads it again from the very bytes and text that were saved. */
async function saved(model: tfl.LayersModel): Promise<tf.io.IOHandler> {
  let artifacts: tf.io.ModelArtifacts | undefined;
  await model.save(
    tf.io.withSaveHandler(async (given) => {
      artifacts = given;
      return { modelArtifactsInfo: tf.io.getModelArtifactsInfoForJSON(given) };
    }),
  );
  const { weightData, ...text } = artifacts as tf.io.ModelArtifacts;
  return tf.io.fromMemory({ ...JSON.parse(JSON.stringify(text)), weightData });
}

let named: string;
beforeAll(async () => {
  await useBackend("cpu");
  named = tfl.layers.batchNormalization().name;
});

test("importing the entry does not use up a name of the user's layers", () => {
  expect(named).toBe("batch_normalization_BatchNormalization1");
  expect(batchNormalization().name).toBe("batch_normalization_BatchNormalization2");
});

describe.each(BACKENDS)("%s", (backend) => {
  onBackend(backend);

  describe("as tfjs' own layer: outputs, gradients, weights", () => {
    test.each([
      { shape: [12, 5] },
      { shape: [3, 7, 5] },
      { shape: [2, 3, 4, 5] },
      { shape: [2, 3, 4, 5], args: { axis: 3, momentum: 0.5, epsilon: 0.1 } },
      { shape: [12, 1] },
      { shape: [40, 70] },
      { shape: [12, 5], args: { momentum: 0 } },
      { shape: [12, 5], args: { momentum: 1 } },
    ])("$shape $args", ({ shape, args }) => {
      const [ours, theirs] = pair(shape, args);
      for (const training of [false, true, true, false]) {
        const x = random(shape, 1);
        const expected = derive(theirs, x, training);
        derive(ours, x, training).forEach((tensor, i) => {
          expectClose(tensor, expected[i] as tf.Tensor);
        });
        expectSameWeights(ours, theirs);
        const y = theirs.apply(x, { training }) as tf.Tensor;
        expectClose(ours.apply(x, { training }) as tf.Tensor, y);
        expectSameWeights(ours, theirs);
      }
    });
  });

  test("momentum 1 is kept by the BatchNorm, so that it is written and saved again", () => {
    const [ours] = pair([12, 5], { momentum: 1 });
    ours.apply(random([12, 5], 1));
    const { batchNorm } = ours as BatchNormalization;
    expect(batchNorm.decay).toBe(1);
    const { model } = writeKeras({ batchNorm });
    expect(JSON.stringify(JSON.parse(model).modelTopology)).toContain('"momentum":1,');
    expect(() => batchNorm.train(new Float32Array(60))).toThrow(StateError);
  });

  describe("by the formula, on every axis", () => {
    test.each([
      { shape: [9, 5], axis: -1, layout: "NC" },
      { shape: [9, 5], axis: 1, layout: "NC" },
      { shape: [9, 5], axis: 0, layout: "NCL" },
      { shape: [3, 5, 7], axis: 1, layout: "NCL" },
      { shape: [2, 5, 3, 4], axis: 1, layout: "NCHW" },
      { shape: [2, 5, 3, 4], axis: -2, layout: "NCL" },
      { shape: [2, 2, 3, 2, 5], axis: -1, layout: "NDHWC" },
      { shape: [2, 5, 2, 3, 2], axis: 1, layout: "NCDHW" },
      { shape: [2, 5, 2, 3, 2], axis: 2, layout: "NCL" },
      { shape: [2, 2, 2, 2, 2, 3], axis: 5, layout: "NCL" },
    ])("$shape axis $axis", ({ shape, axis, layout }) => {
      const layer = batchNormalization({ axis, momentum: 0.75, epsilon: 0.01 });
      layer.build(axis === 0 ? shape : [null, ...shape.slice(1)]);
      expect(layer.batchNorm.layout).toBe(layout);
      layer.setWeights(layer.getWeights().map((w, i) => tf.add(1, tf.abs(random(w.shape, i)))));
      const [gamma, beta, oldMean, oldVariance] = layer.getWeights().map((w) => w.clone()) as [
        tf.Tensor1D,
        ...tf.Tensor[],
      ];
      const x = random(shape, 2);
      const channelAxis = (axis + x.rank) % x.rank;
      const wide = (t: tf.Tensor) =>
        tf.reshape(
          t,
          shape.map((n, i) => (i === channelAxis ? n : 1)),
        );
      const others = shape.map((_, i) => i).filter((i) => i !== channelAxis);

      for (const training of [false, true]) {
        const moments = () => tf.moments(input, others, true);
        const input = tf.variable(x);
        const parameters = [gamma, beta].map((t) => tf.variable(t as tf.Tensor));
        const weights = tf.reshape(tf.sin(tf.range(0, x.size)), shape);
        let y: tf.Tensor | undefined;
        const { grads } = tf.variableGrads(() => {
          const { mean, variance } = training
            ? moments()
            : { mean: wide(oldMean as tf.Tensor), variance: wide(oldVariance as tf.Tensor) };
          const normalized = tf.div(tf.sub(input, mean), tf.sqrt(tf.add(variance, 0.01)));
          const [scale, shift] = parameters.map(wide) as [tf.Tensor, tf.Tensor];
          y = tf.keep(tf.add(tf.mul(normalized, scale), shift));
          return tf.sum(tf.mul(tf.square(y), weights)) as tf.Scalar;
        });
        const expected = [y, ...[input, ...parameters].map(({ name }) => grads[name])];
        const actual = derive(layer, x, training);
        actual.forEach((tensor, i) => {
          expectClose(tensor, expected[i] as tf.Tensor);
        });
        if (!training) continue;
        const [, , mean, variance] = layer.getWeights() as [
          tf.Tensor,
          tf.Tensor,
          tf.Tensor,
          tf.Tensor,
        ];
        const moved = (old: tf.Tensor, now: tf.Tensor) =>
          tf.add(tf.mul(0.75, old), tf.mul(0.25, tf.reshape(now, old.shape)));
        expectClose(mean, moved(oldMean as tf.Tensor, moments().mean));
        expectClose(variance, moved(oldVariance as tf.Tensor, moments().variance));
      }
    });
  });

  describe("configuration", () => {
    const everything: BatchNormalizationArgs = {
      axis: 1,
      momentum: 0.5,
      epsilon: 0.25,
      center: true,
      scale: true,
      betaInitializer: "ones",
      gammaInitializer: tfl.initializers.constant({ value: 3 }),
      movingMeanInitializer: tfl.initializers.constant({ value: -2 }),
      movingVarianceInitializer: tfl.initializers.constant({ value: 4 }),
      betaConstraint: tfl.constraints.maxNorm({ maxValue: 2, axis: 0 }),
      gammaConstraint: "nonNeg",
      betaRegularizer: tfl.regularizers.l1({ l1: 0.5 }),
      gammaRegularizer: "l1l2",
      name: "configured",
      trainable: true,
      batchInputShape: [null, 6, 2],
      dtype: "float32",
    };

    test.each([[{ name: "defaults" }], [everything]])("is tfjs' own: %j", (args) => {
      const ours = batchNormalization(args);
      const theirs = tfl.layers.batchNormalization(args);
      expect(ours.getConfig()).toEqual(theirs.getConfig());
      expect(ours.getClassName()).toBe(theirs.getClassName());
      const again = BatchNormalization.fromConfig(BatchNormalization, ours.getConfig());
      expect(again).toBeInstanceOf(BatchNormalization);
      expect(again.getConfig()).toEqual(theirs.getConfig());
      expect(ours.supportsMasking).toBe(true);
      expect(ours).toBeInstanceOf(tfl.layers.Layer);
    });

    test("initializers, in weights of the same names and order", () => {
      const ours = batchNormalization(everything);
      const theirs = tfl.layers.batchNormalization({ ...everything, name: "configured_theirs" });
      for (const layer of [ours, theirs]) layer.build([null, 6, 2]);
      const names = (layer: AnyLayer) => layer.weights.map(({ originalName }) => originalName);
      expect(names(ours)).toEqual(names(theirs));
      expect(names(ours).map((name) => name.split("/").pop())).toEqual([
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
      ]);
      expectSameWeights(ours, theirs);
      expect([...ours.batchNorm.runningMean]).toEqual(Array(6).fill(-2));
      expect([...(ours.batchNorm.gamma ?? [])]).toEqual(Array(6).fill(3));
      expect(ours.computeOutputShape([null, 6, 2])).toEqual([null, 6, 2]);
    });

    test.each([
      { center: false, scale: true, names: ["gamma"] },
      { center: true, scale: false, names: ["beta"] },
      { center: false, scale: false, names: [] },
    ])("center $center, scale $scale", ({ center, scale, names }) => {
      const [ours, theirs] = pair([8, 3], { center, scale });
      expect(ours.trainableWeights.map((w) => w.originalName.split("/").pop())).toEqual(names);
      const x = random([8, 3], 3);
      expectClose(ours.apply(x) as tf.Tensor, theirs.apply(x) as tf.Tensor);
      // tfjs' own layer reads a weight that it does not have: "read of undefined".
      expect(() => theirs.apply(x, { training: true })).toThrow(TypeError);
      const [whole] = pair([8, 3]);
      whole.setWeights([tf.ones([3]), tf.zeros([3]), ...whole.getWeights().slice(2)]);
      ours.setWeights([
        ...(scale ? [tf.ones([3])] : []),
        ...(center ? [tf.zeros([3])] : []),
        ...whole.getWeights().slice(2),
      ]);
      const [y, dx] = derive(ours, x, true);
      const [expectedY, expectedDx] = derive(whole, x, true);
      expectClose(y as tf.Tensor, expectedY as tf.Tensor, 1e-6);
      expectClose(dx as tf.Tensor, expectedDx as tf.Tensor, 1e-6);
    });

    test("a constraint holds for weights that are set, a regularizer enters the loss", async () => {
      const build = (make: typeof batchNormalization) => {
        const model = tfl.sequential();
        const norm = make({ inputShape: [3], gammaConstraint: "nonNeg", gammaRegularizer: "l1l2" });
        model.add(norm as AnyLayer);
        model.compile({ loss: "meanSquaredError", optimizer: "sgd" });
        norm.setWeights([-1, 0, 0, 1].map((value) => tf.fill([3], value)));
        norm.setWeights([-1, 0, 0, 1].map((value, i) => tf.fill([3], i === 0 ? 2 : value)));
        return model;
      };
      const x = random([6, 3], 4);
      const losses = [batchNormalization, tfl.layers.batchNormalization].map((make) => {
        const model = build(make as typeof batchNormalization);
        return model.trainOnBatch(x, tf.zeros([6, 3]));
      });
      const [ours, theirs] = (await Promise.all(losses)) as [number, number];
      expect(ours).toBeCloseTo(theirs, 4);
      expect(ours).toBeGreaterThan(0.05); // the regularizer: 0.01 · 3 · (2 + 4) = 0.18

      const layer = batchNormalization({ gammaConstraint: "nonNeg" });
      layer.build([null, 2]);
      layer.setWeights([tf.tensor1d([-1, 2]), tf.zeros([2]), tf.zeros([2]), tf.ones([2])]);
      layer.apply(tf.zeros([2, 2]));
      expect([...(layer.batchNorm.gamma ?? [])]).toEqual([0, 2]);
    });

    test("not trainable by tfjs' rules: gamma and beta stay, and come last among the weights", () => {
      const [ours, theirs] = pair([8, 3], { trainable: false, rules: "tfjs" });
      expect(ours.trainableWeights).toEqual([]);
      expect(ours.nonTrainableWeights.length).toBe(4);
      const x = random([8, 3], 5);
      const y = theirs.apply(x, { training: true }) as tf.Tensor;
      expectClose(ours.apply(x, { training: true }) as tf.Tensor, y);
      expectSameWeights(ours, theirs);
    });
  });

  describe("in a model", () => {
    type Make = (args?: BatchNormalizationArgs) => AnyLayer;

    /** Two dense layers with the layer between them, the same weights every time. */
    function network(make: Make): tfl.Sequential {
      const model = tfl.sequential();
      const { glorotUniform } = tfl.initializers;
      model.add(
        tfl.layers.dense({
          units: 16,
          inputShape: [8],
          useBias: false,
          kernelInitializer: glorotUniform({ seed: 1 }),
        }),
      );
      model.add(make({ momentum: 0.8 }));
      model.add(tfl.layers.activation({ activation: "tanh" }));
      model.add(
        tfl.layers.dense({
          units: 3,
          activation: "softmax",
          kernelInitializer: glorotUniform({ seed: 2 }),
        }),
      );
      model.compile({
        optimizer: tf.train.adam(0.02),
        loss: "categoricalCrossentropy",
        metrics: ["accuracy"],
      });
      return model;
    }
    const theirs = tfl.layers.batchNormalization as Make;

    function task() {
      const x = random([96, 8], 11, 3, 2) as tf.Tensor2D;
      const classes = tf.argMax(tf.slice(x, [0, 2], [96, 3]), 1) as tf.Tensor1D;
      return { x, y: tf.oneHot(classes, 3) };
    }

    test("fit, evaluate and predict as with tfjs' own", async () => {
      const { x, y } = task();
      const results = [];
      for (const make of [batchNormalization, theirs]) {
        const model = network(make);
        const { history } = await model.fit(x, y, {
          epochs: 8,
          batchSize: 32,
          shuffle: false,
          validationSplit: 0.25,
          verbose: 0,
        });
        const scores = model.evaluate(x, y) as tf.Scalar[];
        results.push({ model, history, scores, predicted: model.predict(x) as tf.Tensor });
      }
      const [ours, own] = results as [(typeof results)[0], (typeof results)[0]];
      // Adam divides by the root of a small number: rounding shows after some steps.
      expectClose(ours.predicted, own.predicted, 1e-3);
      ours.model.getWeights().forEach((weight, i) => {
        expectClose(weight, own.model.getWeights()[i] as tf.Tensor, 1e-3);
      });
      expect(ours.history.loss?.at(-1)).toBeCloseTo(own.history.loss?.at(-1) as number, 3);
      expect(ours.history.val_loss?.at(-1)).toBeCloseTo(own.history.val_loss?.at(-1) as number, 3);
      expect(ours.scores[0]?.dataSync()[0]).toBeCloseTo(own.scores[0]?.dataSync()[0] as number, 3);
      expect(ours.history.loss?.at(-1)).toBeLessThan((ours.history.loss?.[0] as number) / 2);
      expect(await ours.predicted.data()).not.toEqual(await own.predicted.data()); // not the same code
    });

    test("saved by either, loaded by either", async () => {
      const { x, y } = task();
      for (const make of [batchNormalization, theirs]) {
        const model = network(make);
        await model.fit(x, y, { epochs: 2, verbose: 0 });
        const handler = await saved(model);
        const { weightSpecs, modelTopology } = await (
          handler.load as () => Promise<tf.io.ModelArtifacts>
        )();
        const names = weightSpecs?.map(({ name }) => name.replace(/^.*\//, ""));
        expect(names?.slice(1, 3)).toEqual(["gamma", "beta"]);
        expect(JSON.stringify(modelTopology)).toContain('"class_name":"BatchNormalization"');

        const expected = model.predict(x) as tf.Tensor;
        const undo = register();
        try {
          const loaded = await tfl.loadLayersModel(handler);
          expect(loaded.layers[1]).toBeInstanceOf(BatchNormalization);
          expectClose(loaded.predict(x) as tf.Tensor, expected, 1e-6);
          expectSameWeights(loaded, model);
          const { batchNorm } = loaded.layers[1] as BatchNormalization;
          expect(batchNorm.decay).toBe(0.8);
          expect(batchNorm.batchesSeen).toBe(1); // at least
          loaded.compile({ optimizer: "sgd", loss: "categoricalCrossentropy" });
          await loaded.fit(x, y, { epochs: 1, verbose: 0 });
        } finally {
          undo();
        }
        const loaded = await tfl.loadLayersModel(handler);
        expect(loaded.layers[1]).not.toBeInstanceOf(BatchNormalization);
        expect(loaded.layers[1]?.getClassName()).toBe("BatchNormalization");
        expectClose(loaded.predict(x) as tf.Tensor, expected, 1e-6);
        expectSameWeights(loaded, model);
      }
    });

    test("the weights of a model with tfjs' own, set into one with ours", async () => {
      const { x } = task();
      const [a, b] = [network(theirs), network(batchNormalization)];
      a.setWeights(a.getWeights().map((w, i) => tf.add(1, tf.abs(random(w.shape, 20 + i)))));
      b.setWeights(a.getWeights());
      expectClose(b.predict(x) as tf.Tensor, a.predict(x) as tf.Tensor);
    });

    test.each([1, 2])("converted from Keras, where the axis is a list: [%i]", async (axis) => {
      const layer = (class_name: string, config: tfl.ModelAndWeightsConfig["modelTopology"]) => ({
        class_name,
        config,
      });
      const modelTopology = layer("Sequential", {
        name: "sequential",
        layers: [
          layer("BatchNormalization", {
            name: "batch_normalization",
            trainable: true,
            batch_input_shape: [null, 4, 3],
            dtype: "float32",
            axis: [axis],
            momentum: 0.99,
            epsilon: 0.001,
            center: true,
            scale: true,
            beta_initializer: layer("Zeros", {}),
            gamma_initializer: layer("Ones", {}),
            moving_mean_initializer: layer("Zeros", {}),
            moving_variance_initializer: layer("Ones", {}),
            beta_regularizer: null,
            gamma_regularizer: null,
            beta_constraint: null,
            gamma_constraint: null,
          }),
        ],
      });
      const undo = register();
      const model = await tfl.models.modelFromJSON({ modelTopology }).finally(undo);
      const loaded = model.layers[0] as BatchNormalization;
      expect(loaded).toBeInstanceOf(BatchNormalization);
      expect(loaded.batchNorm.layout).toBe(axis === 1 ? "NCL" : "NLC");
      const same = batchNormalization({ axis, inputShape: [4, 3] });
      tfl.sequential({ layers: [same] });
      const x = random([5, 4, 3], 30);
      const y = same.apply(x, { training: true }) as tf.Tensor;
      expect((loaded.apply(x, { training: true }) as tf.Tensor).dataSync()).toEqual(y.dataSync());
      expectSameWeights(loaded, same);
    });

    test("what is written into the BatchNorm is in the weights, and saved", async () => {
      const { x } = task();
      const model = network(batchNormalization);
      const layer = model.layers[1] as BatchNormalization;
      layer.batchNorm.runningMean.fill(0.25);
      const [movingMean] = layer.nonTrainableWeights;
      expect([...(movingMean?.read().dataSync() ?? [])]).toEqual(Array(16).fill(0.25));
      layer.batchNorm.gamma?.fill(2);
      expect([...(layer.getWeights(true)[0] as tf.Tensor).dataSync()]).toEqual(Array(16).fill(2));
      expect([...(layer.getWeights()[2] as tf.Tensor).dataSync()]).toEqual(Array(16).fill(0.25));
      const loaded = await tfl.loadLayersModel(await saved(model));
      expectClose(loaded.predict(x) as tf.Tensor, model.predict(x) as tf.Tensor, 1e-6);
      expect([...(loaded.getWeights()[1] as tf.Tensor).dataSync()]).toEqual(Array(16).fill(2));
    });

    test("calibrate: exact statistics of a training set, in the weights at once", async () => {
      const { x } = task();
      const model = network(batchNormalization);
      const layer = model.layers[1] as BatchNormalization;
      const batches = tf.split(x, 3);
      await calibrate(
        [layer.batchNorm],
        (part: tf.Tensor) => {
          tf.tidy(() => void model.apply(part, { training: true }));
        },
        batches,
      );
      const inputs = model.layers[0]?.apply(x) as tf.Tensor;
      const { mean, variance } = tf.moments(inputs, 0);
      expectClose(layer.getWeights()[2] as tf.Tensor, mean);
      expectClose(layer.getWeights()[3] as tf.Tensor, variance);
      const frozen = layer.batchNorm.freeze();
      const y = layer.apply(inputs) as tf.Tensor;
      expect(frozen.infer(inputs.dataSync<"float32">())).toEqual(y.dataSync());
    });

    test("a mask is passed on, and takes no part by tfjs' rules", () => {
      const input = tf.tensor3d([1, 2, 0, 0, 3, 4, 5, 9], [2, 2, 2]);
      const outputs = [() => batchNormalization({ rules: "tfjs" }), theirs].map((make) => {
        const model = tfl.sequential();
        model.add(tfl.layers.masking({ maskValue: 0, inputShape: [2, 2] }));
        model.add(make());
        return model.apply(input, { training: true }) as tf.Tensor;
      });
      expectClose(outputs[0] as tf.Tensor, outputs[1] as tf.Tensor);
      const mask = tf.tensor2d([1, 0, 1, 1], [2, 2], "bool");
      expect(batchNormalization().computeMask(input, mask)).toBe(mask);
    });

    test("steps leave no tensors behind", async () => {
      const { x, y } = task();
      const model = network(batchNormalization);
      await model.trainOnBatch(x, y);
      tf.dispose(model.predict(x));
      const { numTensors, numDataBuffers } = tf.memory();
      for (let i = 0; i < 4; i++) {
        await model.trainOnBatch(x, y);
        tf.dispose(model.predict(x));
      }
      expect(tf.memory().numTensors).toBe(numTensors);
      expect(tf.memory().numDataBuffers).toBe(numDataBuffers);
      const before = tf.memory().numTensors;
      const small = tfl.sequential({ layers: [batchNormalization({ inputShape: [3] })] });
      expect(small.dispose().numDisposedVariables).toBe(4);
      expect(tf.memory().numTensors).toBe(before);
    });
  });

  describe("errors", () => {
    test("NaN in training: nothing moves", () => {
      const [layer] = pair([4, 2]);
      const before = layer.getWeights().map((w) => w.dataSync());
      const x = tf.tensor2d([1, Number.NaN, 2, 3], [2, 2]);
      expect(() => layer.apply(x, { training: true })).toThrow(NonFiniteError);
      expect(layer.getWeights().map((w) => w.dataSync())).toEqual(before);
    });

    test("what does not fit", () => {
      const layer = batchNormalization({ name: "early" });
      expect(() => layer.batchNorm).toThrow(StateError);
      expect(() => layer.batchNorm).toThrow("got early before that");
      expect(() => layer.call(tf.zeros([2, 2]))).toThrow(StateError);
      layer.build([null, 2]);
      expect(() => layer.apply(tf.zeros([2, 3]))).toThrow(/axis -?1/); // tfjs' own check
      expect(() => layer.call([tf.zeros([2, 2]), tf.zeros([2, 2])])).toThrow(ShapeError);
      expect(() => layer.apply(tf.zeros([2, 2], "int32"))).toThrow(
        "inputs: expected a tensor of float32, got int32",
      );
      expect(() => batchNormalization().build([null, null])).toThrow(/defined dimension/);
      expect(() => batchNormalization({ momentum: 2 }).build([null, 2])).toThrow(OptionError);
      expect(() => batchNormalization({ epsilon: -1 }).build([null, 2])).toThrow(OptionError);
    });

    test("a second derivative", () => {
      const [layer] = pair([4, 2]);
      const f = (x: tf.Tensor) =>
        tf.sum(tf.square(layer.apply(x, { training: true }) as tf.Tensor));
      const second = tf.grad((x: tf.Tensor) => tf.sum(tf.square(tf.grad(f)(x))));
      expect(() => second(random([4, 2], 1))).toThrow(UnsupportedError);
    });
  });

  test("averages are kept in float64 beside their variables", () => {
    const layer = batchNormalization({ momentum: 0.9 });
    const twin = BatchNorm.keras(3, { momentum: 0.9 });
    layer.build([null, 3]);
    for (let step = 0; step < 20; step++) {
      const x = random([6, 3], step);
      layer.apply(x, { training: true });
      twin.train(x.dataSync<"float32">());
    }
    expect(layer.batchNorm.runningMean).toEqual(twin.runningMean);
    expect(layer.batchNorm.runningVariance).toEqual(twin.runningVariance);
    expect(layer.batchNorm.batchesSeen).toBe(20);
  });
});
