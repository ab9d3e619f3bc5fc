// How threads pass the time while others compute. The bounds of the caller are in src/threads/patience.ts.

import { PATIENCE, PATIENCE_IN_PLACE, SLEEPS, setting } from "./told";

/** Milliseconds since some time, as `performance.now` has them. */
// @ts-ignore: decorator
@external("env", "now")
declare function now(): f64;

/** Milliseconds that a worker looks for the next call before it sleeps (docs/tuning.md). */
const SPIN: f64 = 2;
/** It asks for the time once in so many looks, which is a power of two. */
const RARELY: u32 = 2048;
/** How often the caller looks whether a piece is done before it lets the system have its core: for some 29 µs. */
const LOOKS: u32 = 6700;
/** Nanoseconds for which it leaves the core to others each time. */
const NAP: i64 = 50000;

/** When it began to wait. */
let since: f64 = 0;

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
export function hasWaitedEnough(looks: u32, word: usize, value: i32, repeatable: bool): bool {
  if (looks < LOOKS) return false;
  if (looks == LOOKS) since = now();
  // Nobody notifies that word: this only gives the core to a worker that has none.
  if (setting(SLEEPS)) atomic.wait<i32>(word, value, NAP);
  return now() - since > <f64>setting(repeatable ? PATIENCE : PATIENCE_IN_PLACE);
}
