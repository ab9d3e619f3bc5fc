// `infer` against the float64 oracle, with the running averages of the moment.

import { BatchNorm, StateError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CHANNEL_COUNTS,
  LARGE_SHAPES,
  LAYOUTS,
  layerOf,
  SHAPES,
  seeds,
  settle,
  shapes,
  sizeOf,
  viewOf,
} from "./support/cases.js";
import { assertSameBits, assertWithin } from "./support/compare.js";
import { normal } from "./support/data.js";
import { indices } from "./support/oracle.js";
import { checkInfer } from "./support/passes.js";
import { check } from "./support/property.js";

test("any layout and shape, any options", () => {
  check(
    fc.property(
      shapes(1),
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom(0, 1e-5, 1e-3),
      fc.constantFrom(0, 1, 100, 1e4),
      seeds,
      (shaped, gamma, beta, epsilon, mean, seed) => {
        const layer = settle(layerOf(shaped, { gamma, beta, epsilon }, seed), seed, mean);
        checkInfer(layer, shaped, normal(sizeOf(shaped), seed, mean));
      },
    ),
    200,
  );
});

test.each(LARGE_SHAPES)("%s", (_, shaped) => {
  checkInfer(settle(layerOf(shaped)), shaped, normal(sizeOf(shaped), 5, 3));
});

test("every number of channels, one example and several", () => {
  for (const channels of CHANNEL_COUNTS) {
    for (const shaped of [
      { layout: "NC", shape: [1, channels] },
      { layout: "NC", shape: [3, channels] },
      { layout: "NCL", shape: [9, channels, 3] },
      { layout: "NCL", shape: [1, channels, 18] },
    ] as const) {
      checkInfer(settle(layerOf(shaped)), shaped, normal(sizeOf(shaped), channels, 1));
    }
  }
});

test("planes of 1 to 20 values, of one, few and many examples", () => {
  for (let inner = 1; inner <= 20; inner++) {
    for (const examples of [1, 2, 7, 8, 9, 65, 257]) {
      const shaped = { layout: "NCL", shape: [examples, 3, inner] } as const;
      checkInfer(settle(layerOf(shaped)), shaped, normal(sizeOf(shaped), inner, -2));
    }
  }
});

test("averages and parameters are read at every call", () => {
  const layer = new BatchNorm(3, { epsilon: 0 });
  const x = Float32Array.of(1, 2, 3);
  expect([...layer.infer(x)]).toEqual([1, 2, 3]);
  layer.runningMean.set([1, 1, 1]);
  layer.runningVariance.set([1, 4, 0.25]);
  expect([...layer.infer(x)]).toEqual([0, 0.5, 4]);
  layer.gamma!.set([1, 2, -1]);
  layer.beta!.set([5, 0, 1]);
  expect([...layer.infer(x)]).toEqual([5, 1, -3]);
});

test("without any mini-batch: averages 0 and 1", () => {
  const x = normal(30, 1);
  assertWithin("y", new BatchNorm(3, { epsilon: 0 }).infer(x), x, () => 0);
});

test("in place, and into any other array", () => {
  for (const size of [6, 6000]) {
    const layer = settle(new BatchNorm(3));
    const x = normal(size, 1);
    const y = layer.infer(x);
    const out = new Float32Array(size).fill(7);
    expect(layer.infer(x, { out })).toBe(out);
    assertSameBits("y", out, y);
    expect(layer.infer(x, { out: x })).toBe(x);
    assertSameBits("y", x, y);
  }
});

