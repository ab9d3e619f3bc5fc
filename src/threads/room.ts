// Shared memory for what pieces of a traversal leave, until one thread has pooled it.

import { MAX_COLUMNS } from "../engine/memory.js";

/** Bytes of an array per channel. */
export const ARRAY = 8 * MAX_COLUMNS;
/** Columns of all blocks together whose states there is room for at a time. */
export const COLUMNS = 32 * MAX_COLUMNS;
/** Bytes of an array of the states of so many columns. */
export const STATES = 8 * COLUMNS;
/** Bytes for three arrays of states. Three arrays per channel take less. */
export const ROOM_BYTES = 3 * STATES;

/** Shared memory for what pieces leave, and all of that memory as bytes. */
export interface Room {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** Copies `length` bytes of kernel memory. */
export const move = ({ bytes }: Room, to: number, from: number, length: number): void => {
  bytes.copyWithin(to, from, from + length);
};
