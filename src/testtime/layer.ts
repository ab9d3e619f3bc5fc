// What the functions that are built on a layer take for one.

import { describe, OptionError } from "../errors.js";

/** Throws OptionError unless `bn` is a layer, of this copy of the package or of another. */
export function checkLayer(bn: unknown): void {
  if (typeof Object(bn).moments === "function") return;
  throw new OptionError("bn", "a BatchNorm", describe(bn));
}
