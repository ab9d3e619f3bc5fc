// The only file that knows layouts by name. Everything below it sees one canonical view:
// (outer, channels, inner), row-major. "NC" is (N, C, 1), "NCHW" (N, C, H·W), "NHWC" (N·H·W, C, 1).

import { describe, OptionError, ShapeError } from "./errors.js";

/** Order of axes: examples N, channels C, then or before it depth D, height H, width W or length L. */
export type Layout = "NC" | "NCL" | "NCHW" | "NCDHW" | "NLC" | "NHWC" | "NDHWC";

/** The layouts whose channel axis is the second, as PyTorch and ONNX have it. */
export const CHANNELS_FIRST: readonly Layout[] = ["NC", "NCL", "NCHW", "NCDHW"];
export const LAYOUTS: readonly Layout[] = [...CHANNELS_FIRST, "NLC", "NHWC", "NDHWC"];

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
      `layout: expected one of ${allowed.map((name) => `"${name}"`).join(", ")}, got ${describe(layout)}`,
    );
  }
  return layout as Layout;
}

/**
 * The shape of `length` values: the given one, checked, or the one that follows from the length
 * where all axes before the last are examples or positions (then all but the first are 1).
 */
export function shapeOf(
  layout: Layout,
  channels: number,
  length: number,
  shape: unknown,
): readonly number[] {
  if (shape === undefined) {
    if (!layout.endsWith("C")) {
      throw new ShapeError(
        `shape: expected for layout "${layout}", whose axes do not follow from a length, got none`,
      );
    }
    if (length % channels !== 0) {
      throw new ShapeError(`x: expected rows of ${channels} channels, got ${length} values`);
    }
    const inferred = new Array<number>(layout.length).fill(1);
    inferred[0] = length / channels;
    inferred[layout.length - 1] = channels;
    return inferred;
  }
  if (!Array.isArray(shape) || shape.length !== layout.length || !shape.every(isSize)) {
    throw new ShapeError(
      `shape: expected ${layout.length} sizes [${[...layout].join(", ")}], got ${show(shape)}`,
    );
  }
  const axis = layout.indexOf("C");
  if (shape[axis] !== channels) {
    throw new ShapeError(
      `shape: expected ${channels} channels on axis ${axis} of "${layout}", got [${shape.join(", ")}]`,
    );
  }
  const size = shape.reduce((product: number, n: number) => product * n, 1);
  if (size !== length) {
    throw new ShapeError(
      `shape: expected the ${length} values of x, got [${shape.join(", ")}], which is ${size}`,
    );
  }
  return shape.slice();
}

const isSize = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
const show = (shape: unknown): string =>
  Array.isArray(shape) ? `[${shape.join(", ")}]` : describe(shape);

/** The canonical view of a shape that `shapeOf` returned. */
export function viewOf(layout: Layout, shape: readonly number[]): View {
  const axis = layout.indexOf("C");
  let outer = 1;
  let inner = 1;
  for (let i = 0; i < axis; i++) outer *= shape[i]!;
  for (let i = axis + 1; i < shape.length; i++) inner *= shape[i]!;
  return { outer, channels: shape[axis]!, inner };
}
