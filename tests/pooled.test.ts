// A batch split over workers: `train` by pooled moments and `backward` by merged sums on each part,
// against one layer and the float64 oracle on the whole.

import { runInNewContext } from "node:vm";
import {
  type BatchNorm,
  type BatchNormOptions,
  GradientSums,
  type GradientSumsLike,
  type Gradients,
  Kernels,
  type Layout,
  type Moments,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  countOf,
  LAYOUTS,
  layerOf,
  placesOf,
  type Shaped,
  seeds,
  settle,
  sizeOf,
  stateOf,
  viewOf,
} from "./support/cases.js";
import {
  assertGradients,
  assertMoments,
  assertNormalized,
  assertSameBits,
  assertWithin,
} from "./support/compare.js";
import { normal, random, shared } from "./support/data.js";
import { fillGuards, isGuarded } from "./support/guards.js";
import { MEAN_ERROR, SUM_ERROR, VARIANCE_ERROR } from "./support/limits.js";
import * as oracle from "./support/oracle.js";
import { put, room } from "./support/places.js";
import { check } from "./support/property.js";
import { assertRefuses, wrong } from "./support/refuse.js";

/** What one worker has of a batch. */
interface Part {
  readonly shaped: Shaped;
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly mask?: Uint8Array;
}

interface Split {
  layout: Layout;
  channels: number;
  sides?: readonly number[];
  /** How many examples each worker has. */
  sizes: readonly number[];
  /** Which workers have nothing but padding; the others have some, then. */
  padded?: readonly number[];
  mean?: number;
}

const shapeOf = (layout: Layout, n: number, channels: number, sides: readonly number[]) => ({
  layout,
  shape: layout[1] === "C" ? [n, channels, ...sides] : [n, ...sides, channels],
});

/** The parts of a batch: each of its own mean and deviation, NaN at padding. */
function partsOf(
  { layout, channels, sides, sizes, padded, mean = 1 }: Split,
  seed: number,
): Part[] {
  const rank = layout.length - 2;
  return sizes.map((size, k): Part => {
    const shaped = shapeOf(layout, size, channels, (sides ?? [3, 5, 2]).slice(0, rank));
    const x = normal(sizeOf(shaped), seed + k, mean + k / 4, 1 + (k % 3));
    const dy = normal(sizeOf(shaped), seed + k + 1000, 0.5 - k / 8);
    if (!padded) return { shaped, x, dy };
    const next = random(seed + k);
    const length = size && countOf(shaped);
    const mask = Uint8Array.from({ length }, () => Number(!padded.includes(k) && next() < 0.8));
    for (const i of placesOf(shaped, (p) => mask[p] === 0)) x[i] = dy[i] = Number.NaN;
    return { shaped, x, dy, mask };
  });
}

const concat = (arrays: readonly Float32Array[]): Float32Array =>
  Float32Array.from(arrays.flatMap((array) => [...array]));

/** The batch that these are parts of. */
function joined(parts: readonly Part[]): Part {
  const { layout, shape } = parts[0]!.shaped;
  const examples = parts.reduce((n, { shaped }) => n + shaped.shape[0]!, 0);
  const masks = parts.map(({ mask }) => mask);
  return {
    shaped: { layout, shape: [examples, ...shape.slice(1)] },
    x: concat(parts.map(({ x }) => x)),
    dy: concat(parts.map(({ dy }) => dy)),
    ...(masks[0] && { mask: Uint8Array.from(masks.flatMap((mask) => [...mask!])) }),
  };
}

const optionsOf = ({ shaped: { shape }, mask }: Part) => ({ shape, ...(mask && { mask }) });

/** Merged in turn, as one worker would do it with what `postMessage` delivers of the others. */
const merged = <T extends { merge(other: T): T }>([first, ...rest]: readonly T[]): T =>
  rest.reduce((sum, each) => sum.merge(structuredClone(each)), first!);

const pooledOf = (workers: readonly BatchNorm[], parts: readonly Part[]): Moments =>
  merged(parts.map((part, k) => workers[k]!.moments(part.x, optionsOf(part))));

/** One step of all workers. */
function step(workers: readonly BatchNorm[], parts: readonly Part[]) {
  const statistics = pooledOf(workers, parts);
  const y = parts.map((part, k) =>
    workers[k]!.train(part.x, { ...optionsOf(part), statistics: structuredClone(statistics) }),
  );
  const sums = merged(parts.map(({ dy }, k) => workers[k]!.backwardSums(dy)));
  const gradients = parts.map(({ dy }, k) =>
    workers[k]!.backward(dy, { sums: structuredClone(sums) }),
  );
  return { statistics, y, sums, gradients };
}

