// The shared memory that threads need besides that of every Kernels, as assembly/told.ts divides it.

import { MAX_COLUMNS } from "../engine/memory.js";

/** Columns of all blocks together whose states pieces of a traversal leave at a time, until one thread has pooled them. */
export const COLUMNS = 32 * MAX_COLUMNS;
/** Pieces that a job has at most, as in assembly/protocol.ts. */
export const MAX_PIECES = 32;
/** Where the settings of the caller begin, in bytes. */
export const SETTINGS = 16;

/**
 * How many bytes so many threads need: for words of the protocol and settings, two jobs, three arrays of the states of so many
 * columns, and scratch.
 */
export const roomOf = (threads: number): number =>
  256 + 192 + 3 * 8 * COLUMNS + threads * (128 + 45056);
