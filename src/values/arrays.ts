// The one place where arrays of users are touched. An array is the numbers that it views: a class derived from
// Float32Array may have methods, getters and a constructor of its own, and none of them is called. All else in src/
// reads and writes such arrays by index, and asks the functions of this file for the rest.
//
// They use what a typed array has inside (ECMA-262, "Properties of the %TypedArray% Prototype Object"), by the getters
// and the `set` of the platform, which work on arrays of every realm. They are taken here once, when this file is loaded.

import { describe, isArray, ShapeError } from "../errors.js";

/** The arrays that the package reads. */
export type Typed = Float32Array | Float64Array | Uint8Array;

// V8 inlines a call of such a getter, so it is not slower than `array.buffer`.
const getter = (name: string | symbol): (() => unknown) =>
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), name)!.get!;
const buffer = getter("buffer");
const byteOffset = getter("byteOffset");
const length = getter("length");
// The name of a typed array's class. Arrays of every realm have it, and no other object can fake it.
const brand = getter(Symbol.toStringTag);

const set = Float32Array.prototype.set as (from: ArrayLike<number>, at?: number) => void;

/** Sets values of an array, from `at` on, to those of another one. `from` is no array of a user's other than a typed one. */
export const copy = (to: Typed, from: ArrayLike<number>, at?: number): void =>
  set.call(to, from, at);

/** How many values an array has. */
export const lengthOf = (array: Typed): number => length.call(array) as number;

/** The buffer of an array. */
export const bufferOf = (array: Typed): ArrayBufferLike => buffer.call(array) as ArrayBufferLike;

/** Where an array begins in its buffer, in bytes. */
export const offsetOf = (array: Typed): number => byteOffset.call(array) as number;

/** The class of this realm that an array is of, whatever its constructor says. */
const classOf = (array: Typed): typeof Float32Array =>
  globalThis[brand.call(array) as "Float32Array"];

/** A view, of our own, of the values of an array from the one at `from` to the one before `to`. */
export function part<A extends Typed>(array: A, from: number, to: number): A {
  const Own = classOf(array);
  const at = offsetOf(array) + from * Own.BYTES_PER_ELEMENT;
  return new Own(bufferOf(array), at, to - from) as Typed as A;
}

/** A copy of an array, in an array of our own. */
export function copyOf<A extends Typed>(array: A): A {
  // The array may track a shared buffer that another thread grows meanwhile.
  const size = lengthOf(array);
  const own = new (classOf(array))(size) as Typed as A;
  copy(own, part(array, 0, size));
  return own;
}

/** True for a Float32Array of this or another realm. */
export const isFloat32Array = (value: unknown): value is Float32Array =>
  brand.call(value) === "Float32Array";

/** True for a Float64Array of this or another realm. */
export const isFloat64Array = (value: unknown): value is Float64Array =>
  brand.call(value) === "Float64Array";

/** True for a Uint8Array of this or another realm. */
export const isUint8Array = (value: unknown): value is Uint8Array =>
  brand.call(value) === "Uint8Array";

/** How many values an array has; -1 if it lost its memory, as its buffer was transferred away or has shrunk. */
export function sizeIn(array: Typed): number {
  const size = lengthOf(array);
  if (size === 0) {
    // Such an array has the length 0, as an empty one has. But nothing can be copied into it.
    try {
      copy(array, array);
    } catch {
      return -1;
    }
  }
  return size;
}

/** How many values a Float32Array has; throws ShapeError if `value` is none that has its memory. */
export function sizeOfFloat32(name: string, value: unknown): number {
  if (!isFloat32Array(value)) {
    // Of arrays in an array, and of BigInts, this would not make the numbers.
    const cure = isArray(value, "number") ? `, as Float32Array.from(${name}) makes` : "";
    throw new ShapeError(name, `a Float32Array${cure}`, describe(value));
  }
  const size = sizeIn(value);
  if (size < 0) {
    throw new ShapeError(name, "a Float32Array", "one whose buffer is detached or too short");
  }
  return size;
}

/** Returns `value` if it is a Float32Array of `length` values; throws ShapeError if not. */
export function float32Of(name: string, value: unknown, length: number): Float32Array {
  const size = sizeOfFloat32(name, value);
  if (size !== length) throw new ShapeError(name, `${length} values`, size);
  return value as Float32Array;
}

/** True if both arrays have the same length and lie in the same place of memory. */
export const isSame = (a: Float32Array, b: Float32Array): boolean =>
  a === b ||
  (offsetOf(a) === offsetOf(b) && lengthOf(a) === lengthOf(b) && bufferOf(a) === bufferOf(b));

/** The error about an array that is written and lies where another one does. */
export const shared = (name: string, other: string): ShapeError =>
  new ShapeError(name, "memory of its own", `some of that of ${other}`);

/** Where each of some arrays begins in its buffer, and where it ends. These are kept, since making them takes longer than the checks. */
const starts: number[] = [];
const ends: number[] = [];

/**
 * The first `inputs` arrays are only read, and may share memory with each other. Throws if one of the others shares
 * memory with an array before it, or is that array. `null` stands for an array that is not there.
 */
export function refuseShared(
  names: readonly string[],
  arrays: readonly (Float32Array | null)[],
  inputs: number,
): void {
  for (let i = 0; i < arrays.length; i++) {
    const array = arrays[i]!;
    // No comparison with NaN is true.
    const from = array ? offsetOf(array) : NaN;
    const to = array ? from + lengthOf(array) * 4 : NaN;
    for (let j = 0; j < i && i >= inputs; j++) {
      // The buffers come last, since V8 makes that of a small array when asked.
      const meet = from < ends[j]! && to > starts[j]!;
      if (meet && bufferOf(array!) === bufferOf(arrays[j]!)) throw shared(names[i]!, names[j]!);
    }
    starts[i] = from;
    ends[i] = to;
  }
}

/** As `float32Of`, but makes a fresh array of zeros if `value` is undefined. */
export const arrayOf = (name: string, value: unknown, length: number): Float32Array =>
  value === undefined ? new Float32Array(length) : float32Of(name, value, length);

/**
 * The array for a result of the `length` of x, an argument of this `name`: `out`, which may be x or add itself, or a
 * fresh one.
 */
export function outputOf(
  out: unknown,
  x: Float32Array,
  add: Float32Array | null,
  length: number,
  name = "x",
): Float32Array {
  const array = arrayOf("out", out, length);
  refusePart(array, name, x, length);
  if (add !== null) refusePart(array, "add", add, length);
  return array;
}

/** Returns `add` if it is a Float32Array of x's `length`, `null` if it is undefined; throws ShapeError if not. */
export const residualOf = (add: unknown, length: number): Float32Array | null =>
  add === undefined ? null : float32Of("add", add, length);

/** Throws if `out` overlaps an input of the same `length` without being it. */
function refusePart(out: Float32Array, name: string, input: Float32Array, length: number): void {
  // They overlap if their beginnings are closer together than their length.
  const apart = Math.abs(offsetOf(out) - offsetOf(input));
  if (apart > 0 && apart < length * 4 && bufferOf(out) === bufferOf(input)) {
    throw shared("out", name);
  }
}
