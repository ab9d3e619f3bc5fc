// y = (x - center)·scale + shift. Each operation rounds once, so every kernel of this file gives a value the
// same bits.
//
// `center` is the mean rounded to float32; `shift` makes up for what was rounded off (channel.ts). Near the
// mean, x - center is exact (Sterbenz 1974, "Floating-Point Computation", theorem 4.3.1). The shorter form
// x·scale + (shift - center·scale) would lose digits there. `terms` points to the centers; the scales and
// the shifts lie SCALE and SHIFT bytes behind them.
//
// A residual is added, if `add` is an address and not 0, and the value is then limited to the range from `low` to `high`,
// which may be infinite. Each of these rounds once as well, as in separate passes. The fast loops are made twice from the
// same source, without limits and with a lower one; what a loop does to a value is a constant when it is compiled. All
// else takes shorter loops that do everything (`whole`).

import { halfOf, pairsOf, SCALE, SHIFT, stripOf } from "./blocks";
import { limit, storeFirst } from "./lanes";

/**
 * What a loop does with γ·x̂ + β: nothing; limits it from below; or adds a residual, if there is one, and limits the
 * sum from both sides. Most limits are ReLU without a residual, and three instructions less count in cache.
 */
const ALONE = 0, FLOORED = 1, WHOLE = 2;

/** Four values. The residual is at `at`, if `add` is not 0. */
// @ts-ignore: decorator
@inline
function affine(
  what: i32, x: v128, add: usize, at: usize, center: v128, scale: v128, shift: v128, low: v128, high: v128,
): v128 {
  let v = f32x4.add(f32x4.mul(f32x4.sub(x, center), scale), shift);
  if (what == ALONE) return v;
  if (what == FLOORED) return f32x4.pmax(v, low);
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
  if (add || high < Infinity) whole(y, x, add, terms, low, high, rows, width, stride);
  else if (low > -Infinity) floored(y, x, terms, low, rows, width, stride);
  else alone(y, x, terms, rows, width, stride);
}

// Two functions, since from two calls in one the compiler makes a single loop, which decides for every value anew.
function floored(y: usize, x: usize, terms: usize, low: f32, rows: u32, width: u32, stride: usize): void {
  strips(FLOORED, y, x, terms, low, rows, width, stride);
}

function alone(y: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize): void {
  strips(ALONE, y, x, terms, -Infinity, rows, width, stride);
}

/** `affineStrips` of the small binary, which copies all data, so that bytes count more than two instructions. */
export function smallStrips(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  if (add || high < Infinity || low > -Infinity) whole(y, x, add, terms, low, high, rows, width, stride);
  else alone(y, x, terms, rows, width, stride);
}

// @ts-ignore: decorator
@inline
function strips(
  what: i32, y: usize, x: usize, terms: usize, low: f32, rows: u32, width: u32, stride: usize,
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
      for (let i: u32 = 0; i < n; i++) {
        v128.store(q, affine(what, v128.load(p), 0, 0, center0, scale0, shift0, l, l));
        v128.store(q, affine(what, v128.load(p, 16), 0, 0, center1, scale1, shift1, l, l), 16);
        v128.store(q, affine(what, v128.load(p, 32), 0, 0, center2, scale2, shift2, l, l), 32);
        v128.store(q, affine(what, v128.load(p, 48), 0, 0, center3, scale3, shift3, l, l), 48);
        p += stride;
        q += stride;
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
      const v = affine(WHOLE, v128.load(x + c), add, add + c, v128.load(terms + c), scale, shift, l, h);
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
  // From memory, a lower limit costs no time.
  if (add || high < Infinity) whole(y, x, add, terms, low, high, rows, width, stride);
  else sweep(FLOORED, y, x, 0, terms, low, high, rows, width, stride);
}

/** In cache too, pairs of rows are about as fast as strips where all is done. */
function whole(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  sweep(WHOLE, y, x, add, terms, low, high, rows, width, stride);
}

// @ts-ignore: decorator
@inline
function sweep(
  what: i32,
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
      v128.store(y + c, affine(what, v, add, add + c, center, scale, shift, l, h));
      v128.store(y1 + c, affine(what, w, add, add1 + c, center, scale, shift, l, h));
    }
    if (lanes) {
      rest(y + bytes, x + bytes, add ? add + bytes : 0, terms + bytes, low, high, 1, lanes, stride);
      rest(y1 + bytes, x1 + bytes, add ? add1 + bytes : 0, terms + bytes, low, high, 1, lanes, stride);
    }
    x += stride;
    y += stride;
    if (what == WHOLE && add) add += stride;
  }
  rest(y, x, add, terms, low, high, min(half, rows) - pairs, width, stride);
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. y may be x or add. */
export function affinePlanes(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  if (add || high < Infinity) planesOf(WHOLE, y, x, add, terms, low, high, first, planes, channels, inner);
  else if (low > -Infinity) planesOf(FLOORED, y, x, 0, terms, low, high, first, planes, channels, inner);
  else planesOf(ALONE, y, x, 0, terms, low, high, first, planes, channels, inner);
}

/** `affinePlanes` of the small binary. */
export function smallPlanes(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  if (add || high < Infinity || low > -Infinity) {
    planesOf(WHOLE, y, x, add, terms, low, high, first, planes, channels, inner);
  } else planesOf(ALONE, y, x, 0, terms, low, high, first, planes, channels, inner);
}

// @ts-ignore: decorator
@inline
function planesOf(
  what: i32,
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  let at = add;
  let c = <usize>first << 2;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const center = v128.load32_splat(terms + c), scale = v128.load32_splat(terms + c, SCALE);
    const shift = v128.load32_splat(terms + c, SHIFT);
    let left = inner;
    if (what == WHOLE) {
      for (; left >= 4; left -= 4) {
        v128.store(y, affine(what, v128.load(x), add, at, center, scale, shift, l, h));
        x += 16;
        y += 16;
        at += 16;
      }
    } else {
      for (; left >= 16; left -= 16) {
        v128.store(y, affine(what, v128.load(x), 0, 0, center, scale, shift, l, h));
        v128.store(y, affine(what, v128.load(x, 16), 0, 0, center, scale, shift, l, h), 16);
        v128.store(y, affine(what, v128.load(x, 32), 0, 0, center, scale, shift, l, h), 32);
        v128.store(y, affine(what, v128.load(x, 48), 0, 0, center, scale, shift, l, h), 48);
        x += 64;
        y += 64;
      }
    }
    while (left > 0) {
      const n = min<u32>(left, 4);
      const v = affine(what, v128.load(x), add, at, center, scale, shift, l, h);
      if (n == 4) v128.store(y, v);
      else storeFirst(y, v, n);
      left -= n;
      x += n << 2;
      y += n << 2;
      if (what == WHOLE) at += n << 2;
    }
    c += 4;
    if (c == <usize>channels << 2) c = 0;
  }
}
