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

/** True for a Float64Array of this or another realm. */
export const isFloat64Array = (value: unknown): value is Float64Array =>
  brand.call(value) === "Float64Array";
/** True for a Uint8Array of this or another realm. */
export const isUint8Array = (value: unknown): value is Uint8Array =>
  brand.call(value) === "Uint8Array";

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

// Asking an array for its buffer costs a call, 35 ns: offsets are compared first.

/** True if both are the same values in the same place. */
export const isSame = (a: Float32Array, b: Float32Array): boolean =>
  a === b || (a.byteOffset === b.byteOffset && a.length === b.length && a.buffer === b.buffer);

const shared = (name: string, other: string): ShapeError =>
  new ShapeError(`${name}: expected memory of its own, got some of that of ${other}`);

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
    from.push(array === null ? 0 : array.byteOffset);
    to.push(array === null ? 0 : from[i]! + array.byteLength);
    buffers.push(null);
    for (let j = 0; j < i && i >= inputs; j++) {
      if (from[i]! >= to[j]! || from[j]! >= to[i]!) continue;
      buffers[i] ??= array.buffer;
      buffers[j] ??= arrays[j]!.buffer;
      if (buffers[i] === buffers[j]) {
        throw shared(names[i]!, names[j]!);
      }
    }
  }
}

/** `value`, if it is a Float32Array of `length` values, or, if it is undefined, a fresh one. */
export const arrayOf = (name: string, value: unknown, length: number): Float32Array =>
  value === undefined ? new Float32Array(length) : float32Of(name, value, length);

/** The array for a result of x's length: `out`, which may be x itself, or a fresh one. */
export function outputOf(out: unknown, x: Float32Array): Float32Array {
  const array = arrayOf("out", out, x.length);
  // Of one length, so they overlap if they begin nearer to each other than that.
  const apart = Math.abs(array.byteOffset - x.byteOffset);
  if (apart > 0 && apart < x.byteLength && array.buffer === x.buffer) throw shared("out", "x");
  return array;
}
