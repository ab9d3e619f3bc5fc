// Helpers on SIMD lanes, shared by the kernels. Everything here is inlined.

/** The two float32 at `p`, as float64. On x86 the load and the conversion are one instruction. */
// @ts-ignore: decorator
@inline export function widen(p: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(p));
}

/** The third and the fourth float32 at `p`, as float64. */
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

/** Adds the four float32 lanes of `v` to four float64 sums in memory. */
// @ts-ignore: decorator
@inline export function accumulate(sum: usize, v: v128): void {
  v128.store(sum, f64x2.add(v128.load(sum), low(v)));
  v128.store(sum, f64x2.add(v128.load(sum, 16), high(v)), 16);
}

/** Adds the two float64 at `more` to those at `sum`. */
// @ts-ignore: decorator
@inline export function addTo(sum: usize, more: usize): void {
  v128.store(sum, f64x2.add(v128.load(sum), v128.load(more)));
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

/**
 * min(max(v, low), high) of each lane; NaN stays NaN. pmin and pmax are one instruction each, min and max
 * about ten.
 */
// @ts-ignore: decorator
@inline export function limit(v: v128, low: v128, high: v128): v128 {
  return f32x4.pmin(f32x4.pmax(v, low), high);
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
