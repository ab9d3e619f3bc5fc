// What `backward` needs of a `train`.

import { countOf, type Layout, rowsShape, type View } from "./layout.js";

/** The statistics that a `train` normalized with. */
export type StatisticsKind = "batch" | "running";

/** What a `train` normalized. */
export interface BatchSource {
  readonly view: View;
  /** `null` after an in-place `train`. */
  readonly x: Float32Array | null;
  /** As it was given. */
  readonly shape: readonly number[] | null;
  readonly statistics: StatisticsKind;
}

const insides = new WeakMap<object, { owner: object; source: BatchSource }>();

/** The inside of a Batch, for this package only: undefined if `value` is none. */
export const insideOf = (value: unknown): { owner: object; source: BatchSource } | undefined =>
  insides.get(value as object);

/** What the latest `train` leaves for its `backward`: `bn.lastBatch`. */
export class Batch {
  /** The input, not a copy: leave it unchanged until `backward`. `null` after an in-place `train`. */
  readonly x: Float32Array | null;
  /** Sizes of the axes of x. */
  readonly shape: readonly number[];
  /** Always null: no value was left out. */
  readonly mask: Uint8Array | null = null;
  /** Whether x was normalized by its own statistics or by the running averages. */
  readonly statistics: StatisticsKind;
  /** How many values each channel has in x. */
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
    this.shape = source.shape ?? rowsShape(layout, source.view);
    this.statistics = source.statistics;
    this.count = countOf(source.view);
    this.mean = mean;
    this.variance = variance;
  }
}
