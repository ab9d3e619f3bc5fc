// `infer` with a mask: padding comes out as beta, whatever it holds, and all other outputs keep their bits.

import {
  adapt,
  adapter,
  BatchNorm,
  FrozenBatchNorm,
  Kernels,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  countOf,
  layerOf,
  nameOf,
  placesOf,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
  stateOf,
  viewOf,
} from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import { fillGuards, guarded, guardedCopy, isGuarded } from "./support/guards.js";
import { PLACES, put, room } from "./support/places.js";
import { check } from "./support/property.js";
import { wrong } from "./support/refuse.js";

const KERNELS = new Kernels({ memory: 8 << 20 });

function drawn(positions: number, seed: number, share = 0.6): Uint8Array {
  const next = random(seed);
  return Uint8Array.from({ length: positions }, () =>
    next() < share ? 1 + Math.floor(9 * next()) : 0,
  );
}

/** Whoever has an `infer` for test time. */
type Inferring = Pick<BatchNorm, "infer">;

/** The layer, and what is frozen or read of it, in both entries. */
function waysOf(layer: BatchNorm): [string, Inferring][] {
  const frozen = layer.freeze();
  return [
    ["layer", layer],
    ["frozen", frozen],
    ["from JSON", FrozenBatchNorm.fromJSON(JSON.stringify(frozen))],
    ["batchnorm-wasm/infer", Small.fromJSON(JSON.stringify(frozen))],
  ];
}

/** Data whose padding holds NaN and infinities, and what `infer` has to give for it. */
function paddedOf(layer: BatchNorm, shaped: Shaped, mask: Uint8Array, seed: number) {
  const { shape } = shaped;
  const { channels, inner } = viewOf(shaped);
  const x = normal(sizeOf(shaped), seed, 1, 2);
  const expected = layer.infer(x, { shape });
  for (const at of placesOf(shaped, (position) => mask[position] === 0)) {
    x[at] = [Number.NaN, Number.POSITIVE_INFINITY, 1e38][at % 3]!;
    expected[at] = layer.beta?.[Math.floor(at / inner) % channels] ?? 0;
  }
  return { x, expected };
}

/** By every way, into an array between guards and in place; the layer, x and the mask unchanged. */
function checkMask(layer: BatchNorm, shaped: Shaped, mask: Uint8Array, seed: number): void {
  const { shape } = shaped;
  const { x, expected } = paddedOf(layer, shaped, mask, seed);
  const state = stateOf(layer);
  const given = mask.slice();
  for (const [name, way] of waysOf(layer)) {
    const input = guardedCopy(x, 3);
    const out = guarded(x.length, 1);
    expect(way.infer(input.array, { shape, mask: given, out: out.array })).toBe(out.array);
    for (const array of [input, out]) array.assertIntact();
    assertSameBits(name, out.array, expected);
    assertSameBits("x", input.array, x);
    assertSameBits(`${name}, fresh`, way.infer(x, { shape, mask: given }), expected);
    way.infer(input.array, { shape, mask: given, out: input.array });
    assertSameBits(`${name}, in place`, input.array, expected);
  }
  expect(given).toEqual(mask);
  expect(stateOf(layer)).toBe(state);
  expect(layer.lastBatch).toBeNull();
}

test("any layout, shape and mask, with parameters or without", () => {
  check(
    fc.property(
      fc.oneof(shapes(1, 32), shapes(1, 4000)),
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom(0, 0.1, 0.6, 0.97, 1),
      seeds,
      (shaped, gamma, beta, share, seed) => {
        const layer = settle(layerOf(shaped, { gamma, beta }, seed), seed);
        checkMask(layer, shaped, drawn(countOf(shaped), seed, share), seed);
      },
    ),
    150,
  );
});

const CASES: readonly Shaped[] = [
  { layout: "NC", shape: [8, 3] },
  { layout: "NC", shape: [70, 1025] },
  { layout: "NC", shape: [5000, 33] },
  { layout: "NLC", shape: [3, 67, 6] },
  { layout: "channelsLast", shape: [2, 3, 2, 3, 2, 5] },
  { layout: "NCL", shape: [2, 3, 4] },
  { layout: "NCL", shape: [3, 2, 20_001] },
  { layout: "NCHW", shape: [4, 33, 23, 25] },
  { layout: "channelsFirst", shape: [2, 5, 3, 2, 3, 2] },
];

