// x -> y = (x - center)·scale + shift. See assembly/affine.ts for the formula and its rounding.

import { sizeOf, type View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import type { AffineTerms, Normalizer } from "../values/terms.js";
import { loadNormalizer, loadTerms, spread, termsOf, termsOfRow } from "./channel.js";
import { type AffineMachine, type Machine, machineFor } from "./machine.js";
import { MAX_COLUMNS } from "./memory.js";
import { loadHeld, operand, pointer, storeHeld } from "./operand.js";
import { type Pass, passOf, walkOf } from "./plan.js";
import { type Steps, walkTile } from "./walk.js";

const STEPS: Steps<AffineMachine> = {
  rows(pass, y, x, _b, _count, rows, width, stride) {
    const { wasm } = pass.machine;
    const kernel = (pass.cold && wasm.affineSweep) || wasm.affineStrips;
    kernel(y, x, termsOfRow(pass), rows, width, stride);
  },
  planes({ machine: { wasm, memory } }, y, x, _b, _count, first, planes, channels, inner) {
    wasm.affinePlanes(y, x, memory.terms.at, first, planes, channels, inner);
  },
};

/** Applies the terms that lie in kernel memory to a tile. */
export function affineTile(pass: Pass<AffineMachine>, first: number, n: number): void {
  spread(pass, ["center", "scale", "shift"], n);
  walkTile(pass, STEPS, first, n);
}

/**
 * Normalizes x by given statistics; out may be x. Throws StateError for an invalid variance or a freed tensor,
 * before anything is written.
 */
export function normalize(
  machine: Machine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  normalizer: Normalizer,
  selection: Selection | null,
): void {
  machine = machineFor(machine, out, x);
  // All variances have to be checked before the first value is written. A single tile checks its own in time; if
  // there are several, they are all checked here.
  if (walkOf(view).tile < view.channels) {
    const terms = termsOf(machine, normalizer);
    applyTiles(machine, out, x, view, selection, terms, loadTerms);
  } else applyTiles(machine, out, x, view, selection, normalizer, loadNormalizer);
  selection?.pad(out, normalizer.beta);
}

/** Applies terms that are worked out already; out may be x. Throws StateError for a freed tensor. */
export function applyTerms(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  terms: AffineTerms,
): void {
  applyTiles(machineFor(machine, out, x), out, x, view, null, terms, loadTerms);
}

/** Applies terms tile by tile. `loadTile` brings the terms of a tile into kernel memory. */
function applyTiles<M extends AffineMachine, From>(
  machine: M,
  out: Float32Array,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  from: From,
  loadTile: (machine: M, from: From, first: number, n: number) => void,
): void {
  const { wasm, memory } = machine;
  const { channels } = view;
  const a = operand(memory, "x", x, 0, view, selection);
  const y = operand(memory, "out", out, 0, view, selection);
  loadHeld(a);
  if (selection === null && sizeOf(view) === channels && channels <= MAX_COLUMNS) {
    // One example with one value per channel is a single row, so no walk is needed.
    loadTile(machine, from, 0, channels);
    wasm.affineStrips(pointer(y, 0), pointer(a, 0), memory.terms.at, 1, channels, 0);
  } else {
    const pass = passOf(machine, view, selection, y, a, null);
    const { tile } = pass;
    for (let first = 0; first < channels; first += tile) {
      const n = Math.min(tile, channels - first);
      loadTile(machine, from, first, n);
      affineTile(pass, first, n);
    }
  }
  storeHeld(y);
}
