// γ and β, which a layer learns, and what it normalizes with: these, ε, the activation, and statistics.

import { type Limits, rangeOf } from "../values/activation.js";
import { copy } from "../values/arrays.js";
import { type Normalizer, present, type Statistics } from "../values/terms.js";
import type { Settings } from "./options.js";
import type { State } from "./snapshot.js";

export class Parameters {
  /** [channels], initially 1; `null` where left out. */
  readonly gamma: Float32Array<ArrayBuffer> | null;
  /** [channels], initially 0; `null` where left out. */
  readonly beta: Float32Array<ArrayBuffer> | null;
  /** The range of the activation; `null` without one. */
  readonly limits: Limits | null;
  readonly #epsilon: number;

  constructor(channels: number, { gamma, beta, activation, epsilon }: Settings) {
    this.gamma = gamma ? new Float32Array(channels).fill(1) : null;
    this.beta = beta ? new Float32Array(channels) : null;
    this.limits = rangeOf(activation);
    this.#epsilon = epsilon;
  }

  /** What normalizes by these statistics. `meanLow` is what float64 rounds off their mean. */
  with({ mean, variance }: Statistics, meanLow: Float64Array | null): Normalizer {
    const { gamma, beta, limits } = this;
    return { mean, meanLow, variance, gamma, beta, epsilon: this.#epsilon, limits };
  }

  /** Throws StateError if a user transferred the buffer of one of them. */
  present(): void {
    present("gamma", this.gamma);
    present("beta", this.beta);
  }

  /** Takes over values that have been checked. */
  restore({ gamma, beta }: Pick<State, "gamma" | "beta">): void {
    if (this.gamma && gamma) copy(this.gamma, gamma);
    if (this.beta && beta) copy(this.beta, beta);
  }
}
