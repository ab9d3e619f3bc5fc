// y = (x - mean)·scale + shift, one rounding per operation, the same for every order of walking.
//
// `hi` is the mean as float32; what it lacks of the float64 mean is in `shift` (channel.ts). Near
// the mean x - hi is exact (Sterbenz 1974), where the folded form x·a + b would cancel.

import { halfOf, pairsOf, storeFirst, stripOf } from "./lanes";

// @ts-ignore: decorator
@inline function affine(x: v128, hi: v128, scale: v128, shift: v128): v128 {
  return f32x4.add(f32x4.mul(f32x4.sub(x, hi), scale), shift);
}

/**
 * Rows in cache: strips of 16 columns, each walked down `stripOf` rows with its parameters in registers.
 * y may be x.
 */
export function affineStrips(
  y: usize, x: usize, hi: usize, scale: usize, shift: usize,
  rows: u32, width: u32, stride: usize,
): void {
  while (rows) {
    const n = min(rows, stripOf(stride));
    strips(y, x, hi, scale, shift, n, width, stride);
    rows -= n;
    y += <usize>n * stride;
    x += <usize>n * stride;
  }
}

function strips(
  y: usize, x: usize, hi: usize, scale: usize, shift: usize,
  rows: u32, width: u32, stride: usize,
): void {
  let c: u32 = 0;
  for (; c + 16 <= width; c += 16) {
    const h0 = v128.load(hi), h1 = v128.load(hi, 16), h2 = v128.load(hi, 32), h3 = v128.load(hi, 48);
    const a0 = v128.load(scale), a1 = v128.load(scale, 16);
    const a2 = v128.load(scale, 32), a3 = v128.load(scale, 48);
    const b0 = v128.load(shift), b1 = v128.load(shift, 16);
    const b2 = v128.load(shift, 32), b3 = v128.load(shift, 48);
    let p = x, q = y;
    for (let i: u32 = 0; i < rows; i++) {
      v128.store(q, affine(v128.load(p), h0, a0, b0));
      v128.store(q, affine(v128.load(p, 16), h1, a1, b1), 16);
      v128.store(q, affine(v128.load(p, 32), h2, a2, b2), 32);
      v128.store(q, affine(v128.load(p, 48), h3, a3, b3), 48);
      p += stride;
      q += stride;
    }
    x += 64;
    y += 64;
    hi += 64;
    scale += 64;
    shift += 64;
  }
  if (c < width) affineRows(y, x, hi, scale, shift, rows, width - c, stride);
}

/** Row after row, a vector at a time: what strips and pairs of rows leave over. */
function affineRows(
  y: usize, x: usize, hi: usize, scale: usize, shift: usize,
  rows: u32, width: u32, stride: usize,
): void {
  const bytes = <usize>width << 2;
  for (let i: u32 = 0; i < rows; i++) {
    for (let c: usize = 0; c < bytes; c += 16) {
      const v = affine(v128.load(x + c), v128.load(hi + c), v128.load(scale + c), v128.load(shift + c));
      if (c + 16 <= bytes) v128.store(y + c, v);
      else storeFirst(y + c, v, width & 3);
    }
    x += stride;
    y += stride;
  }
}

/** Rows not in cache: pairs of them, one of each half (`halfOf`), in ascending order. y may be x. */
export function affineSweep(
  y: usize, x: usize, hi: usize, scale: usize, shift: usize,
  rows: u32, width: u32, stride: usize,
): void {
  const bytes = <usize>(width >> 2) << 4;
  const lanes = width & 3;
  const half = halfOf(rows), pairs = pairsOf(rows);
  const apart = <usize>half * stride;
  for (let i: u32 = 0; i < pairs; i++) {
    const x1 = x + apart, y1 = y + apart;
    for (let c: usize = 0; c < bytes; c += 16) {
      const h = v128.load(hi + c), a = v128.load(scale + c), b = v128.load(shift + c);
      const v = v128.load(x + c), w = v128.load(x1 + c);
      v128.store(y + c, affine(v, h, a, b));
      v128.store(y1 + c, affine(w, h, a, b));
    }
    if (lanes) {
      affineRows(y + bytes, x + bytes, hi + bytes, scale + bytes, shift + bytes, 1, lanes, stride);
      affineRows(y1 + bytes, x1 + bytes, hi + bytes, scale + bytes, shift + bytes, 1, lanes, stride);
    }
    x += stride;
    y += stride;
  }
  affineRows(y, x, hi, scale, shift, min(half, rows) - pairs, width, stride);
}

/** Planes one after the other, as in `momentsPlanes`. y may be x. */
export function affinePlanes(
  y: usize, x: usize, hi: usize, scale: usize, shift: usize,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  let c = <usize>first << 2;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const h = v128.load32_splat(hi + c), a = v128.load32_splat(scale + c), b = v128.load32_splat(shift + c);
    let left = inner;
    for (; left >= 16; left -= 16) {
      v128.store(y, affine(v128.load(x), h, a, b));
      v128.store(y, affine(v128.load(x, 16), h, a, b), 16);
      v128.store(y, affine(v128.load(x, 32), h, a, b), 32);
      v128.store(y, affine(v128.load(x, 48), h, a, b), 48);
      x += 64;
      y += 64;
    }
    while (left > 0) {
      const n = min<u32>(left, 4);
      const v = affine(v128.load(x), h, a, b);
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
