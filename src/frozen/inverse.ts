// The inverse of a frozen layer: x = (y - shift)/scale + center, which the kernels compute as
// (y - shift)·(1/scale) + center. Where the layer has an activation, y is limited before, in a pass of its own.

import { StateError } from "../errors.js";
import type { Limits } from "../values/activation.js";
import type { AffineTerms } from "../values/terms.js";

/**
 * The terms that undo these, one pass after another. Throws StateError where float32 does not hold the inverse of a
 * scale.
 */
export function inverseOf({ limits, center, scale, shift }: AffineTerms): readonly AffineTerms[] {
  const inverses = scale.map((s) => 1 / s);
  const bad = inverses.findIndex((s) => !Number.isFinite(s));
  if (bad >= 0) {
    throw new StateError("scale", "one that has an inverse", `${scale[bad]} in channel ${bad}`);
  }
  const back = { limits: null, center: shift, scale: inverses, shift: center };
  return limits === null ? [back] : [limitsAlone(scale.length, limits), back];
}

/** Terms that only limit y: (y - 0)·1 - 0, which leaves -0 as it is too. */
const limitsAlone = (channels: number, limits: Limits): AffineTerms => ({
  limits,
  center: new Float32Array(channels),
  scale: new Float32Array(channels).fill(1),
  shift: new Float32Array(channels).fill(-0),
});
