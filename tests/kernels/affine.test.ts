// assembly/affine.ts by itself: y = (x - center)·scale + shift, one rounding per operation.

import fc from "fast-check";
import { describe, test } from "vitest";
import type { Exports } from "../../src/engine/machine.js";
import { type At, NOWHERE } from "../../src/engine/memory.js";
import { Binary, inPlaceOf } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { anyBits, normal } from "../support/data.js";
import { check } from "../support/property.js";

const { fround } = Math;
const binary = new Binary();

type Values = Record<"center" | "scale" | "shift", Float32Array>;

type Kernel = (kernels: Exports, y: At<"out">, x: At<"a">, terms: At<"terms">) => void;

/** Runs a kernel on data and terms per channel, in place or not, and compares every bit. */
function compare(
  all: Float32Array,
  values: Values,
  channelOf: (i: number) => number,
  leads: [y: number, x: number],
  kernel: Kernel,
): void {
  const { center, scale, shift } = values;
  const expected = all.map((value, i) => {
    const c = channelOf(i);
    // What no column owns keeps the value it had.
    return c < 0 ? value : fround(fround(value - center[c]!) * scale[c]!) + shift[c]!;
  });
  for (const inPlace of [false, true]) {
    binary.reset();
    const terms = binary.terms(center.length, values);
    const x = binary.f32<"a">(all, leads[1]);
    const y = inPlace ? inPlaceOf(x) : binary.f32<"out">(all, leads[0]);
    binary.call([[y]], (kernels) => kernel(kernels, y.at, x.at, terms.at));
    assertSameBits("y", y.array, expected);
    if (!inPlace) assertSameBits("x", x.array, all);
  }
}

const leads = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 3 }));
const anyValues = fc.boolean();

/** Terms of `n` channels: usual ones, or any bits at all. */
function valuesOf(n: number, seed: number, any: boolean): Values {
  const values = any ? anyBits : normal;
  return { center: values(n, seed + 1), scale: values(n, seed + 2), shift: values(n, seed + 3) };
}

describe.each(["affineStrips", "affineSweep"] as const)("%s", (name) => {
  test("every column of every row, and nothing else, any stride and address", () => {
    check(
      fc.property(
        fc.oneof(
          { weight: 4, arbitrary: fc.integer({ min: 1, max: 20 }) },
          { weight: 1, arbitrary: fc.integer({ min: 60, max: 140 }) },
        ),
        fc.oneof(
          { weight: 9, arbitrary: fc.integer({ min: 1, max: 70 }) },
          { weight: 1, arbitrary: fc.constantFrom(100, 255, 256, 257, 1024) },
        ),
        fc.integer({ min: 0, max: 9 }),
        leads,
        seeds,
        anyValues,
        (rows, width, gap, at, seed, any) => {
          const pitch = width + gap;
          const x = any ? anyBits(rows * pitch, seed) : normal(rows * pitch, seed);
          const channelOf = (i: number): number => (i % pitch < width ? i % pitch : -1);
          compare(x, valuesOf(width, seed, any), channelOf, at, (run, y, p, terms) =>
            run[name](y, p, NOWHERE, terms, -Infinity, Infinity, rows, width, pitch * 4),
          );
        },
      ),
      150,
    );
  });
});

describe("affinePlanes", () => {
  test("every plane with its channel's terms, from any channel on", () => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 150 }),
        fc.nat(),
        leads,
        seeds,
        anyValues,
        (channels, planes, inner, start, at, seed, any) => {
          const first = start % channels;
          const x = any ? anyBits(planes * inner, seed) : normal(planes * inner, seed);
          const channelOf = (i: number): number => (first + Math.floor(i / inner)) % channels;
          compare(x, valuesOf(channels, seed, any), channelOf, at, (run, y, p, terms) =>
            run.affinePlanes(
              y,
              p,
              NOWHERE,
              terms,
              -Infinity,
              Infinity,
              first,
              planes,
              channels,
              inner,
            ),
          );
        },
      ),
      200,
    );
  });
});
