// The arguments that train and infer of layers and frozen layers share: data, shape and out.

import { float32, float32Of, isSame, refuseOverlap } from "./arrays.js";
import { type Layout, shapeOf, sizeOf, type View, viewOf } from "./layout.js";

/** Checked data and its canonical view. */
export interface Input {
  readonly x: Float32Array;
  readonly shape: readonly number[];
  readonly view: View;
}

export function inputOf(layout: Layout, channels: number, value: unknown, shape: unknown): Input {
  const x = float32("x", value);
  const sizes = shapeOf(layout, channels, x.length, shape);
  return { x, shape: sizes, view: viewOf(layout, sizes) };
}

/** `out`, checked against its input, or a fresh array. */
export function outputOf(out: unknown, { x, view }: Input): Float32Array {
  if (out === undefined) return new Float32Array(sizeOf(view));
  const array = float32Of("out", out, x.length);
  if (!isSame(array, x)) refuseOverlap("out", array, "x", x);
  return array;
}
