// y = (x - center)·scale + shift. Each operation rounds once, so every kernel of this file gives a value the
// same bits.
//
// `center` is the mean rounded to float32; `shift` makes up for what was rounded off (channel.ts). Near the
// mean, x - center is exact (Sterbenz 1974, "Floating-Point Computation", theorem 4.3.1). The shorter form
// x·scale + (shift - center·scale) would lose digits there. `terms` points to the centers; the scales and
// the shifts lie SCALE and SHIFT bytes behind them.

import { halfOf, pairsOf, SCALE, SHIFT, stripOf } from "./blocks";
import { storeFirst } from "./lanes";

// @ts-ignore: decorator
@inline function affine(x: v128, center: v128, scale: v128, shift: v128): v128 {
  return f32x4.add(f32x4.mul(f32x4.sub(x, center), scale), shift);
}

/**
 * For rows that are in cache. They are cut into strips of 16 columns; the terms of a strip stay in registers
 * while it is walked down `stripOf` rows. y may be x.
 */
export function affineStrips(
  y: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  while (rows) {
    const n = min(rows, stripOf(stride));
    strips(y, x, terms, n, width, stride);
    rows -= n;
    y += <usize>n * stride;
    x += <usize>n * stride;
  }
}

function strips(y: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize): void {
  let c: u32 = 0;
  for (; c + 16 <= width; c += 16) {
    const center0 = v128.load(terms), center1 = v128.load(terms, 16);
    const center2 = v128.load(terms, 32), center3 = v128.load(terms, 48);
    const scale0 = v128.load(terms, SCALE), scale1 = v128.load(terms, SCALE + 16);
    const scale2 = v128.load(terms, SCALE + 32), scale3 = v128.load(terms, SCALE + 48);
    const shift0 = v128.load(terms, SHIFT), shift1 = v128.load(terms, SHIFT + 16);
    const shift2 = v128.load(terms, SHIFT + 32), shift3 = v128.load(terms, SHIFT + 48);
    let p = x, q = y;
    for (let i: u32 = 0; i < rows; i++) {
      v128.store(q, affine(v128.load(p), center0, scale0, shift0));
      v128.store(q, affine(v128.load(p, 16), center1, scale1, shift1), 16);
      v128.store(q, affine(v128.load(p, 32), center2, scale2, shift2), 32);
      v128.store(q, affine(v128.load(p, 48), center3, scale3, shift3), 48);
      p += stride;
      q += stride;
    }
    x += 64;
    y += 64;
    terms += 64;
  }
  if (c < width) affineRows(y, x, terms, rows, width - c, stride);
}

/** Takes what strips and pairs of rows leave over: row after row, one vector at a time. */
function affineRows(y: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize): void {
  const bytes = <usize>width << 2;
  for (let i: u32 = 0; i < rows; i++) {
    for (let c: usize = 0; c < bytes; c += 16) {
      const scale = v128.load(terms + c, SCALE), shift = v128.load(terms + c, SHIFT);
      const v = affine(v128.load(x + c), v128.load(terms + c), scale, shift);
      if (c + 16 <= bytes) v128.store(y + c, v);
      else storeFirst(y + c, v, width & 3);
    }
    x += stride;
    y += stride;
  }
}

/** For rows that are not in cache. They are taken in pairs, one from each half (`halfOf`). y may be x. */
export function affineSweep(
  y: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  const bytes = <usize>(width >> 2) << 4;
  const lanes = width & 3;
  const half = halfOf(rows), pairs = pairsOf(rows);
  const apart = <usize>half * stride;
  for (let i: u32 = 0; i < pairs; i++) {
    const x1 = x + apart, y1 = y + apart;
    for (let c: usize = 0; c < bytes; c += 16) {
      const center = v128.load(terms + c), scale = v128.load(terms + c, SCALE);
      const shift = v128.load(terms + c, SHIFT);
      const v = v128.load(x + c), w = v128.load(x1 + c);
      v128.store(y + c, affine(v, center, scale, shift));
      v128.store(y1 + c, affine(w, center, scale, shift));
    }
    if (lanes) {
      affineRows(y + bytes, x + bytes, terms + bytes, 1, lanes, stride);
      affineRows(y1 + bytes, x1 + bytes, terms + bytes, 1, lanes, stride);
    }
    x += stride;
    y += stride;
  }
  affineRows(y, x, terms, min(half, rows) - pairs, width, stride);
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. y may be x. */
export function affinePlanes(
  y: usize, x: usize, terms: usize,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  let c = <usize>first << 2;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const center = v128.load32_splat(terms + c), scale = v128.load32_splat(terms + c, SCALE);
    const shift = v128.load32_splat(terms + c, SHIFT);
    let left = inner;
    for (; left >= 16; left -= 16) {
      v128.store(y, affine(v128.load(x), center, scale, shift));
      v128.store(y, affine(v128.load(x, 16), center, scale, shift), 16);
      v128.store(y, affine(v128.load(x, 32), center, scale, shift), 32);
      v128.store(y, affine(v128.load(x, 48), center, scale, shift), 48);
      x += 64;
      y += 64;
    }
    while (left > 0) {
      const n = min<u32>(left, 4);
      const v = affine(v128.load(x), center, scale, shift);
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
