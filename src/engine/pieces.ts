// Applies terms to ordinary arrays through the stream buffers. The small entry needs no more, since it has no
// tensors in kernel memory, no masks to walk by and no reductions. Each value is computed by itself, so the bits are
// the same as those of walk.ts.

import { type Limits, limitsOf } from "../values/activation.js";
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
  const limits = limitsOf(terms.limits, add);
  if (limits === null && size === channels && channels <= MAX_COLUMNS) {
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
    if (add !== null) copy(memory.streams[1]!.array, n === size ? add : part(add, at, at + n));
    loaded = applyHeld(machine, piece, terms, first, loaded, limits, add !== null);
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
  limits: Limits | null,
  added: boolean,
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
    const apart = memory.streams[1]!.at - memory.streams[0]!.at;
    const addAt = (example: number) => (added ? at(example) + apart : NOWHERE) as At<"b">;
    if (rows) {
      const wide = Math.floor(outer / repeats);
      const rest = wide * repeats;
      const { at: from } = columns ? memory.columns : memory.terms;
      const strips = (example: number, rows: number, width: number, pitch: number): void => {
        const y = at(example);
        if (limits === null) wasm.affineStrips(y, y, from, rows, width, pitch);
        else {
          const { low, high } = limits;
          wasm.activeStrips(y, y, addAt(example), from, low, high, rows, width, pitch);
        }
      };
      strips(0, wide, repeats * n * inner, repeats * stride);
      if (rest < outer) strips(rest, outer - rest, n * inner, stride);
    } else {
      // Planes of all channels lie one behind the other; those of a tile do so within an example.
      const together = n === channels ? outer : 1;
      for (let i = 0; i < outer; i += together) {
        const y = at(i);
        const { at: from } = memory.terms;
        if (limits === null) wasm.affinePlanes(y, y, from, 0, together * n, n, inner);
        else {
          const { low, high } = limits;
          wasm.activePlanes(y, y, addAt(i), from, low, high, 0, together * n, n, inner);
        }
      }
    }
  }
  return loaded;
}
