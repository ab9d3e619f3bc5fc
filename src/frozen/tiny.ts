// Computes frozen layers in JavaScript if there are few values, because copying them and calling the kernels would
// take longer than the arithmetic. Math.fround after each operation gives the same bits as the kernels.

import { limited } from "../values/activation.js";
import type { View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";

/** out = (x - center)·scale + shift [+ add], limited by the activation; out may be x or add. */
export function tinyAffine(
  out: Float32Array,
  x: Float32Array,
  { outer, channels, inner }: View,
  { center, scale, shift, limits }: AffineTerms,
  add: Float32Array | null,
): void {
  let i = 0;
  for (let n = 0; n < outer; n++) {
    for (let c = 0; c < channels; c++) {
      for (const end = i + inner; i < end; i++) {
        const v = Math.fround(Math.fround(Math.fround(x[i]! - center[c]!) * scale[c]!) + shift[c]!);
        out[i] = limited(add === null ? v : Math.fround(v + add[i]!), limits);
      }
    }
  }
}
