// What `backward` needs of a `train`, and where a layer keeps it.

import { describe, ShapeError, SingleValueError, StateError } from "../errors.js";
import { type Layout, rowsShape } from "../values/layout.js";
import type { Seen } from "../values/mask.js";
import type { Moments } from "../values/moments.js";
import type { Statistics } from "../values/terms.js";

/** The statistics that a `train` normalized with: of the mini-batch, or the running averages. */
export type StatisticsKind = "batch" | "running";

/** Takes the moments of the mini-batches that a `train` meets, and of how many examples each is. */
export type Collector = (moments: Moments, examples: number) => void;

/** What a `train` normalized. */
export interface BatchSource {
  readonly seen: Seen;
  readonly mask: Uint8Array | null;
  /** How many values per channel the statistics are of. */
  readonly count: number;
  /** `null` after an in-place `train`, or where it was lent for that call only. */
  x: Float32Array | null;
  /** As it was given. */
  readonly shape: readonly number[] | null;
  readonly statistics: StatisticsKind | Moments;
}

/** What the latest `train` leaves for its `backward`: `bn.lastBatch`. */
export class Batch {
  /**
   * The input, in `shape`, not a copy: leave it unchanged until `backward`. `null` after an in-place `train`,
   * or where it is a tensor of tfjs.
   */
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
  readonly #owner: object;
  readonly #source: BatchSource;

  /** @internal Made by a layer. */
  constructor(
    owner: object,
    layout: Layout,
    source: BatchSource,
    mean: Float64Array,
    variance: Float64Array,
  ) {
    this.#owner = owner;
    this.#source = source;
    this.x = source.x;
    this.shape = source.shape ?? rowsShape(layout, source.seen.full);
    this.mask = source.mask;
    this.statistics = source.statistics;
    this.count = source.count;
    this.mean = mean;
    this.variance = variance;
  }

  /** @internal What it holds. Throws StateError where `batch` is no batch of `owner`. */
  static read(batch: unknown, owner: object): BatchSource {
    const isBatch = typeof batch === "object" && batch !== null && #owner in batch;
    if (isBatch && batch.#owner === owner) return batch.#source;
    const got = isBatch ? "one of another layer" : describe(batch);
    throw new StateError("batch", "a lastBatch of this layer", got);
  }

  /** @internal Lets go of the input, which `backward` then wants again, as after an in-place `train`. */
  forgetInput(): void {
    (this as { x: Float32Array | null }).x = null;
    this.#source.x = null;
  }
}

/** The statistics that a `train` normalized with, and on what; `source` is `null` before any `train`. */
interface Normalized extends Statistics {
  source: BatchSource | null;
  readonly meanLow: Float64Array;
}

const normalizedOf = (channels: number): Normalized => ({
  source: null,
  mean: new Float64Array(channels),
  meanLow: new Float64Array(channels),
  variance: new Float64Array(channels),
});

/**
 * The latest batch of a layer. A `train` fills the statistics of `next`, which become those of the latest
 * only when it has not thrown: so one that throws changes nothing, and a loop of them allocates nothing but
 * its outputs. A `Batch`, with copies, is made when someone asks for it.
 */
export class LatestBatch {
  readonly #owner: object;
  readonly #layout: Layout;
  #latest: Normalized;
  #next: Normalized;
  #batch: Batch | null = null;

  constructor(owner: object, channels: number, layout: Layout) {
    this.#owner = owner;
    this.#layout = layout;
    this.#latest = normalizedOf(channels);
    this.#next = normalizedOf(channels);
  }

  /** Where a `train` puts the statistics that it normalizes with. */
  get next(): Statistics & { readonly meanLow: Float64Array } {
    return this.#next;
  }

  /** Makes `next` the latest. */
  commit(source: BatchSource): void {
    const next = this.#next;
    next.source = source;
    this.#next = this.#latest;
    this.#latest = next;
    this.#batch = null;
  }

  /** For users; `null` before any `train`. */
  get batch(): Batch | null {
    const { source, mean, variance } = this.#latest;
    if (source !== null) {
      this.#batch ??= new Batch(this.#owner, this.#layout, source, mean.slice(), variance.slice());
    }
    return this.#batch;
  }

  /** What `batch` holds, or, for undefined, the latest. Throws StateError unless there is one of this layer. */
  read(batch: Batch | undefined): Statistics & { readonly source: BatchSource } {
    if (batch !== undefined) {
      const source = Batch.read(batch, this.#owner);
      return { source, mean: batch.mean, variance: batch.variance };
    }
    const { source, mean, variance } = this.#latest;
    if (source === null) throw new StateError("batch", "a train before backward", "none");
    return { source, mean, variance };
  }

  /** Forgets the latest. */
  clear(): void {
    this.#latest.source = null;
    this.#batch = null;
  }
}

/**
 * `count`, if that many values per channel have a variance; `chosen` says that a mask or moments left so few.
 * Throws SingleValueError, or ShapeError for a batch of zero examples.
 */
export function checkCount(count: number, chosen: boolean): number {
  if (count === 0 && !chosen) {
    throw new ShapeError("x", "at least two values per channel", "a batch of zero examples");
  }
  if (count < 2) {
    throw new SingleValueError(
      "x",
      "at least two values per channel",
      `${count === 0 ? "none" : "one"}, whose variance says nothing; use infer, or train with { statistics: "running" }`,
    );
  }
  return count;
}
