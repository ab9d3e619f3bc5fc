// Says what counts as a Float32Array, in whichever realm it was made, and whether two arrays share memory.

import { describe, ShapeError } from "../errors.js";

// The getters of typed arrays, called directly. V8 inlines such a call, so it is faster than `array.buffer` and
// `array.byteOffset`.
const getter = (name: string | symbol): (() => unknown) =>
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), name)!.get!;
const buffer = getter("buffer");
const byteOffset = getter("byteOffset");
// The name of a typed array's class. Arrays of every realm have it, and no other object can fake it (ECMA-262,
// get %TypedArray%.prototype[@@toStringTag]).
const brand = getter(Symbol.toStringTag);

const set = Float32Array.prototype.set as (from: ArrayLike<number>, at?: number) => void;

/** `to.set(from, at)`, without looking the method up, because a call of a layer makes about eight such copies. */
export const copy = (
  to: Float32Array | Float64Array,
  from: Float32Array | Float64Array,
  at?: number,
): void => set.call(to, from, at);

/** The buffer of an array. */
export const bufferOf = (array: Float32Array): ArrayBufferLike =>
  buffer.call(array) as ArrayBufferLike;

/** Where an array begins in its buffer, in bytes. */
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

/** Returns `value` if it is a Float32Array whose buffer is not detached; throws ShapeError if not. */
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

/** Returns `value` if it is a Float32Array of `length` values; throws ShapeError if not. */
export function float32Of(name: string, value: unknown, length: number): Float32Array {
  const array = float32(name, value);
  if (array.length !== length) {
    throw new ShapeError(name, `${length} values`, array.length);
  }
  return array;
}

/** True if both arrays have the same length and lie in the same place of memory. */
export const isSame = (a: Float32Array, b: Float32Array): boolean =>
  a === b || (offsetOf(a) === offsetOf(b) && a.length === b.length && bufferOf(a) === bufferOf(b));

const shared = (name: string, other: string): ShapeError =>
  new ShapeError(name, "memory of its own", `some of that of ${other}`);

/**
 * The first `inputs` arrays are only read, and may share memory with each other. Throws if one of the others shares
 * memory with an array before it, or is that array. `null` stands for an array that is not there.
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

/** As `float32Of`, but makes a fresh array of zeros if `value` is undefined. */
export const arrayOf = (name: string, value: unknown, length: number): Float32Array =>
  value === undefined ? new Float32Array(length) : float32Of(name, value, length);

/** The array for a result of x's length: `out`, which may be x or add itself, or a fresh one. */
export function outputOf(out: unknown, x: Float32Array, add: Float32Array | null): Float32Array {
  const array = arrayOf("out", out, x.length);
  refusePart(array, "x", x);
  if (add !== null) refusePart(array, "add", add);
  return array;
}

/** Returns `add` if it is a Float32Array of x's length, `null` if it is undefined; throws ShapeError if not. */
export const residualOf = (add: unknown, x: Float32Array): Float32Array | null =>
  add === undefined ? null : float32Of("add", add, x.length);

/** Throws if `out` overlaps an input of the same length without being it. */
function refusePart(out: Float32Array, name: string, input: Float32Array): void {
  // Both have the same length, so they overlap if their beginnings are closer together than that.
  const apart = Math.abs(offsetOf(out) - offsetOf(input));
  if (apart > 0 && apart < input.length * 4 && bufferOf(out) === bufferOf(input))
    throw shared("out", name);
}
