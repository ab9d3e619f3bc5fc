// What `Moments` and `GradientSums` have in common: a count and arrays of float64 per channel, which are checked, pooled
// one after the other, written as JSON and read back.

import { describe, ShapeError, StateError } from "../errors.js";
import { isFloat64Array, sizeIn } from "./arrays.js";
import { isWhole } from "./check.js";
import { fromNumbers, type JsonNumber, parse, toNumbers } from "./json.js";

/** Checks the parts, and merges them. The array `key` of what is merged so far tells the number of channels. */
export function reduce<K extends string, T extends Readonly<Record<K, Float64Array>>>(
  parts: Iterable<unknown>,
  check: (name: string, value: unknown, channels?: number) => T,
  merge: (all: T, part: T) => T,
  key: K,
): T {
  if (typeof Object(parts)[Symbol.iterator] !== "function") {
    throw new ShapeError("parts", "an iterable", describe(parts));
  }
  let all: T | undefined;
  let i = 0;
  for (const part of parts) {
    const checked = check(`parts[${i++}]`, part, all?.[key].length);
    all = all === undefined ? checked : merge(all, checked);
  }
  if (all === undefined) throw new ShapeError("parts", "at least one", "none");
  return all;
}

/** An object for JSON with the count of `value` and its arrays named in `keys`. */
export function write<F extends string, K extends string>(
  format: F,
  value: { readonly count: number } & Readonly<Record<K, Float64Array>>,
  keys: readonly K[],
) {
  const arrays = keys.map((key) => [key, toNumbers(value[key])]);
  const written: Record<K, JsonNumber[]> = Object.fromEntries(arrays);
  return { format, version: 1 as const, count: value.count, ...written };
}

/** Reads what `write` wrote. The count is not checked here. */
export function read<K extends string>(json: unknown, format: string, keys: readonly K[]) {
  type Written = { format: string; version: number; count: number } & Record<K, unknown>;
  const s = parse<Written>("json", json, format);
  const { length: first } = Object(s[keys[0]!]);
  const length = isWhole(first) ? first : 0;
  const arrays = keys.map((key) => [key, Float64Array.from(fromNumbers(key, s[key], length))]);
  return { ...(Object.fromEntries(arrays) as Record<K, Float64Array>), count: s.count };
}

/**
 * `count` arrays of `length` zeros. They share a buffer, since to make one takes longer than all else that is done with the
 * statistics of a few channels. (V8 needs no buffer for up to eight values: these lie in the array itself.)
 */
export function zeros(count: number, length: number): Float64Array[] {
  const buffer = length > 8 ? new ArrayBuffer(8 * count * length) : null;
  const arrays: Float64Array[] = [];
  for (let i = 0; i < count; i++) {
    arrays.push(
      buffer ? new Float64Array(buffer, 8 * i * length, length) : new Float64Array(length),
    );
  }
  return arrays;
}

export const noNumbers = (name: string): ShapeError =>
  new ShapeError(`new ${name}`, "numbers", "none");
/**
 * The float64 arrays that `value` has under these names, of `channels` values if that is given, then its count. Of what is
 * not `trusted`, the arrays are copies, made before anybody looks at the numbers: they may lie in memory that other
 * threads write.
 */
export function checked<K extends string>(
  name: string,
  value: unknown,
  keys: readonly K[],
  channels?: number,
  trusted = false,
): unknown[] {
  const held = Object(value) as Record<K | "count", unknown>;
  const arrays: unknown[] = [];
  let length = channels;
  let copies: Float64Array[] | undefined;
  for (const key of keys) {
    let array = held[key];
    if (array === undefined && key === "meanLow") array = new Float64Array(length!);
    const size = isFloat64Array(array) ? sizeIn(array) : -1;
    length ??= Math.max(size, 0);
    if (size !== length) {
      const got = held === value ? `${key} ${describe(array)}` : describe(value);
      const expected = `${keys.join(", ")} of ${length || "its"} channels, as fromJSON makes`;
      throw new ShapeError(name, expected, got);
    }
    let own = array as Float64Array;
    if (!trusted) {
      // By index: there are few values, and for these `copyOf` takes ten times as long.
      copies ??= zeros(keys.length, length);
      own = copies[arrays.length]!;
      for (let c = 0; c < length; c++) own[c] = (array as Float64Array)[c]!;
    }
    arrays.push(own);
  }
  arrays.push(checkCount(name, held.count));
  return arrays;
}

/** Returns a count of values; throws StateError if it is none. */
export function checkCount(name: string, count: unknown): number {
  if (isWhole(count)) return count;
  throw new StateError(`${name}.count`, "a whole number from 0 to 2^53 - 1", describe(count));
}
