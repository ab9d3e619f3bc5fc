// Padding: which positions of a view hold data, and the copies that leave the others out. What is
// selected goes to the kernels as rows of channels, so that a mask gives the bits that dropping its
// examples by hand would give (for layouts that end in C).

import { isUint8Array } from "./arrays.js";
import { describe, ShapeError } from "./errors.js";
import { countOf, type View } from "./layout.js";

/** The positions of a view that hold data. */
export interface Selection {
  /** The view with its padding. */
  readonly full: View;
  /** Where in the tensor the channels of each selected position begin, ascending. */
  readonly at: Float64Array;
}

/** What the kernels see of a selection: its positions as rows. */
export const rowsOf = ({ full, at }: Selection): View => ({
  outer: at.length,
  channels: full.channels,
  inner: 1,
});

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
  return n === mask.length ? null : { full: view, at: at.slice(0, n) };
}

/** Where the channels of a position begin. */
const placeOf = ({ channels, inner }: View, p: number): number =>
  (p - (p % inner)) * channels + (p % inner);

/** How many of the view's first axis, `examples`, hold data. */
export function examplesIn({ full, at }: Selection, examples: number): number {
  const size = (countOf(full) * full.channels) / examples;
  let held = 0;
  let last = -1;
  for (const place of at) {
    const example = Math.floor(place / size);
    if (example !== last) held++;
    last = example;
  }
  return held;
}

/** Columns column … column + width of the selected rows row … row + rows, into `packed`. */
export function gather(
  packed: Float32Array,
  array: Float32Array,
  { full: { channels, inner }, at }: Selection,
  row: number,
  rows: number,
  column: number,
  width: number,
): void {
  for (let i = 0, n = 1; i < rows; i += n) {
    const from = at[row + i]! + column * inner;
    n = 1;
    if (inner === 1) {
      // Neighbours are copied at once.
      if (width === channels) while (i + n < rows && at[row + i + n] === from + n * width) n++;
      packed.set(array.subarray(from, from + n * width), i * width);
    } else {
      for (let c = 0; c < width; c++) packed[i * width + c] = array[from + c * inner]!;
    }
  }
}

/** The way back of `gather`. */
export function scatter(
  array: Float32Array,
  packed: Float32Array,
  { full: { channels, inner }, at }: Selection,
  row: number,
  rows: number,
  column: number,
  width: number,
): void {
  for (let i = 0, n = 1; i < rows; i += n) {
    const to = at[row + i]! + column * inner;
    n = 1;
    if (inner === 1) {
      if (width === channels) while (i + n < rows && at[row + i + n] === to + n * width) n++;
      array.set(packed.subarray(i * width, (i + n) * width), to);
    } else {
      for (let c = 0; c < width; c++) array[to + c * inner] = packed[i * width + c]!;
    }
  }
}

/** Writes a value per channel, 0 where there are none, to every position that is not selected. */
export function pad(
  array: Float32Array,
  { full, at }: Selection,
  values: Float32Array | null,
): void {
  const { channels, inner } = full;
  for (let p = 0, next = 0; p < countOf(full); p++) {
    const place = placeOf(full, p);
    if (at[next] === place) next++;
    else for (let c = 0; c < channels; c++) array[place + c * inner] = values?.[c] ?? 0;
  }
}
