// Calls of random shapes while workers are late, starved or dead. STRESS=10000 npx vitest run tests/threads/stress.test.ts
// makes that many shapes in each test but those of one worker, in some half an hour. A shape is four to six calls of a layer.

import { Worker } from "node:worker_threads";
import { BatchNorm, Kernels, StateError } from "batchnorm-wasm";
import { startKernels, type ThreadedKernels } from "batchnorm-wasm/threads";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { PATIENCE_IN_PLACE } from "../../src/threads/patience.js";
import { TEXT as WORKER } from "../../src/wasm/worker-text.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";

/** The workers that `startKernels` has started. */
const hands: { terminate(): void }[] = vi.hoisted(() => []);

vi.mock("../../src/threads/spawn.js", async (load) => {
  const spawning = await load<typeof import("../../src/threads/spawn.js")>();
  return {
    ...spawning,
    async spawn(...args: Parameters<typeof spawning.spawn>) {
      const hand = await spawning.spawn(...args);
      hands.push(hand);
      return hand;
    },
  };
});

vi.mock("../../src/threads/sizes.js", () => ({
  ALONE: 2000,
  SMALL: 0,
  HEAVY: 3,
  PIECE: 500,
  MOST: 16,
  CACHED: 60000,
  RUN: 32,
  WAKE: 5000,
  HELD: 5000,
  EARLY: 8,
  LATE: 25,
}));

// So that a dead worker is given up soon.
vi.mock("../../src/threads/patience.js", () => ({
  PATIENCE: 300,
  PATIENCE_IN_PLACE: 900,
}));

/** What a worker does that stops for ever. */
const WAITS = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)";

/** How many shapes a test tries; fewer by default where each takes long. */
const CALLS = Number(process.env.STRESS ?? 150);
const SLOW_CALLS = Number(process.env.STRESS ?? 30);
const plain = new Kernels({ memory: 32 << 20 });

/** A generator of whole numbers from 0 to n - 1 (the constants of Numerical Recipes). */
function random(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/** Trains and goes back on tensors of a random shape, and on ordinary arrays too; returns what was computed. */
function once(kernels: Kernels, seed: number, ordinary: boolean): Float32Array[] {
  const dice = random(seed);
  const channels = 1 + dice(200);
  const layout = dice(2) === 0 ? "NC" : "NCL";
  const count = 2 + dice(Math.ceil(60000 / channels));
  const shape = layout === "NC" ? [count, channels] : [1 + dice(4), channels, 16 + dice(200)];
  const size = shape.reduce((product, n) => product * n, 1);
  const [x, y, dx] = [0, 0, 0].map(() => kernels.alloc(size)) as Float32Array[];
  x!.set(normal(size, seed));
  const bn = new BatchNorm(channels, { layout, kernels });
  bn.train(x!, { shape, out: y! });
  const { dgamma } = bn.backward(x!, { out: { dx: dx! } });
  const results = [y!.slice(), dx!.slice(), dgamma!, bn.infer(x!, { shape })];
  for (const tensor of [x, y, dx]) kernels.free(tensor!);
  // The large ones are held in shared memory in some calls.
  const array = normal(size, seed);
  if (ordinary) results.push(bn.train(array, { shape }), bn.backward(array).dx);
  return results;
}

function compare(kernels: Kernels, seed: number, ordinary = true): void {
  const expected = once(plain, seed, ordinary);
  const actual = once(kernels, seed, ordinary);
  for (const [i, each] of actual.entries()) assertSameBits(`${i} of ${seed}`, each, expected[i]!);
}

let kernels: ThreadedKernels;
beforeEach(async () => {
  hands.length = 0;
  kernels = await startKernels({ threads: 3, memory: 32 << 20 });
});
afterEach(() => kernels.close());

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("the bits of one thread", () => {
  test("in calls that follow each other, and in calls between which workers fall asleep", async () => {
    for (let i = 0; i < CALLS; i++) {
      compare(kernels, i);
      if (i % 20 === 0) await pause(5);
    }
    expect(kernels.threads).toBe(3);
  });

  test("while other programs take every core", async () => {
    const busy = Array.from({ length: 4 }, () => new Worker("for (;;);", { eval: true }));
    try {
      for (let i = 0; i < SLOW_CALLS; i++) compare(kernels, 1000 + i);
    } finally {
      await Promise.all(busy.map((worker) => worker.terminate()));
    }
    expect(kernels.threads).toBe(3);
  });

  test("while workers pause within their pieces and between them", async () => {
    const pauses = `const pause = () => {
      if (Math.random() < 0.05) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20 * Math.random());
    };`;
    const url = `data:text/javascript,${encodeURIComponent(pauses + around("pause()", "pause()") + WORKER)}`;
    const some = await startKernels({ threads: 3, memory: 32 << 20, worker: url });
    for (let i = 0; i < SLOW_CALLS; i++) compare(some, 6000 + i);
    expect(some.threads).toBe(3);
    some.close();
  });

  test("when a worker pauses for longer than anybody waits, and then goes on", async () => {
    const late = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000)";
    const url = `data:text/javascript,${encodeURIComponent(mortal(late, "", 3) + WORKER)}`;
    const some = await startKernels({ threads: 3, memory: 32 << 20, worker: url });
    const [x, , y] = tensorsOf(some, 60_000);
    const layer = (of: Kernels): BatchNorm => new BatchNorm(60, { kernels: of });
    const expected = layer(plain).train(x.slice());
    for (let i = 0; some.threads > 1 && i < 3000; i++) {
      assertSameBits("y", layer(some).train(x, { out: y }), expected);
    }
    expect(some.threads).toBe(1);
    // By then it has done its piece, on the same tensors, with the same values.
    await pause(1500);
    assertSameBits("y, later", y, expected);
    assertSameBits("y, on one thread", layer(some).train(x, { out: y }), expected);
    some.close();
  });

  test("when workers are terminated, between calls and in the middle of them", async () => {
    let seed = 2000;
    const some = (kernels: ThreadedKernels): void => {
      for (let i = 0; i < 10; i++) compare(kernels, seed++, false);
    };
    while (seed < 2000 + CALLS) {
      hands.length = 0;
      const mortals = await startKernels({ threads: 3, memory: 32 << 20 });
      some(mortals);
      // Nobody waits until the worker has ended, so it ends while the next calls are computed.
      hands[0]!.terminate();
      some(mortals);
      if (seed % 4 === 0) await pause(50);
      hands[1]!.terminate();
      some(mortals);
      mortals.close();
    }
  });

  test.each([
    ["ends before it has done it", "process.exit()", ""],
    ["ends before it has said that it has done it", "", "process.exit()"],
    ["stops for ever", WAITS, ""],
  ])("when a worker has begun a piece and %s", async (_, before, after) => {
    const url = `data:text/javascript,${encodeURIComponent(mortal(before, after, 7) + WORKER)}`;
    const some = await startKernels({ threads: 3, memory: 32 << 20, worker: url });
    // A worker does no piece of a call that ends before it has come, so it may take many calls until one is at its 7th.
    // Nor may that piece be one of a call that cannot be done again, as those are whose arrays are held.
    let calls = 0;
    while (some.threads > 1 && calls < 3000) compare(some, 4000 + calls++, false);
    expect(some.threads).toBe(1);
    for (let i = 0; i < 5; i++) compare(some, 5000 + i);
    some.close();
  });
});

