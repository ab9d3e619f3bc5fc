// `backward` against the float64 oracle, and both against finite differences.

import { BatchNorm, StateError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CHANNEL_COUNTS,
  LARGE_SHAPES,
  layerOf,
  SHAPES,
  seeds,
  settle,
  shapes,
  sizeOf,
  stateOf,
  viewOf,
} from "./support/cases.js";
import { assertSameBits, assertWithin } from "./support/compare.js";
import { normal } from "./support/data.js";
import * as oracle from "./support/oracle.js";
import { checkBackward } from "./support/passes.js";
import { check } from "./support/property.js";

describe("the gradient", () => {
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
          layer.train(normal(sizeOf(shaped), seed, mean), { shape: shaped.shape });
          // A dy with a mean of its own, so that what the mean takes away shows.
          checkBackward(layer, shaped, normal(sizeOf(shaped), seed + 1, 0.5));
        },
      ),
      150,
    );
  });

  test.each(LARGE_SHAPES)("%s", (_, shaped) => {
    const layer = layerOf(shaped);
    layer.train(normal(sizeOf(shaped), 5, 3), { shape: shaped.shape });
    checkBackward(layer, shaped, normal(sizeOf(shaped), 6, 0.5));
  });

  test("every number of channels, in rows, narrow planes and planes", () => {
    for (const channels of CHANNEL_COUNTS) {
      const few = channels > 100 ? 3 : 5;
      for (const shaped of [
        { layout: "NC", shape: [few, channels] },
        { layout: "NC", shape: [few + 64, channels] },
        { layout: "NCL", shape: [9, channels, few] },
        { layout: "NCL", shape: [2, channels, 18] },
      ] as const) {
        const layer = layerOf(shaped);
        layer.train(normal(sizeOf(shaped), channels, 1), { shape: shaped.shape });
        checkBackward(layer, shaped, normal(sizeOf(shaped), channels + 1, 0.5));
      }
    }
  });

  test("planes of 1 to 20 values, of few and of many examples", () => {
    for (let inner = 1; inner <= 20; inner++) {
      for (const examples of [3, 7, 8, 9, 63, 64, 65, 257]) {
        const shaped = { layout: "NCL", shape: [examples, 3, inner] } as const;
        const layer = layerOf(shaped);
        layer.train(normal(sizeOf(shaped), inner, -2), { shape: shaped.shape });
        checkBackward(layer, shaped, normal(sizeOf(shaped), inner + 1, 0.5));
      }
    }
  });

  test.each([4095, 4096, 4097, 8191, 16383, 16384, 16385, 40001])("planes of %i", (inner) => {
    const shaped = { layout: "NCL", shape: [2, 2, inner] } as const;
    const layer = layerOf(shaped);
    layer.train(normal(sizeOf(shaped), inner, 1), { shape: shaped.shape });
    checkBackward(layer, shaped, normal(sizeOf(shaped), inner + 1, 0.5));
  });

  test("without any spread and epsilon 0: dx = 0, dgamma = 0, dbeta = Σdy", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 40000)) {
      const layer = layerOf(shaped, { epsilon: 0 });
      const view = viewOf(shaped);
      const x = new Float32Array(sizeOf(shaped)).map(
        (_, i) => 0.1 + (Math.floor(i / view.inner) % view.channels),
      );
      layer.train(x, { shape: shaped.shape });
      const dy = normal(x.length, 1);
      const { dx, dgamma, dbeta } = checkBackward(layer, shaped, dy);
      expect(dx.every((value) => value === 0)).toBe(true);
      expect(dgamma!.every((value) => value === 0)).toBe(true);
      const own = oracle.indices(view, 0).map((i) => dy[i]!);
      expect(dbeta![0]).toBeCloseTo(oracle.sum(own), 3);
    }
  });

  test("a constant dy and a dy along x̂ give dx = 0 but for epsilon", () => {
    const shaped = { layout: "NC", shape: [200, 6] } as const;
    const layer = new BatchNorm(6, { epsilon: 0 });
    const y = layer.train(normal(1200, 1, 10));
    for (const dy of [new Float32Array(1200).fill(3), y]) {
      const { dx } = checkBackward(layer, shaped, dy);
      assertWithin("dx", dx, new Float32Array(1200), () => 1e-5);
    }
  });

  test("NaN in dy stays in its own channel", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 20000)) {
      const layer = layerOf(shaped);
      const view = viewOf(shaped);
      layer.train(normal(sizeOf(shaped), 1), { shape: shaped.shape });
      const dy = normal(sizeOf(shaped), 2);
      const clean = layer.backward(dy);
      const own = view.channels >> 1;
      const at = oracle.indices(view, own);
      dy[at[at.length - 1]!] = Number.NaN;
      const { dx, dgamma, dbeta } = layer.backward(dy);
      expect(Number.isNaN(dgamma![own]) && Number.isNaN(dbeta![own])).toBe(true);
      for (const i of at) {
        expect(dx[i]).toBeNaN();
        dx[i] = clean.dx[i]!;
      }
      dgamma![own] = clean.dgamma![own]!;
      dbeta![own] = clean.dbeta![own]!;
      assertSameBits("dx", dx, clean.dx);
      assertSameBits("dgamma", dgamma!, clean.dgamma!);
      assertSameBits("dbeta", dbeta!, clean.dbeta!);
    }
  });
});

