import { expect, test } from "vitest";
import { readDigits, readIdx } from "./data.js";
import { inOrder, labelsOf, pixels } from "./digits.js";

/** An IDX file of unsigned bytes. */
function idx(shape: number[], data: number[], type = 0x08): Uint8Array {
  const dimensions = shape.flatMap((n) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]);
  return Uint8Array.from([0, 0, type, shape.length, ...dimensions, ...data]);
}

const image = (grey: number) => new Array<number>(784).fill(grey);

test("reads shape and data, at any offset of a buffer", () => {
  const file = idx([2, 3], [1, 2, 3, 4, 5, 6]);
  expect(readIdx(file, "file")).toEqual({ shape: [2, 3], data: Uint8Array.of(1, 2, 3, 4, 5, 6) });
  const inside = new Uint8Array([9, 9, 9, ...file]).subarray(3);
  expect(readIdx(inside, "file").shape).toEqual([2, 3]);
});

test.each([
  { what: "nothing", file: new Uint8Array(0), message: "4 bytes, got 0 bytes" },
  { what: "another format", file: Uint8Array.of(31, 139, 8, 0), message: "two zero bytes" },
  { what: "other numbers", file: idx([1], [0], 0x0d), message: "type 0x08" },
  { what: "half a header", file: idx([2, 2], []).subarray(0, 9), message: "12 bytes, got 9" },
  { what: "too little data", file: idx([2, 3], [1]), message: "2 × 3 bytes of data, got 1" },
  { what: "too much data", file: idx([2], [1, 2, 3]), message: "2 bytes of data, got 3" },
  { what: "a huge claim", file: idx([2 ** 31, 2 ** 31], [1]), message: "bytes of data, got 1" },
])("refuses $what", ({ file, message }) => {
  expect(() => readIdx(file, "file")).toThrow(message);
  expect(() => readIdx(file, "file")).toThrow(/^file: expected/);
});

test("pairs images with labels", () => {
  const images = idx([2, 28, 28], [...image(0), ...image(255)]);
  const digits = readDigits(images, idx([2], [7, 3]), "test");
  expect(digits.count).toBe(2);
  const indices = Uint32Array.of(1, 0, 1);
  const values = pixels(digits, indices);
  expect([values[0], values[783], values[784], values[1568]]).toEqual([1, 1, 0, 1]);
  expect([...labelsOf(digits, indices)]).toEqual([3, 7, 3]);
});

test.each([
  { images: idx([1, 28, 27], new Array(756).fill(0)), labels: idx([1], [0]), got: "[1, 28, 27]" },
  { images: idx([1, 28, 28], image(0)), labels: idx([2], [0, 1]), got: "expected [1], got [2]" },
  { images: idx([1, 28, 28], image(0)), labels: idx([1], [10]), got: "expected 0 to 9, got 10" },
])("refuses what does not fit: $got", ({ images, labels, got }) => {
  expect(() => readDigits(images, labels, "test")).toThrow(got);
});

test("goes through all digits once, the last run shorter", () => {
  const digits = { count: 7, images: new Uint8Array(7 * 784), labels: new Uint8Array(7) };
  expect([...inOrder(digits, 3)].map((run) => [...run])).toEqual([[0, 1, 2], [3, 4, 5], [6]]);
});
