// Statistics as values: those of a batch, or of the data of a worker or a machine, and how they are pooled (Chan,
// Golub & LeVeque 1983, "Algorithms for computing the sample variance").

import { describe, ShapeError, SingleValueError, StateError } from "../errors.js";
import { copyOf, isFloat64Array, sizeIn } from "./arrays.js";
import { choice, isWhole } from "./check.js";
import { fromNumbers, type JsonNumber, parse, toNumbers, type Widened } from "./json.js";
import { Raw } from "./raw.js";
import { isVariance, present, whole } from "./terms.js";
import { addTo } from "./two-sum.js";

/** Which variance of a mini-batch enters the running average: divided by m - 1 or by m. */
export type VarianceKind = "sample" | "population";

export const VARIANCES: readonly VarianceKind[] = ["sample", "population"];

/** What a `Moments` holds. A structured clone of one, such as `postMessage` delivers, has it too. */
export interface MomentsLike {
  /** How many values of each channel. */
  readonly count: number;
  /** Mean of each channel, [channels]. */
  readonly mean: Float64Array;
  /** Σ(x - mean)² of each channel, [channels]. */
  readonly m2: Float64Array;
  /** What float64 rounds off the mean, [channels]. Default: zeros. */
  readonly meanLow?: Float64Array;
}

/** What `Moments.toJSON` gives; numbers are exact. */
export interface MomentsJSON {
  /** Says what this is. */
  readonly format: "batchnorm-wasm/moments";
  /** Of the format. */
  readonly version: 1;
  /** How many values of each channel. */
  readonly count: number;
  /** [channels] float64 values. */
  readonly mean: readonly JsonNumber[];
  /** [channels] float64 values: what float64 rounds off the mean. */
  readonly meanLow: readonly JsonNumber[];
  /** [channels] float64 values: Σ(x - mean)². */
  readonly m2: readonly JsonNumber[];
}

/**
 * Count, mean and sum of squared deviations of each channel, in float64. `bn.moments` makes them; `merge` pools
 * them in any grouping and order. Nothing in this package writes them after they are made.
 *
 * @example
 * const whole = bn.moments(a).merge(bn.moments(b)); // of a and b together
 * bn.setRunning(whole);
 */
export class Moments extends Raw implements MomentsLike {
  /** How many values of each channel went in. With 0, `merge` returns the other moments. */
  readonly count: number;
  /** Mean of each channel, [channels], in the unit of the values. */
  readonly mean: Float64Array;
  /** Σ(x - mean)² of each channel, [channels], in the unit of the values squared. */
  readonly m2: Float64Array;
  /**
   * What float64 rounds off the mean, [channels]. mean + meanLow has twice the digits, so pooling stays exact
   * relative to σ even if the mean is a million σ.
   */
  readonly meanLow: Float64Array;

  /** @internal Use `bn.moments`, `merge` or `Moments.fromJSON`. */
  constructor(count: number, mean: Float64Array, m2: Float64Array, meanLow: Float64Array) {
    super();
    if (!meanLow) throw noNumbers("Moments");
    this.count = count;
    this.mean = mean;
    this.m2 = m2;
    this.meanLow = meanLow;
  }

  /**
   * The moments of both together (Chan et al. 1983, eq. 2.1), independent of grouping and order to
   * 1e-12 relative for up to 2,000 parts; in practice for any number.
   *
   * @param other moments of as many channels, or their structured clone.
   * @throws ShapeError if `other` is not moments of as many channels; StateError if no values can have moments with
   * its numbers, if both together overflow or are of more than 2^53 - 1 values, or if an array of these moments was
   * transferred to another thread.
   */
  merge(other: MomentsLike): Moments {
    const own = whole(this, MOMENTS);
    return asMoments("both", pool(own, asMoments("other", other, own.mean.length)));
  }

  /**
   * Merges all parts one after the other, so the same parts in the same order give the same bits everywhere.
   *
   * @param parts moments of as many channels each, or their structured clones; at least one.
   * @throws as `merge`.
   */
  static pool(parts: Iterable<MomentsLike>): Moments {
    return reduce(parts, asMoments, (all) => all.mean.length);
  }

  /**
   * The variance of each channel, [channels]: m2 divided by count - 1 or by count.
   *
   * @throws SingleValueError where too few values went in: `"sample"` needs two, `"population"` one;
   * OptionError for any other kind; StateError if m2 was transferred to another thread.
   */
  variance(kind: VarianceKind): Float64Array {
    const least = choice("kind", kind, undefined, VARIANCES) === "sample" ? 2 : 1;
    if (this.count < least) {
      throw new SingleValueError(
        "moments",
        `at least ${least} values per channel for a ${kind} variance`,
        this.count,
      );
    }
    return copyOf(present("m2", this.m2)).map((m2) => m2 / (this.count - least + 1));
  }