describe("finite differences", () => {
  /** A loss with curvature: l(y) = Σ w·y + u·y²/2, so that dy = w + u·y. */
  const lossOf =
    (w: ArrayLike<number>, u: ArrayLike<number>) =>
    (y: ArrayLike<number>): number =>
      oracle.sum(Array.from(y, (v, i) => w[i]! * v + 0.5 * u[i]! * v * v));

  /** ∂f/∂values[i] to fourth order. */
  function slope(f: () => number, values: Float64Array | Float32Array, i: number, h: number) {
    const at = values[i]!;
    const shifted = (k: number): number => {
      values[i] = at + k * h;
      return f();
    };
    const result = (8 * (shifted(1) - shifted(-1)) - (shifted(2) - shifted(-2))) / (12 * h);
    values[i] = at;
    return result;
  }

  test.each([
    [false, 0],
    [false, 1e-3],
    [true, 1e-3],
  ])("of the oracle's loss are the oracle's gradient (frozen: %s, epsilon %d)", (frozen, eps) => {
    for (const view of [
      { outer: 7, channels: 3, inner: 1 },
      { outer: 2, channels: 2, inner: 5 },
      { outer: 2, channels: 1, inner: 1 },
    ]) {
      const size = view.outer * view.channels * view.inner;
      const x = Float64Array.from(normal(size, 1, 2));
      const gamma = Float64Array.from(normal(view.channels, 2, 1));
      const beta = Float64Array.from(normal(view.channels, 3));
      const [w, u] = [normal(size, 4), normal(size, 5)];
      const loss = lossOf(w, u);
      const constants = oracle.moments(x, view);
      const forward = (): Float64Array => {
        const { mean, variance } = frozen ? constants : oracle.moments(x, view);
        return oracle.affine(oracle.standardize(x, view, mean, variance, eps), view, gamma, beta);
      };
      const dy = forward().map((y, i) => w[i]! + u[i]! * y);
      const { mean, variance } = constants;
      const { dx, dgamma, dbeta } = oracle.gradient(
        dy,
        x,
        view,
        mean,
        variance,
        gamma,
        eps,
        frozen,
      );
      const f = (): number => loss(forward());
      const slopes = (values: Float64Array): Float64Array =>
        values.map((_, i) => slope(f, values, i, 1e-3));
      assertWithin("dx", dx, slopes(x), () => 1e-8);
      assertWithin("dgamma", dgamma, slopes(gamma), () => 1e-8);
      assertWithin("dbeta", dbeta, slopes(beta), () => 1e-8);
    }
  });

  test.each([
    { layout: "NC", shape: [9, 3] },
    { layout: "NCL", shape: [3, 2, 5] },
    { layout: "NHWC", shape: [2, 3, 2, 3] },
  ] as const)("of the layer's own loss are its gradient: $layout $shape", (shaped) => {
    for (const statistics of ["batch", "running"] as const) {
      const layer = settle(layerOf(shaped, { epsilon: 1e-3 }));
      // Multiples of the step, so that x ± 2·step has no rounding.
      const step = 2 ** -5;
      const x = normal(sizeOf(shaped), 1, 2).map((v) => Math.round(v / step) * step);
      const [w, u] = [normal(x.length, 2), normal(x.length, 3)];
      const options = { shape: shaped.shape, statistics, updateRunning: false };
      const loss = lossOf(w, u);
      const forward = () => layer.train(x, options);
      const dy = forward().map((y, i) => w[i]! + u[i]! * y);
      const { dx, dgamma, dbeta } = layer.backward(dy);
      const f = (): number => loss(forward());
      const slopes = (values: Float32Array): Float32Array =>
        values.map((_, i) => slope(f, values, i, step));
      const largest = Math.max(...dx.map(Math.abs), 1);
      // Rounding of the loss near 1e-7·√27·|y|, divided by the step, and h⁴/30 of the fifth
      // derivative: 1e-3 is several times what was seen.
      assertWithin("dx", dx, slopes(x), () => 1e-3 * largest);
      assertWithin("dgamma", dgamma!, slopes(layer.gamma!), () => 1e-3 * largest);
      assertWithin("dbeta", dbeta!, slopes(layer.beta!), () => 1e-3 * largest);
    }
  });
});

