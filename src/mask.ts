// Padding: which positions of a view hold data, and the copies that leave the others out. What is
// selected goes to the kernels as rows of channels, so that a mask gives the bits that dropping its
// examples by hand would give (for layouts that end in C).

import { isUint8Array } from "./arrays.js";
import { describe, ShapeError } from "./errors.js";
import { countOf, type View } from "./layout.js";
import type { Slot } from "./memory.js";

/** How values get from an ordinary array into a stream buffer, and back. */
export interface Copies {
  /** Where a run of values may be cut: at multiples of so many. */
  readonly pitch: number;
  /**
   * Copies `width` values from `column` on of each of the rows row … row + rows, of `pitch` values,
   * one after the other into the stream buffer.
   */
  gather(
    stream: Slot<Float32Array>,
    array: Float32Array,
    pitch: number,
    row: number,
    rows: number,
    column: number,
    width: number,
  ): void;
  /** The way back of `gather`. */
  scatter(
    stream: Slot<Float32Array>,
    array: Float32Array,
    pitch: number,
    row: number,
    rows: number,
    column: number,
    width: number,
  ): void;
}

/** The positions of a view that hold data. */
export class Selection implements Copies {
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

  get pitch(): number {
    return this.full.channels;
  }

  gather(
    { array: packed }: Slot<Float32Array>,
    array: Float32Array,
    _pitch: number,
    row: number,
    rows: number,
    column: number,
    width: number,
  ): void {
    const { channels, inner } = this.full;
    for (let i = 0, n = 1; i < rows; i += n) {
      const from = this.at[row + i]! + column * inner;
      n = 1;
      if (inner === 1) {
        // Neighbours are copied at once.
        if (width === channels)
          while (i + n < rows && this.at[row + i + n] === from + n * width) n++;
        packed.set(array.subarray(from, from + n * width), i * width);
      } else {
        for (let c = 0; c < width; c++) packed[i * width + c] = array[from + c * inner]!;
      }
    }
  }

  scatter(
    { array: packed }: Slot<Float32Array>,
    array: Float32Array,
    _pitch: number,
    row: number,
    rows: number,
    column: number,
    width: number,
  ): void {
    const { channels, inner } = this.full;
    for (let i = 0, n = 1; i < rows; i += n) {
      const to = this.at[row + i]! + column * inner;
      n = 1;
      if (inner === 1) {
        if (width === channels) while (i + n < rows && this.at[row + i + n] === to + n * width) n++;
        array.set(packed.subarray(i * width, (i + n) * width), to);
      } else {
        for (let c = 0; c < width; c++) array[to + c * inner] = packed[i * width + c]!;
      }
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