test("no examples, or planes without positions, give an empty array", () => {
  const none = new Float32Array(0);
  for (const channels of [1, 5, 1500]) {
    for (const layout of LAYOUTS) {
      const layer = settle(new BatchNorm(channels, { layout }));
      const axis = layout.indexOf("C");
      for (let empty = 0; empty < layout.length; empty++) {
        if (empty === axis) continue;
        const shape = [...layout].map((_, i) => (i === axis ? channels : i === empty ? 0 : 9));
        expect(layer.infer(none, { shape }).length).toBe(0);
        expect(layer.freeze().infer(none, { shape }).length).toBe(0);
        const resident = layer.kernels.alloc(0);
        expect(layer.infer(resident, { shape, out: resident })).toBe(resident);
        expect(layer.freeze().infer(resident, { shape }).length).toBe(0);
        layer.kernels.free(resident);
      }
    }
    expect(new BatchNorm(channels).infer(none).length).toBe(0);
  }
});

test("planes without positions, however many examples they are of, take no time", () => {
  const none = new Float32Array(0);
  const layer = new BatchNorm(3, { layout: "NCHW" });
  const shape = [2 ** 28, 3, 2 ** 20, 0];
  const start = process.cpuUsage();
  layer.infer(none, { shape });
  layer.freeze().infer(none, { shape });
  layer.train(none, { shape, statistics: "running" });
  layer.backward(none);
  expect(process.cpuUsage(start).user).toBeLessThan(300_000); // microseconds of computing, not of waiting
});

describe("at the limits of numbers", () => {
  test("running variance 0 and epsilon 0: y = beta", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 20000)) {
      const layer = settle(layerOf(shaped, { epsilon: 0 }));
      const view = viewOf(shaped);
      const c = view.channels >> 1;
      layer.runningVariance[c] = 0;
      const y = layer.infer(normal(sizeOf(shaped), 1), { shape: shaped.shape });
      expect(indices(view, c).every((i) => y[i] === layer.beta![c])).toBe(true);
    }
  });

  test("NaN and infinity in x pass to their own outputs only", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 100000)) {
      const layer = settle(layerOf(shaped));
      const x = normal(sizeOf(shaped), 1);
      const clean = layer.infer(x, { shape: shaped.shape });
      const last = x.length - 1;
      const places = new Set([0, last, last >> 1, Math.floor(last / 3)]);
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        const dirty = x.slice();
        for (const i of places) dirty[i] = bad;
        for (const frozen of [layer, layer.freeze()]) {
          const y = frozen.infer(dirty, { shape: shaped.shape });
          for (const i of places) {
            expect(Number.isFinite(y[i])).toBe(false);
            y[i] = clean[i]!;
          }
          assertSameBits("y", y, clean);
        }
      }
    }
  });

  test("NaN in gamma, beta or a running mean stays in its own channel", () => {
    for (const shaped of SHAPES.filter((each) => sizeOf(each) < 20000)) {
      const view = viewOf(shaped);
      const own = view.channels - 1;
      for (const name of ["gamma", "beta", "runningMean"] as const) {
        const layer = settle(layerOf(shaped));
        const x = normal(sizeOf(shaped), 1);
        const clean = layer.infer(x, { shape: shaped.shape });
        layer[name]![own] = Number.NaN;
        const y = layer.infer(x, { shape: shaped.shape });
        for (const i of indices(view, own)) {
          expect(y[i]).toBeNaN();
          y[i] = clean[i]!;
        }
        assertSameBits("y", y, clean);
      }
    }
  });

  test("a variance that is none is refused, in whatever channel, before anything is written", () => {
    for (const channels of [1, 5, 1024, 1025, 3000]) {
      for (const bad of [-1e-300, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
        const layer = settle(new BatchNorm(channels));
        layer.runningVariance[channels - 1] = bad;
        const out = new Float32Array(2 * channels).fill(7);
        const message = `runningVariance: expected finite numbers >= 0, got ${bad} for channel ${channels - 1}`;
        for (const use of [
          () => layer.infer(normal(2 * channels, 1), { out }),
          () => layer.train(normal(2 * channels, 1), { out, statistics: "running" }),
          () => layer.freeze(),
        ]) {
          expect(use).toThrow(new StateError(message));
        }
        expect(out.every((value) => value === 7)).toBe(true);
        expect(layer.lastBatch).toBeNull();
      }
    }
  });
});