describe("the frozen gradient", () => {
  test("is γ·dy/√(σ²+ε), by the averages at the time of train", () => {
    check(
      fc.property(shapes(1), fc.boolean(), fc.boolean(), seeds, (shaped, gamma, beta, seed) => {
        const layer = settle(layerOf(shaped, { gamma, beta }, seed), seed);
        const x = normal(sizeOf(shaped), seed, 1);
        layer.train(x, { shape: shaped.shape, statistics: "running" });
        const dy = normal(sizeOf(shaped), seed + 1, 0.5);
        const { dx } = checkBackward(layer, shaped, dy);
        layer.runningMean.fill(1e3);
        layer.runningVariance.fill(1e3);
        assertSameBits("dx", layer.backward(dy).dx, dx);
      }),
      80,
    );
  });

  test("differs from that of the mini-batch: nothing flows through the statistics", () => {
    const layer = settle(new BatchNorm(2, { epsilon: 0 }));
    layer.runningVariance.set([4, 0.25]);
    layer.gamma!.set([3, -1]);
    layer.train(normal(20, 1), { statistics: "running" });
    const { dx } = layer.backward(new Float32Array(20).fill(1));
    assertWithin(
      "dx",
      dx,
      dx.map((_, i) => (i % 2 ? -2 : 1.5)),
      () => 1e-6,
    );
  });

  test.each([
    ["NC", [67, 3]],
    ["NCL", [20, 3, 5]],
    ["NCL", [2, 3, 37]],
  ] as const)("what is not finite passes to its own outputs only, %s %j", (layout, shape) => {
    const shaped = { layout, shape };
    const layer = settle(layerOf(shaped));
    const [x, dy] = [normal(sizeOf(shaped), 1), normal(sizeOf(shaped), 2)];
    layer.train(x, { shape, statistics: "running" });
    const { dx } = layer.backward(dy);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const [some, others] = [x.slice(), dy.slice()];
      some[40] = value;
      others[5] = value;
      layer.train(some, { shape, statistics: "running" });
      const { dx: given } = layer.backward(others);
      expect(given[5]).toBe(value);
      for (const i of [5, 40]) given[i] = dx[i]!;
      assertSameBits("dx", given, dx);
    }
  });

  test("after one value per channel", () => {
    const layer = settle(new BatchNorm(5));
    layer.train(normal(5, 1), { statistics: "running" });
    checkBackward(layer, { layout: "NC", shape: [1, 5] }, normal(5, 2));
  });
});