describe("an error, and then one thread", () => {
  test("when a piece throws in a worker", async () => {
    const { error, kernels, call, expected } = await lost(
      mortal("throw new Error('no')", "", 1, "gradientStrips"),
      gradientOf,
    );
    expect(error).toBeInstanceOf(StateError);
    expect(String(error)).toMatch("workers that compute, got one that failed");
    expect(kernels.threads).toBe(1);
    for (let i = 0; i < 3; i++) assertSameBits("dx", call(), expected);
  });

  // The worker has done its piece, or a part of it, and does not say so. Whoever did the piece again would start from its result.
  test.each([
    ["dx, which the gated dy lies in", "gradientStrips", gradientOf],
    ["out, which is x, in planes", "affinePlanes", (own: Kernels) => inferOf(own, "NCL", "x")],
    ["out, which is x, in rows", "affineStrips", (own: Kernels) => inferOf(own, "NC", "x")],
    ["out, which is add, in planes", "affinePlanes", (own: Kernels) => inferOf(own, "NCL", "add")],
    ["out, which is add, in rows", "affineStrips", (own: Kernels) => inferOf(own, "NC", "add")],
    ["dx, which is dy, in planes", "gradientPlanes", nearOf],
    ["dx of ordinary arrays", "gradientStrips", heldOf],
  ])("when a worker stops after a piece of %s", async (_, kernel, callOf) => {
    const { error, took, kernels, call, expected } = await lost(
      mortal("", WAITS, 1, kernel),
      callOf,
    );
    expect(error).toBeInstanceOf(StateError);
    expect(String(error)).toMatch("workers that compute, got one that stopped");
    expect(took).toBeGreaterThanOrEqual(PATIENCE_IN_PLACE);
    expect(kernels.threads).toBe(1);
    for (let i = 0; i < 3; i++) assertSameBits("result", call(), expected);
  });

  test.each([
    ["one tile", 40],
    ["several tiles", 1500],
  ])(
    "a train in %s that loses a worker in y has not moved the running averages",
    async (_, channels) => {
      const text = mortal("throw new Error('no')", "", 1, "affineStrips") + WORKER;
      const url = `data:text/javascript,${encodeURIComponent(text)}`;
      const some = await startKernels({ threads: 2, memory: 32 << 20, worker: url });
      const size = 400 * channels;
      const layer = new BatchNorm(channels, { kernels: some });
      const x = some.alloc(size);
      x.set(normal(size, 1));
      let error: unknown;
      for (let i = 0; i < 3000 && error === undefined; i++) {
        const before = JSON.stringify(layer);
        try {
          layer.train(x, { shape: [400, channels], out: x });
        } catch (thrown) {
          error = thrown;
          expect(JSON.stringify(layer)).toBe(before);
        }
      }
      expect(error).toBeInstanceOf(StateError);
    },
  );
});

