// The inverse of a frozen layer: x = (y - shift)/scale + center, which the kernels compute as
// (y - shift)·(1/scale) + center.

import { StateError } from "../errors.js";
import { type Limits, limited } from "../values/activation.js";
import { sizeOf, type View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";
import { tinyAffine } from "./tiny.js";

/** The terms that undo these. Throws StateError where float32 does not hold the inverse of a scale. */
export function inverseOf({ center, scale, shift }: AffineTerms): AffineTerms {
  const inverses = scale.map((s) => 1 / s);
  const bad = inverses.findIndex((s) => !Number.isFinite(s));
  if (bad >= 0) {
    throw new StateError("scale", "one that has an inverse", `${scale[bad]} in channel ${bad}`);
  }
  return { limits: null, center: shift, scale: inverses, shift: center };
}

/**
 * Limits x to what `terms`, those of the inverse, make of the limits of y. The inverse rises or falls in every channel,
 * with rounding too, so the values are those of a y that had been limited before.
 */
export function limitInverse(
  x: Float32Array,
  view: View,
  terms: AffineTerms,
  limits: Limits | null,
): void {
  if (limits === null) return;
  const { channels, inner } = view;
  const [a, b] = [limits.low, limits.high].map((end) => {
    const row = new Float32Array(channels).fill(end);
    tinyAffine(row, row, { outer: 1, channels, inner: 1 }, terms, null);
    return row;
  }) as [Float32Array, Float32Array];
  for (let i = 0, size = sizeOf(view); i < size; i++) {
    const c = Math.floor(i / inner) % channels;
    x[i] = limited(x[i]!, { low: Math.min(a[c]!, b[c]!), high: Math.max(a[c]!, b[c]!) });
  }
}
