// Keras models in the TensorFlow.js layers format: files that TensorFlow.js wrote, and back.

import {
  BatchNorm,
  type BatchNormError,
  OptionError,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import { type KerasFiles, readKeras, writeKeras } from "batchnorm-wasm/state";
import { describe, expect, test, vi } from "vitest";
import { assertWithin } from "../support/compare.js";
import { normal } from "../support/data.js";
import { goldenBytes, kerasFiles, kerasGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";

const { evaluations } = kerasGolden();
const NAMES = ["bn_conv", "bn_head", "bn_last"];

/** A model of one layer, its config as given, its weights those of a layer of three channels. */
function modelOf(config: object, change: { item?: object; entry?: object; json?: object } = {}) {
  const names = ["gamma", "beta", "moving_mean", "moving_variance"];
  if ("renorm" in config && config.renorm === true) {
    names.push("moving_stddev", "renorm_mean", "renorm_stddev");
  }
  const values = names.flatMap((_, i) => [i + 1, i + 2, i + 3]);
  return {
    model: {
      modelTopology: {
        keras_version: "2.12.0",
        backend: "tensorflow",
        model_config: {
          class_name: "Sequential",
          config: {
            name: "sequential",
            layers: [
              {
                class_name: "BatchNormalization",
                config: { name: "bn", ...config },
                ...change.item,
              },
            ],
          },
        },
      },
      weightsManifest: [
        {
          paths: ["a.bin", "b.bin"],
          weights: names.map((name) => ({
            name: `sequential/bn/${name}`,
            shape: [3],
            dtype: "float32",
            ...change.entry,
          })),
        },
      ],
      ...change.json,
    },
    weights: {
      "a.bin": new Uint8Array(Float32Array.from(values.slice(0, 5)).buffer),
      "b.bin": new Uint8Array(Float32Array.from(values.slice(5)).buffer),
    },
  };
}

describe("models of TensorFlow.js", () => {
  test.each(["keras", "keras-quantized"])("%s: the same outputs, to 1e-6", (name) => {
    const file = readKeras(kerasFiles(name));
    expect(file.layers).toEqual(NAMES);
    const layers = file.loadAll();
    for (const layer of NAMES) {
      const { x, y } = evaluations[name]![layer]!;
      const actual = layers[layer]!.infer(x);
      assertWithin(layer, actual, y, (i) => 1e-6 * Math.max(1, Math.abs(y[i]!)));
    }
  });

  test("options come from the config", () => {
    const { bn_conv, bn_head, bn_last } = readKeras(kerasFiles("keras")).loadAll();
    expect([bn_conv!.epsilon, bn_head!.epsilon]).toEqual([1e-4, 1e-3]);
    expect([bn_conv!.decay, bn_head!.decay]).toEqual([0.99, 0.5]);
    expect([bn_conv!.gamma, bn_head!.gamma, bn_last!.gamma].map((v) => v !== null)).toEqual([
      true,
      false,
      true,
    ]);
    expect(bn_last!.beta).toBeNull();
    const like = BatchNorm.keras(3, { epsilon: 1e-4 });
    expect(bn_conv!.runningVarianceOf).toBe(like.runningVarianceOf);
    expect([bn_conv!.batchesSeen, bn_conv!.ageKnown]).toEqual([1, false]);
  });

  test("the model as text, parsed, or bytes", () => {
    const { model, weights } = kerasFiles("keras");
    const expected = readKeras({ model, weights }).load("bn_conv").snapshot();
    const bytes = new TextEncoder().encode(model);
    for (const given of [JSON.parse(model), bytes, bytes.buffer]) {
      expect(readKeras({ model: given, weights }).load("bn_conv").snapshot()).toEqual(expected);
    }
    const twice = JSON.stringify(model);
    for (const given of [twice, new TextEncoder().encode(twice)]) {
      assertRefuses(
        StateError,
        /^model: expected JSON of an object, got JSON of a text; JSON\.parse gives that text$/,
        () => readKeras({ model: given, weights }),
      );
    }
  });
});

describe("models of the converter from Python", () => {
  test("weights are found by the ends of their names, across shards", () => {
    const bn = readKeras(modelOf({ axis: [3], epsilon: 0.01, momentum: 0.9 })).load("bn");
    expect([[...bn.gamma!], [...bn.beta!]]).toEqual([
      [1, 2, 3],
      [2, 3, 4],
    ]);
    expect([[...bn.runningMean], [...bn.runningVariance]]).toEqual([
      [3, 4, 5],
      [4, 5, 6],
    ]);
    expect([bn.layout, bn.epsilon, bn.decay]).toEqual(["NHWC", 0.01, 0.9]);
  });

  test.each<[unknown, unknown[] | null, string | null]>([
    [-1, null, "channelsLast"],
    [[2], null, "NLC"],
    [[4], null, "NDHWC"],
    [5, null, "channelsLast"],
    [1, null, "channelsFirst"],
    [[5], [null, 2, 8, 8, 8, 3], "channelsLast"],
    [[4], [null, 2, 8, 8, 3], "NDHWC"],
    [1, [null, 3, 8, 8, 8, 8], "channelsFirst"],
    [0, [3], null],
    [-1, [null, 3], "NC"],
    [1, [null, 3], "NC"],
    [1, [null, 3, 8, 8], "NCHW"],
    [-3, [null, 3, 8, 8], "NCHW"],
    [3, [null, 8, 8, 3], "NHWC"],
    [2, [null, 8, 3], "NLC"],
    [1, [null, 3, 8], "NCL"],
    [2, [null, 8, 3, 8], null],
    [[1, 2], null, null],
    ["last", null, null],
  ])("axis %j of %j: %s", (axis, shape, layout) => {
    for (const files of [
      modelOf({ axis, ...(shape && { batch_input_shape: shape }) }),
      modelOf({ axis }, shape ? { item: { build_config: { input_shape: shape } } } : {}),
    ]) {
      const file = readKeras(files);
      if (layout !== null) expect(file.load("bn").layout).toBe(layout);
      else {
        assertRefuses(OptionError, /^layout: expected for layer "bn", whose axis /, () =>
          file.load("bn"),
        );
        expect(file.load("bn", { layout: "NCHW" }).layout).toBe("NCHW");
      }
    }
  });

  test("layers of one name go by those of the models around them", () => {
    const nested = (name: string) => ({
      class_name: "Functional",
      config: {
        name,
        layers: [{ class_name: "SyncBatchNormalization", config: { name: "bn" } }],
      },
    });
    const weights = ["left", "right"].flatMap((name) =>
      ["gamma", "beta", "moving_mean", "moving_variance"].map((weight) => ({
        name: `${name}/bn/${weight}`,
        shape: [1],
        dtype: "float32",
      })),
    );
    const read = () =>
      readKeras({
        model: {
          modelTopology: {
            class_name: "Model",
            config: { name: "model", layers: [nested("left"), nested("right")] },
          },
          weightsManifest: [{ paths: ["w"], weights }],
        },
        weights: { w: Float32Array.from(weights, (_, i) => i).buffer },
      });
    const file = read();
    expect(file.layers).toEqual(["left/bn", "right/bn"]);
    expect([...file.load("right/bn").runningMean]).toEqual([6]);
    // What lies under the bare name is not known to be the right one's.
    for (const weight of weights) weight.name = weight.name.replace("right/", "");
    const other = read();
    expect([...other.load("left/bn").runningMean]).toEqual([2]);
    assertRefuses(
      StateError,
      /^weightsManifest: expected "bn\/moving_mean" for layer "right\/bn"/,
      () => other.load("right/bn"),
    );
  });

  test("weights of one ending are not told apart by it", () => {
    const { model, weights } = modelOf({});
    const { paths, weights: entries } = model.weightsManifest[0]!;
    const more = entries.map((entry) => ({ ...entry, name: `other/${entry.name}` }));
    const file = readKeras({
      model: { ...model, weightsManifest: [{ paths, weights: [...entries, ...more] }] },
      weights: { ...weights, "b.bin": new Uint8Array(48 + 48 - 20) },
    });
    assertRefuses(
      StateError,
      /^weightsManifest: expected "bn\/moving_mean" for layer "bn", got several$/,
      () => file.load("bn"),
    );
  });

  test("texts among the weights are passed over", () => {
    const { model, weights } = modelOf({});
    const group = model.weightsManifest[0]!;
    const words = { name: "words", shape: [2], dtype: "string" };
    const read = (texts: number[]) =>
      readKeras({
        model: {
          ...model,
          weightsManifest: [
            { ...group, paths: ["t", "a.bin", "b.bin"], weights: [words, ...group.weights] },
          ],
        },
        weights: { ...weights, t: Uint8Array.from(texts) },
      });
    const layer = read([3, 0, 0, 0, 65, 66, 67, 0, 0, 0, 0]).load("bn");
    expect([...layer.runningMean]).toEqual([3, 4, 5]);
    for (const texts of [
      [255, 255, 255, 255],
      [3, 0],
    ]) {
      assertRefuses(StateError, /^(words|.*gamma): expected bytes up to/, () => read(texts));
    }
  });

  test("every class and shape that Keras has for the layer", () => {
    for (const kind of ["BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization"]) {
      const files = modelOf({ axis: 1, batch_shape: [null, 3, 8] }, { item: { class_name: kind } });
      expect(readKeras(files).load("bn").layout).toBe("NCL");
    }
  });

  test("layers of a subclass, and in a custom layer, are listed by their weights", () => {
    const files = modelOf({ name: "other" }, { item: { class_name: "MyBatchNormalization" } });
    const file = readKeras(files);
    expect(file.layers).toEqual(["sequential/bn"]);
    assertRefuses(
      OptionError,
      /^epsilon: expected for layer "sequential\/bn", of which the file has weights alone, got none$/,
      () => file.load("sequential/bn"),
    );
    assertRefuses(OptionError, /^epsilon: expected a finite number >= 0, got -1$/, () =>
      file.load("sequential/bn", { epsilon: -1 }),
    );
    const bn = file.load("sequential/bn", { epsilon: 0.25, layout: "NC" });
    const expected = readKeras(modelOf({ epsilon: 0.25 })).load("bn", { layout: "NC" });
    expect(bn.snapshot()).toEqual(expected.snapshot());

    bn.runningMean.fill(7);
    const written = writeKeras({ "sequential/bn": bn }, { into: files });
    expect(readKeras(written).load("sequential/bn", { epsilon: 0.25 }).runningMean).toEqual(
      bn.runningMean,
    );
  });

  test("which parameters a layer has that is not listed, and what is none", () => {
    const { model, weights } = modelOf({}, { item: { class_name: "Custom" } });
    const [{ weights: entries, ...group }] = model.weightsManifest as [
      (typeof model.weightsManifest)[0],
    ];
    const named = (names: string[]) => {
      const changed = entries.map((entry, i) => ({ ...entry, name: names[i]! }));
      return readKeras({
        model: { ...model, weightsManifest: [{ ...group, weights: changed }] },
        weights,
      });
    };
    const bare = named(["a/moving_mean", "a/moving_variance", "moving_mean", "moving_variance"]);
    expect(bare.layers).toEqual(["a", ""]);
    const { a, "": own } = bare.loadAll({ epsilon: 1 });
    expect([a!.gamma, a!.beta, a!.runningMean[0], own!.runningMean[0]]).toEqual([null, null, 1, 3]);
    const half = ["a/moving_mean", "b/moving_variance", "a/my_moving_mean", "a/my_moving_variance"];
    expect(named(half).layers).toEqual([]);
  });

  /** A model whose topology lists no norm; each weight [2] has the number of its place in `names`. */
  const unlistedModel = (names: string[]): KerasFiles => ({
    model: {
      modelTopology: { class_name: "Sequential", config: { name: "top", layers: [] } },
      weightsManifest: [
        { paths: ["w"], weights: names.map((name) => ({ name, shape: [2], dtype: "float32" })) },
      ],
    },
    weights: { w: Float32Array.from({ length: 2 * names.length }, (_, i) => i >> 1).buffer },
  });
  /** The place of each of a norm's weights, `null` for what it does not have. */
  const placesOf = ({ gamma, beta, runningMean, runningVariance }: BatchNorm) =>
    [gamma, beta, runningMean, runningVariance].map((values) => values?.[0] ?? null);

  test("layers that are not listed, whose names have numbers", () => {
    const files = unlistedModel([
      ...["block/beta", "block/beta_1", "block/moving_mean", "block/moving_variance"],
      ...["block/moving_mean_1", "block/moving_variance_1", "gamma_3", "moving_mean_7"],
      ...["moving_variance_7", "block/1/moving_mean_2", "block/1/moving_variance_2"],
    ]);
    const file = readKeras(files);
    expect(file.layers).toEqual(["block", "block/1", "", "block/1/"]);
    const all = file.loadAll({ epsilon: 1 });
    expect(Object.values(all).map(placesOf)).toEqual([
      [null, 0, 2, 3],
      [null, 1, 4, 5],
      [6, null, 7, 8],
      [null, null, 9, 10],
    ]);
    const second = all["block/1"]!;
    second.runningMean.fill(40);
    second.beta!.fill(10);
    const written = readKeras(writeKeras({ "block/1": second }, { into: files }));
    expect(placesOf(written.load("block/1", { epsilon: 1 }))).toEqual([null, 10, 40, 5]);
    expect(placesOf(written.load("block", { epsilon: 1 }))).toEqual([null, 0, 2, 3]);
  });

  test.each<[string, string[], string, string]>([
    ["one gamma beside two means", ["gamma"], "gamma", '"a/gamma"'],
    ["two gammas, of other numbers", ["gamma_1", "gamma_2"], "gamma", '"a/gamma_1", "a/gamma_2"'],
    ["more than there are means", ["beta", "beta_1", "beta_2"], "beta", '"a/beta", "a/beta_1", '],
  ])("numbers that do not say which weight is whose: %s", (_, more, weight, got) => {
    const own = ["moving_mean", "moving_variance", "moving_mean_1", "moving_variance_1", ...more];
    const names = [...own.map((name) => `a/${name}`), "b/moving_mean", "b/moving_variance"];
    const files = unlistedModel(names);
    const file = readKeras(files);
    expect(file.layers).toEqual(["a", "a/1", "b"]);
    expect(file.load("b", { epsilon: 1 }).channels).toBe(2);
    const message = (mean: string) =>
      new RegExp(`^${mean}: expected a "a/${weight}" of the same number .*, got ${got}`);
    for (const [name, mean] of [
      ["a", "a/moving_mean"],
      ["a/1", "a/moving_mean_1"],
    ] as const) {
      assertRefuses(StateError, message(mean), () => file.load(name, { epsilon: 1 }));
      const layer = new BatchNorm(2, { gamma: weight === "gamma", beta: weight === "beta" });
      assertRefuses(StateError, message(mean), () =>
        writeKeras({ [name]: layer }, { into: files }),
      );
    }
  });

  test("a layer that is not listed and has the name of one that is", () => {
    const names = ["timed/bn", "bn"].flatMap((owner) => [
      `${owner}/moving_mean`,
      `${owner}/moving_variance`,
    ]);
    const config = { name: "bn", scale: false, center: false };
    const layer = { class_name: "BatchNormalization", config };
    const file = readKeras({
      model: {
        modelTopology: {
          class_name: "Sequential",
          config: {
            name: "top",
            layers: [{ class_name: "TimeDistributed", config: { name: "timed", layer } }],
          },
        },
        weightsManifest: [
          { paths: ["w"], weights: names.map((name) => ({ name, shape: [1], dtype: "float32" })) },
        ],
      },
      weights: { w: Float32Array.of(1, 2, 3, 4).buffer },
    });
    expect(file.layers).toEqual(["bn", "bn/"]);
    const { bn, "bn/": other } = file.loadAll({ epsilon: 0.5 });
    // That of the config goes before the option, which is for the other layer alone.
    expect([bn!.runningMean[0], bn!.epsilon]).toEqual([1, 1e-3]);
    expect([other!.runningMean[0], other!.epsilon]).toEqual([3, 0.5]);
  });

  test("integers are decoded in float32, as TensorFlow.js does", () => {
    const { model } = modelOf(
      {},
      { entry: { quantization: { dtype: "uint8", scale: 1 / 3, min: 0.1 } } },
    );
    const group = model.weightsManifest[0]!;
    const file = readKeras({
      model: { ...model, weightsManifest: [{ paths: ["w"], weights: group.weights }] },
      weights: { w: Uint8Array.from({ length: 12 }, (_, i) => i) },
    });
    const { runningMean } = file.load("bn");
    expect([...runningMean]).toEqual([6, 7, 8].map((q) => Math.fround(q * (1 / 3) + 0.1)));
  });

  test.each<[string, object, RegExp]>([
    [
      "virtual_batch_size",
      { virtual_batch_size: 32 },
      /^layer "bn": has virtual_batch_size 32, .* on the whole mini-batch$/,
    ],
    ["trainable", { trainable: false }, /^layer "bn": has trainable: false: .*"running" }$/],
  ])("%s: a warning, to who asked for it or else to the console", (_, config, message) => {
    const log = vi.spyOn(console, "warn").mockImplementation(() => {});
    readKeras(modelOf(config)).load("bn");
    expect(log.mock.calls).toEqual([[expect.stringMatching(message)]]);
    log.mockClear();
    const messages: string[] = [];
    readKeras(modelOf(config)).load("bn", { onWarning: (text) => messages.push(text) });
    expect(messages).toEqual([expect.stringMatching(message)]);
    expect(log.mock.calls).toEqual([]);
    log.mockRestore();
  });

  test("renorm: limits and momentum of the config, averages of the file", () => {
    const warned: string[] = [];
    const quiet = { onWarning: (text: string) => warned.push(text) };
    const limited = { renorm: true, renorm_clipping: { rmax: 3, dmax: 5 }, renorm_momentum: 0.5 };
    const bn = readKeras(modelOf(limited)).load("bn", quiet);
    expect(bn.renorm).toEqual({ rmax: 3, dmax: 5, rmin: 0, decay: 0.5 });
    expect([...bn.renormMean, ...bn.renormDeviation]).toEqual([6, 7, 8, 7, 8, 9]);
    const free = { rmax: Infinity, dmax: Infinity, rmin: 0, decay: 0.99 };
    for (const renorm_clipping of [undefined, null, {}, { rmax: null, rmin: null, dmax: null }]) {
      const model = modelOf({ renorm: true, renorm_clipping });
      expect(readKeras(model).load("bn", quiet).renorm).toEqual(free);
    }
    // What is not true is taken for false, in reading and in writing.
    for (const renorm of [false, "false"]) {
      const into = modelOf({ renorm });
      const plain = readKeras(into).load("bn");
      expect(plain.renorm).toBeNull();
      plain.runningVariance.fill(2);
      expect(() => writeKeras({ bn: plain }, { into })).not.toThrow();
    }
    const wrong = modelOf({ renorm: true, renorm_clipping: { rmax: 0.5 } });
    assertRefuses(StateError, /^layer "bn": renorm\.rmax: /, () => readKeras(wrong).load("bn"));
    const momentum = modelOf({ renorm: true, renorm_momentum: 2 });
    assertRefuses(StateError, /^layer "bn": renorm\.decay: /, () => readKeras(momentum).load("bn"));
    const { weights } = modelOf({});
    const without = { model: modelOf({ renorm: true }).model, weights };
    expect(() => readKeras(without).load("bn")).toThrow(StateError);
    expect(warned).toEqual([]);
  });

  test("renorm: a layer goes on as it would in Keras, and is written back", () => {
    // Keras' formulas in float64, for the weights that it saves after some steps and for the steps behind them.
    const [epsilon, momentum, own] = [1e-3, 0.9, 0.6];
    const channels = [0, 1, 2].map(() => ({ mean: 0, stddev: 1, rMean: 0, rStddev: 1 }));
    const batch = (step: number) =>
      Float32Array.from({ length: 24 }, (_, i) => (i % 3) + step + Math.sin(7 * i + step));
    const kerasStep = (x: Float32Array): number[] => {
      const y = Array<number>(24).fill(0);
      channels.forEach((w, c) => {
        const values = [...x].filter((_, i) => i % 3 === c);
        const m = values.reduce((sum, v) => sum + v, 0) / 8;
        const sigma = Math.sqrt(values.reduce((sum, v) => sum + (v - m) ** 2, 0) / 8 + epsilon);
        const s = Math.max(w.rStddev, Math.sqrt(epsilon));
        const r = Math.min(2, sigma / s);
        const d = Math.max(-1.5, Math.min(1.5, (m - w.rMean) / s));
        values.forEach((v, row) => {
          y[3 * row + c] = (c + 1) * (r * ((v - m) / sigma) + d) + c + 2;
        });
        w.mean = momentum * w.mean + (1 - momentum) * m;
        w.stddev = momentum * w.stddev + (1 - momentum) * sigma;
        w.rMean = own * w.rMean + (1 - own) * m;
        w.rStddev = own * w.rStddev + (1 - own) * sigma;
      });
      return y;
    };
    const saved = () =>
      [
        [1, 2, 3, 2, 3, 4],
        channels.map((w) => w.mean),
        channels.map((w) => Math.max(0, w.stddev ** 2 - epsilon)),
        channels.map((w) => w.stddev),
        channels.map((w) => w.rMean),
        channels.map((w) => w.rStddev),
      ].flat();
    for (let step = 0; step < 5; step++) kerasStep(batch(step));
    const { model } = modelOf({
      ...{ epsilon, momentum, renorm: true, renorm_momentum: own },
      renorm_clipping: { rmax: 2, dmax: 1.5 },
    });
    const weights = {
      "a.bin": new Uint8Array(Float32Array.from(saved().slice(0, 5)).buffer),
      "b.bin": new Uint8Array(Float32Array.from(saved().slice(5)).buffer),
    };
    const bn = readKeras({ model, weights }).load("bn");
    // Written as it was read, nothing changes.
    expect(writeKeras({ bn }, { into: { model, weights } }).weights).toEqual(weights);
    for (let step = 5; step < 9; step++) {
      const y = bn.train(batch(step));
      kerasStep(batch(step)).forEach((wanted, i) => {
        expect(y[i]).toBeCloseTo(wanted, 5);
      });
    }
    const after = writeKeras({ bn }, { into: { model, weights } });
    const bytes = Object.values(after.weights).map((each) => each.slice().buffer as ArrayBuffer);
    const numbers = bytes.flatMap((each) => [...new Float32Array(each)]);
    expect(numbers.length).toBe(21);
    saved().forEach((wanted, i) => {
      expect(numbers[i]).toBeCloseTo(wanted, 4);
    });
    // A layer without averages of its own has the running ones written in their place.
    const plain = BatchNorm.keras(3, { epsilon });
    plain.setRunning({ count: 4, mean: Float64Array.of(1, 2, 3), m2: Float64Array.of(4, 8, 12) });
    for (const renorm of [null, { rmax: 3, dmax: 5 }]) {
      plain.renorm = renorm;
      const { renormMean, renormDeviation } = readKeras(
        writeKeras({ bn: plain }, { into: { model, weights } }),
      ).load("bn");
      expect([...renormMean]).toEqual([1, 2, 3]);
      [1, 2, 3].forEach((v, c) => {
        expect(renormDeviation[c]).toBeCloseTo(Math.sqrt(v + epsilon), 6);
      });
    }
  });

  test("what is as usual is not warned about", () => {
    const usual = { renorm: false, virtual_batch_size: null, trainable: true, momentum: 0.99 };
    const messages: string[] = [];
    readKeras(modelOf(usual)).load("bn", { onWarning: (text) => messages.push(text) });
    expect(messages).toEqual([]);
  });

  test("a momentum under which nothing moves: kept, or another, and the file keeps it", () => {
    const files = modelOf({ momentum: 1 });
    const file = readKeras(files);
    const messages: string[] = [];
    const layer = file.load("bn", { onWarning: (text) => messages.push(text) });
    expect([layer.decay, messages]).toEqual([1, []]);
    const other = file.load("bn", { momentum: 0.9 });
    expect(other.decay).toBe(0.9);
    assertRefuses(OptionError, /^momentum: /, () => file.load("bn", { momentum: 1 }));
    other.train(Float32Array.of(1, 2, 3, 4, 5, 6));
    const { model } = writeKeras({ bn: other }, { into: files });
    expect(JSON.parse(model)).toEqual(files.model);
  });

  test("a ring, which only parsed JSON can be", () => {
    const files = modelOf({});
    const ring: Record<string, unknown> = { layers: [] };
    (files.model.modelTopology as Record<string, unknown>).ring = ring;
    ring.itself = ring;
    expect(readKeras(files).layers).toEqual(["bn"]);
  });
});

describe("layers in wrappers", () => {
  const norm = (name: string) => ({ class_name: "BatchNormalization", config: { name } });
  const wrapped = (name: string, layer: object) => ({
    class_name: "TimeDistributed",
    config: { name, layer },
  });
  const model = (name: string, layers: object[]) => ({
    class_name: "Sequential",
    config: { name, layers },
  });
  /** A model of these layers; the numbers of each weight are its place in the list of owners. */
  const filesOf = (layers: object[], owners: string[]) => {
    const weights = owners.flatMap((owner) =>
      ["gamma", "beta", "moving_mean", "moving_variance"].map((weight) => ({
        name: `${owner}/${weight}`,
        shape: [1],
        dtype: "float32",
      })),
    );
    return {
      model: { modelTopology: model("top", layers), weightsManifest: [{ paths: ["w"], weights }] },
      weights: { w: Float32Array.from(weights, (_, i) => Math.floor(i / 4)).buffer },
    };
  };
  const means = (files: ReturnType<typeof filesOf>) =>
    Object.entries(readKeras(files).loadAll()).map(([name, bn]) => [name, bn.runningMean[0]]);

  test.each<[string, object[], string[], [string, number][]]>([
    [
      "by the name of the wrapper, as TensorFlow.js and tf.keras have it",
      [norm("bn"), wrapped("timed", norm("inner"))],
      ["bn", "timed"],
      [
        ["bn", 0],
        ["inner", 1],
      ],
    ],
    [
      "by both names, as Keras 3 has it",
      [wrapped("timed", norm("inner"))],
      ["timed/inner"],
      [["inner", 0]],
    ],
    ["by its own name", [wrapped("timed", norm("inner"))], ["top/inner"], [["inner", 0]]],
    [
      "layers of one name in two wrappers",
      [wrapped("a", norm("bn")), wrapped("b", norm("bn"))],
      ["b", "a"],
      [
        ["a/bn", 1],
        ["b/bn", 0],
      ],
    ],
    [
      "a layer beside it that has its name",
      [norm("bn"), wrapped("timed", norm("bn"))],
      ["bn", "timed"],
      [
        ["bn", 0],
        ["timed/bn", 1],
      ],
    ],
    [
      "in a model in the model",
      [model("deep", [wrapped("timed", norm("inner"))])],
      ["timed"],
      [["inner", 0]],
    ],
    [
      "a model in it",
      [wrapped("timed", model("deep", [norm("inner")]))],
      ["inner"],
      [["inner", 0]],
    ],
    [
      "wrappers in wrappers, by the name of the outer one, as TensorFlow.js has it",
      [
        norm("bn"),
        wrapped("two", wrapped("one", norm("inner"))),
        wrapped("three", wrapped("both", wrapped("single", norm("deep")))),
      ],
      ["three", "two", "bn"],
      [
        ["bn", 2],
        ["inner", 1],
        ["deep", 0],
      ],
    ],
    ...["two/one/inner", "two/one", "two", "one", "inner", "top/two"].map(
      (owner): [string, object[], string[], [string, number][]] => [
        `a wrapper in a wrapper, by the name ${owner}`,
        [wrapped("two", wrapped("one", norm("inner")))],
        [owner],
        [["inner", 0]],
      ],
    ),
    [
      "wrappers in wrappers, all of the same names",
      [wrapped("a", wrapped("in", norm("bn"))), wrapped("b", wrapped("in", norm("bn")))],
      ["b", "a"],
      [
        ["a/in/bn", 1],
        ["b/in/bn", 0],
      ],
    ],
    ...["two", "two/one"].map((owner): [string, object[], string[], [string, number][]] => [
      `wrappers in wrappers in two models, all of the same names, by the name ${owner}`,
      ["a", "b"].map((name) => model(name, [wrapped("two", wrapped("one", norm("bn")))])),
      [`b/${owner}`, `a/${owner}`],
      [
        ["a/two/one/bn", 1],
        ["b/two/one/bn", 0],
      ],
    ]),
    ["a wrapper that has the layer's name", [wrapped("bn", norm("bn"))], ["top/bn"], [["bn", 0]]],
    [
      "in a wrapper, in a model in a wrapper",
      [norm("bn"), wrapped("two", model("between", [wrapped("one", norm("inner"))]))],
      ["one", "bn"],
      [
        ["bn", 1],
        ["inner", 0],
      ],
    ],
  ])("%s", (_, layers, owners, expected) => {
    const files = filesOf(layers, owners);
    expect(means(files)).toEqual(expected);
    expect(readKeras(files).layers).toHaveLength(owners.length);
  });

  test("weights that may be those of two layers are not taken", () => {
    const two = [norm("timed"), model("deep", [wrapped("timed", norm("inner"))])];
    const file = readKeras(filesOf(two, ["timed"]));
    expect(file.load("timed").runningMean[0]).toBe(0);
    assertRefuses(
      StateError,
      /^weightsManifest: expected "timed\/moving_mean" for layer "inner", got none$/,
      () => file.load("inner"),
    );
  });

  test.each<[string, object, string]>([
    ["a norm", norm("inner"), "inner"],
    ["a wrapper", wrapped("one", norm("inner")), "one"],
  ])("a model is no wrapper of %s in it: weights of its name are not taken", (_, layer, owner) => {
    const between = model("between", [layer]);
    for (const top of [between, wrapped("two", between)]) {
      const file = readKeras(filesOf([top], ["between"]));
      assertRefuses(
        StateError,
        new RegExp(
          `^weightsManifest: expected "${owner}/moving_mean" for layer "inner", got none$`,
        ),
        () => file.load("inner"),
      );
    }
  });

  test("a missing weight of wrappers in wrappers is named as TensorFlow.js names it", () => {
    const file = readKeras(filesOf([wrapped("two", wrapped("one", norm("inner")))], []));
    assertRefuses(
      StateError,
      /^weightsManifest: expected "two\/moving_mean" for layer "inner", got none$/,
      () => file.load("inner"),
    );
  });
});

describe("graph models", () => {
  const WEIGHTS = ["gamma", "beta", "mean", "variance"];
  const constant = (name: string) => ({ name, op: "Const", attr: { dtype: { type: "DT_FLOAT" } } });
  /** A batch norm of three channels behind an addition, as nets of pre-activation have it. */
  const graph = (
    attr: object = {},
    change: { op?: string; node?: object[]; json?: object } = {},
  ) => {
    const names = WEIGHTS.map((weight) => `net/bn/${weight}`);
    return {
      model: {
        format: "graph-model",
        modelTopology: {
          node: [
            { name: "x", op: "Placeholder" },
            ...names.map(constant),
            { name: "net/add", op: "AddV2", input: ["x", "x"] },
            { name: "net/bn/read", op: "Identity", input: ["net/bn/gamma:0"] },
            {
              name: "net/bn/FusedBatchNormV3",
              op: change.op ?? "FusedBatchNormV3",
              input: ["net/add", "net/bn/read", ...names.slice(1), "^x"],
              attr: { epsilon: { f: 0.25 }, is_training: { b: false }, ...attr },
            },
            { name: "net/relu", op: "Relu", input: ["net/bn/FusedBatchNormV3"] },
            ...(change.node ?? []),
          ],
          library: {},
          versions: { producer: 440 },
        },
        weightsManifest: [
          { paths: ["w"], weights: names.map((name) => ({ name, shape: [3], dtype: "float32" })) },
        ],
        ...change.json,
      },
      weights: { w: Float32Array.from({ length: 12 }, (_, i) => i + 1).buffer },
    };
  };
  const NAME = "net/bn/FusedBatchNormV3";

  test("a batch norm with constant parameters is read", () => {
    const file = readKeras(graph());
    expect(file.layers).toEqual([NAME]);
    const bn = file.load(NAME);
    expect([bn.epsilon, bn.decay, bn.layout]).toEqual([0.25, 0.99, "NHWC"]);
    expect([bn.gamma, bn.beta].map((values) => [...values!])).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect([bn.runningMean, bn.runningVariance].map((values) => [...values])).toEqual([
      [7, 8, 9],
      [10, 11, 12],
    ]);
    const y = bn.infer(Float32Array.of(7, 8, 9), { shape: [1, 1, 1, 3] });
    expect([...y]).toEqual([4, 5, 6]);
  });

  test.each<[object, string]>([
    [{ data_format: { s: "TkhXQw==" } }, "NHWC"],
    [{ data_format: { s: "TkNIVw==" } }, "NCHW"],
    [{ data_format: { s: "TkRIV0M=" } }, "NDHWC"],
    [{ data_format: { s: "TkNESFc=" } }, "NCDHW"],
    [{ data_format: { s: [78, 67, 72, 87] } }, "NCHW"],
  ])("%j: %s", (attr, layout) => {
    expect(readKeras(graph(attr)).load(NAME).layout).toBe(layout);
  });

  test("a data format unknown asks for the layout; epsilon left out is TensorFlow's", () => {
    const file = readKeras(graph({ data_format: { s: "Zm9v" } }));
    assertRefuses(OptionError, /^layout: expected for operation "net\/bn\/Fused/, () =>
      file.load(NAME),
    );
    expect(file.load(NAME, { layout: "NCHW" }).layout).toBe("NCHW");
    expect(readKeras(graph({ epsilon: {} })).load(NAME).epsilon).toBe(1e-4);
  });

  test("an old file, which does not say that it is one", () => {
    expect(readKeras(graph({}, { json: { format: undefined } })).layers).toEqual([NAME]);
  });

  test("operations of all versions, none that trains, none of another kind", () => {
    for (const op of ["FusedBatchNorm", "FusedBatchNormV2"]) {
      expect(readKeras(graph({}, { op })).layers).toEqual([NAME]);
    }
    expect(readKeras(graph({}, { op: "FusedBatchNormGradV3" })).layers).toEqual([]);
    expect(readKeras(graph({ is_training: { b: true } })).layers).toEqual([]);
  });

  test("parameters that are worked out", () => {
    const files = graph();
    const at = files.model.modelTopology.node.findIndex(
      (node) => (node as { name?: string }).name === NAME,
    );
    const node = files.model.modelTopology.node[at] as { input: string[] };
    node.input[3] = "net/add";
    assertRefuses(
      StateError,
      /^operation "net\/bn\/FusedBatchNormV3": expected parameters that are constants, got "net\/add"/,
      () => readKeras(files).load(NAME),
    );
    node.input.length = 2;
    assertRefuses(StateError, /constants, got none$/, () => readKeras(files).load(NAME));
  });

  test("a ring of nodes that hand on their input", () => {
    const ring = ["a", "b"].map((name, i, all) => ({ name, op: "Identity", input: [all[1 - i]!] }));
    const files = graph({}, { node: ring });
    (
      files.model.modelTopology.node.find((node) => (node as { name?: string }).name === NAME) as {
        input: string[];
      }
    ).input[1] = "a";
    assertRefuses(StateError, /constants, got "[ab]", which is worked out$/, () =>
      readKeras(files).load(NAME),
    );
  });

  test("the activation behind a norm, where the operation takes the output alone", () => {
    const activationOf = (files: KerasFiles) =>
      readKeras(files).load(NAME, { withActivation: true }).activation;
    const behind = (op: string) => {
      const files = graph();
      const relu = files.model.modelTopology.node.at(-1) as { op: string; input: string[] };
      relu.op = op;
      relu.input = [`${NAME}:0`];
      return files;
    };
    expect(readKeras(graph()).load(NAME).activation).toBeNull();
    expect(activationOf(graph())).toBe("relu");
    expect(activationOf(behind("Relu"))).toBe("relu");
    expect(activationOf(behind("Relu6"))).toBe("relu6");
    for (const op of ["LeakyRelu", "Neg", "constructor"]) {
      expect(activationOf(behind(op))).toBeNull();
    }
    for (const op of ["Neg", "Identity", "Relu"]) {
      const other = { name: "other", op, input: [NAME] };
      expect(activationOf(graph({}, { node: [other] }))).toBeNull();
    }
    const waiting = graph();
    const relu = waiting.model.modelTopology.node.at(-1) as { op: string; input: string[] };
    relu.input = ["x", `^${NAME}`];
    expect(activationOf(waiting)).toBeNull();
    // An operation that waits for the norm may as well take its output.
    const alsoWaiting = { name: "other", op: "Neg", input: ["x", `^${NAME}`] };
    expect(activationOf(graph({}, { node: [alsoWaiting] }))).toBeNull();
    const output = (name: string) => ({ signature: { outputs: { y: { name } } } });
    expect(activationOf(graph({}, { json: output("net/relu:0") }))).toBe("relu");
    // What is neither a node nor an output says nothing about either.
    const broken = { json: { signature: { outputs: { y: null, z: 5 } } } };
    for (const node of [null, 5]) {
      expect(activationOf(graph({}, { node: [node as never], ...broken }))).toBe("relu");
    }
    for (const json of [
      output(`${NAME}:0`),
      { userDefinedMetadata: output(NAME), ...output("net/relu") },
    ]) {
      expect(activationOf(graph({}, { json }))).toBeNull();
    }
  });

  test("written into: other values, but not those of a constant that others have", () => {
    const files = graph();
    const bn = readKeras(files).load(NAME);
    bn.runningMean.fill(0.5);
    const written = writeKeras({ [NAME]: bn }, { into: files });
    expect(JSON.parse(written.model)).toEqual(files.model);
    expect(readKeras(written).load(NAME).snapshot()).toEqual(bn.snapshot());
    const shared = graph({}, { node: [{ name: "other", op: "Neg", input: ["net/bn/mean"] }] });
    assertRefuses(
      StateError,
      /^net\/bn\/mean: expected a constant of operation "net\/bn\/Fused.* alone .* got one that other/,
      () => writeKeras({ [NAME]: bn }, { into: shared }),
    );
    const same = readKeras(shared).load(NAME);
    same.gamma!.fill(2);
    expect(readKeras(writeKeras({ [NAME]: same }, { into: shared })).load(NAME).gamma).toEqual(
      Float32Array.of(2, 2, 2),
    );
  });
});

describe("into a model", () => {
  test.each(["keras", "keras-quantized"])("%s: unchanged, the same files", (name) => {
    const files = kerasFiles(name);
    expect(writeKeras(readKeras(files).loadAll(), { into: files })).toEqual(files);
    const model = JSON.parse(files.model);
    const written = writeKeras(readKeras(files).loadAll(), { into: { ...files, model } });
    expect(JSON.parse(written.model)).toEqual(model);
  });

  test("integers do not hold other values: those weights become float32, the rest stays", () => {
    const files = kerasFiles("keras-quantized");
    const layers = readKeras(files).loadAll();
    const layer = layers.bn_conv!;
    for (const values of [layer.gamma!, layer.beta!, layer.runningMean, layer.runningVariance]) {
      values.set([0.25, 1, 3]);
    }
    const written = writeKeras({ bn_conv: layer }, { into: files });
    const again = readKeras(written).loadAll();
    for (const name of NAMES) expect(again[name]!.snapshot()).toEqual(layers[name]!.snapshot());
    const [{ weights: before }] = JSON.parse(files.model).weightsManifest;
    const [{ weights: after }] = JSON.parse(written.model).weightsManifest;
    let plain = 0;
    for (const [i, entry] of after.entries()) {
      const { quantization, ...rest } = before[i];
      const changed = /^bn_conv\//.test(entry.name) && /^uint/.test(quantization?.dtype);
      expect(entry).toEqual(changed ? rest : before[i]);
      if (changed) plain++;
    }
    expect(plain).toBeGreaterThan(0);
  });

  test("other values: only the shards that hold them change", () => {
    const files = kerasFiles("keras");
    const layer = readKeras(files).load("bn_last");
    layer.runningMean.set([1, 2, 3, 4, 5]);
    const written = writeKeras({ bn_last: layer }, { into: files });
    expect(written.model).toBe(files.model);
    expect(readKeras(written).load("bn_last").snapshot()).toEqual(layer.snapshot());
    const changed = Object.keys(files.weights).filter(
      (path) => !Buffer.from(files.weights[path]!).equals(Buffer.from(written.weights[path]!)),
    );
    expect(changed).toEqual(["group1-shard2of2.bin"]);
  });

  test.each<[string, string, BatchNorm, RegExp]>([
    [
      "another epsilon",
      "bn_conv",
      BatchNorm.keras(3),
      /^layer "bn_conv": expected the epsilon of the model, 0\.0001, got 0\.001$/,
    ],
    [
      "other channels",
      "bn_head",
      BatchNorm.keras(4, { scale: false }),
      /^bn_head\/beta: expected 5 values, got 4$/,
    ],
    [
      "a gamma too many",
      "bn_head",
      BatchNorm.keras(5),
      /^layer "bn_head": expected no gamma, since the model leaves it out, got values$/,
    ],
  ])("%s: refused", (_, name, layer, message) => {
    assertRefuses(StateError, message, () =>
      writeKeras({ [name]: layer }, { into: kerasFiles("keras") }),
    );
  });

  test("a parameter left out is written as what it amounts to", () => {
    const layer = BatchNorm.keras(3, { epsilon: 1e-4, scale: false, center: false });
    const files = writeKeras({ bn_conv: layer }, { into: kerasFiles("keras") });
    const { gamma, beta } = readKeras(files).load("bn_conv");
    expect([...gamma!, ...beta!]).toEqual([1, 1, 1, 0, 0, 0]);
  });
});

describe("a model of layers alone", () => {
  test("is read as it was written", () => {
    const a = BatchNorm.keras(3, { epsilon: 1e-3 / 7, momentum: 0.9, layout: "NHWC" });
    a.train(normal(60, 1, 3), { shape: [5, 2, 2, 3] });
    const b = BatchNorm.torch(2, { affine: false, layout: "NCL" });
    const files = writeKeras({ a, b });
    const file = readKeras(files);
    expect(file.layers).toEqual(["a", "b"]);
    const read = file.loadAll();
    expect([read.a!.layout, read.a!.epsilon, read.a!.decay]).toEqual(["NHWC", 1e-3 / 7, 0.9]);
    expect([read.b!.layout, read.b!.gamma, read.b!.beta]).toEqual(["NCL", null, null]);
    expect(read.a!.runningMean).toEqual(Float64Array.from(a.runningMean, Math.fround));
    expect(read.a!.gamma).toEqual(a.gamma);
  });

  test("the number of axes has to be known, unless a model has it", () => {
    const layer = BatchNorm.keras(3, { epsilon: 1e-4, layout: "channelsLast" });
    assertRefuses(OptionError, /^layers\["a"\]: expected a layout that says how many axes/, () =>
      writeKeras({ a: layer }),
    );
    const files = writeKeras({ bn_conv: layer }, { into: kerasFiles("keras") });
    expect(readKeras(files).load("bn_conv").layout).toBe("channelsLast");
  });

  test("a cumulative average needs a momentum, a layer a name", () => {
    const layer = new BatchNorm(2, { decay: "cumulative" });
    assertRefuses(OptionError, /^momentum: expected one for layer "a", whose decay is "cum/, () =>
      writeKeras({ a: layer }),
    );
    const files = writeKeras({ a: layer }, { momentum: 0.5 });
    expect(readKeras(files).load("a").decay).toBe(0.5);
    assertRefuses(OptionError, /^layers: expected names for Keras, got ""$/, () =>
      writeKeras({ "": new BatchNorm(2) }),
    );
  });
});

describe("refusals", () => {
  test("the text of model.json, or what it holds, in place of the files", () => {
    const model = { modelTopology: {}, weightsManifest: [] };
    const message = (got: string) =>
      new RegExp(`^files: expected { model, weights }, .* got ${got}$`);
    assertRefuses(OptionError, message('".*"; readFileSync.*'), () =>
      readKeras(wrong(JSON.stringify(model))),
    );
    assertRefuses(OptionError, message("an Object"), () => readKeras(wrong(model)));
    assertRefuses(OptionError, message("null"), () => readKeras(wrong(null)));
  });

  test.each<[string, unknown, new (message: string) => BatchNormError, RegExp]>([
    [
      "another format",
      modelOf({}, { json: { format: "graph-model" } }),
      StateError,
      /^model\.format: expected "layers-model", or "graph-model" with nodes, got "graph-model"$/,
    ],
    [
      "a file of another format",
      { ...modelOf({}), model: goldenBytes("keras-files/functional.h5") },
      StateError,
      /^model: expected model\.json of TensorFlow\.js, got a file of Keras \(\.keras, \.h5\): readKerasFile of /,
    ],
    [
      "no JSON",
      { ...modelOf({}), model: "{" },
      StateError,
      /^model: expected JSON, got text that is none$/,
    ],
    [
      "no model",
      { ...modelOf({}), model: {} },
      StateError,
      /^model: expected model\.json of TensorFlow\.js/,
    ],
    [
      "a number",
      { ...modelOf({}), model: 5 },
      ShapeError,
      /^model: expected a Uint8Array or ArrayBuffer, got 5$/,
    ],
    [
      "no weight files",
      { ...modelOf({}), weights: null },
      OptionError,
      /^weights: expected weight files by path, got null$/,
    ],
    [
      "a file missing",
      { ...modelOf({}), weights: {} },
      StateError,
      /^weights: expected the file "a\.bin", as model\.json says, got none$/,
    ],
    [
      "a file cut short",
      { ...modelOf({}), weights: { ...modelOf({}).weights, "b.bin": new Uint8Array(3) } },
      StateError,
      /^sequential\/bn\/beta: expected bytes up to 24, got files of 23 bytes/,
    ],
    [
      "bytes too many",
      { ...modelOf({}), weights: { ...modelOf({}).weights, "b.bin": new Uint8Array(99) } },
      StateError,
      /^weightsManifest\[0\]: expected files of 48 bytes in all, got 119$/,
    ],
    [
      "a type unknown",
      modelOf({}, { entry: { dtype: "float8" } }),
      StateError,
      /^sequential\/bn\/gamma\.dtype: expected a type of TensorFlow\.js, got "float8"$/,
    ],
    [
      "layers of one name",
      {
        ...modelOf({}),
        model: {
          ...modelOf({}).model,
          modelTopology: { layers: [1, 2].map(() => modelOf({}).model.modelTopology) },
        },
      },
      StateError,
      /^modelTopology: expected layers of different names, got "bn" twice$/,
    ],
    [
      "weights of one name",
      modelOf({}, { entry: { name: "a" } }),
      StateError,
      /^weightsManifest\[0\]\.weights: expected entries of different names/,
    ],
  ])("%s", (_, files, kind, message) => {
    assertRefuses(kind, message, () => readKeras(files as KerasFiles));
  });

  test.each<[string, KerasFiles, RegExp]>([
    [
      "an epsilon that is none",
      modelOf({ epsilon: "small" }),
      /^layer "bn": epsilon: expected a finite number >= 0, got "small"$/,
    ],
    [
      "a parameter of other channels",
      {
        model: {
          ...modelOf({}).model,
          weightsManifest: [
            {
              paths: ["w"],
              weights: [2, 3, 3, 3].map((size, i) => ({
                name: `bn/${["gamma", "beta", "moving_mean", "moving_variance"][i]}`,
                shape: [size],
                dtype: "float32",
              })),
            },
          ],
        },
        weights: { w: new Uint8Array(44) },
      },
      /^layer "bn": expected 3 values of gamma, as of the mean, got 2$/,
    ],
    [
      "integers",
      modelOf({}, { entry: { dtype: "int32" } }),
      /^sequential\/bn\/moving_mean: expected float32/,
    ],
  ])("%s, loading", (_, files, message) => {
    assertRefuses(StateError, message, () => readKeras(files).load("bn"));
  });

  test("options unknown", () => {
    const file = readKeras(modelOf({}));
    assertRefuses(OptionError, /^scale: expected an option among momentum/, () =>
      file.load("bn", wrong({ scale: false })),
    );
    assertRefuses(OptionError, /^onWarning: expected a function, got null$/, () =>
      file.load("bn", wrong({ onWarning: null })),
    );
    assertRefuses(OptionError, /^name: expected one of "bn", got "x"$/, () => file.load("x"));
  });
});
