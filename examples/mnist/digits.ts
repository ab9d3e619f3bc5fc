/** Handwritten digits in memory, and what is done with them; nothing here needs Node. */

import type { Random } from "./random.js";

/** Pixels of one digit, 28 × 28. */
export const PIXELS = 784;
export const CLASSES = 10;

/** Digits with their labels. `images` holds `count` × 784 grey values, 0 = paper, 255 = ink. */
export interface Digits {
  readonly count: number;
  readonly images: Uint8Array;
  readonly labels: Uint8Array;
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

/** Mini-batches without end; every epoch in an order of its own. */
export function* miniBatches(
  digits: Digits,
  size: number,
  random: Random,
): Generator<Uint32Array, never> {
  for (;;) {
    const order = random.shuffle(Uint32Array.from({ length: digits.count }, (_, i) => i));
    for (let from = 0; from + size <= digits.count; from += size) {
      yield order.subarray(from, from + size);
    }
  }
}

/** The class with the highest score, of every digit. */
export function answers(scores: Float32Array): Uint8Array {
  return Uint8Array.from({ length: scores.length / CLASSES }, (_, digit) => {
    const row = scores.subarray(digit * CLASSES, (digit + 1) * CLASSES);
    return row.indexOf(Math.max(...row));
  });
}

/** Share of answers that are right, 0 … 1. */
export function accuracy(scores: Float32Array, digits: Digits): number {
  const right = answers(scores).filter((answer, i) => answer === digits.labels[i]);
  return right.length / digits.count;
}
