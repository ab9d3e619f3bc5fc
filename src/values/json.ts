// JSON in and out, exactly. JSON has no NaN, no infinities, and writes -0 as 0: these are strings.

import { describe, StateError } from "../errors.js";

/** A number in JSON: itself, or the name of one that JSON lacks. */
export type JsonNumber = number | "NaN" | "Infinity" | "-Infinity" | "-0";

/** `T` as the type of an imported JSON file has it: `string` where T names the text. */
export type Widened<T> = {
  readonly [K in keyof T]: T[K] extends readonly JsonNumber[] | null
    ? readonly (number | string)[] | Extract<T[K], null>
    : T[K] | (Extract<T[K], string> extends never ? never : string);
};

const NAMED = ["NaN", "Infinity", "-Infinity", "-0"];

/** An array as JSON-able numbers. */
export const toNumbers = (array: Float32Array | Float64Array): JsonNumber[] =>
  Array.from(array, (n) =>
    Object.is(n, -0) ? "-0" : Number.isFinite(n) ? n : (`${n}` as JsonNumber),
  );

/** The numbers that `toNumbers` wrote, `length` of them. */
export function fromNumbers(name: string, value: unknown, length: number): number[] {
  if (!Array.isArray(value) || value.length !== length) {
    throw new StateError(name, `${length} numbers`, describe(value));
  }
  return value.map((n: unknown, i) => {
    const number = NAMED.includes(n as string) ? Number(n) : n;
    if (typeof number !== "number") {
      throw new StateError(`${name}[${i}]`, "a number", describe(n));
    }
    return number;
  });
}

/** The object that `json` is or holds, if it is of the `format` and of a version from 1 to `latest`. */
export function parse<T extends { format: string; version: number }>(
  name: string,
  json: unknown,
  format: T["format"],
  latest = 1,
): T {
  let value = json;
  if (typeof json === "string") {
    try {
      value = JSON.parse(json);
    } catch {
      throw new StateError(name, `JSON of format "${format}"`, "text that is no JSON");
    }
  }
  const found: unknown = Object(value).format;
  if (found !== format) {
    const got = typeof found === "string" ? `format "${found}"` : describe(value);
    throw new StateError(name, `an object of format "${format}"`, got);
  }
  const { version } = value as T;
  if (version !== 1 && version !== latest) {
    throw new StateError(name, `version ${latest}`, describe(version));
  }
  return value as T;
}
