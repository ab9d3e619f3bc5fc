// Ordinary arrays of `train` and `backward` that shared memory holds during the call: bits, memory, and which calls are held.
// Thresholds are so low here that small tensors are held and cut into pieces.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type Activation, BatchNorm, Kernels, NonFiniteError } from "batchnorm-wasm";
import { startKernels, type ThreadedKernels } from "batchnorm-wasm/threads";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { Habits, SharedMemory } from "../../src/threads/held.js";
import {
  layerOf,
  nameOf,
  SHAPES,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
  stateOf,
} from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { check } from "../support/property.js";

vi.mock("../../src/threads/sizes.js", async (load) => ({
  ...(await load<typeof import("../../src/threads/sizes.js")>()),
  ALONE: 48,
  SMALL: 0,
  PIECE: 16,
  CACHED: 3000,
  RUN: 32,
  WAKE: 0,
  HELD: 1,
}));

const BYTES = 32 << 20;
const PLAIN = new Kernels();
type Results = Record<string, Float32Array | Float64Array>;

/** All calls are held, as if nothing else had been as fast. How often there was room for that is counted. */
function holdAll(): { calls: number; held: number } {
  const count = { calls: 0, held: 0 };
  const { hold } = SharedMemory.prototype;
  vi.spyOn(Habits.prototype, "begin").mockReturnValue(true);
  vi.spyOn(SharedMemory.prototype, "hold").mockImplementation(function (
    this: SharedMemory,
    ...args
  ) {
    const isHeld = hold.apply(this, args);
    count.calls++;
    count.held += Number(isHeld);
    return isHeld;
  });
  return count;
}

afterEach(() => vi.restoreAllMocks());

/** What `train` and `backward` make of ordinary arrays, in all the ways in which arrays can be given. */
function resultsOn(kernels: Kernels, shaped: Shaped, seed: number): Results {
  const results: Results = {};
  for (const activation of [null, "relu", [-0.5, 1.5]] as const) {
    Object.assign(results, resultsWith(kernels, shaped, seed, activation));
  }
  return results;
}

function resultsWith(
  kernels: Kernels,
  shaped: Shaped,
  seed: number,
  activation: Activation | null,
): Results {
  const layer = settle(layerOf(shaped, { kernels, activation }, seed), seed);
  const { shape } = shaped;
  const size = sizeOf(shaped);
  const x = normal(size, seed, 2);
  const dy = normal(size, seed + 1, 0.5);
  const add = normal(size, seed + 2);
  const results: Results = {};
  const keep = (name: string, array: Float32Array | Float64Array | null | undefined): void => {
    if (array) results[`${name}, ${activation}`] = array.slice();
  };
  const back = (name: string, residual: boolean): void => {
    const { dx, dgamma, dbeta, dadd } = layer.backward(dy);
    const given = { dx: new Float32Array(size), ...(residual && { dadd: new Float32Array(size) }) };
    layer.backward(dy, { out: given });
    const inPlace = dy.slice();
    layer.backward(inPlace, { out: { dx: inPlace } });
    const all = { dx, dgamma, dbeta, dadd, given: given.dx, inPlace, givenDadd: given.dadd };
    for (const [key, array] of Object.entries(all)) keep(`${name}: ${key}`, array);
    if (!residual) return;
    const dadd2 = dy.slice();
    keep(`${name}: dx with dadd in place`, layer.backward(dadd2, { out: { dadd: dadd2 } }).dx);
    keep(`${name}: dadd in place`, dadd2);
  };
  keep("train", layer.train(x, { shape }));
  keep("mean", layer.lastBatch!.mean);
  back("train", false);
  const sums = layer.backwardSums(dy);
  keep("dx by sums", layer.backward(dy, { sums }).dx);
  const inPlace = x.slice();
  keep("in place", layer.train(inPlace, { shape, out: inPlace }));
  keep("sum", layer.train(x, { shape, add }));
  back("sum", true);
  const both = add.slice();
  keep("sum in place", layer.train(x, { shape, add: both, out: both }));
  layer.train(x, { shape, statistics: "running" });
  back("running", false);
  // One of the arrays lies in shared memory, the others do not.
  const tensor = kernels.alloc(size) as Float32Array;
  tensor.set(x);
  keep("train of a tensor", layer.train(tensor, { shape, add }));
  keep("dx of a tensor", layer.backward(dy).dx);
  keep("train to a tensor", layer.train(x, { shape, out: tensor }));
  keep("dx to a tensor", layer.backward(dy, { out: { dx: tensor } }).dx);
  kernels.free(tensor);
  assertSameBits("x is as it was", x, normal(size, seed, 2));
  assertSameBits("dy is as it was", dy, normal(size, seed + 1, 0.5));
  keep("running mean", layer.runningMean);
  keep("running variance", layer.runningVariance);
  return results;
}

