// The lowest level of reading HDF5 files as h5py writes them: numbers at addresses, the superblock at the
// beginning of a file, and the headers of objects, which consist of messages (HDF5 File Format
// Specification, version 3.0, sections II.A and IV.A,
// https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html).
//
// This is a reader of our own because no library fits. jsfive 0.4 works for minutes if a damaged file has
// a chunk size of 2^32, returns holes without an error for data that lie in other files, and does not know
// bfloat16. h5wasm 0.10 takes 1 MB compressed, and cannot start synchronously.

import { StateError } from "../../errors.js";
import { textOf, viewOfBytes } from "../bytes.js";
import { formatOf } from "../format.js";

/** The address that stands for "nothing" in a file: all its 64 bits are set. */
export const NOWHERE = 2 ** 64;

/** The most messages of an object that are read. Headers of version 1 count them in 16 bits too. */
const MOST_MESSAGES = 1 << 16;

/** The numbers of those messages of an object header that matter here (section IV.A.2). */
export enum MESSAGE {
  dataspace = 0x01,
  linkInfo = 0x02,
  datatype = 0x03,
  link = 0x06,
  external = 0x07,
  layout = 0x08,
  attribute = 0x0c,
  continuation = 0x10,
  symbolTable = 0x11,
  attributeInfo = 0x15,
}

/** A message of an object header: its type, and where its content lies. */
export interface Message {
  readonly type: number;
  readonly at: number;
  readonly size: number;
}

/** The error for a file that is damaged; `what` says what was found. */
export const malformed = (what: string): StateError =>
  new StateError("bytes", "an HDF5 file", `${what}: truncated, or damaged`);

/** The bytes of a file. Every access is checked to be within their bounds. */
export class Hdf5File {
  /** The address of the root group. */
  readonly root: number;
  readonly #view: DataView;
  readonly #headers = new Map<number, readonly Message[]>();
  /** How many bytes of structures were read; see `spend`. */
  #spent = 0;
  readonly #claimed = new Set<string>();
  /** How many bytes of the file are left for arrays; see `claim`. */
  #left: number;

  /**
   * @throws StateError for bytes that are no HDF5 file, for a truncated file, and for one whose addresses do
   * not have the size that h5py writes.
   */
  constructor(readonly bytes: Uint8Array) {
    this.#view = viewOfBytes(bytes);
    this.#left = bytes.length;
    if (formatOf(bytes) !== "hdf5") throw malformed("bytes without its signature");
    const version = this.u8(8);
    if (version > 3) throw malformed(`a superblock of version ${version}`);
    const old = version < 2;
    const base = old ? (version === 0 ? 24 : 28) : 12;
    const sizes = old ? 13 : 9;
    if (this.u8(sizes) !== 8 || this.u8(sizes + 1) !== 8 || this.u64(base) !== 0) {
      throw new StateError(
        "bytes",
        "an HDF5 file with addresses of 8 bytes from its beginning, as h5py writes it",
        `addresses of ${this.u8(sizes)} bytes from ${this.u64(base)}`,
      );
    }
    const end = this.u64(base + 16);
    if (end > bytes.length) {
      throw new StateError(
        "bytes",
        `the ${end} bytes of an HDF5 file`,
        `${bytes.length}: truncated`,
      );
    }
    this.root = this.u64(base + (old ? 40 : 24));
  }

  /** Throws StateError unless the file has `length` bytes from the address `at` on. */
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

  /**
   * A number of eight bytes. One beyond 2^53 loses its last digits, which does no harm: as an address or a
   * length it is larger than every file, and is refused either way.
   */
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

  /** Throws StateError unless these four characters are at an address. */
  checkLetters(at: number, letters: string): void {
    const found = [...this.slice(at, 4)].map((code) => String.fromCharCode(code)).join("");
    if (found !== letters) throw malformed(`no "${letters}" at ${at}`);
  }

  /**
   * Counts the bytes of structures that are read, and throws StateError if they become many more than the
   * file has. Structures are remembered once they are read, so a sound file needs each byte about once. A
   * file whose structures overlap or lead back to each other could otherwise be read forever.
   */
  spend(bytes: number): void {
    this.#spent += bytes;
    if (this.#spent > 4 * this.bytes.length) throw malformed("structures that lie upon each other");
  }

  /**
   * Counts the bytes of an array when it is read for the first time. Throws StateError if the arrays together
   * have more bytes than the file, which they can have only if they overlap.
   */
  claim(path: string, length: number): void {
    if (this.#claimed.has(path)) return;
    this.#claimed.add(path);
    this.#left -= length;
    if (this.#left < 0)
      throw malformed(`arrays that lie upon each other, "${path}" the last of them`);
  }

  /** The messages in the header of the object at an address. */
  messages(address: number): readonly Message[] {
    let messages = this.#headers.get(address);
    if (messages === undefined) {
      messages = this.u8(address) === 1 ? this.#first(address) : this.#second(address);
      this.#headers.set(address, messages);
    }
    return messages;
  }

  /** Reads an object header of version 1, which says how many messages it has (section IV.A.1.a). */
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

  /** Reads an object header of version 2, which has signatures and checksums (section IV.A.1.b). */
  #second(address: number): Message[] {
    this.checkLetters(address, "OHDR");
    const flags = this.u8(address + 5);
    const at = address + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
    const width = 1 << (flags & 3);
    const head = flags & 4 ? 6 : 4;
    return this.#walk({
      first: [at + width, this.number(at, width)],
      most: MOST_MESSAGES,
      read: (m) => ({ type: this.u8(m), size: this.u16(m + 1), flags: this.u8(m + 3), head }),
      inside: (block, length) => {
        this.checkLetters(block, "OCHK");
        return [block + 4, length - 8];
      },
    });
  }

  /**
   * The messages in all blocks of a header. Messages whose content is shared between objects are left out:
   * their content lies elsewhere.
   */
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
