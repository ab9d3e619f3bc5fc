// `bn.moments` against the float64 oracle, `Moments` pooled in any grouping and order, `setRunning`.

import { runInNewContext } from "node:vm";
import {
  BatchNorm,
  Kernels,
  Moments,
  type MomentsLike,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arraysMadeBy } from "./support/arrays-made.js";
import {
  countOf,
  layerOf,
  nameOf,
  SHAPES,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
  stateOf,
  viewOf,
} from "./support/cases.js";
import { assertMoments, assertSameBits, assertWithin } from "./support/compare.js";
import { distributed, KINDS, normal, shared } from "./support/data.js";
import { guardedCopy } from "./support/guards.js";
import { POOLING_ERROR, VARIANCE_ERROR } from "./support/limits.js";
import * as oracle from "./support/oracle.js";
import { PLACES, put } from "./support/places.js";
import { CASES, CHANNELS, dataOf, GROUPINGS, pooled } from "./support/pooling.js";
import { check } from "./support/property.js";
import { assertRefuses, wrong } from "./support/refuse.js";

function assertSameMoments(actual: MomentsLike, expected: Moments): void {
  expect(actual.count).toBe(expected.count);
  for (const name of ["mean", "m2", "meanLow"] as const) {
    assertSameBits(name, actual[name]!, expected[name]);
  }
}

/** The moments of rows of 3 channels. */
const of = (x: Float32Array): Moments => new BatchNorm(3).moments(x);
const parsed = (value: object): unknown => JSON.parse(JSON.stringify(value));
const some = (): Moments => of(normal(30, 1, 5));
const none = of(new Float32Array(0));

describe("bn.moments", () => {
  /** Against the oracle, between guards, x and the layer unchanged. */
  function checkMoments(shaped: Shaped, x: Float32Array): Moments {
    const layer = settle(layerOf(shaped));
    const state = stateOf(layer);
    const input = guardedCopy(x);
    const moments = layer.moments(input.array, { shape: shaped.shape });
    assertSameBits("x", input.array, x);
    expect(stateOf(layer)).toBe(state);
    expect(layer.lastBatch).toBeNull();
    expect(moments).toBeInstanceOf(Moments);
    expect(moments.count).toBe(countOf(shaped));
    const { mean } = moments;
    assertMoments(
      { mean, variance: moments.variance("population") },
      oracle.moments(x, viewOf(shaped)),
    );
    // What the mean lost when it was rounded, and no more.
    assertWithin(
      "meanLow",
      moments.meanLow,
      mean.map(() => 0),
      (c) => 2 ** -53 * Math.abs(mean[c]!),
    );
    return moments;
  }

  test("any layout and shape, |mean|/σ up to 1e6, any σ", () => {
    check(
      fc.property(
        shapes(1),
        fc.constantFrom(...KINDS),
        fc.constantFrom(0, 1, 100, 1e4, 1e6),
        fc.constantFrom(1e-15, 1, 1e15),
        seeds,
        (shaped, kind, ratio, sigma, seed) => {
          checkMoments(shaped, distributed(kind, viewOf(shaped), ratio * sigma, sigma, seed));
        },
      ),
      100,
    );
  });

  test.each(SHAPES.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
    const x = normal(sizeOf(shaped), 5, 3);
    const { mean, m2 } = checkMoments(shaped, x);
    // The same as train finds, the layer's own or not.
    const layer = layerOf(shaped);
    layer.train(x, { shape: shaped.shape });
    assertSameBits("mean", mean, layer.lastBatch!.mean);
    const variance = m2.map((sum) => sum / countOf(shaped));
    assertSameBits("variance", variance, layer.lastBatch!.variance);
  });

  test("the same bits wherever x lies", () => {
    const kernels = new Kernels({ memory: 8 << 20 });
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 150_000)) {
      const layer = layerOf(shaped, { kernels });
      const x = normal(sizeOf(shaped), 7, 100);
      const expected = layer.moments(x, { shape: shaped.shape });
      for (const place of PLACES) {
        const placed = put(place, kernels, x, 3);
        assertSameMoments(layer.moments(placed.array, { shape: shaped.shape }), expected);
        placed.free();
      }
    }
  });

  test("of no values: count 0", () => {
    for (const [layout, shape] of [
      ["NC", [0, 2000]],
      ["NCL", [0, 2000, 3]],
      ["NCL", [9, 2000, 0]],
      ["NHWC", [8, 0, 3, 2000]],
    ] as const) {
      const zeros = new Float64Array(2000);
      const expected = { count: 0, mean: zeros, m2: zeros, meanLow: zeros };
      const layer = new BatchNorm(2000, { layout });
      expect({ ...layer.moments(new Float32Array(0), { shape }) }).toEqual(expected);
    }
  });

  test("of one value per channel: that value, without spread", () => {
    for (const [layout, shape] of [
      ["NC", [1, 1500]],
      ["NCHW", [1, 1500, 1, 1]],
    ] as const) {
      const x = normal(1500, 3, 1e6);
      const moments = new BatchNorm(1500, { layout }).moments(x, { shape });
      expect(moments.count).toBe(1);
      assertSameBits("mean", moments.mean, Float64Array.from(x));
      assertSameBits("m2", moments.m2, new Float64Array(1500));
    }
  });

  test("NaN, infinity, an overflow: NonFiniteError names the channels", () => {
    const layer = settle(new BatchNorm(2000));
    for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
      const x = normal(8000, 1);
      for (const c of [0, 3, 1023, 1024, 1999]) x[4000 + c] = bad;
      const message = /^x: expected finite .*in channel 0, 3, 1023, 1024, …$/;
      assertRefuses(NonFiniteError, message, () => layer.moments(x), layer);
    }
  });

  test.each<[string, RegExp, (layer: BatchNorm) => unknown]>([
    [
      "a number array",
      /^x: .*got an Array of length 6$/,
      (l) => l.moments(wrong([1, 2, 3, 4, 5, 6])),
    ],
    [
      "no whole rows",
      /^x: expected rows of 3 channels, got 7 values$/,
      (l) => l.moments(normal(7, 1)),
    ],
    [
      "another shape",
      /^shape: expected sizes \[N, C\] with C = 3, 6 values in all, for layout "NC", got \[3, 2\]$/,
      (l) => l.moments(normal(6, 1), { shape: [3, 2] }),
    ],
  ])("%s: ShapeError", (_, message, call) => {
    const layer = new BatchNorm(3);
    assertRefuses(ShapeError, message, () => call(layer), layer);
  });

  test("an unknown option: OptionError", () => {
    const call = () => new BatchNorm(3).moments(normal(6, 1), wrong({ out: normal(6, 1) }));
    assertRefuses(OptionError, /^out: expected an option among shape, mask, got "out"$/, call);
  });
});

