// Protocol Buffers as fields in a row, read in place, and changed without touching what is not
// (https://protobuf.dev/programming-guides/encoding/). The reader and writer are those of
// @bufbuild/protobuf.

import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { StateError } from "../errors.js";
import { textOf } from "./bytes.js";

export { BinaryWriter, WireType };

/** A field of a message: its number, and where it and its value are in the file. */
export interface Field {
  readonly number: number;
  readonly type: WireType;
  /** Where its tag is. */
  readonly start: number;
  /** Its value; that of a message, text or array without its length. */
  readonly begin: number;
  readonly end: number;
}

/** Part of a file: a message. */
export interface Range {
  readonly begin: number;
  readonly end: number;
}

/** Reads the fields of a file's messages. */
export class Wire {
  readonly bytes: Uint8Array;
  readonly #reader: BinaryReader;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#reader = new BinaryReader(bytes);
  }

  /** The whole file as a message. */
  get all(): Range {
    return { begin: 0, end: this.bytes.length };
  }

  /** The fields of a message, one after another. */
  *fields({ begin, end }: Range): Generator<Field> {
    for (let start = begin; start < end; ) {
      const field = this.#at(start, () => {
        const reader = this.#reader;
        const [number, type] = reader.tag();
        let value = reader.pos;
        if (type === WireType.LengthDelimited) {
          const length = reader.uint32();
          value = reader.pos;
          reader.pos += length;
        } else reader.skip(type, number);
        return { number, type, start, begin: value, end: reader.pos };
      });
      if (field.end > end) {
        throw new StateError(
          `bytes: expected a field at ${start} to end at ${end} at most, got ${field.end}`,
        );
      }
      yield field;
      start = field.end;
    }
  }

  /** The fields of a message that have values of their own length: messages, texts, arrays. */
  *parts(range: Range, number: number): Generator<Field> {
    for (const field of this.fields(range)) {
      if (field.number === number && field.type === WireType.LengthDelimited) yield field;
    }
  }

  data({ begin, end }: Range): Uint8Array {
    return this.bytes.subarray(begin, end);
  }

  text(range: Range): string {
    return textOf("bytes", this.data(range));
  }

  /** A whole number; 64-bit ones lose digits beyond 2^53. */
  integer(field: Field): number {
    return this.#at(field.begin, () => Number(this.#reader.int64()));
  }

  /** Whole numbers: of a field that holds one, or a packed row of them. */
  *integers(field: Field): Generator<number> {
    if (field.type !== WireType.LengthDelimited) {
      yield this.integer(field);
      return;
    }
    for (let at = field.begin; at < field.end; at = this.#reader.pos) {
      yield this.#at(at, () => Number(this.#reader.int64()));
    }
  }

  /** A float32. */
  float(field: Field): number {
    return this.#at(field.begin, () => this.#reader.float());
  }

  #at<T>(position: number, read: () => T): T {
    this.#reader.pos = position;
    try {
      return read();
    } catch (error) {
      throw new StateError(
        `bytes: expected Protocol Buffers at ${position}, got ${(error as Error).message}`,
      );
    }
  }

  /** Where a field is, its number and length included. */
  whole({ start, end }: Field): Uint8Array {
    return this.bytes.subarray(start, end);
  }

  /**
   * Writes the fields of a message as they are, byte for byte, but for those that `change` writes in
   * its own way or leaves out: for them it returns true.
   */
  copy(writer: BinaryWriter, range: Range, change: (field: Field) => boolean): void {
    for (const field of this.fields(range)) {
      if (!change(field)) writer.raw(this.whole(field));
    }
  }
}

/** Writes a field whose value is a message, which `fill` writes. */
export function message(writer: BinaryWriter, number: number, fill: () => void): void {
  writer.tag(number, WireType.LengthDelimited).fork();
  fill();
  writer.join();
}

/** Writes a field that is text. */
export function text(writer: BinaryWriter, number: number, value: string): void {
  writer.tag(number, WireType.LengthDelimited).string(value);
}

/** Writes a field that is bytes. */
export function data(writer: BinaryWriter, number: number, value: Uint8Array): void {
  writer.tag(number, WireType.LengthDelimited).bytes(value);
}

/** Writes a field that is a whole number. */
export function integer(writer: BinaryWriter, number: number, value: number): void {
  writer.tag(number, WireType.Varint).int64(value);
}