  /** The moments in one line, which Node's `console.log` shows too. */
  override toString(): string {
    return `Moments(${this.mean.length}), values per channel: ${this.count}`;
  }

  /**
   * What `JSON.stringify` writes and `fromJSON` reads, exactly.
   * @throws StateError if an array was transferred to another thread.
   */
  toJSON(): MomentsJSON {
    return write("batchnorm-wasm/moments", whole(this, MOMENTS), MOMENTS);
  }

  /**
   * The moments that `toJSON` wrote.
   *
   * @param json the object, or its JSON text.
   * @throws StateError where it is not what `toJSON` writes.
   */
  static fromJSON(json: Widened<MomentsJSON> | string): Moments {
    return asMoments("json", read(json, "batchnorm-wasm/moments", MOMENTS));
  }
}

/** What a `GradientSums` holds. A structured clone of one has it too. */
export interface GradientSumsLike {
  /** How many values of each channel. */
  readonly count: number;
  /** Σdy of each channel, [channels]. */
  readonly sumDy: Float64Array;
  /** Σdy·(x - μ) of each channel, [channels]. */
  readonly sumDyXmu: Float64Array;
}

/** What `GradientSums.toJSON` gives; numbers are exact. */
export interface GradientSumsJSON {
  /** Says what this is. */
  readonly format: "batchnorm-wasm/gradient-sums";
  /** Of the format. */
  readonly version: 1;
  /** How many values of each channel. */
  readonly count: number;
  /** [channels] float64 values. */
  readonly sumDy: readonly JsonNumber[];
  /** [channels] float64 values. */
  readonly sumDyXmu: readonly JsonNumber[];
}

/**
 * The sums over a part of a batch that the gradient of the whole batch needs (Ioffe & Szegedy 2015, section 3).
 * `bn.backwardSums` makes them, `merge` pools them, and `bn.backward(dy, { sums })` takes them.
 */
export class GradientSums implements GradientSumsLike {
  /** How many values of each channel. */
  readonly count: number;
  /** Σdy of each channel, [channels]. */
  readonly sumDy: Float64Array;
  /** Σdy·(x - μ) of each channel, [channels], with the μ that `train` normalized with. */
  readonly sumDyXmu: Float64Array;

  /** @internal Use `bn.backwardSums`, `merge` or `GradientSums.fromJSON`. */
  constructor(count: number, sumDy: Float64Array, sumDyXmu: Float64Array) {
    if (!sumDyXmu) throw noNumbers("GradientSums");
    this.count = count;
    this.sumDy = sumDy;
    this.sumDyXmu = sumDyXmu;
  }

  /**
   * The sums over both parts.
   *
   * @param other sums of as many channels, or their structured clone.
   * @throws ShapeError if `other` is not sums of as many channels; StateError for an invalid count, also of both
   * together, or if an array of these sums was transferred to another thread.
   */
  merge(other: GradientSumsLike): GradientSums {
    const own = whole(this, SUMS);
    const { count, sumDy, sumDyXmu } = asSums("other", other, own.sumDy.length);
    return asSums("both", {
      count: own.count + count,
      sumDy: own.sumDy.map((sum, c) => sum + sumDy[c]!),
      sumDyXmu: own.sumDyXmu.map((sum, c) => sum + sumDyXmu[c]!),
    });
  }

  /**
   * All parts merged one after the other, as `Moments.pool`.
   *
   * @param parts sums of as many channels each, or their structured clones; at least one.
   * @throws as `merge`.
   */
  static pool(parts: Iterable<GradientSumsLike>): GradientSums {
    return reduce(parts, asSums, (all) => all.sumDy.length);
  }

  /**
   * What `JSON.stringify` writes and `fromJSON` reads, exactly.
   * @throws StateError if an array was transferred to another thread.
   */
  toJSON(): GradientSumsJSON {
    return write("batchnorm-wasm/gradient-sums", whole(this, SUMS), SUMS);
  }

  /**
   * The sums that `toJSON` wrote.
   *
   * @param json the object, or its JSON text.
   * @throws StateError where it is not what `toJSON` writes.
   */
  static fromJSON(json: Widened<GradientSumsJSON> | string): GradientSums {
    return asSums("json", read(json, "batchnorm-wasm/gradient-sums", SUMS));
  }
}

function reduce<V, T extends { merge(other: V): T }>(
  parts: Iterable<V>,
  check: (name: string, value: V, channels?: number) => T & V,
  channelsOf: (all: T) => number,
): T {
  if (typeof Object(parts)[Symbol.iterator] !== "function") {
    throw new ShapeError("parts", "an iterable", describe(parts));
  }
  let all: T | undefined;
  let i = 0;
  for (const part of parts) {
    const checked = check(`parts[${i++}]`, part, all && channelsOf(all));
    all = all === undefined ? checked : all.merge(checked);
  }
  if (all === undefined) throw new ShapeError("parts", "at least one", "none");
  return all;
}

