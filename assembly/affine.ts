// y = (x - center)·scale + shift. Each operation rounds once, so every kernel of this file gives a value the
// same bits.
//
// `center` is the mean rounded to float32; `shift` makes up for what was rounded off (channel.ts). Near the
// mean, x - center is exact (Sterbenz 1974, "Floating-Point Computation", theorem 4.3.1). The shorter form
// x·scale + (shift - center·scale) would lose digits there. `terms` points to the centers; the scales and
// the shifts lie SCALE and SHIFT bytes behind them.
//
// A residual is added, if `add` is an address and not 0, and the value is then limited to the range from `low` to `high`,
// which may be infinite. Each of these rounds once as well, as in separate passes. Where data are in cache, every
// instruction counts. So there is a loop for the formula alone, one that also limits from below, which is ReLU, and one
// that does everything (`affineSweep`, for rows).

import { halfOf, pairsOf, SCALE, SHIFT, stripOf } from "./blocks";
import { limit, storeFirst } from "./lanes";

// @ts-ignore: decorator
@inline
function affine(x: v128, center: v128, scale: v128, shift: v128): v128 {
  return f32x4.add(f32x4.mul(f32x4.sub(x, center), scale), shift);
}

/** Four values, limited from below. */
// @ts-ignore: decorator
@inline
function floored(x: v128, center: v128, scale: v128, shift: v128, low: v128): v128 {
  return f32x4.pmax(affine(x, center, scale, shift), low);
}

/** Four values with all that may follow. The residual is at `at`, if `add` is not 0. */
// @ts-ignore: decorator
@inline
function whole(
  x: v128, add: usize, at: usize, center: v128, scale: v128, shift: v128, low: v128, high: v128,
): v128 {
  let v = affine(x, center, scale, shift);
  if (add) v = f32x4.add(v, v128.load(at));
  return limit(v, low, high);
}

/**
 * For rows that are in cache. They are cut into strips of 16 columns; the terms of a strip stay in registers
 * while it is walked down `stripOf` rows. y may be x or add.
 */
export function affineStrips(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  // In cache too, pairs of rows are about as fast as strips where all is done.
  if (add || high < Infinity) affineSweep(y, x, add, terms, low, high, rows, width, stride);
  else strips(low > -Infinity, y, x, terms, low, rows, width, stride);
}

// @ts-ignore: decorator
@inline
function strips(
  floors: bool, y: usize, x: usize, terms: usize, low: f32, rows: u32, width: u32, stride: usize,
): void {
  const l = f32x4.splat(low);
  while (rows) {
    const n = min(rows, stripOf(stride));
    let c: u32 = 0;
    let column: usize = 0;
    for (; c + 16 <= width; c += 16) {
      const t = terms + column;
      const center0 = v128.load(t), center1 = v128.load(t, 16);
      const center2 = v128.load(t, 32), center3 = v128.load(t, 48);
      const scale0 = v128.load(t, SCALE), scale1 = v128.load(t, SCALE + 16);
      const scale2 = v128.load(t, SCALE + 32), scale3 = v128.load(t, SCALE + 48);
      const shift0 = v128.load(t, SHIFT), shift1 = v128.load(t, SHIFT + 16);
      const shift2 = v128.load(t, SHIFT + 32), shift3 = v128.load(t, SHIFT + 48);
      let p = x + column, q = y + column;
      let left = n;
      if (floors) {
        for (; left; left--) {
          v128.store(q, floored(v128.load(p), center0, scale0, shift0, l));
          v128.store(q, floored(v128.load(p, 16), center1, scale1, shift1, l), 16);
          v128.store(q, floored(v128.load(p, 32), center2, scale2, shift2, l), 32);
          v128.store(q, floored(v128.load(p, 48), center3, scale3, shift3, l), 48);
          p += stride;
          q += stride;
        }
      } else {
        for (; left; left--) {
          v128.store(q, affine(v128.load(p), center0, scale0, shift0));
          v128.store(q, affine(v128.load(p, 16), center1, scale1, shift1), 16);
          v128.store(q, affine(v128.load(p, 32), center2, scale2, shift2), 32);
          v128.store(q, affine(v128.load(p, 48), center3, scale3, shift3), 48);
          p += stride;
          q += stride;
        }
      }
      column += 64;
    }
    if (c < width) rest(y + column, x + column, 0, terms + column, low, Infinity, n, width - c, stride);
    rows -= n;
    y += <usize>n * stride;
    x += <usize>n * stride;
  }
}

/** Takes what strips and pairs of rows leave over: row after row, one vector at a time. */
function rest(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const bytes = <usize>width << 2;
  for (let i: u32 = 0; i < rows; i++) {
    for (let c: usize = 0; c < bytes; c += 16) {
      const scale = v128.load(terms + c, SCALE), shift = v128.load(terms + c, SHIFT);
      const v = whole(v128.load(x + c), add, add + c, v128.load(terms + c), scale, shift, l, h);
      if (c + 16 <= bytes) v128.store(y + c, v);
      else storeFirst(y + c, v, width & 3);
    }
    x += stride;
    y += stride;
    if (add) add += stride;
  }
}

