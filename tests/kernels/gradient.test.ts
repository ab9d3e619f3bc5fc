// assembly/sums.ts and assembly/gradient.ts by themselves: sums against float64, elementwise kernels bit for bit. Sums of dy that
// bits gate are in bits.test.ts.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Exports } from "../../src/engine/machine.js";
import { type At, NOWHERE } from "../../src/engine/memory.js";
import { rowsOfTwo } from "../../src/engine/plan.js";
import { Binary, behind, inPlaceOf, SCRATCH, type Slot, type Writes } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertSameBits, assertWithin } from "../support/compare.js";
import { anyBits, normal } from "../support/data.js";
import { SUM_ERROR } from "../support/limits.js";
import { sum } from "../support/oracle.js";
import { check } from "../support/property.js";

const { fround } = Math;
const binary = new Binary();
/** Where dy lies, as the place of the gated dy: if the limits are NaN, they are the same. */
const inPlace = (dy: At<"a">): At<"out"> => dy as number as At<"out">;
const lead = fc.integer({ min: 0, max: 3 });
const widths = fc.oneof(
  { weight: 9, arbitrary: fc.integer({ min: 1, max: 70 }) },
  { weight: 1, arbitrary: fc.constantFrom(100, 255, 256, 257, 1024) },
);

/** Σdy and Σdy·(x - center) per channel, on top of what was `before`, and the sums of magnitudes. */
function expectedSums(
  dy: Float32Array,
  x: Float32Array,
  center: Float32Array,
  channelOf: (i: number) => number,
  before: number,
): { sums: number[][]; magnitudes: number[][] } {
  const addends: number[][][] = [0, 1].map(() => Array.from(center, () => []));
  dy.forEach((g, i) => {
    const c = channelOf(i);
    if (c < 0) return;
    addends[0]![c]!.push(g);
    addends[1]![c]!.push(g * (x[i]! - center[c]!));
  });
  return {
    sums: addends.map((each) => each.map((values) => before + sum(values))),
    magnitudes: addends.map((each) => each.map((values) => sum(values.map(Math.abs)))),
  };
}

type SumsKernel = (
  kernels: Exports,
  sumDy: At<"sumDy">,
  sumDyX: At<"sumDyX">,
  dy: At<"a">,
  x: At<"b">,
  center: At<"terms">,
  scratch: At<"scratch">,
) => void;

function sums(
  dy: Slot<Float32Array, "a">,
  x: Slot<Float32Array, "b">,
  center: Float32Array,
  step: number,
  before: number,
  kernel: SumsKernel,
): [Float64Array, Float64Array] {
  const n = center.length;
  const k = binary.terms(n, { center });
  const [s, p] = [binary.f64<"sumDy">(n), binary.f64<"sumDyX">(n)];
  s.array.fill(before);
  p.array.fill(before);
  const scratch = binary.f32<"scratch">(SCRATCH);
  const padding = (step - (n % step)) % step;
  const writes: Writes[] = [[s, padding], [p, padding], [scratch]];
  binary.call(writes, (kernels) => kernel(kernels, s.at, p.at, dy.at, x.at, k.at, scratch.at));
  return [s.array, p.array];
}

function compareSums(
  actual: [Float64Array, Float64Array],
  { sums, magnitudes }: ReturnType<typeof expectedSums>,
): void {
  for (const [k, name] of ["Σdy", "Σdy·(x - center)"].entries()) {
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
          const g = binary.f32<"a">(normal(rows * pitch, seed, 0.25), leads[0]);
          const x = binary.f32<"b">(normal(rows * pitch, seed + 1, 3), leads[1]);
          const center = normal(width, seed + 2, 3, 0.1);
          const channelOf = (i: number): number => (i % pitch < width ? i % pitch : -1);
          // Count 0 overwrites, others add.
          for (const count of [0, 64]) {
            const actual = sums(g, x, center, 4, 0.75, (run, s, p, dy, at, k, scratch) =>
              run.gradientSumsRows(
                ...([s, p, scratch, inPlace(dy), dy, at, NOWHERE, k] as const),
                ...([NaN, NaN, count, rows, width, pitch * 4, width] as const),
              ),
            );
            const before = count === 0 ? 0 : 0.75;
            compareSums(actual, expectedSums(g.array, x.array, center, channelOf, before));
          }
        },
      ),
      80,
    );
  });
});

