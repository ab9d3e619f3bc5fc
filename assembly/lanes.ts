// Helpers on SIMD lanes shared by the kernels. Everything here is inlined.
//
// Kernels read whole vectors past the end of a row or plane and ignore the lanes that are not
// theirs; the memory keeps SLACK bytes behind everything that a kernel may be given.

/**
 * Columns up to which rows are narrow: a block of them is read twice from L1, and four that are taken
 * together are neighbours. Nanoseconds for four values of moments from memory, so and as wide ones: 64
 * columns 1.16 and 1.34; wide and so: 128 columns 1.5 and 2.6.
 */
const NARROW: u32 = 64;
/** Rows in a block of narrow ones. */
const BLOCK_ROWS: u32 = 64;
/**
 * Values in a block of wide ones where one tensor is reduced: 512 KiB, read twice from the second cache.
 * Nanoseconds for four values of moments, so and by 256 KiB: [1024, 1024] 0.99 and 1.04, [16384, 256] 0.98
 * and 1.00; by 1 MiB, all of that cache, 0.97 and 1.01. In 64 rows 256 columns took 1.05, from memory 1.27.
 */
export const BLOCK_ONE: u32 = 131072;
/** And where two are, each read once: 256 KiB of each. Only which rows are taken together depends on it. */
export const BLOCK_TWO: u32 = 65536;

/** Rows in a block of `values`; run.ts has the same. */
// @ts-ignore: decorator
@inline export function rowsOf(width: u32, values: u32): u32 {
  return width <= NARROW ? BLOCK_ROWS : values / BLOCK_ROWS / width * BLOCK_ROWS;
}

/** Values in a block of a plane: 16 KiB, so that the second reading finds it in L1. */
export const BLOCK_PLANE: u32 = 4096;

/** Bytes from one scratch array to the next: MAX_COLUMNS float32, staggered as memory.ts does. */
export const SCRATCH: usize = 4096 + 336;

/** Bytes of a row from which strips of columns go down fewer rows. */
const LONG: usize = 512;

/**
 * Rows down which a strip of columns goes, by the bytes from one to the next. The cache keeps 8 lines of
 * those a multiple of 4 KB apart. Nanoseconds for four values, 8 rows and 64, on AMD's Zen 4: of 1024
 * columns 0.53 and 0.68 (in place 0.52 and 1.84), of 512 0.54 and 0.58, of 256 0.55 and 0.56, of 64 0.48 and
 * 0.41; on an Intel Xeon, in its second cache and beyond: of 256 0.41 and 0.48, 1.17 and 1.41 (in place 0.36
 * and 1.08), of 128 0.39 and 0.44, 1.14 and 1.41, of 64 0.36 and 0.34, 1.13 and 1.44. Zen 4 was not measured
 * between 64 columns and 256.
 */
// @ts-ignore: decorator
@inline export function stripOf(stride: usize): u32 {
  return stride < LONG ? 64 : 8;
}

/**
 * How far apart the four rows of a block are that a reduction takes together, vector after vector in
 * ascending order, which the prefetchers of the memory follow. Neighbours if they are narrow: one stream.
 * Of wider ones four neighbours would be four streams within a page, which are not followed: they come
 * from the quarters of the block.
 */
// @ts-ignore: decorator
@inline export function apartOf(rows: u32, width: u32, stride: usize): usize {
  return width <= NARROW ? stride : <usize>(rows >> 2) * stride;
}

/** From four such rows to the next four. */
// @ts-ignore: decorator
@inline export function stepOf(width: u32, stride: usize): usize {
  return width <= NARROW ? stride << 2 : stride;
}

/** From where the steps end to the rows that make no four. */
// @ts-ignore: decorator
@inline export function lastOf(apart: usize, width: u32): usize {
  return width <= NARROW ? 0 : 3 * apart;
}

/**
 * From a row of the first half to the one that goes with it where rows are not in cache: memory serves two
 * ascending streams better than one. Nanoseconds for four values, two and one: affine [16384, 256] 1.1 and
 * 1.3, gradient [100352, 64] 1.8 and 2.0. Odd, so that the two are not always at the same place of the
 * cache: gradient [4096, 512] 1.4, and 1.6 otherwise. At least half of them, so that none is taken twice.
 */
// @ts-ignore: decorator
@inline export function halfOf(rows: u32): u32 {
  return ((rows + 1) >> 1) | 1;
}

/** How many such pairs there are; the rows that follow them, up to `halfOf`, are left over. */
// @ts-ignore: decorator
@inline export function pairsOf(rows: u32): u32 {
  return rows - min(rows, halfOf(rows));
}

/** Two float32 in memory as float64; the load and the conversion are one instruction on x86. */
// @ts-ignore: decorator
@inline export function widen(p: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(p));
}

/** The two that follow them. */
// @ts-ignore: decorator
@inline export function widenNext(p: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(p, 8));
}

/** Lanes 0 and 1 as float64. */
// @ts-ignore: decorator
@inline export function low(v: v128): v128 {
  return f64x2.promote_low_f32x4(v);
}

/** Lanes 2 and 3 as float64. */
// @ts-ignore: decorator
@inline export function high(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<i32>(v, v, 2, 3, 2, 3));
}

/** Adds four float32 to four float64 sums in memory. */
// @ts-ignore: decorator
@inline export function accumulate(sum: usize, v: v128): void {
  v128.store(sum, f64x2.add(v128.load(sum), low(v)));
  v128.store(sum, f64x2.add(v128.load(sum, 16), high(v)), 16);
}

/** Stores the first `lanes` (1 to 3) lanes of `v`. */
// @ts-ignore: decorator
@inline export function storeFirst(to: usize, v: v128, lanes: u32): void {
  if (lanes & 2) {
    v128.store_lane<i64>(to, v, 0);
    if (lanes & 1) v128.store_lane<i32>(to, v, 2, 8);
  } else {
    v128.store_lane<i32>(to, v, 0);
  }
}

/** All bits set in the first `lanes` (0 to 3) lanes, none in the others. */
// @ts-ignore: decorator
@inline export function firstLanes(lanes: u32): v128 {
  return i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(lanes));
}

/** Sum of both float64 lanes. */
// @ts-ignore: decorator
@inline export function sum2(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1);
}
