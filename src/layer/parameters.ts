// γ and β, which a layer learns, and what it normalizes with: these, ε, the activation, and statistics.

import { type Limits, rangeOf } from "../values/activation.js";
import { type Correction, type Given, type Normalizer, present } from "../values/terms.js";
import type { Settings } from "./options.js";

export class Parameters {
  readonly #gamma: Float32Array<ArrayBuffer> | null;
  readonly #beta: Float32Array<ArrayBuffer> | null;
  /** The range of the activation; `null` without one. */
  readonly limits: Limits | null;
  readonly epsilon: number;

  constructor(channels: number, { gamma, beta, activation, epsilon }: Settings) {
    this.#gamma = gamma ? new Float32Array(channels).fill(1) : null;
    this.#beta = beta ? new Float32Array(channels) : null;
    this.limits = rangeOf(activation);
    this.epsilon = epsilon;
  }

  /** [channels], initially 1; `null` where left out. Throws StateError if a user transferred its buffer. */
  get gamma(): Float32Array<ArrayBuffer> | null {
    return present("gamma", this.#gamma);
  }

  /** [channels], initially 0; `null` where left out. Throws StateError as `gamma`. */
  get beta(): Float32Array<ArrayBuffer> | null {
    return present("beta", this.#beta);
  }

  /** What normalizes by these statistics, with their correction if they have one. */
  with({
    mean,
    variance,
    meanLow = null,
    correction = null,
  }: Given & { readonly correction?: Correction | null }): Normalizer {
    const { gamma, beta, limits, epsilon } = this;
    return { mean, meanLow, variance, gamma, beta, epsilon, limits, correction };
  }
}
