// Zip archives whose entries are stored, not compressed, as PyTorch and Keras write them: read in
// place by their central directory, zip64 included (PKWARE, .ZIP File Format Specification
// "APPNOTE.TXT", version 6.3.10, sections 4.3.7, 4.3.12 to 4.3.16 and 4.5.3).

import { StateError } from "../errors.js";
import { textOf, viewOfBytes } from "./bytes.js";

/** An entry as the central directory has it. */
export interface ZipEntry {
  readonly name: string;
  /** How it is kept: 0 is stored, 8 deflated. */
  readonly method: number;
  /** General purpose bits; bit 0 says that it is encrypted. */
  readonly flags: number;
  /** Bytes in the archive. */
  readonly packed: number;
  /** Bytes when unpacked. */
  readonly size: number;
  /** Where its local header is. */
  readonly at: number;
}

// Signatures, as little-endian numbers.
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;

// Bytes of the fixed part of each record.
const LOCAL_SIZE = 30;
const CENTRAL_SIZE = 46;
const END_SIZE = 22;
const END64_SIZE = 56;
const LOCATOR64_SIZE = 20;

/** What a field of 16 or 32 bits holds whose value is in a record of zip64. */
const FULL16 = 0xffff;
const FULL32 = 0xffffffff;
/** The extra field that holds the sizes and the place of an entry in 64 bits. */
const EXTRA64 = 1;
/** More entries than models have; as objects they would take many times their bytes. */
const MOST_ENTRIES = 1 << 18;

/** True for bytes that begin as the first entry of an archive, or as the end of an empty one. */
export const isZip = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && [LOCAL, END].includes(viewOfBytes(bytes).getUint32(0, true));

const malformed = (what: string): StateError =>
  new StateError(`bytes: expected a zip archive, got ${what}: truncated, or damaged`);

/** A whole number of 64 bits; one beyond 2^53 is beyond every file, whatever its last digits. */
const wide = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));

/** Where the record at the end of an archive is, which a comment may follow. */
function endOf(view: DataView): number {
  const first = Math.max(0, view.byteLength - END_SIZE - FULL16);
  for (let at = view.byteLength - END_SIZE; at >= first; at--) {
    if (view.getUint32(at, true) === END) return at;
  }
  throw malformed("one without its central directory");
}

/** How many entries there are, and where their central directory begins and ends. */
function placeOf(view: DataView): { count: number; begin: number; end: number } {
  let end = endOf(view);
  let count = view.getUint16(end + 10, true);
  let size = view.getUint32(end + 12, true);
  let begin = view.getUint32(end + 16, true);
  const locator = end - LOCATOR64_SIZE;
  if (locator >= 0 && view.getUint32(locator, true) === LOCATOR64) {
    end = wide(view, locator + 8);
    if (end > locator - END64_SIZE || view.getUint32(end, true) !== END64) {
      throw malformed("one whose zip64 record is not where its locator says");
    }
    count = wide(view, end + 32);
    size = wide(view, end + 40);
    begin = wide(view, end + 48);
  }
  if (begin + size > end || count * CENTRAL_SIZE > size) {
    throw malformed(`a central directory of ${count} entries in ${size} bytes at ${begin}`);
  }
  if (count > MOST_ENTRIES) {
    throw new StateError(
      `bytes: expected a zip archive of at most ${MOST_ENTRIES} entries, got ${count}`,
    );
  }
  return { count, begin, end: begin + size };
}

/**
 * Reads what the fields of 32 bits have no room for: the values that are full there follow in the
 * extra field of zip64, in this order.
 */
function widened(view: DataView, begin: number, end: number, values: number[]): number[] {
  if (!values.includes(FULL32)) return values;
  for (let at = begin; at + 4 <= end; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== EXTRA64) continue;
    const last = Math.min(end, at + 4 + view.getUint16(at + 2, true));
    let next = at + 4;
    return values.map((value) => {
      if (value !== FULL32) return value;
      if (next + 8 > last) throw malformed("an entry whose zip64 field is too short");
      next += 8;
      return wide(view, next - 8);
    });
  }
  // A size may be just that number.
  return values;
}

