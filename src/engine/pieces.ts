// Applies terms to ordinary arrays through a single stream buffer. The small entry needs no more, since it has no
// tensors in kernel memory, no masks to walk by and no reductions. Each value is computed by itself, so the bits are
// the same as those of walk.ts.

import { copy, part } from "../values/arrays.js";
import { sizeOf, type View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";
import { loadTerms, spread } from "./channel.js";
import type { AffineMachine } from "./machine.js";
import { type At, firstOf, MAX_COLUMNS, STREAM_FLOATS } from "./memory.js";
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
): void {
  const { wasm, memory } = machine;
  const { channels, inner } = view;
  const size = sizeOf(view);
  const stream = memory.streams[0]!;
  if (size === channels && channels <= MAX_COLUMNS) {
    // One example with one value per channel is a single row, so no walk is needed.
    copy(stream.array, x);
    loadTerms(machine, terms, 0, channels);
    const at = stream.at as At<"out" & "a">;
    wasm.affineStrips(at, at, memory.terms.at, 1, channels, 0);
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
    loaded = applyHeld(machine, piece, terms, first, loaded);
    copy(out, firstOf(stream, n), at);
  }
}

/**
 * Applies the terms of the channels from `first` on to what lies in the stream buffer, a tile at a time. `loaded` is
 * the first channel whose terms lie in kernel memory already; returns the first one whose terms lie there now.
 */
function applyHeld(
  machine: AffineMachine,
  view: View,
  terms: AffineTerms,
  first: number,
  loaded: number,
): number {
  const { outer, channels, inner } = view;
  const walk = walkOf(view);
  const { rows, tile } = walk;
  const repeats = repeatsOf(view, walk, MIN_COLUMNS);
  const columns = needsColumns(view, rows, repeats);
  const { wasm, memory } = machine;
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
      wasm.affineStrips(at(0), at(0), from, wide, repeats * n * inner, repeats * stride);
      if (rest < outer)
        wasm.affineStrips(at(rest), at(rest), from, outer - rest, n * inner, stride);
    } else {
      // Planes of all channels lie one behind the other; those of a tile do so within an example.
      const together = n === channels ? outer : 1;
      for (let i = 0; i < outer; i += together) {
        wasm.affinePlanes(at(i), at(i), memory.terms.at, 0, together * n, n, inner);
      }
    }
  }
  return loaded;
}