describe("merge", () => {
  // m2 of these parts ends in bits that are lost at each addition, always in the same direction.
  test.each([
    [2000, POOLING_ERROR],
    [131072, 131072 * 2 ** -51],
  ])("%i parts that were built to round alike: one by one, and as a tree", (count, limit) => {
    const part = (): Moments =>
      Moments.fromJSON({
        format: "batchnorm-wasm/moments",
        version: 1,
        count: 2,
        mean: [0],
        meanLow: [0],
        m2: [1 + 2 ** -37 - 2 ** -52],
      });
    const chain = Moments.pool(Array.from({ length: count }, part));
    let level = Array.from({ length: count }, part);
    while (level.length > 1) {
      level = Array.from({ length: Math.ceil(level.length / 2) }, (_, i) => {
        const [a, b] = level.slice(2 * i, 2 * i + 2);
        return b ? a!.merge(b) : a!;
      });
    }
    const apart = Math.abs(chain.m2[0]! / level[0]!.m2[0]! - 1);
    expect(apart).toBeLessThan(limit);
    expect(apart).toBeGreaterThan(0);
  });

  test("what overflows together is refused, and so is a count that JSON could not hold", () => {
    const part = (of: object): Moments => Moments.fromJSON({ ...some().toJSON(), ...of });
    const most = Number.MAX_SAFE_INTEGER;
    for (const [a, b, message] of [
      [{ m2: [1, 1.5e308, 1] }, { m2: [1, 1.5e308, 1] }, /^both: .*and Infinity in channel 1$/],
      [{ mean: [0, 0, 1e308] }, { mean: [0, 0, -1e308] }, /^both: .* in channel 2$/],
      [{ mean: [1e200, 0, 0] }, {}, /^both: .*and Infinity in channel 0$/],
      [{ count: most }, { count: 1 }, /^both.count: .* from 0 to 2\^53 - 1, got 9007199254740992$/],
    ] as const) {
      assertRefuses(StateError, message, () => part(a).merge(part(b)));
      assertRefuses(StateError, message, () => Moments.pool([part(a), part(b)]));
    }
    const full = part({ count: most - 30 }).merge(some());
    assertSameMoments(Moments.fromJSON(full.toJSON()), full);
  });

  test.each(Object.entries(CASES))("%s: any grouping and order", (_, parts) => {
    const data = dataOf(parts);
    const all = Float32Array.from(data.flatMap((each) => [...each]));
    const view = { outer: all.length / CHANNELS, channels: CHANNELS, inner: 1 };
    const exact = oracle.moments(all, view);
    const sigma = exact.variance.map(Math.sqrt);
    const moments = data.map(of);
    const first = pooled(moments, 0);
    const variance = first.variance("population");
    expect(first.count).toBe(view.outer);
    assertMoments({ mean: first.mean, variance }, exact);
    for (let seed = 1; seed < GROUPINGS; seed++) {
      const other = pooled(moments, seed);
      expect(other.count).toBe(view.outer);
      // At most 1e-15 each in these cases.
      const size = (c: number) => Math.max(Math.abs(first.mean[c]!), sigma[c]!);
      assertWithin("mean", other.mean, first.mean, (c) => POOLING_ERROR * size(c));
      assertWithin(
        "variance",
        other.variance("population"),
        variance,
        (c) => POOLING_ERROR * variance[c]!,
      );
      // With its low part the mean is as exact where it is a million σ.
      const apart = other.mean.map(
        (mean, c) => mean - first.mean[c]! + (other.meanLow[c]! - first.meanLow[c]!),
      );
      assertWithin("mean + meanLow", apart, [0, 0, 0], (c) => POOLING_ERROR * sigma[c]!);
    }
  });

  test("any parts, as the whole", () => {
    check(
      fc.property(
        shapes(1, 6000),
        fc.array(fc.integer({ min: 0, max: 70 }), { minLength: 1, maxLength: 6 }),
        fc.constantFrom(0, 1, 1e6),
        seeds,
        (shaped, sizes, mean, seed) => {
          // The given shape, then others of the same channels: all the examples there are.
          const channels = viewOf(shaped).channels;
          const layer = layerOf(shaped);
          const rows = new BatchNorm(channels);
          const x = normal(sizeOf(shaped), seed, mean);
          let whole = layer.moments(x, { shape: shaped.shape });
          const view = viewOf(shaped);
          const values = Array.from({ length: channels }, (_, c) =>
            oracle.indices(view, c).map((i) => x[i]!),
          );
          for (const [k, size] of sizes.entries()) {
            const part = normal(size * channels, seed + k + 1, mean + k, k + 1);
            whole = whole.merge(rows.moments(part));
            part.forEach((value, i) => {
              values[i % channels]!.push(value);
            });
          }
          const outer = values[0]!.length;
          const joined = values.flat();
          const exact = oracle.moments(joined, { outer: 1, channels, inner: outer });
          expect(whole.count).toBe(outer);
          assertMoments({ mean: whole.mean, variance: whole.variance("population") }, exact);
        },
      ),
      40,
    );
  });

  test("moments of nothing are the identity", () => {
    const moments = some();
    assertSameMoments(moments.merge(none), moments);
    assertSameMoments(none.merge(moments), moments);
    assertSameMoments(none.merge(none), none);
  });

  test("parts without spread, of one mean: none", () => {
    const flat = (size: number) => of(new Float32Array(3 * size).fill(1e6 + 1 / 16));
    const whole = flat(3).merge(flat(1)).merge(flat(700));
    expect([...whole.mean, ...whole.m2, ...whole.meanLow]).toEqual([
      ...Array(3).fill(1e6 + 1 / 16),
      ...Array(6).fill(0),
    ]);
  });

  test("both stay as they were", () => {
    const [a, b] = [some(), of(normal(9, 2, 1e6))];
    const [text, other] = [JSON.stringify(a), JSON.stringify(b)];
    expect(a.merge(b)).toBeInstanceOf(Moments);
    expect([JSON.stringify(a), JSON.stringify(b)]).toEqual([text, other]);
  });
});

