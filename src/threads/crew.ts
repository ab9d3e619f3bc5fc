// The workers of kernels: how many there are, what ends them, and what it means when one is late. What they do is in
// assembly/crew.ts and assembly/protocol.ts.

import { StateError } from "../errors.js";
import type { Hand } from "./spawn.js";

/** Workers on the memory of a machine. */
export interface Crew {
  /** The workers that compute besides the caller. */
  readonly hands: Hand[];
  /** Ends the workers, wherever they are. Later calls go on with this thread alone. */
  close(): void;
  /** Does the same, because one is late. Throws StateError if nobody else can do what it has begun (`isLost`). */
  over(isLost: number): void;
}

/** A crew without workers yet. `stop` says that there are none any more. */
export function crewOf(stop: () => void): Crew {
  const hands: Hand[] = [];
  const close = (): void => {
    stop();
    for (const hand of hands.splice(0)) hand.terminate();
  };
  return {
    hands,
    close,
    over(isLost) {
      close();
      if (isLost) throw new StateError("kernels", "workers that compute", "one that stopped");
    },
  };
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
