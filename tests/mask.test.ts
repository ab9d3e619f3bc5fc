// Padding: `mask` in train, backward, backwardSums and moments, against leaving the positions out by
// hand.

import { runInNewContext } from "node:vm";
import {
  type Batch,
  BatchNorm,
  type BatchNormOptions,
  type GradientSums,
  type Gradients,
  Kernels,
  type Moments,
  NonFiniteError,
  ShapeError,
  SingleValueError,
} from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  channelsOf,
  countOf,
  layerOf,
  nameOf,
  placesOf,
  SHAPES,
  type Shaped,
  seeds,
  settle,
  shapes,
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
import { normal, random } from "./support/data.js";
import { fillGuards, guarded, guardedCopy, isGuarded } from "./support/guards.js";
import { MEAN_ERROR, SUM_ERROR, VARIANCE_ERROR } from "./support/limits.js";
import * as oracle from "./support/oracle.js";
import { PLACES, put, room } from "./support/places.js";
import { check } from "./support/property.js";
import { assertRefuses, wrong } from "./support/refuse.js";

type Options = Omit<BatchNormOptions, "layout">;
type Mask = (positions: number, seed: number) => Uint8Array;

/** Masks by how they lie: any nonzero entry is data. */
const MASKS: Readonly<Record<string, Mask>> = {
  "half of it": (n, seed) => drawn(n, seed, 0.5),
  "nearly all": (n, seed) => drawn(n, seed, 0.97),
  "a few": (n, seed) => drawn(n, seed, 0.1),
  "the first ones": (n) => Uint8Array.from({ length: n }, (_, p) => Number(p < (2 * n) / 3)),
  "the last ones": (n) => Uint8Array.from({ length: n }, (_, p) => Number(p >= n / 3)),
  "every other one": (n) => Uint8Array.from({ length: n }, (_, p) => p % 2),
  "all but one": (n, seed) => Uint8Array.from({ length: n }, (_, p) => Number(p !== seed % n)),
};

function drawn(positions: number, seed: number, share: number): Uint8Array {
  const next = random(seed + 7);
  return Uint8Array.from({ length: positions }, () => (next() < share ? 1 + next() * 254 : 0));
}

/** What padding may hold. */
const JUNK = [Number.NaN, Infinity, -Infinity, 1e38, -3e38, 0];

/** A batch with padding, and what is left of it by hand: rows of channels. */
class Padded {
  readonly rows: Shaped;
  readonly x: Float32Array;
  readonly dy: Float32Array;
  /** Where the values of the rows lie in the tensor, and where padding does. */
  readonly kept: number[];
  readonly padding: number[];

  constructor(
    readonly shaped: Shaped,
    readonly mask: Uint8Array,
    seed: number,
    mean = 1,
  ) {
    const channels = channelsOf(shaped);
    this.kept = placesOf(shaped, (p) => mask[p] !== 0);
    this.padding = placesOf(shaped, (p) => mask[p] === 0);
    this.rows = { layout: "NC", shape: [this.kept.length / channels, channels] };
    this.x = this.#fill(normal(sizeOf(shaped), seed, mean), 0);
    this.dy = this.#fill(normal(sizeOf(shaped), seed + 1, 0.5), 1);
  }

  #fill(values: Float32Array, turn: number): Float32Array {
    this.padding.forEach((i, k) => {
      values[i] = JUNK[(k + turn) % JUNK.length]!;
    });
    return values;
  }

  /** The rows of a tensor that hold data. */
  take(array: Float32Array): Float32Array {
    return Float32Array.from(this.kept, (i) => array[i]!);
  }

  /** Throws unless padding holds the value of its channel, to the bit. */
  assertPadding(name: string, array: Float32Array, values: Float32Array | null): void {
    const channels = channelsOf(this.shaped);
    const expected = Float32Array.from(this.padding, (_, k) => values?.[k % channels] ?? 0);
    assertSameBits(
      `${name} at padding`,
      Float32Array.from(this.padding, (i) => array[i]!),
      expected,
    );
  }
}

