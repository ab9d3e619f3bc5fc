// The same bits wherever data live: ordinary arrays, shared ones, those of other realms, kernel
// memory of any size, at any offset, in place or not; one example alone or inside a batch.

import { Kernels } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  layerOf,
  nameOf,
  SHAPES,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
} from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { anyBits, normal } from "./support/data.js";
import { PLACES, type Place, type Placed, put, room } from "./support/places.js";
import { check } from "./support/property.js";

const SMALL = new Kernels({ memory: 2 << 20 });
const LARGE = new Kernels({ memory: 16 << 20 });

interface Data {
  x: Float32Array;
  dy: Float32Array;
}

let latest: { shaped: Shaped; seed: number; data: Data } | undefined;

/** x and dy, kept for the next call. */
function dataOf(shaped: Shaped, seed: number): Data {
  if (latest?.shaped !== shaped || latest.seed !== seed) {
    const x = normal(sizeOf(shaped), seed, 2);
    latest = { shaped, seed, data: { x, dy: normal(sizeOf(shaped), seed + 1, 0.5) } };
  }
  return latest.data;
}

type Results = Record<string, Float32Array | Float64Array>;

function assertSameResults(actual: Results, expected: Results): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const name of Object.keys(expected)) assertSameBits(name, actual[name]!, expected[name]!);
}

/** Everything a layer computes, from ordinary arrays into fresh ones. */
function plainly(shaped: Shaped, seed: number, kernels: Kernels): Results {
  const layer = settle(layerOf(shaped, { kernels }, seed), seed);
  const { shape } = shaped;
  const { x, dy } = dataOf(shaped, seed);
  const y = layer.train(x, { shape });
  const { mean, variance } = layer.lastBatch!;
  const { dx, dgamma, dbeta } = layer.backward(dy);
  const z = layer.infer(x, { shape });
  const { runningMean, runningVariance } = layer;
  layer.train(x, { shape, statistics: "running" });
  const frozen = layer.backward(dy).dx;
  const gradients = { dx, dgamma: dgamma!, dbeta: dbeta!, frozen };
  return { y, mean, variance, ...gradients, z, runningMean, runningVariance };
}

/** Where each array of a layer's calls lives. */
interface Placement {
  x: Place;
  y: Place;
  dy: Place;
  dx: Place;
  parameters: Place;
  lead: number;
}

/** The same, of arrays in given places. */
function placed(shaped: Shaped, seed: number, kernels: Kernels, where: Placement): Results {
  const layer = settle(layerOf(shaped, { kernels }, seed), seed);
  const { shape } = shaped;
  const data = dataOf(shaped, seed);
  const used: Placed[] = [];
  const use = (one: Placed): Float32Array => {
    used.push(one);
    return one.array;
  };
  const { lead } = where;
  const x = use(put(where.x, kernels, data.x, lead));
  const out = use(room(where.y, kernels, x.length, lead + 1));
  const dy = use(put(where.dy, kernels, data.dy, lead + 2));
  const dx = use(room(where.dx, kernels, x.length, lead + 3));
  const dgamma = use(room(where.parameters, kernels, layer.channels, lead));
  const dbeta = use(room(where.parameters, kernels, layer.channels, lead + 1));
  const y = layer.train(x, { shape, out }).slice();
  expect(layer.lastBatch!.x).toBe(x);
  const { mean, variance } = layer.lastBatch!;
  const given = layer.backward(dy, { out: { dx, dgamma, dbeta } });
  expect(given.dx).toBe(dx);
  expect(given.dgamma).toBe(dgamma);
  expect(given.dbeta).toBe(dbeta);
  const gradients = { dx: dx.slice(), dgamma: dgamma.slice(), dbeta: dbeta.slice() };
  const z = layer.infer(x, { shape, out }).slice();
  const { runningMean, runningVariance } = layer;
  assertSameBits("z", layer.freeze().infer(x, { shape, out }), z);
  layer.train(x, { shape, statistics: "running" });
  const frozen = layer.backward(dy, { out: { dx } }).dx.slice();
  assertSameBits("x", x, data.x);
  assertSameBits("dy", dy, data.dy);
  for (const one of used) one.assertIntact();
  for (const one of used) one.free();
  return { y, mean, variance, ...gradients, frozen, z, runningMean, runningVariance };
}