/** Throws unless all workers hold the same, to the bit. */
function assertAlike(workers: readonly BatchNorm[], gradients: readonly Gradients[]): void {
  for (const [k, worker] of workers.entries()) {
    expect(stateOf(worker)).toBe(stateOf(workers[0]!));
    for (const name of ["dgamma", "dbeta"] as const) {
      const [own, first] = [gradients[k]![name], gradients[0]![name]];
      expect(own === null).toBe(first === null);
      if (own) assertSameBits(name, own, first!);
    }
  }
}

/** One step of workers and of one layer on the whole; what the workers hold is compared with both. */
function checkStep(workers: readonly BatchNorm[], alone: BatchNorm, parts: readonly Part[]) {
  const whole = joined(parts);
  const { shaped, mask } = whole;
  const [first] = workers as readonly [BatchNorm];
  const { gamma, beta, epsilon, channels } = first;
  const seen = first.batchesSeen;
  const { statistics, y, sums, gradients } = step(workers, parts);
  alone.train(whole.x, optionsOf(whole));

  const kept = placesOf(shaped, (p) => mask?.[p] !== 0);
  const padding = placesOf(shaped, (p) => mask?.[p] === 0);
  const take = (array: Float32Array, at = kept) => Float32Array.from(at, (i) => array[i]!);
  const [x, dy] = [take(whole.x), take(whole.dy)];
  const view = { outer: kept.length / channels, channels, inner: 1 };
  const exact = oracle.moments(x, view);
  const terms = { ...exact, gamma, beta, epsilon };
  assertMoments({ mean: statistics.mean, variance: statistics.variance("population") }, exact);
  assertNormalized(take(concat(y)), x, view, terms);
  const dx = concat(gradients.map((each) => each.dx));
  assertGradients({ ...gradients[0]!, dx: take(dx) }, dy, x, view, terms);
  expect(take(concat(y), padding).every((v, k) => v === (beta?.[k % channels] ?? 0))).toBe(true);
  expect(take(dx, padding).every((value) => value === 0)).toBe(true);

  assertAlike(workers, gradients);
  expect([first.batchesSeen, alone.batchesSeen]).toEqual([seen + 1, seen + 1]);
  const { runningMean, runningVariance } = alone;
  const sigma = (c: number): number => Math.sqrt(exact.variance[c]!);
  assertWithin("runningMean", first.runningMean, runningMean, (c) => 2 * MEAN_ERROR * sigma(c));
  assertWithin(
    "runningVariance",
    first.runningVariance,
    runningVariance,
    (c) => VARIANCE_ERROR * runningVariance[c]!,
  );
  for (const { lastBatch } of workers) {
    expect(lastBatch!.count).toBe(view.outer);
    expect(lastBatch!.statistics).toMatchObject({ count: view.outer });
    assertMoments(lastBatch!, exact);
  }
  expect([statistics.count, sums.count]).toEqual([view.outer, view.outer]);
  return { alone: alone.backward(whole.dy), gradients };
}

/** A layer for each worker and one for the whole, all alike. */
const layersFor = (parts: readonly Part[], options: Omit<BatchNormOptions, "layout"> = {}) => ({
  workers: parts.map(({ shaped }) => settle(layerOf(shaped, options))),
  alone: settle(layerOf(parts[0]!.shaped, options)),
});

function checkSplit(split: Split, seed = 1, options: Omit<BatchNormOptions, "layout"> = {}): void {
  const parts = partsOf(split, seed);
  const { workers, alone } = layersFor(parts, options);
  checkStep(workers, alone, parts);
}

