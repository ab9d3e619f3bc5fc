// The frozen layer of the main entry: it works on the kernels that layers share.

import { applyTerms } from "../engine/affine.js";
import { termsOf } from "../engine/channel.js";
import { checkKernels, type Kernels } from "../engine/kernels.js";
import { sharedSoFar } from "../engine/shared.js";
import { checkKeys } from "../errors.js";
import { copyOf } from "../values/arrays.js";
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
 * An immutable copy of a layer for test time, made by `bn.freeze()` or from JSON. It gives the same bits as
 * `bn.infer` gave when the copy was made.
 *
 * @throws StateError from every member that is used through a proxy of it (Vue's `reactive`, valtio's `proxy`).
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
   * @throws StateError if it is not what `toJSON` writes; OptionError for an unknown option.
   */
  static fromJSON(
    json: Widened<FrozenJSON> | string,
    options: { kernels?: Kernels } = NO_OPTIONS,
  ): FrozenBatchNorm {
    checkKeys("options", options, ["kernels"]);
    const { kernels } = options;
    return create(readFrozen(json), checkKernels(kernels));
  }
}

/** The members of a layer that are needed to freeze it. */
export interface Freezable {
  readonly channels: number;
  readonly layout: Layout;
  readonly epsilon: number;
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly kernels: Kernels;
}

/** Freezes a layer with these statistics in place of its own. Throws StateError for an invalid variance. */
export function freeze(
  { channels, layout, epsilon, gamma, beta, kernels }: Freezable,
  { mean, variance, meanLow = null }: Statistics & { readonly meanLow?: Float64Array | null },
): FrozenBatchNorm {
  const normalizer = { mean, meanLow, variance, gamma, beta, epsilon };
  const terms = termsOf(kernels.machine, normalizer);
  return create({ channels, layout, terms, beta: beta && copyOf(beta) }, kernels);
}

/**
 * Uses the kernels given or, without any, the shared ones if they have been made. Before they are made, nobody can
 * have a tensor in their memory, so a small instance does.
 */
const sourceOf = (kernels: Kernels | undefined): KernelSource => ({
  memory: () => (kernels ?? sharedSoFar())?.machine.memory,
  apply: (out, x, view, terms) =>
    applyTerms((kernels ?? sharedSoFar())?.machine ?? smallMachine(), out, x, view, terms),
});

// Not inside the class: bundlers rename a class whose body names it, and it would print as _FrozenBatchNorm.
const create = (state: FrozenState, kernels: Kernels | undefined): FrozenBatchNorm =>
  new FrozenBatchNorm(state, kernels);
