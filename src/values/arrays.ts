// What counts as a Float32Array, whichever realm made it, and when two of them share memory.

import { describe, ShapeError } from "../errors.js";

// The getters of typed arrays. V8 compiles them in place where they are called by themselves; `array.buffer`
// and `array.byteOffset` are slower.
const getter = (name: string | symbol): (() => unknown) =>
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), name)!.get!;
const buffer = getter("buffer");
const byteOffset = getter("byteOffset");
// The brand, which no plain object can fake and every realm's arrays carry (ECMA-262, get
// %TypedArray%.prototype[@@toStringTag]).
const brand = getter(Symbol.toStringTag);

const set = Float32Array.prototype.set as (from: ArrayLike<number>, at?: number) => void;

/** `to.set(from, at)`, without the search for the method: a call copies eight parameters or so. */
export const copy = (
  to: Float32Array | Float64Array,
  from: Float32Array | Float64Array,
  at?: number,
): void => set.call(to, from, at);

/** The buffer of an array. */
export const bufferOf = (array: Float32Array): ArrayBufferLike =>
  buffer.call(array) as ArrayBufferLike;

/** Where in it the array begins, in bytes. */
export const offsetOf = (array: Float32Array): number => byteOffset.call(array) as number;

/** True for a Float32Array of this or another realm. */
const isFloat32Array = (value: unknown): value is Float32Array =>
  brand.call(value) === "Float32Array";

/** True for a Float64Array of this or another realm. */
export const isFloat64Array = (value: unknown): value is Float64Array =>
  brand.call(value) === "Float64Array";

/** True for a Uint8Array of this or another realm. */
export const isUint8Array = (value: unknown): value is Uint8Array =>
  brand.call(value) === "Uint8Array";

/** `value`, if it is a Float32Array whose buffer is attached. */
export function float32(name: string, value: unknown): Float32Array {
  if (!isFloat32Array(value)) {
    throw new ShapeError(name, "a Float32Array", describe(value));
  }
  if (value.length === 0 && isDetached(value.buffer)) {
    throw new ShapeError(name, "a Float32Array", "one whose buffer is detached");
  }
  return value;
}

function isDetached(memory: ArrayBufferLike): boolean {
  try {
    new Uint8Array(memory);
    return false;
  } catch {
    return true;
  }
}

/** `value`, if it is a Float32Array of `length` values. */
export function float32Of(name: string, value: unknown, length: number): Float32Array {
  const array = float32(name, value);
  if (array.length !== length) {
    throw new ShapeError(name, `${length} values`, array.length);
  }
  return array;
}

/** True if both are the same values in the same place. */
export const isSame = (a: Float32Array, b: Float32Array): boolean =>
  a === b || (offsetOf(a) === offsetOf(b) && a.length === b.length && bufferOf(a) === bufferOf(b));

const shared = (name: string, other: string): ShapeError =>
  new ShapeError(name, "memory of its own", `some of that of ${other}`);

/**
 * Throws if an array after the first `inputs` ones, which are only read, shares memory with one
 * before it; being the very same is refused as well. `null` stands for none.
 */
export function refuseShared(
  names: readonly string[],
  arrays: readonly (Float32Array | null)[],
  inputs: number,
): void {
  const from: number[] = [];
  const to: number[] = [];
  const buffers: unknown[] = [];
  for (let i = 0; i < arrays.length; i++) {
    const array = arrays[i]!;
    from.push(array === null ? 0 : offsetOf(array));
    to.push(array === null ? 0 : from[i]! + array.length * 4);
    buffers.push(null);
    for (let j = 0; j < i && i >= inputs; j++) {
      if (from[i]! >= to[j]! || from[j]! >= to[i]!) continue;
      buffers[i] ??= bufferOf(array);
      buffers[j] ??= bufferOf(arrays[j]!);
      if (buffers[i] === buffers[j]) {
        throw shared(names[i]!, names[j]!);
      }
    }
  }
}

/** `value`, if it is a Float32Array of `length` values, or, if it is undefined, a fresh one of zeros. */
export const arrayOf = (name: string, value: unknown, length: number): Float32Array =>
  value === undefined ? new Float32Array(length) : float32Of(name, value, length);

/** The array for a result of x's length: `out`, which may be x itself, or a fresh one. */
export function outputOf(out: unknown, x: Float32Array): Float32Array {
  const array = arrayOf("out", out, x.length);
  // Of one length, so they overlap if they begin nearer to each other than that.
  const apart = Math.abs(offsetOf(array) - offsetOf(x));
  if (apart > 0 && apart < x.length * 4 && bufferOf(array) === bufferOf(x))
    throw shared("out", "x");
  return array;
}
