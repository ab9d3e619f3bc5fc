// What `backward` and `backwardSums` do: they find the `train` that a gradient belongs to, and have the engine work out
// the gradients of x, γ and β (Ioffe & Szegedy 2015, section 3), or the sums that these need.

import { computeGradients, computeSums } from "../engine/gradient.js";
import { checkKeys } from "../errors.js";
import { sizeOf } from "../values/layout.js";
import { asSums, type GradientSums } from "../values/moments.js";
import type { Gradients } from "../values/terms.js";
import { checkSums } from "./batch.js";
import { gradientArrays, readOut } from "./gradient-arrays.js";
import type { BackwardOptions, BackwardSumsOptions } from "./options.js";
import { kernelsOf, type Parts } from "./properties.js";

const KEYS = ["batch", "x", "add", "out", "sums"];
const SUMS_KEYS = ["batch", "x", "add"];

/** The work of `bn.backward`: see there. */
export function gradientsOf(parts: Parts, dy: Float32Array, options: BackwardOptions): Gradients {
  checkKeys("options", options, KEYS);
  const { batch, x: input, add: residual, out, sums: merged } = options;
  const arrays = readOut(out);
  const sums = merged === undefined ? null : asSums("sums", merged, parts.channels);
  const { machine } = kernelsOf(parts);
  const { source, used, x, add } = parts.latest.differentiated(machine, dy, batch, input, residual);
  const { full, view, selection } = source.seen;
  checkSums(sums, source);
  const normalizer = parts.parameters.with(used);
  const into = gradientArrays(arrays, dy, x, add, sizeOf(full), normalizer, parts.buffers);
  const perValue = source.statistics === "running" ? 0 : 1 / source.count;
  const { bits } = used;
  computeGradients(machine, into, dy, x, view, normalizer, selection, perValue, sums, add, bits);
  return into;
}

/** The work of `bn.backwardSums`: see there. */
export function gradientSumsOf(
  parts: Parts,
  dy: Float32Array,
  options: BackwardSumsOptions,
): GradientSums {
  checkKeys("options", options, SUMS_KEYS);
  const { batch, x: input, add: residual } = options;
  const { machine } = kernelsOf(parts);
  const { source, used, x, add } = parts.latest.differentiated(machine, dy, batch, input, residual);
  const { view, selection } = source.seen;
  const normalizer = parts.parameters.with(used);
  return computeSums(machine, dy, x, view, normalizer, selection, add);
}
