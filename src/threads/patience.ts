// How long the caller waits for a worker that has begun a piece (assembly/waiting.ts).

/**
 * Milliseconds after which it gives workers up. It then does the piece again; or throws, where the piece writes to what it
 * reads. A worker that is only late, on a machine with much else to do, is to finish before that.
 */
export const PATIENCE = 10_000;
