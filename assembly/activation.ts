// The gradient of an activation: g = dy where low < (x - center)·scale + shift [+ add] < high, else 0. That value is
// the one that affine.ts gave the activation. It is worked out again here, with the same bits, unless the forward
// traversal kept what is needed of it (bits.ts). `add` is the address of the residual, 0 if there is none. g may be
// dy or add.

import { SCALE, SHIFT } from "./blocks";
import { storeFirst } from "./lanes";

// @ts-ignore: decorator
@inline
function affine(x: v128, center: v128, scale: v128, shift: v128): v128 {
  return f32x4.add(f32x4.mul(f32x4.sub(x, center), scale), shift);
}

/** All bits set where low < v < high, else none. */
// @ts-ignore: decorator
@inline export function within(v: v128, low: v128, high: v128): v128 {
  return v128.and(f32x4.lt(low, v), f32x4.lt(v, high));
}

/**
 * The same where 0 <= low < high. The bits of floats from 0 on, read as integers, are in the order of the floats (IEEE
 * 754); those of NaN and of floats below 0 are, without a sign, greater than all of these. So the bits of v + `from` are
 * the smallest signed integer for the first value above low, and the following ones for those after it. `from` is
 * `lowest(low)`, and `to` is that plus the bits of high.
 */
// @ts-ignore: decorator
@inline export function withinBits(v: v128, from: v128, to: v128): v128 {
  return i32x4.lt_s(i32x4.add(v, from), to);
}

/** What takes the bits of the first value above `low` to the smallest integer. -0 counts as 0. */
// @ts-ignore: decorator
@inline export function lowest(low: f32): i32 {
  return I32.MAX_VALUE & ~reinterpret<i32>(low);
}

/** dy where low < v < high, else 0. */
// @ts-ignore: decorator
@inline
function passed(v: v128, dy: usize, low: v128, high: v128): v128 {
  return v128.and(within(v, low, high), v128.load(dy));
}

/** Runs of `width` values, `stride` bytes apart. Each value has the terms of its column or, if `splat`, the first terms. */
function gate(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize, splat: bool,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const bytes = <usize>width << 2;
  let center = v128.load32_splat(terms), scale = v128.load32_splat(terms, SCALE), shift = v128.load32_splat(terms, SHIFT);
  for (let i: u32 = 0; i < rows; i++) {
    for (let c: usize = 0; c < bytes; c += 16) {
      if (!splat) {
        center = v128.load(terms + c);
        scale = v128.load(terms + c, SCALE);
        shift = v128.load(terms + c, SHIFT);
      }
      let v = affine(v128.load(x + c), center, scale, shift);
      if (add) v = f32x4.add(v, v128.load(add + c));
      const kept = passed(v, dy + c, l, h);
      if (c + 16 <= bytes) v128.store(g + c, kept);
      else storeFirst(g + c, kept, width & 3);
    }
    g += stride;
    dy += stride;
    x += stride;
    if (add) add += stride;
  }
}

/** For rows, one vector after the other. */
export function gateRows(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize,
): void {
  gate(g, dy, x, add, terms, low, high, rows, width, stride, false);
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. */
export function gatePlanes(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  for (let plane: u32 = 0; plane < planes; plane++) {
    const t = terms + (<usize>first << 2);
    eights(
      g, dy, x, add, v128.load32_splat(t), v128.load32_splat(t, SCALE), v128.load32_splat(t, SHIFT), l, h, inner >> 3,
    );
    const at = <usize>(inner & ~7) << 2, bytes = <usize>inner << 2;
    gate(g + at, dy + at, x + at, add ? add + at : 0, t, low, high, 1, inner & 7, 0, true);
    g += bytes;
    dy += bytes;
    x += bytes;
    if (add) add += bytes;
    if (++first == channels) first = 0;
  }
}

/** Eight values of a plane, n times. Limits come as vectors: V8 would otherwise make these anew each time. */
function eights(
  g: usize, dy: usize, x: usize, add: usize,
  center: v128, scale: v128, shift: v128, low: v128, high: v128, n: u32,
): void {
  for (; n > 0; n--) {
    let v = affine(v128.load(x), center, scale, shift), v1 = affine(v128.load(x, 16), center, scale, shift);
    if (add) {
      v = f32x4.add(v, v128.load(add));
      v1 = f32x4.add(v1, v128.load(add, 16));
      add += 32;
    }
    v128.store(g, passed(v, dy, low, high));
    v128.store(g, passed(v1, dy + 16, low, high), 16);
    g += 32;
    dy += 32;
    x += 32;
  }
}
