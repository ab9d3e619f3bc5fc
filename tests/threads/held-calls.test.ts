// The engine's part in ordinary arrays that shared memory holds: that every call which may be held is timed from its begin to
// its end, for its own kind, and that arrays which workers only read move from call to call.

import { BatchNorm, NonFiniteError } from "batchnorm-wasm";
import { startKernels, type ThreadedKernels } from "batchnorm-wasm/threads";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Habits, SharedMemory } from "../../src/threads/held.js";
import { normal } from "../support/data.js";

vi.mock("../../src/threads/sizes.js", async (load) => ({
  ...(await load<typeof import("../../src/threads/sizes.js")>()),
  ALONE: 48,
  SMALL: 0,
  PIECE: 16,
  CACHED: 3000,
  RUN: 32,
  WAKE: 0,
  HELD: 1000,
}));

const [SIZE, CHANNELS] = [60_000, 20];
const SHAPES = {
  NC: [SIZE / CHANNELS, CHANNELS],
  NCL: [3, CHANNELS, SIZE / CHANNELS / 3],
} as const;
type Call = () => void;

let kernels: ThreadedKernels;
let now: number;

beforeEach(async () => {
  kernels = await startKernels({ threads: 2, memory: 8 << 20 });
  now = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now);
});

afterEach(() => {
  vi.restoreAllMocks();
  kernels.close();
});

/** Whether the latest call was held. It takes 11 ms if it went the slower way, and 10 ms if not. */
function timed(slower: "held" | "parts"): { isHeld: boolean } {
  const latest = { isHeld: false };
  const { hold } = SharedMemory.prototype;
  const { end } = Habits.prototype;
  vi.spyOn(SharedMemory.prototype, "hold").mockImplementation(function (
    this: SharedMemory,
    ...args
  ) {
    latest.isHeld = hold.apply(this, args);
    return latest.isHeld;
  });
  vi.spyOn(Habits.prototype, "end").mockImplementation(function (this: Habits) {
    now += latest.isHeld === (slower === "held") ? 11 : 10;
    end.call(this);
  });
  return latest;
}

function heldOf(calls: number, call: Call, latest: { isHeld: boolean }): number {
  let count = 0;
  for (let i = 0; i < calls; i++) {
    latest.isHeld = false;
    call();
    count += Number(latest.isHeld);
  }
  return count;
}

describe.each(["held", "parts"] as const)("where %s takes longer", (slower) => {
  test.each([
    ["NC", "train"],
    ["NC", "backward"],
    ["NCL", "train"],
    ["NCL", "backward"],
  ] as const)("the other way is taken: %s, %s", (layout, op) => {
    const latest = timed(slower);
    const layer = new BatchNorm(CHANNELS, { kernels, layout });
    const [x, shape] = [normal(SIZE, 1), SHAPES[layout]];
    layer.train(x, { shape });
    const call = op === "train" ? () => layer.train(x, { shape }) : () => layer.backward(x);
    const held = heldOf(60, call, latest);
    if (slower === "held") expect(held).toBeLessThan(12);
    else expect(held).toBeGreaterThan(48);
  });
});

test("train, backward, one with a residual that is read, and another size are kinds of their own", () => {
  const kinds: number[] = [];
  const { begin } = Habits.prototype;
  vi.spyOn(Habits.prototype, "begin").mockImplementation(function (this: Habits, kind) {
    kinds.push(kind);
    return begin.call(this, kind);
  });
  const layer = new BatchNorm(CHANNELS, { kernels, activation: "relu" });
  const plain = new BatchNorm(CHANNELS, { kernels });
  const [x, add] = [normal(SIZE, 1), normal(SIZE, 2)];
  layer.train(x);
  layer.backward(x);
  layer.train(x, { add });
  layer.backward(x);
  layer.train(x.subarray(CHANNELS));
  expect(new Set(kinds).size).toBe(5);
  // Without an activation, backward does not read what was added.
  const [, known] = kinds;
  plain.train(x, { add });
  plain.backward(x);
  expect(kinds.at(-1)).toBe(known);
});

test("tensors of kernel memory alone, calls without room and calls of few values are not timed as held", () => {
  const begin = vi.spyOn(Habits.prototype, "begin");
  const layer = new BatchNorm(CHANNELS, { kernels });
  const [x, y] = [kernels.alloc(SIZE), kernels.alloc(SIZE)];
  x.set(normal(SIZE, 1));
  layer.train(x, { out: y });
  layer.train(normal(20 * CHANNELS, 1));
  expect(begin).not.toHaveBeenCalled();
  const { memory } = kernels.machine;
  while (memory.freeBytes > 4 * SIZE) kernels.alloc(SIZE / 4);
  const forget = vi.spyOn(Habits.prototype, "forget");
  layer.train(normal(SIZE, 1));
  expect(begin).toHaveBeenCalledTimes(1);
  expect(forget).toHaveBeenCalledTimes(2); // as with every call, and for want of room
});

test("a call that throws is forgotten, though a small one ends next", () => {
  const latest = timed("parts");
  const layer = new BatchNorm(CHANNELS, { kernels });
  const x = normal(SIZE, 1);
  heldOf(30, () => layer.train(x), latest);
  // The turn that tries both ways is over: all are held.
  const broken = x.slice();
  broken[7] = NaN;
  expect(() => layer.train(broken)).toThrow(NonFiniteError);
  now += 60_000;
  layer.train(normal(2 * CHANNELS, 1));
  expect(heldOf(12, () => layer.train(x), latest)).toBeGreaterThan(10);
});

test("what workers only read lies elsewhere in the next call, and what they write in the same place", () => {
  vi.spyOn(Habits.prototype, "begin").mockReturnValue(true);
  const places: number[][] = [];
  const { hold } = SharedMemory.prototype;
  vi.spyOn(SharedMemory.prototype, "hold").mockImplementation(function (
    this: SharedMemory,
    ...args
  ) {
    const isHeld = hold.apply(this, args);
    places.push(this.streams.map(({ at }) => at));
    return isHeld;
  });
  const layer = new BatchNorm(CHANNELS, { kernels });
  const x = normal(SIZE, 1);
  layer.train(x);
  layer.backward(x);
  layer.backward(x);
  const [, first, second] = places as [number[], [number, number], [number, number]];
  expect(second[0]).not.toBe(first[0]);
  expect(second[1]).toBe(first[1]);
});

test("more values than any memory has room for are not held", () => {
  const memory = new SharedMemory(4 << 20);
  for (const size of [2 ** 31 - 352, 2 ** 31 - 351, 2 ** 31, 2 ** 32, 2 ** 33 + 8]) {
    expect(memory.hold(size, 1, 0)).toBe(false);
  }
});

test("a shared array that another thread makes longer during the call counts as long as it was", () => {
  const size = 70_000;
  const Growable = SharedArrayBuffer as unknown as new (
    bytes: number,
    options: { maxByteLength: number },
  ) => SharedArrayBuffer & { grow(bytes: number): void };
  const buffer = new Growable(4 * size, { maxByteLength: 4 * size + 64 });
  const x = new Float32Array(buffer as unknown as ArrayBuffer); // tracks the length of the buffer
  x.set(normal(size, 1));
  const expected = new BatchNorm(CHANNELS).train(x.slice());
  const { hold } = SharedMemory.prototype;
  vi.spyOn(SharedMemory.prototype, "hold").mockImplementation(function (
    this: SharedMemory,
    ...args
  ) {
    buffer.grow(4 * size + 64);
    return hold.apply(this, args);
  });
  expect(new BatchNorm(CHANNELS, { kernels }).train(x)).toEqual(expected);
});