describe("variance", () => {
  test("of sample and population", () => {
    const x = normal(30, 1, 5);
    const exact = oracle.moments(x, { outer: 10, channels: 3, inner: 1 }).variance;
    const moments = of(x);
    assertWithin(
      "population",
      moments.variance("population"),
      exact,
      (c) => VARIANCE_ERROR * exact[c]!,
    );
    const sample = exact.map((variance) => (variance * 10) / 9);
    assertWithin("sample", moments.variance("sample"), sample, (c) => VARIANCE_ERROR * sample[c]!);
    expect(moments.variance("sample")).not.toBe(moments.variance("sample"));
  });

  test("too few values: SingleValueError", () => {
    const one = of(normal(3, 1));
    expect([...one.variance("population")]).toEqual([0, 0, 0]);
    for (const [moments, kind, least, got] of [
      [one, "sample", 2, 1],
      [none, "sample", 2, 0],
      [none, "population", 1, 0],
    ] as const) {
      const message = `^moments: expected at least ${least} values? per channel for a ${kind} variance, got ${got}$`;
      assertRefuses(SingleValueError, new RegExp(message), () => moments.variance(kind));
    }
  });

  test("of another kind, or none: OptionError", () => {
    for (const [kind, came] of [
      ["unbiased", '"unbiased"'],
      [undefined, "undefined"],
    ]) {
      const message = new RegExp(`^kind: expected one of "sample", "population", got ${came}$`);
      assertRefuses(OptionError, message, () => some().variance(wrong(kind)));
    }
  });
});

