// The reader of zip archives: what the published format allows is read, in place, and each damage or
// attack is refused in words of its own.

import { StateError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { directoryOf, entriesOf, isZip } from "../../src/state/zip.js";
import { assertRefuses } from "../support/refuse.js";
import { extra64, type PlainEnd, type PlainEntry, zip } from "./zip-files.js";

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const A: PlainEntry = { name: "a", data: bytes(1, 2, 3) };
const B: PlainEntry = { name: "dir/ü", data: bytes(4, 5), padding: 61 };
const FULL = 0xffffffff;

const contents = (archive: Uint8Array): unknown =>
  [...entriesOf(archive)].map(([name, data]) => [name, ...data]);
const BOTH = [
  ["a", 1, 2, 3],
  ["dir/ü", 4, 5],
];

describe("is read", () => {
  test.each<[string, Uint8Array]>([
    ["stored entries, their sizes in the central directory alone", zip([A, B])],
    ["zip64 at the end", zip([A, B], { zip64: true })],
    ["a comment", zip([A, B], { comment: new Uint8Array(300).fill(0x50) })],
    ["bytes behind it", Uint8Array.of(...zip([A, B]), 0, 0, 0)],
    [
      "sizes and places in the extra field of zip64, behind another",
      zip([
        {
          ...A,
          size: FULL,
          packed: FULL,
          at: FULL,
          extra: bytes(9, 9, 1, 0, 7, ...extra64(3, 3, 0)),
        },
        B,
      ]),
    ],
    ["one place alone there", zip([{ ...A, at: FULL, extra: extra64(0) }, B])],
  ])("%s", (_, archive) => {
    expect(contents(archive)).toEqual(BOTH);
    expect(isZip(archive)).toBe(true);
  });

  test("an archive of nothing", () => {
    expect(entriesOf(zip([])).size).toBe(0);
    expect(isZip(zip([]))).toBe(true);
    expect(isZip(bytes(0x50, 0x4b))).toBe(false);
  });

  test("views of the archive, from any offset", () => {
    const archive = zip([A, B]);
    const moved = new Uint8Array(archive.length + 3).subarray(3);
    moved.set(archive);
    expect(contents(moved)).toEqual(BOTH);
    const a = entriesOf(moved).get("a")!;
    expect(a.buffer).toBe(moved.buffer);
  });

  test("how compressed entries are kept, without opening them", () => {
    const [entry] = directoryOf(zip([{ ...A, method: 8, size: 999 }]));
    expect(entry).toMatchObject({ name: "a", method: 8, packed: 3, size: 999 });
  });
});

describe("is refused", () => {
  const one = (change: Partial<PlainEntry>, end?: PlainEnd): Uint8Array =>
    zip([{ ...A, ...change }, B], end);
  const whole = zip([A, B]);
  /** An archive with some bytes overwritten. */
  const other = (archive: Uint8Array, at: number, ...values: number[]): Uint8Array => {
    const changed = archive.slice();
    changed.set(values, at);
    return changed;
  };
  const zip64 = zip([A, B], { zip64: true });

  test.each<[string, Uint8Array, RegExp]>([
    ["nothing", bytes(), /^bytes: expected a zip archive, got 0 bytes: truncated, or damaged$/],
    ["the first half", whole.subarray(0, 80), /got one without its central directory: truncated/],
    ["no signature", new Uint8Array(1 << 17), /got one without its central directory/],
    [
      "a count beyond the directory",
      zip([A], { count: 2 }),
      /got a central directory of 2 entries in 47 bytes/,
    ],
    [
      "a directory behind the end",
      zip([A], { begin: 9999 }),
      /central directory of 1 entries in 47 bytes at 9999/,
    ],
    [
      "a huge directory",
      zip([A], { length: FULL }),
      /central directory of 1 entries in 4294967295 bytes/,
    ],
    [
      "a huge count",
      zip([A], { zip64: true, count: 2 ** 52 }),
      /central directory of 4503599627370496/,
    ],
    ["a directory elsewhere", zip([A], { begin: 3 }), /breaks off after 0 of 1 entries/],
    [
      "a locator to nowhere",
      other(zip64, zip64.length - 34, 1),
      /zip64 record is not where its locator/,
    ],
    [
      "a locator behind the end",
      other(zip64, zip64.length - 30, 9),
      /zip64 record is not where its/,
    ],
    [
      "a name longer than the directory",
      other(zip([A]), zip([A]).length - 22 - 47 + 28, 99),
      /got an entry 0 that is longer than the central directory/,
    ],
    [
      "names that are no UTF-8",
      one({ name: bytes(0xff) }),
      /^bytes: name of entry 0: expected UTF-8/,
    ],
    [
      "half a field of zip64",
      one({ size: FULL, at: FULL, extra: extra64(3) }),
      /zip64 field is too short/,
    ],
    [
      "a deflated entry",
      one({ method: 8 }),
      /stored entries.* got "a", which is deflated; .* zip -0$/,
    ],
    ["another method", one({ method: 14 }), /got "a", which is of method 14/],
    ["an encrypted entry", one({ flags: 1 }), /got "a", which is encrypted/],
    ["a name twice", zip([A, A]), /^bytes: expected entries of different names, got "a" twice$/],
    ["an entry without a header", one({ at: 5 }), /got no local header of "a" at 5/],
    ["an entry behind the end", one({ at: FULL }), /got no local header of "a" at 4294967295/],
    ["more bytes than there are", one({ size: 5000, packed: 5000 }), /"a" of 5000 bytes/],
    ["a size that needs zip64", one({ size: FULL, packed: FULL }), /"a" of 4294967295 bytes/],
    ["bytes of the directory", one({ size: 140, packed: 140 }), /"a" of 140 bytes/],
    ["another size than it is kept in", one({ size: 2 }), /"a" of 2 bytes, kept in 3/],
    [
      "one entry upon another",
      zip([A, { ...B, at: 0 }]),
      /got "dir\/ü" at 0, where another entry is/,
    ],
    [
      "an entry within another",
      one({ size: 50, packed: 50 }),
      /got "dir\/ü" at 34, where another entry is/,
    ],
  ])("%s", (_, archive, message) => {
    assertRefuses(StateError, message, () => entriesOf(archive));
  });

  test("every beginning of an archive", () => {
    for (let length = 0; length < whole.length; length++) {
      assertRefuses(StateError, /^bytes: expected a zip archive, got/, () =>
        entriesOf(whole.subarray(0, length)),
      );
    }
  });

  test("a million entries", () => {
    const count = 1 << 20;
    const archive = new Uint8Array(46 * count + 22 + 76);
    const end = zip([], { zip64: true, count, length: 46 * count, begin: 0 });
    new DataView(end.buffer, end.byteOffset).setBigUint64(56 + 8, BigInt(46 * count), true);
    archive.set(end, 46 * count);
    assertRefuses(StateError, /at most 262144 entries, got 1048576$/, () => entriesOf(archive));
  });
});
