// assembly/moments.ts by itself: the state of columns and channels against the float64 oracle.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rowsOfOne } from "../../src/engine/plan.js";
import { Binary, behind, SCRATCH, type Slot, type Writes } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertMoments, assertSameBits } from "../support/compare.js";
import { distributed, KINDS, normal } from "../support/data.js";
import * as oracle from "../support/oracle.js";
import { check } from "../support/property.js";

const binary = new Binary();

/** The state of columns or channels: mean = base + offset, sum of squared deviations. */
interface State {
  base: Slot<Float32Array, "base">;
  offset: Slot<Float64Array, "offset">;
  m2: Slot<Float64Array, "m2">;
}

const stateOf = (columns: number): State => ({
  base: binary.f32(columns),
  offset: binary.f64(columns),
  m2: binary.f64(columns),
});

/** Kernels write the state up to the next multiple of `step` columns. */
const writesOf = ({ base, offset, m2 }: State, step: number): Writes[] => {
  const padding = (step - (base.array.length % step)) % step;
  return [
    [base, padding],
    [offset, padding],
    [m2, padding],
  ];
};

const momentsOf = ({ base, offset, m2 }: State, count: number) => ({
  mean: Float64Array.from(base.array, (b, c) => b + offset.array[c]!),
  variance: m2.array.map((v) => v / count),
});

function assertSameState(actual: State, expected: State): void {
  assertSameBits("base", actual.base.array, expected.base.array);
  assertSameBits("offset", actual.offset.array, expected.offset.array);
  assertSameBits("m2", actual.m2.array, expected.m2.array);
}

/** The columns of rows of `pitch` values, of which the first `width` are theirs. */
function columns(x: Float32Array, rows: number, width: number, pitch: number): Float32Array {
  return Float32Array.from(
    { length: rows * width },
    (_, i) => x[Math.floor(i / width) * pitch + (i % width)]!,
  );
}

describe("momentsRows", () => {
  function run(
    x: Slot<Float32Array, "a">,
    rows: number,
    width: number,
    pitch: number,
    cuts: number[],
  ): State {
    const state = stateOf(width);
    const { base, offset, m2 } = state;
    const scratch = binary.f32<"scratch">(SCRATCH);
    let from = 0;
    for (const to of [...cuts, rows]) {
      binary.call([...writesOf(state, 4), [scratch]], (kernels) =>
        kernels.momentsRows(
          base.at,
          offset.at,
          m2.at,
          scratch.at,
          behind(x.at, from * pitch * 4),
          from,
          to - from,
          width,
          pitch * 4,
          width,
        ),
      );
      from = to;
    }
    return state;
  }

  const inputs = fc
    .record({
      rows: fc.integer({ min: 1, max: 260 }),
      width: fc.oneof(
        { weight: 9, arbitrary: fc.integer({ min: 1, max: 70 }) },
        { weight: 1, arbitrary: fc.constantFrom(100, 255, 257, 1024) },
      ),
      gap: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9 })),
      lead: fc.integer({ min: 0, max: 3 }),
      mean: fc.constantFrom(0, 1, 100, 1e4, 1e6),
      kind: fc.constantFrom(...KINDS),
      seed: seeds,
    })
    // Wide rows are few: the oracle is slow.
    .map((input) => ({ ...input, rows: Math.min(input.rows, Math.ceil(16384 / input.width)) }));

  test("mean and variance of every column, any stride and address", () => {
    check(
      fc.property(inputs, ({ rows, width, gap, lead, mean, kind, seed }) => {
        binary.reset();
        const pitch = width + gap;
        const all = distributed(kind, { outer: rows, channels: pitch, inner: 1 }, mean, 1, seed);
        const view = { outer: rows, channels: width, inner: 1 };
        const x = binary.f32<"a">(all, lead);
        const state = run(x, rows, width, pitch, []);
        const own = columns(all, rows, width, pitch);
        assertMoments(momentsOf(state, rows), oracle.moments(own, view));
        assertSameBits("x", x.array, all);
      }),
      150,
    );
  });

  // Narrow rows are: of wide ones there are too few here, see below.
  test("calls cut between blocks leave the same bits", () => {
    check(
      fc.property(inputs, seeds, ({ rows, width, gap, lead, mean, seed }, choice) => {
        binary.reset();
        const x = binary.f32<"a">(normal(rows * (width + gap), seed, mean), lead);
        const whole = run(x, rows, width, width + gap, []);
        const blocks = [1, 2, 3, 4].map((k) => k * rowsOfOne(width));
        const cuts = blocks.filter((row, i) => row < rows && (choice >> i) & 1);
        assertSameState(run(x, rows, width, width + gap, cuts), whole);
      }),
      60,
    );
  });

  test.each([64, 65, 128, 257, 512, 600, 1000, 1024])("blocks of %i columns", (width) => {
    binary.reset();
    const block = rowsOfOne(width);
    const rows = 2 * block + 37;
    const all = normal(rows * width, width, 1e3);
    const x = binary.f32<"a">(all);
    const whole = run(x, rows, width, width, []);
    assertMoments(
      momentsOf(whole, rows),
      oracle.moments(all, { outer: rows, channels: width, inner: 1 }),
    );
    for (const cuts of [[block], [2 * block], [block, 2 * block]]) {
      assertSameState(run(x, rows, width, width, cuts), whole);
    }
  });

  test("NaN and infinity stay in their own column", () => {
    check(
      fc.property(inputs, seeds, ({ rows, width, lead, seed }, place) => {
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          binary.reset();
          const x = binary.f32<"a">(normal(rows * width, seed), lead);
          const clean = momentsOf(run(x, rows, width, width, []), rows);
          const at = place % x.array.length;
          x.array[at] = bad;
          const { mean, variance } = momentsOf(run(x, rows, width, width, []), rows);
          const own = at % width;
          expect(Number.isFinite(mean[own]) && Number.isFinite(variance[own])).toBe(false);
          mean[own] = clean.mean[own]!;
          variance[own] = clean.variance[own]!;
          assertSameBits("mean", mean, clean.mean);
          assertSameBits("variance", variance, clean.variance);
        }
      }),
      60,
    );
  });
});

