// Reads and writes the bytes of files, and the little-endian numbers in them.

import { describe, ShapeError, StateError, UnsupportedError } from "../errors.js";
import { isUint8Array, part, sizeIn } from "../values/arrays.js";
import { isWhole } from "../values/check.js";

/** The bytes of a file. Those of a SharedArrayBuffer are given as a Uint8Array on it. */
export type Bytes = Uint8Array | ArrayBuffer;

/** The bytes as a Uint8Array, without a copy. `value` may be of another realm, and may be a Buffer of Node. */
export function bytesOf(name: string, value: unknown): Uint8Array {
  const isView = isUint8Array(value);
  if (isView || describe(value) === "an ArrayBuffer") {
    try {
      // An array that lost its memory has the size -1, of which there is no part.
      return isView ? part(value, 0, sizeIn(value)) : new Uint8Array(value as ArrayBuffer);
    } catch {
      throw new ShapeError(name, "bytes", "ones whose buffer is detached or too short");
    }
  }
  throw new ShapeError(name, "a Uint8Array or ArrayBuffer", describeFile(value));
}

/** Describes what was given in place of a file, and says how to read the file if it is a path, or an address. */
export function describeFile(value: unknown): string {
  const got = describe(value);
  const path = typeof value === "string" || got === "a URL";
  return path ? `${got}; readFileSync(path) of node:fs gives the bytes` : got;
}

/** True for an object that `bytesOf` may take, where parsed JSON can be given as well. */
export const isBytes = (value: object): boolean =>
  ArrayBuffer.isView(value) || "byteLength" in value;

export const viewOfBytes = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** How many bytes these parts have in all. */
export const lengthOf = (parts: readonly Uint8Array[]): number =>
  parts.reduce((sum, { length }) => sum + length, 0);

/** The parts one after another, in one array. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(lengthOf(parts));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** True if two arrays have the same bytes. */
export const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);

/** Made at first use, since a few runtimes have none. */
let utf8: TextDecoder | undefined;

/** The error of a runtime that lacks one of the two, as sandboxes of test runners and audio worklets do. */
const without = (name: string, verb: string): UnsupportedError =>
  new UnsupportedError(name, `one, to ${verb} the text in files`, "a runtime without it");

/** The UTF-8 bytes of a text. */
export function utf8Of(text: string): Uint8Array<ArrayBuffer> {
  if (typeof TextEncoder === "undefined") throw without("TextEncoder", "write");
  return new TextEncoder().encode(text);
}

/** The text that UTF-8 bytes hold. */
export function textOf(name: string, bytes: Uint8Array): string {
  if (typeof TextDecoder === "undefined") throw without("TextDecoder", "read");
  utf8 ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    // The bytes are copied, because browsers refuse to decode shared memory.
    return utf8.decode(new Uint8Array(bytes));
  } catch {
    throw new StateError(name, "UTF-8", "bytes that are none");
  }
}

