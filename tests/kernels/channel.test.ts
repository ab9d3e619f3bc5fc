// assembly/channel.ts by itself, against the same formulas in JavaScript's float64.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NOWHERE } from "../../src/engine/memory.js";
import { Binary, type Slot, type Writes } from "../support/binary.js";
import { seeds } from "../support/cases.js";
import { assertSameBits, assertWithin } from "../support/compare.js";
import { normal, normals } from "../support/data.js";
import { indices, moments, sum, type View } from "../support/oracle.js";
import { check } from "../support/property.js";

const { abs, fround, sqrt } = Math;
const binary = new Binary();

/** Float64 results may differ by the order of a few operations: 16 of them at 2^-53. */
const FEW = 2e-15;
/** Rounded to float32 on top of that. */
const FLOAT32 = 2 ** -24 + FEW;

const doubles = (length: number, seed: number, mean = 0, sigma = 1): Float64Array => {
  const next = normals(seed);
  return Float64Array.from({ length }, () => mean + sigma * next());
};

const variances = (length: number, seed: number): Float64Array =>
  doubles(length, seed).map((z) => Math.exp(z));

const sizes = fc.integer({ min: 1, max: 70 });

/** Arrays per channel: kernels write them in pairs, so that one value may lie behind an odd number. */
const inPairs = (...slots: Slot<Float32Array | Float64Array>[]): Writes[] =>
  slots.map((slot) => [slot, slot.array.length & 1]);

/** The state of columns that hold `count` values each, as moments.ts leaves it. */
function stateOf(x: Float32Array, columns: number, count: number) {
  const { mean, variance } = moments(x, { outer: count, channels: columns, inner: 1 });
  const base = Float32Array.from(mean, (m, c) => m + 0.1 * Math.sin(c));
  return {
    base: binary.f32<"base">(base),
    offset: binary.f64<"offset">(mean.map((m, c) => m - base[c]!)),
    m2: binary.f64<"m2">(variance.map((v) => v * count)),
  };
}

type State = ReturnType<typeof stateOf>;

/** The first `channels` of a state are the moments of x. */
function assertPooled({ base, offset, m2 }: State, x: Float32Array, view: View): void {
  const expected = moments(x, view);
  const count = view.outer * view.inner;
  const mean = expected.mean.map((_, c) => base.array[c]! + offset.array[c]!);
  // State comes from float64 means of magnitude 100: their own ulp is 1e-14.
  assertWithin("mean", mean, expected.mean, () => 1e-12);
  const pooled = m2.array.slice(0, view.channels);
  assertWithin(
    "m2",
    pooled,
    expected.variance.map((v) => v * count),
    (c) => 1e-12 * pooled[c]!,
  );
}

describe("pooling", () => {
  // Columns of one channel lie `channels` apart in the first case, and side by side in the second.
  test.each([
    ["rows taken several at once", false],
    ["narrow planes", true],
  ])("mergeMoments pools the columns of %s", (_, planes) => {
    check(
      fc.property(
        sizes,
        fc.integer({ min: 1, max: 17 }),
        fc.integer({ min: 1, max: 12 }),
        seeds,
        (channels, repeats, rows, seed) => {
          binary.reset();
          const columns = channels * repeats;
          const x = normal(rows * columns, seed, 100);
          const state = stateOf(x, columns, rows);
          const { base, offset, m2 } = state;
          const [first, next] = planes ? [repeats, 1] : [1, channels];
          binary.call([...(planes ? [[base] as const] : []), [offset], [m2]], (run) => {
            run.mergeMoments(base.at, offset.at, m2.at, rows, channels, first, repeats, next);
          });
          const view = planes
            ? { outer: rows, channels, inner: repeats }
            : { outer: rows * repeats, channels, inner: 1 };
          assertPooled(state, x, view);
        },
      ),
      100,
    );
  });

  test("mergeSums adds the same columns", () => {
    check(
      fc.property(sizes, fc.integer({ min: 1, max: 17 }), seeds, (n, times, seed) => {
        for (const neighbours of [false, true]) {
          binary.reset();
          const values = doubles(n * times, seed);
          const view = neighbours
            ? { outer: 1, channels: n, inner: times }
            : { outer: times, channels: n, inner: 1 };
          const slot = binary.f64<"sumDy">(values);
          binary.call([[slot]], (run) =>
            neighbours
              ? run.mergeSums(slot.at, n, times, times, 1)
              : run.mergeSums(slot.at, n, 1, times, n),
          );
          for (let c = 0; c < n; c++) {
            const own = indices(view, c).map((i) => values[i]!);
            expect(abs(slot.array[c]! - sum(own))).toBeLessThan(FEW * sum(own.map(abs)) + 1e-300);
          }
        }
      }),
      100,
    );
  });
});

