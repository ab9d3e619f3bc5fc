// NonFiniteError: statistics of data that hold NaN or infinity, or of which they overflow.

import { BatchNorm, NonFiniteError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { layerOf, nameOf, SHAPES, settle, sizeOf, stateOf, viewOf } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { fillGuards, isGuarded } from "../support/guards.js";
import { Fixture } from "./rows.js";

describe("NonFiniteError", () => {
  const BAD = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

  describe.each(
    SHAPES.filter((each) => sizeOf(each) < 120_000).map((each) => [nameOf(each), each] as const),
  )("%s", (_, shaped) => {
    test("anywhere in x: names the channel and changes nothing", () => {
      const { shape } = shaped;
      const view = viewOf(shaped);
      const size = sizeOf(shaped);
      const layer = settle(layerOf(shaped));
      layer.train(normal(size, 2), { shape });
      const state = stateOf(layer);
      const last = layer.lastBatch;
      const x = normal(size, 1);
      const out = fillGuards(new Float32Array(size));
      // First and last value, the last of the first row or plane, and others in between.
      const row = view.inner === 1 ? view.channels : view.inner;
      const places = [0, 1, row - 1, row, size >> 2, size >> 1, size - 17, size - 2, size - 1];
      for (const [k, place] of places.filter((i) => i >= 0 && i < size).entries()) {
        const clean = x[place]!;
        x[place] = BAD[k % 3]!;
        const before = x.slice();
        const channel = Math.floor(place / view.inner) % view.channels;
        for (const into of [out, x, undefined]) {
          let thrown: unknown;
          try {
            layer.train(x, { shape, ...(into && { out: into }) });
          } catch (error) {
            thrown = error;
          }
          expect(thrown).toBeInstanceOf(NonFiniteError);
          expect((thrown as NonFiniteError).code).toBe("NON_FINITE");
          expect((thrown as NonFiniteError).message).toMatch(
            new RegExp(`^x: expected finite values .* got .* in channel ${channel}$`),
          );
        }
        assertSameBits("x", x, before);
        x[place] = clean;
      }
      expect(isGuarded(out)).toBe(true);
      expect(stateOf(layer)).toBe(state);
      expect(layer.lastBatch).toBe(last);
      // The layer works as before.
      layer.train(x, { shape, out });
      expect(out.every(Number.isFinite)).toBe(true);
    });
  });

  test("names the first four channels", () => {
    for (const channels of [9, 1500]) {
      const layer = new BatchNorm(channels);
      const x = normal(3 * channels, 1);
      const message = (): string => {
        try {
          layer.train(x);
          return "";
        } catch (error) {
          return (error as Error).message;
        }
      };
      for (const [bad, names] of [
        [channels - 1, `${channels - 1}`],
        [7, `7, ${channels - 1}`],
        [1, `1, 7, ${channels - 1}`],
        [2, `1, 2, 7, ${channels - 1}`],
        [3, "1, 2, 3, 7, …"],
      ] as const) {
        x[channels + bad] = Number.NaN;
        expect(message().endsWith(`in channel ${names}`), message()).toBe(true);
      }
    }
  });

  test("in kernel memory as well", () => {
    const { kernels, layer } = new Fixture();
    const x = kernels.alloc(12);
    const out = kernels.alloc(12).fill(7);
    x.set(normal(12, 1));
    x[5] = Number.NaN;
    expect(() => layer.train(x, { out })).toThrow(NonFiniteError);
    expect(out.every((value) => value === 7)).toBe(true);
    kernels.free(x);
    kernels.free(out);
  });

  test("values that are finite but overflow", () => {
    const layer = new BatchNorm(2);
    expect(() => layer.train(Float32Array.of(1, 3e38, 2, -3e38))).toThrow(NonFiniteError);
    expect(layer.batchesSeen).toBe(0);
  });

  test('not by the running averages: NaN passes to its own outputs of "running" and infer', () => {
    const { layer, x } = new Fixture();
    x[4] = Number.NaN;
    for (const y of [layer.infer(x), layer.train(x, { statistics: "running" })]) {
      expect([...y].map(Number.isNaN)).toEqual([...x].map(Number.isNaN));
    }
  });
});
