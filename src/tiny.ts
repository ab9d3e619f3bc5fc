// Test time for a hundred values or so, where copies and calls into the kernels would cost more than
// the arithmetic. Math.fround after each operation gives the kernels' bits.

import type { View } from "./layout.js";
import type { Buffers } from "./memory.js";
import { type Affine, checkVariance, type Terms } from "./run.js";

/**
 * Up to this many values JavaScript is the faster way, with terms to work out, and without. In
 * microseconds against the kernels: bn.infer [1, 64] 0.61 : 1.06, [1, 96] 0.85 : 0.92, [1, 128]
 * 1.98 : 1.67; frozen [1, 96] 0.39 : 0.49, [1, 128] 0.84 : 0.87, [1, 256] 1.52 : 0.89.
 */
export const TINY_TERMS = 96;
export const TINY_AFFINE = 128;

/** Whether to take this way. Throws StateError for a tensor of `memory` that is freed. */
export function isTiny(
  most: number,
  memory: Buffers | undefined,
  x: Float32Array,
  out: Float32Array,
): boolean {
  if (x.length > most) return false;
  memory?.addressOf("x", x);
  if (out !== x) memory?.addressOf("out", out);
  return true;
}

/** out = (x - hi)·scale + shift; out may be x. */
export function tinyAffine(
  out: Float32Array,
  x: Float32Array,
  { outer, channels, inner }: View,
  { hi, scale, shift }: Affine,
): void {
  if (inner === 1) {
    for (let n = 0, i = 0; n < outer; n++) {
      for (let c = 0; c < channels; c++, i++) {
        out[i] = Math.fround(Math.fround(x[i]! - hi[c]!) * scale[c]!) + shift[c]!;
      }
    }
    return;
  }
  for (let n = 0, i = 0; n < outer; n++) {
    for (let c = 0; c < channels; c++) {
      const h = hi[c]!;
      const a = scale[c]!;
      const b = shift[c]!;
      for (let k = 0; k < inner; k++, i++) out[i] = Math.fround(Math.fround(x[i]! - h) * a) + b;
    }
  }
}

/** `scaleShift` of channel.ts, then `tinyAffine`: works the terms out where they are used. */
export function tinyNormalize(
  out: Float32Array,
  x: Float32Array,
  { outer, channels, inner }: View,
  { mean, variance, gamma, beta, epsilon }: Terms,
): void {
  for (let c = 0; c < channels; c++)
    if (!(variance[c]! >= 0 && variance[c]! < Infinity)) checkVariance(variance, c);
  // The largest float32; a constant of the module would be a variable once it is bundled.
  const most = 2 ** 128 - 2 ** 104;
  const single = outer * inner === 1;
  for (let c = 0; c < channels; c++) {
    const square = variance[c]! + epsilon;
    const inverse = square === 0 ? 0 : 1 / Math.sqrt(square);
    const exact = gamma === null ? inverse : inverse * gamma[c]!;
    const s = Math.abs(exact) <= most ? exact : exact > most ? most : exact < -most ? -most : exact;
    const h = Math.fround(mean[c]!);
    const a = Math.fround(s);
    const b = Math.fround((beta === null ? 0 : beta[c]!) - (mean[c]! - h) * s);
    if (single) {
      out[c] = Math.fround(Math.fround(x[c]! - h) * a) + b;
      continue;
    }
    for (let n = 0; n < outer; n++) {
      const from = (n * channels + c) * inner;
      for (let i = from; i < from + inner; i++)
        out[i] = Math.fround(Math.fround(x[i]! - h) * a) + b;
    }
  }
}
