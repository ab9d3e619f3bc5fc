// Fields of Protocol Buffers, beside the reader and writer of @bufbuild/protobuf.

import { BinaryWriter as Reference } from "@bufbuild/protobuf/wire";
import { StateError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BinaryWriter, Wire, WireType } from "../../src/state/protobuf.js";
import { assertRefuses } from "../support/refuse.js";

const edges = [
  0,
  1,
  127,
  128,
  2 ** 14,
  2 ** 28 - 1,
  2 ** 28,
  2 ** 31,
  2 ** 32,
  2 ** 35,
  2 ** 53 - 1,
];
const numbers = fc.oneof(fc.constantFrom(...edges), fc.integer({ min: 0, max: 2 ** 53 - 1 }));
const tags = fc.constantFrom(1, 15, 16, 2047, 2048, 2 ** 29 - 1);
const all = (bytes: Uint8Array) => {
  const wire = new Wire(bytes);
  return { wire, fields: [...wire.fields(wire.all)] };
};

describe("reads", () => {
  test("whole numbers of either sign", () => {
    const signed = fc.oneof(
      numbers,
      numbers.map((n) => -n),
    );
    fc.assert(
      fc.property(tags, signed, (number, value) => {
        const written = new Reference().tag(number, 0).int64(value).finish();
        const { wire, fields } = all(written);
        expect(fields.map((field) => [field.number, field.type])).toEqual([[number, 0]]);
        expect(wire.integer(fields[0]!) + 0).toBe(value + 0);
      }),
    );
  });

  test("packed rows, and numbers one by one", () => {
    fc.assert(
      fc.property(fc.array(numbers), (values) => {
        const row = new Reference().tag(3, 2).fork();
        for (const value of values) row.int64(value);
        const { wire, fields } = all(row.join().tag(3, 0).int64(7).finish());
        expect(fields.flatMap((field) => [...wire.integers(field)])).toEqual([...values, 7]);
      }),
    );
  });

  test("texts, float32, and what it does not know", () => {
    const written = new Reference()
      .tag(1, 2)
      .string("Größe")
      .tag(9, 1)
      .double(1)
      .tag(2, 5)
      .float(0.1);
    const { wire, fields } = all(written.finish());
    expect(fields.map(({ number }) => number)).toEqual([1, 9, 2]);
    expect(wire.text(fields[0]!)).toBe("Größe");
    expect(wire.float(fields[2]!)).toBe(Math.fround(0.1));
    expect([...wire.parts(wire.all, 1)]).toEqual([fields[0]]);
  });

  test.each<[string, number[], RegExp]>([
    [
      "a number that does not end",
      [0x08, 0x80],
      /^bytes: expected Protocol Buffers at 1, got the end of/,
    ],
    [
      "one of eleven bytes",
      [0x08, ...Array(11).fill(0x80)],
      /at 1, got a number of more than ten bytes$/,
    ],
    ["a field without a number", [0x02, 0], /at 0, got the tag 2$/],
    ["a group", [0x0b, 0x0c], /at 0, got the tag 11$/],
    ["a kind that there is not", [0x0f, 0], /at 0, got the tag 15$/],
    [
      "a length below 0",
      [0x0a, ...Array(9).fill(0xff), 1],
      /at 0, got the tag 10 and a length of -1$/,
    ],
    [
      "a length beyond the end",
      [0x0a, 5, 0],
      /^bytes: expected a field at 0 to end at 3 at most, got 7: truncated, or damaged$/,
    ],
    [
      "a float that is cut",
      [0x15, 0, 0],
      /^bytes: expected a field at 0 to end at 3 at most, got 5: truncated, or damaged$/,
    ],
  ])("%s: refused", (_, bytes, message) => {
    assertRefuses(StateError, message, () => all(Uint8Array.from(bytes)));
  });
});

test("writes what the library writes", () => {
  fc.assert(
    fc.property(
      tags,
      numbers,
      fc.string({ unit: "grapheme" }),
      fc.float(),
      (tag, n, text, float) => {
        const value = Number.isNaN(float) ? 0 : Math.min(float, 3e38);
        const inner = new Uint8Array(n % 300);
        const reference = new Reference()
          .tag(tag, WireType.Varint)
          .int64(n)
          .tag(tag, WireType.LengthDelimited)
          .fork()
          .tag(1, WireType.LengthDelimited)
          .string(text)
          .tag(2, WireType.LengthDelimited)
          .bytes(inner)
          .join()
          .tag(3, WireType.Bit32)
          .float(Math.max(value, -3e38));
        const writer = new BinaryWriter().integer(tag, n);
        writer.message(tag, () => writer.text(1, text).data(2, inner));
        writer.float(3, Math.max(value, -3e38));
        expect(writer.finish()).toEqual(reference.finish());
      },
    ),
  );
});