test("spread lays parameters out per column", () => {
  check(
    fc.property(
      sizes,
      fc.integer({ min: 1, max: 17 }),
      fc.integer({ min: 1, max: 9 }),
      seeds,
      (channels, inner, repeats, seed) => {
        binary.reset();
        const values = normal(channels, seed);
        const parameter = binary.f32<"channel">(values);
        const columns = binary.f32<"column">(channels * inner * repeats);
        binary.call([[columns]], (run) =>
          run.spread(columns.at, parameter.at, channels, inner, repeats),
        );
        const expected = columns.array.map((_, i) => values[Math.floor(i / inner) % channels]!);
        assertSameBits("columns", columns.array, expected);
      },
    ),
    100,
  );
});

test("finishMoments: mean + meanLow = base + offset, variance = m2/count", () => {
  check(
    fc.property(sizes, fc.integer({ min: 1, max: 1e9 }), seeds, (n, count, seed) => {
      binary.reset();
      const base = binary.f32<"base">(normal(n, seed, 1e4).map((v, c) => (c % 3 ? v : v / 1e8)));
      const offset = binary.f64<"offset">(doubles(n, seed + 1));
      const m2 = binary.f64<"m2">(variances(n, seed + 2));
      const mean = binary.f64<"mean">(n);
      const low = binary.f64<"meanLow">(n);
      const variance = binary.f64<"variance">(n);
      binary.call(inPairs(mean, low, variance), (run) =>
        run.finishMoments(mean.at, low.at, variance.at, base.at, offset.at, m2.at, count, n),
      );
      for (let c = 0; c < n; c++) {
        const [b, o] = [base.array[c]!, offset.array[c]!];
        expect(mean.array[c]).toBe(b + o);
        // Exact from the larger one (Dekker 1971).
        const lost = abs(b) > abs(o) ? o - (b + o - b) : b - (b + o - o);
        expect(low.array[c]).toBe(lost);
        expect(variance.array[c]).toBe(m2.array[c]! / count);
      }
    }),
    100,
  );
});

