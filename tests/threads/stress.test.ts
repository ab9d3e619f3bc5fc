// Calls of random shapes while workers are late, starved or dead. STRESS=10000 npx vitest run tests/threads/stress.test.ts
// makes that many shapes in each test but those of one worker, in some half an hour. A shape is four to six calls of a layer.

import { runInThisContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { BatchNorm, Kernels, StateError } from "batchnorm-wasm";
import { startKernels, type ThreadedKernels } from "batchnorm-wasm/threads";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { PATIENCE } from "../../src/threads/patience.js";
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
vi.mock("../../src/threads/patience.js", () => ({ PATIENCE: 500 }));

/** What a worker does that stops for ever. */
const WAITS = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)";

/** The same of one that goes on soon, and of one that goes on after a second, when it has been given up. */
const LATE = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)";
const LATER = LATE.replace("50", "1000");

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

/** Kernels on two threads, of which one runs this code first. */
const started = (code: string): Promise<ThreadedKernels> => {
  const worker = `data:text/javascript,${encodeURIComponent(code + WORKER)}`;
  return startKernels({ threads: 2, memory: 32 << 20, worker });
};

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

  // If it then went on, it would take the terms that the calls since then have left behind.
  test.each([
    ["y", "affineStrips", (of: Kernels) => inferOf(of, "NC", "none")],
    ["the gated dy, of which there is a copy", "gateRows", gradientOf],
    ["the statistics of rows", "momentsRows", trainOf],
    ["the statistics of planes", "momentsPlanes", trainOfPlanes],
  ])(
    "when a worker pauses in a piece of %s for longer than anybody waits",
    async (_, kernel, callOf) => {
      const some = await started(mortal(LATER, "", 3, kernel));
      const expected = callOf(plain)().slice();
      const call = callOf(some);
      let result: Float32Array = expected;
      for (let i = 0; some.threads > 1 && i < 3000; i++) {
        result = call();
        assertSameBits(`call ${i}`, result, expected);
      }
      expect(some.threads).toBe(1);
      const [x, , y] = tensorsOf(some, 40_000);
      const other = new BatchNorm(40, { kernels: some });
      other.runningMean.fill(7);
      other.train(x, { out: y });
      other.infer(x, { out: y });
      await pause(1500);
      assertSameBits("later", result, expected);
      some.close();
    },
  );

  test("when a piece throws in a worker", async () => {
    const some = await started(mortal("throw new Error('no')", "", 1, "affineStrips"));
    const expected = inferOf(plain, "NC", "none")();
    const call = inferOf(some, "NC", "none");
    for (let i = 0; some.threads > 1 && i < 3000; i++) assertSameBits("y", call(), expected);
    expect(some.threads).toBe(1);
    assertSameBits("y, on one thread", call(), expected);
    some.close();
  });

  // The time limit of node:vm, like Ctrl-C at Node's prompt, ends the caller's piece while the worker pauses in its own.
  test.each([
    ["in place", "affineStrips", (own: Kernels) => inferOf(own, "NC", "x")],
    ["in place in a stream buffer", "affineStrips", inferOfArray],
    ["of statistics", "momentsRows", trainOf],
  ])("after a call %s that was cut short in the middle of a piece", async (_, kernel, callOf) => {
    const some = await started(around(`if (name === "${kernel}") ${LATE}`, ""));
    const expected = callOf(plain)();
    const next = callOf(some);
    Object.assign(globalThis, { cut: callOf(some) });
    for (let i = 0; i < CALLS / 10; i++) {
      expect(() => runInThisContext("for (;;) cut()", { timeout: 30 + i })).toThrow("timed out");
      // The worker goes on in one of these calls, unless the first one waits for it.
      const end = performance.now() + 80;
      while (performance.now() < end) assertSameBits(`result ${i}`, next(), expected);
    }
    expect(some.threads).toBe(2);
    some.close();
  });

  test("after a call that held arrays in free memory, and was cut short in the middle of a piece", async () => {
    const some = await started(around(`if (name === "affineStrips") ${LATE}`, ""));
    for (let i = 0; i < CALLS / 10; i++) {
      // The first call of each size is held.
      const x = normal(60_000 + 60 * i, 3);
      const layer = new BatchNorm(60, { kernels: some });
      Object.assign(globalThis, { cut: () => layer.train(x) });
      expect(() => runInThisContext("for (;;) cut()", { timeout: 30 + i })).toThrow("timed out");
      // It lies where y of that call does.
      const tensor = some.alloc(40_000).fill(1);
      new BatchNorm(40, { kernels: some }).infer(tensor);
      expect(tensor.every((value) => value === 1)).toBe(true);
      some.free(tensor);
    }
    expect(some.threads).toBe(2);
    some.close();
  });

  // Nobody misses what the call that was cut short would have written, so none throws for it.
  test.each([
    ["alloc", (own: Kernels) => () => own.alloc(1)],
    ["infer of a few values", (own: Kernels) => inferOf(own, "NC", "none", 40)],
    ["train", trainOf],
  ])(
    "of %s, after a call in place that was cut short, whose worker has stopped",
    async (_, callOf) => {
      const some = await started(mortal(WAITS, "", 1, "affineStrips"));
      const expected = callOf(plain)();
      const next = callOf(some);
      Object.assign(globalThis, { cut: inferOf(some, "NC", "x") });
      // On a machine with much else to do, the worker may not have come in time.
      for (let i = 0; some.threads > 1 && i < 50; i++) {
        expect(() => runInThisContext("for (;;) cut()", { timeout: PATIENCE / 2 })).toThrow(
          "timed out",
        );
        assertSameBits("result", next(), expected);
      }
      expect(some.threads).toBe(1);
    },
  );

  test("close waits for the pieces of a call that was cut short", async () => {
    let longest = 0;
    for (let i = 0; i < 20 && longest < 100; i++) {
      const some = await started(
        around(`if (name === "affineStrips") ${LATE.replace("50", "300")}`, ""),
      );
      Object.assign(globalThis, { cut: inferOf(some, "NC", "none") });
      expect(() => runInThisContext("for (;;) cut()", { timeout: 50 })).toThrow("timed out");
      const start = performance.now();
      some.close();
      longest = Math.max(longest, performance.now() - start);
    }
    expect(longest).toBeGreaterThan(100);
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
  // The worker has done its piece, or a part of it, and does not say so. Whoever did the piece again would start from its result.
  test.each([
    ["dx, which the gated dy lies in", "gradientStrips", gradientOf],
    ["out, which is x, in planes", "affinePlanes", (own: Kernels) => inferOf(own, "NCL", "x")],
    ["out, which is x, in rows", "affineStrips", (own: Kernels) => inferOf(own, "NC", "x")],
    ["out, which is add, in planes", "affinePlanes", (own: Kernels) => inferOf(own, "NCL", "add")],
    ["out, which is add, in rows", "affineStrips", (own: Kernels) => inferOf(own, "NC", "add")],
    ["dx, which is dy, in planes", "gradientPlanes", nearOf],
    ["dx, which the gated dy lies in, in planes", "gradientPlanes", gatedNearOf],
    ["dx of ordinary arrays", "gradientStrips", heldOf],
  ])("when a worker stops after a piece of %s", async (_, kernel, callOf) => {
    const { error, took, kernels, call, expected } = await lost(
      mortal("", WAITS, 1, kernel),
      callOf,
    );
    expect(error).toBeInstanceOf(StateError);
    expect(String(error)).toMatch("workers that compute, got one that stopped");
    expect(took).toBeGreaterThanOrEqual(PATIENCE);
    expect(kernels.threads).toBe(1);
    for (let i = 0; i < 3; i++) assertSameBits("result", call(), expected);
  });

  test.each([
    ["one tile", 40],
    ["several tiles", 1500],
  ])(
    "a train in %s that loses a worker in y has not moved the running averages",
    async (_, channels) => {
      const some = await started(mortal("throw new Error('no')", "", 1, "affineStrips"));
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
  const kernels = await started(code);
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

/** A call of `train` in rows. */
function trainOf(kernels: Kernels): () => Float32Array {
  const [x, , y] = tensorsOf(kernels, 60_000);
  const layer = new BatchNorm(60, { kernels });
  return () => layer.train(x, { out: y });
}

/** A call of `infer` of which the residual alone is a tensor. */
function inferOfArray(kernels: Kernels): () => Float32Array {
  const [add] = tensorsOf(kernels, 60_000);
  const x = normal(60_000, 4);
  const layer = new BatchNorm(60, { kernels });
  return () => layer.infer(x, { add });
}

/** The same in planes. */
function trainOfPlanes(kernels: Kernels): () => Float32Array {
  const [x, , y] = tensorsOf(kernels, 60_000);
  const layer = new BatchNorm(40, { layout: "NCL", kernels });
  return () => layer.train(x, { shape: [30, 40, 50], out: y });
}

/** A call of `infer` that writes y to one of its inputs, or to none. */
function inferOf(
  kernels: Kernels,
  layout: "NC" | "NCL",
  to: "x" | "add" | "none",
  size = 40_000,
): () => Float32Array {
  const [first, second, third] = tensorsOf(kernels, size);
  const layer = new BatchNorm(40, { layout, kernels });
  layer.runningMean.fill(1);
  const shape = layout === "NC" ? [size / 40, 40] : [10, 40, size / 400];
  return () => {
    if (to === "none") return layer.infer(first, { shape, out: third });
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

/** The same of a layer with an activation, which writes dx elsewhere. */
function gatedNearOf(kernels: Kernels): () => Float32Array {
  const [x, dy, dx] = tensorsOf(kernels, 40_000);
  const layer = new BatchNorm(40, { layout: "NCL", kernels, activation: "relu" });
  layer.train(x, { shape: [10, 40, 100], out: dx });
  return () => layer.backward(dy, { out: { dx } }).dx;
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
