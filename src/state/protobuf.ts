// Reads a Protocol Buffers file as a row of fields, in place, and writes a changed copy in which all
// other fields keep their bytes (https://protobuf.dev/programming-guides/encoding/). No library is used:
// its reader and writer know all types of fields, and took a tenth of the bytes of the whole entry point.

import { StateError } from "../errors.js";
import { textOf, utf8Of, viewOfBytes } from "./bytes.js";

/** How the value of a field is encoded. Types 3 and 4 are missing: they mark groups, which ONNX does not use. */
export enum WireType {
  Varint = 0,
  Bit64 = 1,
  LengthDelimited = 2,
  Bit32 = 5,
}

/** A field of a message: its number and type, and the byte positions in the file of the field and its value. */
export interface Field {
  readonly number: number;
  readonly type: number;
  /** Where the field begins: at its tag, which holds the number and the type. */
  readonly start: number;
  /** Where the value begins. A message, text or packed array has its length before this place. */
  readonly begin: number;
  /** Where the value, and with it the field, has ended: the first byte behind it. */
  readonly end: number;
}

/** The bytes of a file that a message occupies: from `begin` to just before `end`. */
export interface Range {
  readonly begin: number;
  readonly end: number;
}

/** A file, with methods that read the fields of its messages and copy them with changes. */
export class Wire {
  readonly bytes: Uint8Array;
  /** The position behind the number that `#varint` read last. */
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** The whole file as a message. */
  get all(): Range {
    return { begin: 0, end: this.bytes.length };
  }

  /** The fields of a message, one after another. */
  *fields({ begin, end }: Range): Generator<Field> {
    for (let start = begin; start < end; ) {
      const field = this.#field(start);
      if (field.end > end) {
        throw new StateError(
          "bytes",
          `a field at ${start} to end at ${end} at most`,
          `${field.end}: truncated, or damaged`,
        );
      }
      yield field;
      start = field.end;
    }
  }

  #field(start: number): Field {
    const tag = this.#varint(start);
    const number = Math.floor(tag / 8);
    const type = tag & 7;
    let begin = this.#at;
    let size = NaN;
    if (type === WireType.Bit64) size = 8;
    else if (type === WireType.Bit32) size = 4;
    else if (type === WireType.LengthDelimited) {
      size = this.#varint(begin);
      begin = this.#at;
    } else if (type === WireType.Varint) {
      this.#varint(begin);
      size = this.#at - begin;
    }
    if (!(number >= 1 && number < 2 ** 29 && size >= 0)) {
      refuse(start, `the tag ${tag}${size < 0 ? ` and a length of ${size}` : ""}`);
    }
    return { number, type, start, begin, end: begin + size };
  }

  /**
   * The fields with this number and type. The default type is that of fields whose value has its length in front:
   * messages, texts and packed arrays.
   */
  *parts(range: Range, number: number, type = WireType.LengthDelimited): Generator<Field> {
    for (const field of this.fields(range)) {
      if (field.number === number && field.type === type) yield field;
    }
  }

  /**
   * The field with this number and type that a message should have once; `undefined` if it is missing. If the field
   * occurs several times, the last one counts, as the specification says.
   */
  last(range: Range, number: number, type?: WireType): Field | undefined {
    let found: Field | undefined;
    for (const field of this.parts(range, number, type)) found = field;
    return found;
  }

  data({ begin, end }: Range): Uint8Array {
    return this.bytes.subarray(begin, end);
  }

  text(range: Range): string {
    return textOf("bytes", this.data(range));
  }

  /** The whole number that a field holds. A number beyond 2^53 is rounded to what a double can hold. */
  integer(field: Field): number {
    return this.#varint(field.begin);
  }

  /** The whole numbers that a field holds: either a single number, or several that are packed one after the other. */
  *integers(field: Field): Generator<number> {
    for (let at = field.begin; at < field.end; at = this.#at) {
      yield this.#varint(at);
      if (field.type !== WireType.LengthDelimited) return;
    }
  }

  /** The float32 that a field holds. */
  float({ begin, end }: Field): number {
    return viewOfBytes(this.data({ begin, end })).getFloat32(0, true);
  }

  /**
   * Reads the signed number of up to 64 bits that begins at a position. Each byte holds seven bits of the
   * number, the lowest bits first; its eighth bit says whether another byte follows.
   */
  #varint(start: number): number {
    let [low, high] = [0, 0];
    this.#at = start;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.bytes[this.#at++];
      if (byte === undefined) refuse(start, "the end of the bytes");
      const bits = byte & 127;
      if (shift < 32) low |= bits << shift;
      if (shift > 21) high |= shift < 32 ? bits >> (32 - shift) : bits << (shift - 32);
      if (byte < 128) return high * 2 ** 32 + (low >>> 0);
    }
    return refuse(start, "a number of more than ten bytes");
  }

  /** The bytes of a whole field, its tag and length included. */
  whole({ start, end }: Field): Uint8Array {
    return this.bytes.subarray(start, end);
  }

  /**
   * Copies the fields of a message byte for byte. `change` is called with each field, and returns true if
   * that field is not to be copied, because `change` has written something else or leaves the field out.
   */
  copy(writer: BinaryWriter, range: Range, change: (field: Field) => boolean): void {
    for (const field of this.fields(range)) {
      if (!change(field)) writer.raw(this.whole(field));
    }
  }
}

function refuse(position: number, got: string): never {
  throw new StateError("bytes", `Protocol Buffers at ${position}`, got);
}

/** Collects the bytes of messages as they are written, and grows as needed. */
export class BinaryWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  raw(bytes: Uint8Array): this {
    const end = this.#length + bytes.length;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(2 * end);
      larger.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = end;
    return this;
  }

  /** Writes a whole number >= 0, without a tag. */
  varint(value: number): this {
    const bytes: number[] = [];
    let left = value;
    for (; left > 127; left = Math.floor(left / 128)) bytes.push((left % 128) + 128);
    return this.raw(Uint8Array.of(...bytes, left));
  }

  tag(number: number, type: number): this {
    return this.varint(8 * number + type);
  }

  /** A copy of all that was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** Writes a field whose value is the message that `fill` writes with this writer. */
  message(number: number, fill: () => void): this {
    const begin = this.#length;
    fill();
    const inside = this.#bytes.slice(begin, this.#length);
    this.#length = begin;
    return this.data(number, inside);
  }

  /** Writes a field whose value is these bytes. */
  data(number: number, bytes: Uint8Array): this {
    return this.tag(number, WireType.LengthDelimited).varint(bytes.length).raw(bytes);
  }

  /** Writes a field whose value is text. */
  text(number: number, value: string): this {
    return this.data(number, utf8Of(value));
  }

  /** Writes a field whose value is a whole number >= 0. */
  integer(number: number, value: number): this {
    return this.tag(number, WireType.Varint).varint(value);
  }

  /** Writes a field whose value is a float32. */
  float(number: number, value: number): this {
    const bytes = new Uint8Array(4);
    viewOfBytes(bytes).setFloat32(0, value, true);
    return this.tag(number, WireType.Bit32).raw(bytes);
  }
}