/** What a layer gives for one mini-batch. */
interface Results {
  readonly y: Float32Array;
  readonly batch: Batch;
  readonly moments: Moments;
  readonly sums: GradientSums;
  readonly gradients: Gradients;
}

/** Of padded data between guards; all that holds of any layout is checked. */
function resultsOf(layer: BatchNorm, padded: Padded, statistics: "batch" | "running"): Results {
  const { shaped, rows, mask, x, dy } = padded;
  const { shape } = shaped;
  const given = { x: guardedCopy(x, 3), dy: guardedCopy(dy, 2), mask: mask.slice() };
  const out = { y: guarded(x.length, 1), dx: guarded(x.length, 2) };
  const options = { shape, mask: given.mask };

  const y = layer.train(given.x.array, { ...options, statistics, out: out.y.array });
  const batch = layer.lastBatch!;
  expect([batch.shape, batch.statistics, batch.count]).toEqual([shape, statistics, countOf(rows)]);
  expect(batch.x).toBe(given.x.array);
  expect(batch.mask).toBe(given.mask);
  expect(y).toBe(out.y.array);
  const state = stateOf(layer);
  const moments = layer.moments(given.x.array, options);
  const sums = layer.backwardSums(given.dy.array);
  const gradients = layer.backward(given.dy.array, { out: { dx: out.dx.array } });

  for (const array of [given.x, given.dy, out.y, out.dx]) array.assertIntact();
  assertSameBits("x", given.x.array, x);
  assertSameBits("dy", given.dy.array, dy);
  expect(Buffer.compare(given.mask, mask)).toBe(0);
  expect(stateOf(layer)).toBe(state);
  expect(layer.lastBatch).toBe(batch);
  padded.assertPadding("y", y, layer.beta);
  padded.assertPadding("dx", gradients.dx, null);
  expect([moments.count, sums.count]).toEqual([countOf(rows), countOf(rows)]);
  return { y, batch, moments, sums, gradients };
}

/** Everything that a mask goes into, against the rows alone: bits, or, channels first, the oracle. */
function checkMasked(
  padded: Padded,
  options: Options = {},
  statistics: "batch" | "running" = "batch",
): void {
  const layer = settle(layerOf(padded.shaped, options));
  const hand = settle(layerOf(padded.rows, options));
  const all = resultsOf(layer, padded, statistics);
  const kept: Results = {
    ...all,
    y: padded.take(all.y),
    gradients: { ...all.gradients, dx: padded.take(all.gradients.dx) },
  };
  const [x, dy] = [padded.take(padded.x), padded.take(padded.dy)];
  const y = hand.train(x, { statistics });
  const expected: Results = {
    y,
    batch: hand.lastBatch!,
    moments: hand.moments(x),
    sums: hand.backwardSums(dy),
    gradients: hand.backward(dy),
  };
  expect(layer.batchesSeen).toBe(hand.batchesSeen);
  if (padded.shaped.layout.endsWith("C")) {
    assertSameResults(kept, expected);
    assertSameBits("runningMean", layer.runningMean, hand.runningMean);
    assertSameBits("runningVariance", layer.runningVariance, hand.runningVariance);
  } else assertNear(kept, expected, padded, layer, hand);
}

function assertSameResults(actual: Results, expected: Results): void {
  assertSameBits("y", actual.y, expected.y);
  assertSameBits("dx", actual.gradients.dx, expected.gradients.dx);
  for (const name of ["mean", "variance"] as const) {
    assertSameBits(name, actual.batch[name], expected.batch[name]);
  }
  for (const name of ["mean", "meanLow", "m2"] as const) {
    assertSameBits(`moments.${name}`, actual.moments[name], expected.moments[name]);
  }
  for (const name of ["sumDy", "sumDyXmu"] as const) {
    assertSameBits(name, actual.sums[name], expected.sums[name]);
  }
  for (const name of ["dgamma", "dbeta"] as const) {
    const [own, other] = [actual.gradients[name], expected.gradients[name]];
    expect(own === null, name).toBe(other === null);
    if (own) assertSameBits(name, own, other!);
  }
}

