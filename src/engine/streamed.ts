// Applies terms to ordinary arrays through the stream buffers. The small entry needs no more, since it has no
// tensors in kernel memory, no masks to walk by and no reductions. Each value is computed by itself, so the bits are
// the same as those of walk.ts.

import { NO_LIMITS } from "../values/activation.js";
import { copy, part } from "../values/arrays.js";
import { sizeOf, type View } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";
import { loadTerms, spread } from "./channel.js";
import type { AffineMachine } from "./machine.js";
import { type At, firstOf, NOWHERE, STREAM_FLOATS } from "./memory.js";
import { MIN_COLUMNS, needsColumns, repeatsOf, walkOf } from "./plan.js";
import { cut } from "./walk.js";

/**
 * Applies terms a tile of channels at a time; out may be x or add. Values of a tile that lie one behind the other go in
 * parts: rows, of which only the last may be incomplete, or planes, or a part of a single plane.
 */
export function applyStreamed(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  terms: AffineTerms,
  add: Float32Array | null,
): void {
  const { wasm, memory } = machine;
  const { outer, channels, inner } = view;
  const stream = memory.streams[0]!;
  const added = memory.streams[1]!;
  const all = sizeOf(view);
  const walk = walkOf(view);
  const { rows, tile } = walk;
  const repeats = repeatsOf(view, walk, MIN_COLUMNS);
  const columns = needsColumns(view, rows, repeats);
  const from = (columns ? memory.columns : memory.terms).at;
  const { low, high } = terms.limits ?? NO_LIMITS;
  const y = stream.at as At<"out" & "a">;
  const r = add === null ? NOWHERE : (added.at as At<"b">);
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    loadTerms(machine, terms, first, n);
    spread({ machine, view, repeats, columns }, ["center", "scale", "shift"], n);
    const runs = n === channels ? 1 : outer;
    const size = (outer / runs) * n * inner;
    const width = rows ? repeats * n * inner : inner;
    for (let run = 0; run < runs; run++) {
      for (let done = 0, length: number; done < size; done += length) {
        length = cut(done, size, width, STREAM_FLOATS);
        const at = (run * channels + first) * inner + done;
        copy(stream.array, length === all ? x : part(x, at, at + length));
        if (add !== null) copy(added.array, length === all ? add : part(add, at, at + length));
        // Of a last row that is not whole, what lies behind it is computed too, and not copied.
        const count = Math.ceil(length / width);
        if (rows) {
          wasm.affineStrips(y, y, r, from, low, high, count, width, width * 4);
        } else {
          const c = Math.floor(done / inner) % n;
          wasm.affinePlanes(y, y, r, from, low, high, c, count, n, Math.min(length, inner));
        }
        copy(out, firstOf(stream, length), at);
      }
    }
  }
}
