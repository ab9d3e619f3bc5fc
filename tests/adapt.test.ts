// Schneider et al. 2020, eq. 2, and its limits.

import {
  Adapter,
  type AdaptOptions,
  adapt,
  adapter,
  BatchNorm,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { arraysMadeBy } from "./support/arrays-made.js";
import {
  countOf,
  layerOf,
  placesOf,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
  stateOf,
  viewOf,
} from "./support/cases.js";
import { assertNormalized, assertSameBits } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import * as oracle from "./support/oracle.js";
import { check } from "./support/property.js";

const C = 3;

function trained(options = {}): BatchNorm {
  const bn = new BatchNorm(C, options);
  bn.gamma?.set([1, 2, 0.5]);
  bn.beta?.set([0, 1, -1]);
  const x = normal(3000, 1, 4, 2);
  bn.setRunning(bn.moments(x, bn.layout.endsWith("C") ? {} : { shape: [100, C, 10] }));
  return bn;
}

/** What a layer with these averages puts out. */
function expected(
  bn: BatchNorm,
  mean: ArrayLike<number>,
  variance: ArrayLike<number>,
  x: Float32Array,
) {
  return x.map((v, i) => {
    const c = i % C;
    const xhat = (v - mean[c]!) / Math.sqrt(variance[c]! + bn.epsilon);
    return bn.gamma![c]! * xhat + bn.beta![c]!;
  });
}

function expectClose(actual: Float32Array, wanted: Float32Array) {
  actual.forEach((value, i) => {
    expect(Math.abs(value - wanted[i]!)).toBeLessThan(2e-6 * Math.max(1, Math.abs(wanted[i]!)));
  });
}

describe("adapt", () => {
  it.each([0.5, 8, 64, 1000])("blends by the number of examples, prior %f", (prior) => {
    const bn = trained();
    const x = normal(16 * C, 2, 7, 1);
    const w = prior / (prior + 16);
    const own = bn.moments(x);
    const variance = own.variance("population");
    const mean = bn.runningMean.map((m, c) => w * m + (1 - w) * own.mean[c]!);
    const blended = bn.runningVariance.map((v, c) => w * v + (1 - w) * variance[c]!);
    const before = bn.snapshot();
    expectClose(adapt(bn, x, { prior }).infer(x), expected(bn, mean, blended, x));
    expect(bn.snapshot()).toEqual(before);
    expect(bn.lastBatch).toBeNull();
  });

  it("prior 0 is train's normalization, Infinity is freeze's, bit for bit", () => {
    const bn = trained();
    const x = normal(16 * C, 2, 7, 1);
    expect(adapt(bn, x, { prior: Infinity }).toJSON()).toEqual(bn.freeze().toJSON());
    expect(adapt(bn, x, { prior: 0 }).infer(x)).toEqual(bn.clone().train(x));
    expect(adapt(bn, new Float32Array(0), { prior: 0 }).toJSON()).toEqual(bn.freeze().toJSON());
  });

  it("counts examples, not positions, and of a mask those that hold data", () => {
    const bn = trained({ layout: "NCL" });
    const shape = [4, C, 10];
    const x = normal(4 * C * 10, 3, 7, 1);
    const mask = new Uint8Array(40).fill(1, 5, 20); // half of the first, all of the second
    const half = adapt(bn, x, { prior: 2, shape, mask });
    const own = bn.moments(x, { shape, mask });
    expect(half.toJSON().center[0]).toBeCloseTo((bn.runningMean[0]! + own.mean[0]!) / 2, 5);
    const third = adapt(bn, x, { prior: 2, shape });
    const all = bn.moments(x, { shape });
    expect(third.toJSON().center[0]).toBeCloseTo((bn.runningMean[0]! + 2 * all.mean[0]!) / 3, 5);
  });

  it("examples without a position, or nothing but padding, adapt nothing", () => {
    const bn = trained({ layout: "NCL" });
    const [empty, x] = [new Float32Array(0), normal(4 * C * 10, 3)];
    const padding = { shape: [4, C, 10], mask: new Uint8Array(40) };
    for (const prior of [0, 1]) {
      const frozen = bn.freeze().toJSON();
      expect(adapt(bn, empty, { prior, shape: [5, C, 0] }).toJSON()).toEqual(frozen);
      expect(adapt(bn, x, { prior, ...padding }).toJSON()).toEqual(frozen);
      const stream = adapter(bn, { prior, memory: 10 });
      expect(stream.infer(empty, { shape: [5, C, 0] }).length).toBe(0);
      expect([stream.examples, stream.freeze().toJSON()]).toEqual([0, frozen]);
      stream.infer(x, { shape: [4, C, 10] });
      stream.infer(empty, { shape: [5, C, 0] });
      expect(stream.examples).toBe(4);
    }
  });

  it.each([
    [{}, OptionError, "prior: expected a number of examples >= 0, or Infinity, got undefined"],
    [{ prior: -1 }, OptionError, "got -1"],
    [{ prior: NaN }, OptionError, "got NaN"],
    [{ prior: "1" }, OptionError, 'got "1"'],
    [{ prior: 1, out: 1 }, OptionError, 'got "out"'],
  ])("refuses %o", (options, kind, message) => {
    const call = () => adapt(trained(), normal(C, 1), options as AdaptOptions);
    expect(call).toThrow(kind);
    expect(call).toThrow(message);
  });

  it("refuses values that have no statistics, and shapes that do not follow", () => {
    const bn = trained();
    expect(() => adapt(bn, normal(C, 1), { prior: 0 })).toThrow(SingleValueError);
    adapt(bn, normal(C, 1), { prior: 1 });
    expect(() => adapt(bn, new Float32Array(C).fill(NaN), { prior: 1 })).toThrow(NonFiniteError);
    const images = trained({ layout: "NHWC" });
    expect(() => adapt(images, normal(30, 1), { prior: 1 })).toThrow(ShapeError);
    adapt(images, normal(36, 1), { prior: 1, shape: [2, 2, 3, C] });
  });
});

/** The float64 mean and population variance of what a mask leaves of each channel. */
function exactOf(x: Float32Array, shaped: Shaped, mask: Uint8Array) {
  const { channels } = viewOf(shaped);
  const kept = placesOf(shaped, (p) => mask[p] !== 0).map((i) => x[i]!);
  return oracle.moments(kept, { outer: kept.length / channels, channels, inner: 1 });
}

it("any layout, mask, prior, |mean|/σ up to 1e6: as eq. 2 in float64", () => {
  check(
    fc.property(
      shapes(1, 3000),
      fc.constantFrom(0, 1, 1e6),
      fc.constantFrom(0.25, 4, 1000),
      fc.boolean(),
      seeds,
      (shaped, mean, prior, masked, seed) => {
        const { shape } = shaped;
        const [examples] = shape as [number];
        const bn = settle(layerOf(shaped), seed, mean + 0.5);
        const before = stateOf(bn);
        const count = countOf(shaped);
        const next = random(seed);
        const mask = Uint8Array.from({ length: count }, () => Number(!masked || next() < 0.6));
        const x = normal(sizeOf(shaped), seed, mean + 2, 0.7);
        const data = [...mask.keys()].filter((p) => mask[p] !== 0);
        const held = new Set(data.map((p) => Math.floor((p * examples) / count)));
        for (const i of placesOf(shaped, (p) => mask[p] === 0)) x[i] = NaN;
        const frozen = adapt(bn, x, { prior, shape, mask });

        const w = prior / (prior + held.size);
        const own = held.size > 0 ? exactOf(x, shaped, mask) : null;
        const blended = (averages: Float64Array, of: "mean" | "variance") =>
          averages.map((v, c) => (own === null ? v : w * v + (1 - w) * own[of][c]!));
        const { gamma, beta, epsilon } = bn;
        const terms = {
          mean: blended(bn.runningMean, "mean"),
          variance: blended(bn.runningVariance, "variance"),
          gamma,
          beta,
          epsilon,
        };
        const targets = normal(sizeOf(shaped), seed + 1, mean, 1);
        const y = frozen.infer(targets, { shape });
        assertNormalized(y, targets, viewOf(shaped), terms);
        expect(stateOf(bn)).toBe(before);
      },
    ),
    60,
  );
});

describe("adapter", () => {
  it("one target after the other is adapt to all so far", () => {
    const bn = trained();
    const stream = adapter(bn, { prior: 8, memory: Infinity });
    const x = normal(40 * C, 4, 7, 1);
    for (let n = 1; n <= 40; n++) {
      const target = x.subarray((n - 1) * C, n * C);
      const wanted = adapt(bn, x.subarray(0, n * C), { prior: 8 });
      expectClose(stream.infer(target), wanted.infer(target));
      expect(stream.examples).toBe(n);
    }
    const [a, b] = [stream.freeze().toJSON(), adapt(bn, x, { prior: 8 }).toJSON()];
    a.center.forEach((value, c) => {
      expect(value).toBeCloseTo(b.center[c] as number, 6);
    });
  });

  it("forgets beyond its memory, as a float64 simulation does", () => {
    const bn = trained();
    const [prior, memory] = [5, 20];
    const stream = adapter(bn, { prior, memory });
    let held = 0;
    let [mean, square] = [0, 0]; // of channel 0
    [6, 1, 30, 1, 19, 20, 3, 3].forEach((n, step) => {
      const x = normal(n * C, 60 + step, step, 2);
      const values = Array.from({ length: n }, (_, i) => x[i * C]!);
      const counted = Math.min(n, memory);
      const kept = Math.min(held, memory - counted);
      const average = (f: (v: number) => number) => values.reduce((s, v) => s + f(v), 0) / n;
      mean = (kept * mean + counted * average((v) => v)) / (kept + counted);
      square = (kept * square + counted * average((v) => v * v)) / (kept + counted);
      held = kept + counted;
      stream.infer(x);
      expect(stream.examples).toBe(held);
      const w = prior / (prior + held);
      const { center, scale } = stream.freeze().toJSON();
      expect(center[0]).toBeCloseTo(w * bn.runningMean[0]! + (1 - w) * mean, 5);
      const variance = w * bn.runningVariance[0]! + (1 - w) * (square - mean * mean);
      expect(scale[0]).toBeCloseTo(1 / Math.sqrt(variance + bn.epsilon), 5);
    });
  });

  it("a target that throws is not remembered; reset forgets; the source may train on", () => {
    const bn = trained();
    const stream = adapter(bn, { prior: 5, memory: 20 });
    const start = stream.freeze().toJSON();
    expect(start).toEqual(bn.freeze().toJSON());
    const x = normal(4 * C, 5, 9, 1);
    const y = stream.infer(x);
    const after = stream.freeze().toJSON();
    expect(() => stream.infer(x.map(() => NaN))).toThrow(NonFiniteError);
    expect(() => stream.infer(x, { out: new Float32Array(1) })).toThrow(ShapeError);
    expect([stream.examples, stream.freeze().toJSON()]).toEqual([4, after]);
    bn.train(x);
    bn.gamma!.fill(9);
    expect(stream.freeze().toJSON()).toEqual(after);
    stream.reset();
    expect([stream.examples, stream.freeze().toJSON()]).toEqual([0, start]);
    const out = x.slice();
    expect(stream.infer(out, { out })).toBe(out);
    expect(out).toEqual(y);
  });

  it("prior 0: by as many values as came, however few of them are remembered", () => {
    const bn = trained();
    const one = normal(C, 5, 9, 1);
    for (const memory of [1, 2, Infinity]) {
      const stream = adapter(bn, { prior: 0, memory });
      expect(() => stream.infer(one)).toThrow(SingleValueError);
      expect(stream.examples).toBe(0);
      const x = normal(49 * C, 4, 7, 1); // 49·(1/49) < 1 in float64
      expectClose(stream.infer(x), bn.clone().train(x));
      if (memory > 1) stream.infer(one);
      else expect(() => stream.infer(one)).toThrow(SingleValueError);
    }
  });

  it("refuses a wrong running variance that the targets' would hide, and options that are none", () => {
    const bn = trained();
    bn.runningVariance[1] = -1;
    const x = normal(16 * C, 2, 7, 5);
    expect(() => adapt(bn, x, { prior: 1 })).toThrow(StateError);
    const stream = adapter(bn, { prior: 1, memory: 5 });
    expect(() => stream.infer(x)).toThrow(/^runningVariance: .*got -1 for channel 1$/);
    expect(stream.examples).toBe(0);
    expect(() => stream.infer(x, null as never)).toThrow(OptionError);
  });

  it("helps where the targets have shifted", () => {
    const bn = trained();
    const stream = adapter(bn, { prior: 16, memory: 200 });
    const clean = normal(400 * C, 6, 4, 2);
    const shifted = clean.map((v) => 0.3 * v + 9);
    const wanted = bn.infer(clean);
    const distance = (y: Float32Array) => y.reduce((s, v, i) => s + (v - wanted[i]!) ** 2, 0);
    const frozen = distance(bn.infer(shifted));
    const adapted = new Float32Array(clean.length);
    for (let i = 0; i < clean.length; i += C)
      adapted.set(stream.infer(shifted.subarray(i, i + C)), i);
    expect(distance(adapted) / frozen).toBeLessThan(0.1);
  });

  it("a target that is all padding leaves what is remembered, and JSON that can be read", () => {
    const layer = trained({ layout: "NLC" });
    const shape = [4, 5, C];
    const padding = { shape, mask: new Uint8Array(20) };
    const [a, b, c] = [1, 2, 3].map((seed) => normal(60, seed, 7, 1)) as Float32Array[];
    for (const memory of [6, Infinity]) {
      const [stream, without] = [0, 0].map(() => adapter(layer, { prior: 5, memory }));
      stream!.infer(b!, padding);
      expect(JSON.stringify(Adapter.fromJSON(JSON.stringify(stream)))).toBe(
        JSON.stringify(without),
      );
      for (const x of [a!, c!]) {
        assertSameBits("y", stream!.infer(x, { shape }), without!.infer(x, { shape }));
        stream!.infer(b!, padding);
        stream!.infer(b!, padding);
        expect(JSON.stringify(stream)).toBe(JSON.stringify(without));
      }
    }
  });

  it("prior 0: train's normalization, bit for bit, also where float64 rounds the mean off", () => {
    const layer = new BatchNorm(1, { epsilon: 0, gamma: false, beta: false });
    const x = new Float32Array(200_003).fill(1e7);
    x[0] = 1e7 + 1;
    const y = adapter(layer, { prior: 0, memory: Infinity }).infer(x);
    expect(y[1]).toBeCloseTo(-1 / Math.sqrt(200_002), 9);
    assertSameBits("y", y, layer.train(x));
  });

  it.each([20, Infinity])("with a memory of %d, a call makes no array but its result", (memory) => {
    const stream = adapter(trained(), { prior: 5, memory });
    const x = normal(8 * C, 4, 7, 1);
    // The first two calls make the arrays that later ones take turns with.
    for (let call = 0; call < 4; call++) stream.infer(x);
    expect(arraysMadeBy(() => stream.infer(x))).toBe(1);
    expect(arraysMadeBy(() => stream.infer(x, { out: x }))).toBe(0);
    // All that is remembered gives way to more than that.
    const many = normal(30 * C, 5, 7, 1);
    expect(arraysMadeBy(() => stream.infer(many, { out: many }))).toBe(0);
  });

  it("its JSON goes on with the same bits, faded targets and infinite options too", () => {
    for (const [prior, memory] of [
      [5, 20],
      [0, 2.5],
      [Infinity, Infinity],
    ] as const) {
      const bn = trained();
      const stream = adapter(bn, { prior, memory });
      for (let n = 0; n < 7; n++) {
        const text = JSON.stringify(stream);
        const again = Adapter.fromJSON(text);
        expect(JSON.stringify(again)).toBe(text);
        expect(String(again)).toBe(String(stream));
        const x = normal((3 + n) * C, 70 + n, n, 2);
        expect(again.infer(x)).toEqual(stream.infer(x));
        expect([again.examples, again.freeze().toJSON()]).toEqual([
          stream.examples,
          stream.freeze().toJSON(),
        ]);
      }
    }
  });

  it("refuses JSON of anything else", () => {
    const stream = adapter(trained(), { prior: 5, memory: 20 });
    stream.infer(normal(6 * C, 4, 7, 1));
    const json = JSON.parse(JSON.stringify(stream));
    const target = { ...json.target };
    for (const wrong of [
      null,
      "{",
      { ...json, format: "batchnorm-wasm/layer" },
      { ...json, version: 2 },
      { ...json, layer: null },
      { ...json, prior: -1 },
      { ...json, prior: "many" },
      { ...json, memory: 0 },
      { ...json, examples: -1 },
      // What is remembered is of some examples, at most of as many as the memory holds.
      { ...json, examples: 0 },
      { ...json, examples: 21 },
      { ...json, memory: "Infinity", examples: Infinity },
      { ...json, target: null },
      { ...json, target: undefined },
      { ...json, target: {} },
      { ...json, target: { ...target, count: -1 } },
      { ...json, target: { ...target, count: 0 } },
      // What only turns into a number would be joined to other counts as a text: "5" and 4 make "54".
      ...["5", [5], true, { valueOf: () => 5 }].map((count) => ({
        ...json,
        target: { ...target, count },
      })),
      { ...json, target: { ...target, m2: target.m2.map(() => -1) } },
      { ...json, target: { ...target, mean: target.mean.slice(1) } },
      { ...json, target: { ...target, mean: target.mean.map(() => "NaN") } },
      { ...json, target: { ...target, meanLow: target.meanLow.map(() => "NaN") } },
      { ...json, target: { ...target, meanLow: target.meanLow.map(() => "Infinity") } },
    ]) {
      expect(() => Adapter.fromJSON(wrong as never)).toThrow(StateError);
    }
    expect(() => Adapter.fromJSON(json, { kernel: 1 } as never)).toThrow(OptionError);
  });

  it.each([{ prior: 1 }, { memory: 1 }, { prior: 1, memory: 0 }, { prior: 1, memory: NaN }])(
    "refuses %o",
    (options) => expect(() => adapter(trained(), options as never)).toThrow(OptionError),
  );
});

it("new Adapter is refused, as what adapter checks would be missing", () => {
  const Class = Adapter as unknown as new (...given: unknown[]) => Adapter;
  for (const given of [[], [new BatchNorm(2)], [new BatchNorm(2), { prior: 1, memory: 2 }]]) {
    expect(() => new Class(...given)).toThrow(StateError);
    expect(() => new Class(...given)).toThrow("Adapter: expected adapter or fromJSON, got new");
  }
});