/** Channels first, planes are walked in another order than rows are: the oracle's bounds. */
function assertNear(
  { y, batch, moments, sums, gradients }: Results,
  expected: Results,
  padded: Padded,
  layer: BatchNorm,
  { runningMean, runningVariance }: BatchNorm,
): void {
  const view = viewOf(padded.rows);
  const [x, dy] = [padded.take(padded.x), padded.take(padded.dy)];
  const { gamma, beta, epsilon } = layer;
  const exact = oracle.moments(x, view);
  const frozen = batch.statistics === "running";
  const terms = { ...(frozen ? batch : exact), gamma, beta, epsilon };
  assertNormalized(y, x, view, terms);
  assertGradients(gradients, dy, x, view, terms, { frozen });
  assertMoments({ mean: moments.mean, variance: moments.variance("population") }, exact);
  if (!frozen) assertMoments(batch, exact);
  const sigma = (c: number) => Math.sqrt(exact.variance[c]!);
  assertWithin("runningMean", layer.runningMean, runningMean, (c) => 2 * MEAN_ERROR * sigma(c));
  assertWithin(
    "variance",
    layer.runningVariance,
    runningVariance,
    (c) => 2 * VARIANCE_ERROR * sigma(c) ** 2,
  );
  const size = (c: number) => SUM_ERROR * magnitude(dy, x, view, c, terms.mean[c]!);
  assertWithin("sumDyXmu", sums.sumDyXmu, expected.sums.sumDyXmu, size);
}

/** Σ|dy·(x - mean)| of a channel. */
const magnitude = (
  dy: Float32Array,
  x: Float32Array,
  view: oracle.View,
  c: number,
  mean: number,
): number => oracle.sum(oracle.indices(view, c).map((i) => Math.abs(dy[i]! * (x[i]! - mean))));

describe("a batch with padding is the batch without it", () => {
  test("any layout, shape, mask and options", () => {
    check(
      fc.property(
        shapes(6, 6000),
        fc.constantFrom(...Object.values(MASKS)),
        fc.record({
          gamma: fc.boolean(),
          beta: fc.boolean(),
          epsilon: fc.constantFrom(1e-5, 1e-3),
          debias: fc.boolean(),
          runningVarianceOf: fc.constantFrom("sample", "population"),
        }),
        fc.constantFrom("batch", "running"),
        fc.constantFrom(0, 1, 1000),
        seeds,
        (shaped, mask, options, statistics, mean, seed) => {
          const positions = mask(countOf(shaped), seed);
          // Two values at least.
          positions.set([1, 1]);
          checkMasked(new Padded(shaped, positions, seed, mean), options, statistics);
        },
      ),
      120,
    );
  });

  const LARGE: readonly Shaped[] = [
    // More values than a stream buffer (65536), rows of more than a block of moments (131072), more
    // channels than the parameter arrays (1024).
    { layout: "NC", shape: [5000, 33] },
    { layout: "NC", shape: [300, 1500] },
    { layout: "NC", shape: [70, 1024] },
    { layout: "NC", shape: [9, 4001] },
    { layout: "NLC", shape: [7, 31, 401] },
    { layout: "NDHWC", shape: [3, 4, 5, 2, 1030] },
    { layout: "NCL", shape: [3, 2, 20_001] },
    { layout: "NCL", shape: [9, 1100, 12] },
    { layout: "NCHW", shape: [4, 33, 23, 25] },
  ];
  const each = LARGE.concat(SHAPES.filter((shaped) => sizeOf(shaped) < 40_000));

  test.each(each.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
    const mask = MASKS["half of it"]!(countOf(shaped), 3).fill(1, 0, 2);
    checkMasked(new Padded(shaped, mask, 3));
  });

  test.each(Object.entries(MASKS))("%s", (_, mask) => {
    for (const shaped of [
      { layout: "NC", shape: [70, 5] },
      { layout: "NLC", shape: [6, 13, 65] },
      { layout: "NCL", shape: [9, 5, 7] },
      { layout: "NCL", shape: [3, 4, 33] },
      { layout: "NCDHW", shape: [2, 3, 3, 5, 2] },
      // More than a part of a stream, in runs longer than one.
      { layout: "NC", shape: [5000, 33] },
    ] as const) {
      checkMasked(new Padded(shaped, mask(countOf(shaped), 5), 5, 100));
    }
  });

  test("sequences of their own lengths", () => {
    const lengths = [5, 0, 3, 5, 1];
    const mask = Uint8Array.from({ length: 25 }, (_, p) =>
      Number(p % 5 < lengths[(p - (p % 5)) / 5]!),
    );
    checkMasked(new Padded({ layout: "NLC", shape: [5, 5, 3] }, mask, 1));
    checkMasked(new Padded({ layout: "NCL", shape: [5, 3, 5] }, mask, 1));
  });

  test("without a shape, in layouts that end in C: one entry per row", () => {
    const { mask, x } = new Padded(
      { layout: "NLC", shape: [4, 5, 3] },
      MASKS["nearly all"]!(20, 1),
      1,
    );
    const [layer, other] = [1, 2].map(() => new BatchNorm(3, { layout: "NLC" }));
    const y = layer!.train(x, { mask });
    assertSameBits("y", y, other!.train(x, { mask, shape: [4, 5, 3] }));
    expect(layer!.lastBatch!.shape).toEqual([20, 1, 3]);
  });
});

