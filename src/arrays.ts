// What counts as a Float32Array, whichever realm made it, and when two of them share memory.

import { describe, ShapeError } from "./errors.js";

// The brand of a typed array, which no plain object can fake and every realm's arrays carry
// (ECMA-262, get %TypedArray%.prototype[@@toStringTag]).
const brand = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  Symbol.toStringTag,
)!.get!;

/** True for a Float32Array of this or another realm. */
export const isFloat32Array = (value: unknown): value is Float32Array =>
  brand.call(value) === "Float32Array";

/** `value`, if it is a Float32Array whose buffer is attached. */
export function float32(name: string, value: unknown): Float32Array {
  if (!isFloat32Array(value)) {
    throw new ShapeError(`${name}: expected a Float32Array, got ${describe(value)}`);
  }
  if (value.length === 0 && isDetached(value.buffer)) {
    throw new ShapeError(`${name}: expected a Float32Array, got one whose buffer is detached`);
  }
  return value;
}

function isDetached(buffer: ArrayBufferLike): boolean {
  if (buffer.byteLength > 0) return false;
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

/** `value`, if it is a Float32Array of `length` values. */
export function float32Of(name: string, value: unknown, length: number): Float32Array {
  const array = float32(name, value);
  if (array.length !== length) {
    throw new ShapeError(`${name}: expected ${length} values, got ${array.length}`);
  }
  return array;
}

/** True if both are the same values in the same place. */
export const isSame = (a: Float32Array, b: Float32Array): boolean =>
  a === b || (a.buffer === b.buffer && a.byteOffset === b.byteOffset && a.length === b.length);

/**
 * Throws if an array after the first `inputs` ones, which are only read, shares memory with one
 * before it; being the very same is refused as well. `null` stands for none.
 */
export function refuseShared(
  names: readonly string[],
  arrays: readonly (Float32Array | null)[],
  inputs: number,
): void {
  // Asking an array for its buffer costs a call.
  const buffers: unknown[] = [];
  for (let i = 0; i < arrays.length; i++) {
    const array = arrays[i]!;
    buffers.push(array?.buffer);
    if (i < inputs || array === null) continue;
    for (let j = 0; j < i; j++) {
      if (buffers[j] === buffers[i] && isShared(array, arrays[j]!)) {
        throw new ShapeError(
          `${names[i]}: expected memory of its own, got some of that of ${names[j]}`,
        );
      }
    }
  }
}

/** True if two arrays of one buffer overlap. */
const isShared = (a: Float32Array, b: Float32Array): boolean =>
  a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength;

/** `value`, if it is a Float32Array of `length` values, or, if it is undefined, a fresh one. */
export const arrayOf = (name: string, value: unknown, length: number): Float32Array =>
  value === undefined ? new Float32Array(length) : float32Of(name, value, length);

/** The array for a result of x's length: `out`, which may be x itself, or a fresh one. */
export function outputOf(out: unknown, x: Float32Array): Float32Array {
  const array = arrayOf("out", out, x.length);
  if (array.buffer === x.buffer && !isSame(array, x)) refuseShared(["x", "out"], [x, array], 1);
  return array;
}
