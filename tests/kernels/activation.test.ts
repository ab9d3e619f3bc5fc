// A residual and an activation by themselves: the kernels of assembly/affine.ts with them, whose every operation rounds
// once, and those of assembly/activation.ts, which let dy pass where the value is strictly within the limits.

import fc from "fast-check";
import { describe, test } from "vitest";
import type { Exports } from "../../src/engine/machine.js";
import { type At, NOWHERE } from "../../src/engine/memory.js";
import { Binary, inPlaceOf, SCRATCH } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { anyBits, normal } from "../support/data.js";
import { check } from "../support/property.js";

const { fround } = Math;
const binary = new Binary();
/**
 * The binary of `batchnorm-wasm/infer`, whose two elementwise kernels are its own. Its rows lie one after the other, y is
 * never the residual, and up to three values behind y are written.
 */
const small = new Binary(["infer"]);

type Values = Record<"center" | "scale" | "shift", Float32Array>;
type Limits = readonly [low: number, high: number];

/** What a test computes with. */
interface Case {
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly add: Float32Array | null;
  readonly values: Values;
  readonly limits: Limits;
  readonly leads: readonly number[];
}

const cases = (length: number, channels: number) =>
  fc
    .record({
      seed: seeds,
      any: fc.boolean(),
      added: fc.boolean(),
      limits: fc.constantFrom<Limits>(
        ...([
          [0, Infinity],
          [0, 6],
          [-0.5, 0.75],
          [-Infinity, 0.25],
          [-Infinity, Infinity],
        ] as const),
      ),
      leads: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 4, maxLength: 4 }),
    })
    .map(({ seed, any, added, limits, leads }): Case => {
      const of = any ? anyBits : normal;
      const values = {
        center: of(channels, seed + 1),
        scale: of(channels, seed + 2),
        shift: of(channels, seed + 3),
      };
      const [x, dy] = [of(length, seed), of(length, seed + 4)];
      return { x, dy, add: added ? of(length, seed + 5) : null, values, limits, leads };
    });

/** The value that the activation limits. */
function valueAt({ x, add, values: { center, scale, shift } }: Case, i: number, c: number): number {
  const v = fround(fround(fround(x[i]! - center[c]!) * scale[c]!) + shift[c]!);
  return add === null ? v : fround(v + add[i]!);
}

type Active = (
  kernels: Exports,
  y: At<"out">,
  x: At<"a">,
  add: At<"b">,
  terms: At<"terms">,
  low: number,
  high: number,
) => void;

/** Runs an elementwise kernel, with y in a place of its own, over x, or over the residual. */
function compareActive(
  binary: Binary,
  case_: Case,
  channelOf: (i: number) => number,
  kernel: Active,
): void {
  const { x: from, add: residual, values, leads } = case_;
  const [low, high] = case_.limits;
  const reach = (over: Float32Array): Float32Array =>
    over.map((old, i) => {
      const c = channelOf(i);
      if (c < 0) return old; // What no column owns keeps the value it had.
      const v = valueAt(case_, i, c);
      return v < low ? low : v > high ? high : v;
    });
  for (const over of residual === null || binary === small ? ["", "x"] : ["", "x", "add"]) {
    binary.reset();
    const terms = binary.terms(values.center.length, values);
    const x = binary.f32<"a">(from, leads[0]);
    const add = residual && binary.f32<"b">(residual, leads[1]);
    const y =
      over === "x"
        ? inPlaceOf(x)
        : over === "add"
          ? inPlaceOf(add!)
          : binary.f32<"out">(from, leads[2]);
    binary.call([[y, binary === small ? -y.array.length & 3 : 0]], (kernels) =>
      kernel(kernels, y.at, x.at, add?.at ?? NOWHERE, terms.at, low, high),
    );
    assertSameBits("y", y.array, reach(over === "add" ? residual! : from));
  }
}

type Gate = (
  kernels: Exports,
  g: At<"out">,
  dy: At<"a">,
  x: At<"b">,
  add: At<"c">,
  terms: At<"terms">,
  low: number,
  high: number,
) => void;

