// A bit for each value of y = max((x - center)·scale + shift + add, 0): whether it is above 0. `train` keeps them where a
// residual and a ReLU follow, so that `backward` reads a bit of each value where it would otherwise work out y again. The bits
// lie in the order of the values, eight of which are a byte, whichever way a tensor is walked. Every run of values (a row or a
// plane) has a multiple of 16, and lies right behind the one before it. y may be x or add.

import { halfOf, pairsOf, SCALE, SHIFT } from "./blocks";

/** Four values. `x` and `add` are addresses. */
// @ts-ignore: decorator
@inline
function relu(x: usize, add: usize, center: v128, scale: v128, shift: v128, zero: v128): v128 {
  const v = f32x4.add(f32x4.mul(f32x4.sub(v128.load(x), center), scale), shift);
  return f32x4.pmax(f32x4.add(v, v128.load(add)), zero);
}

/** The bits of sixteen values. A float above 0 is above 0 as an integer as well, and remains so when it is cut to a byte. */
// @ts-ignore: decorator
@inline
function above(a: v128, b: v128, c: v128, d: v128, zero: v128): i32 {
  const all = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d));
  return i8x16.bitmask(i8x16.gt_s(all, zero));
}

/**
 * The largest of the values in each lane. As integers, infinity and NaN are larger than other floats. A NaN with a sign is the
 * smallest: it needs no notice, as its bit is 0.
 */
// @ts-ignore: decorator
@inline
function largest(top: v128, a: v128, b: v128, c: v128, d: v128): v128 {
  return i32x4.max_s(top, i32x4.max_s(i32x4.max_s(a, b), i32x4.max_s(c, d)));
}

/** Whether one of these is infinite or NaN. */
// @ts-ignore: decorator
@inline
function endless(top: v128): bool {
  return v128.any_true(i32x4.gt_s(top, i32x4.splat(0x7f7fffff)));
}

/**
 * y and the bits of rows, taken in pairs as by `affineSweep`; a row that has no partner is its own. Returns whether the bits
 * are of no use: a value above 0 is not finite, and `backward` does not count it.
 */
export function keepRows(
  y: usize, bits: usize, x: usize, add: usize, terms: usize, rows: u32, width: u32,
): bool {
  const bytes = <usize>width << 2, end = terms + bytes;
  const toX = x - y, toAdd = add - y;
  const zero = f32x4.splat(0);
  const pairs = pairsOf(rows);
  let top = zero;
  for (let i: u32 = 0, n = rows - pairs; i < n; i++) {
    const apart = i < pairs ? <usize>halfOf(rows) * bytes : 0;
    let t = terms;
    do {
      const y1 = y + apart;
      const k = v128.load(t), s = v128.load(t, SCALE), f = v128.load(t, SHIFT);
      const a = relu(y + toX, y + toAdd, k, s, f, zero), b = relu(y1 + toX, y1 + toAdd, k, s, f, zero);
      v128.store(y, a);
      v128.store(y1, b);
      const k1 = v128.load(t, 16), s1 = v128.load(t, SCALE + 16), f1 = v128.load(t, SHIFT + 16);
      const c = relu(y + toX + 16, y + toAdd + 16, k1, s1, f1, zero);
      const d = relu(y1 + toX + 16, y1 + toAdd + 16, k1, s1, f1, zero);
      v128.store(y, c, 16);
      v128.store(y1, d, 16);
      top = largest(top, a, b, c, d);
      const both = above(a, c, b, d, zero);
      store<u8>(bits, both);
      store<u8>(bits + (apart >> 5), both >> 8);
      bits++;
      t += 32;
      y += 32;
    } while (t < end);
  }
  return endless(top);
}

/** The same of planes, counted as in `momentsPlanes`. */
export function keepPlanes(
  y: usize, bits: usize, x: usize, add: usize, terms: usize,
  first: u32, planes: u32, channels: u32, inner: u32,
): bool {
  const toX = x - y, toAdd = add - y;
  const zero = f32x4.splat(0);
  let top = zero;
  for (; planes > 0; planes--) {
    const t = terms + (<usize>first << 2);
    const k = v128.load32_splat(t), s = v128.load32_splat(t, SCALE), f = v128.load32_splat(t, SHIFT);
    const end = y + (<usize>inner << 2);
    do {
      const p = y + toX, r = y + toAdd;
      const a = relu(p, r, k, s, f, zero), b = relu(p + 16, r + 16, k, s, f, zero);
      const c = relu(p + 32, r + 32, k, s, f, zero), d = relu(p + 48, r + 48, k, s, f, zero);
      v128.store(y, a);
      v128.store(y, b, 16);
      v128.store(y, c, 32);
      v128.store(y, d, 48);
      top = largest(top, a, b, c, d);
      store<u16>(bits, above(a, b, c, d, zero));
      bits += 2;
      y += 64;
    } while (y < end);
    if (++first == channels) first = 0;
  }
  return endless(top);
}

/**
 * What lets dy pass by the first four or, `from` 4 on, the last four of eight bits, which are in all bytes of a vector. The
 * constant is shifted by `zero`, which compilers do not know to be 0: V8 would otherwise make it anew in each round of a loop.
 */
// @ts-ignore: decorator
@inline export function maskOf(zero: i32, from: i32): v128 {
  return i32x4.shl(i32x4(0x01010101, 0x02020202, 0x04040404, 0x08080808), zero + from);
}

/** dy where a bit is set, else 0. */
// @ts-ignore: decorator
@inline export function chosen(bits: v128, mask: v128, dy: v128): v128 {
  return v128.and(i32x4.eq(v128.and(bits, mask), mask), dy);
}

/** g = dy where the bit is set, else 0, of `size` values, of which there are some. g may be dy. */
export function gateBits(g: usize, dy: usize, bits: usize, size: u32): void {
  const m = maskOf(size & 15, 0), m1 = maskOf(size & 15, 4);
  const toDy = dy - g, end = g + (<usize>size << 2);
  // Not `while`: there V8 would make the masks in each round.
  do {
    const b = v128.load8_splat(bits), b1 = v128.load8_splat(bits, 1), p = g + toDy;
    v128.store(g, chosen(b, m, v128.load(p)));
    v128.store(g, chosen(b, m1, v128.load(p, 16)), 16);
    v128.store(g, chosen(b1, m, v128.load(p, 32)), 32);
    v128.store(g, chosen(b1, m1, v128.load(p, 48)), 48);
    bits += 2;
    g += 64;
  } while (g < end);
}
