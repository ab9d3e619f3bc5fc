// `train` against the float64 oracle, and the running averages against their formula.

import { BatchNorm, type BatchNormOptions, NonFiniteError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CHANNEL_COUNTS,
  countOf,
  LARGE_SHAPES,
  layerOf,
  SHAPES,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
  stateOf,
  viewOf,
} from "./support/cases.js";
import { assertNormalized, assertSameBits, assertWithin } from "./support/compare.js";
import { normal } from "./support/data.js";
import { guardedCopy } from "./support/guards.js";
import { FLOAT64_ERROR, MEAN_ERROR, VARIANCE_ERROR } from "./support/limits.js";
import { indices, moments } from "./support/oracle.js";
import { checkTrain } from "./support/passes.js";
import { check } from "./support/property.js";

describe("a mini-batch by its own statistics", () => {
  test("any layout and shape, any options", () => {
    check(
      fc.property(
        shapes(2),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(0, 1e-5, 1e-3),
        fc.constantFrom(0, 1, 100),
        seeds,
        (shaped, gamma, beta, epsilon, mean, seed) => {
          const layer = layerOf(shaped, { gamma, beta, epsilon }, seed);
          expect(layer.gamma === null).toBe(!gamma);
          expect(layer.beta === null).toBe(!beta);
          checkTrain(layer, shaped, normal(sizeOf(shaped), seed, mean));
        },
      ),
      150,
    );
  });

  test.each(LARGE_SHAPES)("%s", (_, shaped) => {
    checkTrain(layerOf(shaped), shaped, normal(sizeOf(shaped), 5, 3));
  });

  test("every number of channels, in rows, narrow planes and planes", () => {
    for (const channels of CHANNEL_COUNTS) {
      const few = channels > 100 ? 2 : 5;
      for (const shaped of [
        { layout: "NC", shape: [few, channels] },
        { layout: "NC", shape: [few + 64, channels] },
        { layout: "NCL", shape: [9, channels, few] },
        { layout: "NCL", shape: [2, channels, 18] },
      ] as const) {
        checkTrain(layerOf(shaped), shaped, normal(sizeOf(shaped), channels, 1));
      }
    }
  });

  test("planes of 1 to 20 values, of few and of many examples", () => {
    for (let inner = 1; inner <= 20; inner++) {
      for (const examples of [2, 7, 8, 9, 63, 64, 65, 257]) {
        const shaped = { layout: "NCL", shape: [examples, 3, inner] } as const;
        checkTrain(layerOf(shaped), shaped, normal(sizeOf(shaped), inner, -2));
      }
    }
  });

  test("rows of 1 to 20 channels and many examples", () => {
    for (let channels = 1; channels <= 20; channels++) {
      for (const examples of [127, 128, 129, 511, 1100]) {
        const shaped = { layout: "NC", shape: [examples, channels] } as const;
        checkTrain(layerOf(shaped), shaped, normal(sizeOf(shaped), channels, 2));
      }
    }
  });

  test.each([4095, 4096, 4097, 8191, 16383, 16384, 16385, 40001])("planes of %i", (inner) => {
    const shaped = { layout: "NCL", shape: [2, 2, inner] } as const;
    checkTrain(layerOf(shaped), shaped, normal(sizeOf(shaped), inner, 1));
  });

  test("the axis C is the one that the layout names", () => {
    // Value = channel number plus noise: a wrong axis would leave a far larger variance.
    for (const { layout, shape } of [
      { layout: "NC", shape: [6, 5] },
      { layout: "NCL", shape: [3, 5, 4] },
      { layout: "NCHW", shape: [3, 5, 4, 2] },
      { layout: "NCDHW", shape: [3, 5, 4, 2, 6] },
      { layout: "NLC", shape: [3, 4, 5] },
      { layout: "NHWC", shape: [3, 4, 2, 5] },
      { layout: "NDHWC", shape: [3, 4, 2, 6, 5] },
    ] as const) {
      const axis = layout.indexOf("C");
      const behind = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
      const noise = normal(
        shape.reduce((a, b) => a * b, 1),
        7,
        0,
        0.01,
      );
      const x = noise.map((z, i) => z + (Math.floor(i / behind) % 5));
      const layer = new BatchNorm(5, { layout });
      layer.train(x, { shape });
      assertWithin("mean", layer.lastBatch!.mean, [0, 1, 2, 3, 4], () => 0.01);
      assertWithin("variance", layer.lastBatch!.variance, [0, 0, 0, 0, 0], () => 0.001);
    }
  });

  test("channels first and channels last give the same values", () => {
    const [n, c, h, w] = [4, 6, 5, 7] as const;
    const first = normal(n * c * h * w, 1, 2);
    const last = first.slice();
    const source = (i: number): number => {
      const channel = i % c;
      const position = Math.floor(i / c);
      const example = Math.floor(position / (h * w));
      return (example * c + channel) * h * w + (position % (h * w));
    };
    for (let i = 0; i < last.length; i++) last[i] = first[source(i)]!;
    const y = new BatchNorm(c, { layout: "NCHW" }).train(first, { shape: [n, c, h, w] });
    const z = new BatchNorm(c, { layout: "NHWC" }).train(last, { shape: [n, h, w, c] });
    assertWithin(
      "y",
      z,
      z.map((_, i) => y[source(i)]!),
      () => 1e-6,
    );
  });

  test("the shape follows from the length for layouts that end in C", () => {
    const x = normal(4 * 6, 1);
    for (const [layout, shape] of [
      ["NC", [4, 6]],
      ["NLC", [4, 1, 6]],
      ["NHWC", [4, 1, 1, 6]],
      ["NDHWC", [4, 1, 1, 1, 6]],
    ] as const) {
      const layer = new BatchNorm(6, { layout });
      const y = layer.train(x);
      expect(layer.lastBatch!.shape).toEqual(shape);
      assertSameBits("y", y, new BatchNorm(6, { layout }).train(x, { shape }));
    }
  });

  test("without out: a fresh ordinary array each time", () => {
    const layer = new BatchNorm(3);
    const x = normal(12, 1);
    const y = layer.train(x);
    expect(y).toBeInstanceOf(Float32Array);
    expect(y.buffer.byteLength).toBe(48);
    expect(layer.train(x).buffer).not.toBe(y.buffer);
    expect(layer.infer(x).buffer).not.toBe(layer.infer(x).buffer);
  });

  test("gamma and beta are read at every call", () => {
    const layer = new BatchNorm(2);
    const x = normal(20, 1);
    layer.train(x);
    layer.gamma!.set([3, -2]);
    layer.beta!.set([0.5, 7]);
    const { gamma, beta, epsilon } = layer;
    const view = { outer: 10, channels: 2, inner: 1 };
    assertNormalized(layer.train(x), x, view, { ...moments(x, view), gamma, beta, epsilon });
    expect([...gamma!, ...beta!]).toEqual([3, -2, 0.5, 7]);
  });

  test("the caller's shape is copied", () => {
    const layer = new BatchNorm(3);
    const shape = [4, 3];
    layer.train(normal(12, 1), { shape });
    shape[0] = 99;
    expect(layer.lastBatch!.shape).toEqual([4, 3]);
  });

  test("a channel without any spread: y = beta, exactly, epsilon 0 or not", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 40000)) {
      for (const epsilon of [0, 1e-5, 1e-30]) {
        const layer = layerOf(shaped, { epsilon });
        const { channels } = layer;
        const view = viewOf(shaped);
        const x = normal(sizeOf(shaped), 3, 1e3);
        const flat = [0, channels >> 1, channels - 1];
        for (const c of flat) for (const i of indices(view, c)) x[i] = 0.1 * (c + 1);
        const y = checkTrain(layer, shaped, x);
        for (const c of flat) {
          expect(layer.lastBatch!.mean[c]).toBe(Math.fround(0.1 * (c + 1)));
          expect(layer.lastBatch!.variance[c]).toBe(0);
          expect(indices(view, c).every((i) => y[i] === layer.beta![c])).toBe(true);
        }
      }
    }
  });

  test("a channel without any spread gives beta however small an epsilon is", () => {
    for (const epsilon of [1e-76, 1e-80, 1e-200, 1e-300, 5e-324]) {
      const layer = new BatchNorm(2, { epsilon });
      layer.beta!.set([0.25, -3]);
      const y = layer.train(Float32Array.of(7, 7, 7, 7, 7, 7));
      expect([...y]).toEqual([0.25, -3, 0.25, -3, 0.25, -3]);
    }
  });
});

