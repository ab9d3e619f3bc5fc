// `snapshot`, `fromSnapshot`, `restore`, `reset`, `clone`: the whole state, to the bit.

import { BatchNorm, type BatchNormOptions, Kernels, OptionError, StateError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { layerOf, options, seeds, settle, stateOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { anyBits, normal } from "./support/data.js";
import { check } from "./support/property.js";

const ODD = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  -0,
  0,
  2 ** -149,
  -(2 ** -140),
  3.4028234663852886e38,
  0.1,
];

const doubles = fc.oneof(fc.double(), fc.constantFrom(...ODD, 5e-324, -2e-310, 1.7e308, 1 / 3));
const floats = fc.oneof(fc.float(), fc.constantFrom(...ODD));

function assertSameLayer(actual: BatchNorm, expected: BatchNorm): void {
  for (const name of [
    "channels",
    "layout",
    "epsilon",
    "decay",
    "debias",
    "runningVarianceOf",
    "batchesSeen",
  ] as const) {
    expect(actual[name], name).toBe(expected[name]);
  }
  assertSameState(actual, expected);
}

function assertSameState(actual: BatchNorm, expected: BatchNorm): void {
  for (const name of ["gamma", "beta"] as const) {
    expect(actual[name] === null, name).toBe(expected[name] === null);
    if (actual[name]) assertSameBits(name, actual[name], expected[name]!);
  }
  assertSameBits("runningMean", actual.runningMean, expected.runningMean);
  assertSameBits("runningVariance", actual.runningVariance, expected.runningVariance);
  expect(actual.batchesSeen).toBe(expected.batchesSeen);
}

describe("round trip", () => {
  test("JSON text and back, any options and any numbers, to the bit", () => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        options,
        fc.array(floats, { minLength: 40, maxLength: 40 }),
        fc.array(doubles, { minLength: 40, maxLength: 40 }),
        fc.nat(),
        (channels, settings, small, large, seen) => {
          const layer = new BatchNorm(channels, settings);
          layer.gamma?.set(small.slice(0, channels));
          layer.beta?.set(small.slice(20, 20 + channels));
          layer.runningMean.set(large.slice(0, channels));
          layer.runningVariance.set(large.slice(20, 20 + channels));
          layer.batchesSeen = seen;
          const snapshot = layer.snapshot();
          const text = JSON.stringify(snapshot);
          for (const form of [snapshot, text, JSON.parse(text), structuredClone(snapshot)]) {
            assertSameLayer(BatchNorm.fromSnapshot(form), layer);
            const other = new BatchNorm(channels, { gamma: settings.gamma!, beta: settings.beta! });
            other.restore(form);
            assertSameState(other, layer);
          }
        },
      ),
      100,
    );
  });

  test("any float32 bits of gamma and beta", () => {
    const layer = new BatchNorm(2000);
    layer.gamma!.set(anyBits(2000, 1));
    layer.beta!.set(anyBits(2000, 2));
    assertSameLayer(BatchNorm.fromSnapshot(JSON.stringify(layer.snapshot())), layer);
  });

  test("a snapshot is a copy, and so is what is read from it", () => {
    const layer = settle(layerOf({ layout: "NC", shape: [9, 5] }));
    const snapshot = layer.snapshot();
    const text = JSON.stringify(snapshot);
    layer.train(normal(45, 1));
    layer.gamma!.fill(7);
    expect(JSON.stringify(snapshot)).toBe(text);
    const again = BatchNorm.fromSnapshot(snapshot);
    for (const name of ["gamma", "beta", "runningMean", "runningVariance"] as const) {
      (snapshot[name] as number[]).fill(3);
    }
    expect(JSON.stringify(again)).toBe(text);
  });

  test("taking one changes nothing", () => {
    const layer = settle(layerOf({ layout: "NC", shape: [9, 5] }));
    layer.train(normal(45, 1));
    const batch = layer.lastBatch;
    layer.snapshot();
    expect(layer.lastBatch).toBe(batch);
  });

  test("kernels are not in it, and may be given", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    const layer = settle(layerOf({ layout: "NC", shape: [9, 5] }, { kernels }));
    expect(BatchNorm.fromSnapshot(layer.snapshot()).kernels).not.toBe(kernels);
    expect(BatchNorm.fromSnapshot(layer.snapshot(), { kernels }).kernels).toBe(kernels);
  });
});