/**
 * Calls on two threads, of which one runs this code first, until one throws. All results before that have to be those of
 * one thread. Returns what was thrown, after how many milliseconds of that call, and what goes on.
 */
async function lost(code: string, callOf: (kernels: Kernels) => () => Float32Array) {
  const url = `data:text/javascript,${encodeURIComponent(code + WORKER)}`;
  const kernels = await startKernels({ threads: 2, memory: 32 << 20, worker: url });
  const expected = callOf(new Kernels({ memory: 16 << 20 }))();
  const call = callOf(kernels);
  let error: unknown;
  let took = 0;
  // The worker has to come before the caller has done all pieces, so it may take many calls.
  for (let i = 0; i < 3000 && error === undefined; i++) {
    const start = performance.now();
    try {
      assertSameBits(`call ${i}`, call(), expected);
    } catch (thrown) {
      error = thrown;
      took = performance.now() - start;
    }
  }
  return { error, took, kernels, call, expected };
}

/** Trains a layer with an activation on tensors of these kernels; returns a call of `backward`, of large ones in cache. */
function gradientOf(kernels: Kernels): () => Float32Array {
  const [x, dy, dx] = tensorsOf(kernels, 600_000);
  const layer = new BatchNorm(40, { kernels, activation: "relu" });
  layer.train(x, { shape: [15_000, 40], out: dx });
  return () => layer.backward(dy, { out: { dx } }).dx;
}

/** A call of `infer` that writes y to one of its inputs. */
function inferOf(kernels: Kernels, layout: "NC" | "NCL", to: "x" | "add"): () => Float32Array {
  const [first, second, third] = tensorsOf(kernels, 40_000);
  const layer = new BatchNorm(40, { layout, kernels });
  layer.runningMean.fill(1);
  const shape = layout === "NC" ? [1000, 40] : [10, 40, 100];
  return () => {
    third.set(first);
    if (to === "x") return layer.infer(third, { shape, out: third });
    return layer.infer(second, { shape, add: third, out: third });
  };
}

/** A call of `backward` in planes that writes dx to dy. */
function nearOf(kernels: Kernels): () => Float32Array {
  const [x, dy, both] = tensorsOf(kernels, 40_000);
  const layer = new BatchNorm(40, { layout: "NCL", kernels });
  layer.train(x, { shape: [10, 40, 100], out: both });
  return () => {
    both.set(dy);
    return layer.backward(both, { out: { dx: both } }).dx;
  };
}

/** A call of `backward` of ordinary arrays, which shared memory holds in some calls: dx is where dy was copied to. */
function heldOf(kernels: Kernels): () => Float32Array {
  const [x, dy] = [normal(60_000, 1), normal(60_000, 2)];
  const layer = new BatchNorm(60, { kernels });
  layer.train(x, { shape: [1000, 60] });
  return () => {
    try {
      return layer.backward(dy).dx;
    } finally {
      // After an error too, so that the call can be made again.
      assertSameBits("x", x, normal(60_000, 1));
      assertSameBits("dy", dy, normal(60_000, 2));
    }
  };
}

/** Three tensors, of which two hold numbers. */
function tensorsOf(kernels: Kernels, size: number): [Float32Array, Float32Array, Float32Array] {
  const [a, b, c] = [1, 2, 3].map(() => kernels.alloc(size)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  a.set(normal(size, 1));
  b.set(normal(size, 2));
  return [a, b, c];
}

/** Code before the script of a worker: each kernel that its pieces call has something before it and after it. */
const around = (before: string, after: string): string => `
  const { Instance } = WebAssembly;
  const around = ([name, kernel]) => [name, (...args) => {
    ${before};
    kernel(...args);
    ${after};
  }];
  WebAssembly.Instance = function (module, imports) {
    if (!imports.kernels) return new Instance(module, imports);
    const kernels = Object.fromEntries(Object.entries(imports.kernels).map(around));
    return new Instance(module, { ...imports, kernels });
  };
`;

/** The same for the `last` call of a kernel alone. With a `kernel`, calls of others do not count. */
const mortal = (before: string, after: string, last: number, kernel?: string): string => `
  let calls = 0;
  let isLast = false;
  ${around(
    `isLast = (${kernel === undefined} || name === "${kernel}") && ++calls === ${last};
     if (isLast) { ${before}; }`,
    `if (isLast) { ${after}; }`,
  )}
`;
