// Masks: which positions of a tensor hold data; all others are padding. The kernels are given copies without the
// padding, as rows of channels. In layouts that end in C, results therefore have the bits that they would have if
// users left the padding out themselves.

import { describe, ShapeError } from "../errors.js";
import { type Limits, limited } from "./activation.js";
import { copy, copyOf, isUint8Array, part, sizeIn } from "./arrays.js";
import { countOf, type Layout, type View, viewOf } from "./layout.js";

/** The positions of a tensor that hold data. */
export class Selection {
  /** The tensor with its padding. */
  readonly full: View;
  /** Where in the tensor the channels of each selected position begin, ascending. */
  readonly #at: Float64Array;
  readonly #mask: Uint8Array;

  /** @param mask one entry per position; it is kept, not copied. */
  constructor(full: View, mask: Uint8Array) {
    this.full = full;
    this.#mask = mask;
    this.#at = new Float64Array(mask.reduce((n, entry) => n + (entry === 0 ? 0 : 1), 0));
    for (let p = 0, n = 0; p < mask.length; p++)
      if (mask[p] !== 0) this.#at[n++] = placeOf(full, p);
  }

  /** Where in the tensor the channels of a selected position begin. */
  at(position: number): number {
    return this.#at[position]!;
  }

  /** What the kernels see: the selected positions as rows. */
  get view(): View {
    return { outer: this.#at.length, channels: this.full.channels, inner: 1 };
  }

  /**
   * Copies selected values of an array to `packed`, where they lie one after the other; if `storing`, copies them
   * back. They are `rows` rows of `width` values, which begin at the value `at` of the selected ones. A row is one
   * position, several, or a part of one.
   */
  transfer(
    packed: Float32Array,
    array: Float32Array,
    at: number,
    rows: number,
    width: number,
    storing: boolean,
  ): void {
    const { channels, inner } = this.full;
    const first = Math.floor(at / channels);
    const n = Math.min(width, channels);
    const end = first + (rows * width) / n;
    const whole = inner === 1 && n === channels;
    for (let row = first, next = row; row < end; row = next) {
      const from = this.#at[row]! + (at % channels) * inner;
      const to = (row - first) * n;
      next++;
      // Positions that are neighbours in the tensor are copied together.
      while (whole && next < end && this.#at[next] === from + (next - row) * n) next++;
      const length = (next - row) * n;
      if (inner > 1) {
        for (let c = 0; c < n; c++) {
          if (storing) array[from + c * inner] = packed[to + c]!;
          else packed[to + c] = array[from + c * inner]!;
        }
      } else if (storing) copy(array, part(packed, to, to + length), from);
      else copy(packed, part(array, from, from + length), to);
    }
  }

  /** Writes a value per channel, 0 where there are none, limited, to every position that is not selected. */
  pad(array: Float32Array, values: Float32Array | null, limits: Limits | null = null): void {
    pad(array, this.full, this.#mask, values, limits);
  }
}

/** Writes a value per channel, 0 where there are none, limited, to every position whose entry in `mask` is 0. */
export function pad(
  array: Float32Array,
  view: View,
  mask: Uint8Array,
  values: Float32Array | null,
  limits: Limits | null,
): void {
  const { channels, inner } = view;
  for (let p = 0; p < mask.length; p++) {
    for (let c = 0; mask[p] === 0 && c < channels; c++) {
      array[placeOf(view, p) + c * inner] = limited(values?.[c] ?? 0, limits);
    }
  }
}

/** Returns `value` if it is a mask with one entry per example and position of the view; `null` for undefined. */
export function maskOf(value: unknown, view: View): Uint8Array | null {
  if (value === undefined) return null;
  if (!isUint8Array(value) || sizeIn(value) !== countOf(view)) {
    throw new ShapeError(
      "mask",
      `a Uint8Array of ${countOf(view)} entries, one for each example and position`,
      describe(value),
    );
  }
  return copyOf(value);
}

/** A tensor, and the part of it that takes part in a computation. */
export interface Seen {
  /** The view of the whole tensor. */
  readonly full: View;
  /** The positions that a mask selects; `null` without a mask. */
  readonly selection: Selection | null;
  /** The view of what takes part. */
  readonly view: View;
}

/** Checks x, its shape and its mask in a layout, and says what of x takes part. */
export function seenBy(
  layout: Layout,
  channels: number,
  x: unknown,
  shape: unknown,
  mask: unknown,
): Seen {
  const full = viewOf(layout, channels, x, shape);
  const data = maskOf(mask, full);
  if (data === null || data.every((entry) => entry !== 0)) {
    return { full, selection: null, view: full };
  }
  const selection = new Selection(full, data);
  return { full, selection, view: selection.view };
}

/** Where the first channel of the i-th position begins, among those that are selected or, without a mask, among all. */
export const placeIn = (selection: Selection | null, view: View, i: number): number =>
  selection?.at(i) ?? placeOf(view, i);

/** Where the channels of a position begin. */
const placeOf = ({ channels, inner }: View, p: number): number =>
  (p - (p % inner)) * channels + (p % inner);
