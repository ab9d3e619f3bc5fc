// The arrays that `backward` fills: fresh ones, or those that the user gives. The latter must not share memory
// with each other or with an input, which would be overwritten before it is read; only dx may be dy itself.

import { resultOf } from "../engine/result.js";
import { checkKeys, describe, OptionError } from "../errors.js";
import { arrayOf, float32Of, isSame, refuseShared } from "../values/arrays.js";
import type { Gradients } from "../values/terms.js";

const KEYS = ["dx", "dgamma", "dbeta"];
const NAMES = ["x", "dy", "gamma", "beta", "out.dx", "out.dgamma", "out.dbeta"];

/** The arrays for the gradients of a layer. `out` is what the user gave; it is checked against all inputs. */
export function gradientArrays(
  out: unknown,
  dy: Float32Array,
  x: Float32Array,
  gamma: Float32Array | null,
  beta: Float32Array | null,
): Gradients {
  if (out === undefined) {
    const fresh = (parameter: Float32Array | null): Float32Array | null =>
      parameter && new Float32Array(parameter.length);
    return { dx: resultOf(x.length), dgamma: fresh(gamma), dbeta: fresh(beta) };
  }
  checkKeys("out", out, KEYS);
  const given = out as Record<string, unknown>;
  const dx = given.dx === undefined ? resultOf(x.length) : float32Of("out.dx", given.dx, x.length);
  const dgamma = gradientOf("gamma", gamma, given.dgamma);
  const dbeta = gradientOf("beta", beta, given.dbeta);
  const input = isSame(dx, dy) ? null : dy;
  refuseShared(NAMES, [x, input, gamma, beta, dx, dgamma, dbeta], 4);
  return { dx, dgamma, dbeta };
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
