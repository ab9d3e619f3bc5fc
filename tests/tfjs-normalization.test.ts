/** Keras' layer `Normalization` in tfjs-layers: the examples of Keras' own documentation, the formula, model files. */

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import * as tfl from "@tensorflow/tfjs-layers";
import {
  BatchNorm,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import {
  BatchNormalization,
  batchNormalization,
  Normalization,
  type NormalizationArgs,
  normalization,
  register,
} from "batchnorm-wasm/tfjs-layers";
import { describe, expect, test, vi } from "vitest";
import { BACKENDS, expectClose, onBackend, random } from "./support/tfjs.js";

/** The formula in float64, of values and statistics that lie in the same order. */
const formula = (x: number, mean: number, variance: number): number =>
  (x - mean) / Math.max(Math.sqrt(variance), 1e-7);

describe.each(BACKENDS)("%s", (backend) => {
  onBackend(backend);

  describe("the examples of Keras' documentation", () => {
    const table = [
      [0, 7, 4],
      [2, 9, 6],
      [0, 7, 4],
      [2, 9, 6],
    ];

    test("one mean of all values", async () => {
      const layer = normalization({ axis: null });
      await layer.adapt([1, 2, 3, 4, 5]);
      expectClose(
        layer.apply(tf.tensor1d([1, 2, 3])) as tf.Tensor,
        tf.tensor1d([-Math.SQRT2, -Math.SQRT1_2, 0]),
        1e-7,
      );
    });

    test("a mean for each index of the last axis", async () => {
      const layer = normalization();
      await layer.adapt(table);
      expectClose(
        layer.apply(tf.tensor2d([[0, 7, 4]])) as tf.Tensor,
        tf.tensor2d([[-1, -1, -1]]),
        1e-7,
      );
      const [mean, variance, count] = layer.getWeights();
      expect([...mean!.dataSync(), ...variance!.dataSync()]).toEqual([1, 8, 5, 1, 1, 1]);
      expect([count!.dtype, count!.shape, ...count!.dataSync()]).toEqual(["int32", [], 4]);
    });

    test("mean and variance that are given", () => {
      const layer = normalization({ mean: 3, variance: 2 });
      const y = layer.apply(tf.tensor2d([[1], [2], [3]])) as tf.Tensor;
      expectClose(y, tf.tensor2d([[-Math.SQRT2], [-Math.SQRT1_2], [0]]), 1e-7);
      expect(layer.weights).toEqual([]);
    });

    test("back to the values of the data", async () => {
      const layer = normalization({ invert: true });
      await layer.adapt(tf.tensor2d(table));
      expectClose(
        layer.apply(tf.tensor2d([[1, 2, 3]])) as tf.Tensor,
        tf.tensor2d([[2, 10, 8]]),
        1e-7,
      );
    });
  });

  describe("every choice of axes", () => {
    test.each([
      { shape: [6, 3], axis: -1 },
      { shape: [6, 3], axis: [1] },
      { shape: [4, 2, 3], axis: 1 },
      { shape: [4, 2, 3], axis: [1, 2] },
      { shape: [4, 2, 3], axis: [-1, -2] },
      { shape: [4, 2, 5, 3], axis: [1, 3] },
      { shape: [4, 2, 5, 3], axis: [1, 2] },
      { shape: [4, 2, 3], axis: null },
      { shape: [4, 2, 3], axis: [] },
      { shape: [4, 2, 3], axis: [0, 2] },
      { shape: [7], axis: 0 },
    ])("$shape axis $axis: as tf.moments says, and its gradient", async ({ shape, axis }) => {
      const data = random(shape, 1, 5, 3);
      const layer = normalization({ axis, batchInputShape: shape });
      layer.build(shape);
      await layer.adapt(data);
      const kept = (axis === null ? [] : [axis].flat()).map(
        (i) => (i + shape.length) % shape.length,
      );
      const others = shape.map((_, i) => i).filter((i) => !kept.includes(i));
      const { mean, variance } = tf.moments(data, others, true);
      expectClose(
        layer.getWeights()[0]!,
        tf.reshape(
          mean,
          [...kept].sort().map((i) => shape[i]!),
        ),
      );
      const x = random(shape, 2, 5, 3);
      const deviation = tf.maximum(tf.sqrt(variance), 1e-7);
      const byFormula = (x: tf.Tensor) => tf.div(tf.sub(x, mean), deviation);
      expectClose(layer.apply(x) as tf.Tensor, byFormula(x));
      if (others.length === 0) return; // all variances are 0
      const weights = random(shape, 3);
      const loss = (f: (x: tf.Tensor) => tf.Tensor) => (x: tf.Tensor) =>
        tf.sum(tf.mul(tf.square(f(x)), weights));
      const gradient = tf.grad(loss((x) => layer.apply(x) as tf.Tensor))(x);
      expectClose(gradient, tf.grad(loss(byFormula))(x));
      const inverse = normalization({ axis, batchInputShape: shape, invert: true });
      inverse.build(shape);
      inverse.setWeights(layer.getWeights());
      expectClose(inverse.apply(layer.apply(x)) as tf.Tensor, x);
    });
  });

  describe("data to adapt to", () => {
    const all = () => random([12, 3], 4, 100, 2) as tf.Tensor2D;
    const weightsOf = async (data: unknown): Promise<number[][]> => {
      const layer = normalization();
      await layer.adapt(data);
      return layer.getWeights().map((weight) => [...weight.dataSync()]);
    };

    test("in batches of any kind: as all at once", async () => {
      const x = all();
      const expected = await weightsOf(x);
      const [mean, variance] = tf.moments(x, 0) && [
        tf.moments(x, 0).mean,
        tf.moments(x, 0).variance,
      ];
      expectClose(tf.tensor1d(expected[0]!), mean);
      expectClose(tf.tensor1d(expected[1]!), variance, 1e-4);
      const batches = tf.split(x, [5, 6, 1]);
      async function* later() {
        for (const batch of batches) yield batch;
      }
      let at = 0;
      const dataset = {
        iterator: async () => ({
          next: async () => {
            const batch = batches[at++];
            return batch
              ? { done: false, value: { xs: tf.clone(batch), ys: tf.zeros([1]) } }
              : { done: true, value: null };
          },
        }),
      };
      const { numTensors } = tf.memory();
      const kinds = [batches, new Set(batches), later(), batches.map((xs) => ({ xs })), dataset];
      for (const data of kinds) {
        const actual = await weightsOf(data);
        actual.forEach((values, i) => {
          expectClose(tf.tensor(values), tf.tensor(expected[i]!), 1e-7);
        });
      }
      expect((await weightsOf([[x, tf.zeros([12])]]))[2]).toEqual([12]);
      const nested = new Set(batches.map((batch) => batch.arraySync()));
      expect((await weightsOf(nested))[2]).toEqual([12]);
      expect(tf.memory().numTensors - numTensors).toBeLessThan(6 * 3 * 5); // weights, and what this test made
    });

    test("a Float32Array, integers", async () => {
      const layer = normalization({ axis: null });
      await layer.adapt(Float32Array.of(1, 3));
      expect(layer.getWeights().map((w) => w.dataSync()[0])).toEqual([2, 1, 2]);
      const whole = normalization();
      await whole.adapt(tf.tensor2d([1, 2, 3, 6], [2, 2], "int32"));
      expectClose(
        whole.apply(tf.tensor2d([3, 4], [1, 2], "int32")) as tf.Tensor,
        tf.tensor2d([[1, 0]]),
      );
    });

    test("arrays in batches: each is an input, none the pair of an input and a target", async () => {
      const layer = normalization({ axis: null });
      await layer.adapt(new Set([[1, 2, 3], Int32Array.of(6)]));
      expect(layer.getWeights().map((w) => w.dataSync()[0])).toEqual([3, 3.5, 4]);
      const sequences = normalization();
      await sequences.adapt(
        new Set([
          [
            [[1], [2]],
            [[3], [6]],
          ],
        ]),
      );
      expect(sequences.getWeights().map((w) => w.dataSync()[0])).toEqual([3, 3.5, 4]);
    });

    test("a tensor is taken at once, and adapting again forgets", async () => {
      const layer = normalization();
      void layer.adapt(tf.tensor2d([[1], [3]]));
      expect(layer.getWeights()[0]!.dataSync()[0]).toBe(2);
      await layer.adapt(tf.tensor2d([[10], [30]]));
      expect(layer.getWeights().map((w) => w.dataSync()[0])).toEqual([20, 100, 2]);
    });

    test("with a mean of a million deviations", async () => {
      const layer = normalization();
      const values = Float32Array.from({ length: 64 }, (_, i) => 1e6 + (i % 4));
      await layer.adapt(tf.tensor2d(values, [64, 1]));
      expect(layer.getWeights()[1]!.dataSync()[0]).toBe(1.25);
    });

    test("a feature that never differs: differences count 1e7 times, as in Keras", async () => {
      const layer = normalization();
      await layer.adapt(tf.tensor2d([[5], [5]]));
      const y = layer.apply(tf.tensor2d([[5], [6]])) as tf.Tensor;
      expectClose(y, tf.tensor2d([[0], [1e7]]), 1e-6);
    });

    test("one layer of kernels counts all batches", async () => {
      const moments = vi.spyOn(BatchNorm.prototype, "moments");
      try {
        await normalization().adapt(tf.split(all(), 3));
        expect([moments.mock.calls.length, new Set(moments.mock.contexts).size]).toEqual([3, 1]);
      } finally {
        moments.mockRestore();
      }
    });

    test("leaves no tensors behind", async () => {
      const layer = normalization({ axis: [1, 3] });
      const x = random([2, 3, 4, 2], 5);
      await layer.adapt(x);
      tf.dispose(layer.apply(x) as tf.Tensor);
      const { numTensors, numDataBuffers } = tf.memory();
      for (let i = 0; i < 3; i++) {
        await layer.adapt(x);
        tf.dispose(layer.apply(x) as tf.Tensor);
        tf.dispose(tf.grad((t) => layer.apply(t) as tf.Tensor)(x));
      }
      expect(tf.memory().numTensors).toBe(numTensors);
      expect(tf.memory().numDataBuffers).toBe(numDataBuffers);
    });
  });

  describe("in a model", () => {
    test("fit does not move it; saved and loaded, it predicts the same", async () => {
      const norm = normalization({ inputShape: [3], name: "features" });
      await norm.adapt(random([20, 3], 6, 30, 7));
      const model = tfl.sequential({ layers: [norm, tfl.layers.dense({ units: 1 })] });
      const before = norm.getWeights().map((w) => w.dataSync());
      model.compile({ optimizer: "sgd", loss: "meanSquaredError" });
      await model.fit(random([20, 3], 7, 30, 7), tf.zeros([20, 1]), { verbose: 0 });
      expect(norm.getWeights().map((w) => w.dataSync())).toEqual(before);

      let artifacts: tf.io.ModelArtifacts | undefined;
      await model.save(
        tf.io.withSaveHandler(async (given) => {
          artifacts = given;
          return { modelArtifactsInfo: tf.io.getModelArtifactsInfoForJSON(given) };
        }),
      );
      expect(artifacts!.weightSpecs!.map(({ name, dtype }) => [name, dtype]).slice(-3)).toEqual([
        ["features/mean", "float32"],
        ["features/variance", "float32"],
        ["features/count", "int32"],
      ]);
      const { weightData, ...text } = artifacts!;
      const handler = () => tf.io.fromMemory({ ...JSON.parse(JSON.stringify(text)), weightData });
      await expect(tfl.loadLayersModel(handler())).rejects.toThrow("Unknown layer: Normalization");
      const undo = register();
      const loaded = await tfl.loadLayersModel(handler()).finally(undo);
      await expect(tfl.loadLayersModel(handler())).rejects.toThrow("Unknown layer: Normalization");
      expect(loaded.layers[0]).toBeInstanceOf(Normalization);
      const x = random([4, 3], 8, 30, 7);
      expect((loaded.predict(x) as tf.Tensor).dataSync()).toEqual(
        (model.predict(x) as tf.Tensor).dataSync(),
      );
    });

    test("like EfficientNet's, from a file as Keras' converter writes it", async () => {
      const shape = [null, 4, 4, 3];
      const layer = (class_name: string, name: string, config: object, from: string[]) => ({
        class_name,
        name,
        config: { name, trainable: true, dtype: "float32", ...config },
        inbound_nodes: from.length > 0 ? [from.map((each) => [each, 0, 0, {}])] : [],
      });
      const modelTopology = {
        keras_version: "2.12.0",
        backend: "tensorflow",
        model_config: {
          class_name: "Functional",
          config: {
            name: "efficientnet_like",
            layers: [
              layer(
                "InputLayer",
                "input_1",
                { batch_input_shape: shape, sparse: false, ragged: false },
                [],
              ),
              layer("Rescaling", "rescaling", { scale: 1 / 255, offset: 0 }, ["input_1"]),
              layer(
                "Normalization",
                "normalization",
                { axis: [3], mean: null, variance: null, invert: false },
                ["rescaling"],
              ),
              layer(
                "Conv2D",
                "stem_conv",
                {
                  filters: 2,
                  kernel_size: [1, 1],
                  strides: [1, 1],
                  padding: "valid",
                  data_format: "channels_last",
                  dilation_rate: [1, 1],
                  groups: 1,
                  activation: "linear",
                  use_bias: false,
                },
                ["normalization"],
              ),
              layer(
                "BatchNormalization",
                "stem_bn",
                {
                  axis: [3],
                  momentum: 0.99,
                  epsilon: 0.001,
                  center: true,
                  scale: true,
                  synchronized: false,
                },
                ["stem_conv"],
              ),
              layer("Activation", "stem_activation", { activation: "swish" }, ["stem_bn"]),
              layer(
                "GlobalAveragePooling2D",
                "avg_pool",
                { data_format: "channels_last", keepdims: false },
                ["stem_activation"],
              ),
            ],
            input_layers: [["input_1", 0, 0]],
            output_layers: [["avg_pool", 0, 0]],
          },
        },
      };
      const weights: Record<string, { shape: number[]; values: number[] }> = {
        "normalization/mean": { shape: [3], values: [0.485, 0.456, 0.406] },
        "normalization/variance": { shape: [3], values: [0.052441, 0.050176, 0.050625] },
        "stem_conv/kernel": { shape: [1, 1, 3, 2], values: [0.5, -1, 1, 0.25, -0.75, 2] },
        "stem_bn/gamma": { shape: [2], values: [1.5, 0.5] },
        "stem_bn/beta": { shape: [2], values: [0.1, -0.2] },
        "stem_bn/moving_mean": { shape: [2], values: [0.3, -0.4] },
        "stem_bn/moving_variance": { shape: [2], values: [2, 0.5] },
      };
      const floats = Object.entries(weights);
      const weightSpecs = [
        { name: "normalization/count", shape: [], dtype: "int32" as const },
        ...floats.map(([name, { shape }]) => ({ name, shape, dtype: "float32" as const })),
      ];
      const values = floats.flatMap(([, each]) => each.values);
      const weightData = new ArrayBuffer(4 + 4 * values.length);
      new Float32Array(weightData, 4).set(values);
      const undo = register();
      const model = await tfl
        .loadLayersModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData }))
        .finally(undo);
      expect(model.layers[2]).toBeInstanceOf(Normalization);
      expect(model.layers[4]).toBeInstanceOf(BatchNormalization);

      const x = tf.randomUniform([2, 4, 4, 3], 0, 255, "float32", 9);
      const w = (name: string) => weights[name]!.values;
      const expected: number[] = [];
      const pixels = x.dataSync();
      for (let n = 0; n < 2; n++) {
        for (let f = 0; f < 2; f++) {
          let sum = 0;
          for (let p = 0; p < 16; p++) {
            let h = 0;
            for (let c = 0; c < 3; c++) {
              const pixel = pixels[(n * 16 + p) * 3 + c]! / 255;
              const normalized = formula(
                pixel,
                w("normalization/mean")[c]!,
                w("normalization/variance")[c]!,
              );
              h += normalized * w("stem_conv/kernel")[c * 2 + f]!;
            }
            const deviation = Math.sqrt(w("stem_bn/moving_variance")[f]! + 1e-3);
            const y =
              (w("stem_bn/gamma")[f]! * (h - w("stem_bn/moving_mean")[f]!)) / deviation +
              w("stem_bn/beta")[f]!;
            sum += y / (1 + Math.exp(-y));
          }
          expected.push(sum / 16);
        }
      }
      expectClose(model.predict(x) as tf.Tensor, tf.tensor2d(expected, [2, 2]), 1e-6);
    });

    test("with mean and variance in the configuration, which need no weights", () => {
      const config = {
        axis: [-1],
        mean: [[[1, 2]]],
        variance: [[[4, 9]]],
        dtype: "float32",
        keras: 3,
      };
      const layer = Normalization.fromConfig(Normalization, config) as Normalization;
      expectClose(layer.apply(tf.tensor2d([[3, 8]])) as tf.Tensor, tf.tensor2d([[1, 2]]), 1e-6);
      const again = Normalization.fromConfig(Normalization, layer.getConfig()) as Normalization;
      expect(again.getConfig()).toEqual(layer.getConfig());
      const wide = normalization({ axis: [1, 2], mean: [1, 2], variance: [4, 9] });
      const y = wide.apply(tf.tensor3d([3, 8, 5, 11], [1, 2, 2])) as tf.Tensor;
      expectClose(y, tf.tensor3d([1, 2, 2, 3], [1, 2, 2]), 1e-6);
    });

    test("given in any form of numbers: saved and loaded, it predicts the same", async () => {
      const x = tf.tensor2d([[3, 8]]);
      const forms = [Float32Array.of(1, 2), Int32Array.of(1, 2), tf.tensor1d([1, 2]), [[1, 2]]];
      for (const mean of forms as tf.TensorLike[]) {
        const norm = normalization({ mean, variance: [4, 9], inputShape: [2] });
        const model = tfl.sequential({ layers: [norm] });
        expectClose(model.predict(x) as tf.Tensor, tf.tensor2d([[1, 2]]));
        const text = JSON.stringify(model.toJSON(null, false));
        const undo = register();
        const loaded = await tfl.models
          .modelFromJSON({ modelTopology: JSON.parse(text) })
          .finally(undo);
        expectClose(loaded.predict(x) as tf.Tensor, tf.tensor2d([[1, 2]]));
      }
    });

    test("given with axes of size 1, which broadcast", () => {
      const y = (mean: tf.TensorLike, shape: number[]) =>
        normalization({ axis: [1, 2], mean, variance: 1 }).apply(tf.zeros([1, ...shape]));
      const rows = y([[1], [2]], [2, 3]) as tf.Tensor;
      expect([...rows.dataSync()]).toEqual([-1, -1, -1, -2, -2, -2]);
      const columns = y([[1, 2, 3]], [2, 3]) as tf.Tensor;
      expect([...columns.dataSync()]).toEqual([-1, -2, -3, -1, -2, -3]);
    });

    test("given a tensor that is freed afterwards: the layer has its numbers", () => {
      const given = { mean: tf.tensor1d([1, 2]), variance: Float32Array.of(4, 0.25) };
      const layer = normalization(given as object);
      given.mean.dispose();
      given.variance[0] = 100;
      const x = tf.tensor2d([[3, 3]]);
      expect([...(layer.apply(x) as tf.Tensor).dataSync()]).toEqual([1, 2]);
      expect(layer.getConfig()).toMatchObject({ mean: [1, 2], variance: [4, 0.25] });
      const again = Normalization.fromConfig(Normalization, layer.getConfig()) as Normalization;
      expect([...(again.apply(x) as tf.Tensor).dataSync()]).toEqual([1, 2]);
    });

    test("register leaves a layer of that name that somebody else had", () => {
      class Own extends tfl.layers.Layer {
        static readonly className = "Normalization";
      }
      const { classNameMap } = tf.serialization.SerializationMap.getMap();
      tf.serialization.registerClass(Own);
      const undo = register();
      expect(classNameMap.Normalization![0]).toBe(Normalization);
      undo();
      expect(classNameMap.Normalization![0]).toBe(Own);
      delete classNameMap.Normalization;
    });
  });

  test("no examples", async () => {
    const layer = normalization({ mean: 1, variance: 1 });
    expect((layer.apply(tf.zeros([0, 3])) as tf.Tensor).shape).toEqual([0, 3]);
    const gradient = tf.grad((x) => layer.apply(x) as tf.Tensor);
    expect(gradient(tf.zeros([0, 3])).shape).toEqual([0, 3]);
  });

  test.runIf(backend === "cpu")(
    "on a backend of a graphics processor: operations of tfjs",
    async () => {
      const layer = normalization();
      await layer.adapt(random([20, 3], 10));
      const x = random([5, 3], 11);
      const [given, inverse] = [
        { mean: 2, variance: 3 },
        { mean: 2, variance: 3, invert: true },
      ].map(normalization);
      const layers = [layer, given!, inverse!];
      const expected = layers.map((each) => each.apply(x) as tf.Tensor);
      const backed = tf.findBackendFactory(backend);
      tf.copyRegisteredKernels(backend, "webgl");
      tf.registerBackend("webgl", backed);
      try {
        await tf.setBackend("webgl");
        const again = normalization();
        await again.adapt(random([20, 3], 10));
        const values = await Promise.all(layers.map((each) => (each.apply(x) as tf.Tensor).data()));
        const weights = await again.getWeights()[0]!.data();
        await tf.setBackend(backend);
        values.forEach((each, i) => {
          expectClose(tf.tensor(each, [5, 3]), expected[i]!, 1e-6);
        });
        expectClose(tf.tensor1d(weights), layer.getWeights()[0]!, 1e-6);
      } finally {
        await tf.setBackend(backend);
        tf.removeBackend("webgl");
      }
    },
  );

  describe("errors", () => {
    test("of arguments", () => {
      const make = (args: object) => () => normalization(args as NormalizationArgs);
      expect(make({ axes: 1 })).toThrow(OptionError);
      expect(make({ mean: 1 })).toThrow("variance: expected a value, as mean has one, got none");
      expect(make({ variance: 1 })).toThrow("mean: expected a value, as variance has one");
      expect(make({ invert: 1 })).toThrow(OptionError);
      expect(make({ mean: "3", variance: 1 })).toThrow('mean: expected a tf.Tensor, got "3"');
      expect(make({ mean: batchNormalization({ name: "bn" }), variance: 1 })).toThrow(
        'mean: expected a tf.Tensor, got BatchNormalization({ name: "bn" })',
      );
      const build = (args: object, shape: (number | null)[]) => () => make(args)().build(shape);
      expect(build({ axis: 2 }, [null, 3])).toThrow(OptionError);
      expect(build({ axis: 0 }, [null, 3])).toThrow(
        "axis: expected axes of known size in [null, 3], or null for one mean of all values, got 0",
      );
      expect(build({ axis: [1, -1] }, [null, 3])).toThrow(
        "axis: expected each axis once, got [1, -1]",
      );
      expect(build({ mean: [1, 2], variance: [1, 2] }, [null, 3])).toThrow(ShapeError);
      expect(build({ mean: [1, 2], variance: [1, 2] }, [null, 3])).toThrow(
        "broadcasts to [3], got [2]",
      );
    });

    test("of calls and data: nothing changes", async () => {
      const layer = normalization();
      expect(() => layer.call(tf.zeros([1, 1]))).toThrow(StateError);
      await layer.adapt(tf.tensor2d([[1], [3]]));
      const before = layer.getWeights().map((w) => w.dataSync()[0]);
      await expect(layer.adapt(tf.tensor2d([[1], [Number.NaN]]))).rejects.toThrow(NonFiniteError);
      await expect(layer.adapt([])).rejects.toThrow("data: expected at least one value, got none");
      for (const empty of [tf.zeros([0, 1]), [tf.zeros([0, 1]), tf.zeros([0, 1])]]) {
        await expect(layer.adapt(empty)).rejects.toThrow(SingleValueError);
        await expect(layer.adapt(empty)).rejects.toThrow("data: expected at least one value, got");
      }
      for (const wrong of [tf.zeros([2, 2]), tf.zeros([2, 1, 1])]) {
        await expect(layer.adapt(wrong)).rejects.toThrow(ShapeError);
        await expect(layer.adapt(wrong)).rejects.toThrow("a tensor of shape [null, 1], got [2, ");
        expect(() => layer.call(wrong)).toThrow(ShapeError);
      }
      await expect(layer.adapt(7)).rejects.toThrow(ShapeError);
      await expect(layer.adapt(null)).rejects.toThrow("data: expected a tensor, an array or bat");
      await expect(layer.adapt(["a"])).rejects.toThrow(ShapeError);
      await expect(layer.adapt([[1], []])).rejects.toThrow(ShapeError);
      expect(layer.getWeights().map((w) => w.dataSync()[0])).toEqual(before);
      await expect(normalization({ mean: 1, variance: 1 }).adapt([[1]])).rejects.toThrow(
        StateError,
      );
      expect(() => layer.call([tf.zeros([1, 1]), tf.zeros([1, 1])])).toThrow(ShapeError);
      expect(() => layer.apply(tf.tensor2d([["a"]]))).toThrow(ShapeError);
      layer.setWeights([tf.zeros([1]), tf.tensor1d([-1]), tf.scalar(0, "int32")]);
      expect(() => layer.apply(tf.zeros([1, 1]))).toThrow(StateError);
      for (const variance of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
        for (const invert of [false, true]) {
          const given = normalization({ mean: 0, variance, invert });
          expect(() => given.apply(tf.zeros([1, 1]))).toThrow(
            `variance: expected finite numbers >= 0, got ${variance} at 0`,
          );
        }
      }
    });

    test("of the first data: the layer takes others afterwards", async () => {
      const layer = normalization();
      await expect(layer.adapt([[1, Number.NaN, 3]])).rejects.toThrow(NonFiniteError);
      expect(layer.built).toBe(false);
      await layer.adapt([[1, 2]]);
      expect([...layer.getWeights()[0]!.dataSync()]).toEqual([1, 2]);
    });

    test("in a data set: its tensors are freed", async () => {
      const layer = normalization();
      const once = [tf.tensor2d([[1], [Number.NaN]])];
      const next = async () => ({ done: once.length === 0, value: once.pop() });
      const { numTensors } = tf.memory();
      await expect(layer.adapt({ iterator: async () => ({ next }) })).rejects.toThrow(
        "x: expected",
      );
      expect(tf.memory().numTensors).toBe(numTensors - 1);
    });
  });
});
