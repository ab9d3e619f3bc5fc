// What tests of the adapters need: the tfjs backends that they run on here, tensors, and comparing them.

import { createRequire } from "node:module";
import { dirname } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { expect } from "vitest";

export const BACKENDS = ["cpu", "wasm"] as const;
export type Backend = (typeof BACKENDS)[number];

const installed = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
setWasmPaths(`${dirname(installed)}/`);

/** What a test file that is run on several backends runs on: see tfjs-wasm.test.ts. */
export const chosen: { backend: Backend } = { backend: "cpu" };

export async function useBackend(name: Backend = chosen.backend): Promise<void> {
  // Without its advice to install tfjs-node; and each operation is checked for leaks.
  tf.env().set("IS_TEST", true);
  if (!(await tf.setBackend(name))) throw new Error(`expected the backend ${name} to start`);
}

export function random(shape: number[], seed: number, mean = 0.5, deviation = 2): tf.Tensor {
  return tf.randomNormal(shape, mean, deviation, "float32", seed);
}

/** tfjs works in float32, and its sums cancel: up to 4e-6 of difference were seen. */
export function expectClose(actual: tf.Tensor, expected: tf.Tensor, tolerance = 1e-5): void {
  expect(actual.shape).toEqual(expected.shape);
  const a = actual.dataSync<"float32">();
  const b = expected.dataSync<"float32">();
  const largest = b.reduce((max, value) => Math.max(max, Math.abs(value)), 1);
  const difference = a.reduce((max, value, i) => Math.max(max, Math.abs(value - (b[i] ?? 0))), 0);
  expect(difference / largest).toBeLessThan(tolerance);
}
