// Reads the weights of a Keras model as TensorFlow.js keeps them. Each weight has an entry in the
// weightsManifest of model.json, which has groups of weights. The bytes of a group's weights follow each
// other in the group's files, the shards; a weight may begin in one shard and end in another
// (tfjs-core/src/io/types.ts, io_utils.ts).

import { describe, StateError } from "../../errors.js";
import { product } from "../../values/layout.js";
import {
  type Bytes,
  decode,
  FLOATS,
  type FloatFormat,
  isCount,
  isObject,
  joined,
  lengthOf,
  viewOfBytes,
} from "../bytes.js";
import { valuesFileOf } from "../format.js";
import { hasOwn, lookUp } from "../keys.js";
import type { Json } from "./topology.js";

/** A weight: its entry in model.json, and its bytes. */
export interface Weight {
  readonly entry: Json;
  readonly data: () => Uint8Array;
}

/** A group of weights: the names of the weights and the shards that hold their bytes, in order. */
export interface Group {
  readonly paths: readonly string[];
  readonly shards: readonly Uint8Array[];
  readonly weights: readonly string[];
}

/** How many bytes a value takes, by the type that a weight is kept in. */
const SIZES: Readonly<Record<string, number>> = {
  float32: 4,
  float16: 2,
  int32: 4,
  uint16: 2,
  uint8: 1,
  bool: 1,
  complex64: 8,
};

/** Reads a group of the manifest, and adds its weights to `found`. */
export function groupOf(
  name: string,
  value: unknown,
  files: Readonly<Record<string, Bytes>>,
  found: Map<string, Weight>,
): Group {
  const { paths, weights } = isObject(value) ? value : {};
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === "string")) {
    throw new StateError(`${name}.paths`, "an array of texts", describe(paths));
  }
  if (!Array.isArray(weights)) {
    throw new StateError(`${name}.weights`, "an array", describe(weights));
  }
  const shards = paths.map((path: string) => {
    if (!hasOwn(files, path)) {
      throw new StateError("weights", `the file "${path}", as model.json says`, "none");
    }
    return valuesFileOf(`weights["${path}"]`, files[path]);
  });
  const length = lengthOf(shards);
  const names: string[] = [];
  let begin = 0;
  for (const entry of weights as unknown[]) {
    if (!isObject(entry) || typeof entry.name !== "string" || found.has(entry.name)) {
      throw new StateError(`${name}.weights`, "entries of different names", describe(entry));
    }
    const from = begin;
    const end = from + sizeOf(entry, shards, from);
    if (end > length) {
      throw new StateError(entry.name, `bytes up to ${end}`, `files of ${length} bytes in ${name}`);
    }
    found.set(entry.name, { entry, data: () => bytesBetween(shards, from, end) });
    names.push(entry.name);
    begin = end;
  }
  if (begin !== length) {
    throw new StateError(name, `files of ${begin} bytes in all`, length);
  }
  return { paths, shards, weights: names };
}

/** How many bytes a weight takes; Infinity if its texts reach beyond the end of the group. */
function sizeOf(entry: Json, shards: readonly Uint8Array[], begin: number): number {
  const { name, shape, dtype, quantization: q } = entry;
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw new StateError(`${name}.shape`, "whole numbers", describe(shape));
  }
  const values = product(shape);
  const type = isObject(q) ? q.dtype : dtype;
  const size = typeof type === "string" ? lookUp(SIZES, type) : undefined;
  if (size !== undefined) return values * size;
  if (type !== "string") {
    throw new StateError(`${name}.dtype`, "a type of TensorFlow.js", describe(type));
  }
  // Each text is kept as its length in four bytes, followed by its bytes.
  let at = begin;
  for (let i = 0; i < values; i++) {
    const length = bytesBetween(shards, at, at + 4);
    if (length.length < 4) return Infinity;
    at += 4 + viewOfBytes(length).getUint32(0, true);
  }
  return at - begin;
}

/** The parts of what lies from `begin` to `end` in the bytes that some arrays hold one after another; views of these. */
export function partsBetween(
  arrays: readonly Uint8Array[],
  begin: number,
  end: number,
): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const array of arrays) {
    const next = at + array.length;
    if (begin < next && end > at) {
      parts.push(array.subarray(Math.max(0, begin - at), end - at));
    }
    at = next;
  }
  return parts;
}

/** Some of a group's bytes, a copy of them only if they lie in several shards. */
function bytesBetween(shards: readonly Uint8Array[], begin: number, end: number): Uint8Array {
  const parts = partsBetween(shards, begin, end);
  return parts.length === 1 ? parts[0]! : joined(parts);
}

/** The values of a weight [channels], as TensorFlow.js decodes them. */
export function valuesOf(weight: Weight): Float64Array {
  const { name, shape } = weight.entry;
  if (!Array.isArray(shape) || shape.length !== 1 || shape[0] === 0) {
    throw new StateError(
      name as string,
      "a shape of one axis, at least one channel",
      describe(shape),
    );
  }
  return numbersOf(weight);
}

/** The numbers of a weight of any shape, as TensorFlow.js decodes them. */
export function numbersOf({ entry, data }: Weight): Float64Array {
  const { dtype, quantization: q } = entry;
  const bytes = data();
  const format = formatOf(entry);
  if (format !== null) return decode(format, bytes);
  const { scale, min, dtype: packed } = isObject(q) ? q : {};
  const size = packed === "uint8" ? 1 : packed === "uint16" ? 2 : null;
  if (
    dtype !== "float32" ||
    size === null ||
    typeof scale !== "number" ||
    typeof min !== "number"
  ) {
    throw new StateError(
      entry.name as string,
      "float32, or uint8 or uint16 with a scale and a min",
      describe(packed ?? dtype),
    );
  }
  const view = viewOfBytes(bytes);
  const values = new Float64Array(bytes.length / size);
  for (let i = 0; i < values.length; i++) {
    const integer = size === 1 ? bytes[i]! : view.getUint16(2 * i, true);
    // Rounded to float32, since TensorFlow.js stores the result in a Float32Array.
    values[i] = Math.fround(integer * scale + min);
  }
  return values;
}

/** The floating-point format in which a weight is kept, `null` if it is kept as whole numbers. */
export function formatOf({ dtype, quantization: q }: Json): FloatFormat | null {
  const packed = isObject(q) ? q.dtype : dtype;
  if (dtype !== "float32" && dtype !== "float16") return null;
  return packed === "float32" ? FLOATS.F32! : packed === "float16" ? FLOATS.F16! : null;
}
