// What a layer holds: arrays of it that were transferred away, results that would be written over them, inputs that
// were overwritten, and changes of several layers at once.

import { deepStrictEqual } from "node:assert";
import {
  adapt,
  adapter,
  type BatchNorm,
  calibrate,
  diagnose,
  FrozenBatchNorm,
  fold,
  GradientSums,
  Kernels,
  BatchNorm as Layer,
  Moments,
  NonFiniteError,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import { save } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { wrong } from "../support/refuse.js";
import { transfer } from "../support/transfer.js";
import { Ran } from "./arrays.js";

const C = 3;
const x = normal(12, 1);
const dy = normal(12, 2);
const moments = new Layer(C).moments(normal(30, 3));
const snapshot = new Layer(C).snapshot();

const trained = (): BatchNorm => {
  const layer = new Layer(C);
  layer.train(x);
  return layer;
};

const ARRAYS = ["gamma", "beta", "runningMean", "runningVariance"] as const;

/** Methods that need an array of the layer, or that write all of them. */
const USES: Readonly<Record<string, readonly [uses: string, (layer: BatchNorm) => unknown]>> = {
  train: ["gamma beta runningMean runningVariance", (layer) => layer.train(x)],
  "train by running averages": [
    "gamma beta runningMean runningVariance",
    (layer) => layer.train(x, { statistics: "running" }),
  ],
  "train by moments": [
    "gamma beta runningMean runningVariance",
    (layer) => layer.train(x, { statistics: moments }),
  ],
  "train of many channels": [
    "gamma beta runningMean runningVariance",
    (layer) => layer.train(normal(layer.channels * 4, 5)),
  ],
  infer: ["gamma beta runningMean runningVariance", (layer) => layer.infer(x)],
  backward: ["gamma", (layer) => layer.backward(dy)],
  "backward into arrays": [
    "gamma",
    (layer) => layer.backward(dy, { out: { dgamma: new Float32Array(C) } }),
  ],
  setRunning: ["runningMean runningVariance", (layer) => layer.setRunning(moments)],
  reset: ["runningMean runningVariance", (layer) => layer.reset()],
  restore: ["gamma beta runningMean runningVariance", (layer) => layer.restore(wrong(snapshot))],
  freeze: ["gamma beta runningMean runningVariance", (layer) => layer.freeze()],
  snapshot: ["gamma beta runningMean runningVariance", (layer) => layer.snapshot()],
  clone: ["gamma beta runningMean runningVariance", (layer) => layer.clone()],
  save: ["gamma beta runningMean runningVariance", (layer) => save({ layer })],
  adapt: ["gamma beta runningMean runningVariance", (layer) => adapt(layer, x, { prior: 5 })],
  adapter: [
    "gamma beta runningMean runningVariance",
    (layer) => adapter(layer, { prior: 5, memory: 9 }),
  ],
  diagnose: ["runningMean runningVariance", (layer) => diagnose(layer, x)],
  fold: [
    "gamma beta runningMean runningVariance",
    (layer) =>
      fold(layer.freeze(), {
        weight: normal(6, 1),
        shape: [3, 2],
        kind: "linear",
        order: "OI",
        into: "before",
      }),
  ],
};

/** What a layer still has, where one of its arrays is gone. */
const remains = (layer: BatchNorm): unknown => [
  ARRAYS.map((name) => {
    try {
      return Array.from(layer[name] ?? []);
    } catch {
      return "gone";
    }
  }),
  layer.batchesSeen,
  layer.ageKnown,
];

describe.each(Object.entries(USES))("%s", (_, [uses, call]) => {
  test.each(uses.split(" ") as (typeof ARRAYS)[number][])("without %s: StateError", (name) => {
    const layer = trained();
    transfer(layer[name]!);
    const before = remains(layer);
    const { lastBatch } = layer;
    expect(() => call(layer)).toThrow(/its values, got none: its buffer was transferred$/);
    expect(() => call(layer)).toThrow(StateError);
    deepStrictEqual(remains(layer), before);
    expect(layer.lastBatch).toBe(lastBatch);
  });
});

test.each(ARRAYS)("a layer of many channels without %s: StateError", (name) => {
  const layer = new Layer(1500);
  const many = normal(6000, 4);
  transfer(layer[name]!);
  const out = many.slice();
  for (const call of [
    () => layer.train(out, { out }),
    () => layer.infer(out, { out }),
    () => layer.freeze(),
  ]) {
    expect(call).toThrow(StateError);
  }
  assertSameBits("out", out, many);
});

describe("results over the arrays of the layer", () => {
  for (const name of ARRAYS) {
    test(`${name}: ShapeError`, () => {
      const layer = trained();
      const array = layer[name]!;
      const out = new Float32Array(array.buffer, 0, C);
      const before = JSON.stringify(layer);
      const message = `expected memory of its own, got some of that of ${name}`;
      const one = normal(C, 5);
      for (const call of [
        () => layer.infer(one, { out }),
        () => layer.train(one, { out, statistics: "running" }),
        () => layer.infer(out, { out }),
        () => layer.backward(dy, { out: { dgamma: out } }),
        () => layer.backward(dy, { out: { dbeta: out } }),
      ]) {
        expect(call).toThrow(ShapeError);
        expect(call).toThrow(message);
      }
      expect(JSON.stringify(layer)).toBe(before);
      // They may be read, as any array.
      assertSameBits("y", layer.infer(out), layer.infer(out.slice()));
    });
  }
});

describe("an input that was overwritten", () => {
  const message = /^x: expected the input of train, got other values/;

  test("in place, and given to backward nevertheless", () => {
    const layer = new Layer(C);
    const same = x.slice();
    layer.train(same, { out: same });
    const dx = new Float32Array(12);
    expect(() => layer.backward(dy, { x: same, out: { dx } })).toThrow(message);
    expect(() => layer.backwardSums(dy, { x: same })).toThrow(StateError);
    expect(dx.every((value) => value === 0)).toBe(true);
    assertSameBits("dx", layer.backward(dy, { x }).dx, trained().backward(dy).dx);
  });

  test("by the next batch, in the same array", () => {
    const layer = new Layer(C);
    const buffer = x.slice();
    layer.train(buffer);
    const batch = layer.lastBatch!;
    buffer.set(normal(12, 9));
    expect(() => layer.backward(dy)).toThrow(message);
    expect(() => layer.backward(dy, { batch })).toThrow(message);
    assertSameBits("dx", layer.backward(dy, { batch, x }).dx, trained().backward(dy).dx);
  });

  test.each([2, 3, 4, 5, 7, 10, 50, 100, 128, 200, 500, 1000])(
    "though a channel is the same in all of %i examples",
    (rows) => {
      for (const [channels, inner] of [
        [2, 1],
        [3, 1],
        [784, 1],
        [2, 16],
        [3, 64],
      ] as const) {
        const layer = new Layer(channels, { layout: "channelsFirst" });
        const shape = inner === 1 ? [rows, channels] : [rows, channels, inner];
        const some = normal(rows * channels * inner, 4);
        const first = (i: number) => Math.floor(i / inner) % channels === 0;
        for (let i = 0; i < some.length; i++) if (first(i)) some[i] = 0;
        layer.train(some, { shape });
        const grad = normal(some.length, 5);
        expect(layer.backward(grad).dx).toHaveLength(some.length);
        for (let i = 0; i < some.length; i++) if (!first(i)) some[i] = some[i]! + 1;
        expect(() => layer.backward(grad)).toThrow(message);
      }
    },
  );

  test("though a channel is the same in all that a mask selects", () => {
    const layer = new Layer(2);
    const some = Float32Array.of(0, 1, 0, 2, 0, 4, 0, 8);
    layer.train(some, { mask: Uint8Array.of(1, 1, 1, 0) });
    expect(layer.backward(normal(8, 5)).dx).toHaveLength(8);
    for (let i = 1; i < 6; i += 2) some[i]!++;
    expect(() => layer.backward(normal(8, 5))).toThrow(message);
  });

  test("in its small values, beside a large one", () => {
    const layer = new Layer(1);
    const some = normal(64, 6);
    some[13] = 1e30;
    layer.train(some, { statistics: "running" });
    some.set(normal(50, 7), 14);
    expect(() => layer.backward(normal(64, 5))).toThrow(message);
  });

  test("where a mask leaves padding out, which may hold anything", () => {
    const layer = new Layer(C);
    const mask = Uint8Array.of(0, 1, 1, 0);
    const padded = x.slice();
    layer.train(padded, { mask });
    const { dx } = layer.backward(dy);
    padded.fill(Number.NaN, 0, C).fill(7, 9);
    assertSameBits("dx", layer.backward(dy).dx, dx);
    padded.fill(5, C, 9);
    expect(() => layer.backward(dy)).toThrow(message);
  });

  test("NaN and no values at all are no other values", () => {
    const layer = trained();
    const some = x.slice().fill(Number.NaN, 2);
    layer.train(some, { statistics: "running" });
    expect(layer.backward(dy).dx).toHaveLength(12);
    layer.train(new Float32Array(0), { statistics: "running" });
    expect(layer.backward(new Float32Array(0)).dx).toHaveLength(0);
  });

  test("by users of a freed tensor's place", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    const layer = new Layer(C, { kernels });
    const tensor = kernels.alloc(14);
    const part = tensor.subarray(1, 13);
    part.set(x);
    layer.train(part);
    kernels.free(tensor);
    expect(() => layer.backward(dy)).toThrow(StateError);
    kernels.alloc(14).fill(3);
    expect(() => layer.backward(dy)).toThrow(message);
  });

  test("what a user does with lastBatch.mean does not reach the gradient", () => {
    const layer = trained();
    const batch = layer.lastBatch!;
    batch.mean.fill(99);
    transfer(batch.variance);
    assertSameBits("dx", layer.backward(dy, { batch }).dx, trained().backward(dy).dx);
  });
});