/** The value that JSON text holds. */
export function jsonOf(name: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Callers may pass JSON as text, and a path in its place.
    const path = /^\s*[[{"]/.test(text)
      ? ""
      : "; readFileSync(path) of node:fs gives that of a file";
    throw new StateError(name, "JSON", `text that is none${path}`);
  }
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const isCount = (value: unknown): value is number => isWhole(value, 0);

/** A whole number, low byte first, in two's complement if `signed`; beyond 2^53 rounded as float64s are. */
export function wholeOf(bytes: Uint8Array, signed: boolean): number {
  const negative = signed && (bytes.at(-1) ?? 0) > 127;
  return bytes.reduceRight((sum, byte) => sum * 256 + byte - (negative ? 255 : 0), 0) - +negative;
}

/** A floating-point format: how many bytes a value has, and how one is read and written. */
export interface FloatFormat {
  readonly size: number;
  get(view: DataView, at: number): number;
  set(view: DataView, at: number, value: number): void;
}

const scratch = new DataView(new ArrayBuffer(8));

/**
 * Rounds a value to `digits` binary digits after the point, ties to even (IEEE 754, section 4.3.1). Numbers below
 * 2^`least` are subnormal: their spacing is the same as at 2^`least`.
 */
function round(value: number, digits: number, least: number): number {
  scratch.setFloat64(0, value);
  const exponent = Math.max(((scratch.getUint16(0) >> 4) & 0x7ff) - 1023, least);
  const spacing = 2 ** (exponent - digits);
  // A float64 of 2^52 or more has no digits after the point, so adding 2^52 rounds to a whole number.
  const units = Math.abs(value) / spacing + 2 ** 52 - 2 ** 52;
  return units * spacing * (value < 0 ? -1 : 1);
}

/**
 * Values of IEEE 754 binary16: 10 digits after the point, exponents -14 … 15. Times 2^-112 they are float32 values whose
 * bits, without the last 13, are those of binary16, as the exponents of float32 are offset by 127 and not by 15. Only
 * infinity and NaN need more: they would be 2^16 and numbers above it.
 */
const FLOAT16: FloatFormat = {
  size: 2,
  get(view, at) {
    const bits = view.getUint16(at, true);
    scratch.setUint32(0, (bits & 0x7fff) << 13);
    const size = scratch.getFloat32(0) * 2 ** 112;
    const sign = bits & 0x8000 ? -1 : 1;
    return sign * (size < 2 ** 16 ? size : size === 2 ** 16 ? Infinity : NaN);
  },
  set(view, at, value) {
    const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
    const size = Math.min(Math.abs(round(value, 10, -14)), 2 ** 16);
    scratch.setFloat32(0, size * 2 ** -112);
    view.setUint16(at, sign | ((scratch.getUint32(0) >>> 13) & 0x7fff), true);
  },
};

/** The upper half of a float32. */
const BFLOAT16: FloatFormat = {
  size: 2,
  get(view, at) {
    scratch.setUint32(0, view.getUint16(at, true) << 16);
    return scratch.getFloat32(0);
  },
  set(view, at, value) {
    scratch.setFloat32(0, Number.isFinite(value) ? round(value, 7, -126) || value * 0 : value);
    view.setUint16(at, scratch.getUint32(0) >>> 16, true);
  },
};

/** The formats, by the names that they have in safetensors files. */
export const FLOATS: Readonly<Record<string, FloatFormat>> = {
  F16: FLOAT16,
  BF16: BFLOAT16,
  F32: {
    size: 4,
    get: (view, at) => view.getFloat32(at, true),
    set: (view, at, value) => view.setFloat32(at, value, true),
  },
  F64: {
    size: 8,
    get: (view, at) => view.getFloat64(at, true),
    set: (view, at, value) => view.setFloat64(at, value, true),
  },
};

/** The values that bytes hold. */
export function decode(format: FloatFormat, bytes: Uint8Array): Float64Array {
  const view = viewOfBytes(bytes);
  const values = new Float64Array(Math.floor(bytes.length / format.size));
  for (let i = 0; i < values.length; i++) values[i] = format.get(view, i * format.size);
  return values;
}

/** True if `values` of a layer are those of a file, or those rounded to float32, as gamma and beta hold them. */
export function holds(values: ArrayLike<number>, file: Float64Array): boolean {
  const rounded = values instanceof Float32Array ? Math.fround : (value: number) => value;
  return (
    values.length === file.length && file.every((value, i) => Object.is(rounded(value), values[i]))
  );
}

/**
 * Turns values into bytes.
 *
 * @throws StateError for a finite value that is too large for the format.
 */
export function encode(name: string, format: FloatFormat, values: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(values.length * format.size);
  const view = viewOfBytes(bytes);
  for (let i = 0; i < values.length; i++) {
    format.set(view, i * format.size, values[i]!);
    if (Number.isFinite(values[i]) && !Number.isFinite(format.get(view, i * format.size))) {
      throw new StateError(`${name}[${i}]`, `a value within ${8 * format.size} bits`, values[i]);
    }
  }
  return bytes;
}
