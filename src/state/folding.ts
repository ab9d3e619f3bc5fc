// What foldOnnx and foldKeras share. A norm is folded into the layer before it or, if that is not possible, into the
// layer after it.

import { BatchNormError, StateError } from "../errors.js";
import { encode, type FloatFormat } from "./bytes.js";
import type { KeptNorm } from "./layers.js";

/** The letters of the spatial axes of a convolution, by how many of these axes it has. */
export const SPATIAL = ["", "L", "HW", "DHW"];

/** Which of the two layers beside a norm takes it in. */
export type Into = "before" | "after";

/**
 * Folds the norms of these names by `attempt`, which returns `null` for a norm that it has folded, and else why the norm
 * stays. Returns the names of those that were folded and the norms that stay, in the order of `names`.
 *
 * @param order the same names, of norms in a row the one that comes first before the others.
 */
export function foldAll(
  names: readonly string[],
  order: readonly string[],
  attempt: (name: string) => string | null,
) {
  const reasons = new Map<string, string>();
  const folded = new Set<string>();
  // Norms in a row behind a layer are folded into it from the first to the last, norms in a row in front of a
  // layer from the last to the first. Hence one pass goes forwards, and one goes backwards over what is left.
  for (const name of [...order, ...[...order].reverse()]) {
    if (folded.has(name)) continue;
    const reason = attempt(name);
    if (reason === null) folded.add(name);
    else reasons.set(name, reason);
  }
  const kept: KeptNorm[] = [];
  for (const name of names) {
    if (!folded.has(name)) kept.push({ name, reason: reasons.get(name)! });
  }
  return { folded: names.filter((name) => folded.has(name)), kept };
}

/**
 * Calls `attempt` for the layer before a norm and, if that throws a BatchNormError, for the layer after the norm.
 * Returns `null` if one of the calls did not throw, and else the reasons why the norm stays: both messages.
 */
export function foldBeside(attempt: (into: Into) => void): string | null {
  const reasons = new Set<string>();
  for (const into of ["before", "after"] as const) {
    try {
      attempt(into);
      return null;
    } catch (error) {
      if (!(error instanceof BatchNormError)) throw error;
      reasons.add(error.message);
    }
  }
  return [...reasons].join("; ");
}

/** The bytes of the weight or bias, `what`, of a folded layer. Throws StateError unless all its values are finite. */
export function encodeFolded(what: string, format: FloatFormat, values: Float32Array): Uint8Array {
  if (!values.every(Number.isFinite)) {
    throw new StateError(`its ${what} would be too large for float32, or is not finite`);
  }
  return encode(`its ${what}`, format, values);
}
