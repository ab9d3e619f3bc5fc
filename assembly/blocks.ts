// How data are cut so that kernels find them in the caches: how large a block is, how many rows a strip goes
// down, and which rows are taken together. All of this follows from the dimensions and never from an address,
// so the same data give the same bits wherever they lie. The measurements are in docs/tuning.md.
//
// Kernels read whole vectors, also at the end of a row or a plane, and ignore the lanes past the end. For
// that, a few readable bytes lie behind everything that a kernel is given (SLACK in src/engine/memory.ts).

/** Rows of at most this many columns count as narrow: hardware reads four neighbouring ones as one stream. */
export const NARROW: u32 = 64;
/**
 * Rows in a block of narrow rows when one tensor is reduced. The block is read twice, so it has to fit the first-level
 * cache. Blocks of other rows have a multiple of so many.
 */
const BLOCK_ROWS: u32 = 64;
/**
 * Values in a block of wide rows when one tensor is reduced. The block is read twice, so it has to fit the
 * second-level cache.
 */
const BLOCK_ONE: u32 = 131072;
/** Values of each tensor in a block of rows when two tensors are reduced together. Each is read once. */
const BLOCK_TWO: u32 = 65536;
/** Values in a block of a plane. The block is read twice, so it has to fit the first-level cache. */
export const BLOCK_PLANE: u32 = 4096;

/** How many rows of `width` columns make a block when one tensor is reduced. src/engine/plan.ts has the same function. */
// @ts-ignore: decorator
@inline export function rowsOfOne(width: u32): u32 {
  return width <= NARROW ? BLOCK_ROWS : BLOCK_ONE / BLOCK_ROWS / width * BLOCK_ROWS;
}

/** The same when two tensors are reduced together. */
// @ts-ignore: decorator
@inline export function rowsOfTwo(width: u32): u32 {
  return BLOCK_TWO / BLOCK_ROWS / width * BLOCK_ROWS;
}

/** Bytes from one scratch array to the next; src/engine/memory.ts leaves room for six. */
export const SCRATCH: usize = 4432;

/**
 * Bytes from one array of the terms to the next. The arrays are center, scale, shift and slope, in this order
 * (src/engine/memory.ts).
 */
const TERM: usize = 4480;
export const SCALE: usize = TERM;
export const SHIFT: usize = 2 * TERM;
export const SLOPE: usize = 3 * TERM;

/**
 * In rows of at least this many bytes, strips of columns go down fewer rows. The reason: of rows that lie a
 * multiple of 4 KB apart, the cache keeps only eight lines.
 */
const LONG: usize = 512;

/** How many rows a strip of columns goes down, if the rows lie `stride` bytes apart. */
// @ts-ignore: decorator
@inline export function stripOf(stride: usize): u32 {
  return stride < LONG ? 64 : 8;
}

/**
 * Reductions take four rows of a block together. Returns how many bytes it is from one of the four to the
 * next. Narrow rows are neighbours. Wide rows come from the four quarters of the block, because hardware reads
 * ahead in four streams that are in different pages of memory, but not in four within one page.
 */
// @ts-ignore: decorator
@inline export function apartOf(rows: u32, width: u32, stride: usize): usize {
  return width <= NARROW ? stride : <usize>(rows >> 2) * stride;
}

/** How many bytes it is from the first of four such rows to the first of the next four. */
// @ts-ignore: decorator
@inline export function stepOf(width: u32, stride: usize): usize {
  return width <= NARROW ? stride << 2 : stride;
}

/** How many bytes it is from where the last of these steps ends to the rows that fours leave over. */
// @ts-ignore: decorator
@inline export function lastOf(apart: usize, width: u32): usize {
  return width <= NARROW ? 0 : 3 * apart;
}

/**
 * Rows that are not in cache are taken in pairs, one from each half, because memory serves two ascending
 * streams better than one. Returns how many rows further on the second row of a pair is. The number is odd,
 * so that the two seldom compete for the same place of the cache, and at least half of all rows, so that no
 * row is taken twice.
 */
// @ts-ignore: decorator
@inline export function halfOf(rows: u32): u32 {
  return ((rows + 1) >> 1) | 1;
}

/** How many such pairs there are. The rows of the first half that have no partner are left over. */
// @ts-ignore: decorator
@inline export function pairsOf(rows: u32): u32 {
  return rows - min(rows, halfOf(rows));
}