describe("the parts of a batch are as the whole", () => {
  const SPLITS: Readonly<Record<string, Omit<Split, "layout">>> = {
    "two halves": { channels: 5, sizes: [8, 8] },
    "three uneven parts": { channels: 5, sizes: [1, 20, 5] },
    "one worker": { channels: 5, sizes: [9] },
    "one example each": { channels: 5, sizes: Array(16).fill(1) },
    "many uneven ones, some empty": { channels: 7, sizes: [0, 7, 0, 1, 30, 2, 0, 64, 1, 0] },
    padding: { channels: 5, sizes: [4, 9, 2], padded: [] },
    "some nothing but padding": { channels: 5, sizes: [3, 8, 0, 8, 1], padded: [0, 3] },
    "mean 1e6 σ": { channels: 5, sizes: [9, 1, 40], mean: 1e6 },
  };

  test.each(Object.entries(SPLITS))("%s", (_, split) => {
    for (const layout of LAYOUTS) checkSplit({ ...split, layout });
  });

  test.each<Split>([
    // More channels than the parameter arrays hold, more values than a stream buffer.
    { layout: "NC", channels: 1500, sizes: [20, 1, 0, 33] },
    { layout: "NC", channels: 33, sizes: [2500, 300] },
    { layout: "NC", channels: 1030, sizes: [70, 5], padded: [] },
    { layout: "NCL", channels: 3, sides: [25_001], sizes: [1, 1] },
    { layout: "NCL", channels: 1100, sides: [17], sizes: [1, 2] },
    // Planes of which `backward` takes one channel at a time, above, and some.
    { layout: "NCHW", channels: 50, sides: [29, 31], sizes: [3, 2] },
    { layout: "NHWC", channels: 40, sides: [31, 33], sizes: [2, 1], padded: [1] },
  ])("$layout, $channels channels, $sizes examples", (split) => checkSplit(split));

  test("any layout, parts and options", () => {
    check(
      fc.property(
        fc.record({
          layout: fc.constantFrom(...LAYOUTS),
          channels: fc.integer({ min: 1, max: 40 }),
          sides: fc.tuple(...[17, 3, 2].map((max) => fc.integer({ min: 1, max }))),
          sizes: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 7 }),
          mean: fc.constantFrom(0, 1, 1e4, 1e6),
        }),
        fc.option(fc.uniqueArray(fc.integer({ min: 0, max: 6 }), { maxLength: 2 })),
        fc.record({
          gamma: fc.boolean(),
          beta: fc.boolean(),
          epsilon: fc.constantFrom(1e-5, 1e-3),
          decay: fc.constantFrom("cumulative" as const, 0, 0.9),
          debias: fc.boolean(),
          runningVarianceOf: fc.constantFrom("sample" as const, "population" as const),
        }),
        seeds,
        (shape, padded, options, seed) => {
          const split = { ...shape, ...(padded && { padded }) };
          const parts = partsOf(split, seed);
          const { workers, alone } = layersFor(parts, options);
          fc.pre(pooledOf(workers, parts).count > 1);
          checkStep(workers, alone, parts);
        },
      ),
      100,
    );
  });

  test("the same bits in kernel memory and in place", () => {
    const kernels = new Kernels({ memory: 4 << 20 });
    for (const layout of ["NC", "NCL"] as const) {
      const parts = partsOf({ layout, channels: 33, sides: [20], sizes: [70, 3], padded: [] }, 1);
      const { workers } = layersFor(parts, { kernels });
      const { statistics, y, sums, gradients } = step(workers, parts);
      for (const place of ["tensor", "part", "shared"] as const) {
        for (const [k, part] of parts.entries()) {
          const [x, dy] = [put(place, kernels, part.x, 3), put(place, kernels, part.dy, 1)];
          const out = room(place, kernels, part.x.length, 2);
          const layer = workers[k]!;
          layer.train(x.array, { ...optionsOf(part), statistics, out: out.array });
          assertSameBits("y", out.array, y[k]!);
          layer.train(x.array, { ...optionsOf(part), statistics, out: x.array });
          assertSameBits("y", x.array, y[k]!);
          layer.backward(dy.array, { x: part.x, sums, out: { dx: dy.array } });
          assertSameBits("dx", dy.array, gradients[k]!.dx);
          for (const placed of [x, dy, out]) {
            placed.assertIntact();
            placed.free();
          }
        }
      }
    }
  });
});

test("several steps: the workers stay alike, to the bit, and near the layer on the whole", () => {
  const split = { layout: "NCL", channels: 4, sizes: [5, 0, 1, 12], padded: [] } as const;
  const { workers, alone } = layersFor(partsOf(split, 1), { decay: 0.7, debias: true });
  const learn = (layer: BatchNorm, { dgamma, dbeta }: Gradients): void => {
    layer.gamma!.forEach((value, c) => {
      layer.gamma![c] = value - 1e-3 * dgamma![c]!;
      layer.beta![c] = layer.beta![c]! - 1e-3 * dbeta![c]!;
    });
  };
  for (let t = 0; t < 20; t++) {
    const results = checkStep(workers, alone, partsOf({ ...split, mean: t - 3 }, 100 * t));
    learn(alone, results.alone);
    for (const [k, worker] of workers.entries()) learn(worker, results.gradients[k]!);
  }
  for (const name of ["gamma", "beta"] as const) {
    assertWithin(name, workers[0]![name]!, alone[name]!, () => 1e-5);
  }
});

