// Numbers in JSON, exactly. JSON has no NaN, no infinities, and writes -0 as 0: these are strings.

import { describe, StateError } from "./errors.js";

/** A number in JSON: itself, or the name of one that JSON lacks. */
export type JsonNumber = number | "NaN" | "Infinity" | "-Infinity" | "-0";

const NAMED: Readonly<Record<string, number>> = {
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  "-Infinity": Number.NEGATIVE_INFINITY,
  "-0": -0,
};

/** An array as JSON-able numbers. */
export const toNumbers = (array: Float32Array | Float64Array): JsonNumber[] =>
  Array.from(array, (n) =>
    Number.isFinite(n) && !Object.is(n, -0)
      ? n
      : ((Object.is(n, -0) ? "-0" : `${n}`) as JsonNumber),
  );

/** The numbers that `toNumbers` wrote, `length` of them. */
export function fromNumbers(name: string, value: unknown, length: number): number[] {
  if (!Array.isArray(value) || value.length !== length) {
    throw new StateError(`${name}: expected ${length} numbers, got ${describe(value)}`);
  }
  return value.map((n: unknown, i) => {
    const number = typeof n === "string" && Object.hasOwn(NAMED, n) ? NAMED[n]! : n;
    if (typeof number !== "number") {
      throw new StateError(`${name}[${i}]: expected a number, got ${describe(n)}`);
    }
    return number;
  });
}
