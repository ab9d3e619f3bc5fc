// Computes frozen layers in JavaScript if there are few values, because copying them and calling the kernels would
// take longer than the arithmetic. Math.fround after each operation gives the same bits as the kernels.

import type { Buffers } from "../engine/memory.js";
import { TINY } from "../engine/plan.js";
import { sizeOf, type View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";

/**
 * Whether x has few enough values for that. Only then is `memoryOf` asked for the memory in
 * which tensors may lie. Throws StateError for a tensor that has been freed.
 */
export function isTiny(
  memoryOf: () => Buffers | undefined,
  out: Float32Array,
  x: Float32Array,
  view: View,
): boolean {
  if (sizeOf(view) > TINY) return false;
  const memory = memoryOf();
  memory?.addressOf("x", x);
  memory?.addressOf("out", out);
  return true;
}

/** out = (x - center)·scale + shift; out may be x. */
export function tinyAffine(
  out: Float32Array,
  x: Float32Array,
  view: View,
  { center, scale, shift }: AffineTerms,
): void {
  const { channels, inner } = view;
  for (let i = 0, size = sizeOf(view); i < size; i++) {
    const c = Math.floor(i / inner) % channels;
    out[i] = Math.fround(Math.fround(x[i]! - center[c]!) * scale[c]!) + shift[c]!;
  }
}