function assertSame(actual: Results, expected: Results): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const name of Object.keys(expected)) assertSameBits(name, actual[name]!, expected[name]!);
}

/** Shapes that go through every way in which traversals are cut, and through several stream buffers each. */
const LARGE: Shaped[] = [
  { layout: "NC", shape: [3000, 96] },
  { layout: "NC", shape: [300, 1030] },
  { layout: "NHWC", shape: [20, 30, 30, 20] },
  { layout: "NCHW", shape: [5, 3, 90, 90] },
  { layout: "NCHW", shape: [8, 64, 28, 28] },
  { layout: "NCL", shape: [40, 1030, 17] },
  { layout: "NCL", shape: [1, 1, 200_003] },
];

const expectedOf = new Map<string, Results>();
function expected(shaped: Shaped): Results {
  const name = nameOf(shaped);
  if (!expectedOf.has(name)) expectedOf.set(name, resultsOn(PLAIN, shaped, 7));
  return expectedOf.get(name)!;
}

describe.each([2, 3, 7])("on %i threads, the bits of one", (threads) => {
  let kernels: ThreadedKernels;
  beforeAll(async () => {
    kernels = await startKernels({ threads, memory: BYTES });
  });
  afterAll(() => {
    const { threads: left } = kernels;
    kernels.close();
    expect(left).toBe(threads);
  });

  test.each(
    (threads === 2 ? [...SHAPES, ...LARGE] : LARGE).map(
      (shaped) => [nameOf(shaped), shaped] as const,
    ),
  )("%s", (_, shaped) => {
    const count = holdAll();
    assertSame(resultsOn(kernels, shaped, 7), expected(shaped));
    expect(count.calls).toBeGreaterThan(50);
    expect(count.held).toBe(count.calls);
  });

  test("of any shape, held or not, whichever was faster", () => {
    check(
      fc.property(shapes(2, 12000), seeds, (shaped, seed) => {
        assertSame(resultsOn(kernels, shaped, seed), resultsOn(PLAIN, shaped, seed));
      }),
      15,
    );
  });
});

test("with one thread nothing is held, nor after close", async () => {
  const count = holdAll();
  const one = await startKernels({ threads: 1 });
  const two = await startKernels({ threads: 2 });
  two.close();
  const shaped: Shaped = { layout: "NC", shape: [300, 20] };
  for (const kernels of [one, two]) {
    assertSame(resultsOn(kernels, shaped, 3), resultsOn(PLAIN, shaped, 3));
  }
  expect(count.calls).toBe(0);
});