describe("momentsPlanes", () => {
  interface Part {
    at: number;
    count: number;
    first: number;
    planes: number;
    inner: number;
  }

  function run(x: Slot<Float32Array, "a">, channels: number, parts: Part[]): State {
    const state = stateOf(channels);
    const { base, offset, m2 } = state;
    for (const { at, count, first, planes, inner } of parts) {
      binary.call(writesOf(state, 1), (kernels) =>
        kernels.momentsPlanes(
          base.at,
          offset.at,
          m2.at,
          behind(x.at, at * 4),
          count,
          first,
          planes,
          channels,
          inner,
        ),
      );
    }
    return state;
  }

  const whole = (outer: number, channels: number, inner: number): Part => ({
    at: 0,
    count: 0,
    first: 0,
    planes: outer * channels,
    inner,
  });

  const inputs = fc.record({
    outer: fc.integer({ min: 1, max: 9 }),
    channels: fc.integer({ min: 1, max: 9 }),
    inner: fc.oneof(
      { weight: 4, arbitrary: fc.integer({ min: 1, max: 70 }) },
      { weight: 1, arbitrary: fc.integer({ min: 71, max: 1100 }) },
    ),
    lead: fc.integer({ min: 0, max: 3 }),
    mean: fc.constantFrom(0, 1, 100, 1e4, 1e6),
    kind: fc.constantFrom(...KINDS),
    seed: seeds,
  });

  test("mean and variance of every channel, any length and address", () => {
    check(
      fc.property(inputs, ({ outer, channels, inner, lead, mean, kind, seed }) => {
        binary.reset();
        const view = { outer, channels, inner };
        const all = distributed(kind, view, mean, 1, seed);
        const x = binary.f32<"a">(all, lead);
        const state = run(x, channels, [whole(outer, channels, inner)]);
        assertMoments(momentsOf(state, outer * inner), oracle.moments(all, view));
        assertSameBits("x", x.array, all);
      }),
      200,
    );
  });

  test("calls that start at any plane leave the same bits", () => {
    check(
      fc.property(inputs, seeds, ({ outer, channels, inner, lead, mean, seed }, choice) => {
        binary.reset();
        const all = normal(outer * channels * inner, seed, mean);
        const x = binary.f32<"a">(all, lead);
        const planes = outer * channels;
        const cut = choice % planes;
        const parts = [0, cut].map((from, i) => ({
          at: from * inner,
          count: Math.floor(from / channels) * inner,
          first: from % channels,
          planes: i === 0 ? cut : planes - cut,
          inner,
        }));
        assertSameState(run(x, channels, parts), run(x, channels, [whole(outer, channels, inner)]));
      }),
      60,
    );
  });

  test.each([4095, 4096, 4097, 8192, 12291, 16384, 20003, 49153])(
    "planes of %i values, at once and in parts cut at multiples of 4096",
    (inner) => {
      const [outer, channels] = [3, 2];
      const view = { outer, channels, inner };
      for (const [lead, kind] of (["normal", "sorted", "ramps"] as const).entries()) {
        binary.reset();
        const all = distributed(kind, view, 1e4, 1, inner);
        const x = binary.f32<"a">(all, lead + 1);
        const state = run(x, channels, [whole(outer, channels, inner)]);
        assertMoments(momentsOf(state, outer * inner), oracle.moments(all, view));
        const parts: Part[] = [];
        for (let plane = 0; plane < outer * channels; plane++) {
          for (let from = 0; from < inner; from += 8192) {
            parts.push({
              at: plane * inner + from,
              count: Math.floor(plane / channels) * inner + from,
              first: plane % channels,
              planes: 1,
              inner: Math.min(8192, inner - from),
            });
          }
        }
        assertSameState(run(x, channels, parts), state);
      }
    },
  );

  test("NaN and infinity stay in their own channel", () => {
    check(
      fc.property(inputs, seeds, ({ outer, channels, inner, lead, seed }, place) => {
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          binary.reset();
          const x = binary.f32<"a">(normal(outer * channels * inner, seed), lead);
          const parts = [whole(outer, channels, inner)];
          const clean = momentsOf(run(x, channels, parts), outer * inner);
          const at = place % x.array.length;
          x.array[at] = bad;
          const { mean, variance } = momentsOf(run(x, channels, parts), outer * inner);
          const own = Math.floor(at / inner) % channels;
          expect(Number.isFinite(mean[own]) && Number.isFinite(variance[own])).toBe(false);
          mean[own] = clean.mean[own]!;
          variance[own] = clean.variance[own]!;
          assertSameBits("mean", mean, clean.mean);
          assertSameBits("variance", variance, clean.variance);
        }
      }),
      60,
    );
  });
});
