// x -> the moments of each channel: count, mean, and the sum m2 of squared deviations. See assembly/moments.ts
// for the formulas.

import { NonFiniteError } from "../errors.js";
import { countOf, type View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import { Moments, zeroMoments } from "../values/moments.js";
import { isVariance } from "../values/terms.js";
import { storeChannels } from "./channel.js";
import { type Machine, machineFor } from "./machine.js";
import { loadHeld, operand } from "./operand.js";
import { type Pass, passOf, rowsOfOne } from "./plan.js";
import { mend } from "./underflow.js";
import { type Steps, walkTile } from "./walk.js";

const STEPS: Steps<Machine> = {
  block: rowsOfOne,
  rows({ machine: { wasm, memory } }, _out, x, _b, _c, count, rows, width, stride) {
    const { base, offset, m2 } = memory.slots;
    wasm.momentsRows(
      base.at,
      offset.at,
      m2.at,
      memory.scratch,
      x,
      count,
      rows,
      width,
      stride,
      width,
    );
  },
  planes({ machine: { wasm, memory } }, _out, x, _b, _c, count, first, planes, channels, inner) {
    const { base, offset, m2 } = memory.slots;
    wasm.momentsPlanes(base.at, offset.at, m2.at, x, count, first, planes, channels, inner);
  },
  merge({ machine: { wasm, memory }, repeats }, rows, width) {
    const { base, offset, m2 } = memory.slots;
    wasm.mergeMoments(base.at, offset.at, m2.at, rows, width, 1, repeats, width);
  },
};

/**
 * Leaves mean, variance and m2 of a tile in kernel memory. Returns a channel before which there is none whose variance
 * is not finite, because a value is not finite or because the variance overflows; n if there is none at all.
 */
function tileMoments(pass: Pass<Machine>, epsilon: number, first: number, n: number): number {
  const { wasm, memory } = pass.machine;
  const { base, offset, m2, mean, meanLow, variance } = memory.slots;
  const { outer, inner } = pass.view;
  walkTile(pass, STEPS, first, n);
  if (pass.rows && inner > 1) {
    wasm.mergeMoments(base.at, offset.at, m2.at, outer, n, inner, inner, 1);
  }
  const count = countOf(pass.view);
  const { at } = mean;
  const bad = wasm.finishMoments(at, meanLow.at, variance.at, base.at, offset.at, m2.at, count, n);
  return mend(pass, epsilon, first, n) ? 0 : bad;
}

/** The error about channels whose statistics are not finite. It names at most four of them. */
function nonFinite(channels: readonly number[]): NonFiniteError {
  const names = `${channels.slice(0, 4).join(", ")}${channels.length > 4 ? ", …" : ""}`;
  return new NonFiniteError(
    "x",
    "finite values and variances",
    `NaN, infinity or an overflow in channel ${names}`,
  );
}

/**
 * Works out the moments of every channel, a tile at a time, and stores them in the arrays that are given.
 * `epsilon` is what is added to the variances when they normalize; NaN if they do not. Throws NonFiniteError at the
 * end if the moments of a channel are not finite, or if the inverse of its standard deviation is not.
 */
export function allMoments(
  pass: Pass<Machine>,
  epsilon: number,
  mean: Float64Array,
  meanLow: Float64Array | null,
  variance: Float64Array | null,
  m2: Float64Array | null,
): void {
  const { slots } = pass.machine.memory;
  const { tile } = pass;
  const { channels } = pass.view;
  const bad: number[] = [];
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    for (let c = tileMoments(pass, epsilon, first, n); c < n; c++) {
      if (!isVariance(slots.variance.array[c]!)) bad.push(first + c);
    }
    storeChannels(mean, slots.mean, first, n);
    storeChannels(meanLow, slots.meanLow, first, n);
    storeChannels(variance, slots.variance, first, n);
    storeChannels(m2, slots.m2, first, n);
  }
  if (bad.length > 0) throw nonFinite(bad);
}

/** The moments of x, in the arrays of `into`. Throws NonFiniteError for values that have none, StateError for a freed tensor. */
export function computeMoments(
  machine: Machine,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  { mean, m2, meanLow }: Moments = zeroMoments(view.channels),
): Moments {
  machine = machineFor(machine, x);
  const result = new Moments(countOf(view), mean, m2, meanLow);
  const a = operand(machine.memory, "x", x, 0, view, selection);
  if (result.count === 0) return result;
  loadHeld(a);
  const pass = passOf(machine, view, selection, null, a, null);
  allMoments(pass, NaN, mean, meanLow, null, m2);
  return result;
}
