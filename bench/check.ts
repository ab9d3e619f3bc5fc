// Holds a library's answer against the float64 oracle of the tests before it is timed.

import { affine, gradient, moments, standardize } from "../tests/support/oracle.js";
import { type Case, type Data, EPSILON, type PeerOp } from "./cases.js";
import type { Answer } from "./peers/peer.js";

export interface Expected {
  /** y, or dx, and what an error of its i-th value in channel c is measured by. */
  readonly name: "y" | "dx";
  readonly values: Float64Array;
  readonly scale: (i: number, c: number) => number;
  readonly sums: { readonly dgamma?: readonly number[]; readonly dbeta?: readonly number[] };
}

/** Largest error allowed, in units of `scale`: ours is what the design promises. */
export const TOLERANCE = { ours: { y: 5e-7, dx: 1e-6 }, peer: { y: 1e-4, dx: 1e-4 } };

export function expect(c: Case, op: PeerOp, data: Data): Expected {
  const { x, dy, gamma, beta } = data;
  const { mean, variance } = op === "infer" ? data : momentsOf(x, c);
  if (op === "infer" || op === "train") {
    const values = affine(standardize(x, c, mean, variance, EPSILON), c, gamma, beta);
    const scale = (i: number, k: number) =>
      Math.max(1, Math.abs(values[i] - beta[k]), Math.abs(beta[k]));
    return { name: "y", values, scale, sums: {} };
  }
  const { dx, ...sums } = gradient(dy, x, c, mean, variance, gamma, EPSILON);
  const largest = new Float64Array(c.channels);
  each(c, (i, k) => {
    largest[k] = Math.max(largest[k], Math.abs(dy[i]));
  });
  const scale = (_: number, k: number) =>
    (Math.abs(gamma[k]) * largest[k]) / Math.sqrt(variance[k] + EPSILON);
  return { name: "dx", values: dx, scale, sums };
}

/** The oracle is slow on purpose, and train, backward and step ask for the same statistics. */
const known = new WeakMap<Float32Array, ReturnType<typeof moments>>();
function momentsOf(x: Float32Array, c: Case): ReturnType<typeof moments> {
  const found = known.get(x) ?? moments(x, c);
  known.set(x, found);
  return found;
}

/** Throws, naming the library, unless its answer is the expected one. Returns the largest error. */
export function check(
  library: string,
  c: Case,
  expected: Expected,
  answer: Answer,
  tolerance: { y: number; dx: number },
): number {
  const hold = (what: string, error: number, limit: number): void => {
    if (error <= limit) return;
    throw new Error(
      `${library} gives a wrong ${what} for ${c.name} ${c.layout}: off by ` +
        `${error.toExponential(2)}, at most ${limit.toExponential(1)} expected`,
    );
  };
  const limit = tolerance[expected.name];
  const error = largestError(c, answer[expected.name], expected);
  hold(expected.name, error, limit);

  // A sum of m terms of either sign and of size 1 is of size √m: its error counts from there.
  const size = Math.sqrt(c.outer * c.inner);
  for (const name of ["dgamma", "dbeta"] as const) {
    expected.sums[name]?.forEach((value, k) => {
      const got = answer[name]?.[k] ?? Number.NaN;
      hold(`${name}[${k}]`, Math.abs(got - value) / Math.max(size, Math.abs(value)), 10 * limit);
    });
  }
  return error;
}

function largestError(c: Case, got: Float32Array | undefined, { values, scale }: Expected): number {
  if (got?.length !== values.length) return Number.NaN;
  let largest = 0;
  each(c, (i, k) => {
    const error = Math.abs(got[i] - values[i]) / scale(i, k);
    if (!(error <= largest)) largest = error;
  });
  return largest;
}

/** Every position with its channel, in the order of memory. */
function each(c: Case, visit: (i: number, channel: number) => void): void {
  let i = 0;
  for (let o = 0; o < c.outer; o++) {
    for (let k = 0; k < c.channels; k++) {
      for (const end = i + c.inner; i < end; i++) visit(i, k);
    }
  }
}
