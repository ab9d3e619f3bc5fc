// The reader of zip archives: what the published format allows is read, in place, and each damage or
// attack is refused in words of its own.

import { StateError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { directoryOf, entriesOf, isZip } from "../../src/state/zip.js";
import { assertRefuses } from "../support/refuse.js";
import { type PlainEnd, type PlainEntry, zip } from "./zip-files.js";

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
  const DIRECTORY = /^bytes: expected a zip archive, got one without a central directory: trunc/;
  const OWN = /got one whose entry "a" is not 3 bytes of its own at \d+: truncated, or damaged$/;

  test.each<[string, Uint8Array, RegExp]>([
    ["nothing", bytes(), DIRECTORY],
    ["the first half", whole.subarray(0, 80), DIRECTORY],
    ["no signature", new Uint8Array(1 << 17), DIRECTORY],
    ["a directory behind the end", zip([A], { begin: 9999 }), DIRECTORY],
    ["a huge directory", zip([A], { length: FULL }), DIRECTORY],
    [
      "a directory elsewhere",
      zip([A], { begin: 3 }),
      /of 0 entries, whose central directory has other/,
    ],
    [
      "half an entry",
      zip([A], { length: 40 }),
      /of 0 entries, whose central directory has other data/,
    ],
    [
      "an entry and a half",
      zip([A, B], { length: 60 }),
      /of 1 entries, whose central directory has/,
    ],
    [
      "a name longer than the directory",
      other(zip([A, B]), zip([A, B]).length - 22 - 99 + 28, 99),
      /^bytes: name in a zip archive: expected UTF-8/,
    ],
    [
      "names that are no UTF-8",
      one({ name: bytes(0xff) }),
      /^bytes: name in a zip archive: expected/,
    ],
    [
      "a deflated entry",
      one({ method: 8 }),
      /stored entries.* got "a", which is compressed; .* zip -0$/,
    ],
    ["another method", one({ method: 14 }), /got "a", which is compressed/],
    ["an encrypted entry", one({ flags: 1 }), /got "a", which is encrypted/],
    ["a name twice", zip([A, A]), OWN],
    ["an entry without a header", one({ at: 5 }), OWN],
    ["an entry behind the end", one({ at: FULL }), OWN],
    [
      "more bytes than there are",
      one({ size: 5000, packed: 5000 }),
      /"a" is not 5000 bytes of its own/,
    ],
    [
      "a size that is in zip64",
      one({ size: FULL, packed: FULL }),
      /"a" is not 4294967295 bytes of its/,
    ],
    [
      "bytes of the directory",
      zip([{ ...A, size: 40, packed: 40 }]),
      /"a" is not 40 bytes of its own/,
    ],
    ["another size than it is kept in", one({ size: 2 }), /"a" is not 2 bytes of its own/],
    ["one entry upon another", zip([A, { ...B, at: 0 }]), /"dir\/ü" is not 2 bytes of its own/],
    [
      "an entry within another",
      one({ size: 50, packed: 50 }),
      /"dir\/ü" is not 2 bytes of its own/,
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
    const [one] = [zip([{ name: "", data: bytes() }]).slice(30, 76)];
    const count = 1 << 20;
    const archive = new Uint8Array(one.length * count + 22);
    for (let i = 0; i < count; i++) archive.set(one, i * one.length);
    archive.set(zip([], { begin: 0, length: one.length * count }), one.length * count);
    assertRefuses(StateError, /of 262144 entries, whose central directory/, () =>
      entriesOf(archive),
    );
  });
});
