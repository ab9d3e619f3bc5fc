// The gradient of an activation: g = dy where low < (x - center)·scale + shift [+ add] < high, else 0. That value is
// the one that affine.ts gave the activation. It is not kept from the forward traversal but worked out again, with
// the same bits. `add` is the address of the residual, 0 if there is none. g may be dy or add.

import { SCALE, SHIFT } from "./blocks";
import { storeFirst } from "./lanes";

// @ts-ignore: decorator
@inline
function gate(
  g: usize, dy: usize, x: usize, add: usize,
  center: v128, scale: v128, shift: v128, low: v128, high: v128, lanes: u32,
): void {
  let v = f32x4.add(f32x4.mul(f32x4.sub(v128.load(x), center), scale), shift);
  if (add) v = f32x4.add(v, v128.load(add));
  const kept = v128.and(v128.load(dy), v128.and(f32x4.lt(low, v), f32x4.lt(v, high)));
  if (lanes >= 4) v128.store(g, kept);
  else storeFirst(g, kept, lanes);
}

/** For rows, one vector after the other. */
export function gateRows(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const whole = <usize>(width & ~3) << 2;
  for (let i: u32 = 0; i < rows; i++) {
    let at: usize = 0;
    for (; at < whole; at += 16) {
      const center = v128.load(terms + at), scale = v128.load(terms + at, SCALE), shift = v128.load(terms + at, SHIFT);
      gate(g + at, dy + at, x + at, add ? add + at : 0, center, scale, shift, l, h, 4);
    }
    if (width & 3) {
      const center = v128.load(terms + at), scale = v128.load(terms + at, SCALE), shift = v128.load(terms + at, SHIFT);
      gate(g + at, dy + at, x + at, add ? add + at : 0, center, scale, shift, l, h, width & 3);
    }
    g += stride;
    dy += stride;
    x += stride;
    if (add) add += stride;
  }
}

/** For planes that lie one after the other in memory, counted as in `momentsPlanes`. */
export function gatePlanes(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  let c = first;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const t = terms + (<usize>c << 2);
    const center = v128.load32_splat(t), scale = v128.load32_splat(t, SCALE), shift = v128.load32_splat(t, SHIFT);
    for (let left = inner; left > 0;) {
      const n = min<u32>(left, 4);
      gate(g, dy, x, add, center, scale, shift, l, h, n);
      g += n << 2;
      dy += n << 2;
      x += n << 2;
      if (add) add += n << 2;
      left -= n;
    }
    if (++c == channels) c = 0;
  }
}
