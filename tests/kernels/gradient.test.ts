// assembly/gradient.ts by itself: sums against float64, elementwise kernels bit for bit.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Exports } from "../../src/machine.js";
import { BLOCK_TWO, rowsOf } from "../../src/run.js";
import { Binary, type Slot, type Writes } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertSameBits, assertWithin, SUM_ERROR } from "../support/compare.js";
import { anyBits, normal } from "../support/data.js";
import { sum } from "../support/oracle.js";
import { check } from "../support/property.js";

const { fround } = Math;
const binary = new Binary();
const lead = fc.integer({ min: 0, max: 3 });
const widths = fc.oneof(
  { weight: 9, arbitrary: fc.integer({ min: 1, max: 70 }) },
  { weight: 1, arbitrary: fc.constantFrom(100, 255, 256, 257, 1024) },
);

/** Σdy and Σdy·(x - hi) per channel, on top of what was `before`, and the sums of magnitudes. */
function expectedSums(
  dy: Float32Array,
  x: Float32Array,
  hi: Float32Array,
  channelOf: (i: number) => number,
  before: number,
): { sums: number[][]; magnitudes: number[][] } {
  const terms: number[][][] = [0, 1].map(() => Array.from(hi, () => []));
  dy.forEach((g, i) => {
    const c = channelOf(i);
    if (c < 0) return;
    terms[0]![c]!.push(g);
    terms[1]![c]!.push(g * (x[i]! - hi[c]!));
  });
  return {
    sums: terms.map((each) => each.map((values) => before + sum(values))),
    magnitudes: terms.map((each) => each.map((values) => sum(values.map(Math.abs)))),
  };
}

type SumsKernel = (
  kernels: Exports,
  sumDy: number,
  sumDyX: number,
  dy: number,
  x: number,
  hi: number,
) => void;

function sums(
  dy: Slot<Float32Array>,
  x: Slot<Float32Array>,
  hi: Float32Array,
  step: number,
  before: number,
  kernel: SumsKernel,
): [Float64Array, Float64Array] {
  const h = binary.f32(hi);
  const [s, p] = [binary.f64(hi.length), binary.f64(hi.length)];
  s.array.fill(before);
  p.array.fill(before);
  const padding = (step - (hi.length % step)) % step;
  const writes: Writes[] = [
    [s, padding],
    [p, padding],
  ];
  binary.call(writes, (kernels) => kernel(kernels, s.at, p.at, dy.at, x.at, h.at));
  return [s.array, p.array];
}

function compareSums(
  actual: [Float64Array, Float64Array],
  { sums, magnitudes }: ReturnType<typeof expectedSums>,
): void {
  for (const [k, name] of ["Σdy", "Σdy·(x - hi)"].entries()) {
    assertWithin(name, actual[k]!, sums[k]!, (c) => SUM_ERROR * magnitudes[k]![c]!);
  }
}

describe("gradientSumsRows", () => {
  test("adds the sums of every column, any stride and address", () => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 260 }),
        widths,
        fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9 })),
        fc.tuple(lead, lead),
        seeds,
        (most, width, gap, leads, seed) => {
          binary.reset();
          const rows = Math.min(most, Math.ceil(65536 / width));
          const pitch = width + gap;
          const g = binary.f32(normal(rows * pitch, seed, 0.25), leads[0]);
          const x = binary.f32(normal(rows * pitch, seed + 1, 3), leads[1]);
          const hi = normal(width, seed + 2, 3, 0.1);
          const channelOf = (i: number): number => (i % pitch < width ? i % pitch : -1);
          // Count 0 overwrites, others add.
          for (const count of [0, 64]) {
            const actual = sums(g, x, hi, 4, 0.75, (run, s, p, dy, at, h) =>
              run.gradientSumsRows(s, p, dy, at, h, count, rows, width, pitch * 4),
            );
            const before = count === 0 ? 0 : 0.75;
            compareSums(actual, expectedSums(g.array, x.array, hi, channelOf, before));
          }
        },
      ),
      80,
    );
  });
});

test.each([64, 65, 128, 257, 512, 600, 1000, 1024])(
  "gradientSumsRows in blocks of %i columns",
  (width) => {
    binary.reset();
    const block = rowsOf(width, BLOCK_TWO);
    const rows = 2 * block + 37;
    const g = binary.f32(normal(rows * width, width, 0.25));
    const x = binary.f32(normal(rows * width, width + 1, 3));
    const hi = normal(width, width + 2, 3, 0.1);
    const cut = (cuts: number[]) =>
      sums(g, x, hi, 4, 0, (run, s, p, dy, at, h) => {
        let from = 0;
        for (const to of [...cuts, rows]) {
          const skip = from * width * 4;
          run.gradientSumsRows(s, p, dy + skip, at + skip, h, from, to - from, width, width * 4);
          from = to;
        }
      });
    const whole = cut([]);
    compareSums(
      whole,
      expectedSums(g.array, x.array, hi, (i) => i % width, 0),
    );
    for (const cuts of [[block], [2 * block], [block, 2 * block]]) {
      const [sumDy, sumDyX] = cut(cuts);
      assertSameBits("Σdy", sumDy, whole[0]);
      assertSameBits("Σdy·(x - hi)", sumDyX, whole[1]);
    }
  },
);

