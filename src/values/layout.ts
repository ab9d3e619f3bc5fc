// The only file that knows what the names of layouts mean. Everything below it sees one canonical view, (outer, channels,
// inner), row-major: "NC" is (N, C, 1), "NCHW" is (N, C, H·W), "NHWC" is (N·H·W, C, 1).

import { describe, ShapeError } from "../errors.js";
import { sizeOfFloat32 } from "./arrays.js";
import { choice, isWhole } from "./check.js";

/**
 * Order of axes: examples N, channels C, then or before it depth D, height H, width W or length L.
 * `"channelsFirst"` is [N, C, …] and `"channelsLast"` is [N, …, C], of any number of axes from two on.
 */
export type Layout =
  | "NC"
  | "NCL"
  | "NCHW"
  | "NCDHW"
  | "channelsFirst"
  | "NLC"
  | "NHWC"
  | "NDHWC"
  | "channelsLast";

/** The layouts whose channel axis is the second, as PyTorch and ONNX have it. */
export const CHANNELS_FIRST: readonly Layout[] = ["NC", "NCL", "NCHW", "NCDHW", "channelsFirst"];
/** The layouts whose channel axis is the last, as Keras and TensorFlow have it. */
export const CHANNELS_LAST: readonly Layout[] = ["NC", "NLC", "NHWC", "NDHWC", "channelsLast"];
export const LAYOUTS: readonly Layout[] = [...CHANNELS_FIRST, ...CHANNELS_LAST.slice(1)];

/** The axes of a layout, a letter each; `…` stands for any number of them. */
const axesOf = (layout: Layout): string =>
  layout === "channelsFirst" ? "NC…" : layout === "channelsLast" ? "N…C" : layout;

/** The first of `layouts` that names as many axes as `axes` says. */
export const ofRank = (layouts: readonly Layout[], axes: number | null): Layout | undefined =>
  layouts.find((layout) => layout.startsWith("N") && layout.length === axes);

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

export const checkLayout = (layout: unknown, allowed: readonly Layout[]): Layout =>
  choice("layout", layout, undefined, allowed);

/** The error about a shape that was left out. */
export const noShape = (layout: Layout): ShapeError =>
  new ShapeError(
    "shape",
    `the sizes of all axes for layout "${layout}", as a length does not tell them`,
    "none",
  );

/**
 * A copy of the option `shape`, or of another list of sizes, or what was given in its place, which `viewOf` refuses. It is made before anything
 * else is looked at: each size is read once, since the array may have getters. Throws ShapeError for more sizes than
 * any shape has.
 */
export function sizesOf(shape: unknown, name = "shape"): readonly number[] | undefined {
  if (!Array.isArray(shape)) return shape as undefined;
  const { length } = shape;
  // An array of four billion holes is not copied.
  if (length > MOST_AXES) throw new ShapeError(name, `at most ${MOST_AXES} axes`, length);
  const sizes = new Array<number>(length);
  for (let i = 0; i < length; i++) sizes[i] = shape[i];
  return sizes;
}

const MOST_AXES = 64;

/** How many values a tensor of these sizes has; `unit` times as much, if it is given. */
export const product = (sizes: readonly number[], unit = 1): number =>
  sizes.reduce((a, b) => a * b, unit);

/**
 * The canonical view of x, an argument of this `name`. If no shape is given, its values are rows of channels, and all
 * axes but the last count as one. Throws ShapeError unless x is a Float32Array that fits.
 */
export function viewOf(
  layout: Layout,
  channels: number,
  x: unknown,
  given: unknown,
  name = "x",
): View {
  const shape = sizesOf(given);
  const length = sizeOfFloat32(name, x);
  const last = CHANNELS_LAST.includes(layout);
  if (shape === undefined) {
    if (!last) throw noShape(layout);
    if (length % channels !== 0) {
      throw new ShapeError(name, `rows of ${channels} channels`, `${length} values`);
    }
    return { outer: length / channels, channels, inner: 1 };
  }
  const axes = axesOf(layout);
  // The layouts of any number of axes have names of their own.
  const isShape =
    Array.isArray(shape) &&
    (axes === layout ? shape.length === axes.length : shape.length > 1) &&
    shape.every((size) => isWhole(size));
  const sizes: readonly number[] = isShape ? shape : [];
  const axis = last ? sizes.length - 1 : 1;
  const view = { outer: 1, channels, inner: 1 };
  for (let i = 0; i < axis; i++) view.outer *= sizes[i]!;
  for (let i = axis + 1; i < sizes.length; i++) view.inner *= sizes[i]!;
  if (sizes[axis] !== channels || sizeOf(view) !== length) {
    throw new ShapeError(
      "shape",
      `sizes [${[...axes].join(", ")}] with C = ${channels}, ${length} values in all, for layout "${layout}"`,
      show(shape),
    );
  }
  // Without values, the other sizes are dropped, so that no loop runs over them.
  return length === 0 ? { outer: 0, channels, inner: 1 } : view;
}

/** The shape of rows of channels: the sizes of all axes between the first and the last are 1. */
export const rowsShape = (layout: Layout, { outer, channels }: View): readonly number[] =>
  [...axesOf(layout)].flatMap((axis) =>
    axis === "N" ? outer : axis === "C" ? channels : axis === "…" ? [] : 1,
  );

/** A shape as messages show it, whatever its sizes are. */
export const show = (shape: unknown): string =>
  Array.isArray(shape) ? `[${Array.from(shape, describe).join(", ")}]` : describe(shape);

/** Properties as the line of an object has them, without those that are not set: `{ layout: "NC", activation: [0, 3] }`. */
export const listed = (object: object, names = Object.keys(object)): string =>
  `{ ${names
    .flatMap((name) => {
      const value = object[name as never] as unknown;
      if (value === null) return [];
      return `${name}: ${typeof value !== "object" || Array.isArray(value) ? show(value) : listed(value)}`;
    })
    .join(", ")} }`;
