// Applies terms to ordinary arrays through the stream buffers. The small entry needs no more, since it has no
// tensors in kernel memory, no masks to walk by and no reductions. Each value is computed by itself, so the bits are
// the same as those of walk.ts.

import { NO_LIMITS } from "../values/activation.js";
import { copy, part } from "../values/arrays.js";
import { sizeOf, type View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";
import { loadTerms, spread } from "./channel.js";
import type { AffineMachine } from "./machine.js";
import { type At, firstOf, MAX_COLUMNS, NOWHERE, STREAM_FLOATS } from "./memory.js";
import { MIN_COLUMNS, needsColumns, repeatsOf, walkOf } from "./plan.js";

/**
 * Applies terms piece by piece; out may be x. A piece fills the buffer as far as it can with whole examples, else
 * with whole channels of one example, else with a part of one channel.
 */
export function applyInPieces(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  terms: AffineTerms,
  add: Float32Array | null,
): void {
  const { wasm, memory } = machine;
  const { channels, inner } = view;
  const size = sizeOf(view);
  const stream = memory.streams[0]!;
  if (size === channels && channels <= MAX_COLUMNS) {
    // One example with one value per channel is a single row, so no walk is needed.
    copy(stream.array, x);
    if (add !== null) copy(memory.streams[1]!.array, add);
    loadTerms(machine, terms, 0, channels);
    const { low, high } = terms.limits ?? NO_LIMITS;
    const { at } = memory.terms;
    const y = stream.at as At<"out" & "a">;
    wasm.affineStrips(y, y, addedAt(machine, add, y), at, low, high, 1, channels, 0);
    copy(out, firstOf(stream, channels));
    return;
  }
  const example = channels * inner;
  // Pieces are multiples of `quantum`, and none goes on into the next `whole`.
  const whole = example <= STREAM_FLOATS ? size : inner <= STREAM_FLOATS ? example : inner;
  const quantum = example <= STREAM_FLOATS ? example : inner <= STREAM_FLOATS ? inner : 1;
  const most = STREAM_FLOATS - (STREAM_FLOATS % quantum);
  let loaded = -1;
  for (let at = 0, n: number; at < size; at += n) {
    n = Math.min(most, whole - (at % whole));
    const first = Math.floor(at / inner) % channels;
    const width = Math.min(inner, n);
    const some = Math.min(channels, n / width);
    const piece = { outer: n / (some * width), channels: some, inner: width };
    copy(stream.array, n === size ? x : part(x, at, at + n));
    if (add !== null) copy(memory.streams[1]!.array, n === size ? add : part(add, at, at + n));
    loaded = applyHeld(machine, piece, terms, first, loaded, add);
    copy(out, firstOf(stream, n), at);
  }
}

/**
 * Applies the terms of the channels from `first` on to what lies in the stream buffer, a tile at a time. `loaded` is
 * the first channel whose terms lie in kernel memory already; returns the first one whose terms lie there now. What is
 * to be added, if anything is, lies in the second stream buffer.
 */
function applyHeld(
  machine: AffineMachine,
  view: View,
  terms: AffineTerms,
  first: number,
  loaded: number,
  add: Float32Array | null,
): number {
  const { outer, channels, inner } = view;
  const walk = walkOf(view);
  const { rows, tile } = walk;
  const repeats = repeatsOf(view, walk, MIN_COLUMNS);
  const columns = needsColumns(view, rows, repeats);
  const { wasm, memory } = machine;
  const { low, high } = terms.limits ?? NO_LIMITS;
  for (let c = 0; c < channels; c += tile) {
    const n = Math.min(tile, channels - c);
    if (loaded !== first + c) {
      loaded = first + c;
      loadTerms(machine, terms, loaded, n);
      spread({ machine, view, repeats, columns }, ["center", "scale", "shift"], n);
    }
    const start = memory.streams[0]!.at + c * inner * 4;
    const stride = channels * inner * 4;
    const at = (example: number) => (start + example * stride) as At<"out" & "a">;
    if (rows) {
      const wide = Math.floor(outer / repeats);
      const rest = wide * repeats;
      const { at: from } = columns ? memory.columns : memory.terms;
      const strips = (example: number, rows: number, width: number, pitch: number): void => {
        const y = at(example);
        const r = addedAt(machine, add, y);
        wasm.affineStrips(y, y, r, from, low, high, rows, width, pitch);
      };
      strips(0, wide, repeats * n * inner, repeats * stride);
      if (rest < outer) strips(rest, outer - rest, n * inner, stride);
    } else {
      // Planes of all channels lie one behind the other; those of a tile do so within an example.
      const together = n === channels ? outer : 1;
      for (let i = 0; i < outer; i += together) {
        const y = at(i);
        const r = addedAt(machine, add, y);
        wasm.affinePlanes(y, y, r, memory.terms.at, low, high, 0, together * n, n, inner);
      }
    }
  }
  return loaded;
}

/** Where the residual lies of the value that lies at y: at the same place of the second stream buffer. */
const addedAt = (
  { memory: { streams } }: AffineMachine,
  add: Float32Array | null,
  y: number,
): At<"b"> => (add === null ? NOWHERE : ((y - streams[0]!.at + streams[1]!.at) as At<"b">));