describe("JSON", () => {
  const doubles = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(-0, 0, 5e-324, 1e308, 1 / 3, 1e6 + 2 ** -33),
  );
  const sums = doubles.map(Math.abs);
  const values = fc
    .array(fc.tuple(doubles, sums, fc.double({ min: -1, max: 1, noNaN: true })), { minLength: 1 })
    .chain((rows) =>
      fc.record({
        count: fc.oneof(fc.integer({ min: 1 }), fc.constant(Number.MAX_SAFE_INTEGER)),
        mean: fc.constant(Float64Array.from(rows, ([mean]) => mean)),
        m2: fc.constant(Float64Array.from(rows, ([, m2]) => m2)),
        meanLow: fc.constant(Float64Array.from(rows, ([, , low]) => low)),
      }),
    );
  const empty = (channels: number): Moments => new BatchNorm(channels).moments(new Float32Array(0));

  test("exact, as the object and as its text", () => {
    check(
      fc.property(values, (held) => {
        const moments = empty(held.mean.length).merge(held);
        const text = JSON.stringify(moments);
        for (const json of [moments.toJSON(), text, JSON.parse(text)]) {
          const read = Moments.fromJSON(json);
          expect(read).toBeInstanceOf(Moments);
          assertSameMoments(read, moments);
        }
      }),
      100,
    );
  });

  test("what it is", () => {
    const { count, mean, m2, meanLow } = some();
    expect(some().toJSON()).toEqual({
      format: "batchnorm-wasm/moments",
      version: 1,
      count,
      mean: [...mean],
      meanLow: [...meanLow],
      m2: [...m2],
    });
    assertSameMoments(Moments.fromJSON(JSON.stringify(none)), none);
  });

  test.each<[string, RegExp, unknown]>([
    ["null", /^json: expected an object of format "batchnorm-wasm\/moments", got null$/, null],
    [
      "no JSON",
      /^json: expected JSON of format .*, got text that is no JSON; of a file, give readFileSync\(path, "utf8"\)$/,
      "{",
    ],
    ["a snapshot", /^json: .*got format "batchnorm-wasm\/layer"$/, new BatchNorm(3).snapshot()],
    ["a later version", /^json: expected version 1, got 2$/, { ...some().toJSON(), version: 2 }],
    ["no mean", /^mean: expected .*got undefined$/, { ...some().toJSON(), mean: undefined }],
    [
      "a short m2",
      /^m2: expected 3 numbers, got an Array of length 2$/,
      { ...some().toJSON(), m2: [1, 2] },
    ],
    ["no meanLow", /^meanLow: expected 3 numbers/, { ...some().toJSON(), meanLow: undefined }],
    [
      "text for a number",
      /^m2\[1\]: expected a number, got "2"$/,
      { ...some().toJSON(), m2: [1, "2", 3] },
    ],
    ["null for a number", /^mean\[2\]: .*got null$/, { ...some().toJSON(), mean: [1, 2, null] }],
    [
      "a mean NaN",
      /^json: expected finite .*channel 1$/,
      { ...some().toJSON(), mean: [1, "NaN", 3] },
    ],
    [
      "m2 below 0",
      /^json: .*m2 >= 0, got .* and -2 in channel 1$/,
      { ...some().toJSON(), m2: [1, -2, 3] },
    ],
    [
      "half a count",
      /^json.count: expected a whole number from 0 to 2\^53 - 1, got 2.5$/,
      { ...some().toJSON(), count: 2.5 },
    ],
    ["holes", /^m2\[0\]: expected a number, got/, { ...some().toJSON(), m2: new Array(3) }],
    ["no count", /^json.count: .*got undefined$/, { ...some().toJSON(), count: undefined }],
  ])("%s: StateError", (_, message, json) => {
    assertRefuses(StateError, message, () => Moments.fromJSON(wrong(json)));
  });
});

