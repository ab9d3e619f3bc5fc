// Fresh results, whose memory Node does not zero: nothing of what was there before is left in them.

import type { BatchNorm } from "batchnorm-wasm";
import { afterEach, describe, expect, test, vi } from "vitest";
import { countOf, layerOf, nameOf, SHAPES, type Shaped, settle, sizeOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal } from "./support/data.js";

/** What resultOf of src/arrays.ts asks Node for. */
const LEAST = 1024;

/** From here on Buffer.allocUnsafeSlow gives memory full of NaN. */
function poison() {
  const { allocUnsafeSlow } = Buffer;
  return vi
    .spyOn(Buffer, "allocUnsafeSlow")
    .mockImplementation((bytes) => allocUnsafeSlow(bytes).fill(0xff));
}

afterEach(() => {
  vi.restoreAllMocks();
});

/** All that is fresh of a train, backward and infer, or what is written into arrays that are given. */
function results(shaped: Shaped, mask: Uint8Array | null, fresh: boolean): Float32Array[] {
  const size = sizeOf(shaped);
  const { shape } = shaped;
  const x = normal(size, 3, 2);
  const dy = normal(size, 4, 0.5);
  const given = () => (fresh ? {} : { out: new Float32Array(size) });
  const masked = mask ? { mask } : {};
  const gradient = (layer: BatchNorm): Float32Array => {
    if (fresh) return layer.backward(dy).dx;
    return layer.backward(dy, { out: { dx: new Float32Array(size) } }).dx;
  };
  const layer = settle(layerOf(shaped), 5);
  const normalized = layer.train(x, { shape, ...masked, ...given() });
  const dx = gradient(layer);
  const frozen = layer.train(x, { shape, statistics: "running", ...masked, ...given() });
  return [normalized, dx, frozen, gradient(layer), layer.infer(x, { shape, ...given() })];
}

describe("a fresh result has the bits of a given one", () => {
  const cases = SHAPES.filter((s) => sizeOf(s) >= LEAST && countOf(s) >= 4);
  test.each(cases.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
    const half = Uint8Array.from({ length: countOf(shaped) }, (_, p) => Number(p % 3 !== 1));
    for (const mask of [null, half]) {
      const expected = results(shaped, mask, false);
      const spy = poison();
      const actual = results(shaped, mask, true);
      expect(spy).toHaveBeenCalledTimes(actual.length);
      vi.restoreAllMocks();
      for (const [i, array] of actual.entries()) {
        assertSameBits(`result ${i}`, array, expected[i]!);
        expect([array.byteOffset, array.buffer.byteLength]).toEqual([0, array.byteLength]);
      }
    }
  });

  test("one example", () => {
    const shaped: Shaped = { layout: "NC", shape: [1, 2048] };
    const layer = settle(layerOf(shaped), 5);
    const x = normal(2048, 3);
    const expected = layer.infer(x, { out: new Float32Array(2048) });
    const spy = poison();
    assertSameBits("y", layer.infer(x), expected);
    expect(spy).toHaveBeenCalledOnce();
  });
});

describe("memory is zeroed, as everywhere,", () => {
  const fresh = (values: number): Float32Array =>
    layerOf({ layout: "NC", shape: [1, values] }).infer(new Float32Array(values));

  test("where a result is small or so large that malloc zeroes it", () => {
    const spy = poison();
    expect(fresh(LEAST - 1).length).toBe(LEAST - 1);
    layerOf({ layout: "NC", shape: [2 ** 23 / 64, 64] }).infer(new Float32Array(2 ** 23));
    expect(spy).not.toHaveBeenCalled();
  });

  test.each([
    ["no Buffer", undefined],
    ["another Buffer", {}],
  ])("in a runtime with %s", (_, other) => {
    const { Buffer } = globalThis;
    const expected = fresh(LEAST);
    try {
      Object.assign(globalThis, { Buffer: other });
      assertSameBits("y", fresh(LEAST), expected);
    } finally {
      Object.assign(globalThis, { Buffer });
    }
  });
});
