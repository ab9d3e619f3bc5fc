// What a thread is told when it starts, and where it then finds the rest. Every thread has an instance of this binary, and so
// these variables, of its own.
//
// The memory that threads have in common begins with words of four bytes: a few for all threads (protocol.ts), then, for the
// caller, its settings; from OWN on those of each thread. Behind them lie two jobs, three arrays of states, and the memory that
// each thread has for itself. src/threads/room.ts says how large all that is.

import { NearJob } from "./pieces";

/** Bytes of the words that all threads have, and of those that each has for itself. */
export const WORDS: usize = 256;
export const OWN: usize = 128;
/** Bytes of an array of states. */
const STATES: usize = 262144;
/** Bytes of memory that a thread has for itself: what `nearPiece` and `momentsRows` need. */
const SCRATCH_BYTES: usize = 45056;

/** Where each setting of the caller lies. src/threads/start.ts writes them in this order; they are constants of its folder. */
export const COLUMNS: usize = 16;
export const CACHED: usize = 20;
export const RUN: usize = 24;
export const ALONE: usize = 28;
export const PIECE: usize = 32;
export const MOST: usize = 36;
export const WAKE: usize = 40;
export const PATIENCE: usize = 44;
/** Not 0 if the calling thread may sleep while it waits: the main thread of a page may not. */
export const SLEEPS: usize = 48;

/** Which thread this is, and of how many: workers from 0 on, the caller is the last one. */
export let thread: u32 = 0;
export let threads: u32 = 0;
/** The address of the words. */
export let words: usize = 0;
/** Where the job lies that all threads see; behind it that of the caller alone. */
export let shared: usize = 0;
/** Where pieces leave states: base, offset and m2 of moments, or the two sums of a gradient. */
export let into0: usize = 0;
export let into1: usize = 0;
export let into2: usize = 0;
/** Memory of this thread alone. */
export let scratch: usize = 0;

/** Tells a thread who it is. */
export function tell(index: u32, count: u32, at: usize): void {
  thread = index;
  threads = count;
  words = at;
  shared = at + WORDS + OWN * count;
  into0 = shared + 2 * offsetof<NearJob>();
  into1 = into0 + STATES;
  into2 = into1 + STATES;
  scratch = into2 + STATES + SCRATCH_BYTES * index;
}

/** A setting. */
export function setting(which: usize): u32 {
  return load<u32>(words + which);
}