/** For rows that are not in cache. They are taken in pairs, one from each half (`halfOf`). y may be x or add. */
export function affineSweep(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const bytes = <usize>(width >> 2) << 4;
  const lanes = width & 3;
  const half = halfOf(rows), pairs = pairsOf(rows);
  const apart = <usize>half * stride;
  for (let i: u32 = 0; i < pairs; i++) {
    const x1 = x + apart, y1 = y + apart, add1 = add + apart;
    for (let c: usize = 0; c < bytes; c += 16) {
      const center = v128.load(terms + c), scale = v128.load(terms + c, SCALE);
      const shift = v128.load(terms + c, SHIFT);
      const v = v128.load(x + c), w = v128.load(x1 + c);
      v128.store(y + c, whole(v, add, add + c, center, scale, shift, l, h));
      v128.store(y1 + c, whole(w, add, add1 + c, center, scale, shift, l, h));
    }
    // The last columns of both.
    if (lanes) rest(y + bytes, x + bytes, add ? add + bytes : 0, terms + bytes, low, high, 2, lanes, apart);
    x += stride;
    y += stride;
    if (add) add += stride;
  }
  rest(y, x, add, terms, low, high, min(half, rows) - pairs, width, stride);
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. y may be x or add. */
export function affinePlanes(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const all = add != 0 || high < Infinity;
  if (all || low > -Infinity) planesOf(all, true, y, x, add, terms, low, high, first, planes, channels, inner);
  else planesOf(false, false, y, x, 0, terms, low, high, first, planes, channels, inner);
}

// @ts-ignore: decorator
@inline
function planesOf(
  all: bool, floors: bool,
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  // From y to the residual.
  const apart = add - y;
  let c = <usize>first << 2;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const center = v128.load32_splat(terms + c), scale = v128.load32_splat(terms + c, SCALE);
    const shift = v128.load32_splat(terms + c, SHIFT);
    let left = inner;
    if (all) {
      for (; left >= 4; left -= 4) {
        v128.store(y, whole(v128.load(x), add, y + apart, center, scale, shift, l, h));
        x += 16;
        y += 16;
      }
    } else if (floors) {
      for (; left >= 16; left -= 16) {
        v128.store(y, floored(v128.load(x), center, scale, shift, l));
        v128.store(y, floored(v128.load(x, 16), center, scale, shift, l), 16);
        v128.store(y, floored(v128.load(x, 32), center, scale, shift, l), 32);
        v128.store(y, floored(v128.load(x, 48), center, scale, shift, l), 48);
        x += 64;
        y += 64;
      }
    } else {
      for (; left >= 16; left -= 16) {
        v128.store(y, affine(v128.load(x), center, scale, shift));
        v128.store(y, affine(v128.load(x, 16), center, scale, shift), 16);
        v128.store(y, affine(v128.load(x, 32), center, scale, shift), 32);
        v128.store(y, affine(v128.load(x, 48), center, scale, shift), 48);
        x += 64;
        y += 64;
      }
    }
    while (left > 0) {
      const n = min<u32>(left, 4);
      let v = floored(v128.load(x), center, scale, shift, l);
      if (all) v = whole(v128.load(x), add, y + apart, center, scale, shift, l, h);
      if (n == 4) v128.store(y, v);
      else storeFirst(y, v, n);
      left -= n;
      x += n << 2;
      y += n << 2;
    }
    c += 4;
    if (c == <usize>channels << 2) c = 0;
  }
}

/**
 * `affineStrips` of the smallest binary (infer.ts), which copies all data, so that bytes count more than a second pass in cache. Its
 * rows lie one after the other, and up to three values more than they have are written.
 */
export function smallStrips(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  strips(false, y, x, terms, -Infinity, rows, width, stride);
  after(y, add, low, high, rows * width);
}

/** `affinePlanes` of the smallest binary. */
export function smallPlanes(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  planesOf(false, false, y, x, 0, terms, -Infinity, Infinity, first, planes, channels, inner);
  after(y, add, low, high, planes * inner);
}

/** Adds a residual to `size` values, if there is one, and limits them. */
function after(y: usize, add: usize, low: f32, high: f32, size: u32): void {
  if (!add && low == -Infinity && high == Infinity) return;
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const bytes = <usize>size << 2;
  for (let c: usize = 0; c < bytes; c += 16) {
    let v = v128.load(y + c);
    if (add) v = f32x4.add(v, v128.load(add + c));
    v128.store(y + c, limit(v, l, h));
  }
}