describe("where the arrays lie", () => {
  const CASES: readonly Shaped[] = [
    { layout: "NC", shape: [70, 33] },
    { layout: "NC", shape: [9, 1500] },
    { layout: "NCL", shape: [5, 6, 31] },
    { layout: "NC", shape: [5000, 33] },
  ];

  test("the same bits in every place", () => {
    const kernels = new Kernels({ memory: 8 << 20 });
    for (const shaped of CASES) {
      const { shape } = shaped;
      const { mask, x, dy } = new Padded(shaped, MASKS["half of it"]!(countOf(shaped), 3), 3);
      const layer = layerOf(shaped, { kernels });
      const y = layer.train(x, { shape, mask });
      const { dx, dgamma, dbeta } = layer.backward(dy);
      for (const place of PLACES) {
        const inputs = [put(place, kernels, x, 3), put(place, kernels, dy, 2)] as const;
        const rooms = [
          room(place, kernels, x.length, 1),
          room(place, kernels, x.length, 2),
        ] as const;
        layer.train(inputs[0].array, { shape, mask, out: rooms[0].array });
        const given = layer.backward(inputs[1].array, { out: { dx: rooms[1].array } });
        assertSameBits("y", rooms[0].array, y);
        assertSameBits("dx", rooms[1].array, dx);
        assertSameBits("dgamma", given.dgamma!, dgamma!);
        assertSameBits("dbeta", given.dbeta!, dbeta!);
        for (const placed of [...inputs, ...rooms]) {
          placed.assertIntact();
          placed.free();
        }
      }
    }
  });

  test("in place: out is x, dx is dy", () => {
    const kernels = new Kernels({ memory: 8 << 20 });
    for (const shaped of CASES) {
      const { shape } = shaped;
      const { mask, x, dy } = new Padded(shaped, MASKS["half of it"]!(countOf(shaped), 3), 3);
      const layer = layerOf(shaped, { kernels });
      const y = layer.train(x, { shape, mask });
      const { dx } = layer.backward(dy);
      for (const place of ["ordinary", "offset", "tensor", "part"] as const) {
        const [same, gradient] = [put(place, kernels, x, 3), put(place, kernels, dy, 1)];
        expect(layer.train(same.array, { shape, mask, out: same.array })).toBe(same.array);
        assertSameBits("y", same.array, y);
        expect(layer.lastBatch!.x).toBeNull();
        layer.backward(gradient.array, { x, out: { dx: gradient.array } });
        assertSameBits("dx", gradient.array, dx);
        for (const placed of [same, gradient]) {
          placed.assertIntact();
          placed.free();
        }
      }
    }
  });

  test("the mask: part of an array, shared, of another realm", () => {
    const { mask, x } = new Padded(
      { layout: "NC", shape: [70, 5] },
      MASKS["half of it"]!(70, 3),
      3,
    );
    const y = new BatchNorm(5).train(x, { mask });
    const part = new Uint8Array(99).fill(1).subarray(3, 73);
    part.set(mask);
    const shared = new Uint8Array(new SharedArrayBuffer(70));
    shared.set(mask);
    const foreign = runInNewContext("Uint8Array.from(mask)", { mask }) as Uint8Array;
    for (const other of [part, shared, foreign]) {
      assertSameBits("y", new BatchNorm(5).train(x, { mask: other }), y);
    }
  });
});

