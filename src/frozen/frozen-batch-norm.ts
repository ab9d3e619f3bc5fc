// The frozen layer of the main entry: it works on the kernels that layers share.

import { applyTerms } from "../engine/affine.js";
import { termsOf } from "../engine/channel.js";
import { checkKernels, type Kernels } from "../engine/kernels.js";
import { sharedSoFar } from "../engine/shared.js";
import { checkKeys } from "../errors.js";
import { NO_OPTIONS } from "../values/check.js";
import type { Widened } from "../values/json.js";
import type { Layout } from "../values/layout.js";
import type { Statistics } from "../values/terms.js";
import {
  Frozen,
  type FrozenJSON,
  type FrozenState,
  type KernelSource,
  readFrozen,
  smallMachine,
} from "./frozen.js";

/**
 * An immutable test-time copy of a layer: made by `bn.freeze()` or from JSON. Gives the same bits
 * as `bn.infer` gave when it was made.
 *
 * @example
 * const text = JSON.stringify(bn.freeze()); // train in Node …
 * const frozen = FrozenBatchNorm.fromJSON(text); // … serve at the edge
 * const y = frozen.infer(x); // x: one example [1, 64]
 */
export class FrozenBatchNorm extends Frozen {
  /** @internal Use `bn.freeze()` or `FrozenBatchNorm.fromJSON`. */
  constructor(state: FrozenState, kernels: Kernels | undefined) {
    super(state, sourceOf(kernels));
  }

  /**
   * The layer that `toJSON` wrote.
   *
   * @param json the object, or its JSON text.
   * @throws StateError where it is not what `toJSON` writes; OptionError for an unknown option.
   */
  static fromJSON(
    json: Widened<FrozenJSON> | string,
    options: { kernels?: Kernels } = NO_OPTIONS,
  ): FrozenBatchNorm {
    checkKeys("options", options, ["kernels"]);
    const kernels = options.kernels === undefined ? undefined : checkKernels(options.kernels);
    return create(readFrozen(json), kernels);
  }
}

/** What of a layer it takes to freeze it. */
export interface Freezable {
  readonly channels: number;
  readonly layout: Layout;
  readonly epsilon: number;
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly kernels: Kernels;
}

/** A layer frozen with these statistics in place of its own. Throws StateError for a variance that is none. */
export function freeze(
  { channels, layout, epsilon, gamma, beta, kernels }: Freezable,
  { mean, variance, meanLow = null }: Statistics & { readonly meanLow?: Float64Array | null },
): FrozenBatchNorm {
  const normalizer = { mean, meanLow, variance, gamma, beta, epsilon };
  const terms = termsOf(kernels.machine, normalizer);
  return create({ channels, layout, terms, beta: beta?.slice() ?? null }, kernels);
}

/**
 * The kernels given; else the shared ones, if there are any: nobody has tensors in their memory before. Else a
 * small instance of its own.
 */
const sourceOf = (kernels: Kernels | undefined): KernelSource => ({
  memory: () => (kernels ?? sharedSoFar())?.machine.memory,
  apply: (out, x, view, terms) =>
    applyTerms((kernels ?? sharedSoFar())?.machine ?? smallMachine(), out, x, view, terms),
});

// A class that names itself is renamed when it is bundled, and prints as _FrozenBatchNorm.
const create = (state: FrozenState, kernels: Kernels | undefined): FrozenBatchNorm =>
  new FrozenBatchNorm(state, kernels);
