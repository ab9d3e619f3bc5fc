// How far from float64 results may be (tests/support/limits.ts): for means far above the deviations,
// deviations of any size, outliers, sorted and alternating data, large gamma and beta.

import { readFileSync } from "node:fs";
import { adapt, BatchNorm } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { layerOf, nameOf, type Shaped, seeds, sizeOf, viewOf } from "./support/cases.js";
import { distributed, KINDS, normal, random } from "./support/data.js";
import {
  DBETA_ERROR,
  DGAMMA_ERROR,
  DX_ERROR,
  dxBound,
  dxFarError,
  MEAN_ERROR,
  MEAN_ROUNDING,
  POOLING_ERROR,
  VARIANCE_ERROR,
  Y_BOUND,
  Y_ERROR,
  Y_INFER_BOUND,
  Y_OFFSET_ERROR,
  Y_OFFSET_SHARE,
} from "./support/limits.js";
import * as oracle from "./support/oracle.js";
import { checkBackward, checkInfer, checkTrain } from "./support/passes.js";
import { check } from "./support/property.js";

const WALKS: readonly Shaped[] = [
  { layout: "NC", shape: [67, 33] }, // rows
  { layout: "NC", shape: [1003, 3] }, // rows, several at once
  { layout: "NC", shape: [3, 1030] }, // rows wider than the parameter arrays
  { layout: "NCL", shape: [201, 3, 5] }, // narrow planes, taken as rows
  { layout: "NCL", shape: [5, 3, 37] }, // planes
  { layout: "NCHW", shape: [1, 1, 67, 71] }, // planes of more than a block
  { layout: "NHWC", shape: [3, 9, 11, 7] },
];

const RATIOS = [0, 1, 100, 1e4, 1e6];
const SIGMAS = [1e-15, 1e-6, 1, 1e15];

/** train, backward and infer on x, each compared with float64. */
function checkAll(
  shaped: Shaped,
  x: Float32Array,
  { epsilon = 0, gamma = 1, beta = 1, outliers = false },
): void {
  const layer = layerOf(shaped, { epsilon });
  layer.gamma!.forEach((g, c, all) => {
    all[c] = gamma * g;
  });
  layer.beta!.forEach((b, c, all) => {
    all[c] = beta * b;
  });
  const y = checkTrain(layer, shaped, x);
  checkBackward(layer, shaped, normal(x.length, 8, 0.5), { outliers });
  // A dy along y: what goes through the variance is not small beside dy.
  checkBackward(layer, shaped, y.slice(), { outliers });
  const { mean, variance } = oracle.moments(x, viewOf(shaped));
  layer.runningMean.set(mean);
  layer.runningVariance.set(variance);
  checkInfer(layer, shaped, x);
}

describe.each(WALKS.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
  test.each(RATIOS)("|mean| = %d sigma, sigma from 1e-15 to 1e15", (ratio) => {
    for (const [k, kind] of KINDS.entries()) {
      for (const sigma of SIGMAS) {
        const x = distributed(kind, viewOf(shaped), ratio * sigma, sigma, 10 * k + 1);
        const outliers = kind === "outliers";
        checkAll(shaped, x, { epsilon: 0, outliers });
        if (sigma === 1) checkAll(shaped, x, { epsilon: 1e-5, outliers });
      }
    }
  });

  // A mean in float64 is off by up to 1.1e-16 of itself: with |mean| = ratio·sigma, y by
  // 1.1e-16·ratio·gamma, of which the bound has room while ratio·gamma is below 1e9.
  test.each([
    [100, 1, 1e6],
    [1e4, 100, 1e4],
    [1e6, 0, 100],
    [100, 100, 1e6],
    [1, 1e6, 100],
    [1e-6, 1e6, 1e4],
    [0, 1, 1e6],
  ])("gamma near %d, beta near %d, |mean| = %d sigma", (gamma, beta, ratio) => {
    for (const kind of ["normal", "sorted", "alternating"] as const) {
      const x = distributed(kind, viewOf(shaped), ratio, 1, 3);
      checkAll(shaped, x, { gamma, beta });
    }
  });
});

