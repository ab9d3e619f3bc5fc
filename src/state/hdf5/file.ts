// HDF5 files as h5py writes them: numbers at addresses, the superblock, and object headers with their
// messages (HDF5 File Format Specification, version 3.0, sections II.A and IV.A,
// https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html).
//
// A reader of our own, since no library holds here. jsfive 0.4 follows a chunk size of 2^32 for
// minutes, gives data kept in other files as holes without an error, and does not know bfloat16.
// h5wasm 0.10 is 1 MB compressed, and cannot start synchronously.

import { StateError } from "../../errors.js";
import { textOf, viewOfBytes } from "../bytes.js";

/** An address at which nothing is: all bits set. */
export const NOWHERE = 2 ** 64;

const SIGNATURE = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];

/** More messages than an object has; those of version 1 are counted in 16 bits. */
const MOST_MESSAGES = 1 << 16;

/** Messages of an object header that matter here, by their numbers (section IV.A.2). */
export const MESSAGE = {
  dataspace: 0x01,
  linkInfo: 0x02,
  datatype: 0x03,
  link: 0x06,
  external: 0x07,
  layout: 0x08,
  attribute: 0x0c,
  continuation: 0x10,
  symbolTable: 0x11,
  attributeInfo: 0x15,
} as const;

/** A message of an object header: where its content is. */
export interface Message {
  readonly type: number;
  readonly at: number;
  readonly size: number;
}

/** True for bytes that begin as an HDF5 file does. */
export const isHdf5 = (bytes: Uint8Array): boolean =>
  SIGNATURE.every((byte, i) => bytes[i] === byte);

export const malformed = (what: string): StateError =>
  new StateError(`bytes: expected an HDF5 file, got ${what}: truncated, or damaged`);

/** The bytes of a file, each access within their bounds. */
export class Hdf5File {
  readonly root: number;
  readonly #view: DataView;
  readonly #headers = new Map<number, readonly Message[]>();
  #spent = 0;
  readonly #claimed = new Set<string>();
  #left: number;

  /** @throws StateError for bytes that are no HDF5 file, are not whole, or of sizes h5py does not write. */
  constructor(readonly bytes: Uint8Array) {
    this.#view = viewOfBytes(bytes);
    this.#left = bytes.length;
    if (!isHdf5(bytes)) throw malformed("bytes without its signature");
    const version = this.u8(8);
    if (version > 3) throw malformed(`a superblock of version ${version}`);
    const old = version < 2;
    const base = old ? (version === 0 ? 24 : 28) : 12;
    const sizes = old ? 13 : 9;
    if (this.u8(sizes) !== 8 || this.u8(sizes + 1) !== 8 || this.u64(base) !== 0) {
      throw new StateError(
        "bytes: expected an HDF5 file with addresses of 8 bytes from its beginning, as h5py writes " +
          `it, got addresses of ${this.u8(sizes)} bytes from ${this.u64(base)}`,
      );
    }
    const end = this.u64(base + 16);
    if (end > bytes.length) {
      throw new StateError(
        `bytes: expected the ${end} bytes of an HDF5 file, got ${bytes.length}: truncated`,
      );
    }
    this.root = this.u64(base + (old ? 40 : 24));
  }

  /** Throws unless so many bytes lie at an address. */
  check(at: number, length: number): void {
    if (!(at + length <= this.bytes.length)) {
      throw malformed(`an address ${at} with ${length} bytes in a file of ${this.bytes.length}`);
    }
  }

  u8(at: number): number {
    this.check(at, 1);
    return this.#view.getUint8(at);
  }

  u16(at: number): number {
    this.check(at, 2);
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    this.check(at, 4);
    return this.#view.getUint32(at, true);
  }