describe("training on", () => {
  const step = (layer: BatchNorm, t: number) => {
    const x = normal(45, t, t);
    const y = layer.train(x);
    const { dx, dgamma, dbeta } = layer.backward(y.map((v) => v - 0.5));
    // Plain gradient descent, so that gamma and beta move as well.
    layer.gamma!.forEach((g, c, all) => {
      all[c] = g - 0.01 * dgamma![c]!;
    });
    layer.beta!.forEach((b, c, all) => {
      all[c] = b - 0.01 * dbeta![c]!;
    });
    return { y, dx, z: layer.infer(x) };
  };

  test("from a snapshot, a clone or a restored state: bit for bit as without", () => {
    check(
      fc.property(
        fc.constantFrom(0.9, 0.999, 0, "cumulative" as const),
        fc.boolean(),
        fc.integer({ min: 0, max: 4 }),
        seeds,
        (decay, debias, before, seed) => {
          const layer = layerOf({ layout: "NC", shape: [9, 5] }, { decay, debias }, seed);
          for (let t = 0; t < before; t++) step(layer, t);
          const restored = new BatchNorm(5, { decay, debias });
          restored.train(normal(45, 99));
          restored.restore(JSON.stringify(layer.snapshot()));
          const others = [
            BatchNorm.fromSnapshot(JSON.stringify(layer.snapshot())),
            layer.clone(),
            restored,
          ];
          for (let t = before; t < before + 3; t++) {
            const expected = step(layer, t);
            for (const other of others) {
              const actual = step(other, t);
              for (const name of ["y", "dx", "z"] as const) {
                assertSameBits(name, actual[name], expected[name]);
              }
              assertSameState(other, layer);
            }
          }
        },
      ),
      30,
    );
  });
});

describe("restore", () => {
  test("takes state only: options stay", () => {
    const layer = new BatchNorm(5, { decay: 0.5, epsilon: 1, layout: "NCL", debias: true });
    const other = settle(layerOf({ layout: "NC", shape: [9, 5] }));
    layer.restore(other.snapshot());
    assertSameState(layer, other);
    expect([layer.decay, layer.epsilon, layer.layout, layer.debias]).toEqual([0.5, 1, "NCL", true]);
  });

  test("writes into the arrays that are there", () => {
    const layer = new BatchNorm(5);
    const { gamma, beta, runningMean, runningVariance } = layer;
    layer.restore(settle(layerOf({ layout: "NC", shape: [9, 5] })).snapshot());
    expect(layer.gamma).toBe(gamma);
    expect(layer.beta).toBe(beta);
    expect(layer.runningMean).toBe(runningMean);
    expect(layer.runningVariance).toBe(runningVariance);
  });
});

