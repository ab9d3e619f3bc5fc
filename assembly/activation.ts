// The gradient of an activation: g = dy where low < (x - center)·scale + shift [+ add] < high, else 0. That value is
// the one that affine.ts gave the activation. It is not kept from the forward traversal but worked out again, with
// the same bits. `add` is the address of the residual, 0 if there is none. g may be dy or add.

import { SCALE, SHIFT } from "./blocks";
import { storeFirst } from "./lanes";

/**
 * Runs of `width` values, `stride` bytes apart: rows if there are 0 channels, else planes, of which the first belongs to
 * channel `first`; see `runs` in affine.ts.
 */
function gate(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize, first: u32, channels: u32,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const bytes = <usize>width << 2;
  for (let i: u32 = 0; i < rows; i++) {
    const t = terms + (<usize>first << 2);
    let center = v128.load32_splat(t), scale = v128.load32_splat(t, SCALE), shift = v128.load32_splat(t, SHIFT);
    for (let c: usize = 0; c < bytes; c += 16) {
      if (!channels) {
        center = v128.load(t + c);
        scale = v128.load(t + c, SCALE);
        shift = v128.load(t + c, SHIFT);
      }
      let v = f32x4.add(f32x4.mul(f32x4.sub(v128.load(x + c), center), scale), shift);
      if (add) v = f32x4.add(v, v128.load(add + c));
      const kept = v128.and(v128.load(dy + c), v128.and(f32x4.lt(l, v), f32x4.lt(v, h)));
      if (c + 16 <= bytes) v128.store(g + c, kept);
      else storeFirst(g + c, kept, width & 3);
    }
    g += stride;
    dy += stride;
    x += stride;
    if (add) add += stride;
    if (channels && ++first == channels) first = 0;
  }
}

/** For rows, one vector after the other. */
export function gateRows(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize,
): void {
  gate(g, dy, x, add, terms, low, high, rows, width, stride, 0, 0);
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. */
export function gatePlanes(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  gate(g, dy, x, add, terms, low, high, planes, inner, <usize>inner << 2, first, channels);
}