/** Runs a kernel that gates dy, into a place of its own, over dy, or over the residual. */
function compareGate(case_: Case, channelOf: (i: number) => number, kernel: Gate): void {
  const { x: by, dy: from, add: residual, values, leads } = case_;
  const [low, high] = case_.limits;
  const reach = (over: Float32Array): Float32Array =>
    over.map((old, i) => {
      const c = channelOf(i);
      if (c < 0) return old;
      const v = valueAt(case_, i, c);
      return low < v && v < high ? from[i]! : 0;
    });
  for (const over of residual === null ? ["", "dy"] : ["", "dy", "add"]) {
    binary.reset();
    const terms = binary.terms(values.center.length, values);
    const dy = binary.f32<"a">(from, leads[0]);
    const x = binary.f32<"b">(by, leads[1]);
    const add = residual && binary.f32<"c">(residual, leads[2]);
    const g =
      over === "dy"
        ? inPlaceOf(dy)
        : over === "add"
          ? inPlaceOf(add!)
          : binary.f32<"out">(from, leads[3]);
    binary.call([[g]], (kernels) =>
      kernel(kernels, g.at, dy.at, x.at, add?.at ?? NOWHERE, terms.at, low, high),
    );
    assertSameBits("g", g.array, reach(over === "add" ? residual! : from));
  }
}

const rows = fc.record({
  rows: fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 20 }) },
    { weight: 1, arbitrary: fc.integer({ min: 60, max: 100 }) },
  ),
  width: fc.oneof(
    { weight: 9, arbitrary: fc.integer({ min: 1, max: 70 }) },
    { weight: 1, arbitrary: fc.constantFrom(100, 255, 256, 257, 1024) },
  ),
  gap: fc.integer({ min: 0, max: 9 }),
});

/** Rows of data, and what says which column a value is of. */
const inRows = rows.chain(({ rows, width, gap }) => {
  const pitch = width + gap;
  const channelOf = (i: number): number => (i % pitch < width ? i % pitch : -1);
  return cases(rows * pitch, width).map((case_) => ({ case_, channelOf, rows, width, pitch }));
});

const inDenseRows = rows.chain(({ rows, width }) =>
  cases(rows * width, width).map((case_) => {
    const channelOf = (i: number): number => i % width;
    return { case_, channelOf, rows, width, pitch: width };
  }),
);

const inPlanes = fc
  .record({
    channels: fc.integer({ min: 1, max: 9 }),
    planes: fc.integer({ min: 1, max: 30 }),
    inner: fc.integer({ min: 1, max: 150 }),
    start: fc.nat(),
  })
  .chain(({ channels, planes, inner, start }) => {
    const first = start % channels;
    const channelOf = (i: number): number => (first + Math.floor(i / inner)) % channels;
    return cases(planes * inner, channels).map((case_) => ({
      case_,
      channelOf,
      first,
      planes,
      channels,
      inner,
    }));
  });

describe.each([
  ["affineStrips", binary, "affineStrips", inRows],
  ["affineSweep", binary, "affineSweep", inRows],
  ["affineStrips of the smallest binary", small, "affineStrips", inDenseRows],
] as const)("%s", (_, of, name, data) => {
  test("every column of every row, and nothing else, any stride and address", () => {
    check(
      fc.property(data, ({ case_, channelOf, rows, width, pitch }) =>
        compareActive(of, case_, channelOf, (run, y, x, add, terms, low, high) =>
          run[name](y, x, add, terms, low, high, rows, width, pitch * 4),
        ),
      ),
      200,
    );
  });
});

test.each([
  ["affinePlanes", binary],
  ["affinePlanes of the smallest binary", small],
] as const)("%s: every plane with its channel's terms, from any channel on", (_, of) => {
  check(
    fc.property(inPlanes, ({ case_, channelOf, first, planes, channels, inner }) =>
      compareActive(of, case_, channelOf, (run, y, x, add, terms, low, high) =>
        run.affinePlanes(y, x, add, terms, low, high, first, planes, channels, inner),
      ),
    ),
    200,
  );
});

test("gateRows: every column of every row, and nothing else, any stride and address", () => {
  check(
    fc.property(inRows, ({ case_, channelOf, rows, width, pitch }) =>
      compareGate(case_, channelOf, (run, g, dy, x, add, terms, low, high) =>
        run.gateRows(g, dy, x, add, terms, low, high, rows, width, pitch * 4),
      ),
    ),
    200,
  );
});

