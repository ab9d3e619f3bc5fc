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

/** Throws if `output` shares memory with `other`; being the very same is refused as well. */
export function refuseOverlap(
  outputName: string,
  output: Float32Array,
  otherName: string,
  other: Float32Array,
): void {
  if (
    output.buffer === other.buffer &&
    output.byteOffset < other.byteOffset + other.byteLength &&
    other.byteOffset < output.byteOffset + output.byteLength
  ) {
    throw new ShapeError(
      `${outputName}: expected memory of its own, got some of that of ${otherName}`,
    );
  }
}

/** The array for a result of x's length: `out`, which may be x itself, or a fresh one. */
export function outputOf(out: unknown, x: Float32Array): Float32Array {
  if (out === undefined) return new Float32Array(x.length);
  const array = float32Of("out", out, x.length);
  if (!isSame(array, x)) refuseOverlap("out", array, "x", x);
  return array;
}
