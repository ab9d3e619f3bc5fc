// Data to normalize. They are random numbers from a seed, so they are the same in every run.

import { indices, type View } from "./oracle.js";

/** Uniform numbers in [0, 1): mulberry32 (Tommy Ettinger, public domain). */
export function random(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A number of mean 0 and variance 1 from two uniform ones (Box & Muller 1958). */
export const gaussian = (next: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());

/** Such numbers from a seed. */
export function normals(seed: number): () => number {
  const next = random(seed);
  return () => gaussian(next);
}

/** `length` float32 numbers, mean + sigma·z with z normal. */
export function normal(length: number, seed: number, mean = 0, sigma = 1): Float32Array {
  const next = normals(seed);
  return Float32Array.from({ length }, () => mean + sigma * next());
}

/** Float32 numbers made of random bits: of every magnitude, and NaN and infinities among them. */
export function anyBits(length: number, seed: number): Float32Array {
  const next = random(seed);
  const bits = Uint32Array.from({ length }, () => Math.floor(next() * 2 ** 32));
  return new Float32Array(bits.buffer);
}

/** The ways in which the values of a channel can be distributed and ordered. */
export const KINDS = ["uniform", "normal", "outliers", "sorted", "alternating", "ramps"] as const;
export type Kind = (typeof KINDS)[number];

/**
 * Data whose channels have means near +mean or -mean, and deviations from it of about sigma:
 *
 *   outliers     one value in 50 lies a thousand times as far from the mean
 *   sorted       values ascend, so the parts of a channel have different means
 *   alternating  +sigma, -sigma and so on: code that looks at every other value only gets the mean wrong
 *   ramps        values rise four times and then fall back: the same for code that looks at every fourth value
 */
export function distributed(
  kind: Kind,
  view: View,
  mean: number,
  sigma: number,
  seed: number,
): Float32Array {
  const x = new Float32Array(view.outer * view.channels * view.inner);
  const next = normals(seed);
  const uniform = random(seed + 1);
  const deviations: Record<Kind, (i: number) => number> = {
    uniform: () => 4 * uniform() - 2,
    normal: next,
    sorted: next,
    outliers: () => (uniform() < 0.02 ? 1000 : 1) * next(),
    alternating: (i) => (i % 2 ? -1 : 1) + 0.01 * next(),
    ramps: (i) => (i % 4) - 1.5 + 0.01 * next(),
  };
  for (let c = 0; c < view.channels; c++) {
    const at = indices(view, c);
    const z = at.map((_, i) => deviations[kind](i));
    if (kind === "sorted") z.sort((a, b) => a - b);
    const center = c % 2 ? -mean : mean;
    for (const [k, i] of at.entries()) x[i] = center + sigma * z[k]!;
  }
  return x;
}

/** A copy of the numbers in memory that threads share. */
export function shared(values: Float64Array): Float64Array {
  const copy = new Float64Array(new SharedArrayBuffer(values.byteLength));
  copy.set(values);
  return copy;
}
