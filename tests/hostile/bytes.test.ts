// The bytes of a file, in every disguise of arrays.ts: every reader and every `into` gives what it gives for a plain array, and
// no code of the array runs; what is no such array is refused.

import { BatchNormError } from "batchnorm-wasm";
import { foldOnnx, load, save, tapOnnx, writeOnnx, writeTorch } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { FIRST, LAYER, READERS, type Reader } from "../support/readers.js";
import { RIGHT, WRONG } from "./arrays.js";

type Row = readonly [bytes: Uint8Array, read: (bytes: never) => unknown];

/** Each file of each reader, and what gives all its layers. */
const OF_READERS = Object.entries(READERS).flatMap(
  ([name, { files, read, needs }]: [string, Reader]) =>
    Object.entries(files).map(([file, bytes]): [string, Row] => [
      `${name}: ${file}`,
      [bytes, (given) => read({ ...files, [file]: given }).loadAll(needs)],
    ]),
);

/** What else takes bytes, the bytes, and what it gives. */
const OTHERS: Readonly<Record<string, Row>> = {
  load: [save({ LAYER }), (bytes) => load(bytes)],
  "save into": [save({ LAYER }), (into) => save({ LAYER }, { into })],
  "writeTorch into": [writeTorch({ LAYER }), (into) => writeTorch({ LAYER }, { into })],
  "writeOnnx into": [writeOnnx({ FIRST }), (into) => writeOnnx({ FIRST }, { into })],
  foldOnnx: [writeOnnx({ FIRST }), (bytes) => foldOnnx(bytes)],
  tapOnnx: [writeOnnx({ FIRST }), (bytes) => tapOnnx(bytes, ["FIRST"])],
};

const plainOf = (value: unknown): string =>
  JSON.stringify(value, (_, each) =>
    ArrayBuffer.isView(each) ? Array.from(each as Uint8Array) : each,
  );

describe.each([...OF_READERS, ...Object.entries(OTHERS)])("%s", (_, [bytes, read]) => {
  test.each(Object.keys(RIGHT))("%s", (way) => {
    const given = RIGHT[way]!("Uint8Array", [...bytes]) as never;
    expect(plainOf(read(given))).toBe(plainOf(read(Uint8Array.from(bytes) as never)));
  });

  // A value more is a file that some formats take.
  test.each(Object.keys(WRONG).filter((way) => way !== "one value too long"))(
    "%s: refused",
    (way) => {
      const given = WRONG[way]!("Uint8Array", [...bytes]) as never;
      expect(() => read(given)).toThrow(BatchNormError);
    },
  );
});
