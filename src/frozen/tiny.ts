// Computes frozen layers in JavaScript if there are few values, because copying them and calling the kernels would
// take longer than the arithmetic. Math.fround after each operation gives the same bits as the kernels.

import { limited } from "../values/activation.js";
import { sizeOf, type View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";

/** out = (x - center)·scale + shift [+ add], limited by the activation; out may be x or add. */
export function tinyAffine(
  out: Float32Array,
  x: Float32Array,
  view: View,
  { center, scale, shift, limits }: AffineTerms,
  add: Float32Array | null,
): void {
  const { channels, inner } = view;
  for (let i = 0, size = sizeOf(view); i < size; i++) {
    const c = Math.floor(i / inner) % channels;
    const v = Math.fround(Math.fround(Math.fround(x[i]! - center[c]!) * scale[c]!) + shift[c]!);
    out[i] = limited(add === null ? v : Math.fround(v + add[i]!), limits);
  }
}
