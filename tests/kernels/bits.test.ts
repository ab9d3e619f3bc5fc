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

/** Bits that one value in two has, as `keepRows` writes them. */
function randomBits(length: number, seed: number): Uint8Array {
  const next = random(seed);
  return Uint8Array.from({ length: Math.ceil(length / 32) * 4 }, () => Math.floor(256 * next()));
}

test("gateBits: dy where the bit is set, in place or not", () => {
  check(
    fc.property(fc.integer({ min: 1, max: 80 }), fc.boolean(), seeds, (sixteens, inPlace, seed) => {
      const length = 16 * sixteens;
      const from = anyBits(length, seed);
      const kept = randomBits(length, seed + 1);
      binary.reset();
      const dy = binary.f32<"a">(from, 1);
      const g = inPlace ? inPlaceOf(dy) : binary.f32<"out">(length, 2);
      const bits = bitsFor(length);
      bytesOf(bits.array).set(kept);
      binary.call([[g]], (run) => run.gateBits(g.at, dy.at, bits.at, length));
      assertSameBits(
        "g",
        g.array,
        from.map((v, i) => (bitOf(kept, i) ? v : 0)),
      );
    }),
    100,
  );
});

test.each([16, 32, 64, 80, 256, 1024])(
  "gradientSumsRows with bits of rows of %i: those of gateBits, and then of the sums without them",
  (width) => {
    check(
      fc.property(
        fc.integer({ min: 1, max: Math.floor(60000 / width) }),
        fc.boolean(),
        fc.boolean(),
        seeds,
        (rows, inPlace, begun, seed) => {
          const length = rows * width;
          const [from, by] = [normal(length, seed), normal(length, seed + 1)];
          const center = normal(width, seed + 2);
          const kept = randomBits(length, seed + 3);
          const [together, apart] = [true, false].map((isTogether) => {
            binary.reset();
            const terms = binary.terms(width, { center });
            const dy = binary.f32<"a">(from, 1);
            const x = binary.f32<"b">(by, 2);
            const g = inPlace ? inPlaceOf(dy) : binary.f32<"out">(length, 3);
            const bits = bitsFor(length);
            bytesOf(bits.array).set(kept);
            const [s, p] = [binary.f64<"sumDy">(width), binary.f64<"sumDyX">(width)];
            const scratch = binary.f32<"scratch">(SCRATCH);
            s.array.fill(0.75);
            p.array.fill(0.75);
            binary.call([[g], [s], [p], [scratch]], (run) => {
              const sumsOf = (at: At<"a">, by: At<"bits">, low: number, high: number): void =>
                run.gradientSumsRows(
                  ...([s.at, p.at, scratch.at, g.at, at, x.at, by, terms.at] as const),
                  ...([low, high, begun ? 1 : 0, rows, width, width * 4, width] as const),
                );
              if (isTogether) return sumsOf(dy.at, bits.at, 1, 0);
              run.gateBits(g.at, dy.at, bits.at, length);
              sumsOf(g.at as number as At<"a">, NOWHERE, NaN, NaN);
            });
            return { g: g.array.slice(), s: s.array.slice(), p: p.array.slice() };
          });
          assertSameBits("g", together!.g, apart!.g);
          assertSameBits("Σg", together!.s, apart!.s);
          assertSameBits("Σg·(x - center)", together!.p, apart!.p);
        },
      ),
      25,
    );
  },
);
