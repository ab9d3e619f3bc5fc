/** What the page and its worker say to each other. */

import type { Whose } from "../network.js";

/** The page asks for a training. */
export interface Request {
  readonly whose: Whose;
  readonly steps: number;
}

/** What the worker says: it has started, how far it is, what came of it, or that it failed. */
export type Answer =
  | { readonly kind: "ready"; readonly digits: number; readonly heldOut: number }
  | ({ readonly kind: "step" } & Step)
  | ({ readonly kind: "trained" } & Outcome)
  | { readonly kind: "failed"; readonly message: string };

export interface Step {
  readonly step: number;
  /** The loss, mean of the last ten mini-batches. */
  readonly loss: number;
  /** Milliseconds of a step, the median so far. */
  readonly time: number;
  /** The running means of the first layer, one for each channel. */
  readonly means: readonly number[];
}

export interface Outcome {
  /** Share of the held-out digits that are answered rightly one at a time, 0 … 1. */
  readonly accuracy: number;
  /** Milliseconds for one digit: the mean of some, and the median of such means. */
  readonly one: number;
  /**
   * The largest difference of a score between the folded network and the one that was trained; `null` with tfjs' own
   * layers, which are not folded.
   */
  readonly difference: number | null;
  /** Some held-out digits, 784 grey values each, and their answers. */
  readonly examples: readonly {
    readonly image: Uint8Array;
    readonly answer: number;
    readonly label: number;
  }[];
}
