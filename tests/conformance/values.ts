// Data from a seed by integer arithmetic and exact operations alone: Math.sin, log and cos differ
// between engines, and a suite whose inputs differ proves nothing.

import { random } from "../support/data.js";

/**
 * `length` float32 numbers of this mean and standard deviation, bell-shaped within three of them:
 * the sum of three uniform numbers, whose variance is 1/4.
 */
export function bell(length: number, seed: number, mean = 0, sigma = 1): Float32Array {
  const next = random(seed);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    values[i] = mean + sigma * (2 * (next() + next() + next()) - 3);
  }
  return values;
}

/** `length` entries of a mask, of which about `share` are data. */
export function maskOf(length: number, seed: number, share = 0.6): Uint8Array {
  const next = random(seed);
  const mask = new Uint8Array(length);
  for (let i = 0; i < length; i++) mask[i] = next() < share ? 1 : 0;
  return mask;
}