/** The same, each in place. */
function inPlace(shaped: Shaped, seed: number, kernels: Kernels, place: Place): Results {
  const layer = settle(layerOf(shaped, { kernels }, seed), seed);
  const { shape } = shaped;
  const data = dataOf(shaped, seed);
  const a = put(place, kernels, data.x, 1);
  const b = put(place, kernels, data.dy, 2);
  const [x, dy] = [a.array, b.array];
  const y = layer.train(x, { shape, out: x }).slice();
  expect(layer.lastBatch!.x).toBeNull();
  const { mean, variance } = layer.lastBatch!;
  x.set(data.x);
  const { dgamma, dbeta, dx: same } = layer.backward(dy, { x, out: { dx: dy } });
  expect(same).toBe(dy);
  const gradients = { dx: dy.slice(), dgamma: dgamma!, dbeta: dbeta! };
  const z = layer.infer(x, { shape, out: x }).slice();
  const { runningMean, runningVariance } = layer;
  x.set(data.x);
  assertSameBits("z", layer.freeze().infer(x, { shape, out: x }), z);
  x.set(data.x);
  dy.set(data.dy);
  layer.train(x, { shape, statistics: "running", out: x });
  x.set(data.x);
  const frozen = layer.backward(dy, { x, out: { dx: dy } }).dx.slice();
  for (const one of [a, b]) {
    one.assertIntact();
    one.free();
  }
  return { y, mean, variance, ...gradients, frozen, z, runningMean, runningVariance };
}

const everywhere = (place: Place): Omit<Placement, "lead"> => ({
  x: place,
  y: place,
  dy: place,
  dx: place,
  parameters: place,
});

/** More channels than the parameter arrays hold, too short for `backward` to take them a few at a time. */
const MANY: Shaped = { layout: "NCL", shape: [40, 1030, 17] };

describe.each([...SHAPES, MANY].map((shaped) => [nameOf(shaped), shaped] as const))(
  "%s",
  (_, shaped) => {
    const expected = plainly(shaped, 5, LARGE);

    test("memory of any size", () => {
      assertSameResults(plainly(shaped, 5, SMALL), expected);
    });

    test.each(PLACES)("all in place: %s", (place) => {
      assertSameResults(placed(shaped, 5, LARGE, { ...everywhere(place), lead: 1 }), expected);
    });

    test.each(["ordinary", "tensor", "part"] as const)(
      "each in place of its input: %s",
      (place) => {
        assertSameResults(inPlace(shaped, 5, LARGE, place), expected);
      },
    );

    test("some in kernel memory, some not", () => {
      const mixed: Placement[] = [
        { x: "tensor", y: "ordinary", dy: "ordinary", dx: "tensor", parameters: "part", lead: 1 },
        { x: "offset", y: "part", dy: "part", dx: "ordinary", parameters: "tensor", lead: 2 },
        { x: "part", y: "tensor", dy: "offset", dx: "offset", parameters: "offset", lead: 3 },
        { x: "ordinary", y: "ordinary", dy: "tensor", dx: "part", parameters: "part", lead: 0 },
      ];
      for (const where of mixed) assertSameResults(placed(shaped, 5, LARGE, where), expected);
    });
  },
);

describe("any shape, any places", () => {
  const place = fc.constantFrom(...PLACES);

  test("of memory of 2 MiB and of 16 MiB", () => {
    check(
      fc.property(
        shapes(2, 12000),
        fc.record({
          x: place,
          y: place,
          dy: place,
          dx: place,
          parameters: place,
          lead: fc.integer({ min: 0, max: 3 }),
        }),
        fc.constantFrom(SMALL, LARGE),
        seeds,
        (shaped, where, kernels, seed) => {
          assertSameResults(
            placed(shaped, seed, kernels, where),
            plainly(shaped, seed, kernels === SMALL ? LARGE : SMALL),
          );
        },
      ),
      150,
    );
  });

  test("in place", () => {
    check(
      fc.property(shapes(2, 12000), place, seeds, (shaped, where, seed) => {
        assertSameResults(inPlace(shaped, seed, SMALL, where), plainly(shaped, seed, SMALL));
      }),
      60,
    );
  });
});