describe.each([10, 48, 64, 65, 128, 257, 512, 600, 1000, 1024])(
  "gradientSumsRows in blocks of %i columns",
  (width) => {
    const block = rowsOfTwo(width);
    const rows = 2 * block + 37;
    const center = normal(width, width + 2, 3, 0.1);
    const tensors = (): [Slot<Float32Array, "a">, Slot<Float32Array, "b">] => {
      binary.reset();
      return [
        binary.f32<"a">(normal(rows * width, width, 0.25)),
        binary.f32<"b">(normal(rows * width, width + 1, 3)),
      ];
    };
    /** The sums of the rows from `first` on, in calls that end at `cuts`. */
    const cut = (
      [g, x]: ReturnType<typeof tensors>,
      first: number,
      cuts: number[],
    ): [Float64Array, Float64Array] =>
      sums(g, x, center, 4, 0, (run, s, p, dy, at, k, scratch) => {
        let from = first;
        for (const to of cuts) {
          const skip = from * width * 4;
          const [g0, x0, n] = [behind(dy, skip), behind(at, skip), to - from];
          const count = from - first;
          run.gradientSumsRows(
            ...([s, p, scratch, inPlace(g0), g0, x0, NOWHERE, k] as const),
            ...([NaN, NaN, count, n, width, width * 4, width] as const),
          );
          from = to;
        }
      });

    test("calls cut between blocks leave the same bits", () => {
      const both = tensors();
      const whole = cut(both, 0, [rows]);
      compareSums(
        whole,
        expectedSums(both[0].array, both[1].array, center, (i) => i % width, 0),
      );
      for (const cuts of [[block], [2 * block], [block, 2 * block]]) {
        const [sumDy, sumDyX] = cut(both, 0, [...cuts, rows]);
        assertSameBits("Σdy", sumDy, whole[0]);
        assertSameBits("Σdy·(x - center)", sumDyX, whole[1]);
      }
    });

    test("blocks by themselves, added up in their order, are the same bits", () => {
      const both = tensors();
      const whole = cut(both, 0, [rows]);
      const blocks = [0, block, 2 * block].map((row) =>
        cut(both, row, [Math.min(row + block, rows)]).map((array) => array.slice()),
      );
      for (const k of [0, 1]) {
        const [first, second, third] = blocks.map((each) => each[k]!);
        const pooled = first!.map((sum, c) => sum + second![c]! + third![c]!);
        assertSameBits("pooled", pooled, whole[k]!);
      }
    });
  },
);

