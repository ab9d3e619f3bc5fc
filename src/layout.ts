// The only file that knows layouts by name. Everything below it sees one canonical view:
// (outer, channels, inner), row-major. "NC" is (N, C, 1), "NCHW" (N, C, H·W), "NHWC" (N·H·W, C, 1).

import { describe, OptionError, ShapeError } from "./errors.js";

/** Order of axes: examples N, channels C, then or before it depth D, height H, width W or length L. */
export type Layout = "NC" | "NCL" | "NCHW" | "NCDHW" | "NLC" | "NHWC" | "NDHWC";

/** The layouts whose channel axis is the second, as PyTorch and ONNX have it. */
export const CHANNELS_FIRST: readonly Layout[] = ["NC", "NCL", "NCHW", "NCDHW"];
/** Those whose channel axis is the last, as Keras and TensorFlow have it. */
export const CHANNELS_LAST: readonly Layout[] = ["NC", "NLC", "NHWC", "NDHWC"];
export const LAYOUTS: readonly Layout[] = [...CHANNELS_FIRST, "NLC", "NHWC", "NDHWC"];

/** The one of some layouts that has so many axes. */
export const ofRank = (layouts: readonly Layout[], axes: number | null): Layout | undefined =>
  layouts.find(({ length }) => length === axes);

/** Data as kernels see them. */
export interface View {
  readonly outer: number;
  readonly channels: number;
  readonly inner: number;
}

/** How many values each channel has in a view. */
export const countOf = (view: View): number => view.outer * view.inner;

/** How many values a view has. */
export const sizeOf = (view: View): number => view.outer * view.channels * view.inner;

export function checkLayout(layout: unknown, allowed: readonly Layout[]): Layout {
  if (!allowed.includes(layout as Layout)) {
    throw new OptionError(
      `layout: expected one of "${allowed.join('", "')}", got ${describe(layout)}`,
    );
  }
  return layout as Layout;
}

/** The error about a shape that was left out. */
export const noShape = (layout: Layout): ShapeError =>
  new ShapeError(
    `shape: expected for layout "${layout}", as a length does not tell the axes, got none`,
  );

/**
 * The canonical view of `length` values of a shape, or, without one, of rows of channels: then all
 * axes but the last are examples or positions.
 */
export function viewOf(layout: Layout, channels: number, length: number, shape: unknown): View {
  const axis = layout.indexOf("C");
  if (shape === undefined) {
    if (axis !== layout.length - 1) {
      throw noShape(layout);
    }
    if (length % channels !== 0) {
      throw new ShapeError(`x: expected rows of ${channels} channels, got ${length} values`);
    }
    return { outer: length / channels, channels, inner: 1 };
  }
  if (!Array.isArray(shape) || shape.length !== layout.length || !shape.every(isSize)) {
    throw new ShapeError(
      `shape: expected ${layout.length} sizes [${[...layout].join(", ")}], got ${show(shape)}`,
    );
  }
  if (shape[axis] !== channels) {
    throw new ShapeError(
      `shape: expected ${channels} channels on axis ${axis} of "${layout}", got ${show(shape)}`,
    );
  }
  const view = { outer: 1, channels, inner: 1 };
  for (let i = 0; i < axis; i++) view.outer *= shape[i]!;
  for (let i = axis + 1; i < shape.length; i++) view.inner *= shape[i]!;
  if (sizeOf(view) !== length) {
    throw new ShapeError(
      `shape: expected the ${length} values of x, got ${show(shape)}, which is ${sizeOf(view)}`,
    );
  }
  // Of no values, whatever the other sizes are: nothing is to walk along those.
  return length === 0 ? { outer: 0, channels, inner: 1 } : view;
}

/** A shape of rows of channels: all axes between the first and the last are 1. */
export const rowsShape = (layout: Layout, { outer, channels }: View): readonly number[] =>
  [...layout].map((_, axis) => (axis === 0 ? outer : axis === layout.length - 1 ? channels : 1));

const isSize = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
/** How a shape is named in a message. */
export const show = (shape: unknown): string =>
  Array.isArray(shape) ? `[${shape.join(", ")}]` : describe(shape);
