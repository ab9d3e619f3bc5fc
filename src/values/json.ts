// Writes and reads numbers as JSON without any loss. JSON has no NaN and no infinities, and JSON.stringify writes -0
// as 0, so these are written as strings.

import { describe, StateError } from "../errors.js";
import { copyOf } from "./arrays.js";

/** A number in JSON, or the name of one that JSON does not have. */
export type JsonNumber = number | "NaN" | "Infinity" | "-Infinity" | "-0";

/** The type of a `T` in an imported JSON file, where TypeScript takes texts for `string` and not for their value. */
export type Widened<T> = {
  readonly [K in keyof T]: T[K] extends readonly JsonNumber[] | null
    ? readonly (number | string)[] | Extract<T[K], null>
    : T[K] | (Extract<T[K], string> extends never ? never : string);
};

/** A number as JSON has it. */
export const toNumber = (n: number): JsonNumber =>
  Number.isFinite(n) && !Object.is(n, -0) ? n : (describe(n) as JsonNumber);

/** The number that a name in JSON stands for, which `toNumber` gives for it alone; anything else as it is. */
export const named = (value: unknown): unknown =>
  typeof value === "string" && toNumber(Number(value)) === value ? Number(value) : value;

/** An object of the same names, with what `change` makes of each value. */
export const changed = <T, U>(object: object, change: (value: T) => U): { [name: string]: U } =>
  Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));

/** Turns an array into numbers for JSON. */
export const toNumbers = (array: Float32Array | Float64Array): JsonNumber[] =>
  Array.from(copyOf(array), toNumber);

/** Reads the `length` numbers that `toNumbers` wrote; `of32` if they were float32. */
export function fromNumbers(name: string, value: unknown, length: number, of32 = false): number[] {
  if (!Array.isArray(value) || value.length !== length) {
    throw new StateError(name, `${length} numbers`, describe(value));
  }
  // By index: `map` passes over holes, and the array may have an iterator of its own.
  return Array.from({ length }, (_, i) => {
    const n: unknown = value[i];
    const number = named(n);
    if (
      typeof number !== "number" ||
      (of32 && Number.isFinite(number) !== Number.isFinite(Math.fround(number)))
    ) {
      throw new StateError(`${name}[${i}]`, of32 ? "a float32 value" : "a number", describe(n));
    }
    return number;
  });
}

/**
 * The object that `json` is, or whose text it is, with its own members alone. It must have the `format`, and version 1
 * or `latest`.
 */
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
      throw new StateError(
        name,
        `JSON of format "${format}"`,
        'text that is no JSON; of a file, give readFileSync(path, "utf8")',
      );
    }
  }
  const own = { __proto__: null, ...(value as T) };
  const found: unknown = own.format;
  if (found !== format) {
    const got = typeof found === "string" ? `format ${describe(found)}` : describe(value);
    throw new StateError(name, `an object of format "${format}"`, got);
  }
  const { version } = own;
  if (version !== 1 && version !== latest) {
    const other = latest === 1 ? "" : ` or ${latest}`;
    throw new StateError(name, `version 1${other}`, describe(version));
  }
  return own;
}
