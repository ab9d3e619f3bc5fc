// Kernels on several threads give the bits of kernels on one, for any number of threads. Thresholds are so low here that
// tensors of a few hundred values are cut into pieces.

import * as library from "batchnorm-wasm";
import {
  type Activation,
  adapt,
  adapter,
  BatchNorm,
  calibrate,
  diagnose,
  Kernels,
} from "batchnorm-wasm";
import * as testTime from "batchnorm-wasm/infer";
import { startKernels, type ThreadedKernels } from "batchnorm-wasm/threads";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { share, sharedSoFar } from "../../src/engine/shared.js";
import { conformance } from "../conformance/suite.js";
import {
  layerOf,
  nameOf,
  SHAPES,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
} from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { check } from "../support/property.js";

vi.mock("../../src/threads/sizes.js", () => ({
  ALONE: 48,
  SMALL: 0,
  HEAVY: 3,
  PIECE: 16,
  MOST: 16,
  CACHED: 3000,
  RUN: 32,
  WAKE: 0,
  HELD: 1,
  EARLY: 8,
  LATE: 25,
}));

// So that the states of rows of 1024 columns need the room several times.
vi.mock("../../src/threads/room.js", async (load) => ({
  ...(await load<typeof import("../../src/threads/room.js")>()),
  COLUMNS: 2048,
}));

const BYTES = 64 << 20;
const PLAIN = new Kernels({ memory: BYTES });
type Results = Record<string, Float32Array | Float64Array>;

/** All that a layer computes of tensors in kernel memory. */
function resultsOn(kernels: Kernels, shaped: Shaped, seed: number, mask?: Uint8Array): Results {
  const layer = settle(layerOf(shaped, { kernels }, seed), seed);
  const { shape } = shaped;
  const size = sizeOf(shaped);
  const [x, y, dy, dx] = [0, 0, 0, 0].map(() => kernels.alloc(size)) as Float32Array[];
  x!.set(normal(size, seed, 2));
  dy!.set(normal(size, seed + 1, 0.5));
  const options = { shape, out: y!, ...(mask && { mask }) };
  const results: Results = {};
  const keep = (name: string, array: Float32Array | Float64Array): void => {
    results[name] = array.slice();
  };
  const moments = layer.moments(x!, { shape, ...(mask && { mask }) });
  keep("moments.mean", moments.mean);
  keep("moments.m2", moments.m2);
  keep("train", layer.train(x!, options));
  keep("mean", layer.lastBatch!.mean);
  keep("variance", layer.lastBatch!.variance);
  const sums = layer.backwardSums(dy!);
  keep("sumDy", sums.sumDy);
  keep("sumDyXmu", sums.sumDyXmu);
  const { dgamma, dbeta } = layer.backward(dy!, { out: { dx: dx! } });
  keep("dx", dx!);
  keep("dgamma", dgamma!);
  keep("dbeta", dbeta!);
  keep("dx by sums", layer.backward(dy!, { sums, out: { dx: dx! } }).dx);
  // From kernel memory into a fresh array, and the other way round.
  keep("fresh", layer.train(x!.slice(), { shape, ...(mask && { mask }) }));
  keep("dx into a fresh array", layer.backward(dy!).dx);
  keep("infer", layer.infer(x!, options));
  keep("frozen", layer.freeze().infer(x!, options));
  layer.train(x!, { ...options, statistics: "running" });
  keep("frozen gradient", layer.backward(dy!, { out: { dx: dx! } }).dx);
  keep("dx in place", layer.backward(dy!, { out: { dx: dy! } }).dx);
  keep("in place", layer.train(x!, { ...options, out: x! }));
  keep("running mean", layer.runningMean);
  keep("running variance", layer.runningVariance);
  for (const tensor of [x, y, dy, dx]) kernels.free(tensor!);
  for (const activation of [null, "relu", [-0.5, 1.5]] as const) {
    Object.assign(results, blockOn(kernels, shaped, seed, mask, activation));
  }
  return Object.assign(results, renormOn(kernels, shaped, seed, mask));
}

/** What a layer with batch renormalization computes. Its limits leave some channels as they are. */
function renormOn(kernels: Kernels, shaped: Shaped, seed: number, mask?: Uint8Array): Results {
  const renorm = { rmax: 1.2, dmax: 0.3 };
  const layer = settle(layerOf(shaped, { kernels, renorm }, seed), seed);
  const size = sizeOf(shaped);
  const [x, y, dy, dx] = [0, 0, 0, 0].map(() => kernels.alloc(size)) as Float32Array[];
  x!.set(normal(size, seed, 2));
  dy!.set(normal(size, seed + 1, 0.5));
  layer.train(x!, { shape: shaped.shape, out: y!, ...(mask && { mask }) });
  const { dgamma, dbeta } = layer.backward(dy!, { out: { dx: dx! } });
  const results: Results = {};
  const all = { train: y!, dx: dx!, dgamma: dgamma!, dbeta: dbeta! };
  for (const [name, array] of Object.entries(all)) results[`${name}, renorm`] = array.slice();
  for (const tensor of [x, y, dy, dx]) kernels.free(tensor!);
  return results;
}