/**
 * The entries of an archive in the order of its central directory, none of them opened: how each is
 * kept does not matter here.
 *
 * @throws StateError for bytes that are no zip archive, or one without a whole central directory.
 */
export function directoryOf(bytes: Uint8Array): ZipEntry[] {
  if (bytes.length < END_SIZE) throw malformed(`${bytes.length} bytes`);
  const view = viewOfBytes(bytes);
  const { count, begin, end } = placeOf(view);
  const entries: ZipEntry[] = [];
  let at = begin;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL_SIZE > end || view.getUint32(at, true) !== CENTRAL) {
      throw malformed(`a central directory that breaks off after ${i} of ${count} entries`);
    }
    const [length, extra, comment] = [28, 30, 32].map((field) => view.getUint16(at + field, true));
    const name = at + CENTRAL_SIZE;
    const next = name + length! + extra! + comment!;
    if (next > end) throw malformed(`an entry ${i} that is longer than the central directory`);
    const narrow = [24, 20, 42].map((field) => view.getUint32(at + field, true));
    const fields = name + length!;
    const [size, packed, place] = widened(view, fields, fields + extra!, narrow);
    entries.push({
      name: textOf(`bytes: name of entry ${i}`, bytes.subarray(name, name + length!)),
      method: view.getUint16(at + 10, true),
      flags: view.getUint16(at + 8, true),
      packed: packed!,
      size: size!,
      at: place!,
    });
    at = next;
  }
  return entries;
}

/** Where the bytes of an entry begin: behind its local header, whose fields have lengths of their own. */
function dataOf(view: DataView, { name, at }: ZipEntry): number {
  if (at + LOCAL_SIZE > view.byteLength || view.getUint32(at, true) !== LOCAL) {
    throw malformed(`no local header of "${name}" at ${at}`);
  }
  return at + LOCAL_SIZE + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
}

/**
 * The content of every entry by its name, in the order of the central directory, as views of the
 * archive's bytes: nothing is copied or unpacked, so an archive cannot become larger than it is. Sizes
 * are those of the central directory, since programs that write in one go leave those of the local
 * headers at 0. Checksums are not compared: PyTorch can write files without them.
 *
 * @throws StateError for bytes that are no zip archive or a damaged one, whose entries overlap for
 * instance; for entries that are compressed or encrypted; and for a name that occurs twice.
 */
export function entriesOf(bytes: Uint8Array): Map<string, Uint8Array> {
  const directory = directoryOf(bytes);
  const view = viewOfBytes(bytes);
  const limit = placeOf(view).begin;
  const contents = new Map<string, Uint8Array>();
  for (const entry of directory) {
    const { name, method, flags, packed, size } = entry;
    if (method !== 0 || flags & 1) {
      const kept = flags & 1 ? "encrypted" : method === 8 ? "deflated" : `of method ${method}`;
      throw new StateError(
        `bytes: expected a zip archive of stored entries, as PyTorch and Keras write it, got "${name}", ` +
          `which is ${kept}; unpack the archive and pack it again with zip -0`,
      );
    }
    if (contents.has(name)) {
      throw new StateError(`bytes: expected entries of different names, got "${name}" twice`);
    }
    const begin = dataOf(view, entry);
    if (packed !== size || begin + size > limit) {
      throw malformed(`"${name}" of ${size} bytes, kept in ${packed} at ${begin} of ${limit}`);
    }
    contents.set(name, bytes.subarray(begin, begin + size));
  }
  // An archive in which entries lie upon each other is made to unpack to more than it is.
  const sorted = directory.slice().sort((a, b) => a.at - b.at);
  let free = 0;
  for (const { name, at } of sorted) {
    if (at < free) throw malformed(`"${name}" at ${at}, where another entry is`);
    const { byteOffset, length } = contents.get(name)!;
    free = byteOffset - bytes.byteOffset + length;
  }
  return contents;
}
