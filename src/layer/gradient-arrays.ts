// The arrays that a layer fills: fresh ones, or those that the user gives. The latter must not share memory with each
// other, with an input, which would be overwritten before it is read, or with the layer; only y may be x or add itself,
// and dx or dadd may be dy.

import { resultLike, resultOf } from "../engine/result.js";
import { checkKeys, describe, OptionError } from "../errors.js";
import {
  arrayOf,
  bufferOf,
  float32Of,
  isSame,
  lengthOf,
  refuseShared,
  shared,
} from "../values/arrays.js";
import type { Gradients } from "../values/terms.js";

const KEYS = ["dx", "dgamma", "dbeta", "dadd"];
const OWN = ["gamma", "beta", "runningMean", "runningVariance"] as const;
const NAMES = ["x", "add", "dy", "out.dx", "out.dgamma", "out.dbeta", "out.dadd"];

/** The arrays of a layer. */
interface Own {
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly runningMean: Float64Array;
  readonly runningVariance: Float64Array;
}

/** The buffers of the arrays of a layer, in the order of OWN. They stay the same, even where one is transferred away. */
export type Buffers = readonly (ArrayBufferLike | undefined)[];

export const buffersOf = (own: Own): Buffers => OWN.map((name) => own[name]?.buffer);

/**
 * The array for a result of x's `length`: `out`, which may be x or add itself, or a fresh one. `buffers` are those of the
 * layer; they are compared with the one of `out`, which takes 20 ns.
 */
export function outputFor(
  out: unknown,
  x: Float32Array,
  add: Float32Array | null,
  length: number,
  buffers: Buffers,
): Float32Array {
  const array = resultLike(out, x, add, length);
  if (out !== undefined) refuseOwn("out", array, buffers);
  return array;
}

/** Throws ShapeError if an array lies in one of the layer's. */
function refuseOwn(name: string, array: Float32Array | null, own: Buffers): void {
  const at = array === null ? -1 : own.indexOf(bufferOf(array));
  if (at >= 0) throw shared(name, OWN[at]!);
}

/** What users give as `out`, each array read once; `null` for undefined. */
export type GivenArrays = Readonly<Record<"dx" | "dgamma" | "dbeta" | "dadd", unknown>> | null;

/** Reads the option `out`. */
export function readOut(out: unknown): GivenArrays {
  if (out === undefined) return null;
  checkKeys("out", out, KEYS);
  const { dx, dgamma, dbeta, dadd } = out as NonNullable<GivenArrays>;
  return { dx, dgamma, dbeta, dadd };
}

/** The arrays for the gradients of a layer. `out` is what the user gave; it is checked against all inputs. */
export function gradientArrays(
  out: GivenArrays,
  dy: Float32Array,
  x: Float32Array,
  add: Float32Array | null,
  size: number,
  { gamma, beta }: Pick<Own, "gamma" | "beta">,
  buffers: Buffers,
): Gradients {
  if (out === null) {
    const fresh = (parameter: Float32Array | null): Float32Array | null =>
      parameter && new Float32Array(lengthOf(parameter));
    return {
      dx: resultOf(size),
      dgamma: fresh(gamma),
      dbeta: fresh(beta),
      dadd: add && resultOf(size),
    };
  }
  const dx = out.dx === undefined ? resultOf(size) : float32Of("out.dx", out.dx, size);
  const dgamma = gradientOf("gamma", gamma, out.dgamma);
  const dbeta = gradientOf("beta", beta, out.dbeta);
  const dadd = residualOf(add, out.dadd, size);
  const replaced = isSame(dx, dy) || (dadd !== null && isSame(dadd, dy));
  refuseOwn("out.dx", dx, buffers);
  refuseOwn("out.dgamma", dgamma, buffers);
  refuseOwn("out.dbeta", dbeta, buffers);
  refuseOwn("out.dadd", dadd, buffers);
  refuseShared(NAMES, [x, add, replaced ? null : dy, dx, dgamma, dbeta, dadd], 3);
  return { dx, dgamma, dbeta, dadd };
}

/** The array for the gradient of a residual: `value`, a fresh one, or `null` if nothing was added. */
function residualOf(add: Float32Array | null, value: unknown, size: number): Float32Array | null {
  if (add !== null)
    return value === undefined ? resultOf(size) : float32Of("out.dadd", value, size);
  if (value === undefined) return null;
  throw new OptionError("out.dadd", "none, since train was given no add", describe(value));
}

/** The array for the gradient of a parameter: `value`, a fresh one, or `null` if the layer has no such parameter. */
function gradientOf(
  name: "gamma" | "beta",
  parameter: Float32Array | null,
  value: unknown,
): Float32Array | null {
  if (parameter !== null) return arrayOf(`out.d${name}`, value, lengthOf(parameter));
  if (value === undefined) return null;
  throw new OptionError(`out.d${name}`, `none, since ${name} is left out`, describe(value));
}