test("finishMoments and scaleShift find the first variance that is negative or not finite", () => {
  const valid = [0, -0, 1, 1e300, 5e-324];
  const invalid = [-1e-300, -1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  check(
    fc.property(
      fc.array(fc.constantFrom(...valid, ...valid, ...valid, ...invalid), {
        minLength: 1,
        maxLength: 70,
      }),
      fc.constantFrom(0, ...invalid),
      (values, behind) => {
        binary.reset();
        const n = values.length;
        const first = values.findIndex((v) => !valid.includes(v));
        const expected = first < 0 ? n : first;
        // What lies behind the last channel is none of them.
        const m2 = binary.f64<"m2">([...values, behind]);
        const base = binary.f32<"base">(n + 1);
        const offset = binary.f64<"offset">(n + 1);
        const mean = binary.f64<"mean">(n + 1);
        const low = binary.f64<"meanLow">(n + 1);
        const variance = binary.f64<"variance">(n + 1);
        const finished = binary.call([[mean], [low], [variance]], (run) =>
          run.finishMoments(mean.at, low.at, variance.at, base.at, offset.at, m2.at, 1, n),
        );
        expect(finished).toBe(expected);
        const given = binary.f64<"variance">([...values, behind]);
        const { at, center, scale, shift } = binary.terms(n + 1);
        const scaled = binary.call([[center], [scale], [shift]], (run) =>
          run.scaleShift(at, mean.at, NOWHERE, given.at, NOWHERE, NOWHERE, 1e-5, n),
        );
        expect(scaled).toBe(expected);
      },
    ),
    200,
  );
});

test("moveRunning: v += w·(new - v), the variance times Bessel's correction", () => {
  check(
    fc.property(
      sizes,
      fc.constantFrom(1, 0.5, 0.1, 0.01, 1 / 3, 1e-9),
      fc.constantFrom(1, 2, 64 / 63),
      seeds,
      (n, weight, bessel, seed) => {
        binary.reset();
        const runningMean = doubles(n, seed);
        const runningVariance = variances(n, seed + 1);
        const means = doubles(n, seed + 2);
        const batch = variances(n, seed + 3);
        const m = binary.f64<"runningMean">(runningMean);
        const v = binary.f64<"runningVariance">(runningVariance);
        const [mean, variance] = [binary.f64<"mean">(means), binary.f64<"variance">(batch)];
        binary.call(inPairs(m, v), (run) =>
          run.moveRunning(m.at, v.at, mean.at, variance.at, weight, bessel, n),
        );
        const moved = (old: number, value: number): number =>
          weight === 1 ? value : old + weight * (value - old);
        for (let c = 0; c < n; c++) {
          expect(m.array[c]).toBe(moved(runningMean[c]!, means[c]!));
          expect(v.array[c]).toBe(moved(runningVariance[c]!, batch[c]! * bessel));
        }
      },
    ),
    100,
  );
});

test("moveRunning at weight 1 leaves nothing of the old value, however large", () => {
  binary.reset();
  const m = binary.f64<"runningMean">([1e300, -1]);
  const v = binary.f64<"runningVariance">([1, 1e300]);
  const mean = binary.f64<"mean">([1e-30, 3e-200]);
  const variance = binary.f64<"variance">([1e-30, 3e-200]);
  binary.call([[m], [v]], (run) => run.moveRunning(m.at, v.at, mean.at, variance.at, 1, 1, 2));
  expect([...m.array, ...v.array]).toEqual([1e-30, 3e-200, 1e-30, 3e-200]);
});

test("roundMeans: the mean as float32", () => {
  check(
    fc.property(sizes, seeds, (n, seed) => {
      binary.reset();
      const values = doubles(n, seed, 1e4, 1e3);
      const mean = binary.f64<"mean">(values);
      const { at, center } = binary.terms(n);
      binary.call(inPairs(center), (run) => run.roundMeans(at, mean.at, n));
      assertSameBits("center", center.array, Float32Array.from(values));
    }),
    50,
  );
});

test("scaleShift: (x - center)·scale + shift is γ·(x - mean)/√(σ²+ε) + β", () => {
  check(
    fc.property(
      sizes,
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom(0, 1e-5, 1),
      seeds,
      (n, withGamma, withBeta, epsilon, seed) => {
        binary.reset();
        const mean = binary.f64<"mean">(doubles(n, seed, 1e4, 1e3));
        const variance = binary.f64<"variance">(variances(n, seed + 1));
        const gamma = withGamma ? binary.f32<"gamma">(normal(n, seed + 2)) : null;
        const beta = withBeta ? binary.f32<"beta">(normal(n, seed + 3)) : null;
        const low = withBeta ? binary.f64<"meanLow">(doubles(n, seed + 4)) : null;
        const { at, center, scale, shift } = binary.terms(n);
        binary.call(inPairs(center, scale, shift), (run) =>
          run.scaleShift(
            at,
            mean.at,
            low?.at ?? NOWHERE,
            variance.at,
            gamma?.at ?? NOWHERE,
            beta?.at ?? NOWHERE,
            epsilon,
            n,
          ),
        );
        for (let c = 0; c < n; c++) {
          const m = mean.array[c]!;
          const s = (gamma?.array[c] ?? 1) / sqrt(variance.array[c]! + epsilon);
          const rest = (m - fround(m) + (low?.array[c] ?? 0)) * s;
          const b = beta?.array[c] ?? 0;
          expect(center.array[c]).toBe(fround(m));
          expect(abs(scale.array[c]! - s)).toBeLessThanOrEqual(FLOAT32 * abs(s));
          const bound = FLOAT32 * (abs(b) + abs(rest));
          expect(abs(shift.array[c]! - (b - rest))).toBeLessThanOrEqual(bound);
        }
      },
    ),
    100,
  );
});

test("scaleShift without any spread: scale 0, shift β", () => {
  binary.reset();
  const mean = binary.f64<"mean">([0.1, 1e30, -7]);
  const variance = binary.f64<"variance">([0, 0, 0]);
  const [gamma, beta] = [binary.f32<"gamma">([1, 2, 3]), binary.f32<"beta">([5, 6, 7])];
  const { at, center, scale, shift } = binary.terms(3);
  binary.call(inPairs(center, scale, shift), (run) =>
    run.scaleShift(at, mean.at, NOWHERE, variance.at, gamma.at, beta.at, 0, 3),
  );
  expect([...scale.array]).toEqual([0, 0, 0]);
  expect([...shift.array]).toEqual([5, 6, 7]);
});

test("gradientTerms: dgamma, dbeta and the terms of dx, of a batch and frozen", () => {
  check(
    fc.property(
      sizes,
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom(0, 1e-5, 1),
      seeds,
      (n, withGamma, frozen, epsilon, seed) => {
        binary.reset();
        const sumDy = binary.f64<"sumDy">(doubles(n, seed));
        const sumDyX = binary.f64<"sumDyX">(doubles(n, seed + 1));
        const mean = binary.f64<"mean">(doubles(n, seed + 2, 1e4, 1e3));
        const variance = binary.f64<"variance">(variances(n, seed + 3));
        const gamma = withGamma ? binary.f32<"gamma">(normal(n, seed + 4)) : null;
        const [dgamma, dbeta] = [binary.f32<"dgamma">(n), binary.f32<"dbeta">(n)];
        // The centers are guard values here: they are neither read nor written.
        const { at, scale, shift, slope } = binary.terms(n);
        const each = frozen ? 0 : 1 / 37;
        binary.call(inPairs(scale, shift, slope, dgamma, dbeta), (run) =>
          run.gradientTerms(
            at,
            dgamma.at,
            dbeta.at,
            sumDy.at,
            sumDyX.at,
            mean.at,
            variance.at,
            gamma?.at ?? NOWHERE,
            epsilon,
            each,
            n,
          ),
        );
        for (let c = 0; c < n; c++) {
          const m = mean.array[c]!;
          const s = sumDy.array[c]!;
          const inverse = 1 / sqrt(variance.array[c]! + epsilon);
          // Sums were taken about float32(mean).
          const rest = m - fround(m);
          const p = sumDyX.array[c]! - rest * s;
          const factor = (gamma?.array[c] ?? 1) * inverse;
          const magnitude = abs(sumDyX.array[c]!) + abs(rest * s);
          const near = (actual: number, expected: number, size: number): void =>
            expect(abs(actual - expected)).toBeLessThanOrEqual(FLOAT32 * size);
          near(scale.array[c]!, factor, abs(factor));
          near(slope.array[c]!, p * inverse ** 2 * each, magnitude * inverse ** 2 * each);
          near(dgamma.array[c]!, p * inverse, magnitude * inverse);
          near(dbeta.array[c]!, s, abs(s));
          // Both together: shift + (x - center)·slope is what the gradient loses, here at x = mean.
          const lost = shift.array[c]! + rest * slope.array[c]!;
          near(lost, s * each, abs(s * each) + abs(rest * slope.array[c]!));
        }
      },
    ),
    100,
  );
});