describe.each(CASES.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
  test("every way, with beta and without", () => {
    for (const beta of [true, false]) {
      checkMask(settle(layerOf(shaped, { beta })), shaped, drawn(countOf(shaped), 5), 5);
    }
  });

  test("wherever the arrays lie", () => {
    const { shape } = shaped;
    const layer = settle(layerOf(shaped, { kernels: KERNELS }));
    const mask = drawn(countOf(shaped), 6);
    const { x, expected } = paddedOf(layer, shaped, mask, 6);
    for (const place of PLACES) {
      for (const [name, way] of waysOf(layer)) {
        const input = put(place, KERNELS, x, 1);
        const out = room(place, KERNELS, x.length, 2);
        way.infer(input.array, { shape, mask, out: out.array });
        assertSameBits(`${name}, ${place}`, out.array, expected);
        assertSameBits("x", input.array, x);
        way.infer(input.array, { shape, mask, out: input.array });
        assertSameBits(`${name}, ${place}, in place`, input.array, expected);
        for (const each of [input, out]) {
          each.assertIntact();
          each.free();
        }
      }
    }
  });

  test("as train by the running averages has it", () => {
    const { shape } = shaped;
    const layer = settle(layerOf(shaped));
    const mask = drawn(countOf(shaped), 7);
    const { x, expected } = paddedOf(layer, shaped, mask, 7);
    assertSameBits("y", layer.train(x, { shape, mask, statistics: "running" }), expected);
  });
});

test("a mask of ones is none; of zeros, beta everywhere", () => {
  const layer = settle(layerOf({ layout: "NC", shape: [40, 5] }));
  const x = normal(200, 1);
  for (const [name, way] of waysOf(layer)) {
    assertSameBits(name, way.infer(x, { mask: new Uint8Array(40).fill(255) }), way.infer(x));
    const y = way.infer(x, { mask: new Uint8Array(40) });
    assertSameBits(
      `${name}, beta`,
      y,
      y.map((_, i) => layer.beta![i % 5]!),
    );
  }
});

test("a layer has the beta of now, a frozen one that of then", () => {
  const layer = settle(layerOf({ layout: "NC", shape: [4, 2] }));
  const frozen = layer.freeze();
  const then = layer.beta!.slice();
  layer.beta!.set([7, 8]);
  const mask = Uint8Array.of(1, 0, 1, 1);
  const x = normal(8, 1);
  expect([...layer.infer(x, { mask }).subarray(2, 4)]).toEqual([7, 8]);
  assertSameBits("then", frozen.infer(x, { mask }).slice(2, 4), then);
});

test("a mask in the memory of out is read before out is written", () => {
  const layer = new BatchNorm(1);
  layer.beta?.set([9]);
  for (const each of [layer, layer.freeze(), Small.fromJSON(layer.freeze().toJSON())]) {
    const out = new Float32Array(4);
    const mask = new Uint8Array(out.buffer, 0, 4);
    mask.set([1, 0, 1, 0]);
    const y = each.infer(Float32Array.of(-2, -1, 1, 2), { mask, out });
    expect([y[1], y[3]]).toEqual([9, 9]);
    expect(y[0]).not.toBe(9);
    expect(y[2]).not.toBe(9);
  }
});

describe("masks that are none", () => {
  test.each<[string, unknown, string]>([
    ["too short", new Uint8Array(3), "a Uint8Array of length 3"],
    ["too long", new Uint8Array(12), "a Uint8Array of length 12"],
    ["null", null, "null"],
    ["an array of numbers", [1, 1, 1, 1], "an Array of length 4"],
    ["of another class", new Uint8ClampedArray(4), "a Uint8ClampedArray of length 4"],
    ["of booleans", [true, true, false, true], "an Array of length 4"],
  ])("%s", (_, mask, got) => {
    const layer = settle(layerOf({ layout: "NC", shape: [4, 3] }));
    const state = stateOf(layer);
    const out = fillGuards(new Float32Array(12));
    const stream = adapter(layer, { prior: 4, memory: 8 });
    const message = `mask: expected a Uint8Array of 4 entries, one for each example and position, got ${got}`;
    for (const [, way] of waysOf(layer)) {
      const call = () => way.infer(normal(12, 1), { mask: wrong(mask), out });
      expect(call).toThrow(message);
      expect(call).toThrow(expect.objectContaining({ name: "ShapeError", code: "SHAPE" }));
    }
    const adapted = () => stream.infer(normal(12, 1), { mask: wrong(mask), out });
    expect(adapted).toThrow(new ShapeError(message));
    expect(stream.examples).toBe(0);
    expect(isGuarded(out)).toBe(true);
    expect(stateOf(layer)).toBe(state);
  });
});

