// Padding: which positions of a view hold data, and the copies that leave the others out. What is
// selected goes to the kernels as rows of channels, so that a mask gives the bits that dropping its
// examples by hand would give (for layouts that end in C).

import { isUint8Array } from "./arrays.js";
import { describe, ShapeError } from "./errors.js";
import { countOf, type View } from "./layout.js";

/** The positions of a view that hold data. */
export class Selection {
  /** The view with its padding. */
  readonly full: View;
  /** Where in the tensor the channels of each selected position begin, ascending. */
  readonly at: Float64Array;

  constructor(full: View, at: Float64Array) {
    this.full = full;
    this.at = at;
  }

  /** What the kernels see: the positions as rows. */
  get view(): View {
    return { outer: this.at.length, channels: this.full.channels, inner: 1 };
  }

  /**
   * Copies values of an array to where they lie one after the other, or `back`: `rows` rows of `width` values
   * from the value `at` of the selected positions on, of which a row is a part, or several.
   */
  transfer(
    packed: Float32Array,
    array: Float32Array,
    at: number,
    rows: number,
    width: number,
    back: boolean,
  ): void {
    const { channels, inner } = this.full;
    const first = Math.floor(at / channels);
    const n = Math.min(width, channels);
    const end = first + (rows * width) / n;
    const whole = inner === 1 && n === channels;
    for (let row = first, next = row; row < end; row = next) {
      const from = this.at[row]! + (at % channels) * inner;
      const to = (row - first) * n;
      next++;
      // Neighbours are copied at once.
      while (whole && next < end && this.at[next] === from + (next - row) * n) next++;
      const length = (next - row) * n;
      if (inner > 1) {
        for (let c = 0; c < n; c++) {
          if (back) array[from + c * inner] = packed[to + c]!;
          else packed[to + c] = array[from + c * inner]!;
        }
      } else if (back) array.set(packed.subarray(to, to + length), from);
      else packed.set(array.subarray(from, from + length), to);
    }
  }

  /** Writes a value per channel, 0 where there are none, to every position that is not selected. */
  pad(array: Float32Array, values: Float32Array | null): void {
    const { channels, inner } = this.full;
    for (let p = 0, next = 0; p < countOf(this.full); p++) {
      const place = placeOf(this.full, p);
      if (this.at[next] === place) next++;
      else for (let c = 0; c < channels; c++) array[place + c * inner] = values?.[c] ?? 0;
    }
  }

  /** How many of the view's first axis, `examples`, hold data. */
  examples(examples: number): number {
    const size = (countOf(this.full) * this.full.channels) / examples;
    let held = 0;
    let last = -1;
    for (const place of this.at) {
      const example = Math.floor(place / size);
      if (example !== last) held++;
      last = example;
    }
    return held;
  }
}

/** `value`, if it is a mask of one entry per example and position of the view. */
function checkMask(value: unknown, view: View): Uint8Array {
  if (!isUint8Array(value) || value.length !== countOf(view)) {
    throw new ShapeError(
      `mask: expected a Uint8Array of ${countOf(view)} entries, one for each example and position, ` +
        `got ${describe(value)}`,
    );
  }
  return value;
}

/** What a mask selects; `null` without one, or where it leaves nothing out. */
export function selectionOf(value: unknown, view: View): Selection | null {
  if (value === undefined) return null;
  const mask = checkMask(value, view);
  const at = new Float64Array(mask.length);
  let n = 0;
  for (let p = 0; p < mask.length; p++) if (mask[p] !== 0) at[n++] = placeOf(view, p);
  return n === mask.length ? null : new Selection(view, at.slice(0, n));
}

/** Where the channels of a position begin. */
const placeOf = ({ channels, inner }: View, p: number): number =>
  (p - (p % inner)) * channels + (p % inner);
