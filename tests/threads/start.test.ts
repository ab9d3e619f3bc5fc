// Starting and stopping: options, runtimes without what threads need, and processes that end although workers sleep.
// What a process of its own is needed for runs on the package as built.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BatchNorm, Kernels, OptionError, UnsupportedError } from "batchnorm-wasm";
import { startKernels } from "batchnorm-wasm/threads";
import { afterEach, describe, expect, test, vi } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

/** What a module prints that has the package as built; rejects if its process fails. */
async function printed(code: string, ...args: string[]): Promise<string> {
  const script = `import { startKernels } from "./dist/threads.js";
import { BatchNorm } from "./dist/index.js";
${code}`;
  const all = [...args, "--input-type=module", "--eval", script];
  const { stdout } = await run(process.execPath, all, { cwd: root, timeout: 240_000 });
  return stdout.trim();
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("options", () => {
  test.each([
    ["threads", { threads: 0 }],
    ["threads", { threads: 1.5 }],
    ["threads", { threads: 65 }],
    ["threads", { threads: "2" }],
    ["memory", { memory: 1000 }],
    ["memory", { memory: 2 ** 33 }],
    ["worker", { worker: 7 }],
    ["thread", { thread: 2 }],
  ])("%s: %o is refused", async (name, options) => {
    const error = await startKernels(options as never).catch((reason) => reason);
    expect(error).toBeInstanceOf(OptionError);
    expect(error.message).toMatch(new RegExp(`^${name}: expected `));
  });

  test("by default there is a memory of 16 MiB", async () => {
    const bytesOf = async (options?: { memory: number }): Promise<number> => {
      const kernels = await startKernels(options);
      kernels.close();
      return kernels.memory;
    };
    const bytes = await bytesOf();
    expect(bytes).toBeGreaterThan(16 << 20);
    expect(await bytesOf({ memory: 16 << 20 })).toBe(bytes);
    expect(await bytesOf({ memory: 20 << 20 })).toBe(bytes + (4 << 20));
  });
});

describe("a runtime that lacks what threads need", () => {
  test("no SharedArrayBuffer: the error names both headers", async () => {
    vi.stubGlobal("SharedArrayBuffer", undefined);
    const error = await startKernels({ threads: 2 }).catch((reason) => reason);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toContain("Cross-Origin-Opener-Policy: same-origin");
    expect(error.message).toContain("Cross-Origin-Embedder-Policy: require-corp");
  });

  test("a page that is not isolated", async () => {
    vi.stubGlobal("crossOriginIsolated", false);
    await expect(startKernels({ threads: 2 })).rejects.toThrow("Cross-Origin-Opener-Policy");
  });

  test("no workers", async () => {
    vi.stubGlobal("process", { ...process, getBuiltinModule: undefined });
    vi.stubGlobal("Worker", undefined);
    const error = await startKernels({ threads: 2 }).catch((reason) => reason);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(/^Worker: expected /);
  });

  test("Node's permission model without --allow-worker", async () => {
    const code = `const error = await startKernels({ threads: 2 }).catch((reason) => reason);
console.log(error.name, error.code, error.message);`;
    const text = await printed(code, "--experimental-permission", "--allow-fs-read=*");
    expect(text).toMatch(
      /^UnsupportedError UNSUPPORTED worker: expected to start .*--allow-worker/,
    );
  });

  test.each([
    ["throws", "data:text/javascript,throw new Error('no')", "Error: no"],
    ["is not there", new URL("nothing.js", import.meta.url), "nothing.js"],
    ["ends at once", "data:text/javascript,0", "one that ended"],
  ])("a worker file that %s", async (_, worker, got) => {
    const error = await startKernels({ threads: 3, worker }).catch((reason) => reason);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(/^worker: expected to start/);
    expect(error.message.split(", got ")[1]).toContain(got);
  });
});

describe("a worker's file", () => {
  test("is one of the package: { worker }", async () => {
    const worker = new URL("../../dist/worker.js", import.meta.url);
    for (const given of [worker, worker.href]) {
      const kernels = await startKernels({ threads: 2, worker: given });
      expect(kernels.threads).toBe(2);
      kernels.close();
    }
  });
});

describe("stopping", () => {
  /** A layer's output on tensors of these kernels. */
  function outputOn(kernels: Kernels): Float32Array {
    const x = kernels.alloc(65536 * 2);
    x.set(normal(x.length, 1));
    return new BatchNorm(64, { kernels }).train(x);
  }

  test("close leaves one thread, twice does no harm, and calls go on", async () => {
    const kernels = await startKernels({ threads: 3 });
    expect(kernels.threads).toBe(3);
    const before = outputOn(kernels);
    kernels.close();
    kernels.close();
    expect(kernels.threads).toBe(1);
    assertSameBits("y", outputOn(kernels), before);
  });

  test("Symbol.dispose closes", async () => {
    const kernels = await startKernels({ threads: 2 });
    kernels[Symbol.dispose]();
    expect(kernels.threads).toBe(1);
  });

  test("new Kernels has one thread, and nothing to close", () => {
    const kernels = new Kernels();
    expect(kernels.threads).toBe(1);
    kernels.close();
    expect(kernels.alloc(4).length).toBe(4);
  });

  test("two instances work side by side", async () => {
    const both = [await startKernels({ threads: 2 }), await startKernels({ threads: 2 })];
    const [a, b] = both.map(outputOn);
    assertSameBits("y", a!, b!);
    both[0]!.close();
    assertSameBits("y", outputOn(both[1]!), a!);
    both[1]!.close();
  });

  test("does nothing to calls of another realm, which may end in the middle of one", async () => {
    const dist = new URL("../../dist/", import.meta.url);
    // A thread with kernels of its own, which calls them without end and counts the calls.
    const other = `import { workerData } from "node:worker_threads";
import { startKernels } from "${new URL("threads.js", dist)}";
import { BatchNorm } from "${new URL("index.js", dist)}";
const kernels = await startKernels({ threads: 3, memory: 16 << 20 });
const bn = new BatchNorm(64, { kernels });
const x = kernels.alloc(4096 * 64).fill(1);
for (;;) {
  bn.train(x, { out: x });
  Atomics.add(workerData, 0, 1);
}`;
    const text = await printed(`import { Worker } from "node:worker_threads";
const url = new URL("data:text/javascript," + encodeURIComponent(${JSON.stringify(other)}));
const calls = new Int32Array(new SharedArrayBuffer(4));
const more = async (n) => {
  const end = Atomics.load(calls, 0) + n;
  while (Atomics.load(calls, 0) < end) await new Promise((resolve) => setTimeout(resolve, 5));
};
const kernels = await startKernels({ threads: 2 });
const worker = new Worker(url, { workerData: calls });
worker.on("error", (error) => { console.log(error); process.exit(1); });
await more(20);
kernels.close();
await more(20);
await worker.terminate();
console.log("ended");`);
    expect(text).toBe("ended");
  });

  test("workers keep no process alive, closed or not", async () => {
    expect(
      await printed(`const k = await startKernels({ threads: 3 }); console.log(k.threads);`),
    ).toBe("3");
    const closing = `const k = await startKernels({ threads: 3 }); k.close(); console.log(k.threads);`;
    expect(await printed(closing)).toBe("1");
  });
});

test("tensors of threads lie in shared memory; a freed one is refused wherever it comes", async () => {
  const kernels = await startKernels({ threads: 2 });
  const tensor = kernels.alloc(8);
  expect(tensor.buffer).toBeInstanceOf(SharedArrayBuffer);
  const bn = new BatchNorm(2, { kernels });
  kernels.free(tensor);
  const own = new Float32Array(8);
  expect(() => bn.train(tensor)).toThrow("x: expected a tensor of kernel memory in use");
  bn.train(own);
  const out = { dgamma: tensor.subarray(0, 2) };
  expect(() => bn.backward(own, { out })).toThrow("out.dgamma: expected a tensor");
  kernels.close();
});