/** What `postMessage` delivers, and the like: each as good as the value itself. */
const CLONES: Readonly<Record<string, (moments: Moments) => MomentsLike>> = {
  "a structured clone": (moments) => structuredClone(moments),
  "arrays of another realm": (moments) =>
    runInNewContext(
      "({ count, mean: Float64Array.from(mean), m2: Float64Array.from(m2), meanLow: Float64Array.from(meanLow) })",
      { ...moments },
    ) as MomentsLike,
  "arrays over shared memory": ({ count, mean, m2, meanLow }) => ({
    count,
    mean: shared(mean),
    m2: shared(m2),
    meanLow: shared(meanLow),
  }),
  "JSON and back": (moments) => Moments.fromJSON(JSON.stringify(moments)),
};

describe.each(Object.entries(CLONES))("%s stands for moments", (_, clone) => {
  const x = normal(30, 1, 1e6);
  const moments = of(x);

  test("in merge", () => {
    const other = of(normal(9, 3, 1e6));
    assertSameMoments(other.merge(clone(moments)), other.merge(moments));
    assertSameMoments(none.merge(clone(moments)), moments);
    assertSameMoments(moments.merge(clone(none)), moments);
  });

  test("and what is made of it stays when it is written", () => {
    const given = clone(moments);
    const layer = new BatchNorm(3);
    layer.train(x, { statistics: given });
    const made = [
      none.merge(given),
      moments.merge(clone(none)),
      Moments.pool([given]),
      layer.lastBatch!.statistics as Moments,
    ];
    const untouched = JSON.stringify(moments);
    for (const name of ["mean", "m2", "meanLow"] as const) given[name]!.fill(7);
    expect(made.map((each) => JSON.stringify(each))).toEqual(Array(4).fill(untouched));
  });

  test("in train and setRunning", () => {
    const results = [moments, clone(moments)].map((statistics) => {
      const layer = settle(new BatchNorm(3));
      const y = layer.train(x, { statistics });
      const trained = stateOf(layer);
      layer.setRunning(statistics);
      return [[...y], trained, stateOf(layer), layer.lastBatch!.mean, layer.lastBatch!.variance];
    });
    expect(results[1]).toEqual(results[0]);
  });
});

test("without meanLow: 0", () => {
  const { count, mean, m2, meanLow } = of(normal(30, 1, 1e6));
  expect(meanLow.some((low) => low !== 0)).toBe(true);
  const plain = { count, mean, m2 };
  const full = { ...plain, meanLow: new Float64Array(3) };
  const other = of(normal(9, 3, 1e6));
  assertSameMoments(other.merge(plain), other.merge(full));
  const layers = [plain, full].map((statistics) => {
    const layer = new BatchNorm(3);
    layer.setRunning(statistics);
    layer.train(normal(30, 2), { statistics });
    return stateOf(layer);
  });
  expect(layers[1]).toBe(layers[0]);
});

// Every way in that takes moments, and what it calls them.
const TAKERS: Readonly<Record<string, (layer: BatchNorm, moments: unknown) => unknown>> = {
  other: (_, moments) => some().merge(wrong(moments)),
  statistics: (layer, moments) => layer.train(normal(12, 1), { statistics: wrong(moments) }),
  moments: (layer, moments) => layer.setRunning(wrong(moments)),
};

