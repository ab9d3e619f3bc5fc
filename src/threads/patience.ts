// How long the caller waits for a worker that has begun a piece (assembly/waiting.ts).

/** Milliseconds after which it does the piece again, where that is safe, and gives workers up. */
export const PATIENCE = 3000;
/**
 * The same where the piece writes to what it reads, so that nobody can do it again: the call then throws. This is longer,
 * because a worker that is only late still finishes the result.
 */
export const PATIENCE_IN_PLACE = 30000;
