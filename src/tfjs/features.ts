// What the layer `Normalization` is given, made ready: data in batches, the axes that it keeps, and statistics that
// are numbers. Source: keras/src/layers/preprocessing/normalization.py.

import {
  broadcastTo,
  cast,
  dispose,
  reshape,
  Tensor,
  type TensorLike,
  tidy,
} from "@tensorflow/tfjs-core";
import { describe, OptionError, ShapeError } from "../errors.js";
import { show } from "../values/layout.js";
import { broadcasts, tensorOf } from "./check.js";
import { valuesOf } from "./data.js";

/** How an input is brought to [before, channels, after]. */
export interface Arrangement {
  /** Sizes of the axes of the input; `null` where they may differ. */
  readonly shape: readonly (number | null)[];
  /** Sizes of the kept axes; their product is the number of channels. */
  readonly sizes: readonly number[];
  /** The kept axes, ascending. */
  readonly kept: readonly number[];
  /** The order that brings the kept axes to the end; `null` if they stand side by side. */
  readonly order: readonly number[] | null;
}

/** Throws OptionError for an axis that the shape does not have or whose size it does not know, or one that comes twice. */
export function arrange(axis: unknown, shape: readonly (number | null)[]): Arrangement {
  const axes = axis === null ? [] : [axis].flat();
  const kept = axes.map((each) => {
    const given = typeof each === "number" ? each : NaN;
    const at = given < 0 ? given + shape.length : given;
    if (typeof shape[at] === "number") return at;
    throw new OptionError(
      "axis",
      `axes of known size in ${show([...shape])}, or null for one mean of all values`,
      describe(each),
    );
  });
  kept.sort((a, b) => a - b);
  if (new Set(kept).size < kept.length) {
    throw new OptionError("axis", "each axis once", show(axes));
  }
  const others = shape.map((_, i) => i).filter((i) => !kept.includes(i));
  return {
    shape: shape.map((n, i) => (kept.includes(i) ? n : null)),
    kept,
    sizes: kept.map((i) => shape[i] as number),
    order: kept.every((i, k) => i === kept[0]! + k) ? null : [...others, ...kept],
  };
}

/** Throws ShapeError for an input that does not have the sizes of the arrangement. */
export function requireFit({ shape }: Tensor, arrangement: Arrangement): void {
  const known = arrangement.shape;
  if (shape.length === known.length && shape.every((n, i) => n === (known[i] ?? n))) return;
  throw new ShapeError("inputs", `a tensor of shape ${show([...known])}`, show(shape));
}

/** Given means or variances, one for each channel. Throws ShapeError if they do not broadcast to the kept axes. */
export function perChannel(
  name: string,
  value: TensorLike,
  sizes: readonly number[],
): Float32Array {
  return tidy(() => {
    const given = tensorOf(name, value);
    const to = [...sizes];
    // Axes of size 1 in front say nothing, however many there are.
    const first = given.shape.findIndex((n) => n !== 1);
    const shape = first < 0 ? [] : given.shape.slice(first);
    if (!broadcasts(shape, sizes)) {
      throw new ShapeError(name, `a shape that broadcasts to ${show(to)}`, show(given.shape));
    }
    return Float32Array.from(valuesOf(broadcastTo(reshape(given, shape), to)));
  });
}

/** A tensor as float32. Throws ShapeError if it is none, or holds no real numbers. */
export function floats(x: Tensor): Tensor {
  const isWhole = x instanceof Tensor && (x.dtype === "int32" || x.dtype === "bool");
  return isWhole ? cast(x, "float32") : tensorOf("inputs", x);
}

/** The members of a `tf.data.Dataset` that this file uses. */
interface Dataset {
  iterator(): Promise<{ next(): Promise<IteratorResult<unknown>> }>;
}

/** The input in a batch, which may be `{ xs, ys }`, or `[x, y]` of tensors; an array of numbers is the input itself. */
function inputIn(batch: unknown): Tensor {
  const { xs } = Object(batch) as { xs?: unknown };
  const isPair = Array.isArray(batch) && batch[0] instanceof Tensor;
  return (xs ?? (isPair ? batch[0] : batch)) as Tensor;
}

/** Is called with each input; a promise where it has to wait for the backend. */
type Use = (x: Tensor) => Promise<void> | undefined;

/** Calls `use` with the input of each batch in the data. With a tensor or an array nothing is waited for. */
export function eachBatch(data: unknown, use: Use): Promise<void> | undefined {
  if (data instanceof Tensor) return use(data);
  let first = data;
  while (Array.isArray(first)) first = first[0];
  if ((first !== data && typeof first === "number") || ArrayBuffer.isView(first)) {
    const made = tidy(() => tensorOf("data", data));
    try {
      return use(made);
    } finally {
      made.dispose();
    }
  }
  return inOrder(data, use);
}

async function inOrder(data: unknown, use: Use): Promise<void> {
  const given = Object(data) as Partial<Dataset & AsyncIterable<unknown> & Iterable<unknown>>;
  if (typeof given.iterator === "function") {
    const items = await given.iterator();
    for (let item = await items.next(); !item.done; item = await items.next()) {
      try {
        await use(inputIn(item.value));
      } finally {
        dispose(item.value as Tensor); // A data set makes tensors that nobody else has.
      }
    }
  } else if (given[Symbol.asyncIterator] || given[Symbol.iterator]) {
    for await (const batch of data as AsyncIterable<unknown>) await use(inputIn(batch));
  } else {
    throw new ShapeError("data", "a tensor, an array or batches of them", describe(data));
  }
}