describe("refusals", () => {
  const valid = () => settle(layerOf({ layout: "NC", shape: [9, 2] })).snapshot();
  const without = (name: string) => {
    const { [name]: _left, ...rest } = valid() as unknown as Record<string, unknown>;
    return rest;
  };

  const BAD: [string, unknown, string][] = [
    [
      "no JSON",
      "{",
      'snapshot: expected JSON of format "batchnorm-wasm/layer", got text that is no',
    ],
    ["a path", "layer.json", 'of a file, give readFileSync(path, "utf8")'],
    ["null", null, 'snapshot: expected an object of format "batchnorm-wasm/layer", got null'],
    ["undefined", undefined, "got undefined"],
    ["a number", 5, "got 5"],
    ["JSON of a number", "5", "got 5"],
    ["an array", [], "got an Array of length 0"],
    [
      "the JSON of a frozen layer",
      new BatchNorm(2).freeze().toJSON(),
      'got format "batchnorm-wasm/frozen"',
    ],
    ["another version", { ...valid(), version: 3 }, "snapshot: expected version 1 or 2, got 3"],
    ["channels 0", { ...valid(), channels: 0 }, "snapshot.channels: expected"],
    ["no channels", without("channels"), "snapshot.channels: expected"],
    ["a layout unknown", { ...valid(), layout: "NWC" }, "snapshot.layout: expected"],
    ["a negative epsilon", { ...valid(), epsilon: -1 }, "snapshot.epsilon: expected"],
    ...["layout", "epsilon", "decay", "debias", "runningVarianceOf"].map(
      (name): [string, unknown, string] => [
        `no ${name}`,
        without(name),
        `snapshot.${name}: expected a value, got none`,
      ],
    ),
    [
      "an epsilon that is inherited",
      Object.assign(Object.create({ epsilon: 1 }), without("epsilon")),
      "snapshot.epsilon: expected a value, got none",
    ],
    [
      "holes",
      { ...valid(), gamma: new Array(2) },
      "snapshot.gamma[0]: expected a float32 value, got undefined",
    ],
    [
      "a gamma that float32 has not",
      { ...valid(), gamma: [1, 1e300] },
      "snapshot.gamma[1]: expected a float32 value, got 1e+300",
    ],
    [
      "a beta that float32 has not",
      { ...valid(), beta: [-3.5e38, 1] },
      "snapshot.beta[0]: expected a float32 value, got -3.5e+38",
    ],
    ["decay 1", { ...valid(), decay: 1 }, "snapshot.decay: expected"],
    ["a decay of JSON's null", { ...valid(), decay: null }, "snapshot.decay: expected"],
    ...[
      [2, -1],
      [-0.5, 1.5],
      [Infinity, -Infinity],
    ].map(([weight, decay]): [string, unknown, string] => [
      `a weight of ${weight}`,
      { ...valid(), weight, decay },
      `snapshot.weight: expected 1 - decay, or none, got ${weight}`,
    ]),
    ["debias 1", { ...valid(), debias: 1 }, "snapshot.debias: expected"],
    [
      "no such variance",
      { ...valid(), runningVarianceOf: "m" },
      "snapshot.runningVarianceOf: expected",
    ],
    [
      "a mean with holes",
      { ...valid(), runningMean: Object.assign(new Array(2), [1]) },
      "snapshot.runningMean[1]: expected a",
    ],
    ["no gamma", without("gamma"), "snapshot.gamma: expected 2 numbers, got undefined"],
    [
      "a long beta",
      { ...valid(), beta: [1, 2, 3] },
      "snapshot.beta: expected 2 numbers, got an Array of length 3",
    ],
    [
      "a word",
      { ...valid(), runningMean: [1, "two"] },
      'snapshot.runningMean[1]: expected a number, got "two"',
    ],
    [
      "a null",
      { ...valid(), runningVariance: [null, 1] },
      "snapshot.runningVariance[0]: expected a number, got null",
    ],
    [
      "no averages",
      without("runningMean"),
      "snapshot.runningMean: expected 2 numbers, got undefined",
    ],
    [
      "half a batch",
      { ...valid(), batchesSeen: 0.5 },
      "snapshot.batchesSeen: expected a whole number >= 0, got 0.5",
    ],
    [
      "no batchesSeen",
      without("batchesSeen"),
      "snapshot.batchesSeen: expected a whole number >= 0, got undefined",
    ],
  ];

  test.each(BAD)("%s", (_, snapshot, message) => {
    expect(() => BatchNorm.fromSnapshot(snapshot as string)).toThrow(StateError);
    expect(() => BatchNorm.fromSnapshot(snapshot as string)).toThrow(message);
    const layer = settle(layerOf({ layout: "NC", shape: [9, 2] }, {}, 7), 7);
    layer.train(normal(18, 1));
    const [state, batch] = [stateOf(layer), layer.lastBatch];
    expect(() => layer.restore(snapshot as string)).toThrow(StateError);
    expect(() => layer.restore(snapshot as string)).toThrow(message);
    expect(stateOf(layer)).toBe(state);
    expect(layer.lastBatch).toBe(batch);
  });

  test.each<[string, number, BatchNormOptions, string]>([
    ["other channels", 3, {}, "snapshot.channels: expected the layer's 3, got 2"],
    [
      "a gamma too many",
      2,
      { gamma: false },
      "snapshot.gamma: expected null, as the layer has it, got values",
    ],
    [
      "a beta too many",
      2,
      { beta: false },
      "snapshot.beta: expected null, as the layer has it, got values",
    ],
  ])("of a layer with %s", (_, channels, settings, message) => {
    const layer = settle(new BatchNorm(channels, settings));
    const state = stateOf(layer);
    expect(() => layer.restore(valid())).toThrow(new StateError(message));
    expect(stateOf(layer)).toBe(state);
  });

  test.each(["gamma", "beta"] as const)("of a layer whose %s has no values", (name) => {
    const layer = settle(new BatchNorm(2));
    const state = stateOf(layer);
    const bare = new BatchNorm(2, { [name]: false }).snapshot();
    const message = `snapshot.${name}: expected values, as the layer has it, got null`;
    expect(() => layer.restore(bare)).toThrow(new StateError(message));
    expect(stateOf(layer)).toBe(state);
  });

  test("an array that iterates over other values than it has is read by index", () => {
    const mean = Object.assign([3, 4], { *[Symbol.iterator]() {} });
    const layer = BatchNorm.fromSnapshot({ ...valid(), runningMean: mean });
    expect([...layer.runningMean]).toEqual([3, 4]);
  });

  test("unknown options of fromSnapshot", () => {
    const read = (given: object) => () => BatchNorm.fromSnapshot(valid(), given);
    expect(read({ decay: 0.5 })).toThrow(OptionError);
    expect(read({ kernels: 5 })).toThrow("kernels: expected a Kernels, got 5");
  });
});

