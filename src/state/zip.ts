// Reads zip archives whose entries are stored without compression, as PyTorch and Keras write them.
// Entries are found by the central directory at the end of the archive (PKWARE, .ZIP File Format
// Specification "APPNOTE.TXT", version 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16). The records of zip64,
// which PyTorch adds to every archive, are ignored: they are needed only for archives too large for an
// array of bytes.

import { StateError } from "../errors.js";
import { textOf, viewOfBytes } from "./bytes.js";

/** An entry as the central directory describes it. */
export interface ZipEntry {
  readonly name: string;
  /** The method of compression: 0 is stored (none), 8 is deflate. */
  readonly method: number;
  /** The general purpose bits. Bit 0 is set if the entry is encrypted. */
  readonly flags: number;
  /** How many bytes it takes in the archive. */
  readonly packed: number;
  /** How many bytes it takes when it is unpacked. */
  readonly size: number;
  /** Where its local header begins. */
  readonly at: number;
}

// Signatures, as little-endian numbers.
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;

// Bytes of the fixed part of each record.
const LOCAL_SIZE = 30;
const CENTRAL_SIZE = 46;
const END_SIZE = 22;

/** The most bytes that the comment at the end of an archive can have. */
const LONGEST_COMMENT = 0xffff;
/** The most entries that are read, far more than models have: as objects they take many times their bytes. */
const MOST_ENTRIES = 1 << 18;

/** True for bytes that begin with the first entry of an archive, or with the end record of an empty one. */
export const isZip = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && [LOCAL, END].includes(viewOfBytes(bytes).getUint32(0, true));

const damaged = (what: string): StateError =>
  new StateError("bytes", "a zip archive", `one ${what}: truncated, or damaged`);

/**
 * Where the central directory begins and ends. This is in the end record, which is searched for from the end
 * of the archive, since a comment may follow it.
 */
function placeOf(view: DataView): [begin: number, end: number] {
  const last = view.byteLength - END_SIZE;
  for (let at = last; at >= Math.max(0, last - LONGEST_COMMENT); at--) {
    if (view.getUint32(at, true) !== END) continue;
    const begin = view.getUint32(at + 16, true);
    const end = begin + view.getUint32(at + 12, true);
    if (end <= at) return [begin, end];
    break;
  }
  throw damaged("without a central directory");
}

/**
 * The entries of an archive in the order of its central directory. Their contents are not looked at, so they
 * may be compressed or encrypted.
 *
 * @throws StateError for bytes that are no zip archive, or one without a whole central directory.
 */
export function directoryOf(bytes: Uint8Array): ZipEntry[] {
  const view = viewOfBytes(bytes);
  const [begin, end] = placeOf(view);
  const entries: ZipEntry[] = [];
  for (let at = begin; at !== end; ) {
    const name = at + CENTRAL_SIZE;
    if (name > end || view.getUint32(at, true) !== CENTRAL || entries.length === MOST_ENTRIES) {
      throw damaged(
        `of ${entries.length} entries, whose central directory has other data at ${at}`,
      );
    }
    const length = view.getUint16(at + 28, true);
    entries.push({
      name: textOf("bytes: name in a zip archive", bytes.subarray(name, name + length)),
      method: view.getUint16(at + 10, true),
      flags: view.getUint16(at + 8, true),
      packed: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true),
      at: view.getUint32(at + 42, true),
    });
    at = name + length + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return entries;
}

/**
 * The contents of all entries by name, in the order in which they lie in the archive. They are views of the
 * archive's bytes: nothing is copied or unpacked, so no archive can take more memory than its size. Sizes
 * come from the central directory, since programs that write an archive in one pass leave the sizes in the
 * local headers at 0. Checksums are not compared, since PyTorch can write files without them.
 *
 * @throws StateError for bytes that are no zip archive; for a damaged archive, in which entries overlap or
 * have the same name for instance; and for entries that are compressed or encrypted.
 */
export function entriesOf(bytes: Uint8Array): Map<string, Uint8Array> {
  const view = viewOfBytes(bytes);
  const [limit] = placeOf(view);
  const contents = new Map<string, Uint8Array>();
  let free = 0;
  for (const entry of directoryOf(bytes).sort((a, b) => a.at - b.at)) {
    const { name, method, flags, packed, size, at } = entry;
    if (method !== 0 || flags & 1) {
      throw new StateError(
        "bytes",
        "a zip archive of stored entries, as PyTorch and Keras write it",
        `"${name}", which is ${flags & 1 ? "encrypted" : "compressed"}; unpack it and pack it by zip -0`,
      );
    }
    // The local header has the name and extra fields again, with lengths that may differ from those in the
    // central directory. Overlapping entries are refused: such archives are made to unpack to huge sizes.
    const isHeader = at + LOCAL_SIZE <= limit && view.getUint32(at, true) === LOCAL;
    const lengths = isHeader ? view.getUint16(at + 26, true) + view.getUint16(at + 28, true) : 0;
    const begin = at + LOCAL_SIZE + lengths;
    if (!isHeader || at < free || packed !== size || begin + size > limit || contents.has(name)) {
      throw damaged(`whose entry "${name}" is not ${size} bytes of its own at ${begin}`);
    }
    free = begin + size;
    contents.set(name, bytes.subarray(begin, free));
  }
  return contents;
}