describe("gradientSumsPlanes", () => {
  /** Without bits, so that there is no g. */
  const ungated = (
    run: Exports,
    sumDy: At<"sumDy">,
    sumDyX: At<"sumDyX">,
    dy: At<"a">,
    x: At<"b">,
    center: At<"terms">,
    ...dimensions: [count: number, first: number, planes: number, channels: number, inner: number]
  ): void => run.gradientSumsPlanes(sumDy, sumDyX, NOWHERE, dy, x, center, NOWHERE, ...dimensions);

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
          const g = binary.f32<"a">(normal(planes * inner, seed, 0.25), leads[0]);
          const x = binary.f32<"b">(normal(planes * inner, seed + 1, 3), leads[1]);
          const center = normal(channels, seed + 2, 3, 0.1);
          const channelOf = (i: number): number => (first + Math.floor(i / inner)) % channels;
          // Channels before the first have come already, and are not in a first call.
          const later = sums(g, x, center, 1, 0.75, (run, s, p, dy, at, k) =>
            ungated(run, s, p, dy, at, k, inner, first, planes, channels, inner),
          );
          compareSums(later, expectedSums(g.array, x.array, center, channelOf, 0.75));
          if (first > 0 || planes < channels) return;
          const actual = sums(g, x, center, 1, 0.75, (run, s, p, dy, at, k) =>
            ungated(run, s, p, dy, at, k, 0, first, planes, channels, inner),
          );
          compareSums(actual, expectedSums(g.array, x.array, center, channelOf, 0));
        },
      ),
      150,
    );
  });

  test.each([4095, 4096, 4097, 12291, 16384, 40003])("planes of %i values", (inner) => {
    for (const at of [1, 2, 3]) {
      binary.reset();
      const g = binary.f32<"a">(normal(2 * inner, inner, 0.25), at);
      const x = binary.f32<"b">(normal(2 * inner, inner + 1, 3), 4 - at);
      const center = Float32Array.of(3);
      const actual = sums(g, x, center, 1, 9, (run, s, p, dy, p0, k) =>
        ungated(run, s, p, dy, p0, k, 0, 0, 2, 1, inner),
      );
      compareSums(
        actual,
        expectedSums(g.array, x.array, center, () => 0, 0),
      );
      // A plane in parts, cut at multiples of a block, gives the same bits.
      const cut = Math.floor(inner / 4096 / 2 + 0.5) * 4096;
      const parts = sums(g, x, center, 1, 9, (run, s, p, dy, p0, k) => {
        for (const from of [0, inner]) {
          const rest = from + cut;
          const part = (at: number, length: number): void => {
            const [g1, x1] = [behind(dy, 4 * at), behind(p0, 4 * at)];
            ungated(run, s, p, g1, x1, k, at, 0, 1, 1, length);
          };
          part(from, cut);
          part(rest, inner - cut);
        }
      });
      expect(parts).toEqual(actual);
    }
  });
});

type Values = Record<"center" | "scale" | "shift" | "slope", Float32Array>;

/** Terms of `n` channels: usual ones, or any bits at all. */
function valuesOf(n: number, seed: number, any: boolean): Values {
  const values = (k: number) => (any ? anyBits : normal)(n, seed + k);
  return { center: values(1), scale: values(2), shift: values(3), slope: values(4) };
}

type Kernel = (
  kernels: Exports,
  dx: At<"out">,
  dy: At<"a">,
  x: At<"b">,
  terms: At<"terms">,
) => void;

/** Runs a kernel with dx apart or in place of dy, and compares every bit. */
function compare(
  g: Float32Array,
  all: Float32Array,
  values: Values,
  channelOf: (i: number) => number,
  leads: [dx: number, dy: number, x: number],
  kernel: Kernel,
): void {
  const { center, scale, shift, slope } = values;
  const expected = g.map((value, i) => {
    const k = channelOf(i);
    if (k < 0) return value;
    const lost = fround(fround(all[i]! - center[k]!) * slope[k]!);
    return fround(fround(value - shift[k]!) - lost) * scale[k]!;
  });
  for (const inPlace of [false, true]) {
    binary.reset();
    const terms = binary.terms(center.length, values);
    const dy = binary.f32<"a">(g, leads[1]);
    const x = binary.f32<"b">(all, leads[2]);
    const dx = inPlace ? inPlaceOf(dy) : binary.f32<"out">(g, leads[0]);
    binary.call([[dx]], (kernels) => kernel(kernels, dx.at, dy.at, x.at, terms.at));
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
          compare(dy, x, valuesOf(width, seed, any), channelOf, at, (run, dx, g, p, terms) =>
            run[name](dx, g, p, terms, rows, width, pitch * 4),
          );
        },
      ),
      150,
    );
  });
});

describe("gradientPlanes", () => {
  test("every plane with its channel's terms, from any channel on", () => {
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
          compare(dy, x, valuesOf(channels, seed, any), channelOf, at, (run, dx, g, p, terms) =>
            run.gradientPlanes(dx, g, p, terms, first, planes, channels, inner),
          );
        },
      ),
      200,
    );
  });
});