test("a mask of ones, or of any data: as none", () => {
  for (const shaped of SHAPES.filter((each) => sizeOf(each) < 80_000)) {
    const { shape } = shaped;
    const x = normal(sizeOf(shaped), 5, 3);
    const dy = normal(sizeOf(shaped), 6, 0.5);
    const mask = new Uint8Array(countOf(shaped)).map((_, p) => (p % 255) + 1);
    const [plain, masked] = [1, 2].map(() => layerOf(shaped)) as [BatchNorm, BatchNorm];
    assertSameBits("y", masked.train(x, { shape, mask }), plain.train(x, { shape }));
    const [actual, expected] = [masked.backward(dy), plain.backward(dy)];
    for (const name of ["dx", "dgamma", "dbeta"] as const) {
      assertSameBits(name, actual[name]!, expected[name]!);
    }
    expect(stateOf(masked)).toBe(stateOf(plain));
    expect(masked.lastBatch!.mask).toBe(mask);
    expect(masked.moments(x, { shape, mask })).toEqual(plain.moments(x, { shape }));
  }
});

test("without beta the outputs of padding are 0", () => {
  for (const [layout, shape] of [
    ["NC", [12, 3]],
    ["NCL", [2, 3, 6]],
  ] as const) {
    const padded = new Padded({ layout, shape }, MASKS["every other one"]!(12, 1), 1);
    const layer = settle(new BatchNorm(3, { layout, beta: false }));
    for (const statistics of [
      "batch",
      "running",
      layer.moments(normal(36, 1), { shape }),
    ] as const) {
      const out = new Float32Array(36).fill(9);
      layer.train(padded.x, { shape, mask: padded.mask, statistics, out });
      padded.assertPadding("y", out, null);
    }
  }
});

describe("too little data", () => {
  const CASES = [
    ["NC", [12, 3]],
    ["NLC", [3, 4, 3]],
    ["NCL", [3, 3, 4]],
  ] as const;
  const x = normal(36, 1).fill(Number.NaN, 6, 9);

  test.each(CASES)("%s %j: one value or none by mini-batch", (layout, shape) => {
    const layer = settle(layerOf({ layout, shape }));
    layer.train(normal(36, 2), { shape });
    const out = fillGuards(new Float32Array(36));
    const held = x.slice();
    for (const [ones, got] of [
      [[], "none"],
      [[7], "one"],
    ] as const) {
      const mask = new Uint8Array(12);
      for (const p of ones) mask[p] = 1;
      const message = new RegExp(`^x: expected at least two values per channel, got ${got},`);
      const call = () => layer.train(x, { shape, mask, out });
      assertRefuses(SingleValueError, message, call, layer);
      expect(isGuarded(out)).toBe(true);
      assertRefuses(
        SingleValueError,
        message,
        () => layer.train(x, { shape, mask, out: x }),
        layer,
      );
      assertSameBits("x", x, held);
    }
  });

  test.each(CASES)("%s %j: by the running averages, or as moments", (layout, shape) => {
    const one = new Uint8Array(12).fill(1, 7, 8);
    checkMasked(new Padded({ layout, shape }, one, 1), {}, "running");
    const layer = settle(layerOf({ layout, shape }));
    const empty = new Uint8Array(12);
    const junk = new Float32Array(36).fill(Number.NaN);
    expect(layer.moments(junk, { shape, mask: empty }).count).toBe(0);
    const y = layer.train(junk, { shape, mask: empty, statistics: "running" });
    const { inner } = viewOf({ layout, shape });
    assertSameBits(
      "y",
      y,
      y.map((_, i) => layer.beta![Math.floor(i / inner) % 3]!),
    );
    expect(layer.lastBatch!.count).toBe(0);
    const { dx, dgamma, dbeta } = layer.backward(junk);
    assertSameBits(
      "gradients",
      Float32Array.of(...dx, ...dgamma!, ...dbeta!),
      new Float32Array(42),
    );
  });

  test("NaN in what is left: NonFiniteError, nothing moves", () => {
    const layer = settle(new BatchNorm(3));
    const mask = new Uint8Array(12).fill(1, 2);
    const out = fillGuards(new Float32Array(36));
    const bad = normal(36, 1).fill(Number.NaN, 0, 6).fill(Infinity, 10, 11);
    for (const call of [
      () => layer.train(bad, { mask, out }),
      () => layer.moments(bad, { mask }),
    ]) {
      assertRefuses(NonFiniteError, /^x: expected finite .* in channel 1$/, call, layer);
    }
    expect(isGuarded(out)).toBe(true);
  });
});

