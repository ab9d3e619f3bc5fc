// The check, shared by all functions on a layer, that their argument is a layer.

import { describe, OptionError } from "../errors.js";

/** Throws OptionError unless `bn` is a layer, of this copy of the package or of another. */
export function checkLayer(bn: unknown): void {
  if (typeof Object(bn).moments === "function") return;
  throw new OptionError("bn", "a BatchNorm", describe(bn));
}
