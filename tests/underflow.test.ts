// Channels whose deviations are so small that float32 cannot hold their squares: right all the same, or refused.

import { BatchNorm, diagnose, NonFiniteError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { layerOf, nameOf, type Shaped, sizeOf, stateOf, viewOf } from "./support/cases.js";
import { assertMoments } from "./support/compare.js";
import { distributed, normal } from "./support/data.js";
import { VARIANCE_ERROR, Y_ERROR } from "./support/limits.js";
import { moments } from "./support/oracle.js";
import { checkBackward, checkTrain } from "./support/passes.js";
import { PLACES, put } from "./support/places.js";

const WALKS: readonly Shaped[] = [
  { layout: "NC", shape: [64, 1] }, // rows
  { layout: "NC", shape: [1003, 3] }, // rows, several at once
  { layout: "NC", shape: [70, 1030] }, // rows wider than the parameter arrays, too large to be held
  { layout: "NCL", shape: [201, 3, 5] }, // narrow planes, taken as rows
  { layout: "NCL", shape: [5, 3, 37] }, // planes
  { layout: "NCHW", shape: [1, 1, 67, 71] }, // planes of more than a block
  { layout: "NHWC", shape: [3, 9, 11, 7] },
];

/** σ with squares around the end of float32, and below it. */
const SIGMAS = [1e-17, 1e-19, 3e-20, 1e-21, 1e-22, 1e-23, 1e-30, 1e-36];

describe.each(WALKS.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
  test("y, the statistics and dx are as exact as ever", () => {
    for (const sigma of SIGMAS) {
      for (const ratio of [0, 10, 1e4]) {
        if (ratio * sigma > 1e-12 || sigma / (ratio || 1) < 1e-36) continue;
        const x = distributed("normal", viewOf(shaped), ratio * sigma, sigma, 7);
        const layer = layerOf(shaped, { epsilon: 0 });
        const y = checkTrain(layer, shaped, x);
        if (sigma > 1e-35) checkBackward(layer, shaped, y.slice());
        assertMoments(
          { mean: layer.lastBatch!.mean, variance: layer.lastBatch!.variance },
          moments(x, viewOf(shaped)),
        );
        const own = new BatchNorm(layer.channels, { layout: shaped.layout });
        const found = own.moments(x, { shape: shaped.shape });
        assertMoments(
          { mean: found.mean, variance: found.variance("population") },
          moments(x, viewOf(shaped)),
        );
      }
    }
  });

  test("the same bits wherever the data lie, and with a mask", () => {
    const x = distributed("normal", viewOf(shaped), 0, 1e-23, 7);
    const bits = PLACES.map((place) => {
      const layer = layerOf(shaped, { epsilon: 0 });
      const placed = put(place, layer.kernels, x);
      const found = layer.moments(placed.array, { shape: shaped.shape });
      placed.free();
      return JSON.stringify(found);
    });
    expect(new Set(bits).size).toBe(1);
    const { channels } = viewOf(shaped);
    const positions = x.length / channels;
    const mask = Uint8Array.from({ length: positions }, (_, p) => (p % 5 === 2 ? 0 : 1));
    const layer = layerOf(shaped, { epsilon: 0 });
    layer.train(x, { shape: shaped.shape, mask });
    const view = viewOf(shaped);
    const kept = Float32Array.from(
      Array.from(mask, (_, p) => p)
        .filter((p) => mask[p] !== 0)
        .flatMap((p) =>
          Array.from({ length: channels }, (_, c) => {
            const within = p % view.inner;
            return x[
              ((p - within) / view.inner) * channels * view.inner + c * view.inner + within
            ]!;
          }),
        ),
    );
    const all = { outer: kept.length / channels, channels, inner: 1 };
    assertMoments(layer.lastBatch!, moments(kept, all));
  });

  test("channels of zeros, and of other equal values, have none", () => {
    for (const value of [0, 1e-45, 1e-23, -1e-13, 1e-6, 7]) {
      const layer = layerOf(shaped, { epsilon: 0 });
      layer.train(new Float32Array(sizeOf(shaped)).fill(value), { shape: shaped.shape });
      expect(layer.lastBatch!.variance.every((v) => v === 0)).toBe(true);
      expect(layer.lastBatch!.mean.every((mean) => mean === Math.fround(value))).toBe(true);
    }
  });
});

test("a tiny channel beside one of zeros and an ordinary one: each has its own", () => {
  const sigma = 1e-23;
  const [a, b] = [normal(64, 1, 0, sigma), normal(64, 2)];
  const x = Float32Array.from(
    { length: 192 },
    (_, i) => [0, a[(i / 3) | 0]!, b[(i / 3) | 0]!][i % 3]!,
  );
  const bn = new BatchNorm(3, { epsilon: 0 });
  bn.train(x);
  assertMoments(bn.lastBatch!, moments(x, { outer: 64, channels: 3, inner: 1 }));
  bn.setRunning(bn.moments(x));
  const { channels, verdict } = diagnose(bn, x);
  expect(channels.dead).toEqual([0]);
  expect(verdict).toBe("dead");
});

