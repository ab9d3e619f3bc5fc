// Frozen layers on a few values, where copies and calls into the kernels cost more than the arithmetic.
// Math.fround after each operation gives the kernels' bits.

import type { View } from "./layout.js";
import type { Buffers } from "./memory.js";
import type { Affine } from "./run.js";

/**
 * Up to this many values JavaScript is the faster way. Microseconds, and of the kernels: 3 values 0.07
 * and 0.20, 16 0.11 and 0.20, 32 0.17 and 0.20, 64 0.25 and 0.22; of one example, which the kernels take
 * without a walk, 24 0.14 and 0.14, 32 0.17 and 0.14.
 */
const TINY = 32;

/** Whether they are so few. Throws StateError for a tensor of `memory` that is freed. */
export function isTiny(memory: Buffers | undefined, out: Float32Array, x: Float32Array): boolean {
  if (x.length > TINY) return false;
  memory?.addressOf("x", x);
  memory?.addressOf("out", out);
  return true;
}

/** out = (x - hi)·scale + shift; out may be x. */
export function tinyAffine(
  out: Float32Array,
  x: Float32Array,
  { channels, inner }: View,
  { hi, scale, shift }: Affine,
): void {
  for (let i = 0; i < x.length; i++) {
    const c = Math.floor(i / inner) % channels;
    out[i] = Math.fround(Math.fround(x[i]! - hi[c]!) * scale[c]!) + shift[c]!;
  }
}
