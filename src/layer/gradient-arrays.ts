// The arrays that a layer fills: fresh ones, or those that the user gives. The latter must not share memory with each
// other, with an input, which would be overwritten before it is read, or with the layer; only y may be x or add itself,
// and dx or dadd may be dy.

import { resultOf } from "../engine/result.js";
import { checkKeys, describe, OptionError } from "../errors.js";
import {
  arrayOf,
  bufferOf,
  float32Of,
  isSame,
  lengthOf,
  outputOf,
  refuseShared,
  shared,
} from "../values/arrays.js";
import type { Gradients, Normalizer } from "../values/terms.js";

const KEYS = ["dx", "dgamma", "dbeta", "dadd"];
const OWN = ["gamma", "beta", "runningMean", "runningVariance", "renormMean", "renormDeviation"];
const NAMES = ["x", "add", "dy", "out.dx", "out.dgamma", "out.dbeta", "out.dadd"];

/** The buffers of the arrays of a layer, in the order of OWN. They stay the same, even where one is transferred away. */
export type Buffers = readonly (ArrayBufferLike | undefined)[];

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
  if (out === undefined) return resultOf(length);
  const array = outputOf(out, x, add, length);
  refuseOwn("out", array, buffers);
  return array;
}

/** Throws ShapeError if an array lies in one of the layer's. */
function refuseOwn(name: string, array: Float32Array | null, own: Buffers): void {
  const at = array === null ? -1 : own.indexOf(bufferOf(array));
  if (at >= 0) throw shared(name, OWN[at]!);
}

/** What users give as `out`, each array read once. */
export type GivenArrays = Partial<Readonly<Record<"dx" | "dgamma" | "dbeta" | "dadd", unknown>>>;

const NONE: GivenArrays = {};

/** Reads the option `out`. */
export function readOut(out: unknown): GivenArrays {
  if (out === undefined) return NONE;
  checkKeys("out", out, KEYS);
  const { dx, dgamma, dbeta, dadd } = out as GivenArrays;
  return { dx, dgamma, dbeta, dadd };
}

/** The arrays for the gradients of a layer. `out` is what the user gave; it is checked against all inputs. */
export function gradientArrays(
  out: GivenArrays,
  dy: Float32Array,
  x: Float32Array,
  add: Float32Array | null,
  size: number,
  { gamma, beta }: Pick<Normalizer, "gamma" | "beta">,
  buffers: Buffers,
): Gradients {
  const dx = out.dx === undefined ? resultOf(size) : float32Of("out.dx", out.dx, size);
  const dgamma = gradientOf("out.dgamma", gamma, out.dgamma);
  const dbeta = gradientOf("out.dbeta", beta, out.dbeta);
  const dadd = residualOf(add, out.dadd, size);
  if (out !== NONE) {
    const replaced = isSame(dx, dy) || (dadd !== null && isSame(dadd, dy));
    const arrays = [x, add, replaced ? null : dy, dx, dgamma, dbeta, dadd];
    for (let i = 3; i < 7; i++) refuseOwn(NAMES[i]!, arrays[i]!, buffers);
    refuseShared(NAMES, arrays, 3);
  }
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
  name: string,
  parameter: Float32Array | null,
  value: unknown,
): Float32Array | null {
  if (parameter !== null) return arrayOf(name, value, lengthOf(parameter));
  if (value === undefined) return null;
  throw new OptionError(
    name,
    `none, since the layer has no ${name.slice("out.d".length)}`,
    describe(value),
  );
}
