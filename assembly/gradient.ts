// The gradient of batch normalization (Ioffe & Szegedy 2015, section 3), in two traversals, of which this is the second:
//
//   Σdy, Σdy·(x - mean)                                       per channel, in sums.ts; from them channel.ts makes the terms
//   dx = ((dy - shift) - (x - center)·slope)·scale            with scale = γ/√(σ²+ε),
//        slope = Σdy·(x - mean) / (m·(σ²+ε)),  shift = Σdy/m - (mean - center)·slope
//
// `terms` points to the centers; the scales, shifts and slopes lie SCALE, SHIFT and SLOPE bytes behind them.

import { halfOf, pairsOf, SCALE, SHIFT, SLOPE, stripOf } from "./blocks";
import { storeFirst } from "./lanes";

// @ts-ignore: decorator
@inline
function gradient(dy: v128, x: v128, center: v128, scale: v128, shift: v128, slope: v128): v128 {
  return f32x4.mul(f32x4.sub(f32x4.sub(dy, shift), f32x4.mul(f32x4.sub(x, center), slope)), scale);
}

/** For rows that are in cache, as `affineStrips`, but in strips of 8 columns. dx may be dy. */
export function gradientStrips(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  while (rows) {
    const n = min(rows, stripOf(stride));
    strips(dx, dy, x, terms, n, width, stride);
    rows -= n;
    dx += <usize>n * stride;
    dy += <usize>n * stride;
    x += <usize>n * stride;
  }
}

function strips(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  let at: u32 = 0;
  let column: usize = 0;
  for (; at + 8 <= width; at += 8) {
    const center0 = v128.load(terms + column), center1 = v128.load(terms + column, 16);
    const scale0 = v128.load(terms + column, SCALE), scale1 = v128.load(terms + column, SCALE + 16);
    const shift0 = v128.load(terms + column, SHIFT), shift1 = v128.load(terms + column, SHIFT + 16);
    const slope0 = v128.load(terms + column, SLOPE), slope1 = v128.load(terms + column, SLOPE + 16);
    let o = dx + column, g = dy + column, p = x + column;
    for (let i: u32 = 0; i < rows; i++) {
      v128.store(o, gradient(v128.load(g), v128.load(p), center0, scale0, shift0, slope0));
      v128.store(o, gradient(v128.load(g, 16), v128.load(p, 16), center1, scale1, shift1, slope1), 16);
      o += stride;
      g += stride;
      p += stride;
    }
    column += 32;
  }
  if (at < width) {
    gradientRows(dx + column, dy + column, x + column, terms + column, rows, width - at, stride);
  }
}

/** Takes what strips and pairs of rows leave over: row after row, one vector at a time. */
function gradientRows(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  const bytes = <usize>width << 2;
  for (let i: u32 = 0; i < rows; i++) {
    for (let k: usize = 0; k < bytes; k += 16) {
      const center = v128.load(terms + k), scale = v128.load(terms + k, SCALE);
      const shift = v128.load(terms + k, SHIFT), slope = v128.load(terms + k, SLOPE);
      const v = gradient(v128.load(dy + k), v128.load(x + k), center, scale, shift, slope);
      if (k + 16 <= bytes) v128.store(dx + k, v);
      else storeFirst(dx + k, v, width & 3);
    }
    dx += stride;
    dy += stride;
    x += stride;
  }
}

/** For rows that are not in cache, taken in pairs as by `affineSweep`. dx may be dy. */
export function gradientSweep(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  const bytes = <usize>(width >> 2) << 4;
  const lanes = width & 3;
  const half = halfOf(rows), pairs = pairsOf(rows);
  const apart = <usize>half * stride;
  for (let i: u32 = 0; i < pairs; i++) {
    const dx1 = dx + apart, dy1 = dy + apart, x1 = x + apart;
    for (let k: usize = 0; k < bytes; k += 16) {
      const center = v128.load(terms + k), scale = v128.load(terms + k, SCALE);
      const shift = v128.load(terms + k, SHIFT), slope = v128.load(terms + k, SLOPE);
      const g = v128.load(dy + k), p = v128.load(x + k), g1 = v128.load(dy1 + k), p1 = v128.load(x1 + k);
      v128.store(dx + k, gradient(g, p, center, scale, shift, slope));
      v128.store(dx1 + k, gradient(g1, p1, center, scale, shift, slope));
    }
    if (lanes) {
      gradientRows(dx + bytes, dy + bytes, x + bytes, terms + bytes, 1, lanes, stride);
      gradientRows(dx1 + bytes, dy1 + bytes, x1 + bytes, terms + bytes, 1, lanes, stride);
    }
    dx += stride;
    dy += stride;
    x += stride;
  }
  gradientRows(dx, dy, x, terms, min(half, rows) - pairs, width, stride);
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. dx may be dy. */
export function gradientPlanes(
  dx: usize, dy: usize, x: usize, terms: usize,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const lanes = inner & 3;
  let at = <usize>first << 2;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const center = v128.load32_splat(terms + at), scale = v128.load32_splat(terms + at, SCALE);
    const shift = v128.load32_splat(terms + at, SHIFT), slope = v128.load32_splat(terms + at, SLOPE);
    let vectors = inner >> 2;
    for (; vectors >= 4; vectors -= 4) {
      v128.store(dx, gradient(v128.load(dy), v128.load(x), center, scale, shift, slope));
      v128.store(dx, gradient(v128.load(dy, 16), v128.load(x, 16), center, scale, shift, slope), 16);
      v128.store(dx, gradient(v128.load(dy, 32), v128.load(x, 32), center, scale, shift, slope), 32);
      v128.store(dx, gradient(v128.load(dy, 48), v128.load(x, 48), center, scale, shift, slope), 48);
      dx += 64;
      dy += 64;
      x += 64;
    }
    for (; vectors > 0; vectors--) {
      v128.store(dx, gradient(v128.load(dy), v128.load(x), center, scale, shift, slope));
      dx += 16;
      dy += 16;
      x += 16;
    }
    if (lanes) {
      storeFirst(dx, gradient(v128.load(dy), v128.load(x), center, scale, shift, slope), lanes);
      dx += lanes << 2;
      dy += lanes << 2;
      x += lanes << 2;
    }
    at += 4;
    if (at == <usize>channels << 2) at = 0;
  }
}
