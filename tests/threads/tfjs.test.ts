/**
 * The TensorFlow.js adapter on a layer whose kernels have threads. tfjs' tensors are ordinary arrays to them. So the steps
 * are computed on one thread or, if the tensors are large, are held in shared memory; with the same bits.
 */

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import { BatchNorm, type Kernels } from "batchnorm-wasm";
import { TfBatchNorm } from "batchnorm-wasm/tfjs";
import { startKernels } from "batchnorm-wasm/threads";
import { describe, expect, test, vi } from "vitest";
import type { Start } from "../../src/threads/spawn.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { BACKENDS, onBackend, random } from "../support/tfjs.js";

const large = vi.hoisted(() => ({ from: Number.POSITIVE_INFINITY }));

// Else only work that takes longer than to wake a worker would be handed out.
vi.mock("../../src/threads/sizes.js", async (load) => ({
  ...(await load<typeof import("../../src/threads/sizes.js")>()),
  WAKE: 0,
  get HELD() {
    return large.from;
  },
}));

/** What the latest worker was told at its start. */
const latest: { start?: Start } = vi.hoisted(() => ({}));

vi.mock("../../src/threads/spawn.js", async (load) => {
  const spawning = await load<typeof import("../../src/threads/spawn.js")>();
  return {
    ...spawning,
    spawn(...args: Parameters<typeof spawning.spawn>) {
      latest.start = args[2];
      return spawning.spawn(...args);
    },
  };
});

/** How many jobs have been handed out: the first word of the protocol. */
function handedOut(): number {
  const { memory, told } = latest.start!;
  return Atomics.load(new Int32Array(memory.buffer, told[2], 1), 0);
}

/** y and all gradients of two training steps on [2048, 64], and y at test time. */
function steps(kernels: Kernels | undefined): Float32Array[] {
  const norm = new TfBatchNorm(new BatchNorm(64, kernels && { kernels }));
  const results: Float32Array[] = [];
  for (const seed of [1, 2]) {
    const x = tf.variable(random([2048, 64], seed));
    const weights = random([2048, 64], 3);
    const { value, grads } = tf.variableGrads(
      () => tf.sum(tf.mul(norm.apply(x, { training: true }), weights)) as tf.Scalar,
    );
    results.push(value.dataSync<"float32">().slice());
    for (const grad of Object.values(grads)) results.push(grad.dataSync<"float32">().slice());
    results.push(norm.apply(x, { training: false }).dataSync<"float32">().slice());
  }
  norm.dispose();
  return results;
}

describe.each(BACKENDS)("on the backend %s", (backend) => {
  onBackend(backend);

  test("steps have the bits of those without threads, and wake no worker", async () => {
    const kernels = await startKernels({ threads: 2 });
    const expected = steps(undefined);
    const actual = steps(kernels);
    expect(handedOut()).toBe(0);
    // As many values in kernel memory are divided.
    const x = kernels.alloc(2048 * 64);
    x.set(normal(x.length, 1));
    new BatchNorm(64, { kernels }).train(x);
    expect(handedOut()).toBeGreaterThan(0);
    kernels.close();
    expect(actual.length).toBe(expected.length);
    for (const [i, values] of actual.entries()) assertSameBits(`result ${i}`, values, expected[i]!);
  });

  test("steps on large tensors have the same bits, and are handed out", async () => {
    const expected = steps(undefined);
    large.from = 2048 * 64;
    const kernels = await startKernels({ threads: 2 });
    const actual = steps(kernels);
    expect(handedOut()).toBeGreaterThan(0);
    kernels.close();
    large.from = Number.POSITIVE_INFINITY;
    for (const [i, values] of actual.entries()) assertSameBits(`result ${i}`, values, expected[i]!);
  });
});