/** The arrays of `Moments` and of `GradientSums`. The length of the first one is the number of channels. */
const MOMENTS = ["mean", "m2", "meanLow"] as const;
const SUMS = ["sumDy", "sumDyXmu"] as const;

/** An object for JSON with the count of `value` and its arrays named in `keys`. */
function write<F extends string, K extends string>(
  format: F,
  value: { readonly count: number } & Readonly<Record<K, Float64Array>>,
  keys: readonly K[],
) {
  const arrays = keys.map((key) => [key, toNumbers(value[key])]);
  const written: Record<K, JsonNumber[]> = Object.fromEntries(arrays);
  return { format, version: 1 as const, count: value.count, ...written };
}

/** Reads what `write` wrote. The count is not checked here. */
function read<K extends string>(json: unknown, format: string, keys: readonly K[]) {
  type Written = { format: string; version: number; count: number } & Record<K, unknown>;
  const s = parse<Written>("json", json, format);
  const first = s[keys[0]!];
  const length = Array.isArray(first) ? first.length : 0;
  const arrays = keys.map((key) => [key, Float64Array.from(fromNumbers(key, s[key], length))]);
  return { ...(Object.fromEntries(arrays) as Record<K, Float64Array>), count: s.count };
}

const noNumbers = (name: string): ShapeError => new ShapeError(`new ${name}`, "numbers", "none");
// Not inside the classes: bundlers rename a class whose body names it (see layer/batch-norm.ts).
const newMoments = (...of: ConstructorParameters<typeof Moments>): Moments => new Moments(...of);
const newSums = (...of: ConstructorParameters<typeof GradientSums>): GradientSums =>
  new GradientSums(...of);

/**
 * The count of `value`, and copies of the float64 arrays that it has under these names, of `channels` values if that is
 * given. The arrays may lie in memory that other threads write, so they are copied before anybody looks at the numbers.
 */
function checked<K extends string>(
  name: string,
  value: unknown,
  keys: readonly K[],
  channels?: number,
) {
  const held = Object(value) as Record<K | "count", unknown>;
  const copies = {} as { count: number } & Record<K, Float64Array>;
  let length = channels;
  for (const key of keys) {
    let array = held[key];
    if (array === undefined && key === "meanLow") array = new Float64Array(length!);
    const size = isFloat64Array(array) ? sizeIn(array) : -1;
    length ??= Math.max(size, 0);
    if (size !== length) {
      const got = held === value ? `${key} ${describe(array)}` : describe(value);
      throw new ShapeError(name, `${keys.join(", ")} of ${length} channels`, got);
    }
    copies[key] = copyOf(array as Float64Array) as (typeof copies)[K];
  }
  const { count } = held;
  if (!isWhole(count)) {
    throw new StateError(`${name}.count`, "a whole number from 0 to 2^53 - 1", describe(count));
  }
  copies.count = count;
  return copies;
}

/**
 * Checks `value`, which is to be a `Moments` or its structured clone, of `channels` channels if that is given, and
 * returns a copy. Each of its properties is read once.
 */
export function asMoments(name: string, value: unknown, channels?: number): Moments {
  const { count, mean, m2, meanLow } = checked(name, value, MOMENTS, channels);
  for (let c = 0; c < mean.length; c++) {
    if (!Number.isFinite(mean[c]! + meanLow[c]!) || !isVariance(m2[c]!)) {
      const got = `${mean[c]} and ${m2[c]} in channel ${c}`;
      throw new StateError(name, "finite means and m2 >= 0", got);
    }
  }
  return newMoments(count, mean, m2, meanLow);
}

/** Does what `asMoments` does, for a `GradientSums` or its structured clone. */
export function asSums(name: string, value: unknown, channels?: number): GradientSums {
  const { count, sumDy, sumDyXmu } = checked(name, value, SUMS, channels);
  return newSums(count, sumDy, sumDyXmu);
}

/** `merge` of moments that have been checked. Counts may be fractions, so that a part can weigh less. */
export function pool(a: Moments, b: Moments): Moments {
  if (a.count === 0) return b;
  if (b.count === 0) return a;
  const count = a.count + b.count;
  const share = b.count / count;
  const mean = new Float64Array(a.mean.length);
  const meanLow = new Float64Array(mean.length);
  const m2 = new Float64Array(mean.length);
  for (let c = 0; c < mean.length; c++) {
    const apart = b.mean[c]! - a.mean[c]! + (b.meanLow[c]! - a.meanLow[c]!);
    addTo(mean, meanLow, c, a.mean[c]!, apart * share, a.meanLow[c]!);
    m2[c] = a.m2[c]! + b.m2[c]! + apart * apart * (a.count * share);
  }
  return newMoments(count, mean, m2, meanLow);
}
