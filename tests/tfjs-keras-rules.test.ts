/**
 * Where the layer for tfjs-layers differs from tfjs' own, each time with Keras' rule: the list in the doc comment of
 * `BatchNormalization`, in its order. And `rules: "tfjs"`, which undoes some of it.
 */

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import * as tfl from "@tensorflow/tfjs-layers";
import { OptionError, ShapeError, StateError, UnsupportedError } from "batchnorm-wasm";
import {
  BatchNormalization,
  type BatchNormalizationArgs,
  batchNormalization,
  register,
} from "batchnorm-wasm/tfjs-layers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { BACKENDS, expectClose, onBackend, random } from "./support/tfjs.js";

type AnyLayer = tfl.layers.Layer;

/** Mean and variance of a layer, [C] each. */
const averages = (layer: AnyLayer): number[][] =>
  layer
    .getWeights()
    .slice(-2)
    .map((weight) => [...weight.dataSync()]);

/** Averages unlike the initial ones. */
function settle(layer: AnyLayer): void {
  layer.setWeights(layer.getWeights().map((w, i) => tf.add(1, tf.abs(random(w.shape, 70 + i)))));
}

/** y by the weights of a layer. */
function byAverages(layer: AnyLayer, x: tf.Tensor): tf.Tensor {
  const [gamma, beta, mean, variance] = layer.getWeights() as [tf.Tensor, ...tf.Tensor[]];
  const deviations = tf.div(tf.sub(x, mean!), tf.sqrt(tf.add(variance!, 1e-3)));
  return tf.add(tf.mul(deviations, gamma), beta!);
}

function compiled<T extends tfl.LayersModel>(model: T): T {
  model.compile({ optimizer: tf.train.sgd(0.1), loss: "meanSquaredError" });
  return model;
}

const dense = (units: number, inputShape?: number[]): AnyLayer =>
  tfl.layers.dense({ units, useBias: false, ...(inputShape && { inputShape }) });