describe("many values per channel", () => {
  test.each<Shaped>([
    { layout: "NC", shape: [200_001, 1] },
    { layout: "NCL", shape: [1, 1, 200_001] },
    { layout: "NCL", shape: [40_000, 1, 5] },
    { layout: "NC", shape: [3000, 70] },
  ])("$layout $shape", (shaped) => {
    for (const [kind, ratio] of [
      ["sorted", 1e6],
      ["alternating", 1e4],
    ] as const) {
      const x = distributed(kind, viewOf(shaped), ratio, 1, 4);
      const layer = layerOf(shaped, { epsilon: 0 });
      checkTrain(layer, shaped, x);
      checkBackward(layer, shaped, normal(x.length, 8, 0.5));
    }
  });
});

describe("any float32 numbers up to 1e15", () => {
  const float = fc.oneof(
    fc.float({ min: Math.fround(-1e15), max: Math.fround(1e15), noNaN: true }),
    fc.float({ min: -8, max: 8, noNaN: true }),
    fc.constantFrom(0, 1, 1.0000001192092896, 16777216, 1e6, -1e6),
  );

  test.each(["NC", "NCL"] as const)("of one to three channels, %s", (layout) => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 2, max: 40 }),
        fc.array(float, { minLength: 120, maxLength: 120 }),
        fc.constantFrom(0, 1e-5),
        (channels, count, values, epsilon) => {
          const shape = layout === "NC" ? [count, channels] : [1, channels, count];
          const shaped = { layout, shape };
          const x = Float32Array.from(values.slice(0, channels * count));
          const { variance } = oracle.moments(x, viewOf(shaped));
          // Beyond what is promised: squares below the smallest float32.
          fc.pre(variance.every((v) => v === 0 || v >= 1e-30));
          checkAll(shaped, x, { epsilon, outliers: true });
        },
      ),
      150,
    );
  });

  test("one value far from many, wherever it stands", () => {
    check(
      fc.property(
        fc.integer({ min: 2, max: 300 }),
        fc.nat(),
        fc.constantFrom(1e3, -1e6, 1e10, 1e15),
        fc.boolean(),
        seeds,
        (count, place, far, planes, seed) => {
          const shaped: Shaped = planes
            ? { layout: "NCL", shape: [1, 1, count] }
            : { layout: "NC", shape: [count, 1] };
          const x = normal(count, seed);
          x[place % count] = far;
          checkAll(shaped, x, { outliers: true });
        },
      ),
      150,
    );
  });
});

test("statistics that overflow are refused, those just below are right", () => {
  for (const shaped of WALKS) {
    const next = random(3);
    const large = (size: number) =>
      Float32Array.from({ length: sizeOf(shaped) }, () => size * (next() - 0.5));
    const layer = layerOf(shaped);
    expect(() => layer.train(large(3e38), { shape: shaped.shape })).toThrow("overflow");
    expect(layer.batchesSeen).toBe(0);
    checkTrain(layer, shaped, large(1e17));
  }
});

