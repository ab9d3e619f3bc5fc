// Thresholds of threads that were chosen by measuring; the measurements are in docs/tuning.md.

/** Work of less than this stays on the caller's thread. Work is measured in values of the kernel of `infer`. */
export const ALONE = 40960;
/** The work for a value in a reduction or in the gradient of x: they take some three times as long. */
export const HEAVY = 3;
/** Work that a piece has at least. */
export const PIECE = 32768;
/** Pieces that a call has at most. With more of them, a thread reads shorter runs of memory, and takes longer. */
export const MOST = 16;
/**
 * Up to this many values, tensors are taken to be in the caches of the cores. Elementwise kernels then work on the same
 * columns or channels as the reductions before them, and sums of a gradient in rows are cut at all.
 */
export const CACHED = 524288;
/**
 * Workers that sleep are woken once there has been this much work since: waking costs the caller as much time as some
 * 200,000 values.
 */
export const WAKE = 262144;
