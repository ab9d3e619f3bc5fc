// What `backward` needs of a `train`.

import { type Layout, rowsShape, type View } from "./layout.js";
import type { Selection } from "./mask.js";
import type { Moments } from "./moments.js";

/** The statistics that a `train` normalized with: of the mini-batch, or the running averages. */
export type StatisticsKind = "batch" | "running";

/** What a `train` normalized. */
export interface BatchSource {
  /** What the kernels saw of x: the selected positions, if there is a selection. */
  readonly view: View;
  readonly selection: Selection | null;
  readonly mask: Uint8Array | null;
  /** How many values per channel the statistics are of. */
  readonly count: number;
  /** `null` after an in-place `train`, or where it was lent for that call only. */
  x: Float32Array | null;
  /** As it was given. */
  readonly shape: readonly number[] | null;
  readonly statistics: StatisticsKind | Moments;
}

const insides = new WeakMap<object, { owner: object; source: BatchSource }>();

/** The inside of a Batch, for this package only: undefined if `value` is none. */
export const insideOf = (value: unknown): { owner: object; source: BatchSource } | undefined =>
  insides.get(value as object);

/** What the latest `train` leaves for its `backward`: `bn.lastBatch`. */
export class Batch {
  /** The input, in `shape`, not a copy: leave it unchanged until `backward`. `null` after an in-place `train`, or where it is a tensor of tfjs. */
  readonly x: Float32Array | null;
  /** Sizes of the axes of x. */
  readonly shape: readonly number[];
  /** The mask that was given, not a copy; `null` without one. */
  readonly mask: Uint8Array | null;
  /** What x was normalized by: its own statistics, the running averages, or these moments. */
  readonly statistics: StatisticsKind | Moments;
  /** How many values of each channel take part: of x, or of the moments given. */
  readonly count: number;
  /** Means normalized with, one per channel. */
  readonly mean: Float64Array;
  /** Population variances normalized with, one per channel. */
  readonly variance: Float64Array;

  /** @internal Made by a layer. */
  constructor(
    owner: object,
    layout: Layout,
    source: BatchSource,
    mean: Float64Array,
    variance: Float64Array,
  ) {
    insides.set(this, { owner, source });
    this.x = source.x;
    this.shape = source.shape ?? rowsShape(layout, source.selection?.full ?? source.view);
    this.mask = source.mask;
    this.statistics = source.statistics;
    this.count = source.count;
    this.mean = mean;
    this.variance = variance;
  }
}

/** Lets go of the input of a batch, whose `backward` then wants it again, as after an in-place `train`. */
export function forgetInput(batch: Batch): void {
  (batch as { x: Float32Array | null }).x = null;
  const inside = insideOf(batch);
  if (inside !== undefined) inside.source.x = null;
}
