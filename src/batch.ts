// What `backward` needs of a `train`.

import type { View } from "./layout.js";

/** The statistics that a `train` normalized with. */
export type StatisticsKind = "batch" | "running";

/** The inside of a Batch, for this package only. */
export interface BatchInside {
  readonly owner: object;
  readonly view: View;
}

/** The inside of `value`, or undefined if `value` is no Batch. */
export let insideOf: (value: unknown) => BatchInside | undefined;

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
  readonly #inside: BatchInside;

  static {
    insideOf = (value) =>
      typeof value === "object" && value !== null && #inside in value ? value.#inside : undefined;
  }

  /** @internal Made by `train`. */
  constructor(
    inside: BatchInside,
    x: Float32Array | null,
    shape: readonly number[],
    statistics: StatisticsKind,
    mean: Float64Array,
    variance: Float64Array,
  ) {
    this.#inside = inside;
    this.x = x;
    this.shape = shape;
    this.statistics = statistics;
    this.count = inside.view.outer * inside.view.inner;
    this.mean = mean;
    this.variance = variance;
  }
}