describe("data that rounding once went wrong on", () => {
  test.each([1.0230655670166016, 1.0196881294250488, 1.4818016290664673])(
    "one value of %f·1024 against zeros: y, variance, dx",
    (factor) => {
      const [m, channels, v] = [128, 64, factor * 1024];
      const bn = new BatchNorm(channels);
      const [gamma, beta] = [1.6797610521316528, 13.110173225402832];
      bn.gamma!.fill(gamma);
      bn.beta!.fill(beta);
      const x = Float32Array.from({ length: m * channels }, (_, i) => (i < channels ? v : 0));
      const y = bn.train(x);
      const variance = (v * v * (m - 1)) / m / m;
      const root = Math.sqrt(variance + bn.epsilon);
      const scaled = (gamma * (v - v / m)) / root;
      expect(Math.abs(y[0]! - scaled - beta)).toBeLessThan(Y_ERROR * Math.max(scaled, beta));
      expect(Math.abs(bn.lastBatch!.variance[0]! / variance - 1)).toBeLessThan(6e-7);
      // dy is linear in x: only epsilon keeps dx from being 0.
      const { dx } = bn.backward(x.map((value) => (value > 0 ? 1 : -1)));
      const mean = (2 - m) / m;
      const slope = ((v - v / m + ((m - 1) * v) / m) / m / root) * ((v - v / m) / root);
      const wanted = (gamma / root) * (1 - mean - slope);
      // max|x̂|·mean|x̂| of one value against equal ones is below 2.
      expect(Math.abs(dx[0]! - wanted)).toBeLessThan((dxFarError(2) * gamma) / root);
    },
  );

  test.each([
    // [m, channels, the value of few rows, which, that of the others, dy, gamma]
    [
      128,
      64,
      12.322617530822754,
      (i: number) => i % 32 === 1,
      -0.012226687744259834,
      [1.4200143814086914, -1.4200143814086914],
      -1.1562864780426025,
    ],
    [
      64,
      1,
      2.9661309719085693,
      (i: number) => i < 2,
      0,
      [1.5604602098464966, -1.4088940620422363],
      0.9381790161132812,
    ],
  ] as const)(
    "rows, %i by %i, a few equal values against others: dx",
    (m, channels, few, isFew, rest, slopes, gamma) => {
      const bn = new BatchNorm(channels, { epsilon: 0 });
      bn.gamma!.fill(gamma);
      const at = (i: number): boolean => isFew(Math.floor(i / channels));
      const x = Float32Array.from({ length: m * channels }, (_, i) => (at(i) ? few : rest));
      bn.train(x);
      const { dx } = bn.backward(x.map((_, i) => (at(i) ? slopes[0] : slopes[1])));
      // dy is linear in x: dx is 0.
      const share = Array.from({ length: m }, (_, i) => isFew(i)).filter(Boolean).length / m;
      const root = (few - rest) * Math.sqrt(share * (1 - share));
      const bound = (DX_ERROR * Math.abs(gamma) * Math.max(...slopes.map(Math.abs))) / root;
      for (const value of dx) expect(Math.abs(value)).toBeLessThan(bound);
    },
  );

  // Found by climbing: one class of values few and far from two others, dy nearly linear in x, so that dx
  // at the few is what roundings leave. None that was found is above 1.11e-6.
  test.each([
    [
      "NCL",
      1,
      512,
      1e-5,
      1.192009687423706,
      [0.033175695687532425, 65.38097381591797, -0.8288294076919556],
      1.1433939933776855,
      [256, 384],
      [102, 491],
    ],
    [
      "NC",
      128,
      1024,
      1e-5,
      0.6192705035209656,
      [-0.2235485464334488, 1.8006861209869385, -0.3170885741710663],
      1.039218783378601,
      [58, 314, 570, 826, 988],
      [573, 755],
    ],
    [
      "NC",
      64,
      128,
      0,
      1.212072491645813,
      [-0.15761005878448486, 65.91603088378906, -0.22348007559776306],
      1.1461354494094849,
      [101, 109],
      [6, 108, 115],
    ],
    [
      "NC",
      128,
      1024,
      1e-5,
      1.076708197593689,
      [-0.004461684729903936, 8.050687789916992, -0.4400217533111572],
      1.1218695640563965,
      [911, 1023],
      [296],
    ],
    [
      "NC",
      256,
      512,
      0,
      -0.588902473449707,
      [0.010044588707387447, 129.62823486328125, -1.5630024671554565],
      1.033516526222229,
      [40, 41],
      [165, 167, 169],
    ],
  ] as const)(
    "%s, %i channels of %i values, two to five against others of two kinds: dx",
    (layout, channels, m, epsilon, gamma, values, slope, few, fewMore) => {
      const bn = new BatchNorm(channels, { layout, epsilon });
      bn.gamma!.fill(gamma);
      const kinds = Int8Array.from({ length: m }, (_, i) =>
        few.includes(i as never) ? 1 : fewMore.includes(i as never) ? 2 : 0,
      );
      const kindOf = (i: number): number =>
        kinds[layout === "NC" ? Math.floor(i / channels) : i % m]!;
      const x = Float32Array.from({ length: m * channels }, (_, i) => values[kindOf(i)]!);
      const dy = x.map((_, i) => (kindOf(i) === 1 ? slope : -slope));
      bn.train(x, { shape: layout === "NC" ? [m, channels] : [1, channels, m] });
      const { dx } = bn.backward(dy);

      const column = Float64Array.from(kinds, (kind) => values[kind]!);
      const slopes = Float64Array.from(kinds, (kind) => (kind === 1 ? slope : -slope));
      const average = (of: (i: number) => number): number =>
        kinds.reduce((sum, _, i) => sum + of(i), 0) / m;
      const mean = average((i) => column[i]!);
      const root = Math.sqrt(average((i) => (column[i]! - mean) ** 2) + epsilon);
      const level = average((i) => slopes[i]!);
      const share = average((i) => ((column[i]! - mean) / root) * slopes[i]!);
      const wanted = column.map(
        (v, i) => (gamma / root) * (slopes[i]! - level - ((v - mean) / root) * share),
      );
      const largest = Math.max(...wanted.map(Math.abs), (Math.abs(gamma) / root) * slope);
      for (let i = 0; i < m; i++) {
        const at = layout === "NC" ? i * channels : i;
        expect(Math.abs(dx[at]! - wanted[i]!)).toBeLessThan(1.25e-6 * largest);
      }
    },
  );

  // A digit for each value of a column: which of x and of dy it is.
  test.each([
    [
      "NCL",
      1,
      1.2154834270477295,
      [-0.19088797271251678, 0.057918667793273926, 0.4093225300312042],
      [0.8726679086685181, -0.3352642059326172, -0.8727455139160156],
      "0000000000000000000000000001000100020100001111111111100011110000",
    ],
    [
      "NC",
      512,
      1.1143183708190918,
      [-0.044954508543014526, 552.9302368164062, -17.442886352539062, -2.3993213176727295],
      [0.4438028931617737, -237.47918701171875, -0.44242480397224426, -0.2271030843257904],
      "03000300000030032003000000030000",
    ],
  ] as const)(
    "%s, %i channels, one value far from others of two or three kinds: dx",
    (layout, channels, gamma, values, slopes, pattern) => {
      const bn = new BatchNorm(channels, { layout, epsilon: 0 });
      bn.gamma!.fill(gamma);
      const m = pattern.length;
      const of = (kinds: readonly number[]): number[] => Array.from(pattern, (k) => kinds[+k]!);
      const [column, slope] = [of(values), of(slopes)];
      const spread = (one: readonly number[]): Float32Array =>
        Float32Array.from({ length: m * channels }, (_, i) => one[Math.floor(i / channels)]!);
      bn.train(spread(column), { shape: layout === "NC" ? [m, channels] : [1, channels, m] });
      const { dx } = bn.backward(spread(slope));

      const average = (f: (i: number) => number): number =>
        column.reduce((sum, _, i) => sum + f(i), 0) / m;
      const mean = average((i) => column[i]!);
      const root = Math.sqrt(average((i) => (column[i]! - mean) ** 2));
      const level = average((i) => slope[i]!);
      const share = average((i) => ((column[i]! - mean) / root) * slope[i]!);
      const wanted = column.map(
        (v, i) => (gamma / root) * (slope[i]! - level - ((v - mean) / root) * share),
      );
      const most = Math.max(...slope.map(Math.abs));
      const largest = Math.max(...wanted.map(Math.abs), (gamma / root) * most);
      for (let i = 0; i < m; i++) {
        expect(Math.abs(dx[i * channels]! - wanted[i]!)).toBeLessThan(1.3e-6 * largest);
      }
    },
  );

  test("a column of sixteen whose squares round alike: y", () => {
    const x = Float32Array.from({ length: 16 }, (_, i) =>
      i === 0
        ? 1.002379298210144
        : i === 8
          ? -1.001528024673462
          : i % 2 === 1
            ? 0.0009139643516391516
            : 0.00042558720451779664,
    );
    const bn = new BatchNorm(1, { epsilon: 0 });
    const [gamma, beta] = [0.3543289303779602, 0.9984104633331299];
    bn.gamma![0] = gamma;
    bn.beta![0] = beta;
    const mean = x.reduce((sum, value) => sum + value, 0) / 16;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 16;
    const y = bn.train(x);
    x.forEach((value, i) => {
      const scaled = (gamma * (value - mean)) / Math.sqrt(variance);
      const bound = Y_ERROR * Math.max(1, Math.abs(scaled), beta);
      expect(Math.abs(y[i]! - scaled - beta)).toBeLessThan(bound);
    });
  });

  test("planes of four equal values against zeros: dx", () => {
    const [m, few, v, g, gamma] = [
      128, 4, 12.054825782775879, 1.373428225517273, 0.7324701547622681,
    ];
    const bn = new BatchNorm(1, { layout: "NCL" });
    bn.gamma!.fill(gamma);
    const x = Float32Array.from({ length: m }, (_, i) => (i < few ? v : 0));
    bn.train(x, { shape: [1, 1, m] });
    const { dx } = bn.backward(x.map((value) => (value > 0 ? g : -g)));
    const share = few / m;
    const root = Math.sqrt(v * v * share * (1 - share) + bn.epsilon);
    // dy and x are linear in each other: only epsilon keeps dx from being 0.
    const kept = ((gamma / root) * bn.epsilon) / root / root;
    dx.forEach((value, i) => {
      const wanted = kept * 2 * g * (i < few ? 1 - share : -share);
      expect(Math.abs(value - wanted)).toBeLessThan((DX_ERROR * gamma * g) / root);
    });
  });

  test("a plane of eight equal values 30 σ from all others: dx", () => {
    const [m, few, v, high, low] = [
      7188, 8, 8.470911183446605, 1.0000397775022256, -1.024417213800004,
    ];
    const bn = new BatchNorm(1, { layout: "NCL", epsilon: 0 });
    const x = Float32Array.from({ length: m }, (_, i) => (i < few ? v : 0));
    bn.train(x, { shape: [1, 1, m] });
    const { dx } = bn.backward(x.map((value) => (value > 0 ? low : high)));
    // dy and x are linear in each other.
    const unit = -low / Math.fround(v) / Math.sqrt((few / m) * (1 - few / m));
    for (const value of dx) expect(Math.abs(value)).toBeLessThan(dxFarError(2) * unit);
  });

  test("one value 290 σ from 262,143 normal ones, dy = 1: dx, which is 0", () => {
    const [m, at] = [262_144, 131_072];
    const x = normal(m, 13);
    x[at] = 350;
    const bn = new BatchNorm(1, { layout: "NCL" });
    bn.train(x, { shape: [1, 1, m] });
    const { dx } = bn.backward(new Float32Array(m).fill(1));
    const mean = x.reduce((sum, v) => sum + v, 0) / m;
    const root = Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / m + bn.epsilon);
    const apart = x.reduce((sum, v) => sum + Math.abs(v - mean), 0) / m;
    const product = ((x[at]! - mean) / root) * (apart / root);
    const error = dx.reduce((most, v) => Math.max(most, Math.abs(v)), 0) * root;
    // More than with a value that is less far away.
    expect(error).toBeGreaterThan(dxFarError(0));
    expect(error).toBeLessThan(dxFarError(product));
  });

  test("sixteen pixels: y may be beyond what is usual, not beyond the bound", () => {
    const pixels = [207, 182, 36, 39, 173, 91, 11, 253, 63, 57, 255, 199, 98, 105, 65, 200];
    const x = Float32Array.from(pixels, (k) => k / 255);
    const bn = new BatchNorm(1);
    const [gamma, beta] = [4.972517490386963, -4.106410980224609];
    bn.gamma![0] = gamma;
    bn.beta![0] = beta;
    const mean = x.reduce((sum, v) => sum + v, 0) / 16;
    const variance = x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / 16;
    const scaled = (gamma * (x[8]! - mean)) / Math.sqrt(variance + bn.epsilon);
    const share = Math.abs(bn.train(x)[8]! - scaled - beta) / Math.max(1, -scaled, -beta);
    expect(share).toBeGreaterThan(Y_ERROR);
    expect(share).toBeLessThan(Y_BOUND);
  });

  test.each([
    [1e8, 0],
    [1e10, 2 ** -53 * 2 * Math.sqrt(2) * 22], // two blocks are pooled, and their sums are exact
  ])("gamma %d: the mean's own error reaches y multiplied by it", (gamma, e) => {
    const x = Float32Array.of(1000000, 999989, 999986, 1000005, 1000008, 1000012);
    const bn = new BatchNorm(1, { layout: "NCL", epsilon: 0 });
    bn.gamma![0] = gamma;
    const y = bn.train(x, { shape: [2, 1, 3] });
    // x[0] is the mean.
    expect(Math.abs(y[0]!)).toBeLessThan(Y_BOUND + gamma * e);
    expect(Math.abs(y[0]!)).toBeGreaterThan(0);
  });

  test("a mean of a million sigma and a large gamma", () => {
    const [m, at, gamma] = [7001, 999999, 1e5];
    const x = new Float32Array(m).fill(at);
    for (let i = 0; i < 3498; i++) {
      const apart = 1 + (i % 3) * 0.125;
      x[2 * i + 1] = at + apart;
      x[2 * i + 2] = at - apart;
    }
    x[m - 1]! += 3 / 16;
    const bn = new BatchNorm(1, { epsilon: 0 });
    bn.gamma![0] = gamma;
    const off = 3 / 16 / m; // the mean, beyond `at`
    const variance = x.reduce((sum, value) => sum + (value - at - off) ** 2, 0) / m;
    const wanted = (-gamma * off) / Math.sqrt(variance);
    const bound = Y_ERROR * Math.max(1, Math.abs(wanted));
    expect(Math.abs(bn.train(x)[0]! - wanted)).toBeLessThan(bound);
    // A worker that is given the moments knows as much.
    const statistics = structuredClone(bn.moments(x));
    expect(Math.abs(bn.train(x, { statistics })[0]! - wanted)).toBeLessThan(bound);
    // So does a layer that adapts with nothing but these data.
    expect(Math.abs(adapt(bn, x, { prior: 0 }).infer(x)[0]! - wanted)).toBeLessThan(bound);
  });
});

