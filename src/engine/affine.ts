// x -> y = (x - center)·scale + shift. See assembly/affine.ts for the formula and its rounding.

import { type Limits, NO_LIMITS } from "../values/activation.js";
import { sizeOf, type View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import { type AffineTerms, checkVariances, type Normalizer } from "../values/terms.js";
import { loadNormalizer, loadTerms, spread, termsOfRow } from "./channel.js";
import { type AffineMachine, type Machine, machineFor } from "./machine.js";
import { MAX_COLUMNS } from "./memory.js";
import { loadHeld, operand, pointer, storeHeld } from "./operand.js";
import { type Pass, passOf, walkOf } from "./plan.js";
import { type Steps, walkTile } from "./walk.js";

const AFFINE: Steps<AffineMachine> = {
  rows(pass, y, x, add, _c, _count, rows, width, stride) {
    const { wasm } = pass.machine;
    const { low, high } = pass.limits ?? NO_LIMITS;
    const kernel = (pass.cold && wasm.affineSweep) || wasm.affineStrips;
    kernel(y, x, add, termsOfRow(pass), low, high, rows, width, stride);
  },
  planes(pass, y, x, add, _c, _count, first, planes, channels, inner) {
    const { wasm, memory } = pass.machine;
    const { low, high } = pass.limits ?? NO_LIMITS;
    wasm.affinePlanes(y, x, add, memory.terms.at, low, high, first, planes, channels, inner);
  },
};

/**
 * Applies the terms that lie in kernel memory to a tile, then the residual and the limits, where there are any. `steps` may
 * be others that do the same and more.
 */
export function affineTile<M extends AffineMachine>(
  pass: Pass<M>,
  first: number,
  n: number,
  steps: Steps<M> = AFFINE,
): void {
  spread(pass, ["center", "scale", "shift"], n);
  walkTile(pass, steps, first, n);
}

/**
 * Normalizes x by given statistics, adds `add` if there is one, and applies the activation; out may be x or add.
 * Throws StateError for an invalid variance or a freed tensor, before anything is written.
 */
export function normalize(
  machine: Machine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  normalizer: Normalizer,
  selection: Selection | null,
  add: Float32Array | null,
): void {
  machine = machineFor(machine, out, x, add);
  // All variances have to be checked before the first value is written. A single tile checks its own in time; if
  // there are several, they are all checked here.
  if (walkOf(view).tile < view.channels) checkVariances(normalizer.variance);
  applyTiles(machine, out, x, view, selection, add, normalizer, loadNormalizer);
  selection?.pad(out, normalizer.beta, normalizer.limits);
}

/** The same by terms that are worked out already. Throws StateError for a freed tensor. */
export function applyTerms(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  terms: AffineTerms,
  add: Float32Array | null,
): void {
  applyTiles(machineFor(machine, out, x, add), out, x, view, null, add, terms, loadTerms);
}

/** Applies terms tile by tile. `loadTile` brings the terms of a tile into kernel memory. */
function applyTiles<M extends AffineMachine, From extends { readonly limits: Limits | null }>(
  machine: M,
  out: Float32Array,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  add: Float32Array | null,
  from: From,
  loadTile: (machine: M, from: From, first: number, n: number) => void,
): void {
  const { wasm, memory } = machine;
  const { channels } = view;
  const a = operand(memory, "x", x, 0, view, selection);
  const b = add && operand(memory, "add", add, 1, view, selection);
  const y = operand(memory, "out", out, 0, view, selection);
  loadHeld(a);
  if (b !== null) loadHeld(b);
  if (selection === null && sizeOf(view) === channels && channels <= MAX_COLUMNS) {
    // One example with one value per channel is a single row, so no walk is needed.
    loadTile(machine, from, 0, channels);
    const { low, high } = from.limits ?? NO_LIMITS;
    const { at } = memory.terms;
    wasm.affineStrips(pointer(y, 0), pointer(a, 0), pointer(b, 0), at, low, high, 1, channels, 0);
  } else {
    const pass = passOf(machine, view, selection, y, a, b, from.limits);
    const { tile } = pass;
    for (let first = 0; first < channels; first += tile) {
      const n = Math.min(tile, channels - first);
      loadTile(machine, from, first, n);
      affineTile(pass, first, n);
    }
  }
  storeHeld(y);
}