describe("clone", () => {
  test("options, kernels and state; nothing shared; no lastBatch", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    check(
      fc.property(options, seeds, (settings, seed) => {
        const layer = settle(new BatchNorm(5, { ...settings, kernels }), seed);
        const copy = layer.clone();
        assertSameLayer(copy, layer);
        expect(copy.kernels).toBe(kernels);
        const state = stateOf(layer);
        copy.gamma?.fill(7);
        copy.beta?.fill(7);
        copy.runningMean.fill(7);
        copy.runningVariance.fill(7);
        copy.batchesSeen = 77;
        expect(stateOf(layer)).toBe(state);
      }),
      20,
    );
    const layer = new BatchNorm(5);
    layer.train(normal(45, 1));
    expect(layer.clone().lastBatch).toBeNull();
    expect(layer.lastBatch).not.toBeNull();
  });

  test("of a layer on the shared kernels: the shared kernels", () => {
    const layer = new BatchNorm(5);
    expect(layer.clone().kernels).toBe(layer.kernels);
  });
});

describe("reset", () => {
  test("averages, batchesSeen and lastBatch; gamma, beta and options stay", () => {
    const layer = settle(layerOf({ layout: "NC", shape: [9, 5] }, { decay: 0.5 }));
    layer.train(normal(45, 1));
    const [gamma, beta] = [layer.gamma!.slice(), layer.beta!.slice()];
    const { runningMean, lastBatch } = layer;
    expect(lastBatch).not.toBeNull();
    layer.reset();
    expect(layer.runningMean).toBe(runningMean);
    expect([...layer.runningMean]).toEqual([0, 0, 0, 0, 0]);
    expect([...layer.runningVariance]).toEqual([1, 1, 1, 1, 1]);
    expect(layer.batchesSeen).toBe(0);
    expect(layer.lastBatch).toBeNull();
    expect(() => layer.backward(normal(45, 1))).toThrow(StateError);
    assertSameBits("gamma", layer.gamma!, gamma);
    assertSameBits("beta", layer.beta!, beta);
    expect(layer.decay).toBe(0.5);
  });

  test("a cumulative average starts anew", () => {
    const layer = new BatchNorm(5, { decay: "cumulative" });
    for (let t = 0; t < 3; t++) layer.train(normal(45, t, 10));
    layer.reset();
    layer.train(normal(45, 9));
    assertSameBits("runningMean", layer.runningMean, layer.lastBatch!.mean);
  });
});

test("JSON.stringify of a layer writes its snapshot", () => {
  const layer = new BatchNorm(2, { layout: "NCL", decay: "cumulative" });
  layer.train(Float32Array.of(1, 2, 3, 5), { shape: [1, 2, 2] });
  expect(JSON.parse(JSON.stringify(layer))).toEqual(layer.snapshot());
});
