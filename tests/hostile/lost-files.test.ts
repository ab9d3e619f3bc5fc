// Readers do not copy the bytes of a file, and load layers from them later. Bytes that were transferred away meanwhile are
// missed by all formats in the same way.

import { StateError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { READERS, type Reader } from "../support/readers.js";
import { transfer } from "../support/transfer.js";

describe.each(Object.entries<Reader>(READERS))("%s", (_, { files, read }) => {
  test.each(Object.keys(files))("%s was transferred: StateError", (name) => {
    const own = Object.fromEntries(
      Object.entries(files).map(([name, bytes]) => [name, Uint8Array.from(bytes)]),
    );
    const file = read(own);
    const [first] = file.layers;
    transfer(own[name]!);
    const load = () => file.load(first!);
    expect(load).toThrow(StateError);
    expect(load).toThrow(/^bytes: expected its values, got none: its buffer was transferred$/);
  });
});
