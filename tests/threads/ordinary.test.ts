// A call that has an ordinary array beside a tensor of threads goes through the stream buffers in parts. Parts are shared out
// as whole tensors are, with the thresholds of earnest; only that workers are woken for each call.

import { BatchNorm, Kernels } from "batchnorm-wasm";
import { startKernels } from "batchnorm-wasm/threads";
import { expect, test, vi } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";

vi.mock("../../src/threads/sizes.js", async (load) => ({
  ...(await load<typeof import("../../src/threads/sizes.js")>()),
  WAKE: 0,
}));

test("a part of planes that ends before the last channel of an example", async () => {
  const shape = [5, 3, 90, 90];
  const size = 5 * 3 * 90 * 90;
  const x = normal(size, 1, 2);
  const residual = normal(size, 2);
  const options = { layout: "NCHW", activation: "relu" } as const;
  const kernels = await startKernels({ threads: 2 });
  const add = kernels.alloc(size);
  const plain = new Kernels();
  const alone = plain.alloc(size);
  const outputOn = (on: Kernels, sum: Float32Array, call: "infer" | "train"): Float32Array => {
    sum.set(residual);
    const layer = new BatchNorm(3, { ...options, kernels: on });
    return layer[call](x, { shape, add: sum, out: sum });
  };
  for (const call of ["infer", "train"] as const) {
    const expected = outputOn(plain, alone, call);
    assertSameBits(call, outputOn(kernels, add, call), expected);
  }
  expect(kernels.threads).toBe(2);
  kernels.close();
});
