// How threads pass the time while others compute. The bounds of the caller are in src/threads/patience.ts.

import { PATIENCE, SLEEPS, setting } from "./told";

/** Milliseconds since some time, as `performance.now` has them. */
// @ts-ignore: decorator
@external("env", "now")
declare function now(): f64;

/** Terminates all workers. Throws if the call cannot end without them (src/threads/crew.ts). */
// @ts-ignore: decorator
@external("env", "over")
export declare function over(isLost: bool): void;

/** Milliseconds that a worker looks for the next call before it sleeps (docs/tuning.md). */
const SPIN: f64 = 2;
/** It asks for the time once in so many looks, which is a power of two. */
const RARELY: u32 = 2048;
/** How often the caller looks whether a piece is done before it lets the system have its core: for some 29 µs. */
const LOOKS: u32 = 6700;
/** Nanoseconds for which it leaves the core to others each time. */
const NAP: i64 = 50000;
/** Milliseconds that count at most between two looks. What stops this thread for longer, as Ctrl-Z does, stops workers as well. */
const AWAY: f64 = 50;

/** A worker: when it began to look for the next call. A caller: when it last looked, and how long it has waited. */
let since: f64 = 0;
let waited: f64 = 0;

/** Whether a worker has looked for the next call often enough to go to sleep. */
export function isTired(looks: u32): bool {
  if (looks % RARELY) return false;
  const time = now();
  if (looks == 0) since = time;
  return time - since > SPIN;
}

/** Sleeps until somebody wakes those who sleep on a word. Returns at once if it is no longer `value`. */
export function sleep(word: usize, value: i32): void {
  atomic.wait<i32>(word, value, -1);
}

/** Wakes all who sleep on a word. */
export function wake(word: usize): void {
  atomic.notify(word);
}

/** Passes the time until the caller looks again at a word, which was `value`. Returns whether it gives workers up. */
export function hasWaitedEnough(looks: u32, word: usize, value: i32): bool {
  if (looks < LOOKS) return false;
  // Nobody notifies that word: this only gives the core to a worker that has none.
  if (setting(SLEEPS)) atomic.wait<i32>(word, value, NAP);
  const time = now();
  waited = looks == LOOKS ? 0 : waited + min(time - since, AWAY);
  since = time;
  return waited > <f64>setting(PATIENCE);
}
