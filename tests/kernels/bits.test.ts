// assembly/bits.ts by itself: y with a residual and a ReLU, whose bits say which values are above 0, and dy gated by such bits.
// That a kernel writes nothing else shows that rows and planes are taken as they lie.

import fc from "fast-check";
import { expect, test } from "vitest";
import type { Exports } from "../../src/engine/machine.js";
import { type At, NOWHERE } from "../../src/engine/memory.js";
import { Binary, inPlaceOf, SCRATCH } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { anyBits, normal, random } from "../support/data.js";
import { check } from "../support/property.js";

const { fround } = Math;
const binary = new Binary();

/** Room for the bits of `length` values, a multiple of 32 of them. */
const bitsFor = (length: number) => binary.f32<"bits">(Math.ceil(length / 32));

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

const bitOf = (bytes: Uint8Array, i: number): number => (bytes[i >> 3]! >> (i & 7)) & 1;

type Keep = (
  run: Exports,
  y: At<"out">,
  bits: At<"bits">,
  x: At<"a">,
  add: At<"b">,
  terms: At<"terms">,
) => number;

/** Runs a kernel with y in a place of its own, over x and over the residual, and compares every bit. */
function compare(
  length: number,
  channels: number,
  channelOf: (i: number) => number,
  seed: number,
  any: boolean,
  lead: number,
  keep: Keep,
): void {
  const of = any ? anyBits : normal;
  const values = {
    center: of(channels, seed + 1),
    scale: of(channels, seed + 2),
    shift: of(channels, seed + 3),
  };
  const [from, residual] = [of(length, seed), of(length, seed + 4)];
  const sums = from.map((value, i) => {
    const c = channelOf(i);
    const v = fround(fround(value - values.center[c]!) * values.scale[c]!) + values.shift[c]!;
    // Sums that are 0 or just beside it are seldom else.
    if (i % 5 === 0) residual[i] = -fround(v) + (i % 3 === 0 ? 0 : (i % 3) * 2e-45 - 3e-45);
    return fround(v) + residual[i]!;
  });
  for (const over of ["", "x", "add"]) {
    binary.reset();
    const terms = binary.terms(channels, values);
    const x = binary.f32<"a">(from, lead);
    const add = binary.f32<"b">(residual, lead >> 1);
    const apart = binary.f32<"out">(length, 1);
    const y = over === "x" ? inPlaceOf(x) : over === "add" ? inPlaceOf(add) : apart;
    const bits = bitsFor(length);
    const endless = binary.call([[y], [bits]], (run) =>
      keep(run, y.at, bits.at, x.at, add.at, terms.at),
    );
    assertSameBits(
      "y",
      y.array,
      sums.map((v) => (v < 0 ? 0 : v)),
    );
    // A NaN may have either sign, and only one of them is greater than all numbers as an integer.
    const ends = sums.some((v) => v === Infinity);
    const none = sums.every(Number.isFinite);
    if (ends || none) expect(endless !== 0).toBe(ends);
    const bytes = bytesOf(bits.array);
    assertSameBits(
      "bits",
      sums.map((_, i) => bitOf(bytes, i)),
      sums.map((v, i) => {
        if (Number.isFinite(v)) return +(v > 0);
        return endless === 0 ? 0 : bitOf(bytes, i);
      }),
    );
  }
}

const given = { seed: seeds, any: fc.boolean(), lead: fc.integer({ min: 0, max: 3 }) };

test("keepRows: every row and its bits", () => {
  check(
    fc.property(
      fc.record({
        rows: fc.integer({ min: 1, max: 20 }),
        width: fc.constantFrom(16, 32, 48, 80, 1024),
        ...given,
      }),
      ({ rows, width, seed, any, lead }) =>
        compare(
          ...([rows * width, width, (i: number) => i % width, seed, any, lead] as const),
          (run, y, bits, x, add, terms) => run.keepRows(y, bits, x, add, terms, rows, width),
        ),
    ),
    60,
  );
});

test("keepPlanes: every plane with its channel's terms, from any channel on", () => {
  check(
    fc.property(
      fc.record({
        channels: fc.integer({ min: 1, max: 9 }),
        planes: fc.integer({ min: 1, max: 20 }),
        inner: fc.constantFrom(16, 32, 48, 160),
        start: fc.nat(),
        ...given,
      }),
      ({ channels, planes, inner, start, seed, any, lead }) => {
        const first = start % channels;
        const channelOf = (i: number): number => (first + Math.floor(i / inner)) % channels;
        compare(
          ...([planes * inner, channels, channelOf, seed, any, lead] as const),
          (run, y, bits, x, add, terms) =>
            run.keepPlanes(y, bits, x, add, terms, first, planes, channels, inner),
        );
      },
    ),
    60,
  );
});