describe.each(Object.entries(TAKERS))("wrong moments for %s", (name, take) => {
  const { mean, m2, meanLow } = some();
  const valid = { count: 10, mean, m2, meanLow };
  const four = new BatchNorm(4).moments(normal(8, 1));
  const bad = (value: number) => Float64Array.of(1, value, 2);

  test.each<[string, RegExp, unknown]>([
    [
      "an empty object",
      /: expected mean, m2, meanLow of 3 channels, as fromJSON makes, got mean undefined$/,
      {},
    ],
    ["an array", /: .*got mean undefined$/, [1, 2]],
    ["no m2", /: .*got m2 undefined$/, { ...valid, m2: undefined }],
    ["other channels", /: .*got mean a Float64Array of length 4$/, four],
    [
      "mean in float32",
      /: .*got mean a Float32Array of length 3$/,
      { ...valid, mean: Float32Array.from(mean) },
    ],
    ["a number array", /: .*got m2 an Array of length 3$/, { ...valid, m2: [1, 2, 3] }],
    [
      "a short meanLow",
      /: expected mean, m2, meanLow of 3 channels, .* got meanLow .*length 2$/,
      { ...valid, meanLow: new Float64Array(2) },
    ],
    ["parsed JSON", /: .*, as fromJSON makes, got mean an Array of length 3$/, parsed(some())],
    ["meanLow null", /: .*got meanLow null$/, { ...valid, meanLow: null }],
    ["gradient sums", /: .*got mean undefined$/, { count: 3, sumDy: mean, sumDyXmu: m2 }],
  ])("%s: ShapeError", (_, message, moments) => {
    const layer = settle(new BatchNorm(3));
    assertRefuses(
      ShapeError,
      new RegExp(`^${name}${message.source}`),
      () => take(layer, moments),
      layer,
    );
  });

  test.each<[string, RegExp, unknown]>([
    [
      "a mean NaN",
      /: expected finite means and m2 >= 0, got NaN and .* in channel 1$/,
      { ...valid, mean: bad(Number.NaN) },
    ],
    ["an infinite mean", /: .*got Infinity and/, { ...valid, mean: bad(Infinity) }],
    ["a meanLow NaN", /: expected finite means/, { ...valid, meanLow: bad(Number.NaN) }],
    ["m2 NaN", /: .*and NaN in channel 1$/, { ...valid, m2: bad(Number.NaN) }],
    ["m2 below 0", /: .*and -1e-300 in channel 1$/, { ...valid, m2: bad(-1e-300) }],
    ["m2 infinite", /: .*and Infinity in channel 1$/, { ...valid, m2: bad(Infinity) }],
    [
      "no count",
      /\.count: expected a whole number from 0 to 2\^53 - 1, got undefined$/,
      { mean, m2 },
    ],
    ["a count below 0", /\.count: .*got -1$/, { ...valid, count: -1 }],
    ["half a count", /\.count: .*got 0.5$/, { ...valid, count: 0.5 }],
    ["a count of text", /\.count: .*got "10"$/, { ...valid, count: "10" }],
    ["count NaN", /\.count: .*got NaN$/, { ...valid, count: Number.NaN }],
  ])("%s: StateError", (_, message, moments) => {
    const layer = settle(new BatchNorm(3));
    assertRefuses(
      StateError,
      new RegExp(`^${name}${message.source}`),
      () => take(layer, moments),
      layer,
    );
  });
});

test.each([null, undefined, 5])("moments that are %s: ShapeError", (value) => {
  for (const name of ["other", "moments"]) {
    const message = new RegExp(`^${name}: expected mean, m2, meanLow of 3 .*, got ${value}$`);
    const layer = new BatchNorm(3);
    assertRefuses(ShapeError, message, () => TAKERS[name]!(layer, value), layer);
  }
});

