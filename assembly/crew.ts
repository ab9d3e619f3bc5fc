// The caller's side of the workers: into how many pieces some work is cut, and how a job is handed out. How many depends on
// dimensions alone, never on the number of threads.

import { Job, NOTHING } from "./pieces";
import { SLEEPERS, STOP, begin, forgo, isCut, load, step } from "./protocol";
import { ALONE, MOST, PIECE, WAKE, setting, shared, thread } from "./told";

/** Work that came while all workers slept, since they were last woken. */
let missed: u32 = 0;
let wakes: bool = false;

/**
 * Ends the call before, if it was cut short. Workers may still be doing pieces of it, and would write to what this call
 * describes, or to its tensors. What they have not begun is left out, and what one of them does not finish is not missed.
 */
export function settle(): void {
  if (!isCut()) return;
  forgo();
  changetype<Job>(shared).kind = NOTHING;
  while (step()) {}
}

/**
 * Into how many pieces some work is cut, if at most so many are possible; 1 if it does not pay to involve another thread.
 * Work is measured in values of the cheapest kernel. A power of two, so that two, four and eight threads get equal shares.
 */
export function piecesOf(work: u32, possible: u32): u32 {
  if (work < setting(ALONE)) return 1;
  const end = min(possible, setting(MOST));
  let n: u32 = 1;
  while (n * 2 <= end && (n == 1 || work >= n * 2 * setting(PIECE))) n *= 2;
  return n;
}

/**
 * The same, or 1 if this thread is to do it alone. It is while all workers sleep and there is too little work to wake them: all
 * pieces in one thread take longer than the whole.
 */
export function pieces(work: u32, possible: u32): u32 {
  const n = piecesOf(work, possible);
  if (n == 1 || !thread || load(STOP)) return 1;
  const asleep = <u32>load(SLEEPERS);
  if (asleep) {
    missed += work;
    wakes = missed >= setting(WAKE);
    if (wakes) missed = 0;
    else if (asleep >= thread) return 1;
  }
  return n;
}

/**
 * Has all threads do the job that is described, all its pieces. `repeatable` says that a piece may be done twice: that what it
 * reads is not what any of them writes. If a worker does not finish one, all workers are ended, and this thread does it, or
 * throws if it is not repeatable; later calls go on with this thread alone.
 */
export function hand(n: u32, repeatable: bool): void {
  begin(n, wakes, repeatable);
  wakes = false;
  while (step()) {}
}

/** What a worker does until it is stopped. */
export function work(): void {
  while (step()) {}
}
