// How the caller waits for a worker that has begun a piece.

/** How often it looks whether the piece is done before it lets the system have its core. */
export const LOOKS = 2000;
/** Milliseconds for which it leaves the core to others each time. */
export const NAP = 0.05;
/** Milliseconds after which it does the piece again, where that is safe, and gives workers up. */
export const PATIENCE = 3000;
/**
 * The same where the piece writes to what it reads, so that nobody can do it again: the call then throws. This is longer,
 * because a worker that is only late still finishes the result.
 */
export const PATIENCE_IN_PLACE = 30000;
