// `backward` needs the input and the statistics of the `train` before it. This is where a layer keeps them.

import type { Machine } from "../engine/machine.js";
import { describe, OptionError, ShapeError, SingleValueError, StateError } from "../errors.js";
import { float32Of } from "../values/arrays.js";
import { countOf, type Layout, rowsShape, sizeOf } from "../values/layout.js";
import { placeIn, type Seen } from "../values/mask.js";
import type { GradientSums, Moments } from "../values/moments.js";
import type { Bits, Correction, Statistics } from "../values/terms.js";

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
  /** Some of its values. */
  readonly marks: Marks;
  /** The residual; `null` if there was none or it has been overwritten. */
  add: Float32Array | null;
  /** Some of its values; `null` if there was none. */
  readonly addMarks: Marks | null;
  /** The option `shape` of the `train`. */
  readonly shape: readonly number[] | undefined;
  readonly statistics: StatisticsKind | Moments;
}

/** Four values of an input, by which `backward` notices an array that no longer holds what `train` normalized. */
export type Marks = readonly number[];

/**
 * The next of these values lies so much further on among the positions, and among the channels as well: one channel may be
 * the same in all examples. They are not at the beginnings and ends of rows of the usual sizes of images and batches, as
 * borders are often the same.
 */
const STEP = 0.208531;

export function marksOf(x: Float32Array, { full, selection, view }: Seen): Marks {
  const marks: number[] = [];
  for (let share = STEP; share < 1; share += STEP) {
    const position = Math.floor(share * countOf(view));
    const first = placeIn(selection, full, position);
    marks.push(x[first + Math.floor(share * full.channels) * full.inner]!);
  }
  return marks;
}

/** What the latest `train` leaves for its `backward`: `bn.lastBatch`. */
export class Batch {
  /**
   * The input, in `shape`. It is no copy, so leave it unchanged until `backward`. `null` after an in-place
   * `train`, and if the input is a tensor of tfjs.
   */
  readonly x: Float32Array | null;
  /** The residual that was added, in `shape`, not a copy; `null` if there was none, or if `out` has overwritten it. */
  readonly add: Float32Array | null;
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
  /** The factors r of batch renormalization, [channels]: y = γ·(r·x̂ + d) + β; `null` without it. */
  readonly r: Float64Array | null;
  /** Its shifts d, [channels], in standard deviations; `null` without it. */
  readonly d: Float64Array | null;
  readonly #owner: LatestBatch;
  readonly #trained: Trained;

  /** @internal Only a layer makes one. */
  constructor(
    owner: LatestBatch,
    layout: Layout,
    source: BatchSource,
    { mean, meanLow, variance, correction }: Kept,
  ) {
    this.#owner = owner;
    // Copies, since users may do anything with the arrays that they see.
    const used = {
      mean: mean.slice(),
      meanLow: meanLow.slice(),
      variance: variance.slice(),
      correction,
    };
    this.#trained = { source, used };
    this.x = source.x;
    this.add = source.add;
    this.shape = source.shape ?? rowsShape(layout, source.seen.full);
    this.mask = source.mask;
    this.statistics = source.statistics;
    this.count = source.count;
    this.mean = mean.slice();
    this.variance = variance.slice();
    this.r = correction?.r.slice() ?? null;
    this.d = correction?.d.slice() ?? null;
  }