describe("Adapter", () => {
  const CASES: readonly Shaped[] = [
    { layout: "NC", shape: [8, 3] },
    { layout: "NC", shape: [90, 33] },
    { layout: "NLC", shape: [6, 20, 5] },
    { layout: "NCHW", shape: [4, 3, 9, 7] },
    { layout: "channelsFirst", shape: [4, 3, 2, 2, 2, 2] },
  ];

  test.each(CASES.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
    for (const beta of [true, false]) {
      const { shape } = shaped;
      const layer = settle(layerOf(shaped, { beta }));
      const positions = countOf(shaped) / shape[0]!;
      // One example is nothing but padding: it does not count.
      const mask = drawn(countOf(shaped), 9)
        .fill(0, 0, positions)
        .fill(1, positions, 2 * positions);
      mask.fill(1, positions);
      if (positions > 1) mask[positions + 1] = 0;
      const { x } = paddedOf(layer, shaped, mask, 9);
      const frozen = adapt(layer, x, { prior: 4, shape, mask });
      const { expected } = expectedOf(frozen, layer, shaped, x, mask);
      const stream = adapter(layer, { prior: 4, memory: 100 });
      assertSameBits("y", stream.infer(x, { shape, mask }), expected);
      expect(stream.examples).toBe(shape[0]! - 1);
      assertSameBits("frozen", stream.freeze().infer(x, { shape, mask }), expected);
      const again = adapter(layer, { prior: 4, memory: 100 });
      const same = x.slice();
      expect(again.infer(same, { shape, mask, out: same })).toBe(same);
      assertSameBits("in place", same, expected);
    }
  });

  /** What an adapted layer gives without a mask, and beta at padding. */
  function expectedOf(
    frozen: Inferring,
    { beta }: BatchNorm,
    shaped: Shaped,
    x: Float32Array,
    mask: Uint8Array,
  ) {
    const { channels, inner } = viewOf(shaped);
    const expected = frozen.infer(x, { shape: shaped.shape });
    for (const at of placesOf(shaped, (position) => mask[position] === 0)) {
      expected[at] = beta?.[Math.floor(at / inner) % channels] ?? 0;
    }
    return { expected };
  }
});

describe("the version of the JSON", () => {
  const layer = (beta: boolean) => settle(layerOf({ layout: "NC", shape: [4, 3] }, { beta }));
  const ENTRIES = [
    ["batchnorm-wasm", FrozenBatchNorm],
    ["batchnorm-wasm/infer", Small],
  ] as const;
  const x = normal(12, 1);
  const mask = Uint8Array.of(1, 0, 1, 0);

  describe.each(ENTRIES)("%s", (_, Frozen) => {
    test.each([true, false])("2, with what beta is, there and back (beta: %s)", (beta) => {
      const made = layer(beta).freeze();
      const json = made.toJSON();
      expect(json.version).toBe(2);
      expect(json.beta === null).toBe(!beta);
      const read = Frozen.fromJSON(JSON.stringify(json));
      expect(read.toJSON()).toEqual(json);
      assertSameBits("y", read.infer(x, { mask }), made.infer(x, { mask }));
    });

    test("1, without it, is read on, but has nothing for padding", () => {
      const made = layer(true).freeze();
      const { beta: _none, ...rest } = made.toJSON();
      const read = Frozen.fromJSON(JSON.stringify({ ...rest, version: 1 }));
      assertSameBits("y", read.infer(x), made.infer(x));
      const out = fillGuards(new Float32Array(12));
      expect(() => read.infer(x, { mask, out })).toThrow(StateError);
      expect(() => read.infer(x, { mask, out })).toThrow(
        /^mask: expected JSON of version 2, got version 1$/,
      );
      expect(isGuarded(out)).toBe(true);
      expect(read.toJSON()).toEqual({ ...rest, version: 1, beta: undefined });
      expect(JSON.parse(JSON.stringify(read))).toEqual({ ...rest, version: 1 });
    });

    test.each<[string, unknown, string]>([
      ["none", undefined, "beta: expected 3 numbers, got undefined"],
      ["too few", [1, 2], "beta: expected 3 numbers, got an Array of length 2"],
      ["a word", [1, "two", 3], 'beta[1]: expected a float32 value, got "two"'],
    ])("2 with a beta that is none is refused: %s", (_, beta, message) => {
      const json = { ...layer(true).freeze().toJSON(), beta };
      expect(() => Frozen.fromJSON(wrong(json))).toThrow(new StateError(message));
    });
  });
});
