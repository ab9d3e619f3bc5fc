// `backward` needs the input and the statistics of the `train` before it. This is where a layer keeps them.

import { describe, ShapeError, SingleValueError, StateError } from "../errors.js";
import { type Layout, rowsShape } from "../values/layout.js";
import type { Seen } from "../values/mask.js";
import type { Moments } from "../values/moments.js";
import type { Statistics } from "../values/terms.js";

/** What a `train` normalized with: the statistics of its mini-batch, or the running averages. */
export type StatisticsKind = "batch" | "running";

/** Is called by `train` with the moments of the mini-batch, and with the number of its examples. */
export type Collector = (moments: Moments, examples: number) => void;

/** What a `train` normalized. */
export interface BatchSource {
  readonly seen: Seen;
  readonly mask: Uint8Array | null;
  /** How many values of each channel the statistics were taken from. */
  readonly count: number;
  /** The input; `null` after an in-place `train`, or if tfjs lent it for the call only. */
  x: Float32Array | null;
  /** The option `shape` of the `train`; `null` if it was left out. */
  readonly shape: readonly number[] | null;
  readonly statistics: StatisticsKind | Moments;
}

/** What the latest `train` leaves for its `backward`: `bn.lastBatch`. */
export class Batch {
  /**
   * The input, in `shape`. It is no copy, so leave it unchanged until `backward`. `null` after an in-place
   * `train`, and if the input is a tensor of tfjs.
   */
  readonly x: Float32Array | null;
  /** Sizes of the axes of x. */
  readonly shape: readonly number[];
  /** The mask that was given, not a copy; `null` without one. */
  readonly mask: Uint8Array | null;
  /** What x was normalized by: its own statistics, the running averages, or the pooled moments given. */
  readonly statistics: StatisticsKind | Moments;
  /** How many values of each channel the statistics are of: those of x, or of the moments given. */
  readonly count: number;
  /** The means that x was normalized with, [channels]. */
  readonly mean: Float64Array;
  /** The population variances that x was normalized with, [channels]. */
  readonly variance: Float64Array;
  readonly #owner: object;
  readonly #source: BatchSource;

  /** @internal Only a layer makes one. */
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

  /** @internal What `batch` holds. Throws StateError if it is no batch of `owner`. */
  static read(batch: unknown, owner: object): BatchSource {
    const isBatch = typeof batch === "object" && batch !== null && #owner in batch;
    if (isBatch && batch.#owner === owner) return batch.#source;
    const stranger = Object(batch).__v_skip ? "a proxy or copy" : describe(batch);
    const got = isBatch ? "one of another layer" : stranger;
    throw new StateError("batch", "a lastBatch of this layer", got);
  }

  /** @internal Vue's mark of what stays outside of its proxies: see values/raw.ts. */
  get __v_skip(): boolean {
    return true;
  }

  /** @internal Drops the input; `backward` then has to be given it, as after an in-place `train`. */
  forgetInput(): void {
    (this as { x: Float32Array | null }).x = null;
    this.#source.x = null;
  }
}

/** What a `train` normalized, and with which statistics; `source` is `null` before any `train`. */
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
 * The latest batch of a layer. A `train` writes its statistics into `next`, and calls `commit` when nothing can
 * throw any more; so a `train` that throws leaves the latest batch as it was. The two take turns, so a loop of
 * training allocates nothing but its outputs. A `Batch`, which has copies, is made only when someone asks for it.
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

  /** The latest batch as users see it; `null` before any `train`. */
  get batch(): Batch | null {
    const { source, mean, variance } = this.#latest;
    if (source !== null) {
      this.#batch ??= new Batch(this.#owner, this.#layout, source, mean.slice(), variance.slice());
    }
    return this.#batch;
  }

  /** What `batch`, or the latest one if it is undefined, holds. Throws StateError if this layer has no such batch. */
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
 * Returns `count` if that many values per channel are enough for a variance, and throws SingleValueError if not,
 * or ShapeError for a batch of zero examples. `chosen` says that `count` comes from a mask or from given moments.
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
