// The frozen layer of the main entry: it works on the kernels that layers share.

import { applyTerms } from "../engine/affine.js";
import { checkKernels, type Kernels } from "../engine/kernels.js";
import { sharedSoFar } from "../engine/shared.js";
import { checkKeys } from "../errors.js";
import { type Activation, checkActivation, rangeOf } from "../values/activation.js";
import { copyOf, float32Of } from "../values/arrays.js";
import { checkChannels, choice, epsilonOf, NO_OPTIONS } from "../values/check.js";
import type { Widened } from "../values/json.js";
import { checkLayout, LAYOUTS, type Layout } from "../values/layout.js";
import {
  checkMeans,
  type MomentsLike,
  momentsIn,
  VARIANCES,
  type VarianceKind,
  varianceOf,
} from "../values/moments.js";
import type { Given } from "../values/terms.js";
import {
  Frozen,
  type FrozenJSON,
  type FrozenState,
  type KernelSource,
  readFrozen,
  smallMachine,
} from "./frozen.js";
import { termsOf } from "./terms.js";

/** Options of `FrozenBatchNorm.fromMoments`. */
export interface FromMomentsOptions {
  /** Order of the axes of the data. Default `"NC"`. */
  layout?: Layout;
  /** Added to the variance under the square root, >= 0, in the unit of the data squared. Default 1e-5. */
  epsilon?: number;
  /** γ, [channels]; copied. Default: none, which is 1. */
  gamma?: Float32Array | null;
  /** β, [channels], in the unit of y; copied. Default: none, which is 0. */
  beta?: Float32Array | null;
  /** Limits y to a range, as that of a layer. [-10, 10] is the clip that observations often get. Default: none. */
  activation?: Activation | null;
  /** Whether the sum of squared deviations is divided by count or, for `"sample"`, by count - 1. Default `"population"`. */
  varianceOf?: VarianceKind;
  /** Kernels of your own. Default: as of `bn.freeze()`. */
  kernels?: Kernels;
}

const FROM_MOMENTS = ["layout", "epsilon", "gamma", "beta", "activation", "varianceOf", "kernels"];

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
  /**
   * @internal Use `bn.freeze()`, `FrozenBatchNorm.fromJSON` or `FrozenBatchNorm.fromMoments`.
   * @throws StateError without what these give it.
   */
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

  /**
   * A layer that normalizes by given statistics: y = γ·(x - mean)/√(variance + ε) + β, then the activation. It is the
   * layer that `bn.setRunning(moments)` and `bn.freeze()` would give, without a layer to train. Data whose statistics
   * are gathered as they come are normalized so (Welford 1962; Chan et al. 1983).
   *
   * @param moments statistics of as many channels as the layer is to have, or their structured clone.
   * @throws ShapeError if `moments` is none, or gamma or beta is no Float32Array of [channels]; StateError if no values
   * can have moments with its numbers; SingleValueError for a variance of too few values; OptionError for an option
   * unknown or out of range.
   *
   * @example
   * const seen = bn.moments(x); // or statistics of all observations so far, merged
   * const clipped = FrozenBatchNorm.fromMoments(seen, { epsilon: 1e-8, activation: [-10, 10] });
   * const y = clipped.infer(x);
   */
  static fromMoments(
    moments: MomentsLike,
    options: FromMomentsOptions = NO_OPTIONS,
  ): FrozenBatchNorm {
    checkKeys("options", options, FROM_MOMENTS);
    const { layout, epsilon, gamma, beta, activation, varianceOf: of, kernels } = options;
    const own = checkMeans("moments", momentsIn("moments", moments));
    const channels = checkChannels(own.mean.length);
    const parameter = (name: string, value: Float32Array | null | undefined) =>
      value == null ? null : copyOf(float32Of(name, value, channels));
    const variance = varianceOf(own, choice("varianceOf", of, "population", VARIANCES));
    return freeze(
      {
        channels,
        layout: layout === undefined ? "NC" : checkLayout(layout, LAYOUTS),
        epsilon: epsilonOf("epsilon", epsilon, 1e-5),
        gamma: parameter("gamma", gamma),
        beta: parameter("beta", beta),
        activation: checkActivation(activation),
        kernels: checkKernels(kernels),
      },
      { mean: own.mean, variance, meanLow: own.meanLow },
    );
  }
}

/** The members of a layer that are needed to freeze it. */
export interface Freezable {
  readonly channels: number;
  readonly layout: Layout;
  readonly epsilon: number;
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly activation: Activation | null;
  readonly kernels: Kernels | undefined;
}

/** Freezes a layer with these statistics in place of its own. Throws StateError for an invalid variance. */
export function freeze(
  { channels, layout, epsilon, gamma, beta, activation, kernels }: Freezable,
  { mean, variance, meanLow = null }: Given,
): FrozenBatchNorm {
  const limits = rangeOf(activation);
  const normalizer = { mean, meanLow, variance, gamma, beta, epsilon, limits, correction: null };
  const terms = termsOf(normalizer);
  return create({ channels, layout, terms, beta: beta && copyOf(beta) }, kernels);
}

/**
 * Uses the kernels given or, without any, the shared ones if they have been made. Before they are made, nobody can
 * have a tensor in their memory, so an instance of a small binary does, in a small memory.
 */
const sourceOf = (kernels: Kernels | undefined): KernelSource => ({
  memory: () => (kernels ?? sharedSoFar())?.machine.memory,
  apply: (out, x, view, terms, add) =>
    applyTerms((kernels ?? sharedSoFar())?.machine ?? smallMachine(), out, x, view, terms, add),
});

// Not inside the class: bundlers rename a class whose body names it, and it would print as _FrozenBatchNorm.
const create = (state: FrozenState, kernels: Kernels | undefined): FrozenBatchNorm =>
  new FrozenBatchNorm(state, kernels);