describe("calibrate of several layers", () => {
  const run = (layers: BatchNorm[]) =>
    calibrate(layers, () => layers.map((layer) => layer.train(x)), [1, 2]);

  test.each(ARRAYS)("of which one has lost its %s: none has changed", async (name) => {
    const [a, b] = [trained(), trained()];
    const before = JSON.stringify(a);
    const call = calibrate([a, b], () => [a.train(x), b.train(x)], [1, 2], {
      onProgress: ({ batches }) => {
        if (batches === 2) transfer(b[name]!);
      },
    });
    await expect(call).rejects.toThrow(StateError);
    expect(JSON.stringify(a)).toBe(before);
  });

  test("of which one refuses a batchesSeen: all have changed", async () => {
    const [a, b] = [trained(), trained()];
    Object.defineProperty(b, "batchesSeen", {
      get: () => 1,
      set() {
        throw new Ran();
      },
    });
    await run([a, b]);
    assertSameBits("runningMean", b.runningMean, a.runningMean);
  });

  test("whose given moments overflow together: NonFiniteError, and none has changed", async () => {
    const [a, b] = [trained(), trained()];
    const before = JSON.stringify([a, b]);
    const large = { ...moments, m2: Float64Array.of(1, 1.5e308, 1) };
    const call = calibrate([a, b], () => [a.train(x), b.train(x, { statistics: large })], [1, 2]);
    await expect(call).rejects.toThrow(NonFiniteError);
    expect(JSON.stringify([a, b])).toBe(before);
  });

  test("a train by moments is gathered by these moments", async () => {
    const layer = trained();
    const { layers } = await calibrate([layer], () => layer.train(x, { statistics: moments }), [1]);
    deepStrictEqual(layers[0]!.moments, moments);
    assertSameBits("runningMean", layer.runningMean, moments.mean);
  });
});

