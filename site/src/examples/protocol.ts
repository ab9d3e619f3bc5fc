// What the page and the worker that runs a program say to each other.

/** The program up to the step that was asked for, and the addresses of the files that it reads. */
export interface Program {
  readonly steps: readonly string[];
  readonly files: Readonly<Record<string, string>>;
}

/** A line that a step printed; or the end, after so many milliseconds; or what was thrown, and by which step. */
export type Answer =
  | { readonly step: number; readonly text: string }
  | { readonly done: number }
  | { readonly failed: string; readonly step: number };