describe("the memory", () => {
  let kernels: ThreadedKernels;
  beforeEach(async () => {
    kernels = await startKernels({ threads: 2, memory: 4 << 20 });
  });
  afterEach(() => kernels.close());

  const SIZE = 60_000;
  const train = (array = normal(SIZE, 1)): Float32Array => {
    const bn = new BatchNorm(60, { kernels });
    bn.train(array, { shape: [SIZE / 60, 60] });
    return bn.backward(array).dx;
  };

  test("is as free after a call as before it, and all of it can be allocated", () => {
    const count = holdAll();
    const { memory } = kernels.machine;
    const before = memory.freeBytes;
    train();
    expect(count.held).toBe(2);
    expect(memory.freeBytes).toBe(before);
    const first = kernels.alloc(64);
    kernels.free(first);
    const all = kernels.alloc(Math.floor(before / 4) - 1024);
    expect(all.byteOffset - first.byteOffset).toBeLessThan(4096);
    expect(all.every((value) => value === 0)).toBe(true);
  });

  test("that tensors have is left alone, wherever there is room between them", () => {
    const count = holdAll();
    const expected = train();
    const tensors = Array.from({ length: 12 }, () => kernels.alloc(SIZE + 1000));
    for (const [i, tensor] of tensors.entries()) tensor.fill(i + 1);
    // Two gaps, of which the first one is too small for a call of `backward`.
    const freed = [1, 4, 5, 6];
    for (const i of freed) kernels.free(tensors[i]!);
    assertSameBits("dx", train(), expected);
    expect(count.held).toBe(4);
    for (const [i, tensor] of tensors.entries()) {
      if (!freed.includes(i)) expect(tensor.every((value) => value === i + 1)).toBe(true);
    }
  });

  test("may be too full: the call is not held, and has the same bits", () => {
    const count = holdAll();
    const expected = train();
    const rest = kernels.alloc(Math.floor(kernels.machine.memory.freeBytes / 4) - 50_000);
    assertSameBits("dx", train(), expected);
    expect(count).toEqual({ calls: 4, held: 2 });
    kernels.free(rest);
  });

  test("keeps no array of a user", async () => {
    const count = holdAll();
    let array: Float32Array | undefined = normal(SIZE, 1);
    const refs = [new WeakRef(array), new WeakRef(train(array))];
    array = undefined;
    expect(count.held).toBe(2);
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as () => void;
    for (let i = 0; i < 10 && refs.some((ref) => ref.deref() !== undefined); i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      gc();
    }
    expect(refs.map((ref) => ref.deref())).toEqual([undefined, undefined]);
  });

  test("is not held for padding, for infer, for moments", () => {
    const count = holdAll();
    const bn = new BatchNorm(60, { kernels });
    const x = normal(SIZE, 1);
    const shape = [SIZE / 60, 60];
    const mask = new Uint8Array(SIZE / 60).fill(1, 5);
    bn.train(x, { shape, mask });
    bn.backward(x);
    bn.infer(x, { shape });
    bn.moments(x, { shape });
    expect(count.calls).toBe(0);
  });

  test("a call that refuses its values leaves all as it was, and the next one is right", () => {
    holdAll();
    const bn = new BatchNorm(60, { kernels });
    const x = normal(SIZE, 1);
    const out = normal(SIZE, 2);
    x[70] = Number.NaN;
    const before = stateOf(bn);
    expect(() => bn.train(x, { shape: [SIZE / 60, 60], out })).toThrow(NonFiniteError);
    expect(stateOf(bn)).toBe(before);
    assertSameBits("out", out, normal(SIZE, 2));
    const plain = new BatchNorm(60);
    const good = normal(SIZE, 3);
    assertSameBits("infer", bn.infer(good), plain.infer(good));
    assertSameBits("train", bn.train(good), plain.train(good));
  });
});

describe("the faster way", () => {
  /** Calls of one kind that take so long, held and not held. Returns how many of them were held. */
  const calls = (habits: Habits, n: number, held: number, parts: number, late = -1): number => {
    let isHeld = 0;
    for (let i = 0; i < n; i++) {
      const way = habits.begin(1);
      now += (way ? held : parts) + (i === late ? 100 : 0);
      habits.end();
      isHeld += Number(way);
    }
    return isHeld;
  };
  let now = 0;
  beforeEach(() => {
    now = 0;
    vi.spyOn(performance, "now").mockImplementation(() => now);
  });

  test("is tried first, and taken from then on but for a few calls", () => {
    expect(calls(new Habits(), 8, 1, 9)).toBe(4);
    expect(calls(new Habits(), 1000, 1, 1.1)).toBeGreaterThan(950);
    expect(calls(new Habits(), 1000, 1.1, 1)).toBeLessThan(50);
  });

  test("changes if the times change", () => {
    const habits = new Habits();
    calls(habits, 100, 1, 2);
    expect(calls(habits, 200, 3, 2)).toBeLessThan(40);
    expect(calls(habits, 200, 1, 2)).toBeGreaterThan(140);
  });

  test("does not change for one call that something has delayed", () => {
    const habits = new Habits();
    calls(habits, 100, 1, 2);
    expect(calls(habits, 40, 1, 2, 5)).toBeGreaterThan(36);
  });

  test("is another one for each kind of calls, and a call that throws does not count", () => {
    const habits = new Habits();
    calls(habits, 100, 1, 2);
    for (let i = 0; i < 50; i++) {
      now += habits.begin(2) ? 2 : 1;
      habits.end();
    }
    habits.begin(1);
    now += 1000;
    expect(calls(habits, 20, 1, 2)).toBeGreaterThan(17);
    const last = Array.from({ length: 20 }, () => {
      const way = habits.begin(2);
      now += way ? 2 : 1;
      habits.end();
      return way;
    });
    expect(last.filter((way) => way).length).toBeLessThan(3);
  });
});