  /** Numbers beyond 2^53 are beyond every file, whatever their last digits. */
  u64(at: number): number {
    this.check(at, 8);
    return Number(this.#view.getBigUint64(at, true));
  }

  /** A number of one, two, four or eight bytes. */
  number(at: number, size: number): number {
    if (size === 1) return this.u8(at);
    return size === 2 ? this.u16(at) : size === 4 ? this.u32(at) : this.u64(at);
  }

  slice(at: number, length: number): Uint8Array {
    this.check(at, length);
    return this.bytes.subarray(at, at + length);
  }

  text(at: number, length: number): string {
    return textOf("bytes", this.slice(at, length));
  }

  /** Throws unless these four characters are there. */
  signature(at: number, letters: string): void {
    const found = [...this.slice(at, 4)].map((code) => String.fromCharCode(code)).join("");
    if (found !== letters) throw malformed(`no "${letters}" at ${at}`);
  }

  /**
   * Counts bytes of structures that are read. What is read is remembered, so a file that is no knot
   * needs each of its bytes once; a knot of structures that lie upon each other would take forever.
   */
  spend(bytes: number): void {
    this.#spent += bytes;
    if (this.#spent > 4 * this.bytes.length) throw malformed("structures that lie upon each other");
  }

  /** Counts the bytes of an array the first time that it is read: all of them have room in the file. */
  claim(path: string, length: number): void {
    if (this.#claimed.has(path)) return;
    this.#claimed.add(path);
    this.#left -= length;
    if (this.#left < 0)
      throw malformed(`arrays that lie upon each other, "${path}" the last of them`);
  }

  /** The messages of the object at an address. */
  messages(address: number): readonly Message[] {
    let messages = this.#headers.get(address);
    if (messages === undefined) {
      messages = this.u8(address) === 1 ? this.#first(address) : this.#second(address);
      this.#headers.set(address, messages);
    }
    return messages;
  }

  /** An object header of version 1: counted messages of 8 bytes and more (section IV.A.1.a). */
  #first(address: number): Message[] {
    const count = this.u16(address + 2);
    return this.#walk({
      first: [address + 16, this.u32(address + 8)],
      most: count,
      read: (at) => ({
        type: this.u16(at),
        size: this.u16(at + 2),
        flags: this.u8(at + 4),
        head: 8,
      }),
      inside: (at, length) => [at, length],
    });
  }

  /** An object header of version 2, which has signatures and checksums (section IV.A.1.b). */
  #second(address: number): Message[] {
    this.signature(address, "OHDR");
    const flags = this.u8(address + 5);
    const at = address + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
    const width = 1 << (flags & 3);
    const head = flags & 4 ? 6 : 4;
    return this.#walk({
      first: [at + width, this.number(at, width)],
      most: MOST_MESSAGES,
      read: (m) => ({ type: this.u8(m), size: this.u16(m + 1), flags: this.u8(m + 3), head }),
      inside: (block, length) => {
        this.signature(block, "OCHK");
        return [block + 4, length - 8];
      },
    });
  }

  /** The messages of all blocks of a header. Those that are shared lie elsewhere, and are left out. */
  #walk(header: {
    first: readonly [at: number, length: number];
    most: number;
    read: (at: number) => { type: number; size: number; flags: number; head: number };
    inside: (at: number, length: number) => readonly [at: number, length: number];
  }): Message[] {
    const messages: Message[] = [];
    const blocks = [header.first];
    let left = header.most;
    for (let block = 0; block < blocks.length; block++) {
      const [begin, length] = blocks[block]!;
      this.check(begin, length);
      this.spend(length);
      const end = begin + length;
      for (let at = begin; at + 4 <= end && left > 0; left--) {
        const { type, size, flags, head } = header.read(at);
        at += head;
        if (at > end) break; // a gap at the end of a block, too small for a message
        if (at + size > end) throw malformed(`a message of ${size} bytes at ${at}`);
        if (type === MESSAGE.continuation) {
          blocks.push(header.inside(this.u64(at), this.u64(at + 8)));
        } else if ((flags & 2) === 0) messages.push({ type, at, size });
        at += size;
      }
    }
    return messages;
  }
}
