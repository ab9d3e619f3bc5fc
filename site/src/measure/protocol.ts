// What the page and the worker that measures say to each other.

export type SideName = "one" | "several" | "loop" | "tfjs";

/** What is to be measured. */
export interface Wish {
  /** How many threads; none, if this page cannot have several. */
  readonly threads: number | undefined;
  /** Whether TensorFlow.js is measured too. */
  readonly tfjs: boolean;
}

/** A case and an operation, in words. */
export interface RowTitle {
  readonly title: string;
  readonly shape: string;
}

/** The times of one side in one row, in microseconds a call. */
export interface Figure {
  readonly median: number;
  /** The quartiles. */
  readonly low: number;
  readonly high: number;
}

export type Report =
  | { readonly kind: "rows"; readonly rows: readonly RowTitle[]; readonly rounds: number }
  | {
      readonly kind: "figure";
      readonly row: number;
      readonly side: SideName;
      readonly figure: Figure;
      readonly round: number;
    }
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly message: string };