test("setRunning calls nothing of an array of moments, where anything could change what was checked", () => {
  const layer = trained();
  const own = moments.merge(new Layer(C).moments(new Float32Array(0)));
  for (const name of [Symbol.iterator, "length", "map", "forEach"]) {
    Object.defineProperty(own.mean, name, {
      get: () => {
        throw new Error("called");
      },
    });
  }
  layer.setRunning(own);
  assertSameBits("runningMean", layer.runningMean, moments.mean);
});

describe("moments and sums of which an array was transferred", () => {
  const [other, sums] = [moments, trained().backwardSums(dy)];
  const copied = (): Moments => moments.merge(new Layer(C).moments(new Float32Array(0)));
  const nothing = new Layer(C).moments(new Float32Array(0));
  const message = (name: string) =>
    new RegExp(`^${name}: expected its values, got none: its buffer was transferred$`);

  test.each(["mean", "m2", "meanLow"] as const)("without %s: StateError", (name) => {
    const lost = copied();
    transfer(lost[name]);
    const calls: (() => unknown)[] = [
      () => lost.merge(other),
      () => lost.merge(nothing),
      () => lost.toJSON(),
    ];
    if (name === "m2") calls.push(() => lost.variance("sample"));
    for (const call of calls) {
      expect(call).toThrow(StateError);
      expect(call).toThrow(message(name));
    }
    for (const call of [() => other.merge(lost), () => Moments.pool([other, lost])]) {
      expect(call).toThrow(ShapeError);
    }
  });

  test.each(["sumDy", "sumDyXmu"] as const)("without %s: StateError", (name) => {
    const lost = GradientSums.pool([sums]);
    transfer(lost[name]);
    for (const call of [() => lost.merge(sums), () => lost.toJSON()]) {
      expect(call).toThrow(StateError);
      expect(call).toThrow(message(name));
    }
    expect(() => sums.merge(lost)).toThrow(ShapeError);
  });

  test("moments of no channels have lost nothing", () => {
    const json = { ...moments.toJSON(), mean: [], m2: [], meanLow: [] };
    expect(Moments.fromJSON(Moments.fromJSON(json).toJSON()).variance("sample")).toHaveLength(0);
  });
});

