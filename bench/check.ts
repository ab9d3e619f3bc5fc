// Compares a library's answer with the float64 oracle of the tests before the library is timed. Our answers
// have the limits of the tests. Other libraries compute in float32 throughout and have wider limits.

import { unitsOfGradients, unitsOfY } from "../tests/support/compare.js";
import { DGAMMA_ERROR, DX_ERROR, SUM_ERROR, Y_ERROR } from "../tests/support/limits.js";
import { affine, gradient, moments, standardize } from "../tests/support/oracle.js";
import { type Case, type Data, EPSILON, type PeerOp } from "./cases.js";
import type { Answer, Peer } from "./peers/peer.js";

type Name = keyof Answer;

/** What one array of an answer should be, and the unit in which the error of its i-th value is counted. */
interface Wanted {
  readonly values: ArrayLike<number>;
  readonly unit: (i: number) => number;
}

/** The arrays to compare. The first is y or dx. */
export type Expected = readonly (readonly [Name, Wanted])[];

type Limits = Readonly<Record<Name, number>>;

/** The largest errors allowed, in those units. */
const OUR_LIMITS: Limits = {
  y: Y_ERROR,
  dx: DX_ERROR,
  dgamma: DGAMMA_ERROR,
  dbeta: SUM_ERROR,
  dadd: 0,
};
/** Room for sums that are added up in float32, and still far less than a forgotten term would make. */
const THEIR_LIMITS: Limits = { y: 1e-4, dx: 1e-4, dgamma: 1e-4, dbeta: 1e-4, dadd: 0 };

export const limitsOf = (kind: Peer["kind"]): Limits =>
  kind === "ours" ? OUR_LIMITS : THEIR_LIMITS;

export function expect(c: Case, op: PeerOp, data: Data): Expected {
  const { x, gamma, beta, z } = data;
  const { mean, variance } = op === "infer" ? data : momentsOf(x, c);
  const terms = { mean, variance, gamma, beta, epsilon: EPSILON };
  if (op === "infer" || op === "train") {
    const values = after(c, affine(standardize(x, c, mean, variance, EPSILON), c, gamma, beta), z);
    const units = unitsOfY(x, c, terms);
    return [["y", { values, unit: (i) => units[i] + Math.abs(z?.[i] ?? 0) }]];
  }
  const dy = gated(c, data);
  const { dx, dgamma, dbeta } = gradient(dy, x, c, mean, variance, gamma, EPSILON);
  const units = unitsOfGradients(dy, x, c, terms);
  const unitOfDx = (i: number) => units.dx[Math.floor(i / c.inner) % c.channels];
  return [
    ["dx", { values: dx, unit: unitOfDx }],
    ["dgamma", { values: dgamma, unit: (k) => units.dgamma[k] }],
    ["dbeta", { values: dbeta, unit: (k) => units.dbeta[k] }],
    ...(z ? [["dadd", { values: dy, unit: () => 1 }] as const] : []),
  ];
}

/** What a block makes of the values of batch norm. */
function after(c: Case, values: Float64Array, z: Float32Array | undefined): Float64Array {
  if (!c.after) return values;
  return values.map((value, i) => Math.max(0, value + (z?.[i] ?? 0)));
}

/** dy where the value before the ReLU is above 0, and 0 elsewhere. */
function gated(c: Case, { x, dy, z, gamma, beta }: Data): Float32Array {
  if (!c.after) return dy;
  const { mean, variance } = momentsOf(x, c);
  const y = after(c, affine(standardize(x, c, mean, variance, EPSILON), c, gamma, beta), z);
  return dy.map((value, i) => (y[i] > 0 ? value : 0));
}

/**
 * Sets dy to 0 where the value before the ReLU is so near 0 that libraries, which round differently, may disagree
 * about its sign: a gradient that one of them lets through and the other does not is no error.
 */
export function withoutTies(c: Case, data: Data): Data {
  if (!c.after) return data;
  const { x, dy, z, gamma, beta } = data;
  const { mean, variance } = momentsOf(x, c);
  const y = affine(standardize(x, c, mean, variance, EPSILON), c, gamma, beta);
  return { ...data, dy: dy.map((v, i) => (Math.abs(y[i] + (z?.[i] ?? 0)) < 1e-4 ? 0 : v)) };
}

/** The statistics of an x, kept because the oracle is slow and several operations need the same ones. */
const known = new WeakMap<Float32Array, ReturnType<typeof moments>>();
function momentsOf(x: Float32Array, c: Case): ReturnType<typeof moments> {
  const found = known.get(x) ?? moments(x, c);
  known.set(x, found);
  return found;
}

/** Throws an error that names the library if its answer is wrong. Returns the largest error of y or dx. */
export function check(
  library: string,
  c: Case,
  expected: Expected,
  answer: Answer,
  limits: Limits,
): number {
  const errors = expected.map(([name, wanted]) => {
    const error = largestError(answer[name], wanted);
    if (error <= limits[name]) return error;
    throw new Error(
      `${library} gives a wrong ${name} for ${c.name} ${c.layout}: off by ` +
        `${error.toExponential(2)}, at most ${limits[name].toExponential(1)} expected`,
    );
  });
  return errors[0];
}

/** The largest error, in units. NaN if the array is missing, has another length or holds NaN. */
function largestError(got: Float32Array | undefined, { values, unit }: Wanted): number {
  if (got?.length !== values.length) return Number.NaN;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const error = Math.abs(got[i] - values[i]) / unit(i);
    if (!(error <= largest)) largest = error;
    if (Number.isNaN(largest)) break;
  }
  return largest;
}