/** What a layer computes with an activation and a residual, which may be left out. */
function blockOn(
  kernels: Kernels,
  shaped: Shaped,
  seed: number,
  mask: Uint8Array | undefined,
  activation: Activation | null,
): Results {
  const layer = settle(layerOf(shaped, { kernels, activation }, seed), seed);
  const { shape } = shaped;
  const size = sizeOf(shaped);
  const tensors = [0, 0, 0, 0, 0, 0].map(() => kernels.alloc(size)) as Float32Array[];
  const [x, add, y, dy, dx, dadd] = tensors as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  x.set(normal(size, seed, 2));
  dy.set(normal(size, seed + 1, 0.5));
  const residual = normal(size, seed + 2, 1);
  add.set(residual);
  const options = { shape, out: y, ...(mask && { mask }) };
  const results: Results = {};
  const keep = (name: string, array: Float32Array | Float64Array): void => {
    results[`${name}, ${activation}`] = array.slice();
  };
  if (activation !== null) {
    keep("train", layer.train(x, options));
    const sums = layer.backwardSums(dy);
    keep("sumDy", sums.sumDy);
    keep("sumDyXmu", sums.sumDyXmu);
    const { dgamma, dbeta } = layer.backward(dy, { out: { dx } });
    keep("dx", dx);
    keep("dgamma", dgamma!);
    keep("dbeta", dbeta!);
    keep("dx by sums", layer.backward(dy, { sums, out: { dx } }).dx);
    dx.set(dy);
    keep("dx in place", layer.backward(dx, { out: { dx } }).dx);
    keep("infer", layer.infer(x, options));
    keep("frozen", layer.freeze().infer(x, options));
  }
  keep("train of a sum", layer.train(x, { ...options, add }));
  const sums = layer.backwardSums(dy);
  keep("sumDy of a sum", sums.sumDy);
  keep("sumDyXmu of a sum", sums.sumDyXmu);
  const { dgamma, dbeta } = layer.backward(dy, { out: { dx, dadd } });
  keep("dx of a sum", dx);
  keep("dadd", dadd);
  keep("dgamma of a sum", dgamma!);
  keep("dbeta of a sum", dbeta!);
  // A residual, or the results, in ordinary arrays.
  keep("dadd into a fresh array", layer.backward(dy).dadd!);
  keep("infer of a sum", layer.infer(x, { ...options, add }));
  keep("frozen sum", layer.freeze().infer(x, { ...options, add: residual }));
  keep("sum in place", layer.train(x, { ...options, add, out: add }));
  const of = { add: residual, out: { dx, dadd: dy } };
  keep("dx with dadd in place", layer.backward(dy, of).dx);
  keep("dadd in place", dy);
  keep("ordinary sum", layer.train(x, { ...options, add: residual }));
  layer.train(x, { ...options, add: residual, statistics: "running" });
  keep("frozen gradient of a sum", layer.backward(dy, { out: { dx: dy, dadd } }).dx);
  for (const tensor of tensors) kernels.free(tensor);
  return results;
}

/** What the tools around a layer compute of tensors in kernel memory. */
async function toolsOn(kernels: Kernels, shaped: Shaped, seed: number): Promise<Results> {
  const layer = settle(layerOf(shaped, { kernels, activation: [-9, 9] }, seed), seed);
  const { shape } = shaped;
  const [x, other, y] = [0, 0, 0].map(() => kernels.alloc(sizeOf(shaped))) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  x.set(normal(x.length, seed, 2));
  other.set(normal(x.length, seed + 1, 3, 2));
  const results: Results = {};
  const keep = (name: string, array: Float32Array | Float64Array): void => {
    results[name] = array.slice();
  };
  const stream = adapter(layer, { prior: 4, memory: 2 * x.length });
  keep("adapter", stream.infer(x, { shape, out: y }));
  keep("adapter, later", stream.infer(other, { shape, out: y }));
  const adapted = adapt(layer, other, { prior: 4, shape });
  keep("adapt", adapted.infer(x, { shape, out: y }));
  keep("inverse", adapted.inverse(y, { shape, out: y }));
  const { meanDrift, varianceRatio } = diagnose(layer, other, { shape }).channels;
  keep("meanDrift", Float64Array.from(meanDrift));
  keep("varianceRatio", Float64Array.from(varianceRatio));
  const pooled = layer.moments(x, { shape }).merge(layer.moments(other, { shape }));
  keep("train by pooled moments", layer.train(x, { shape, statistics: pooled, out: y }));
  const sums = layer.backwardSums(other).merge(layer.backwardSums(x));
  keep("dx of a split batch", layer.backward(other, { sums, out: { dx: y } }).dx);
  let step = 0;
  const forward = (batch: Float32Array): void => {
    keep(`calibrate, step ${step++}`, layer.train(batch, { shape, out: y }));
  };
  await calibrate([layer], forward, [x, other]);
  keep("calibrated mean", layer.runningMean);
  keep("calibrated variance", layer.runningVariance);
  for (const tensor of [x, other, y]) kernels.free(tensor);
  return results;
}