test("gradientSumsRows with limits: the bits of gateRows, and then of the sums without limits", () => {
  check(
    fc.property(inRows, fc.constantFrom("", "dy", "add"), ({ case_, rows, width, pitch }, over) => {
      const { x: by, dy: from, add: residual, values, limits, leads } = case_;
      const [low, high] = limits;
      const stride = pitch * 4;
      // Count 0 overwrites what the sums held, and others add to it.
      for (const count of [0, 64]) {
        const [together, apart] = [true, false].map((isTogether) => {
          binary.reset();
          const terms = binary.terms(width, values).at;
          const [dy, x] = [binary.f32<"a">(from, leads[0]), binary.f32<"b">(by, leads[1])];
          const add = residual && binary.f32<"c">(residual, leads[2]);
          const apart = binary.f32<"out">(from, leads[3]);
          const g = over === "dy" ? inPlaceOf(dy) : over === "add" && add ? inPlaceOf(add) : apart;
          const [s, p] = [binary.f64<"sumDy">(width), binary.f64<"sumDyX">(width)];
          const scratch = binary.f32<"scratch">(SCRATCH);
          s.array.fill(0.75);
          p.array.fill(0.75);
          const padding = -width & 3;
          const at = add?.at ?? NOWHERE;
          binary.call([[g], [s, padding], [p, padding], [scratch]], (run) => {
            // With limits, or of what has been gated before.
            const sumsOf = (from: At<"a">, low: number, high: number): void =>
              run.gradientSumsRows(
                ...([s.at, p.at, scratch.at, g.at, from, x.at, at, terms, low, high] as const),
                ...([count, rows, width, stride, width] as const),
              );
            if (isTogether) return sumsOf(dy.at, low, high);
            run.gateRows(g.at, dy.at, x.at, at, terms, low, high, rows, width, stride);
            sumsOf(g.at as number as At<"a">, NaN, NaN);
          });
          return { g: g.array.slice(), s: s.array.slice(), p: p.array.slice() };
        });
        assertSameBits("g", together!.g, apart!.g);
        assertSameBits("Σg", together!.s, apart!.s);
        assertSameBits("Σg·(x - center)", together!.p, apart!.p);
      }
    }),
    200,
  );
});

const bitsOf = (value: number): number => new Uint32Array(Float32Array.of(value).buffer)[0]!;

/** float32 values that limits may take for one another: the limits, both of their neighbours, and those where signs change. */
function near(limits: Limits): Float32Array {
  const bits = [...limits, 0, -0, Infinity, -Infinity, NaN, 1].flatMap((value) =>
    [-1, 0, 1].flatMap((step) => [bitsOf(value) + step, (bitsOf(value) + step) ^ 0x80000000]),
  );
  return new Float32Array(Uint32Array.from(bits).buffer);
}

test.each<Limits>([
  [0, Infinity],
  [-0, Infinity],
  [0, 6],
  [-0, 6],
  [0, 2 ** -149],
  [2 ** -149, 2 ** -126],
  [1, 1 + 2 ** -23],
  [1, Infinity],
  [2 ** 127, Infinity],
  [-1, 1],
  [-1, 0],
  [-1, -0],
  [-Infinity, -1],
  [-Infinity, Infinity],
])("gradientSumsRows, from %s to %s: values at the limits, NaN, and both zeros", (low, high) => {
  const values = near([low, high]);
  const rows = 4;
  const width = Math.ceil(values.length / 4) * 4;
  // Of x = v, the value is v: (v - 0)·1 + (-0) has its bits, unless it is NaN.
  const x = Float32Array.from({ length: rows * width }, (_, i) => values[i % values.length]!);
  const terms = { center: 0, scale: 1, shift: -0 };
  const termOf = (name: keyof typeof terms) => new Float32Array(width).fill(terms[name]);
  const filled = { center: termOf("center"), scale: termOf("scale"), shift: termOf("shift") };
  const dy = normal(rows * width, 1);
  binary.reset();
  const at = binary.terms(width, filled).at;
  const [a, b, g] = [binary.f32<"a">(dy), binary.f32<"b">(x), binary.f32<"out">(dy)];
  const [s, p] = [binary.f64<"sumDy">(width), binary.f64<"sumDyX">(width)];
  const scratch = binary.f32<"scratch">(SCRATCH);
  binary.call([[g], [s], [p], [scratch]], (run) =>
    run.gradientSumsRows(
      ...([s.at, p.at, scratch.at, g.at, a.at, b.at, NOWHERE, at, low, high] as const),
      ...([0, rows, width, width * 4, width] as const),
    ),
  );
  const gated = dy.map((value, i) => (low < x[i]! && x[i]! < high ? value : 0));
  assertSameBits("g", g.array, gated);
});

test("gatePlanes: every plane with its channel's terms, from any channel on", () => {
  check(
    fc.property(inPlanes, ({ case_, channelOf, first, planes, channels, inner }) =>
      compareGate(case_, channelOf, (run, g, dy, x, add, terms, low, high) =>
        run.gatePlanes(g, dy, x, add, terms, low, high, first, planes, channels, inner),
      ),
    ),
    200,
  );
});
