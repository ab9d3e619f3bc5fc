// The caller's side of the workers: has them help with a job, and waits for the pieces that they have begun.

import { StateError } from "../errors.js";
import { type Job, piecesOf } from "./job.js";
import { LOOKS, NAP, PATIENCE, PATIENCE_IN_PLACE } from "./patience.js";
import { type Caller, callerStep, EPOCH, FAILED, SLEEPERS, stopWorkers } from "./protocol.js";
import { WAKE } from "./sizes.js";
import type { Hand } from "./spawn.js";

/** Workers on the memory of a machine. */
export class Crew {
  readonly job: Job;
  readonly #words: Int32Array;
  readonly #me: Caller;
  #hands: readonly Hand[];
  /** Work that came while all workers slept, since they were last woken. */
  #asleep = 0;
  #wakes = false;
  #since = 0;

  /** @param run does a piece of the job on this thread. */
  constructor(job: Job, words: Int32Array, hands: readonly Hand[], run: (piece: number) => void) {
    this.job = job;
    this.#words = words;
    this.#hands = hands;
    const mayWait = canWait();
    this.#me = {
      at: "count",
      words,
      thread: hands.length,
      threads: hands.length + 1,
      queue: 0,
      piece: 0,
      finished: 0,
      looks: 0,
      pieces: 0,
      wakes: false,
      repeatable: false,
      run,
      wake: () => {
        Atomics.notify(words, EPOCH);
      },
      hasWaitedEnough: (looks, word, value) => {
        if (looks < LOOKS) return false;
        if (looks === LOOKS) this.#since = performance.now();
        // Nobody notifies that word: this only gives the core to a worker that has none.
        if (mayWait) Atomics.wait(words, word, value, NAP);
        const most = this.#me.repeatable ? PATIENCE : PATIENCE_IN_PLACE;
        return performance.now() - this.#since > most;
      },
    };
  }

  /** How many threads compute. */
  get threads(): number {
    return this.#hands.length + 1;
  }

  /**
   * Into how many pieces some work is cut, if at most `most` are possible; 1 if this thread is to do it alone. It is while
   * all workers sleep and there is too little work to wake them: all pieces in one thread take longer than the whole.
   */
  pieces(work: number, most?: number): number {
    const { length } = this.#hands;
    const pieces = length === 0 ? 1 : piecesOf(work, most);
    if (pieces === 1) return 1;
    const asleep = Atomics.load(this.#words, SLEEPERS);
    if (asleep > 0) {
      this.#asleep += work;
      this.#wakes = this.#asleep >= WAKE;
      if (this.#wakes) this.#asleep = 0;
      else if (asleep >= length) return 1;
    }
    return pieces;
  }

  /**
   * Does the job that is described, all its pieces. `repeatable` says that a piece may be done twice: that what it reads
   * is not what it writes. Throws StateError if a worker has thrown, or if one has not finished a piece that is not
   * repeatable; later calls go on with this thread alone.
   */
  run(pieces: number, repeatable: boolean): void {
    const me = this.#me;
    me.at = "count";
    me.pieces = pieces;
    me.wakes = this.#wakes;
    me.repeatable = repeatable;
    this.#wakes = false;
    while (callerStep(me)) {}
    const isGivenUp = (me.at as string) === "given up";
    const isLost = isGivenUp && !repeatable;
    const isOver = isLost || Atomics.load(this.#words, FAILED) !== 0;
    if (isGivenUp || isOver) this.close();
    if (isOver) {
      const got = isLost ? "one that stopped" : "one that failed";
      throw new StateError("kernels", "workers that compute", got);
    }
  }

  /** Ends the workers. Later calls go on with this thread alone. */
  close(): void {
    if (this.#hands.length === 0) return;
    stopWorkers(this.#words);
    for (const hand of this.#hands) hand.end();
    this.#hands = [];
  }
}

/** Whether this thread may sleep: the main thread of a page may not. */
function canWait(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}