describe("running averages", () => {
  const shaped: Shaped = { layout: "NC", shape: [9, 5] };

  /** (1 - decay)/(1 - decay^t). The denominator is expm1(t·log(decay)), because 1 - decay^t cancels near decay 1. */
  const debiasedWeight = (decay: number, t: number): number =>
    decay === 0 ? 1 : (1 - decay) / -Math.expm1(t * Math.log1p(decay - 1));

  /** Float64, as the formulas say; the weight of the t-th batch by its definition. */
  function trajectory(layer: BatchNorm, steps: number, seed: number): void {
    const { decay, debias, runningVarianceOf } = layer;
    for (let step = 0; step < steps; step++) {
      const t = layer.batchesSeen + 1;
      const mean = [...layer.runningMean];
      const variance = [...layer.runningVariance];
      const x = normal(sizeOf(shaped), seed + step, step, 1 + step);
      const batch = moments(x, viewOf(shaped));
      layer.train(x);
      const weight = decay === "cumulative" ? 1 / t : debias ? debiasedWeight(decay, t) : 1 - decay;
      const m = countOf(shaped);
      const correction = runningVarianceOf === "sample" ? m / (m - 1) : 1;
      const sigma = (c: number): number => Math.sqrt(batch.variance[c]!);
      assertWithin(
        "runningMean",
        layer.runningMean,
        mean.map((v, c) => v + weight * (batch.mean[c]! - v)),
        (c) => MEAN_ERROR * sigma(c),
      );
      assertWithin(
        "runningVariance",
        layer.runningVariance,
        variance.map((v, c) => v + weight * (batch.variance[c]! * correction - v)),
        (c) => VARIANCE_ERROR * batch.variance[c]! * correction,
      );
      // On the statistics that the layer normalized with, the update itself is float64.
      const float64 = FLOAT64_ERROR;
      const { mean: exactMean, variance: exactVariance } = layer.lastBatch!;
      assertWithin(
        "runningMean",
        layer.runningMean,
        mean.map((v, c) => v + weight * (exactMean[c]! - v)),
        (c) => float64 * (Math.abs(mean[c]!) + Math.abs(exactMean[c]!)),
      );
      assertWithin(
        "runningVariance",
        layer.runningVariance,
        variance.map((v, c) => v + weight * (exactVariance[c]! * correction - v)),
        (c) => float64 * (variance[c]! + exactVariance[c]! * correction),
      );
      expect(layer.batchesSeen).toBe(t);
    }
  }

  test.each<BatchNormOptions>([
    {},
    { decay: 0.9 },
    { decay: 0.999 },
    { decay: 0.5, runningVarianceOf: "population" },
    { decay: 0 },
    { decay: "cumulative" },
    { decay: "cumulative", runningVarianceOf: "population" },
    { decay: 0.9, debias: true },
    { decay: 0.999, debias: true, runningVarianceOf: "population" },
    { decay: 0, debias: true },
    { decay: "cumulative", debias: true },
    { decay: 1 - 2 ** -53, debias: true },
  ])("%o: v += w·(new - v) after each of 12 mini-batches", (options) => {
    trajectory(new BatchNorm(5, options), 12, 11);
  });

  test("any decay, any batchesSeen, any values written to the averages", () => {
    check(
      fc.property(
        fc.oneof(
          fc.constant("cumulative" as const),
          fc.double({ min: 0, max: 0.9999, noNaN: true }),
          fc.double({ min: 0, max: 1, noNaN: true }).map((w) => 1 - 2 ** (-53 * w)),
        ),
        fc.boolean(),
        fc.constantFrom("sample" as const, "population" as const),
        fc.integer({ min: 0, max: 1e6 }),
        seeds,
        (decay, debias, runningVarianceOf, seen, seed) => {
          const layer = settle(new BatchNorm(5, { decay, debias, runningVarianceOf }), seed);
          layer.batchesSeen = seen;
          trajectory(layer, 3, seed);
        },
      ),
      60,
    );
  });

  test("start at 0 and 1, with no mini-batch seen", () => {
    const layer = new BatchNorm(3);
    expect([...layer.runningMean]).toEqual([0, 0, 0]);
    expect([...layer.runningVariance]).toEqual([1, 1, 1]);
    expect(layer.batchesSeen).toBe(0);
    expect(layer.lastBatch).toBeNull();
    expect([...layer.gamma!]).toEqual([1, 1, 1]);
    expect([...layer.beta!]).toEqual([0, 0, 0]);
  });

  test("decay 0 holds exactly the latest mini-batch, whatever was there", () => {
    for (const debias of [false, true]) {
      const layer = new BatchNorm(2, { decay: 0, debias, runningVarianceOf: "population" });
      layer.runningMean.fill(1e300);
      layer.runningVariance.fill(1e300);
      layer.train(normal(20, 1, 0, 1e-6));
      expect([...layer.runningMean]).toEqual([...layer.lastBatch!.mean]);
      expect([...layer.runningVariance]).toEqual([...layer.lastBatch!.variance]);
    }
  });

  test.each([{ decay: "cumulative" }, { debias: true }] as const)(
    "%o: after one mini-batch exactly that one, after k of one size their mean",
    (options) => {
      const layer = new BatchNorm(2, { ...options, runningVarianceOf: "population" });
      layer.train(normal(20, 1));
      expect([...layer.runningMean]).toEqual([...layer.lastBatch!.mean]);
      expect([...layer.runningVariance]).toEqual([...layer.lastBatch!.variance]);
      if (options.debias) return;
      const means = [[...layer.lastBatch!.mean]];
      for (let k = 2; k <= 20; k++) {
        layer.train(normal(20, k));
        means.push([...layer.lastBatch!.mean]);
      }
      const mean = [0, 1].map((c) => means.reduce((s, each) => s + each[c]!, 0) / 20);
      assertWithin("runningMean", layer.runningMean, mean, () => 1e-15);
    },
  );

  test("debias: the weight is exact however near 1 the decay is", () => {
    for (const decay of [0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-8, 1 - 1e-12, 1 - 2 ** -53]) {
      for (const seen of [0, 1, 2, 9, 1000, 12345, 1e6, 1e9, 2 ** 40, 2 ** 52]) {
        const layer = new BatchNorm(1, { decay, debias: true });
        layer.batchesSeen = seen;
        layer.train(Float32Array.of(1, 3)); // mean 2, from 0
        const weight = layer.runningMean[0]! / 2;
        const wanted = debiasedWeight(decay, seen + 1);
        expect(Math.abs(weight / wanted - 1)).toBeLessThan(2e-14);
      }
    }
  });

  test("averages set by hand count from the first mini-batch on if batchesSeen says so", () => {
    for (const [options, kept] of [
      [{ decay: "cumulative" }, 1 / 2],
      [{ debias: true }, 0.9 / 1.9],
    ] as const) {
      for (const seen of [0, 1]) {
        const layer = new BatchNorm(1, options);
        layer.runningMean.fill(10);
        layer.batchesSeen = seen;
        layer.train(Float32Array.of(-1, 1)); // mean 0
        // With 0, no mini-batch entered what stands there, as in PyTorch's momentum=None.
        expect(layer.runningMean[0]).toBeCloseTo(seen === 0 ? 0 : 10 * kept, 12);
      }
    }
  });

  test("debias: a constant is recovered from the first mini-batch on", () => {
    // Adam's correction (Kingma & Ba 2015, section 3) of the same averages, started at 0.
    const debiased = new BatchNorm(1, { debias: true, decay: 0.9 });
    let [raw, power] = [0, 1];
    for (let step = 1; step <= 30; step++) {
      const x = normal(16, step, 5);
      debiased.train(x);
      raw = 0.9 * raw + 0.1 * debiased.lastBatch!.mean[0]!;
      power *= 0.9;
      expect(Math.abs(debiased.runningMean[0]! - raw / (1 - power))).toBeLessThan(1e-13);
    }
  });

  test("no layer keeps an average for ever: many batches of one value converge to it", () => {
    const layer = new BatchNorm(1, { decay: 0.9 });
    for (let step = 0; step < 400; step++) layer.train(Float32Array.of(4, 8));
    expect(Math.abs(layer.runningMean[0]! - 6)).toBeLessThan(1e-14);
    expect(Math.abs(layer.runningVariance[0]! - 8)).toBeLessThan(1e-14);
  });

  test("updateRunning: false leaves averages and batchesSeen alone", () => {
    const layer = settle(new BatchNorm(5));
    const before = stateOf(layer);
    const x = normal(45, 1);
    const y = layer.train(x, { updateRunning: false });
    expect(stateOf(layer)).toBe(before);
    expect(layer.lastBatch!.x).toBe(x);
    assertSameBits("y", y, layer.train(x, { updateRunning: true }));
    expect(stateOf(layer)).not.toBe(before);
  });

  test("NaN written to an average stays in its channel", () => {
    const layer = new BatchNorm(3);
    layer.runningMean[1] = Number.NaN;
    layer.train(normal(30, 1));
    expect([...layer.runningMean].map(Number.isFinite)).toEqual([true, false, true]);
  });

  test("many channels move as one does", () => {
    for (const channels of [1023, 1024, 1025, 2049, 3000]) {
      const layer = settle(new BatchNorm(channels));
      const [mean, variance] = [layer.runningMean.slice(), layer.runningVariance.slice()];
      layer.train(normal(3 * channels, 1));
      const batch = layer.lastBatch!;
      assertWithin(
        "runningMean",
        layer.runningMean,
        mean.map((v, c) => v + 0.1 * (batch.mean[c]! - v)),
        () => 1e-14,
      );
      assertWithin(
        "runningVariance",
        layer.runningVariance,
        variance.map((v, c) => v + 0.1 * (1.5 * batch.variance[c]! - v)),
        () => 1e-13,
      );
    }
  });
});

