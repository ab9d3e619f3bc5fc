// Thresholds of threads. Where nothing else is said, they were chosen by measuring; the measurements are in docs/tuning.md.

/** Work of less than this stays on the caller's thread. Work is measured in values of the kernel of `infer`. */
export const ALONE = 40960;
/** The work for a value in a reduction or in the gradient of x: they take some three times as long. */
export const HEAVY = 3;
/** Calls with tensors of fewer values than this have no traversal that is shared out; `backward` of near planes works twice. */
export const SMALL = ALONE / (2 * HEAVY);
/** Work that a piece has at least. */
export const PIECE = 32768;
/** Pieces that a call has at most. With more of them, a thread reads shorter runs of memory, and takes longer. */
export const MOST = 16;
/**
 * Up to this many values, tensors are taken to be in the caches of the cores. Elementwise kernels on planes then work on the
 * same channels as the reductions before them, and reductions of rows are cut by columns.
 */
export const CACHED = 524288;
/** Columns that a piece of such a reduction has at least, unless there are only two pieces: rows are read in longer runs then. */
export const RUN = 256;
/**
 * Workers that sleep are woken once there has been this much work since they fell asleep. Less is done by one thread before
 * they are awake.
 */
export const WAKE = 2097152;
/**
 * From this many values on, the ordinary arrays of `train` and `backward` may be held in shared memory. Not measured against
 * others: smaller ones go through the stream buffers in four parts at most.
 */
export const HELD = 262144;
/** So many calls of a kind are held and not held in turn; after them it is known which is faster. A guess, as is LATE. */
export const EARLY = 8;
/** Later on, one call of so many is one of these turns. It is odd, so that both ways get theirs. */
export const LATE = 15;
