// The one small interface behind which every library stands, ours too.

import type { Case, Data, Layout, PeerOp } from "../cases.js";

export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly kind: "ours" | "javascript" | "native" | "copy";
  readonly layouts: readonly Layout[];
  readonly ops: readonly PeerOp[];
  /** Floats above which an operation takes too long to be worth the wait. */
  readonly most?: Partial<Record<PeerOp, number>>;
  /** Where one library is measured in several ways, all others have one session. */
  open(c: Case, op: PeerOp, data: Data): Promise<Session>;
  close?(): void;
}

export interface Session {
  /** What the library answers, to be held against float64 before it is timed. */
  answer(): Promise<Answer> | Answer;
  /** Makes `calls` calls and returns the milliseconds they took. */
  sample(calls: number): number | Promise<number>;
  close?(): void;
}

export interface Answer {
  readonly y?: Float32Array;
  readonly dx?: Float32Array;
  readonly dgamma?: Float32Array;
  readonly dbeta?: Float32Array;
}

/** A peer that is not installed here: not an error, but said, with what would install it. */
export class Missing extends Error {
  constructor(
    reason: string,
    readonly remedy: string,
  ) {
    super(reason);
  }
}

export const INSTALL = "npm run bench -- --peers";

/** Imports a package that only the benchmark needs. */
export async function peerModule<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ERR_MODULE_NOT_FOUND" && code !== "MODULE_NOT_FOUND") throw error;
    const [, name] = /package '([^']+)'/.exec(message) ?? [];
    throw new Missing(name ? `${name} is not installed` : message, INSTALL);
  }
}

/** Reads a result so that no optimizer may leave out what made it. */
export function keep(values: ArrayLike<number>): void {
  sink += values[values.length >> 1];
}
let sink = 0;
export const kept = (): number => sink;