  /** @internal What `batch` holds. Throws StateError if it is no batch of `owner`. */
  static read(batch: unknown, owner: LatestBatch): Trained {
    const isBatch = typeof batch === "object" && batch !== null && #owner in batch;
    if (isBatch && batch.#owner === owner) return batch.#trained;
    const stranger = Object(batch).__v_skip ? "a proxy or copy" : describe(batch);
    const got = isBatch ? "one of another layer" : stranger;
    throw new StateError("batch", "a lastBatch of this layer", got);
  }

  /** @internal Vue's mark of what stays outside of its proxies: see values/raw.ts. */
  get __v_skip(): boolean {
    return true;
  }

  /** @internal Drops the input and the residual; `backward` then has to be given them, as after an in-place `train`. */
  forgetInput(): void {
    for (const holder of [
      this as { -readonly [key in "x" | "add"]: Float32Array | null },
      this.#trained.source,
    ]) {
      holder.x = null;
      holder.add = null;
    }
  }
}

/** The statistics that a `train` normalized with, and what float64 rounds off the mean. */
export interface Kept extends Statistics {
  readonly meanLow: Float64Array;
  /** That of batch renormalization, which nobody writes into; `null` without it. */
  readonly correction: Correction | null;
  /** Which values of y are above 0, if that was kept: by the latest `train` alone, since the next but one writes there. */
  readonly bits?: Bits | null;
}

/** What a `train` normalized, and what with. */
interface Trained {
  readonly source: BatchSource;
  readonly used: Kept;
}

/** What `backward` needs of a `train`. */
interface Differentiated extends Trained {
  readonly x: Float32Array;
  readonly add: Float32Array | null;
}

/**
 * An input of a `train`: `given`, or `kept` if that is undefined. Throws StateError if it is not there, or if its values
 * are not those that had these marks.
 */
function inputOf(
  { memory }: Machine,
  name: "x" | "add",
  given: Float32Array | undefined,
  kept: Float32Array | null,
  seen: Seen,
  marks: Marks,
): Float32Array {
  const value = given === undefined ? kept : given;
  if (value !== null || given === null) {
    const array = float32Of(name, value, sizeOf(seen.full));
    if (marksOf(array, seen).every((value, k) => Object.is(value, marks[k]))) return array;
    memory.addressOf(name, array); // Throws if it is a freed tensor, where others may have written since.
  }
  throw new StateError(
    name,
    name === "x" ? "the input of train" : "what train added",
    `${value === null ? "none" : "other values"}: give backward a copy of it, { ${name} }`,
  );
}

/** Room for the statistics of a `train`. */
type Room = Kept & { correction: Correction | null; bits: Bits | null };

const roomFor = (channels: number): Room => ({
  mean: new Float64Array(channels),
  meanLow: new Float64Array(channels),
  variance: new Float64Array(channels),
  correction: null,
  bits: null,
});

/**
 * The latest batch of a layer. A `train` writes its statistics into `next`, and calls `commit` when nothing can
 * throw any more; so a `train` that throws leaves the latest batch as it was. The two take turns, so a loop of
 * training allocates nothing but its outputs. A `Batch`, which has copies, is made only when someone asks for it.
 */
export class LatestBatch {
  readonly #layout: Layout;
  /** What the latest `train` normalized; `null` before any. */
  #source: BatchSource | null = null;
  /** What it normalized with. */
  #latest: Room;
  /** Where a `train` puts the statistics that it normalizes with. */
  next: Room;
  /** Undefined until someone asks for it: so `null` is no batch either. */
  #batch: Batch | undefined;

  constructor(channels: number, layout: Layout) {
    this.#layout = layout;
    this.#latest = roomFor(channels);
    this.next = roomFor(channels);
  }

  /** Makes `next` the latest. */
  commit(source: BatchSource): void {
    this.#source = source;
    const next = this.next;
    this.next = this.#latest;
    this.#latest = next;
    this.#batch = undefined;
  }

  /** The latest batch as users see it; `null` before any `train`. */
  get batch(): Batch | null {
    const source = this.#source;
    if (source === null) return null;
    this.#batch ??= new Batch(this, this.#layout, source, this.#latest);
    return this.#batch;
  }

  /**
   * What `batch`, or the latest one if it is undefined, holds; bits are those of the latest one alone. Throws StateError if
   * this layer has no such batch.
   */
  #read(batch: Batch | undefined): Trained {
    if (batch !== undefined && batch !== this.#batch) return Batch.read(batch, this);
    const source = this.#source;
    if (source === null) throw new StateError("batch", "a train before backward", "none");
    return { source, used: this.#latest };
  }

  /**
   * Finds the `train` whose output dy belongs to: that of `batch`, or the latest one if it is undefined. Its input is
   * `x`, or the array that it was, if that is undefined; so is what it added. Checks that dy and these fit.
   */
  differentiated(
    machine: Machine,
    dy: Float32Array,
    batch: Batch | undefined,
    x: Float32Array | undefined,
    add: Float32Array | undefined,
  ): Differentiated {
    const { source, used } = this.#read(batch);
    const { seen, marks, addMarks } = source;
    const input = inputOf(machine, "x", x, source.x, seen, marks);
    float32Of("dy", dy, sizeOf(seen.full));
    if (addMarks === null && add !== undefined) {
      throw new OptionError("add", "none, since train was given no add", describe(add));
    }
    const added =
      addMarks === null ? null : inputOf(machine, "add", add, source.add, seen, addMarks);
    return { source, used, x: input, add: added };
  }

  /** Forgets the latest. */
  clear(): void {
    this.#source = null;
    this.#batch = undefined;
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

/** Throws StateError unless `sums` are those that `backward` needs of a `train`; `null` stands for none. */
export function checkSums(sums: GradientSums | null, { statistics, count }: BatchSource): void {
  if (
    sums === null
      ? typeof statistics === "object"
      : statistics !== "running" && sums.count !== count
  ) {
    throw new StateError(
      "sums",
      `backwardSums of all parts, merged, of ${count} values per channel`,
      sums === null ? "none" : `those of ${sums.count}`,
    );
  }
}
