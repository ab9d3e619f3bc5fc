// HDF5 files whose structures are not those of a good writer: knots, addresses outside, sizes that lie.
// Files that are as they should be are in keras-file.test.ts, random damage in fuzz.test.ts.

import { StateError } from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import { describe, expect, test } from "vitest";
import { goldenBytes } from "../support/golden.js";
import { assertRefuses } from "../support/refuse.js";

const load = (bytes: Uint8Array) => readKerasFile(bytes).loadAll({ epsilon: 1e-3 });

/** Where these letters are in a file, all places. */
function placesOf(bytes: Uint8Array, letters: string): number[] {
  const places: number[] = [];
  const text = Buffer.from(bytes);
  for (let at = text.indexOf(letters); at !== -1; at = text.indexOf(letters, at + 1))
    places.push(at);
  return places;
}

/** A file of which `change` has changed the bytes. */
function changed(name: string, change: (view: DataView, bytes: Uint8Array) => void): Uint8Array {
  const bytes = goldenBytes(`keras-files/${name}`);
  change(new DataView(bytes.buffer), bytes);
  return bytes;
}

const OLD = "weights.h5";
const NEW = "latest.h5";

describe("structures that are damaged", () => {
  test.each<[string, string, (view: DataView, bytes: Uint8Array) => void, RegExp]>([
    [
      "a B-tree node that is its own child",
      OLD,
      (view, bytes) => {
        for (const tree of placesOf(bytes, "TREE")) {
          view.setUint8(tree + 5, 1);
          view.setBigUint64(tree + 32, BigInt(tree), true);
        }
      },
      /got a B-tree node at \d+ of another kind or level/,
    ],
    [
      "symbol table nodes that claim more than the file has",
      OLD,
      (view, bytes) => {
        for (const node of placesOf(bytes, "SNOD")) view.setUint16(node + 6, 0xffff, true);
      },
      /got (an address|a name at|structures that lie upon each other)/,
    ],
    [
      "names outside of their heap",
      OLD,
      (view, bytes) => {
        for (const node of placesOf(bytes, "SNOD")) view.setBigUint64(node + 8, 1n << 40n, true);
      },
      /got a name at 1099511627776 of its heap/,
    ],
    [
      "a heap that ends outside of the file",
      OLD,
      (view, bytes) => {
        for (const heap of placesOf(bytes, "HEAP")) view.setBigUint64(heap + 8, 1n << 33n, true);
      },
      /got an address \d+ with 8589934592 bytes/,
    ],
    [
      "a header that is continued in itself",
      NEW,
      (view, bytes) => {
        // The first message of every header becomes a continuation that begins with the header.
        for (const header of placesOf(bytes, "OHDR")) {
          const wide = view.getUint8(header + 5) & 0x20 ? 16 : 0;
          const at = header + 7 + wide;
          view.setUint8(at, 0x10);
          view.setBigUint64(at + 4, BigInt(header), true);
          view.setBigUint64(at + 12, 64n, true);
        }
      },
      /expected an HDF5 file, got/,
    ],
    [
      "objects of a heap that are longer than it",
      "functional.h5",
      (view, bytes) => {
        const [heap] = placesOf(bytes, "GCOL");
        view.setBigUint64(heap! + 24, 5n, true);
      },
      /got an object of \d+ bytes at \d+/,
    ],
    [
      "addresses of four bytes",
      OLD,
      (view) => view.setUint8(13, 4),
      /expected an HDF5 file with addresses of 8 bytes .* got addresses of 4 bytes/,
    ],
    ["a superblock to come", OLD, (view) => view.setUint8(8, 9), /got a superblock of version 9/],
    [
      "a root that is nowhere",
      OLD,
      (view) => view.setBigUint64(64, (1n << 64n) - 1n, true),
      /got an address 18446744073709552000 with 1 bytes/,
    ],
  ])("%s", (_, name, change, message) => {
    const start = process.cpuUsage();
    assertRefuses(StateError, message, () => load(changed(name, change)));
    expect(process.cpuUsage(start).user).toBeLessThan(1e6); // microseconds of computing, not of waiting
  });
});

test("groups that hold each other come to an end", () => {
  const layers = readKerasFile(goldenBytes("keras-files/ring.weights.h5")).layers;
  expect(layers).toEqual(["batch_normalization"]);
});
