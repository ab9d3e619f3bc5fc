// The gradient of what follows a layer in a block of a network: a residual is added, and the sum is limited to a
// range, as affine.ts does. `v` holds values that affine.ts made again from x shortly before, so they are in
// cache; all tensors lie without gaps. `add` is the address of the residual, 0 if there is none.

import { storeFirst } from "./lanes";

/** dy where low < v [+ add] < high, else 0. */
// @ts-ignore: decorator
@inline
function gate(added: bool, dy: usize, v: usize, add: usize, low: v128, high: v128): v128 {
  const loaded = v128.load(v);
  const value = added ? f32x4.add(loaded, v128.load(add)) : loaded;
  return v128.and(v128.load(dy), v128.and(f32x4.lt(low, value), f32x4.lt(value, high)));
}

/** g = dy where low < v [+ add] < high, else 0. g may be dy, v or add. */
export function gateValues(
  g: usize, dy: usize, v: usize, add: usize, low: f32, high: f32, n: u32,
): void {
  if (add) gateOf(true, g, dy, v, add, low, high, n);
  else gateOf(false, g, dy, v, 0, low, high, n);
}

// @ts-ignore: decorator
@inline
function gateOf(
  added: bool, g: usize, dy: usize, v: usize, add: usize, low: f32, high: f32, n: u32,
): void {
  const l = f32x4.splat(low), h = f32x4.splat(high);
  const whole = <usize>(n & ~3) << 2;
  for (let at: usize = 0; at < whole; at += 16) {
    v128.store(g + at, gate(added, dy + at, v + at, add + at, l, h));
  }
  if (n & 3) storeFirst(g + whole, gate(added, dy + whole, v + whole, add + whole, l, h), n & 3);
}
