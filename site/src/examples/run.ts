// What the build tells the page about an example.

/** An example that a reader can run. All examples of a text are one program, of which each is a step. */
export interface Runnable {
  readonly step: number;
  /** Whether this step or one above it imports the threads, for which the page has to be isolated. */
  readonly threads: boolean;
  /** The files that the program reads: the address of each, below files/, by name. */
  readonly files: Readonly<Record<string, string>>;
  /** The names of the files that this step reads. */
  readonly reads: readonly string[];
}

/** An example that does not run in a page, and why. */
export interface Standing {
  readonly why: string;
}

export type Run = Runnable | Standing;