describe("which batch", () => {
  const dy = normal(40, 9, 0.5);

  test("pure: twice the same, adding into nothing", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] });
    layer.train(normal(40, 1));
    const once = layer.backward(dy);
    const out = {
      dx: new Float32Array(40).fill(7),
      dgamma: new Float32Array(4).fill(7),
      dbeta: new Float32Array(4).fill(7),
    };
    const again = layer.backward(dy, { out });
    for (const name of ["dx", "dgamma", "dbeta"] as const) {
      expect(again[name]).toBe(out[name]);
      expect(once[name]).not.toBe(out[name]);
      assertSameBits(name, again[name]!, once[name]!);
    }
  });

  test("some outputs given, the others fresh", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] });
    layer.train(normal(40, 1));
    const all = layer.backward(dy);
    for (const name of ["dx", "dgamma", "dbeta"] as const) {
      const array = new Float32Array(all[name]!.length);
      const some = layer.backward(dy, { out: { [name]: array } });
      expect(some[name]).toBe(array);
      for (const each of ["dx", "dgamma", "dbeta"] as const) {
        assertSameBits(each, some[each]!, all[each]!);
      }
    }
  });

  test("several uses before their backward passes, in any order", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] });
    const uses = [
      { x: normal(40, 1), options: {} },
      { x: normal(12, 2, 5), options: {} },
      { x: normal(40, 3, -3), options: { statistics: "running" } as const },
      { x: normal(80, 4, 2, 9), options: { updateRunning: false } },
    ].map(({ x, options }) => {
      layer.train(x, options);
      const batch = layer.lastBatch!;
      const given = normal(x.length, 7, 0.5);
      return { batch, given, expected: layer.backward(given) };
    });
    const state = stateOf(layer);
    for (const k of [1, 3, 0, 2, 0]) {
      const { batch, given, expected } = uses[k]!;
      const { dx, dgamma, dbeta } = layer.backward(given, { batch });
      assertSameBits("dx", dx, expected.dx);
      assertSameBits("dgamma", dgamma!, expected.dgamma!);
      assertSameBits("dbeta", dbeta!, expected.dbeta!);
    }
    expect(layer.lastBatch).toBe(uses[3]!.batch);
    expect(stateOf(layer)).toBe(state);
  });

  test("a batch taken between two trains is that of the first", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] });
    const first = normal(40, 1, 5);
    layer.train(first);
    const expected = layer.backward(dy);
    const batch = layer.lastBatch!;
    const [mean, variance] = [batch.mean.slice(), batch.variance.slice()];
    expect(layer.lastBatch).toBe(batch);
    for (let t = 0; t < 3; t++) {
      layer.train(normal(40, t, -t, 3));
      expect(layer.lastBatch).not.toBe(batch);
      assertSameBits("mean", batch.mean, mean);
      assertSameBits("variance", batch.variance, variance);
      assertSameBits("dx", layer.backward(dy, { batch }).dx, expected.dx);
    }
  });

  test("the gamma of now, the beta not at all", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] }, { epsilon: 0 });
    layer.train(normal(40, 1));
    const before = layer.backward(dy);
    layer.gamma!.forEach((g, c, all) => {
      all[c] = 2 * g;
    });
    layer.beta!.fill(1e9);
    const after = layer.backward(dy);
    assertSameBits(
      "dx",
      after.dx,
      before.dx.map((v) => 2 * v),
    );
    assertSameBits("dgamma", after.dgamma!, before.dgamma!);
    assertSameBits("dbeta", after.dbeta!, before.dbeta!);
  });

  test("infer, freeze, snapshot and reading between train and backward change nothing", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] });
    layer.train(normal(40, 1));
    const expected = layer.backward(dy);
    layer.infer(normal(400, 2));
    layer.freeze().infer(normal(400, 2));
    layer.snapshot();
    layer.clone().train(normal(40, 3));
    assertSameBits("dx", layer.backward(dy).dx, expected.dx);
  });

  test("after an in-place train: only with the input again", () => {
    const layer = layerOf({ layout: "NC", shape: [10, 4] });
    const x = normal(40, 1);
    layer.train(x, { updateRunning: false });
    const expected = layer.backward(dy);
    const same = x.slice();
    const alias = same.subarray(0);
    for (const out of [same, alias]) {
      same.set(x);
      layer.train(same, { out });
      expect(layer.lastBatch!.x).toBeNull();
      expect(() => layer.backward(dy)).toThrow(StateError);
      assertSameBits("dx", layer.backward(dy, { x }).dx, expected.dx);
      const batch = layer.lastBatch!;
      assertSameBits("dx", layer.backward(dy, { x, batch }).dx, expected.dx);
    }
  });

  test("dx may be dy", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 100000)) {
      const layer = layerOf(shaped);
      layer.train(normal(sizeOf(shaped), 1), { shape: shaped.shape });
      const given = normal(sizeOf(shaped), 2);
      const { dx } = layer.backward(given);
      const { dx: same } = layer.backward(given, { out: { dx: given } });
      expect(same).toBe(given);
      assertSameBits("dx", given, dx);
    }
  });

  test("a parameter left out has no gradient", () => {
    const shaped = { layout: "NC", shape: [10, 4] } as const;
    for (const [gamma, beta] of [
      [true, false],
      [false, true],
      [false, false],
    ] as const) {
      const layer = layerOf(shaped, { gamma, beta });
      layer.train(normal(40, 1));
      const result = checkBackward(layer, shaped, dy);
      expect(result.dgamma === null).toBe(!gamma);
      expect(result.dbeta === null).toBe(!beta);
    }
  });
});
