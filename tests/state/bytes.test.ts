// The numbers of files: every float16 and bfloat16 there and back, and what lies between two of them.

import { StateError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { decode, encode, FLOATS, jsonOf, textOf } from "../../src/state/bytes.js";
import { assertSameBits } from "../support/compare.js";
import { assertRefuses } from "../support/refuse.js";

/** By the definition of the format: sign, exponent, digits after the point. */
function floatOf(code: number, digits: number): number {
  const bias = digits === 10 ? 15 : 127;
  const exponents = 2 ** (15 - digits);
  const sign = code & 0x8000 ? -1 : 1;
  const exponent = (code >> digits) & (exponents - 1);
  const fraction = (code & (2 ** digits - 1)) / 2 ** digits;
  if (exponent === exponents - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

describe.each([
  ["F16", 10],
  ["BF16", 7],
] as const)("%s", (name, digits) => {
  const format = FLOATS[name]!;
  const codes = Uint16Array.from({ length: 2 ** 16 }, (_, code) => code);
  const values = Float64Array.from(codes, (code) => floatOf(code, digits));
  const codesOf = (numbers: ArrayLike<number>): Uint16Array => {
    const view = new DataView(new ArrayBuffer(2 * numbers.length));
    for (let i = 0; i < numbers.length; i++) format.set(view, 2 * i, numbers[i]!);
    return Uint16Array.from(numbers, (_, i) => view.getUint16(2 * i, true));
  };

  test("every code is read as its value, and every value written as its code", () => {
    assertSameBits(name, decode(format, new Uint8Array(codes.buffer)), values);
    const numbers = codes.filter((_, code) => !Number.isNaN(values[code]));
    const written = codesOf(Array.from(numbers, (code) => values[code]!));
    assertSameBits("codes", Float64Array.from(written), Float64Array.from(numbers));
    expect(Number.isNaN(floatOf(codesOf([Number.NaN])[0]!, digits))).toBe(true);
  });

  test("what lies between two values goes to the nearer one, half way to the even one", () => {
    const largest = values.indexOf(Infinity) - 1;
    for (let code = 0; code < largest; code++) {
      const [low, high] = [values[code]!, values[code + 1]!];
      const half = (low + high) / 2;
      const even = code % 2 === 0 ? code : code + 1;
      const found = codesOf([half, (low + half) / 2, (half + high) / 2, -half]);
      if (found.join() !== [even, code, code + 1, even | 0x8000].join()) {
        throw new Error(`between ${low} and ${high}: ${found.join()}`);
      }
    }
  });

  test("what is too large for it is infinite, and refused where it was not", () => {
    const largest = values[values.indexOf(Infinity) - 1]!;
    const beyond = largest * (1 + 2 ** -digits);
    expect(decode(format, encode("x", format, [largest, -Infinity]))).toEqual(
      Float64Array.of(largest, -Infinity),
    );
    assertRefuses(StateError, /^x\[1\]: expected a value within 16 bits, got /, () =>
      encode("x", format, [1, beyond]),
    );
  });
});

test("text: UTF-8 in shared memory too, its byte order mark left in, other bytes refused", () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(6));
  bytes.set([0xef, 0xbb, 0xbf, 0xc2, 0xb5, 0x6d]);
  expect(textOf("x", bytes)).toBe("\ufeffµm");
  assertRefuses(StateError, /^x: expected UTF-8, got bytes that are none$/, () =>
    textOf("x", Uint8Array.of(0xff)),
  );
  assertRefuses(StateError, /^x: expected JSON, got text that is none$/, () => jsonOf("x", "{"));
});
