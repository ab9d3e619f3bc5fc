// What the tests of the adapters for tfjs share: choosing a backend, making tensors and comparing them.

import { createRequire } from "node:module";
import { dirname } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { afterEach, beforeAll, beforeEach, expect } from "vitest";

export const BACKENDS = ["cpu", "wasm"] as const;
export type Backend = (typeof BACKENDS)[number];

const installed = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
setWasmPaths(`${dirname(installed)}/`);

/** The backend of a test file that is run on several backends: see tfjs-wasm.test.ts. */
export const chosen: { backend: Backend } = { backend: "cpu" };

export async function useBackend(name: Backend = chosen.backend): Promise<void> {
  // Suppresses the advice to install tfjs-node, and has each operation checked for leaks.
  tf.env().set("IS_TEST", true);
  if (!(await tf.setBackend(name))) throw new Error(`expected the backend ${name} to start`);
}

/** Every test owns its tensors and variables, and leaves none behind. */
export function ownTensors(): void {
  beforeEach(() => tf.engine().startScope());
  afterEach(() => {
    tf.engine().endScope();
    tf.disposeVariables();
  });
}

/** For the tests of a `describe` on layers models: they run on this backend, and own their tensors. */
export function onBackend(backend: Backend): void {
  beforeAll(async () => {
    await useBackend(backend);
    // tfjs' own wasm kernel for a dense layer with an activation is reported as a leak.
    tf.env().set("IS_TEST", backend !== "wasm");
  });
  ownTensors();
}

export function random(shape: number[], seed: number, mean = 0.5, deviation = 2): tf.Tensor {
  return tf.randomNormal(shape, mean, deviation, "float32", seed);
}

/** tfjs computes in float32 with sums that cancel, so its own error is above ours: hence the wide tolerance. */
export function expectClose(actual: tf.Tensor, expected: tf.Tensor, tolerance = 1e-5): void {
  expect(actual.shape).toEqual(expected.shape);
  const a = actual.dataSync<"float32">();
  const b = expected.dataSync<"float32">();
  const largest = b.reduce((max, value) => Math.max(max, Math.abs(value)), 1);
  const difference = a.reduce((max, value, i) => Math.max(max, Math.abs(value - (b[i] ?? 0))), 0);
  expect(difference / largest).toBeLessThan(tolerance);
}
