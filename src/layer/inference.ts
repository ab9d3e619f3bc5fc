// What `infer` does: it normalizes by given statistics, which are the running averages for a layer, and others for an
// `Adapter` (Ioffe & Szegedy 2015, algorithm 2, line 11). Nothing of the layer changes.

import { normalize } from "../engine/affine.js";
import type { InferOptions } from "../frozen/frozen.js";
import { residualOf } from "../values/arrays.js";
import { sizeOf, viewOf } from "../values/layout.js";
import { maskOf, pad } from "../values/mask.js";
import type { Given } from "../values/terms.js";
import { outputFor } from "./gradient-arrays.js";
import { kernelsOf, type Parts } from "./properties.js";

/** The work of `bn.infer`, by these statistics. The names of the options have been checked. */
export function inferBy(
  parts: Parts,
  statistics: Given,
  x: Float32Array,
  options: InferOptions,
): Float32Array {
  const { shape, mask: given, out: into, add: residual } = options;
  const view = viewOf(parts.settings.layout, parts.channels, x, shape);
  const mask = maskOf(given, view);
  const length = sizeOf(view);
  const add = residualOf(residual, length);
  const out = outputFor(into, x, add, length, parts.buffers);
  const normalizer = parts.parameters.with(statistics);
  normalize(kernelsOf(parts).machine, out, x, view, normalizer, null, add);
  if (mask !== null) pad(out, view, mask, normalizer.beta, normalizer.limits);
  return out;
}