describe("at test time", () => {
  /** Some examples of x, each as [first, how many]. */
  function someOf(examples: number): [number, number][] {
    const step = Math.max(1, Math.floor(examples / 11));
    const runs: [number, number][] = [[examples - 1, 1]];
    for (let n = 0; n < examples; n += step) runs.push([n, 1], [n, Math.min(3, examples - n)]);
    return runs;
  }

  function compareAlone(shaped: Shaped, seed: number): void {
    const layer = settle(layerOf(shaped, {}, seed), seed);
    const x = normal(sizeOf(shaped), seed);
    const [examples, ...rest] = shaped.shape as [number, ...number[]];
    const each = x.length / examples;
    for (const one of [layer, layer.freeze()]) {
      const y = one.infer(x, { shape: shaped.shape });
      for (const [first, count] of someOf(examples)) {
        const range = [first * each, (first + count) * each] as const;
        const shape = [count, ...rest];
        const alone = one.infer(x.slice(...range), { shape });
        assertSameBits("a copy", alone, y.slice(...range));
        assertSameBits("a part", one.infer(x.subarray(...range), { shape }), alone);
      }
    }
  }

  test.each(SHAPES.map((shaped) => [nameOf(shaped), shaped] as const))(
    "one example alone or inside a batch: %s",
    (_, shaped) => compareAlone(shaped, 5),
  );

  test("one example alone or inside a batch: any shape", () => {
    check(fc.property(shapes(1), seeds, compareAlone), 80);
  });

  // The walks need two values a channel: one example goes without.
  test.each([1, 33, 64, 65, 1023, 1024, 1025])(
    "one example of %i channels, anywhere",
    (channels) => {
      const shaped: Shaped = { layout: "NC", shape: [2, channels] };
      const layer = layerOf(shaped, { kernels: SMALL }, 3);
      const values = normal(channels, 4);
      // Among others it is walked.
      const both = layer.infer(Float32Array.of(...values, ...values)).subarray(0, channels);
      for (const one of [layer, layer.freeze()]) {
        for (const from of PLACES) {
          for (const to of PLACES) {
            const x = put(from, SMALL, values, 1);
            const out = room(to, SMALL, channels, 3);
            one.infer(x.array, { out: out.array });
            assertSameBits(`${from} to ${to}`, out.array, both);
            assertSameBits("x", x.array, values);
            one.infer(x.array, { out: x.array });
            assertSameBits(`${from} in place`, x.array, both);
            for (const place of [x, out]) {
              place.assertIntact();
              place.free();
            }
          }
        }
      }
    },
  );

  test("any bits, a few values in JavaScript, more in the kernels", () => {
    check(
      fc.property(
        fc.oneof(shapes(1, 32), shapes(1, 300)),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(0, 1e-5),
        seeds,
        (shaped, gamma, beta, epsilon, seed) => {
          const kernels = SMALL;
          const layer = layerOf(shaped, { gamma, beta, epsilon, kernels }, seed);
          layer.gamma?.set(anyBits(layer.channels, seed + 1));
          layer.beta?.set(anyBits(layer.channels, seed + 2));
          layer.runningMean.set(anyBits(layer.channels, seed + 3));
          layer.runningVariance.set(
            anyBits(layer.channels, seed + 4).map((v) => (v > 0 && v < Infinity ? v : 0)),
          );
          const { shape } = shaped;
          const values = anyBits(sizeOf(shaped), seed);
          const x = put("tensor", kernels, values);
          // Only frozen layers do few values in JavaScript.
          const frozen = layer.freeze();
          const expected = layer.infer(x.array, { shape });
          assertSameBits("frozen, tensor", frozen.infer(x.array, { shape }), expected);
          assertSameBits("array", layer.infer(values, { shape }), expected);
          assertSameBits("frozen, array", frozen.infer(values, { shape }), expected);
          const out = values.slice();
          assertSameBits("in place", layer.infer(out, { shape, out }), expected);
          out.set(values);
          assertSameBits("frozen in place", frozen.infer(out, { shape, out }), expected);
          x.free();
        },
      ),
      300,
    );
  });

  test("a mini-batch too: the terms of train are those of infer", () => {
    check(
      fc.property(shapes(2), seeds, (shaped, seed) => {
        const options = { decay: 0, runningVarianceOf: "population" } as const;
        const layer = layerOf(shaped, options, seed);
        const x = normal(sizeOf(shaped), seed);
        const y = layer.train(x, { shape: shaped.shape });
        // With decay 0 the running averages are those of the mini-batch.
        assertSameBits("y", layer.infer(x, { shape: shaped.shape }), y);
      }),
      60,
    );
  });
});
