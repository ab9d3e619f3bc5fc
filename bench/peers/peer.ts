// The interface through which every library is measured, this package too.

import type { After, Case, Data, Layout, PeerOp } from "../cases.js";

export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly kind: "ours" | "javascript" | "native" | "copy";
  readonly layouts: readonly Layout[];
  readonly ops: readonly PeerOp[];
  /** The blocks that it can do in block.ts. Default: all. */
  readonly afters?: readonly After[];
  /** Does batch norm alone, whatever follows it in a block, so its answer is not compared with that of the block. */
  readonly alone?: boolean;
  /** Up to how many floats an operation is measured, if larger tensors would take too long. */
  readonly most?: Partial<Record<PeerOp, number>>;
  /** Takes a while to hear of a call, because it runs in a browser. Native libraries count as such in any case. */
  readonly apart?: boolean;
  /** The processes in which it computes. Default: this one. */
  processes?(): readonly number[];
  /** Makes ready for one operation on the data. */
  open(c: Case, op: PeerOp, data: Data): Promise<Session>;
  close?(): void;
}

export interface Session {
  /** What the library answers, to be held against float64 before it is timed. */
  answer(): Promise<Answer> | Answer;
  /** Calls the operation `calls` times and returns the milliseconds of all of them together. */
  sample(calls: number): number | Promise<number>;
  close?(): void;
}

export interface Answer {
  readonly y?: Float32Array;
  readonly dx?: Float32Array;
  readonly dgamma?: Float32Array;
  readonly dbeta?: Float32Array;
  /** The gradient of the residual, where a block adds one. */
  readonly dadd?: Float32Array;
}

/** A library that is not installed here. `remedy` is the command that installs it. */
export class Missing extends Error {
  constructor(
    reason: string,
    readonly remedy: string,
  ) {
    super(reason);
  }
}

export const INSTALL = "npm run bench -- --peers";

/** Imports a package that only the benchmark needs. Throws Missing if it is not installed. */
export async function peerModule<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ERR_MODULE_NOT_FOUND" && code !== "MODULE_NOT_FOUND") throw error;
    const [, name] = /(?:package|module) '([^']+)'/.exec(message) ?? [];
    throw new Missing(name ? `${name} is not installed` : message, INSTALL);
  }
}

/** Uses a result, so that no optimizer can leave out the call that made it. */
export function keep(values: ArrayLike<number>): void {
  sink += values[values.length >> 1];
}
let sink = 0;
export const kept = (): number => sink;