describe("a worker with", () => {
  const split = { layout: "NC", channels: 3, sizes: [4, 6] } as const;
  const parts = partsOf(split, 1);
  const [part] = parts as [Part];
  const { x, dy } = part;
  /** The first worker after its train. */
  function trained(): { layer: BatchNorm; statistics: Moments; sums: GradientSums } {
    const { workers } = layersFor(parts);
    const { statistics, sums } = step(workers, parts);
    return { layer: workers[0]!, statistics, sums };
  }

  test("updateRunning: false moves nothing", () => {
    const { layer, statistics, sums } = trained();
    const expected = layer.backward(dy, { sums });
    const before = stateOf(layer);
    layer.train(x, { statistics, updateRunning: false });
    expect(stateOf(layer)).toBe(before);
    expect(layer.backward(dy, { sums })).toEqual(expected);
  });

  test("a batch kept for later", () => {
    const { layer, sums } = trained();
    const [batch, own] = [layer.lastBatch!, layer.backwardSums(dy)];
    const expected = layer.backward(dy, { sums });
    layer.train(normal(30, 5));
    expect(layer.backwardSums(dy, { batch })).toEqual(own);
    expect(layer.backward(dy, { batch, sums })).toEqual(expected);
  });

  test("a wrong batchesSeen: nothing changes", () => {
    const { layer, statistics } = trained();
    const out = fillGuards(new Float32Array(12));
    layer.batchesSeen = 0.5;
    const call = () => layer.train(x, { statistics, out });
    assertRefuses(StateError, /^batchesSeen: expected a whole number >= 0, got 0.5$/, call, layer);
    expect(isGuarded(out)).toBe(true);
  });

  test("NaN in x: its own outputs only; the averages take what was pooled", () => {
    const { layer, statistics } = trained();
    const bad = x.slice();
    bad[4] = Number.NaN;
    const y = layer.train(bad, { statistics });
    expect([...y].map(Number.isNaN)).toEqual([...bad].map(Number.isNaN));
    expect(JSON.stringify(layer.snapshot())).not.toContain("NaN");
  });

  test("NaN in dy: its channel, in all parts", () => {
    const { workers } = layersFor(parts);
    step(workers, parts);
    const bad = dy.slice();
    bad[4] = Number.NaN;
    const sums = merged([workers[0]!.backwardSums(bad), workers[1]!.backwardSums(parts[1]!.dy)]);
    const { dx } = workers[1]!.backward(parts[1]!.dy, { sums });
    expect([...dx].map(Number.isNaN)).toEqual([...dx].map((_, i) => i % 3 === 1));
  });

  test.each([0, 1])("a pooled count of %i: SingleValueError, nothing changes", (count) => {
    const { layer } = trained();
    const statistics = layer.moments(normal(3 * count, 1));
    const out = fillGuards(new Float32Array(12));
    const message = new RegExp(`^x: expected at least two .*, got ${count ? "one" : "none"},`);
    const call = () => layer.train(x, { statistics, out });
    assertRefuses(SingleValueError, message, call, layer);
    expect(isGuarded(out)).toBe(true);
    assertRefuses(
      SingleValueError,
      message,
      () => layer.train(new Float32Array(0), { statistics }),
      layer,
    );
  });

  test.each<
    [string, typeof StateError | typeof ShapeError, RegExp, (sums: GradientSums) => unknown]
  >([
    [
      "no sums",
      StateError,
      /^sums: expected backwardSums of all parts, merged, of 10 values per channel, got none$/,
      () => undefined,
    ],
    [
      "sums of too much",
      StateError,
      /^sums: expected .* of 10 values per channel, got those of 20$/,
      (sums) => sums.merge(sums),
    ],
    ["null", ShapeError, /^sums: expected sumDy, sumDyXmu of 3 .*, got null$/, () => null],
    ["moments", ShapeError, /^sums: .*got sumDy undefined$/, () => trained().statistics],
    [
      "sums of other channels",
      ShapeError,
      /^sums: .*got sumDy a Float64Array of length 4$/,
      () => ({ count: 10, sumDy: new Float64Array(4), sumDyXmu: new Float64Array(4) }),
    ],
    [
      "a number array",
      ShapeError,
      /^sums: .*got sumDyXmu an Array of length 3$/,
      (sums) => ({ ...sums, sumDyXmu: [1, 2, 3] }),
    ],
    [
      "no count",
      StateError,
      /^sums.count: expected a whole number from 0 to 2\^53 - 1, got undefined$/,
      (sums) => ({ ...sums, count: undefined }),
    ],
  ])("%s: nothing is written", (_, errorClass, message, make) => {
    const { layer, sums } = trained();
    const out = {
      dx: new Float32Array(12),
      dgamma: new Float32Array(3),
      dbeta: new Float32Array(3),
    };
    Object.values(out).forEach(fillGuards);
    const call = () => layer.backward(dy, { sums: wrong(make(sums)), out });
    assertRefuses(errorClass, message, call, layer);
    expect(Object.values(out).every(isGuarded)).toBe(true);
  });

  test("sums of its own part only: StateError", () => {
    const { layer } = trained();
    const call = () => layer.backward(dy, { sums: layer.backwardSums(dy) });
    assertRefuses(StateError, /^sums: .* of 10 values per channel, got those of 4$/, call, layer);
  });
});