describe('statistics: "running"', () => {
  test("normalizes with the running averages and moves nothing", () => {
    check(
      fc.property(shapes(1), seeds, (shaped, seed) => {
        const layer = settle(layerOf(shaped, {}, seed), seed);
        const before = stateOf(layer);
        const x = normal(sizeOf(shaped), seed);
        const input = guardedCopy(x);
        const options = { shape: shaped.shape, statistics: "running" } as const;
        const y = layer.train(input.array, options);
        assertSameBits("y", y, layer.infer(x, { shape: shaped.shape }));
        assertSameBits("x", input.array, x);
        expect(stateOf(layer)).toBe(before);
        const batch = layer.lastBatch!;
        expect(batch.statistics).toBe("running");
        expect(batch.x).toBe(input.array);
        expect(batch.count).toBe(countOf(shaped));
        assertSameBits("mean", batch.mean, layer.runningMean);
        assertSameBits("variance", batch.variance, layer.runningVariance);
      }),
      60,
    );
  });

  test("nothing of the batch before shows, not even the digits that its mean lost", () => {
    const layer = new BatchNorm(3);
    const x = normal(30, 5);
    const expected = layer.infer(x);
    for (let batches = 1; batches < 4; batches++) {
      for (let batch = 0; batch < batches; batch++) {
        layer.train(normal(30, batch, 1e21, 1e15), { updateRunning: false });
      }
      assertSameBits("y", layer.train(x, { statistics: "running" }), expected);
    }
  });

  test("one value per channel, or none, is enough", () => {
    const layer = settle(new BatchNorm(5));
    assertSameBits(
      "y",
      layer.train(normal(5, 1), { statistics: "running" }),
      layer.infer(normal(5, 1)),
    );
    for (const [layout, shape] of [
      ["NC", [0, 2000]],
      ["NCL", [0, 2000, 3]],
      ["NCL", [1, 2000, 0]],
      ["NCL", [8, 2000, 0]],
      ["NHWC", [8, 0, 3, 2000]],
    ] as const) {
      const empty = settle(new BatchNorm(2000, { layout }));
      const none = new Float32Array(0);
      expect(empty.train(none, { shape, statistics: "running" }).length).toBe(0);
      expect(empty.lastBatch!.count).toBe(0);
      const { dx, dgamma, dbeta } = empty.backward(none);
      expect(dx.length).toBe(0);
      expect([...dgamma!, ...dbeta!].every((value) => value === 0)).toBe(true);
    }
  });

  test("the batch keeps the averages of its time", () => {
    const layer = settle(new BatchNorm(5));
    layer.train(normal(45, 1), { statistics: "running" });
    const mean = layer.lastBatch!.mean.slice();
    layer.runningMean.fill(9);
    assertSameBits("mean", layer.lastBatch!.mean, mean);
  });

  test("NaN and infinity pass to their own outputs only", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const layer = settle(new BatchNorm(70));
      const x = normal(70 * 9, 1);
      const clean = layer.train(x, { statistics: "running" });
      x[133] = bad;
      const y = layer.train(x, { statistics: "running" });
      expect(Number.isFinite(y[133])).toBe(false);
      y[133] = clean[133]!;
      assertSameBits("y", y, clean);
    }
  });
});