test("a subclass whose getters call the layer: each call is right all the same", () => {
  const other = normal(12, 30, 9, 4);
  for (const name of ["gamma", "beta", "layout", "kernels", "channels", "runningMean"] as const) {
    class Calling extends Layer {
      on = false;
    }
    Object.defineProperty(Calling.prototype, name, {
      get(this: Calling) {
        if (this.on) {
          this.on = false;
          this.train(other);
          this.train(x);
          this.train(other);
          this.on = true;
        }
        return Reflect.get(Layer.prototype, name, this);
      },
    });
    const layer = new Calling(C);
    layer.on = true;
    const right = new Layer(C);
    assertSameBits(`y with a getter ${name}`, layer.train(x), right.train(x));
    const [batch, expected] = [layer.lastBatch!, right.lastBatch!];
    assertSameBits("mean", batch.mean, expected.mean);
    assertSameBits("dx", layer.backward(dy).dx, right.backward(dy).dx);
    assertSameBits("sumDyXmu", layer.backwardSums(dy).sumDyXmu, right.backwardSums(dy).sumDyXmu);
    expect(layer.lastBatch).toBe(batch);
  }
});

test("given means that float32 does not hold are refused", () => {
  const layer = trained();
  const before = JSON.stringify(layer);
  const out = x.slice();
  for (const mean of [1e300, -3.5e38]) {
    const statistics = { count: 2, mean: Float64Array.of(0, mean, 0), m2: new Float64Array(3) };
    const call = () => layer.train(x, { statistics, out });
    expect(call).toThrow(StateError);
    expect(call).toThrow(
      /^statistics: expected means of float32 values, got (-3\.5e\+38|1e\+300)$/,
    );
  }
  const moments = { count: 2, mean: Float64Array.of(0, 1e300, 0), m2: new Float64Array(3) };
  for (const call of [
    () => layer.setRunning(moments),
    () => FrozenBatchNorm.fromMoments(moments),
  ]) {
    expect(call).toThrow(StateError);
    expect(call).toThrow(/^moments: expected means of float32 values, got 1e\+300$/);
  }
  assertSameBits("out", out, x);
  expect(JSON.stringify(layer)).toBe(before);
});

test("moments over memory that another thread writes are those that were checked", () => {
  const mean = new Float64Array(new SharedArrayBuffer(8 * C));
  let reads = 0;
  const given = {
    count: 4,
    mean,
    get m2() {
      return new Float64Array(C + reads++).fill(1);
    },
    get meanLow() {
      mean.fill(Number.NaN); // As another thread might, after mean was copied.
      return new Float64Array(C);
    },
  };
  const layer = trained();
  layer.setRunning(given as never);
  assertSameBits("runningMean", layer.runningMean, new Float64Array(C));
  expect(reads).toBe(1);
});

test("constructors without numbers are refused", () => {
  for (const Class of [Moments, GradientSums]) {
    expect(() => new (wrong(Class))()).toThrow(ShapeError);
    expect(() => new (wrong(Class))(4)).toThrow(ShapeError);
  }
});

test("a layer at the largest count of mini-batches stays usable", () => {
  const layer = trained();
  layer.batchesSeen = Number.MAX_SAFE_INTEGER;
  layer.train(x);
  layer.train(x);
  expect(layer.batchesSeen).toBe(Number.MAX_SAFE_INTEGER);
  expect(Layer.fromSnapshot(layer.snapshot()).batchesSeen).toBe(Number.MAX_SAFE_INTEGER);
});

test("free takes the view that alloc returned, and no part of it", () => {
  const kernels = new Kernels({ memory: 1 << 20 });
  const tensor = kernels.alloc(8);
  const part = tensor.subarray(0);
  kernels.free(tensor);
  const next = kernels.alloc(8);
  for (const view of [part, tensor]) expect(() => kernels.free(view)).toThrow(StateError);
  Object.defineProperty(next, "byteOffset", { value: 0 });
  expect(kernels.alloc(8).byteOffset).not.toBe(tensor.byteOffset);
  kernels.free(next);
});
