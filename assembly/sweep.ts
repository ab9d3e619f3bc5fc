// The affine kernel for rows that are not in cache: tensors in kernel memory, so not in infer.ts.

import { affine, affineRows } from "./affine";
import { halfOf, pairsOf } from "./lanes";

/** Pairs of rows, one of each half (`halfOf`), in ascending order. y may be x. */
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
      let row: usize = 0;
      do {
        affineRows(y + row + bytes, x + row + bytes, hi + bytes, scale + bytes, shift + bytes, 1, lanes, stride);
        row = apart - row;
      } while (row);
    }
    x += stride;
    y += stride;
  }
  affineRows(y, x, hi, scale, shift, min(half, rows) - pairs, width, stride);
}