test("the weight of the newest mini-batch is exact; that of an older one suffers where little of it is left", () => {
  const [zero, one] = [Float32Array.of(-1, 1), Float32Array.of(0, 2)];
  for (const [decay, older] of [
    [1e-3, 3e-14],
    [1e-10, 9e-8],
  ] as const) {
    const weightOf = (batches: readonly Float32Array[]): number => {
      const bn = new BatchNorm(1, { decay });
      for (const x of batches) bn.train(x);
      return bn.runningMean[0]!;
    };
    expect(Math.abs(weightOf([zero, one]) / (1 - decay) - 1)).toBeLessThan(2e-14);
    const off = Math.abs(weightOf([one, zero]) / (decay * (1 - decay)) - 1);
    expect(off).toBeGreaterThan(2e-14);
    expect(off).toBeLessThan(older);
  }
});

test("the guide promises these limits", () => {
  const guide = readFileSync(new URL("../docs/guides/exactness.md", import.meta.url), "utf8");
  const rows = [...guide.matchAll(/^\| ([^|]+) \| (.+) \|$/gm)].slice(1);
  /** 10⁻⁶ and 5·10⁻⁷, as numbers. */
  const numbersIn = (text: string): number[] =>
    [...text.matchAll(/(?:([\d.]+)·)?10⁻([⁰-⁹¹²³]+)/g)].map(([, factor = "1", exponent]) => {
      const digits = Array.from(exponent!, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(digit));
      return Number(`${factor}e-${digits.join("")}`);
    });
  const [value, sum] = [dxBound(0), dxBound(1) - dxBound(0)];
  const far = dxFarError(1) - dxFarError(0);
  expect(rows.slice(0, 8).map(([, name, text]) => [name, numbersIn(text!)])).toEqual([
    ["y of `train`", [Y_ERROR, Y_BOUND]],
    ["y of `infer`", [Y_ERROR, Y_INFER_BOUND]],
    ["variance", [VARIANCE_ERROR]],
    ["mean", [MEAN_ERROR]],
    // Limits of dx are rounded up.
    [
      "dx",
      [
        DX_ERROR,
        dxFarError(0),
        Math.ceil(far * 1e8) / 1e8,
        Math.ceil(value * 1e7) / 1e7,
        Math.ceil(sum * 1e8) / 1e8,
      ],
    ],
    ["dgamma", [DGAMMA_ERROR, MEAN_ROUNDING]],
    ["dbeta", [DBETA_ERROR]],
    ["pooled moments", [POOLING_ERROR]],
  ]);
  const offset =
    /at most one value\s+in ([\d,]+) of such data is beyond (.+?), and none beyond (.+?)\. /;
  const [, share, usual, most] = offset.exec(guide)!;
  expect(1 / Number(share!.replace(",", ""))).toBe(Y_OFFSET_SHARE);
  expect([usual, most].flatMap((text) => numbersIn(text!))).toEqual([Y_ERROR, Y_OFFSET_ERROR]);
});