describe("gradientSumsPlanes", () => {
  test("adds the sums of every channel, from any channel on", () => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 200 }),
        fc.nat(),
        fc.tuple(lead, lead),
        seeds,
        (channels, planes, inner, start, leads, seed) => {
          binary.reset();
          const first = start % channels;
          const g = binary.f32(normal(planes * inner, seed, 0.25), leads[0]);
          const x = binary.f32(normal(planes * inner, seed + 1, 3), leads[1]);
          const hi = normal(channels, seed + 2, 3, 0.1);
          const channelOf = (i: number): number => (first + Math.floor(i / inner)) % channels;
          // Channels before the first have come already, and are not in a first call.
          const later = sums(g, x, hi, 1, 0.75, (run, s, p, dy, at, h) =>
            run.gradientSumsPlanes(s, p, dy, at, h, inner, first, planes, channels, inner),
          );
          compareSums(later, expectedSums(g.array, x.array, hi, channelOf, 0.75));
          if (first > 0 || planes < channels) return;
          const actual = sums(g, x, hi, 1, 0.75, (run, s, p, dy, at, h) =>
            run.gradientSumsPlanes(s, p, dy, at, h, 0, first, planes, channels, inner),
          );
          compareSums(actual, expectedSums(g.array, x.array, hi, channelOf, 0));
        },
      ),
      150,
    );
  });

  test.each([4095, 4096, 4097, 12291, 16384, 40003])("planes of %i values", (inner) => {
    for (const at of [1, 2, 3]) {
      binary.reset();
      const g = binary.f32(normal(2 * inner, inner, 0.25), at);
      const x = binary.f32(normal(2 * inner, inner + 1, 3), 4 - at);
      const hi = Float32Array.of(3);
      const actual = sums(g, x, hi, 1, 9, (run, s, p, dy, p0, h) =>
        run.gradientSumsPlanes(s, p, dy, p0, h, 0, 0, 2, 1, inner),
      );
      compareSums(
        actual,
        expectedSums(g.array, x.array, hi, () => 0, 0),
      );
      // A plane in parts, cut at multiples of a block, gives the same bits.
      const cut = Math.floor(inner / 4096 / 2 + 0.5) * 4096;
      const parts = sums(g, x, hi, 1, 9, (run, s, p, dy, p0, h) => {
        for (const from of [0, inner]) {
          const rest = from + cut;
          const part = (at: number, length: number): void =>
            run.gradientSumsPlanes(s, p, dy + 4 * at, p0 + 4 * at, h, at, 0, 1, 1, length);
          part(from, cut);
          part(rest, inner - cut);
        }
      });
      expect(parts).toEqual(actual);
    }
  });
});

type Parameters = [hi: Float32Array, a: Float32Array, b: Float32Array, c: Float32Array];

const parametersOf = (n: number, seed: number, any: boolean) =>
  [1, 2, 3, 4].map((k) => (any ? anyBits(n, seed + k) : normal(n, seed + k))) as Parameters;

type Kernel = (
  kernels: Exports,
  dx: number,
  dy: number,
  x: number,
  parameters: [hi: number, a: number, b: number, c: number],
) => void;

/** Runs a kernel with dx apart or in place of dy, and compares every bit. */
function compare(
  g: Float32Array,
  all: Float32Array,
  parameters: Parameters,
  channelOf: (i: number) => number,
  leads: [dx: number, dy: number, x: number],
  kernel: Kernel,
): void {
  const [hi, a, b, c] = parameters;
  const expected = g.map((value, i) => {
    const k = channelOf(i);
    if (k < 0) return value;
    return fround(fround(value - b[k]!) - fround(fround(all[i]! - hi[k]!) * c[k]!)) * a[k]!;
  });
  for (const inPlace of [false, true]) {
    binary.reset();
    const slots = parameters.map((values) => binary.f32(values).at);
    const dy = binary.f32(g, leads[1]);
    const x = binary.f32(all, leads[2]);
    const dx = inPlace ? dy : binary.f32(g, leads[0]);
    binary.call([[dx]], (kernels) =>
      kernel(kernels, dx.at, dy.at, x.at, slots as [number, number, number, number]),
    );
    assertSameBits("dx", dx.array, expected);
    assertSameBits("x", x.array, all);
    if (!inPlace) assertSameBits("dy", dy.array, g);
  }
}

const leads = fc.tuple(lead, lead, lead);

describe.each(["gradientStrips", "gradientSweep"] as const)("%s", (name) => {
  test("every column of every row, and nothing else, any stride and address", () => {
    check(
      fc.property(
        fc.oneof(
          { weight: 4, arbitrary: fc.integer({ min: 1, max: 20 }) },
          { weight: 1, arbitrary: fc.integer({ min: 60, max: 140 }) },
        ),
        widths,
        fc.integer({ min: 0, max: 9 }),
        leads,
        seeds,
        fc.boolean(),
        (rows, width, gap, at, seed, any) => {
          const pitch = width + gap;
          const values = any ? anyBits : normal;
          const dy = values(rows * pitch, seed);
          const x = values(rows * pitch, seed + 9);
          const channelOf = (i: number): number => (i % pitch < width ? i % pitch : -1);
          const parameters = parametersOf(width, seed, any);
          compare(dy, x, parameters, channelOf, at, (run, dx, g, p, [h, a, b, c]) =>
            run[name](dx, g, p, h, a, b, c, rows, width, pitch * 4),
          );
        },
      ),
      150,
    );
  });
});

describe("gradientPlanes", () => {
  test("every plane with its channel's parameters, from any channel on", () => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 150 }),
        fc.nat(),
        leads,
        seeds,
        fc.boolean(),
        (channels, planes, inner, start, at, seed, any) => {
          const first = start % channels;
          const values = any ? anyBits : normal;
          const dy = values(planes * inner, seed);
          const x = values(planes * inner, seed + 9);
          const channelOf = (i: number): number => (first + Math.floor(i / inner)) % channels;
          const parameters = parametersOf(channels, seed, any);
          compare(dy, x, parameters, channelOf, at, (run, dx, g, p, [h, a, b, c]) =>
            run.gradientPlanes(dx, g, p, h, a, b, c, first, planes, channels, inner),
          );
        },
      ),
      200,
    );
  });
});
