// Checks of calls that have to throw: which error comes, what it says, and that nothing has changed.

import { type BatchNorm, BatchNormError } from "batchnorm-wasm";
import { expect } from "vitest";
import { stateOf } from "./cases.js";

/** Hides the type of a value, so that a test can pass it where the signature forbids it. */
// biome-ignore lint/suspicious/noExplicitAny: these tests pass what types forbid
export const wrong = (value: unknown): any => value;

/** Throws unless `call` throws this error and leaves `layer` as it was. */
export function assertRefuses(
  errorClass: new (message: string) => BatchNormError,
  message: RegExp,
  call: () => unknown,
  layer?: BatchNorm,
): void {
  const before = layer && [stateOf(layer), layer.lastBatch];
  let thrown: unknown = "nothing";
  try {
    call();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(BatchNormError);
  expect([(thrown as Error).constructor, (thrown as Error).name]).toEqual([
    errorClass,
    errorClass.name,
  ]);
  expect((thrown as Error).message).toMatch(message);
  if (layer) expect([stateOf(layer), layer.lastBatch]).toEqual(before);
}
