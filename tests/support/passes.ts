// Each function calls a method of a layer on arrays between guard values, and compares all results with the oracle.

import type { BatchNorm, FrozenBatchNorm, Gradients } from "batchnorm-wasm";
import { expect } from "vitest";
import { countOf, type Shaped, stateOf, viewOf } from "./cases.js";
import {
  assertGradients,
  assertMoments,
  assertNormalized,
  assertSameBits,
  type GradientOptions,
} from "./compare.js";
import { guarded, guardedCopy } from "./guards.js";
import * as oracle from "./oracle.js";

/** Calls `train`, and checks the output, the statistics, `lastBatch`, and that nothing else was written. */
export function checkTrain(layer: BatchNorm, shaped: Shaped, x: Float32Array): Float32Array {
  const { shape } = shaped;
  const view = viewOf(shaped);
  const input = guardedCopy(x, 1);
  const out = guarded(x.length, 3);
  const y = layer.train(input.array, { shape, out: out.array });
  expect(y).toBe(out.array);
  input.assertIntact();
  out.assertIntact();
  assertSameBits("x", input.array, x);
  const { gamma, beta, epsilon } = layer;
  const expected = oracle.moments(x, view);
  assertNormalized(y, x, view, { ...expected, gamma, beta, epsilon });
  const batch = layer.lastBatch!;
  assertMoments(batch, expected);
  expect(batch.x).toBe(input.array);
  expect(batch.shape).toEqual(shape);
  expect(batch.mask).toBeNull();
  expect(batch.statistics).toBe("batch");
  expect(batch.count).toBe(countOf(shaped));
  return y;
}

/** Calls `backward` after a `train`, and checks the gradients, and that nothing else was written. */
export function checkBackward(
  layer: BatchNorm,
  shaped: Shaped,
  dy: Float32Array,
  options: GradientOptions = {},
): Gradients {
  const view = viewOf(shaped);
  const batch = layer.lastBatch!;
  const x = batch.x!.slice();
  const state = stateOf(layer);
  const { gamma, beta, epsilon, channels } = layer;
  const input = guardedCopy(dy, 2);
  const dx = guarded(dy.length, 1);
  const dgamma = gamma && guarded(channels, 3);
  const dbeta = beta && guarded(channels, 2);
  const out = {
    dx: dx.array,
    ...(dgamma && { dgamma: dgamma.array }),
    ...(dbeta && { dbeta: dbeta.array }),
  };
  const given = layer.backward(input.array, { out });
  expect(given.dx).toBe(dx.array);
  expect(given.dgamma).toBe(dgamma ? dgamma.array : null);
  expect(given.dbeta).toBe(dbeta ? dbeta.array : null);
  for (const array of [input, dx, dgamma, dbeta]) array?.assertIntact();
  assertSameBits("dy", input.array, dy);
  assertSameBits("x", batch.x!, x);
  expect(stateOf(layer)).toBe(state);
  expect(layer.lastBatch).toBe(batch);
  const frozen = batch.statistics === "running";
  const { mean, variance } = frozen ? batch : oracle.moments(x, view);
  const terms = { mean, variance, gamma, beta, epsilon };
  assertGradients(given, dy, x, view, terms, { ...options, frozen });
  return given;
}

/** Calls `infer` of a layer, or of its copy `frozen`, and checks the output, and that nothing else was written. */
export function checkInfer(
  layer: BatchNorm,
  shaped: Shaped,
  x: Float32Array,
  frozen: FrozenBatchNorm | BatchNorm = layer,
): Float32Array {
  const { shape } = shaped;
  const state = stateOf(layer);
  const last = layer.lastBatch;
  const input = guardedCopy(x, 3);
  const out = guarded(x.length, 2);
  const y = frozen.infer(input.array, { shape, out: out.array });
  expect(y).toBe(out.array);
  input.assertIntact();
  out.assertIntact();
  assertSameBits("x", input.array, x);
  expect(stateOf(layer)).toBe(state);
  expect(layer.lastBatch).toBe(last);
  const { runningMean: mean, runningVariance: variance, gamma, beta, epsilon } = layer;
  assertNormalized(y, x, viewOf(shaped), { mean, variance, gamma, beta, epsilon });
  return y;
}