function assertSame(actual: Results, expected: Results): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const name of Object.keys(expected)) assertSameBits(name, actual[name]!, expected[name]!);
}

/** Shapes that go through every way in which traversals are cut. */
const LARGE: Shaped[] = [
  { layout: "NC", shape: [3000, 96] },
  { layout: "NC", shape: [700, 1024] },
  { layout: "NC", shape: [300, 1030] },
  { layout: "NHWC", shape: [20, 30, 30, 20] },
  { layout: "NCHW", shape: [5, 3, 90, 90] },
  { layout: "NCHW", shape: [16, 128, 28, 28] },
  { layout: "NCL", shape: [40, 1030, 17] },
  { layout: "NCL", shape: [1, 1, 200_003] },
  // Each channel fills a piece of `backward`, of which a job has at most 32.
  { layout: "NCL", shape: [19, 40, 1800] },
];

const expectedOf = new Map<string, Results>();
function expected(shaped: Shaped): Results {
  const name = nameOf(shaped);
  if (!expectedOf.has(name)) expectedOf.set(name, resultsOn(PLAIN, shaped, 7));
  return expectedOf.get(name)!;
}

describe.each([1, 2, 3, 4, 7])("%i threads", (threads) => {
  let kernels: ThreadedKernels;
  beforeAll(async () => {
    kernels = await startKernels({ threads, memory: BYTES });
  });
  afterAll(() => {
    // Bits would be right without workers too, but then nothing has been tested.
    const { threads: left } = kernels;
    kernels.close();
    expect(left).toBe(threads);
  });

  test.each([...SHAPES, ...LARGE].map((shaped) => [nameOf(shaped), shaped] as const))(
    "%s",
    (_, shaped) => assertSame(resultsOn(kernels, shaped, 7), expected(shaped)),
  );

  // Too large for all that the others compute: more channels than a tile has, in planes of more than one block. The second
  // example goes on with the states of the first one.
  test("the moments of large planes of several tiles", () => {
    const shape = [2, 1030, 4100];
    const momentsOn = (own: Kernels): Results => {
      const x = own.alloc(2 * 1030 * 4100);
      for (let i = 0; i < x.length; i++) x[i] = ((i * 7919) % 65537) - 30000;
      const { mean, m2 } = new BatchNorm(1030, { layout: "NCL", kernels: own }).moments(x, {
        shape,
      });
      own.free(x);
      return { mean, m2 };
    };
    assertSame(momentsOn(kernels), momentsOn(PLAIN));
  });

  test.each([
    { layout: "NC", shape: [3000, 96] } as const,
    { layout: "NCHW", shape: [16, 12, 28, 28] } as const,
  ])("calibrate, adapt, adapter, inverse, diagnose, pooled statistics: %o", async (shaped) => {
    assertSame(await toolsOn(kernels, shaped, 7), await toolsOn(PLAIN, shaped, 7));
  });

  test("any shape, with a mask or without", () => {
    check(
      fc.property(shapes(2, 12000), seeds, fc.boolean(), (shaped, seed, hasMask) => {
        const positions = sizeOf(shaped) / layerOf(shaped, {}, seed).channels;
        const mask = hasMask
          ? Uint8Array.from({ length: positions }, (_, i) => (i < 2 || (i * seed) % 3 ? 1 : 0))
          : undefined;
        assertSame(resultsOn(kernels, shaped, seed, mask), resultsOn(PLAIN, shaped, seed, mask));
      }),
      60,
    );
  });

  test("the conformance suite, whose arrays go through the shared memory in parts", async () => {
    const before = sharedSoFar();
    const alone = await conformance(library, testTime);
    // Without this, calls with ordinary arrays alone stay on one thread.
    const { choose: _, ...machine } = kernels.machine as object & { choose?: unknown };
    const shared = Object.create(Kernels.prototype, { machine: { value: machine } });
    share(shared);
    const together = await conformance(library, testTime).finally(() => share(before!));
    expect(together).toEqual(alone);
  });
});

test("the layer says which kernels it has, and they are a Kernels", async () => {
  const kernels = await startKernels({ threads: 2 });
  expect(kernels).toBeInstanceOf(Kernels);
  expect(new BatchNorm(3, { kernels }).kernels).toBe(kernels);
  kernels.close();
});
