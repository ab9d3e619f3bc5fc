// Algorithm 1 of Ioffe & Szegedy 2015: the statistics of the mini-batch, then y, and the running averages.

import type { View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import type { AverageUpdate, Bits, Normalizer } from "../values/terms.js";
import { affineTile } from "./affine.js";
import { bitsFor, KEEPING } from "./bits.js";
import { computeTerms, loadNormalizer, moveAverages, moveTile } from "./channel.js";
import { type Machine, machineFor } from "./machine.js";
import { allMoments } from "./moments.js";
import { loadHeld, operand, storeHeld } from "./operand.js";
import { passOf } from "./plan.js";

/**
 * Normalizes x by its own statistics and moves running averages towards them; adds `add` if there is one, and applies
 * the activation. out may be x or add. Writes the statistics into mean and variance of `normalizer`, and into its
 * meanLow if there are several tiles or an activation. Largest error of the mean: 5e-7 σ; of the variance: 5.5e-7 of
 * its value. Returns the bits that it keeps for `backward`, if it keeps any, in place of `old` ones. When it throws
 * NonFiniteError or StateError, it has written only these, and of an out in kernel memory.
 */
export function train(
  machine: Machine,
  normalizer: Normalizer,
  out: Float32Array,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  add: Float32Array | null,
  update: AverageUpdate | null,
  old: Bits | null,
): Bits | null {
  machine = machineFor(machine, out, x, add, +!selection);
  const { memory } = machine;
  const { channels } = view;
  const a = operand(memory, "x", x, 0, view, selection);
  const b = add && operand(memory, "add", add, 1, view, selection);
  const y = operand(memory, "out", out, 0, view, selection);
  loadHeld(a);
  if (b !== null) loadHeld(b);
  const reading = passOf(machine, view, selection, null, a, null);
  const { tile } = reading;
  // The statistics of a single tile stay in kernel memory between the two traversals.
  const single = tile === channels;
  // With an activation, `backward` needs what float64 rounds off the mean to work out the same y again.
  const meanLow = single && normalizer.limits === null ? null : normalizer.meanLow;
  const { mean, variance, epsilon } = normalizer;
  allMoments(reading, epsilon, mean, meanLow, variance, null);
  const writing = passOf(machine, view, selection, y, a, b, normalizer.limits);
  writing.bits = bitsFor(writing, normalizer, old);
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    if (single) computeTerms(machine, normalizer, memory.slots.meanLow.at, first, n);
    else loadNormalizer(machine, normalizer, first, n);
    affineTile(writing, first, n, writing.bits ? KEEPING : undefined);
  }
  // Last, because the kernels of several threads throw if they have lost a worker.
  if (update !== null) {
    if (single) moveTile(machine, update, 0, channels);
    else moveAverages(machine, update, normalizer);
  }
  storeHeld(y);
  machine.leave?.();
  selection?.pad(out, normalizer.beta, normalizer.limits);
  return writing.bits;
}
