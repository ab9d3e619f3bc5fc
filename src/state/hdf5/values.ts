// Reads the shapes and types of HDF5 data, attributes, and texts (HDF5 File Format Specification, version
// 3.0, sections III.E, IV.A.2.b, d, i and m).

import { StateError } from "../../errors.js";
import { product } from "../../values/layout.js";
import { FLOATS, type FloatFormat } from "../bytes.js";
import { lookUp } from "../keys.js";
import { type Hdf5File, malformed, NOWHERE } from "./file.js";

/**
 * A type of values: how many bytes each takes, and what they are. "text" lies in the value itself, and
 * "texts" are of any length and lie in a global heap.
 */
export type Type =
  | { readonly kind: "float"; readonly size: number; readonly format: FloatFormat; big: boolean }
  | { readonly kind: "text" | "texts" | "opaque" | "other"; readonly size: number };

/** The numbers of those classes of types that matter here. */
const FLOAT = 1;
const TEXT = 3;
const OPAQUE = 5;
const VARIABLE = 9;

/**
 * Floating-point formats by their layout: the number of bits, the first bit of the exponent and its length, the
 * first bit of the mantissa and its length, and the bias of the exponent.
 */
const FORMATS: Readonly<Record<string, FloatFormat>> = {
  "16 10 5 0 10 15": FLOATS.F16!,
  "16 7 8 0 7 127": FLOATS.BF16!,
  "32 23 8 0 23 127": FLOATS.F32!,
  "64 52 11 0 52 1023": FLOATS.F64!,
};

/** The type that a datatype message describes. */
export function typeOf(file: Hdf5File, at: number): Type {
  const kind = file.u8(at) & 15;
  const [bits, size] = [file.u8(at + 1), file.u32(at + 4)];
  if (kind === FLOAT) {
    const fields = [12, 13, 14, 15].map((field) => file.u8(at + field));
    const layout = [file.u16(at + 10), ...fields, file.u32(at + 16)].join(" ");
    const format = lookUp(FORMATS, layout);
    // Bit 0 is set for big-endian, and bit 6 for the byte order of a VAX. Bits 4 and 5 are 2 if the leading
    // digit of the mantissa is implied, as in IEEE 754.
    const known = format !== undefined && (bits & 0x70) === 0x20 && file.u16(at + 8) === 0;
    if (known && format.size === size) return { kind: "float", size, format, big: (bits & 1) > 0 };
  }
  if (kind === TEXT) return { kind: "text", size };
  if (kind === VARIABLE && (bits & 15) === 1) return { kind: "texts", size };
  return { kind: kind === OPAQUE ? "opaque" : "other", size };
}

/** The sizes of the axes in a dataspace message, `null` if it says that there are no values. */
export function shapeOf(file: Hdf5File, at: number): number[] | null {
  const [version, rank] = [file.u8(at), file.u8(at + 1)];
  if (version !== 1 && version !== 2) throw malformed(`a dataspace of version ${version}`);
  if (version === 2 && file.u8(at + 3) === 2) return null;
  const first = at + (version === 1 ? 8 : 4);
  return Array.from({ length: rank }, (_, axis) => file.u64(first + 8 * axis));
}

export const countOf = (shape: readonly number[] | null): number =>
  shape === null ? 0 : product(shape);

/** Reads an attribute message: its name, and the addresses of its type, shape and data. */
export function attributeOf(file: Hdf5File, at: number, length: number) {
  const version = file.u8(at);
  if (version < 1 || version > 3) throw malformed(`an attribute of version ${version}`);
  const padded = (size: number): number => (version === 1 ? Math.ceil(size / 8) * 8 : size);
  const [name, type, shape] = [2, 4, 6].map((field) => file.u16(at + field)) as [
    number,
    number,
    number,
  ];
  const begin = at + (version === 3 ? 9 : 8);
  const typeAt = begin + padded(name);
  const shapeAt = typeAt + padded(type);
  const data = shapeAt + padded(shape);
  const letters = file.slice(begin, name);
  const end = letters.indexOf(0);
  return {
    name: file.text(begin, end === -1 ? name : end),
    // Bit 0 or 1 is set if the type or the shape is shared with other objects and lies elsewhere.
    shared: version > 1 && (file.u8(at + 1) & 3) > 0,
    typeAt,
    shapeAt,
    data,
    end: at + length,
  };
}

/**
 * The texts of an attribute. If it has no values the list is empty, even if they would be of another type:
 * h5py writes an empty list as one of numbers.
 */
export function textsOf(file: Hdf5File, heaps: Heaps, found: ReturnType<typeof attributeOf>) {
  const count = found.shared ? 1 : countOf(shapeOf(file, found.shapeAt));
  if (count === 0) return [];
  const type: Type = found.shared ? { kind: "other", size: 0 } : typeOf(file, found.typeAt);
  const { kind, size } = type;
  if (kind !== "text" && kind !== "texts") {
    throw new StateError("bytes", `texts in the attribute "${found.name}"`, "values that are none");
  }
  if (!(size >= (kind === "text" ? 1 : 16) && found.data + count * size <= found.end)) {
    throw malformed(`${count} texts of ${size} bytes in the attribute "${found.name}"`);
  }
  return Array.from({ length: count }, (_, i) => {
    const at = found.data + i * size;
    if (kind === "texts") return heaps.text(at);
    const end = file.slice(at, size).indexOf(0);
    return file.text(at, end === -1 ? size : end);
  });
}

/** The global heaps of a file, which contain texts of variable length (section III.E). */
export class Heaps {
  readonly #known = new Map<number, ReadonlyMap<number, readonly [at: number, size: number]>>();

  constructor(readonly file: Hdf5File) {}

  /**
   * The text that the descriptor at an address refers to. The descriptor has the text's length, the address
   * of its heap, and its number in this heap.
   */
  text(at: number): string {
    const { file } = this;
    const [length, heap, number] = [file.u32(at), file.u64(at + 4), file.u32(at + 12)];
    if (length === 0 || heap === 0 || heap === NOWHERE) return "";
    const found = this.#objects(heap).get(number);
    if (found === undefined || length > found[1]) throw malformed(`no text ${number} at ${heap}`);
    file.spend(length);
    return file.text(found[0], length);
  }

  #objects(heap: number): ReadonlyMap<number, readonly [number, number]> {
    let objects = this.#known.get(heap);
    if (objects !== undefined) return objects;
    const { file } = this;
    file.checkLetters(heap, "GCOL");
    const size = file.u64(heap + 8);
    file.check(heap, size);
    file.spend(size);
    const found = new Map<number, readonly [number, number]>();
    for (let at = heap + 16; at + 16 <= heap + size; ) {
      const [number, length] = [file.u16(at), file.u64(at + 8)];
      if (number === 0) break; // number 0 marks the free space at the end
      if (at + 16 + length > heap + size) throw malformed(`an object of ${length} bytes at ${at}`);
      found.set(number, [at + 16, length]);
      at += 16 + Math.ceil(length / 8) * 8;
    }
    objects = found;
    this.#known.set(heap, objects);
    return objects;
  }
}
