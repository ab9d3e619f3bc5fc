// The workers of kernels: how many there are, what ends them, and what it means when one has failed. What they do is in
// assembly/crew.ts and assembly/protocol.ts.

import { StateError } from "../errors.js";
import { end, type Hand } from "./spawn.js";

/** Workers on the memory of a machine. */
export interface Crew {
  hands: Hand[];
  /** How many threads compute. */
  readonly threads: number;
  /** Ends the workers. Later calls go on with this thread alone. */
  close(): void;
  /**
   * Ends the workers of a job that is over. Throws StateError if one did not finish a piece that nobody can do again
   * (`isLost`), or if a piece threw in one.
   */
  over(isLost: number, hasFailed: number): void;
}

/** A crew without workers yet. `stop` tells them to end. */
export function crewOf(stop: () => void): Crew {
  const crew: Crew = {
    hands: [],
    get threads() {
      return crew.hands.length + 1;
    },
    close() {
      if (crew.hands.length === 0) return;
      stop();
      crew.hands.forEach(end);
      crew.hands = [];
    },
    over(isLost, hasFailed) {
      crew.close();
      if (isLost || hasFailed) {
        const got = isLost ? "one that stopped" : "one that failed";
        throw new StateError("kernels", "workers that compute", got);
      }
    },
  };
  return crew;
}

/** Whether this thread may sleep: the main thread of a page may not. */
export function canWait(words: Int32Array): boolean {
  try {
    Atomics.wait(words, 0, 0, 0);
    return true;
  } catch {
    return false;
  }
}
