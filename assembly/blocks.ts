// How data are cut so that caches serve them: sizes of blocks, heights of strips, which rows are taken
// together. What decides is the dimensions alone, never an address, so that bits depend on nothing else.
// The measurements behind each number are in docs/tuning.md.
//
// Kernels read whole vectors past the end of a row or a plane and ignore the lanes that are not theirs:
// memory keeps a few readable bytes behind everything that a kernel is given (SLACK in src/engine/memory.ts).

/** Columns up to which rows count as narrow: four neighbouring ones then lie in one stream of memory. */
const NARROW: u32 = 64;
/** Rows in a block of narrow rows, which is read twice from the first-level cache. */
const BLOCK_ROWS: u32 = 64;
/** Values in a block of wide rows where one tensor is reduced; it is read twice, so it has to fit the second-level cache. */
export const BLOCK_ONE: u32 = 131072;
/** Values of each tensor in a block of wide rows where two are reduced together; each is read once. */
export const BLOCK_TWO: u32 = 65536;
/** Values in a block of a plane, which is read twice from the first-level cache. */
export const BLOCK_PLANE: u32 = 4096;

/** How many rows of `width` columns make a block of at most `values` values; src/engine/plan.ts has the same. */
// @ts-ignore: decorator
@inline export function rowsOf(width: u32, values: u32): u32 {
  return width <= NARROW ? BLOCK_ROWS : values / BLOCK_ROWS / width * BLOCK_ROWS;
}

/** Bytes from one scratch array to the next; src/engine/memory.ts leaves room for six. */
export const SCRATCH: usize = 4432;

/** Bytes from `center` to `scale`, to `shift`, to `slope`, as src/engine/memory.ts lays them out. */
const TERM: usize = 4480;
export const SCALE: usize = TERM;
export const SHIFT: usize = 2 * TERM;
export const SLOPE: usize = 3 * TERM;

/** Bytes of a row from which strips of columns go down fewer rows: the cache keeps only eight lines of rows whose distance is a multiple of 4 KB. */
const LONG: usize = 512;

/** Down how many rows a strip of columns goes, for rows `stride` bytes apart. */
// @ts-ignore: decorator
@inline export function stripOf(stride: usize): u32 {
  return stride < LONG ? 64 : 8;
}

/**
 * Reductions take four rows of a block together. This is how far apart these are, in bytes: narrow ones are
 * neighbours; wide ones come from the four quarters of the block, since hardware follows four streams in
 * different pages but not four within one.
 */
// @ts-ignore: decorator
@inline export function apartOf(rows: u32, width: u32, stride: usize): usize {
  return width <= NARROW ? stride : <usize>(rows >> 2) * stride;
}

/** How far it is, in bytes, from four such rows to the next four. */
// @ts-ignore: decorator
@inline export function stepOf(width: u32, stride: usize): usize {
  return width <= NARROW ? stride << 2 : stride;
}

/** How far it is, in bytes, from where those steps end to the rows that are left over. */
// @ts-ignore: decorator
@inline export function lastOf(apart: usize, width: u32): usize {
  return width <= NARROW ? 0 : 3 * apart;
}

/**
 * Rows that are not in cache are taken in pairs, one from each half, since memory serves two ascending
 * streams better than one. This is how many rows lie between the two of a pair: odd, so that they seldom
 * fall on the same place of the cache, and at least half of all, so that no row is taken twice.
 */
// @ts-ignore: decorator
@inline export function halfOf(rows: u32): u32 {
  return ((rows + 1) >> 1) | 1;
}

/** How many such pairs there are; the rows behind them, up to `halfOf`, are left over. */
// @ts-ignore: decorator
@inline export function pairsOf(rows: u32): u32 {
  return rows - min(rows, halfOf(rows));
}