describe("backwardSums", () => {
  test("Σdy and Σdy·(x - μ) against float64, |mean|/σ up to 1e6", () => {
    for (const layout of LAYOUTS) {
      for (const mean of [0, 1, 1e6]) {
        const [{ shaped, x, dy }] = partsOf({ layout, channels: 6, sizes: [70], mean }, 3) as [
          Part,
        ];
        const layer = layerOf(shaped);
        layer.train(x, { shape: shaped.shape });
        const state = stateOf(layer);
        const sums = layer.backwardSums(dy);
        expect(sums).toBeInstanceOf(GradientSums);
        expect(stateOf(layer)).toBe(state);
        const center = layer.lastBatch!.mean;
        const terms = (c: number) =>
          oracle.indices(viewOf(shaped), c).map((i) => [dy[i]!, dy[i]! * (x[i]! - center[c]!)]);
        for (const [j, name] of (["sumDy", "sumDyXmu"] as const).entries()) {
          const [expected, size] = [(t: number) => t, Math.abs].map((of) =>
            [...center.keys()].map((c) => oracle.sum(terms(c).map((each) => of(each[j]!)))),
          ) as [number[], number[]];
          assertWithin(name, sums[name], expected, (c) => SUM_ERROR * size[c]!);
        }
        expect(sums.count).toBe(countOf(shaped));
      }
    }
  });

  test("of a batch by itself: backward takes them, to the same gradient", () => {
    for (const layout of LAYOUTS) {
      const [{ shaped, x, dy }] = partsOf({ layout, channels: 5, sizes: [30] }, 3) as [Part];
      const layer = layerOf(shaped);
      layer.train(x, { shape: shaped.shape });
      const view = viewOf(shaped);
      const { gamma, beta, epsilon } = layer;
      const terms = { ...oracle.moments(x, view), gamma, beta, epsilon };
      const sums = layer.backwardSums(dy);
      assertGradients(layer.backward(dy, { sums }), dy, x, view, terms);
    }
  });

  test("of a frozen layer: dx as without them, dgamma and dbeta of all parts", () => {
    const parts = partsOf({ layout: "NC", channels: 4, sizes: [5, 0, 9] }, 1);
    const { workers, alone } = layersFor(parts);
    const whole = joined(parts);
    alone.train(whole.x, { statistics: "running" });
    parts.forEach(({ x }, k) => {
      workers[k]!.train(x, { statistics: "running" });
    });
    const sums = merged(parts.map(({ dy }, k) => workers[k]!.backwardSums(dy)));
    const gradients = parts.map(({ dy }, k) => workers[k]!.backward(dy, { sums }));
    const expected = alone.backward(whole.dy);
    assertSameBits("dx", concat(gradients.map(({ dx }) => dx)), expected.dx);
    assertWithin("dgamma", gradients[0]!.dgamma!, expected.dgamma!, () => 1e-5);
    assertWithin("dbeta", gradients[0]!.dbeta!, expected.dbeta!, () => 1e-5);
    assertAlike(workers, gradients);
  });

  test.each<
    [
      string,
      new (message: string) => StateError | ShapeError | OptionError,
      RegExp,
      (layer: BatchNorm) => unknown,
    ]
  >([
    [
      "a dy of another length",
      ShapeError,
      /^dy: expected 12 values, got 9$/,
      (l) => l.backwardSums(normal(9, 1)),
    ],
    [
      "sums for an option",
      OptionError,
      /^sums: expected an option among batch, x/,
      (l) => l.backwardSums(normal(12, 1), wrong({ sums: 1 })),
    ],
    [
      "another layer's batch",
      StateError,
      /^batch: expected a lastBatch of this layer, got one of another layer$/,
      (l) => {
        const other = l.clone();
        other.train(normal(12, 1));
        return l.backwardSums(normal(12, 1), { batch: other.lastBatch! });
      },
    ],
    [
      "after reset",
      StateError,
      /^batch: expected a train before backward, got none$/,
      (l) => {
        const copy = l.clone();
        copy.reset();
        return copy.backwardSums(normal(12, 1));
      },
    ],
    [
      "in place",
      StateError,
      /^x: expected the input of train, got none/,
      (l) => {
        const x = normal(12, 1);
        l.train(x, { out: x, updateRunning: false });
        return l.backwardSums(normal(12, 1));
      },
    ],
  ])("%s: refused", (name, errorClass, message, call) => {
    const layer = layerOf({ layout: "NC", shape: [4, 3] });
    layer.train(normal(12, 1));
    assertRefuses(errorClass, message, () => call(layer), name === "in place" ? undefined : layer);
  });
});