describe("what is no mask", () => {
  const expected = "expected a Uint8Array of 12 entries, one for each example and position";

  test.each<[string, unknown, string]>([
    ["null", null, "null"],
    ["a number array", Array(12).fill(1), "an Array of length 12"],
    ["booleans", Array(12).fill(true), "an Array of length 12"],
    ["one for each value", new Uint8Array(36), "a Uint8Array of length 36"],
    ["one for each example", new Uint8Array(4), "a Uint8Array of length 4"],
    ["none", new Uint8Array(0), "a Uint8Array of length 0"],
    ["in float32", new Float32Array(12), "a Float32Array of length 12"],
    ["signed", new Int8Array(12), "an Int8Array of length 12"],
    ["clamped", new Uint8ClampedArray(12), "a Uint8ClampedArray of length 12"],
    ["bytes without a view", new ArrayBuffer(12), "an ArrayBuffer"],
    ["a flag", true, "true"],
  ])("%s: ShapeError", (_, mask, came) => {
    for (const [layout, shape] of [
      ["NLC", [4, 3, 3]],
      ["NCL", [4, 3, 3]],
    ] as const) {
      const layer = settle(new BatchNorm(3, { layout }));
      const x = normal(36, 1);
      const out = fillGuards(new Float32Array(36));
      layer.train(x, { shape });
      const message = new RegExp(`^mask: ${expected}, got ${came}$`);
      const options = { shape, mask: wrong(mask) };
      assertRefuses(ShapeError, message, () => layer.train(x, { ...options, out }), layer);
      assertRefuses(ShapeError, message, () => layer.moments(x, options), layer);
      expect(isGuarded(out)).toBe(true);
    }
  });
});

describe("the batch remembers its mask", () => {
  const shaped = { layout: "NCL", shape: [6, 3, 5] } as const;
  const { shape } = shaped;
  const { mask, x, dy } = new Padded(shaped, MASKS["half of it"]!(30, 1), 1);

  test("a mask that changes after train does not change the gradient", () => {
    const layer = layerOf(shaped);
    const own = mask.slice();
    layer.train(x, { shape, mask: own });
    const expected = layer.backward(dy);
    own.fill(0);
    expect(layer.backward(dy)).toEqual(expected);
  });

  test("of its own train, when it is given back later", () => {
    const layer = layerOf(shaped);
    layer.train(x, { shape, mask });
    const [batch, expected] = [layer.lastBatch!, layer.backward(dy)];
    layer.train(normal(90, 5), { shape });
    expect(layer.lastBatch!.mask).toBeNull();
    expect(layer.backward(dy, { batch })).toEqual(expected);
    expect(layer.backwardSums(dy, { batch }).count).toBe(batch.count);
  });

  test("a train without one after it is as ever", () => {
    const [layer, fresh] = [layerOf(shaped), layerOf(shaped)];
    layer.train(x, { shape, mask, updateRunning: false });
    const plain = normal(90, 5);
    assertSameBits("y", layer.train(plain, { shape }), fresh.train(plain, { shape }));
    expect(layer.backward(plain)).toEqual(fresh.backward(plain));
    expect(stateOf(layer)).toBe(stateOf(fresh));
  });
});