describe("Moments.pool", () => {
  test("of one part, of clones: as merge", () => {
    const [a, b] = [some(), of(normal(9, 3, 1e6))];
    assertSameMoments(Moments.pool([structuredClone(a)]), a);
    assertSameMoments(Moments.pool(new Set([a, structuredClone(b), none])), a.merge(b));
  });

  test("names the part that is none", () => {
    const four = new BatchNorm(4).moments(normal(8, 1));
    for (const [message, parts] of [
      [/^parts: expected at least one, got none$/, []],
      [/^parts: expected an iterable, got Moments\(3\), values per channel: \d+$/, some()],
      [/^parts: expected an iterable, got null$/, null],
      [/^parts\[0\]: expected mean, m2, meanLow of its channels, .*, got undefined$/, [undefined]],
      [
        /^parts\[0\]: .* of its channels, as fromJSON makes, got mean an Array of length 3$/,
        [parsed(some())],
      ],
      [
        /^parts\[2\]: expected mean, m2, meanLow of 3 channels, .*, got mean .*length 4$/,
        [none, some(), four],
      ],
    ] as const) {
      assertRefuses(ShapeError, message, () => Moments.pool(wrong(parts)));
    }
    const negative = { ...some(), count: -1 };
    const call = () => Moments.pool([some(), negative]);
    assertRefuses(StateError, /^parts\[1\].count: .*got -1$/, call);
  });
});

describe("setRunning", () => {
  test("makes no arrays", () => {
    const layer = new BatchNorm(17);
    const moments = layer.moments(normal(8 * 17, 1));
    layer.setRunning(moments);
    expect(arraysMadeBy(() => layer.setRunning(moments))).toBe(0);
  });

  const x = normal(30, 1, 5);
  const view = { outer: 10, channels: 3, inner: 1 };

  test.each([
    ["sample", 10 / 9],
    ["population", 1],
  ] as const)("stores the mean and the %s variance", (runningVarianceOf, correction) => {
    const layer = settle(new BatchNorm(3, { runningVarianceOf }));
    const { mean, variance } = oracle.moments(x, view);
    layer.setRunning(layer.moments(x));
    const { runningMean, runningVariance } = layer;
    assertMoments(
      { mean: runningMean, variance: runningVariance.map((v) => v / correction) },
      {
        mean,
        variance,
      },
    );
    assertSameBits("mean", runningMean, of(x).mean);
    assertSameBits("variance", runningVariance, of(x).variance(runningVarianceOf));
  });

  test.each([
    [0, 1],
    [1, 1],
    [7, 7],
  ])("batchesSeen %i becomes %i; parameters and lastBatch stay", (before, after) => {
    const layer = layerOf({ layout: "NC", shape: [10, 3] });
    layer.train(x);
    layer.batchesSeen = before;
    const { gamma, beta } = layer.snapshot();
    const last = layer.lastBatch;
    layer.setRunning(of(x));
    expect(layer.batchesSeen).toBe(after);
    expect(layer.snapshot()).toMatchObject({ gamma, beta });
    expect(layer.lastBatch).toBe(last);
  });

  test("copies: the moments stay as they are when the averages move", () => {
    const layer = new BatchNorm(3);
    const moments = of(x);
    const text = JSON.stringify(moments);
    layer.setRunning(moments);
    layer.train(normal(12, 9));
    layer.runningMean.fill(9);
    expect(JSON.stringify(moments)).toBe(text);
  });

  test("what pooled over parts, infer normalizes with", () => {
    const layer = new BatchNorm(3, { runningVarianceOf: "population" });
    layer.setRunning(of(x.subarray(0, 9)).merge(of(x.subarray(9))));
    const whole = new BatchNorm(3);
    assertWithin("y", layer.infer(x), whole.train(x), () => 1e-6);
  });

  test("too few values, a wrong batchesSeen: nothing changes", () => {
    const one = of(normal(3, 1));
    const sample = settle(new BatchNorm(3));
    const population = settle(new BatchNorm(3, { runningVarianceOf: "population" }));
    assertRefuses(
      SingleValueError,
      /at least 2 .*sample.* got 1$/,
      () => sample.setRunning(one),
      sample,
    );
    assertRefuses(
      SingleValueError,
      /at least 1 .*got 0$/,
      () => population.setRunning(none),
      population,
    );
    population.setRunning(one);
    assertSameBits("mean", population.runningMean, one.mean);
    assertSameBits("variance", population.runningVariance, new Float64Array(3));
    sample.batchesSeen = -1;
    assertRefuses(StateError, /^batchesSeen: .*got -1$/, () => sample.setRunning(of(x)), sample);
  });
});