test.each<[string, Keep]>([
  ["keepRows", (run, ...tensors) => run.keepRows(...tensors, 3, 32)],
  ["keepPlanes", (run, ...tensors) => run.keepPlanes(...tensors, 1, 3, 2, 32)],
])("%s: -0 stays -0, and one infinity is noticed, wherever it is", (_, keep) => {
  const [length, channels] = [96, 32];
  for (let i = 0; i < length; i++) {
    binary.reset();
    // Of x = v, the sum is v: (v - 0)·1 + (-0) + (-0) has its bits. Taken for an integer without a sign, -0 would be the largest.
    const terms = binary.terms(channels, {
      center: new Float32Array(channels),
      scale: new Float32Array(channels).fill(1),
      shift: new Float32Array(channels).fill(-0),
    });
    const values = new Float32Array(length).fill(-0).fill(Infinity, i, i + 1);
    const x = binary.f32<"a">(values);
    const add = binary.f32<"b">(new Float32Array(length).fill(-0));
    const [y, bits] = [binary.f32<"out">(length), bitsFor(length)];
    const endless = binary.call([[y], [bits]], (run) =>
      keep(run, y.at, bits.at, x.at, add.at, terms.at),
    );
    assertSameBits("y", y.array, values);
    expect(endless, `infinite: value ${i}`).not.toBe(0);
  }
});

/** Bits that one value in two has, as `keepRows` writes them. */
function randomBits(length: number, seed: number): Uint8Array {
  const next = random(seed);
  return Uint8Array.from({ length: Math.ceil(length / 32) * 4 }, () => Math.floor(256 * next()));
}

type Sums = (
  run: Exports,
  sumDy: At<"sumDy">,
  sumDyX: At<"sumDyX">,
  scratch: At<"scratch">,
  g: At<"out">,
  dy: At<"a">,
  x: At<"b">,
  terms: At<"terms">,
  bits: At<"bits">,
) => void;

/**
 * Runs a kernel with bits, with g in a place of its own and over dy. It has to write dy where the bit is set, else 0, and its
 * sums have to be those that it gives of that g without bits.
 */
function compareSums(
  length: number,
  channels: number,
  any: boolean,
  seed: number,
  sums: Sums,
): void {
  const kept = randomBits(length, seed + 3);
  const from = (any ? anyBits : normal)(length, seed);
  const gated = from.map((v, i) => (bitOf(kept, i) ? v : 0));
  const by = normal(length, seed + 1);
  const center = normal(channels, seed + 2);
  const run = (values: Float32Array, over: boolean, gates: boolean) => {
    binary.reset();
    const terms = binary.terms(channels, { center });
    const dy = binary.f32<"a">(values, 1);
    const x = binary.f32<"b">(by, 2);
    const g = over ? inPlaceOf(dy) : binary.f32<"out">(length, 3);
    const bits = bitsFor(length);
    bytesOf(bits.array).set(kept);
    const [s, p] = [binary.f64<"sumDy">(channels), binary.f64<"sumDyX">(channels)];
    const scratch = binary.f32<"scratch">(SCRATCH);
    s.array.fill(0.75);
    p.array.fill(0.75);
    const written = [s, p, scratch];
    binary.call(
      (gates ? [...written, g] : written).map((slot) => [slot]),
      (kernels) =>
        sums(
          ...([kernels, s.at, p.at, scratch.at, g.at, dy.at, x.at, terms.at] as const),
          gates ? bits.at : NOWHERE,
        ),
    );
    if (gates) assertSameBits("g", g.array, gated);
    return { s: s.array.slice(), p: p.array.slice() };
  };
  const expected = run(gated, true, false);
  for (const over of [false, true]) {
    const actual = run(from, over, true);
    assertSameBits("Σg", actual.s, expected.s);
    assertSameBits("Σg·(x - center)", actual.p, expected.p);
  }
}

test.each([16, 32, 64, 80, 256, 1024])("gradientSumsRows with the bits of rows of %i", (width) => {
  check(
    fc.property(
      fc.integer({ min: 1, max: Math.floor(60000 / width) }),
      fc.boolean(),
      fc.boolean(),
      seeds,
      (rows, begun, any, seed) =>
        compareSums(rows * width, width, any, seed, (run, s, p, scratch, g, dy, x, terms, bits) =>
          run.gradientSumsRows(
            ...([
              s,
              p,
              scratch,
              bits ? g : (dy as number as At<"out">),
              dy,
              x,
              bits,
              terms,
            ] as const),
            ...(bits ? ([1, 0] as const) : ([NaN, NaN] as const)),
            ...([begun ? 1 : 0, rows, width, width * 4, width] as const),
          ),
        ),
    ),
    25,
  );
});

test.each([16, 48, 64, 80, 4096, 4112])(
  "gradientSumsPlanes with the bits of planes of %i",
  (inner) => {
    check(
      fc.property(
        fc.record({
          channels: fc.integer({ min: 1, max: 9 }),
          planes: fc.integer({ min: 1, max: Math.max(3, Math.floor(2000 / inner)) }),
          count: fc.constantFrom(0, inner),
          start: fc.nat(),
          any: fc.boolean(),
          seed: seeds,
        }),
        ({ channels, planes, count, start, any, seed }) => {
          const first = start % channels;
          compareSums(planes * inner, channels, any, seed, (run, s, p, _, g, dy, x, terms, bits) =>
            run.gradientSumsPlanes(
              ...([s, p, g, dy, x, terms, bits, count, first, planes, channels, inner] as const),
            ),
          );
        },
      ),
      25,
    );
  },
);
