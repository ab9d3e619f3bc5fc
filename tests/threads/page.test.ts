// Starting in a page, where workers are web workers. Those here only say whether they have started, so that there may be
// as many of them as one likes.

import { Kernels, UnsupportedError } from "batchnorm-wasm";
import { startKernels } from "batchnorm-wasm/threads";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Start, Started } from "../../src/threads/spawn.js";

/** The addresses of blobs that have been made, and of those that have been given back. */
const made: string[] = [];
const revoked: string[] = [];

/** What a worker does when it is told to start. */
type Reaction = (worker: PageWorker) => void;
const STARTS: Reaction = (worker) => worker.onmessage?.({ data: null });

/** What the browser answers to `new Worker`, and what each worker does. */
let refuses = false;
let reaction = STARTS;
const workers: PageWorker[] = [];

class PageWorker {
  onmessage: ((event: { data: Started }) => void) | null = null;
  onerror: ((event: { message?: string }) => void) | null = null;
  isTerminated = false;

  constructor(readonly url: string) {
    if (refuses) throw new Error("a policy");
    workers.push(this);
  }

  postMessage(_: Start): void {
    setTimeout(() => reaction(this), 0);
  }

  terminate(): void {
    this.isTerminated = true;
  }
}

beforeEach(() => {
  for (const list of [made, revoked, workers]) list.length = 0;
  refuses = false;
  reaction = STARTS;
  withCores(undefined);
  vi.stubGlobal("Worker", PageWorker);
  vi.spyOn(URL, "createObjectURL").mockImplementation(() => {
    made.push(`blob:${made.length}`);
    return made.at(-1)!;
  });
  vi.spyOn(URL, "revokeObjectURL").mockImplementation((url) => {
    revoked.push(url);
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** No workers of Node. With a number, Node says that it has so many cores; else a page has three. */
function withCores(cores: number | undefined): void {
  const os = cores === undefined ? undefined : { availableParallelism: () => cores };
  const getBuiltinModule = (name: string) => (name === "node:os" ? os : undefined);
  vi.stubGlobal("process", { ...process, getBuiltinModule });
  vi.stubGlobal("navigator", { hardwareConcurrency: 3 });
}

describe("by default there are as many threads as cores, at most 8", () => {
  test.each([
    ["Node", 3, 3],
    ["Node", 20, 8],
    ["Node", 1, 1],
    ["a page", undefined, 3],
  ])("%s with %s: %i threads", async (_, cores, threads) => {
    withCores(cores);
    const kernels = await startKernels();
    expect(kernels.threads).toBe(threads);
    expect(workers.length).toBe(threads - 1);
    kernels.close();
  });
});

describe("a worker", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test("is terminated by close, and nothing waits for it after its start", async () => {
    const starting = startKernels({ threads: 3 });
    await vi.advanceTimersByTimeAsync(0);
    const kernels = await starting;
    expect(vi.getTimerCount()).toBe(0);
    expect(workers.map(({ isTerminated }) => isTerminated)).toEqual([false, false]);
    kernels.close();
    expect(workers.map(({ isTerminated }) => isTerminated)).toEqual([true, true]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("that does not answer within 20 seconds is terminated", async () => {
    reaction = () => {};
    const starting = startKernels({ threads: 2 }).catch((reason) => reason);
    await vi.advanceTimersByTimeAsync(19_999);
    expect(workers[0]!.isTerminated).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect((await starting).message).toMatch("got no answer after 20 s");
    expect(workers[0]!.isTerminated).toBe(true);
  });
});

describe("the address of a worker's text is given back", () => {
  test("once all have started", async () => {
    const kernels = await startKernels({ threads: 3 });
    expect(workers.map(({ url }) => url)).toEqual(made);
    expect(made.length).toBe(2);
    expect(new Set(revoked)).toEqual(new Set(made));
    kernels.close();
  });

  test.each<[string, Reaction]>([
    ["has an error", (worker) => worker.onerror?.({ message: "no" })],
    ["cannot work", (worker) => worker.onmessage?.({ data: "no" })],
  ])("when a worker %s, which is ended", async (_, fails) => {
    reaction = fails;
    const error = await startKernels({ threads: 3 }).catch((reason) => reason);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(/^worker: expected to start.*, got no$/);
    expect(made.length).toBe(2);
    expect(new Set(revoked)).toEqual(new Set(made));
    expect(workers.every(({ isTerminated }) => isTerminated)).toBe(true);
  });

  test("when the page refuses to make a worker", async () => {
    refuses = true;
    await expect(startKernels({ threads: 3 })).rejects.toThrow("a policy");
    expect(made.length).toBe(2);
    expect(new Set(revoked)).toEqual(new Set(made));
  });
});

test("a page's own file is not given back", async () => {
  const kernels = await startKernels({ threads: 2, worker: "/worker.js" });
  expect(workers.map(({ url }) => url)).toEqual(["/worker.js"]);
  expect([...made, ...revoked]).toEqual([]);
  kernels.close();
});

/** How many values can be allocated, in ever smaller tensors. */
function roomOf(kernels: Kernels): number {
  let most = 0;
  for (let step = 1 << 20; step > 0; step >>= 1) {
    try {
      most += kernels.alloc(step).length;
    } catch {
      // There is less room than that.
    }
  }
  return most;
}

// A memory is of whole pages of 64 KiB, so a few threads may find room in the last one that was not counted.
test.each([2, 3, 4, 5, 8, 16, 32, 64])(
  "%i threads: all memory is for tensors, but what every Kernels keeps",
  async (threads) => {
    const memory = 4 << 20;
    const kernels = await startKernels({ threads, memory });
    expect(kernels.threads).toBe(threads);
    expect(roomOf(kernels)).toBeGreaterThanOrEqual(roomOf(new Kernels({ memory })));
    kernels.close();
  },
);
