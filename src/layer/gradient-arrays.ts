// The arrays that `backward` fills: fresh ones, or those that the user gives. The latter must not share memory
// with each other or with an input, which would be overwritten before it is read; only dx or dadd may be dy itself.

import { resultOf } from "../engine/result.js";
import { checkKeys, describe, OptionError } from "../errors.js";
import { arrayOf, float32Of, isSame, refuseShared } from "../values/arrays.js";
import type { Gradients } from "../values/terms.js";

const KEYS = ["dx", "dgamma", "dbeta", "dadd"];
const NAMES = "x add dy gamma beta out.dx out.dgamma out.dbeta out.dadd".split(" ");

/** The arrays for the gradients of a layer. `out` is what the user gave; it is checked against all inputs. */
export function gradientArrays(
  out: unknown,
  dy: Float32Array,
  x: Float32Array,
  gamma: Float32Array | null,
  beta: Float32Array | null,
  add: Float32Array | null,
): Gradients {
  if (out === undefined) {
    const fresh = (parameter: Float32Array | null): Float32Array | null =>
      parameter && new Float32Array(parameter.length);
    return {
      dx: resultOf(x.length),
      dgamma: fresh(gamma),
      dbeta: fresh(beta),
      dadd: add && resultOf(x.length),
    };
  }
  checkKeys("out", out, KEYS);
  const given = out as Record<string, unknown>;
  const dx = given.dx === undefined ? resultOf(x.length) : float32Of("out.dx", given.dx, x.length);
  const dgamma = gradientOf("gamma", gamma, given.dgamma);
  const dbeta = gradientOf("beta", beta, given.dbeta);
  const dadd = residualOf(add, given.dadd);
  const replaced = isSame(dx, dy) || (dadd !== null && isSame(dadd, dy));
  const arrays = [x, add, replaced ? null : dy, gamma, beta, dx, dgamma, dbeta, dadd];
  refuseShared(NAMES, arrays, 5);
  return { dx, dgamma, dbeta, dadd };
}

/** The array for the gradient of a residual: `value`, a fresh one, or `null` if nothing was added. */
function residualOf(add: Float32Array | null, value: unknown): Float32Array | null {
  if (add !== null && value === undefined) return resultOf(add.length);
  if (add !== null) return float32Of("out.dadd", value, add.length);
  if (value === undefined) return null;
  throw new OptionError("out.dadd", "none, since train was given no add", describe(value));
}

/** The array for the gradient of a parameter: `value`, a fresh one, or `null` if the layer has no such parameter. */
function gradientOf(
  name: "gamma" | "beta",
  parameter: Float32Array | null,
  value: unknown,
): Float32Array | null {
  if (parameter !== null) return arrayOf(`out.d${name}`, value, parameter.length);
  if (value === undefined) return null;
  throw new OptionError(`out.d${name}`, `none, since ${name} is left out`, describe(value));
}