test("values that cancel to a mean of exactly 0 are seen", () => {
  for (const size of [1e-20, 1e-23, 1e-30]) {
    const x = Float32Array.from({ length: 64 }, (_, i) => (i % 2 ? size : -size));
    const bn = new BatchNorm(1, { epsilon: 0 });
    expect([...bn.train(x)]).toEqual(Array.from(x, Math.sign));
  }
});

test.each([
  // With these values, all additions to a naive sum of squares round alike in the binade where most of them are made.
  [140_784, 1.4792760407500187e-19, 0],
  [3_000_001, 1.234567839717218e-19, 0],
  // And here those to a naive sum of deviations, from the first value.
  [200_001, 1.5104652827930247e-16, 9.77369177892501e-25],
])(
  "%i values, one tiny one and others that are all the same: mean, variance and y",
  (m, value, others) => {
    const x = new Float32Array(m).fill(others);
    x[0] = value;
    const bn = new BatchNorm(1, { epsilon: 0 });
    const apart = x[0]! - x[1]!;
    const mean = x[1]! + apart / m;
    const variance = (apart ** 2 * (m - 1)) / m / m;
    const found = bn.moments(x);
    assertMoments(
      { mean: found.mean, variance: found.variance("population") },
      { mean: [mean], variance: [variance] },
    );
    expect(Math.abs(found.m2[0]! / (variance * m) - 1)).toBeLessThan(1e-9);
    expect(Math.abs(found.mean[0]! - mean)).toBeLessThan(1e-12 * Math.sqrt(variance));
    const y = bn.train(x);
    expect(Math.abs(y[0]! / Math.sqrt(m - 1) - 1)).toBeLessThan(Y_ERROR);
  },
);

test("beside the default epsilon, such a variance is off; the moments and y are right", () => {
  const x = Float32Array.of(1e-21, -1e-21, 1e-21, -1e-21);
  const right = x[0]! ** 2;
  const bn = new BatchNorm(1);
  const y = bn.train(x);
  expect(Math.abs(bn.lastBatch!.variance[0]! / right - 1)).toBeGreaterThan(VARIANCE_ERROR);
  expect(Math.abs(bn.moments(x).m2[0]! / 4 / right - 1)).toBeLessThan(1e-15);
  for (let i = 0; i < 4; i++) {
    const wanted = x[i]! / Math.sqrt(right + 1e-5);
    expect(Math.abs(y[i]! / wanted - 1)).toBeLessThan(Y_ERROR);
  }
});

test("where 1/σ is near the end of float32, and not beyond it, train normalizes", () => {
  for (const size of [2 ** -126, 2 ** -127, 1.5 * 2 ** -128]) {
    const x = Float32Array.from({ length: 64 }, (_, i) => (i % 2 ? size : -size));
    expect([...new BatchNorm(1, { epsilon: 0 }).train(x)]).toEqual(Array.from(x, Math.sign));
  }
});

test("equal values are not refused, however small epsilon is: y is beta", () => {
  for (const epsilon of [0, 1e-80, 1e-300]) {
    const bn = new BatchNorm(2, { epsilon });
    bn.beta![0] = 3;
    expect([...bn.train(Float32Array.of(1, 0, 1, 0))]).toEqual([3, 0, 3, 0]);
    // 1/√epsilon is limited to the range of float32.
    expect(bn.backward(Float32Array.of(1, 1, 0, 0)).dx.every(Number.isFinite)).toBe(true);
    bn.runningMean.fill(7);
    bn.runningVariance.fill(0);
    if (epsilon === 0) expect([...bn.infer(Float32Array.of(1, 9))]).toEqual([3, 0]);
  }
});

test("where 1/σ is beyond float32, train refuses and changes nothing; moments has the numbers", () => {
  const x = Float32Array.from({ length: 128 }, (_, i) => (i % 2 === 0 ? i : 1e-42 * (i % 7)));
  const bn = new BatchNorm(2, { epsilon: 0 });
  const before = stateOf(bn);
  const out = new Float32Array(128).fill(5);
  expect(() => bn.train(x, { out })).toThrow(NonFiniteError);
  expect(() => bn.train(x, { out })).toThrow("in channel 1");
  expect(stateOf(bn)).toBe(before);
  expect(out.every((v) => v === 5)).toBe(true);
  assertMoments(
    { mean: bn.moments(x).mean, variance: bn.moments(x).variance("population") },
    moments(x, { outer: 64, channels: 2, inner: 1 }),
  );
  // Beside an epsilon, such deviations count for nothing.
  const y = new BatchNorm(2).train(x);
  expect(y.every(Number.isFinite)).toBe(true);
});