describe.each(BACKENDS)("%s", (backend) => {
  onBackend(backend);
  afterEach(() => vi.restoreAllMocks());

  describe("trainable: false is test time", () => {
    function frozenNetwork(args: BatchNormalizationArgs): [tfl.Sequential, BatchNormalization] {
      const norm = batchNormalization(args);
      const model = tfl.sequential({ layers: [dense(3, [4]), norm, dense(2)] });
      settle(norm);
      return [model, norm];
    }

    test("in fit: nothing of the layer moves, and the layer before it learns by the averages", async () => {
      const [model, norm] = frozenNetwork({});
      norm.trainable = false;
      compiled(model);
      const before = norm.getWeights().map((w) => w.dataSync());
      const [x, target] = [random([12, 4], 1), random([12, 2], 2)];
      const [w1, w2] = [0, 2].map((i) => model.layers[i]!.getWeights()[0]!);
      const loss = (w: tf.Tensor) => {
        const h = byAverages(norm, tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D));
        const y = tf.matMul(h as tf.Tensor2D, w2 as tf.Tensor2D);
        return tf.mean(tf.squaredDifference(y, target)) as tf.Scalar;
      };
      const expected = tf.sub(w1!, tf.mul(0.1, tf.grad(loss)(w1!)));
      await model.fit(x, target, { epochs: 1, batchSize: 12, verbose: 0 });
      expect(norm.getWeights().map((w) => w.dataSync())).toEqual(before);
      expectClose(model.layers[0]!.getWeights()[0]!, expected);
      expect(norm.batchNorm.batchesSeen).toBe(1); // the weights that were set
    });

    test("as an argument, as in a file", () => {
      const norm = batchNormalization({ trainable: false, inputShape: [3] });
      tfl.sequential({ layers: [norm] });
      settle(norm);
      const x = random([8, 3], 3);
      expectClose(norm.apply(x, { training: true }) as tf.Tensor, byAverages(norm, x));
    });

    test("of a model that holds the layer", async () => {
      const norm = batchNormalization();
      const base = tfl.sequential({ layers: [dense(3, [4]), norm] });
      settle(norm);
      const before = averages(norm);
      base.trainable = false;
      // A Sequential that begins with a model takes its layers for its own, and has their weights trainable.
      const model = compiled(tfl.sequential({ layers: [dense(4, [4]), base, dense(2)] }));
      await model.fit(random([12, 4], 4), random([12, 2], 5), { epochs: 2, verbose: 0 });
      expect(averages(norm)).toEqual(before);
      expect(norm.trainable).toBe(true); // tfjs tells its weights alone
      base.trainable = true;
      await compiled(model).fit(random([12, 4], 4), random([12, 2], 5), { verbose: 0 });
      expect(averages(norm)).not.toEqual(before);
    });

    test("and trained again once it is trainable", () => {
      const norm = batchNormalization({ trainable: false });
      norm.build([null, 3]);
      const before = averages(norm);
      norm.trainable = true;
      norm.apply(random([8, 3], 6), { training: true });
      expect(averages(norm)).not.toEqual(before);
    });

    test('rules: "tfjs": the averages move', async () => {
      const [model, norm] = frozenNetwork({ rules: "tfjs" });
      norm.trainable = false;
      const before = norm.getWeights().map((w) => w.dataSync());
      await compiled(model).fit(random([12, 4], 1), random([12, 2], 2), { verbose: 0 });
      const after = norm.getWeights().map((w) => w.dataSync());
      expect(after.slice(0, 2)).toEqual(before.slice(0, 2));
      expect(after[2]).not.toEqual(before[2]);
    });
  });

  describe("a training that a model stores is obeyed", () => {
    function functional(norm: AnyLayer, args: { training?: boolean }): tfl.LayersModel {
      const input = tfl.input({ shape: [3] });
      return tfl.model({
        inputs: input,
        outputs: norm.apply(input, args) as tfl.SymbolicTensor,
      });
    }

    test("true: predict normalizes by the mini-batch", () => {
      const norm = batchNormalization();
      const model = functional(norm, { training: true });
      const x = random([16, 3], 8);
      const { mean, variance } = tf.moments(model.predict(x) as tf.Tensor, 0);
      expectClose(mean, tf.zeros([3]));
      expectClose(variance, tf.ones([3]), 1e-3); // by epsilon
      expect(averages(norm)[0]).not.toEqual([0, 0, 0]); // as in Keras, where training: true moves them
    });

    test("false: fit normalizes by the averages, which stay, and trains gamma", async () => {
      const norm = batchNormalization();
      const model = compiled(functional(norm, { training: false }));
      settle(norm);
      const before = norm.getWeights().map((w) => [...w.dataSync()]);
      await model.fit(random([16, 3], 9), random([16, 3], 10), { verbose: 0 });
      const after = norm.getWeights().map((w) => [...w.dataSync()]);
      expect(after.slice(2)).toEqual(before.slice(2));
      expect(after[0]).not.toEqual(before[0]);
    });

    test("in a model that was saved", async () => {
      const x = random([16, 3], 8);
      const expected = functional(batchNormalization(), { training: true }).predict(x);
      const text = JSON.stringify(
        functional(tfl.layers.batchNormalization(), { training: true }).toJSON(null, false),
      );
      const undo = register();
      const model = await tfl.models
        .modelFromJSON({ modelTopology: JSON.parse(text) })
        .finally(undo);
      expectClose(model.predict(x) as tf.Tensor, expected as tf.Tensor);
    });

    test("but not where the layer itself is called with another", () => {
      const norm = batchNormalization();
      functional(norm, { training: true });
      settle(norm);
      const x = random([16, 3], 11);
      expectClose(norm.apply(x, { training: false }) as tf.Tensor, byAverages(norm, x));
    });

    test("several that differ are refused, since tfjs does not say which one it runs", () => {
      const norm = batchNormalization({ name: "shared" });
      functional(norm, { training: true });
      const model = functional(norm, {});
      const predict = () => model.predict(random([16, 3], 12));
      expect(predict).toThrow(StateError);
      expect(predict).toThrow(
        "training: expected the same in all calls of the layer shared in mod",
      );
      expect(predict).toThrow("got true, undefined");
    });

    test('rules: "tfjs": it is ignored', () => {
      const norm = batchNormalization({ rules: "tfjs" });
      const model = functional(norm, { training: true });
      settle(norm);
      const x = random([16, 3], 8);
      expectClose(model.predict(x) as tf.Tensor, byAverages(norm, x));
    });
  });

  describe("masks reach the statistics", () => {
    // Eight rows of data, 1 … 8 and 3 … 17, in two sequences; half of the positions are padding.
    const padded = (): tf.Tensor3D =>
      tf.tensor3d(
        [
          [
            [4, 1],
            [8, 5],
            [0, 0],
            [0, 0],
          ],
          [
            [4, 9],
            [6, 7],
            [0, 0],
            [0, 0],
          ],
        ],
        [2, 4, 2],
      );
    // Of the data alone: mean (5.5, 5.5), variance (2.75, 8.75).
    const MEAN = [5.5, 5.5];
    const VARIANCE = [2.75, 8.75];

    function masked(args: BatchNormalizationArgs = {}): [tfl.Sequential, BatchNormalization] {
      const norm = batchNormalization({ momentum: 0, ...args });
      const masking = tfl.layers.masking({ maskValue: 0, inputShape: [4, 2] });
      return [compiled(tfl.sequential({ layers: [masking, norm] })), norm];
    }

    test("in fit", async () => {
      const [model, norm] = masked();
      await model.fit(padded(), tf.zeros([2, 4, 2]), { batchSize: 2, verbose: 0 });
      expect(averages(norm)).toEqual([MEAN, VARIANCE]);
    });

    test("behind layers that pass masks on, and in a call of the layer", () => {
      const norms = [0, 1].map(() => batchNormalization({ momentum: 0 }));
      const model = tfl.sequential({
        layers: [
          tfl.layers.masking({ maskValue: 0, inputShape: [4, 2] }),
          tfl.layers.dropout({ rate: 0 }),
          norms[0]!,
        ],
      });
      model.apply(padded(), { training: true });
      const mask = tf.tensor2d([1, 1, 0, 0, 1, 1, 0, 0], [2, 4], "bool");
      norms[1]!.apply(padded(), { training: true, mask });
      for (const norm of norms) expect(averages(norm)).toEqual([MEAN, VARIANCE]);
      // Keras: the result of a layer that makes a mask carries it.
      const alone = batchNormalization({ momentum: 0 });
      alone.apply(tfl.layers.masking({ maskValue: 0 }).apply(padded()), { training: true });
      expect(averages(alone)).toEqual([MEAN, VARIANCE]);
    });

    test("of Embedding", async () => {
      const norm = batchNormalization({ momentum: 0 });
      const embedding = tfl.layers.embedding({
        inputDim: 5,
        outputDim: 2,
        maskZero: true,
        inputLength: 3,
      });
      const model = tfl.sequential({ layers: [embedding, norm] });
      model.apply(tf.tensor2d([1, 2, 0, 3, 4, 0], [2, 3], "int32"), { training: true });
      const rows = tf.slice(embedding.getWeights()[0] as tf.Tensor2D, [1, 0]);
      const { mean, variance } = tf.moments(rows, 0);
      expectClose(norm.getWeights()[2]!, mean);
      expectClose(norm.getWeights()[3]!, variance);
    });

    test("values and gradients are those of Keras' formula, padding included", () => {
      const norm = batchNormalization();
      norm.build([null, 4, 2]);
      settle(norm);
      const [gamma, beta] = norm.trainableWeights.map((w) => w.read() as tf.Variable);
      const mask = tf.tensor2d([1, 1, 0, 1, 1, 1, 0, 0], [2, 4], "bool");
      const x = tf.variable(random([2, 4, 2], 13));
      const loss = (y: tf.Tensor) =>
        tf.sum(tf.mul(tf.square(y), tf.reshape(tf.sin(tf.range(0, 16)), [2, 4, 2]))) as tf.Scalar;
      const keras = () => {
        const weights = tf.expandDims(tf.cast(mask, "float32"), -1);
        const count = tf.sum(weights);
        const mean = tf.div(tf.sum(tf.mul(x, weights), [0, 1]), count);
        const squares = tf.mul(weights, tf.square(tf.sub(x, mean)));
        const variance = tf.div(tf.sum(squares, [0, 1]), count);
        const deviations = tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, 1e-3)));
        return loss(tf.add(tf.mul(deviations, gamma!), beta!));
      };
      const ours = () => loss(norm.apply(x, { training: true, mask }) as tf.Tensor);
      const variables = [x, gamma!, beta!];
      const expected = tf.variableGrads(keras, variables);
      const actual = tf.variableGrads(ours, variables);
      expectClose(actual.value, expected.value);
      for (const { name } of variables) expectClose(actual.grads[name]!, expected.grads[name]!);
    });

    test("at test time they change nothing", () => {
      const [model, norm] = masked();
      settle(norm);
      expectClose(model.predict(padded()) as tf.Tensor, byAverages(norm, padded()));
    });

    test("of another branch, which tfjs hands on as well, are left alone", async () => {
      const [a, b] = [tfl.input({ shape: [4, 2] }), tfl.input({ shape: [4, 2] })];
      const [first, second] = [0, 1].map(() => batchNormalization({ momentum: 0 }));
      const branch = first!.apply(tfl.layers.masking({ maskValue: 0 }).apply(a));
      const other = second!.apply(b);
      const sum = tfl.layers.concatenate().apply([branch, other] as tfl.SymbolicTensor[]);
      const model = tfl.model({ inputs: [a, b], outputs: sum as tfl.SymbolicTensor });
      model.apply([padded(), padded()], { training: true });
      expect(averages(first!)).toEqual([MEAN, VARIANCE]);
      expect(averages(second!)).toEqual([
        [2.75, 2.75],
        [8.9375, 11.9375],
      ]);
    });

    test("that ended before the layer are left alone", () => {
      const norm = batchNormalization({ momentum: 0 });
      const model = tfl.sequential({
        layers: [
          tfl.layers.masking({ maskValue: 0, inputShape: [4, 2] }),
          tfl.layers.simpleRNN({ units: 4, recurrentInitializer: "glorotUniform" }),
          norm,
        ],
      });
      expect((model.apply(padded(), { training: true }) as tf.Tensor).shape).toEqual([2, 4]);
    });

    test("that a layer ended, or the first input of a sum does not have, are left alone", () => {
      const [plain, masked] = [tfl.input({ shape: [4, 2] }), tfl.input({ shape: [4, 2] })];
      const mask = tfl.layers.masking({ maskValue: 0 }).apply(masked) as tfl.SymbolicTensor;
      const norms = [0, 1].map(() => batchNormalization({ momentum: 0 }));
      const dot = tfl.layers.dot({ axes: -1 }).apply([mask, mask]);
      const other = tfl.layers.reLU().apply(mask);
      const sum = tfl.layers.add().apply([plain, mask]);
      // tfjs hands a layer the latest mask of the model. In this order of outputs, `other` is computed between the sum
      // and the norm behind it, so that its mask is the latest there.
      const last = norms[1]!.apply(sum);
      const asked = vi.spyOn(norms[1]!, "call");
      const outputs = [norms[0]!.apply(dot), sum, other, last] as tfl.SymbolicTensor[];
      const model = tfl.model({ inputs: [plain, masked], outputs });
      model.apply([padded(), padded()], { training: true });
      expect(averages(norms[0]!)[0]).toEqual([29.75, 37.25, 0, 0]);
      expect(averages(norms[1]!)[0]).toEqual([5.5, 5.5]);
      expect(asked.mock.calls[0]![1]).toHaveProperty("mask.shape", [2, 4]);
    });

    test("of Add and its like, which tfjs gives one axis more", async () => {
      const inputs = [0, 1].map(() => tfl.input({ shape: [4, 2] }));
      const parts = inputs.map((input) => tfl.layers.masking({ maskValue: 0 }).apply(input));
      const norm = batchNormalization({ momentum: 0 });
      const mean = tfl.layers.average().apply(parts as tfl.SymbolicTensor[]);
      const model = compiled(
        tfl.model({ inputs, outputs: norm.apply(mean) as tfl.SymbolicTensor }),
      );
      await model.fit([padded(), padded()], tf.zeros([2, 4, 2]), { batchSize: 2, verbose: 0 });
      expect(averages(norm)).toEqual([MEAN, VARIANCE]);
    });

    test("in one call of a layer and not in another are refused, since tfjs does not say which one it runs", () => {
      const inputs = [0, 1].map(() => tfl.input({ shape: [4, 2] }));
      const [masked, plain] = [tfl.layers.masking().apply(inputs[0]!), inputs[1]!];
      const shared = batchNormalization({ name: "twice" });
      const outputs = [masked, plain].map((each) => shared.apply(each) as tfl.SymbolicTensor);
      const model = tfl.model({ inputs, outputs });
      const train = () => model.apply([padded(), padded()], { training: true });
      expect(train).toThrow(StateError);
      expect(train).toThrow(
        "mask: expected masks in all calls of the layer twice in models or in ",
      );
      expect(averages(shared)[0]).toEqual([0, 0]);
    });

    test("of a model inside the model, which tfjs frees, are left alone", async () => {
      const inner = tfl.sequential({
        layers: [tfl.layers.masking({ maskValue: 0, inputShape: [4, 2] })],
      });
      const input = tfl.input({ shape: [4, 2] });
      const norm = batchNormalization({ momentum: 0 });
      const outputs = norm.apply(inner.apply(input)) as tfl.SymbolicTensor;
      const model = compiled(tfl.model({ inputs: input, outputs }));
      await model.fit(padded(), tf.zeros([2, 4, 2]), { batchSize: 2, verbose: 0 });
      expect(averages(norm)[0]).toEqual([2.75, 2.75]);
    });

    test("without padding the bits are those without a mask", () => {
      const [one, other] = [batchNormalization(), batchNormalization()];
      const x = random([2, 4, 3], 14);
      const mask = tf.ones([2, 4], "bool");
      const y = one.apply(x, { training: true, mask }) as tf.Tensor;
      expect(y.dataSync()).toEqual((other.apply(x, { training: true }) as tf.Tensor).dataSync());
    });

    test("that do not fit are refused", () => {
      const mask = tf.tensor2d([1, 1, 0, 0], [2, 2], "bool");
      const apply = (args: BatchNormalizationArgs, given: unknown) => () =>
        batchNormalization(args).apply(padded(), { training: true, mask: given });
      expect(apply({}, mask)).toThrow(ShapeError);
      expect(apply({}, mask)).toThrow("mask: expected a tensor of shape [2, 4], or choose rules:");
      expect(apply({}, [1, 1])).toThrow("got an Array of length 2");
      const half = tf.tensor2d([1, 1, 0, 0, 1, 1, 0, 0], [2, 4], "bool");
      expect(apply({ axis: 1 }, half)).toThrow(UnsupportedError);
      expect(apply({ axis: 1, rules: "tfjs" }, half)()).toBeInstanceOf(tf.Tensor);
    });

    test('rules: "tfjs": they take no part', async () => {
      const [model, norm] = masked({ rules: "tfjs" });
      await model.fit(padded(), tf.zeros([2, 4, 2]), { batchSize: 2, verbose: 0 });
      expect(averages(norm)).toEqual([
        [2.75, 2.75],
        [8.9375, 11.9375],
      ]);
    });
  });

  describe("a mini-batch that has no variance", () => {
    test("33 examples in batches of 32: fit goes on, by the averages, which stay; one warning", async () => {
      const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
      const norm = batchNormalization({ name: "lonely", inputShape: [3] });
      const model = compiled(tfl.sequential({ layers: [norm] }));
      const x = random([33, 3], 15) as tf.Tensor2D;
      const steps: { batch: number; size: number; averages: number[][] }[] = [];
      await model.fit(x, tf.zeros([33, 3]), {
        batchSize: 32,
        epochs: 2,
        shuffle: false,
        verbose: 0,
        callbacks: {
          onBatchEnd: async (batch, logs) => {
            steps.push({ batch, size: logs!.size as number, averages: averages(norm) });
          },
        },
      });
      expect(steps.map(({ size }) => size)).toEqual([32, 1, 32, 1]);
      expect(steps[1]!.averages).toEqual(steps[0]!.averages);
      expect(steps[2]!.averages).not.toEqual(steps[1]!.averages);
      expect(steps[3]!.averages).toEqual(steps[2]!.averages);
      expect(norm.batchNorm.batchesSeen).toBe(2);
      expect(warn.mock.calls).toEqual([
        [
          "lonely: a mini-batch of 1 values per channel has no variance. It is normalized by the moving averages " +
            "and does not move them. In model.fit, choose a batchSize that leaves no last batch of one example.",
        ],
      ]);
      const one = tf.slice(x, [0, 0], [1, 3]);
      expectClose(norm.apply(one, { training: true }) as tf.Tensor, byAverages(norm, one));
    });

    test.each([
      { what: "nothing but padding", entries: [0, 0, 0, 0, 0, 0, 0, 0] },
      { what: "a single position of data", entries: [0, 0, 0, 1, 0, 0, 0, 0] },
    ])("$what", ({ entries }) => {
      vi.spyOn(console, "warn").mockImplementation(() => {});
      const norm = batchNormalization();
      norm.build([null, 4, 2]);
      settle(norm);
      const before = averages(norm);
      const x = random([2, 4, 2], 16);
      const mask = tf.tensor2d(entries, [2, 4], "bool");
      expectClose(norm.apply(x, { training: true, mask }) as tf.Tensor, byAverages(norm, x));
      expect(averages(norm)).toEqual(before);
    });

    test("an image has values enough", () => {
      const warn = vi.spyOn(console, "warn");
      const norm = batchNormalization();
      norm.apply(random([1, 2, 2, 3], 17), { training: true });
      expect(norm.batchNorm.batchesSeen).toBe(1);
      expect(warn).not.toHaveBeenCalled();
    });
  });

  describe("center and scale", () => {
    test.each([
      { center: false, scale: true },
      { center: true, scale: false },
      { center: false, scale: false },
    ])("$center $scale: fit trains", async (args) => {
      const norm = batchNormalization(args);
      const model = compiled(tfl.sequential({ layers: [dense(3, [4]), norm] }));
      const before = averages(norm);
      await model.fit(random([12, 4], 18), random([12, 3], 19), { verbose: 0 });
      expect(averages(norm)).not.toEqual(before);
    });
  });

  describe("arguments that are none", () => {
    test.each([
      ["decay", "momentum"],
      ["eps", "epsilon"],
      ["gamma", "scale"],
      ["affine", "scale and center"],
      ["layout", "axis"],
      ["beta_initializer", "betaInitializer"],
      ["training", "an option among axis, momentum"],
    ])("%s: %s", (name, ours) => {
      const make = () => batchNormalization({ [name]: 0.5 });
      expect(make).toThrow(OptionError);
      expect(make).toThrow(`${name}: expected ${ours}`);
      expect(() => new BatchNormalization({ [name]: 0.5 })).toThrow(OptionError);
    });

    test("are ignored in files, where Keras writes more than tfjs knows", () => {
      const config = { name: "of_keras_3", synchronized: false, renorm: false, axis: 1 };
      const layer = BatchNormalization.fromConfig(BatchNormalization, config) as BatchNormalization;
      expect(layer.name).toBe("of_keras_3");
      expect(layer.getConfig().axis).toBe(1);
    });

    test("rules", async () => {
      const wrong = "torch" as "tfjs";
      expect(() => batchNormalization({ rules: wrong })).toThrow('rules: expected one of "keras"');
      expect(() => register({ rules: wrong })).toThrow(OptionError);
      const model = tfl.sequential({
        layers: [batchNormalization({ inputShape: [3], trainable: false })],
      });
      const text = JSON.stringify(model.toJSON(null, false));
      expect(text).not.toContain("rules"); // Keras would refuse it
      for (const rules of ["keras", "tfjs"] as const) {
        const undo = register({ rules });
        const loaded = await tfl.models
          .modelFromJSON({ modelTopology: JSON.parse(text) })
          .finally(undo);
        const norm = loaded.layers[0] as BatchNormalization;
        expect(norm).toBeInstanceOf(BatchNormalization);
        expect(norm.getClassName()).toBe("BatchNormalization");
        norm.apply(random([8, 3], 20), { training: true });
        expect(norm.batchNorm.batchesSeen).toBe(rules === "tfjs" ? 1 : 0);
      }
    });
  });

  test("register gives both names back to those that had them", () => {
    const { classNameMap } = tf.serialization.SerializationMap.getMap();
    const now = () => [classNameMap.BatchNormalization?.[0], classNameMap.Normalization?.[0]];
    const theirs = now();
    const undo = register();
    const ours = now();
    expect(ours[0]).toBe(BatchNormalization);
    register({ rules: "tfjs" })();
    expect(now()).toEqual(ours);
    undo();
    expect(now()).toEqual(theirs);
    expect("Normalization" in classNameMap).toBe(false);
    const wrong = { rule: "tfjs" } as object;
    expect(() => register(wrong)).toThrow("rule: expected an option among rules");
    expect(now()).toEqual(theirs);
  });

  test("a backend that is refused is refused by the name that users know", async () => {
    class FakeBackend extends tf.KernelBackend {
      override dispose(): void {}
    }
    const layer = batchNormalization();
    layer.build([null, 3]);
    const x = tf.zeros([2, 3]);
    tf.registerBackend("webgl", () => new FakeBackend());
    try {
      await tf.setBackend("webgl");
      const message = "batchNormalization: expected a tfjs backend with its data in main memory";
      expect(() => layer.apply(x)).toThrow(message);
      expect(() => batchNormalization().build([null, 3])).toThrow(message);
    } finally {
      await tf.setBackend(backend);
      tf.removeBackend("webgl");
    }
  });
});
