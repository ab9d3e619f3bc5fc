// The weights of a Keras model as TensorFlow.js keeps them: an entry of model.json's weightsManifest for
// each, and groups of files, the shards, which hold their bytes one after another, cut anywhere
// (tfjs-core/src/io/types.ts, io_utils.ts).

import { describe, StateError } from "../../errors.js";
import {
  type Bytes,
  bytesOf,
  decode,
  FLOATS,
  type FloatFormat,
  isCount,
  isObject,
  viewOfBytes,
} from "../bytes.js";
import type { Json } from "./topology.js";

/** A weight: its entry in model.json and where its bytes are in those of its group. */
export interface Weight {
  readonly entry: Json;
  readonly group: number;
  readonly begin: number;
  readonly end: number;
}

/** The shards of a group of weights, in order. */
export interface Group {
  readonly paths: readonly string[];
  readonly shards: readonly Uint8Array[];
  readonly weights: readonly string[];
}

/** Bytes a value of each type that weights are kept in. */
const SIZES: Readonly<Record<string, number>> = {
  float32: 4,
  float16: 2,
  int32: 4,
  uint16: 2,
  uint8: 1,
  bool: 1,
  complex64: 8,
};

/** A group, its weights laid out over its shards and added to `found`. */
export function groupOf(
  name: string,
  value: unknown,
  files: Readonly<Record<string, Bytes>>,
  group: number,
  found: Map<string, Weight>,
): Group {
  const { paths, weights } = isObject(value) ? value : {};
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === "string")) {
    throw new StateError(`${name}.paths: expected an array of texts, got ${describe(paths)}`);
  }
  if (!Array.isArray(weights)) {
    throw new StateError(`${name}.weights: expected an array, got ${describe(weights)}`);
  }
  const shards = paths.map((path: string) => {
    if (!Object.hasOwn(files, path)) {
      throw new StateError(`weights: expected the file "${path}", as model.json says, got none`);
    }
    return bytesOf(`weights["${path}"]`, files[path]);
  });
  const length = shards.reduce((sum, shard) => sum + shard.length, 0);
  const names: string[] = [];
  let begin = 0;
  for (const entry of weights as unknown[]) {
    if (!isObject(entry) || typeof entry.name !== "string" || found.has(entry.name)) {
      throw new StateError(
        `${name}.weights: expected entries of different names, got ${describe(entry)}`,
      );
    }
    const end = begin + sizeOf(entry, shards, begin);
    if (end > length) {
      throw new StateError(
        `${entry.name}: expected bytes up to ${end}, got files of ${length} bytes in ${name}`,
      );
    }
    found.set(entry.name, { entry, group, begin, end });
    names.push(entry.name);
    begin = end;
  }
  if (begin !== length) {
    throw new StateError(`${name}: expected files of ${begin} bytes in all, got ${length}`);
  }
  return { paths, shards, weights: names };
}

/** Bytes that a weight takes. */
function sizeOf(entry: Json, shards: readonly Uint8Array[], begin: number): number {
  const { name, shape, dtype, quantization: q } = entry;
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw new StateError(`${name}.shape: expected whole numbers, got ${describe(shape)}`);
  }
  const values = shape.reduce((product, n) => product * n, 1);
  const type = isObject(q) ? q.dtype : dtype;
  if (typeof type === "string" && Object.hasOwn(SIZES, type)) return values * SIZES[type]!;
  if (type !== "string") {
    throw new StateError(`${name}.dtype: expected a type of TensorFlow.js, got ${describe(type)}`);
  }
  // Each text: its length in four bytes, and its bytes. Past the end there is nothing to read.
  const group = { paths: [], shards, weights: [] };
  let at = begin;
  for (let i = 0; i < values; i++) {
    const length = bytesBetween(group, at, at + 4);
    if (length.length < 4) return Infinity;
    at += 4 + viewOfBytes(length).getUint32(0, true);
  }
  return at - begin;
}

/** Bytes of a group, across shards. */
export function bytesBetween({ shards }: Group, begin: number, end: number): Uint8Array {
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const shard of shards) {
    if (begin < at + shard.length && end > at) {
      parts.push(shard.subarray(Math.max(0, begin - at), Math.min(shard.length, end - at)));
    }
    at += shard.length;
  }
  return parts.length === 1 ? parts[0]! : spread(parts, [end - begin])[0]!;
}

/**
 * Parts one after another, cut into arrays of these lengths, as far as they reach; the last array takes
 * the rest.
 */
export function spread(parts: readonly Uint8Array[], lengths: readonly number[]): Uint8Array[] {
  let left = parts.reduce((sum, { length }) => sum + length, 0);
  const arrays = lengths.map((length, i) => {
    const size = i === lengths.length - 1 ? left : Math.min(length, left);
    left -= size;
    return new Uint8Array(size);
  });
  let [into, at] = [0, 0];
  for (let part of parts) {
    while (part.length > 0) {
      const room = arrays[into]!.length - at;
      arrays[into]!.set(part.subarray(0, room), at);
      at += Math.min(room, part.length);
      part = part.subarray(room);
      if (part.length > 0) [into, at] = [into + 1, 0];
    }
  }
  return arrays;
}

/** The values of a weight [channels], as TensorFlow.js decodes them. */
export function valuesOf(groups: readonly Group[], found: Weight): Float64Array {
  const { shape } = found.entry;
  if (!Array.isArray(shape) || shape.length !== 1 || shape[0] === 0) {
    throw new StateError(
      `${found.entry.name}: expected a shape of one axis, at least one channel, got ${describe(shape)}`,
    );
  }
  return numbersOf(found.entry, bytesBetween(groups[found.group]!, found.begin, found.end));
}

/** The numbers of a weight of any shape in its bytes, as TensorFlow.js decodes them. */
export function numbersOf(entry: Json, data: Uint8Array): Float64Array {
  const { dtype, quantization: q } = entry;
  const format = formatOf(entry);
  if (format !== null) return decode(format, data);
  const { scale, min, dtype: packed } = isObject(q) ? q : {};
  const size = packed === "uint8" ? 1 : packed === "uint16" ? 2 : null;
  if (
    dtype !== "float32" ||
    size === null ||
    typeof scale !== "number" ||
    typeof min !== "number"
  ) {
    throw new StateError(
      `${entry.name}: expected float32, or uint8 or uint16 with a scale and a min, got ` +
        describe(packed ?? dtype),
    );
  }
  const view = viewOfBytes(data);
  const values = new Float64Array(data.length / size);
  for (let i = 0; i < values.length; i++) {
    const integer = size === 1 ? data[i]! : view.getUint16(2 * i, true);
    // In float32, as TensorFlow.js stores the product and the sum.
    values[i] = Math.fround(integer * scale + min);
  }
  return values;
}

/** The floating-point format of a weight, `null` if it has none. */
export function formatOf({ dtype, quantization: q }: Json): FloatFormat | null {
  const packed = isObject(q) ? q.dtype : dtype;
  if (dtype !== "float32" && dtype !== "float16") return null;
  return packed === "float32" ? FLOATS.F32! : packed === "float16" ? FLOATS.F16! : null;
}