test("a layer that has counted as far as numbers go stays usable", () => {
  const most = Number.MAX_SAFE_INTEGER;
  for (const decay of [0.9, "cumulative"] as const) {
    const layer = new BatchNorm(1, { decay });
    layer.batchesSeen = most - 1;
    for (let t = 0; t < 3; t++) {
      layer.train(Float32Array.of(1, 3));
      expect(layer.batchesSeen).toBe(most);
      layer.train(Float32Array.of(1, 3), { statistics: layer.moments(Float32Array.of(1, 3)) });
      expect(layer.batchesSeen).toBe(most);
    }
    expect(BatchNorm.fromSnapshot(layer.snapshot()).batchesSeen).toBe(most);
  }
});

test("NaN and infinity are refused by the mini-batch's own statistics alone; elsewhere they reach their own outputs", () => {
  const x = Float32Array.of(Infinity, 1, NaN, 2);
  const bn = new BatchNorm(1, { epsilon: 0 });
  expect(() => bn.train(x)).toThrow(NonFiniteError);
  const pooled = bn.moments(Float32Array.of(-1, 1));
  for (const statistics of ["running", pooled] as const) {
    expect([...bn.train(x, { statistics })]).toEqual([Infinity, 1, NaN, 2]);
  }
  // By the formula dx is γ·dy/√(σ² + ε), whatever x is; the kernel multiplies x - mean by 0.
  bn.setRunning(pooled);
  bn.train(x, { statistics: "running" });
  const { dx } = bn.backward(Float32Array.of(3, 3, 3, 3));
  const inverse = Math.fround(1 / Math.sqrt(bn.runningVariance[0]!));
  expect([...dx]).toEqual([NaN, 3 * inverse, NaN, 3 * inverse].map(Math.fround));
});
