// Given parts of a batch and random ways of pooling them: for moments.test.ts.

import type { Moments } from "batchnorm-wasm";
import { normal, random } from "./data.js";

export const CHANNELS = 3;
/** In how many random orders and groupings the parts of each case are pooled. */
export const GROUPINGS = 1000;

/** A batch in parts. */
export interface Parts {
  /** How many rows each part has. */
  sizes: readonly number[];
  mean: number;
  sigma: number;
  /** How far the means of the parts are from `mean`. */
  apart: number;
}

const uneven = (length: number, most: number, seed: number): number[] => {
  const next = random(seed);
  return Array.from({ length }, () => Math.floor(next() * (most + 1)));
};

export const CASES: Readonly<Record<string, Parts>> = {
  "parts alike": { sizes: uneven(24, 60, 1), mean: 0, sigma: 1, apart: 0 },
  "mean 1e6 σ": { sizes: uneven(24, 60, 2), mean: 1e6, sigma: 1, apart: 1 },
  "mean -1e6 σ, σ 1e15": { sizes: uneven(24, 60, 3), mean: -1e21, sigma: 1e15, apart: 1e15 },
  "mean 1e6 σ, σ 1e-15": { sizes: uneven(24, 60, 4), mean: 1e-9, sigma: 1e-15, apart: 1e-15 },
  "sizes far apart": {
    sizes: [1, 30_000, 2, 1, 0, 5000, 3, 1, 1, 700],
    mean: 1e6,
    sigma: 1,
    apart: 3,
  },
  "means far apart": { sizes: uneven(20, 60, 5), mean: 0, sigma: 1, apart: 1e6 },
  "means and sizes far apart": { sizes: [1, 1, 9000, 1, 40, 2], mean: 1e3, sigma: 1, apart: 1e5 },
  "single values": { sizes: uneven(100, 1, 6), mean: 1e6, sigma: 1, apart: 0 },
  "many empty": { sizes: [0, 0, 9, 0, 0, 0, 4, 0, 0], mean: 1e6, sigma: 1, apart: 2 },
};

/** The values of each part: rows of CHANNELS values. */
export const dataOf = ({ sizes, mean, sigma, apart }: Parts): Float32Array[] =>
  sizes.map((size, i) => {
    const shift = apart * normal(1, i + 50)[0]!;
    return normal(CHANNELS * size, i + 1, mean + shift, sigma);
  });

/** Pools all parts: either one after the other, or by merging two at random until one is left. */
export function pooled(parts: readonly Moments[], seed: number): Moments {
  const next = random(seed);
  const left = [...parts];
  const take = (): Moments => left.splice(Math.floor(next() * left.length), 1)[0]!;
  if (seed % 4 === 0) {
    let chain = take();
    while (left.length > 0) chain = next() < 0.5 ? chain.merge(take()) : take().merge(chain);
    return chain;
  }
  while (left.length > 1) left.push(take().merge(take()));
  return left[0]!;
}
