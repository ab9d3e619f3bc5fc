// The workers of kernels: how many there are, what ends them, and what it means when one has failed. What they do is in
// assembly/crew.ts and assembly/protocol.ts.

import { StateError } from "../errors.js";
import { end, type Hand } from "./spawn.js";

/** Workers on the memory of a machine. */
export interface Crew {
  /** The workers that compute besides the caller. */
  hands: Hand[];
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

/** 1 if this thread may sleep; 0 if not, as the main thread of a page. */
export function canWait(words: Int32Array): 0 | 1 {
  try {
    Atomics.wait(words, 0, 0, 0);
    return 1;
  } catch {
    return 0;
  }
}
