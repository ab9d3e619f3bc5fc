// Fresh results, whose memory Node does not zero: nothing of what was there before is left in them.

import { type BackwardOptions, type InferOptions, Kernels } from "batchnorm-wasm";
import { afterEach, describe, expect, test, vi } from "vitest";
import { countOf, layerOf, nameOf, SHAPES, type Shaped, settle, sizeOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal } from "./support/data.js";

// As UNZEROED and ZEROED_BY_SYSTEM of src/engine/plan.ts.
const LEAST = 512;
const MOST = 2 ** 23;

const KERNELS = new Kernels({ memory: 32 << 20 });

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

interface Way {
  readonly mask?: (positions: number) => Uint8Array;
  /** By the moments and sums of all workers, of which there is one. */
  readonly pooled?: boolean;
  /** x and dy are tensors of kernel memory. */
  readonly resident?: boolean;
}

const some = (positions: number): Uint8Array =>
  Uint8Array.from({ length: positions }, (_, p) => Number(p % 3 !== 1));

const WAYS: Readonly<Record<string, Way>> = {
  plainly: {},
  "with a mask": { mask: some },
  "by pooled moments": { pooled: true },
  "by pooled moments, with a mask": { pooled: true, mask: some },
  "in kernel memory": { resident: true },
  "in kernel memory, with a mask": { resident: true, mask: some },
};

function resident(values: Float32Array): Float32Array {
  const tensor = KERNELS.alloc(values.length);
  tensor.set(values);
  return tensor;
}

/** All that is fresh of train, backward and infer, or what is written into arrays that are given. */
function results(shaped: Shaped, way: Way, fresh: boolean): Float32Array[] {
  const size = sizeOf(shaped);
  const { shape } = shaped;
  const place = way.resident ? resident : (values: Float32Array) => values;
  const x = place(normal(size, 3, 2));
  const dy = place(normal(size, 4, 0.5));
  const mask = way.mask ? { mask: way.mask(countOf(shaped)) } : {};
  const nothing = { mask: new Uint8Array(countOf(shaped)) };
  const layer = settle(layerOf(shaped, { kernels: KERNELS }), 5);
  const out = () => (fresh ? {} : { out: new Float32Array(size) });
  /** Twice: by themselves, and beside an array that is given. */
  const dx = (sums: Pick<BackwardOptions, "sums">): Float32Array[] => {
    const given = fresh ? {} : { dx: new Float32Array(size) };
    const dgamma = new Float32Array(layer.channels);
    return [
      layer.backward(dy, fresh ? sums : { ...sums, out: { dx: new Float32Array(size) } }).dx,
      layer.backward(dy, { ...sums, out: { ...given, dgamma } }).dx,
    ];
  };
  const statistics = way.pooled ? layer.moments(x, { shape, ...mask }) : "batch";
  const all: Float32Array[] = [layer.train(x, { shape, statistics, ...mask, ...out() })];
  all.push(...dx(way.pooled ? { sums: layer.backwardSums(dy) } : {}));
  for (const masked of [mask, nothing]) {
    all.push(layer.train(x, { shape, statistics: "running", ...masked, ...out() }), ...dx({}));
  }
  all.push(layer.infer(x, { shape, ...out() }));
  if (way.resident) for (const tensor of [x, dy]) KERNELS.free(tensor);
  return all;
}

describe.each(Object.entries(WAYS))("a fresh result has the bits of a given one, %s", (_, way) => {
  const cases = SHAPES.filter((shaped) => sizeOf(shaped) >= LEAST);
  test.each(cases.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
    const expected = results(shaped, way, false);
    const spy = poison();
    const actual = results(shaped, way, true);
    expect(spy).toHaveBeenCalledTimes(actual.length);
    for (const [i, array] of actual.entries()) {
      assertSameBits(`result ${i}`, array, expected[i]!);
      expect([array.byteOffset, array.buffer.byteLength]).toEqual([0, array.byteLength]);
    }
  });
});

/** infer of one example, which is not walked. */
const example = (options: InferOptions = {}): Float32Array =>
  settle(layerOf({ layout: "NC", shape: [1, LEAST] }), 5).infer(normal(LEAST, 3), options);

test("one example", () => {
  const expected = example({ out: new Float32Array(LEAST) });
  poison();
  assertSameBits("y", example(), expected);
});

describe("Node is not asked", () => {
  const rows = (values: number) =>
    layerOf({ layout: "NC", shape: [values / 64, 64] }).infer(new Float32Array(values));

  test("for few values, nor for so many that their pages are zeroed anyway", () => {
    const spy = poison();
    rows(LEAST - 64);
    rows(MOST);
    expect(spy).not.toHaveBeenCalled();
    rows(LEAST);
    rows(MOST - 64);
    expect(spy).toHaveBeenCalledTimes(2);
  });

  test.each([
    ["no Buffer", undefined],
    ["another Buffer", {}],
  ])("in a runtime with %s", (_, other) => {
    const { Buffer } = globalThis;
    const expected = example();
    try {
      Object.assign(globalThis, { Buffer: other });
      assertSameBits("y", example(), expected);
    } finally {
      Object.assign(globalThis, { Buffer });
    }
  });
});