describe("GradientSums", () => {
  const { workers, parts } = (() => {
    const parts = partsOf({ layout: "NC", channels: 3, sizes: [4, 6] }, 1);
    return { parts, ...layersFor(parts) };
  })();
  step(workers, parts);
  const [a, b] = parts.map(({ dy }, k) => workers[k]!.backwardSums(dy)) as [
    GradientSums,
    GradientSums,
  ];

  const CLONES: Readonly<Record<string, (sums: GradientSums) => GradientSumsLike>> = {
    "a structured clone": (sums) => structuredClone(sums),
    "arrays of another realm": (sums) =>
      runInNewContext(
        "({ count, sumDy: Float64Array.from(sumDy), sumDyXmu: Float64Array.from(sumDyXmu) })",
        { ...sums },
      ) as GradientSumsLike,
    "arrays over shared memory": ({ count, sumDy, sumDyXmu }) => ({
      count,
      sumDy: shared(sumDy),
      sumDyXmu: shared(sumDyXmu),
    }),
    "JSON and back": (sums) => GradientSums.fromJSON(JSON.stringify(sums)),
  };

  test.each(Object.entries(CLONES))("%s stands for them", (_, clone) => {
    const whole = a.merge(b);
    const other = a.merge(clone(b));
    expect(other).toBeInstanceOf(GradientSums);
    expect({ ...other }).toEqual({ ...whole });
    const given = clone(b);
    const pooled = GradientSums.pool([given]);
    given.sumDy.fill(7);
    expect(JSON.stringify(pooled)).toBe(JSON.stringify(b));
    const { dy } = parts[0]!;
    const expected = workers[0]!.backward(dy, { sums: whole });
    expect(workers[0]!.backward(dy, { sums: clone(whole) })).toEqual(expected);
  });

  test("merge adds, and leaves both as they were", () => {
    const texts = [JSON.stringify(a), JSON.stringify(b)];
    const whole = a.merge(b);
    expect(whole.count).toBe(10);
    for (const name of ["sumDy", "sumDyXmu"] as const) {
      assertSameBits(
        name,
        whole[name],
        a[name].map((sum, c) => sum + b[name][c]!),
      );
      assertSameBits(name, b.merge(a)[name], whole[name]);
    }
    expect([JSON.stringify(a), JSON.stringify(b)]).toEqual(texts);
  });

  test("pool merges one after the other, and names the part that is none", () => {
    const whole = a.merge(b).merge(a);
    const pooled = GradientSums.pool(new Set([structuredClone(a), b, { ...a }]));
    expect(pooled).toBeInstanceOf(GradientSums);
    expect(JSON.stringify(pooled)).toBe(JSON.stringify(whole));
    const short = { ...b, sumDyXmu: new Float64Array(2) };
    const message = /^parts\[1\]: expected .* of 3 channels, .* got sumDyXmu .*length 2$/;
    assertRefuses(ShapeError, message, () => GradientSums.pool([a, short]));
  });

  test("merge refuses what are no sums", () => {
    for (const [errorClass, message, value] of [
      [ShapeError, /^other: expected sumDy, sumDyXmu of 3 channels, .* got null$/, null],
      [
        ShapeError,
        /, as fromJSON makes, got sumDy an Array of length 3$/,
        JSON.parse(JSON.stringify(a)),
      ],
      [
        ShapeError,
        /^other: .*got sumDy a Float64Array of length 2$/,
        { ...a, sumDy: new Float64Array(2) },
      ],
      [StateError, /^other.count: .*got -1$/, { ...a, count: -1 }],
    ] as const) {
      assertRefuses(errorClass, message, () => a.merge(wrong(value)));
    }
  });

  test("a count that JSON could not hold is refused", () => {
    const most = { ...a, count: Number.MAX_SAFE_INTEGER };
    const message =
      /^both.count: expected a whole number from 0 to 2\^53 - 1, got 900719925474099\d$/;
    for (const call of [() => a.merge(most), () => GradientSums.pool([a, most])]) {
      assertRefuses(StateError, message, call);
    }
  });

  test("JSON is exact, whatever the numbers", () => {
    const sumDy = Float64Array.of(-0, Number.NaN, Infinity, 5e-324, 1 / 3);
    const sumDyXmu = Float64Array.of(1e308, -Infinity, 0, -0, 1e-310);
    const empty = layerOf({ layout: "NC", shape: [0, 5] });
    empty.train(new Float32Array(0), { statistics: "running" });
    const sums = empty.backwardSums(new Float32Array(0)).merge({ count: 3, sumDy, sumDyXmu });
    const held = { count: 3, sumDy: sumDy.map((v) => v + 0), sumDyXmu: sumDyXmu.map((v) => v + 0) };
    for (const json of [sums.toJSON(), JSON.stringify(sums), JSON.parse(JSON.stringify(sums))]) {
      const read = GradientSums.fromJSON(json);
      expect(read).toBeInstanceOf(GradientSums);
      expect({ ...read }).toEqual(held);
    }
    const odd = { ...sums.toJSON(), sumDy: ["-0", 0, "NaN", "-Infinity", 1] as const };
    assertSameBits(
      "sumDy",
      GradientSums.fromJSON(odd).sumDy,
      Float64Array.of(-0, 0, Number.NaN, -Infinity, 1),
    );
    expect(a.toJSON()).toEqual({
      format: "batchnorm-wasm/gradient-sums",
      version: 1,
      count: 4,
      sumDy: [...a.sumDy],
      sumDyXmu: [...a.sumDyXmu],
    });
  });

  test.each<[string, RegExp, unknown]>([
    [
      "moments",
      /^json: .*got format "batchnorm-wasm\/moments"$/,
      workers[0]!.moments(parts[0]!.x).toJSON(),
    ],
    [
      "no JSON",
      /^json: expected JSON of format .*, got text that is no JSON; of a file, give readFileSync\(path, "utf8"\)$/,
      "sums",
    ],
    ["a later version", /^json: expected version 1, got 3$/, { ...a.toJSON(), version: 3 }],
    [
      "a short sum",
      /^sumDyXmu: expected 3 numbers, got an Array of length 1$/,
      { ...a.toJSON(), sumDyXmu: [1] },
    ],
    ["no sum", /^sumDy: expected .* got undefined$/, { ...a.toJSON(), sumDy: undefined }],
    ...[Symbol("3"), 3n, "three", { toString: (): never => expect.fail() }].map(
      (length): [string, RegExp, unknown] => [
        `a sum with a length that is ${typeof length}`,
        /^sumDy: expected 0 numbers, got an Object$/,
        { ...a.toJSON(), sumDy: { length } },
      ],
    ),
    ["text", /^sumDy\[0\]: expected a number, got "1"$/, { ...a.toJSON(), sumDy: ["1", 2, 3] }],
    [
      "half a count",
      /^json.count: expected a whole number from 0 to 2\^53 - 1, got 0.5$/,
      { ...a.toJSON(), count: 0.5 },
    ],
  ])("fromJSON of %s: StateError", (_, message, json) => {
    assertRefuses(StateError, message, () => GradientSums.fromJSON(wrong(json)));
  });
});
