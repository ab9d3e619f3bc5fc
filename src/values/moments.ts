// Statistics as values: those of a batch, or of the data of a worker or a machine, and how they are pooled (Chan,
// Golub & LeVeque 1983, "Algorithms for computing the sample variance").

import { SingleValueError, StateError } from "../errors.js";
import { lengthOf } from "./arrays.js";
import { choice } from "./check.js";
import type { JsonNumber, Widened } from "./json.js";
import { checked, noNumbers, read, reduce, write, zeros } from "./pooled.js";
import { Raw } from "./raw.js";
import { isVariance, whole } from "./terms.js";
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
 * them in any grouping and order. Nothing in this package writes them after they are made. The arrays share a buffer where
 * there are more than eight channels, so whoever transfers them to another thread transfers all of them with one.
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
    return both(own, asMoments("other", other, own.mean.length));
  }

  /**
   * Merges all parts one after the other, so the same parts in the same order give the same bits everywhere.
   *
   * @param parts moments of as many channels each, or their structured clones; at least one.
   * @throws as `merge`.
   */
  static pool(parts: Iterable<MomentsLike>): Moments {
    return reduce(parts, asMoments, both, "mean");
  }

  /**
   * The variance of each channel, [channels]: m2 divided by count - 1 or by count.
   *
   * @throws SingleValueError where too few values went in: `"sample"` needs two, `"population"` one;
   * OptionError for any other kind; StateError if m2 was transferred to another thread.
   */
  variance(kind: VarianceKind): Float64Array {
    return varianceOf(whole(this, ["m2"]), choice("kind", kind, undefined, VARIANCES));
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
    return add(own, asSums("other", other, own.sumDy.length));
  }

  /**
   * All parts merged one after the other, as `Moments.pool`.
   *
   * @param parts sums of as many channels each, or their structured clones; at least one.
   * @throws as `merge`.
   */
  static pool(parts: Iterable<GradientSumsLike>): GradientSums {
    return reduce(parts, asSums, add, "sumDy");
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

/** The arrays of `Moments` and of `GradientSums`. The length of the first one is the number of channels. */
const MOMENTS = ["mean", "m2", "meanLow"] as const;
const SUMS = ["sumDy", "sumDyXmu"] as const;

// Not inside the classes: bundlers rename a class whose body names it (see layer/batch-norm.ts).
const newMoments = (...of: ConstructorParameters<typeof Moments>): Moments => new Moments(...of);
const newSums = (...of: ConstructorParameters<typeof GradientSums>): GradientSums =>
  new GradientSums(...of);

/** Moments of nothing, or arrays for those of something. */
export function zeroMoments(channels: number): Moments {
  const [mean, m2, meanLow] = zeros(3, channels) as [Float64Array, Float64Array, Float64Array];
  return newMoments(0, mean, m2, meanLow);
}

/**
 * Checks `value`, which is to be a `Moments` or its structured clone, of `channels` channels if that is given, and
 * returns a copy. Each of its properties is read once.
 */
export function asMoments(name: string, value: unknown, channels?: number): Moments {
  const { count, mean, m2, meanLow } = momentsIn(name, value, channels, false);
  return newMoments(count, mean, m2, meanLow);
}

/**
 * The same without the class, for a caller that uses the numbers at once: the arrays of what this package made are not
 * copied. New arrays take longer than all else that is done with the statistics of a few channels.
 */
export function momentsIn(
  name: string,
  value: unknown,
  channels?: number,
  trusted = value instanceof Raw,
): Required<MomentsLike> {
  const numbers = checked(name, value, MOMENTS, channels, trusted);
  const [mean, m2, meanLow, count] = numbers as [Float64Array, Float64Array, Float64Array, number];
  const moments = { count, mean, m2, meanLow };
  checkNumbers(name, moments);
  return moments;
}

/** Throws StateError for means by which nothing can be normalized, since float32 does not hold them; else returns the moments. */
export function checkMeans<T extends { readonly mean: Float64Array }>(name: string, moments: T): T {
  const { mean } = moments;
  for (let c = 0, n = lengthOf(mean); c < n; c++) {
    if (!Number.isFinite(Math.fround(mean[c]!))) {
      throw new StateError(name, "means of float32 values", mean[c]!);
    }
  }
  return moments;
}

/** Throws StateError if no values can have these moments. */
function checkNumbers(name: string, { mean, m2, meanLow }: Required<MomentsLike>): void {
  for (let c = 0, n = lengthOf(mean); c < n; c++) {
    if (!Number.isFinite(mean[c]! + meanLow[c]!) || !isVariance(m2[c]!)) {
      const got = `${mean[c]} and ${m2[c]} in channel ${c}`;
      throw new StateError(name, "finite means and m2 >= 0", got);
    }
  }
}

/**
 * m2 divided by count - 1 or by count, in a new array or in the one given. Throws SingleValueError where the count is too
 * small for that, with nothing written.
 */
export function varianceOf(
  { count, m2 }: Pick<MomentsLike, "count" | "m2">,
  kind: VarianceKind,
  into: Float64Array = new Float64Array(lengthOf(m2)),
): Float64Array {
  const least = kind === "sample" ? 2 : 1;
  if (count < least) {
    const expected = `at least ${least} values per channel for a ${kind} variance`;
    throw new SingleValueError("moments", expected, count);
  }
  for (let c = 0, n = lengthOf(m2); c < n; c++) into[c] = m2[c]! / (count - least + 1);
  return into;
}

/** Does what `asMoments` does, for a `GradientSums` or its structured clone. */
export function asSums(name: string, value: unknown, channels?: number): GradientSums {
  const numbers = checked(name, value, SUMS, channels);
  const [sumDy, sumDyXmu, count] = numbers as [Float64Array, Float64Array, number];
  return newSums(count, sumDy, sumDyXmu);
}

/** `merge` of sums that have been checked. Checks the count of both together. */
const add = (a: GradientSums, b: GradientSums): GradientSums =>
  asSums("both", {
    count: a.count + b.count,
    sumDy: a.sumDy.map((sum, c) => sum + b.sumDy[c]!),
    sumDyXmu: a.sumDyXmu.map((sum, c) => sum + b.sumDyXmu[c]!),
  });

/** `merge` of moments that have been checked. Checks that they have not overflowed. */
function both(a: Moments, b: Moments): Moments {
  const pooled = pool(a, b);
  // The answer has arrays of its own.
  if (pooled === a) return asMoments("both", a);
  momentsIn("both", pooled);
  return pooled;
}

/**
 * The moments of both together, which nobody checks. They take over the arrays of b, since new ones take longer than the
 * arithmetic on a few channels. Counts may be fractions, so that a part can weigh less.
 */
export function pool(a: Moments, b: Moments): Moments {
  if (a.count === 0) return b;
  if (b.count === 0) return a;
  const count = a.count + b.count;
  const share = b.count / count;
  const { mean, meanLow, m2 } = b;
  for (let c = 0; c < mean.length; c++) {
    const apart = mean[c]! - a.mean[c]! + (meanLow[c]! - a.meanLow[c]!);
    addTo(mean, meanLow, c, a.mean[c]!, apart * share, a.meanLow[c]!);
    m2[c] = a.m2[c]! + m2[c]! + apart * apart * (a.count * share);
  }
  return newMoments(count, mean, m2, meanLow);
}
