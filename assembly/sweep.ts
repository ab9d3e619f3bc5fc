// The affine kernel for rows that are not in cache: tensors in kernel memory, so not in infer.ts.

import { affine, narrow } from "./affine";

/**
 * Row after row, one ascending stream, parameters read from L1. By four vectors, since each alone has
 * five addresses to work out: in cache 0.65 nanoseconds a vector, and 0.79. y may be x.
 */
export function affineSweep(
  y: usize, x: usize, hi: usize, scale: usize, shift: usize,
  rows: u32, width: u32, stride: usize,
): void {
  const bytes = <usize>(width >> 4) << 6;
  for (let i: u32 = 0; i < rows; i++) {
    for (let c: usize = 0; c < bytes; c += 64) {
      const q = y + c, p = x + c, h = hi + c, a = scale + c, b = shift + c;
      v128.store(q, affine(v128.load(p), v128.load(h), v128.load(a), v128.load(b)));
      v128.store(q, affine(v128.load(p, 16), v128.load(h, 16), v128.load(a, 16), v128.load(b, 16)), 16);
      v128.store(q, affine(v128.load(p, 32), v128.load(h, 32), v128.load(a, 32), v128.load(b, 32)), 32);
      v128.store(q, affine(v128.load(p, 48), v128.load(h, 48), v128.load(a, 48), v128.load(b, 48)), 48);
    }
    if (width & 15) {
      narrow(y + bytes, x + bytes, hi + bytes, scale + bytes, shift + bytes, 1, width & 15, stride);
    }
    x += stride;
    y += stride;
  }
}
