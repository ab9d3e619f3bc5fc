// The sums of the gradient (Ioffe & Szegedy 2015, section 3): Σdy and Σdy·(x - center) of each channel, with
// center = float32(mean). The kernels subtract it, not the mean, from x; channel.ts corrects for that. Data are cut into the
// blocks of blocks.ts, as in moments.ts. `terms` points to the centers; scales and shifts lie SCALE and SHIFT bytes behind
// them.

import { gateRows, lowest, within, withinBits } from "./activation";
import { chosen, gateBits, maskOf } from "./bits";
import { apartOf, BLOCK_PLANE, lastOf, NARROW, rowsOfTwo, SCALE, SCRATCH, SHIFT, stepOf } from "./blocks";
import { accumulate, addTo, firstLanes, high, low, sum2 } from "./lanes";

/**
 * Adds rows of g to the float64 sums of their columns: of dy, gated by limits as `gateRows` does. g may be dy or add.
 * If the limits are NaN, g is dy, and nothing is written. If low is above high, `add` is the address of bits, by which dy is
 * gated as by `gateBits`: those of rows that lie one after the other. What `count`, `scratch` and `whole` mean and what is
 * read and written past the last column is as in `momentsRows`; callers cut at multiples of `rowsOfTwo`. The sums of a block
 * begin at 0, and are then added to those of the blocks before it. So several threads can do a block each.
 *
 * Rows are taken four at a time (`apartOf`). Those of whole vectors are gated as they are added up, and by bits narrow rows
 * alone; the other ones, and what fours leave over, before that.
 */
export function gradientSumsRows(
  sumDy: usize, sumDyX: usize, scratch: usize, g: usize, dy: usize, x: usize, add: usize, terms: usize,
  low: f32, high: f32, count: f64, rows: u32, width: u32, stride: usize, whole: u32,
): void {
  const bytes = <usize>((width + 3) & ~3) << 2;
  const step = stepOf(whole, stride);
  const toDy = dy - g, toX = x - g, toAdd = add - g;
  const gates = low <= high;
  let bits = low > high ? add : 0;
  const near = bits && whole <= NARROW, together = gates && !(width & 3), ordered = low >= 0;
  const from = ordered ? lowest(low) : reinterpret<i32>(low), to = reinterpret<i32>(high) + (ordered ? from : 0);
  let more = count != 0;
  while (rows) {
    const n = min(rows, rowsOfTwo(whole));
    const into = more ? scratch : sumDy, intoX = more ? scratch + 2 * SCRATCH : sumDyX;
    memory.fill(into, 0, bytes << 1);
    memory.fill(intoX, 0, bytes << 1);
    const apart = apartOf(n, whole, stride);
    const first: u32 = together || near ? n & ~3 : 0;
    const at = g + <usize>first * stride;
    if (bits) {
      if (first < n) gateBits(at, at + toDy, bits + (first * width >> 3), (n - first) * width);
    } else if (gates) gateRows(at, at + toDy, at + toX, add ? at + toAdd : 0, terms, low, high, n - first, width, stride);
    for (let i = n >> 2, b = bits; i > 0; i--) {
      if (near) {
        fourChosen(into, intoX, g, toDy, toX, terms, b, maskOf(width & 7, 0), maskOf(width & 7, 4), bytes);
        b += bytes >> 3;
      } else if (together) {
        fourGated(into, intoX, g, toDy, toX, add, toAdd, terms, i32x4.splat(from), i32x4.splat(to), ordered, apart, bytes);
      } else four(into, intoX, g, toX, terms, apart, bytes);
      g += step;
    }
    g += lastOf(apart, whole);
    for (let i = n & 3; i > 0; i--) {
      for (let c: usize = 0; c < bytes; c += 16) {
        const v = v128.load(g + c);
        accumulate(into + (c << 1), v);
        accumulate(intoX + (c << 1), product(v, g + toX + c, v128.load(terms + c)));
      }
      g += stride;
    }
    if (more) {
      for (let c: usize = 0; c < bytes << 1; c += 16) {
        addTo(sumDy + c, into + c);
        addTo(sumDyX + c, intoX + c);
      }
    }
    if (bits) bits += n * width >> 3;
    more = true;
    rows -= n;
  }
}

/** Four rows of `bytes`, one after the other, gated by their bits, two vectors of each in a round. */
function fourChosen(
  sumDy: usize, sumDyX: usize, g: usize, toDy: usize, toX: usize, terms: usize,
  bits: usize, mask: v128, mask1: v128, bytes: usize,
): void {
  const end = terms + bytes, apart = bytes >> 5;
  do {
    const b = v128.load8_splat(bits), b1 = v128.load8_splat(bits + apart);
    const b2 = v128.load8_splat(bits + 2 * apart), b3 = v128.load8_splat(bits + 3 * apart);
    halfChosen(sumDy, sumDyX, g, toDy, toX, terms, b, b1, b2, b3, mask, bytes);
    halfChosen(sumDy + 32, sumDyX + 32, g + 16, toDy, toX, terms + 16, b, b1, b2, b3, mask1, bytes);
    bits++;
    terms += 32;
    g += 32;
    sumDy += 64;
    sumDyX += 64;
  } while (terms < end);
}

// @ts-ignore: decorator
@inline
function halfChosen(
  sumDy: usize, sumDyX: usize, g: usize, toDy: usize, toX: usize, terms: usize,
  b: v128, b1: v128, b2: v128, b3: v128, mask: v128, apart: usize,
): void {
  const k = v128.load(terms), g1 = g + apart, g2 = g1 + apart, g3 = g2 + apart;
  const v = chosen(b, mask, v128.load(g + toDy)), v1 = chosen(b1, mask, v128.load(g1 + toDy));
  const s = f32x4.add(v, v1), p = f32x4.add(product(v, g + toX, k), product(v1, g1 + toX, k));
  v128.store(g, v);
  v128.store(g1, v1);
  const v2 = chosen(b2, mask, v128.load(g2 + toDy)), v3 = chosen(b3, mask, v128.load(g3 + toDy));
  accumulate(sumDy, f32x4.add(s, f32x4.add(v2, v3)));
  accumulate(sumDyX, f32x4.add(p, f32x4.add(product(v2, g2 + toX, k), product(v3, g3 + toX, k))));
  v128.store(g2, v2);
  v128.store(g3, v3);
}

/**
 * Four rows of g, each `apart` bytes from the one before, in whole vectors. All addresses follow from one, and the limits
 * come as vectors: V8 would otherwise run out of registers, and make the vectors anew each time. `ordered`: they are those
 * of `withinBits`, since some processors add and compare floats in the same units, but compare integers in others.
 */
function fourGated(
  sumDy: usize, sumDyX: usize, g: usize, toDy: usize, toX: usize, add: usize, toAdd: usize, terms: usize,
  low: v128, high: v128, ordered: bool, apart: usize, bytes: usize,
): void {
  const end = terms + bytes;
  do {
    const k = v128.load(terms), scale = v128.load(terms, SCALE), shift = v128.load(terms, SHIFT);
    const g1 = g + apart, g2 = g1 + apart, g3 = g2 + apart;
    const d = f32x4.sub(v128.load(g + toX), k), d1 = f32x4.sub(v128.load(g1 + toX), k);
    let v = f32x4.add(f32x4.mul(d, scale), shift), v1 = f32x4.add(f32x4.mul(d1, scale), shift);
    if (add) {
      v = f32x4.add(v, v128.load(g + toAdd));
      v1 = f32x4.add(v1, v128.load(g1 + toAdd));
    }
    if (ordered) {
      v = withinBits(v, low, high);
      v1 = withinBits(v1, low, high);
    } else {
      v = within(v, low, high);
      v1 = within(v1, low, high);
    }
    v = v128.and(v, v128.load(g + toDy));
    v1 = v128.and(v1, v128.load(g1 + toDy));
    v128.store(g, v);
    v128.store(g1, v1);
    const s = f32x4.add(v, v1), p = f32x4.add(f32x4.mul(v, d), f32x4.mul(v1, d1));
    const d2 = f32x4.sub(v128.load(g2 + toX), k), d3 = f32x4.sub(v128.load(g3 + toX), k);
    let v2 = f32x4.add(f32x4.mul(d2, scale), shift), v3 = f32x4.add(f32x4.mul(d3, scale), shift);
    if (add) {
      v2 = f32x4.add(v2, v128.load(g2 + toAdd));
      v3 = f32x4.add(v3, v128.load(g3 + toAdd));
    }
    if (ordered) {
      v2 = withinBits(v2, low, high);
      v3 = withinBits(v3, low, high);
    } else {
      v2 = within(v2, low, high);
      v3 = within(v3, low, high);
    }
    v2 = v128.and(v2, v128.load(g2 + toDy));
    v3 = v128.and(v3, v128.load(g3 + toDy));
    v128.store(g2, v2);
    v128.store(g3, v3);
    accumulate(sumDy, f32x4.add(s, f32x4.add(v2, v3)));
    accumulate(sumDyX, f32x4.add(p, f32x4.add(f32x4.mul(v2, d2), f32x4.mul(v3, d3))));
    terms += 16;
    g += 16;
    sumDy += 32;
    sumDyX += 32;
  } while (terms < end);
}

/** The same where g is dy. */
function four(sumDy: usize, sumDyX: usize, g: usize, toX: usize, terms: usize, apart: usize, bytes: usize): void {
  const end = terms + bytes;
  do {
    const k = v128.load(terms), g1 = g + apart, g2 = g1 + apart, g3 = g2 + apart;
    const v = v128.load(g), v1 = v128.load(g1), v2 = v128.load(g2), v3 = v128.load(g3);
    const s = f32x4.add(v, v1), p = f32x4.add(product(v, g + toX, k), product(v1, g1 + toX, k));
    accumulate(sumDy, f32x4.add(s, f32x4.add(v2, v3)));
    accumulate(sumDyX, f32x4.add(p, f32x4.add(product(v2, g2 + toX, k), product(v3, g3 + toX, k))));
    terms += 16;
    g += 16;
    sumDy += 32;
    sumDyX += 32;
  } while (terms < end);
}

/** dy·(x - center) of four values. `x` is an address, so that its load and the subtraction are one instruction. */
// @ts-ignore: decorator
@inline
function product(dy: v128, x: usize, center: v128): v128 {
  return f32x4.mul(dy, f32x4.sub(v128.load(x), center));
}

/**
 * Adds planes to the float64 sums of their channels: of dy or, if `bits` is not 0, of dy gated as by `gateBits`, which is also
 * written to g. Bits are those of planes that lie one after the other and have a multiple of 16 values each. g may be dy; without
 * bits it is not written. The other arguments mean what they mean in `momentsPlanes`.
 */
export function gradientSumsPlanes(
  sumDy: usize, sumDyX: usize, g: usize, dy: usize, x: usize, center: usize, bits: usize, count: f64,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const zero = f32x4.splat(0);
  const mask = maskOf(inner & 15, 0), mask1 = maskOf(inner & 15, 4);
  const toG = g - dy;
  let c = <usize>first;
  for (let plane: u32 = 0; plane < planes; plane++) {
    const k = v128.load32_splat(center + (c << 2));
    const s = sumDy + (c << 3), p = sumDyX + (c << 3);
    if (count == 0) {
      store<f64>(s, 0);
      store<f64>(p, 0);
    }
    let left = inner;
    while (left) {
      const n = min(left, BLOCK_PLANE);
      let S = f64x2.splat(0), P = S;
      let vectors = n >> 2;
      while (vectors >= 4) {
        const group = min<u32>(vectors >> 2, 4);
        let ss = zero, pp = zero;
        for (let i: u32 = 0; i < group; i++) {
          let g0 = v128.load(dy), g1 = v128.load(dy, 16), g2 = v128.load(dy, 32), g3 = v128.load(dy, 48);
          if (bits) {
            const b = v128.load8_splat(bits), b1 = v128.load8_splat(bits, 1), to = dy + toG;
            g0 = chosen(b, mask, g0);
            g1 = chosen(b, mask1, g1);
            g2 = chosen(b1, mask, g2);
            g3 = chosen(b1, mask1, g3);
            v128.store(to, g0);
            v128.store(to, g1, 16);
            v128.store(to, g2, 32);
            v128.store(to, g3, 48);
            bits += 2;
          }
          const p0 = product(g0, x, k), p1 = product(g1, x + 16, k);
          const p2 = product(g2, x + 32, k), p3 = product(g3, x + 48, k);
          ss = f32x4.add(ss, f32x4.add(f32x4.add(g0, g1), f32x4.add(g2, g3)));
          pp = f32x4.add(pp, f32x4.add(f32x4.add(p0, p1), f32x4.add(p2, p3)));
          dy += 64;
          x += 64;
        }
        S = f64x2.add(S, f64x2.add(low(ss), high(ss)));
        P = f64x2.add(P, f64x2.add(low(pp), high(pp)));
        vectors -= group << 2;
      }
      if (n & 15) {
        let ss = zero, pp = zero;
        for (; vectors > 0; vectors--) {
          const g = v128.load(dy);
          ss = f32x4.add(ss, g);
          pp = f32x4.add(pp, product(g, x, k));
          dy += 16;
          x += 16;
        }
        const tail = n & 3;
        if (tail) {
          const keep = firstLanes(tail);
          const g = v128.load(dy);
          ss = f32x4.add(ss, v128.and(g, keep));
          pp = f32x4.add(pp, v128.and(product(g, x, k), keep));
          dy += tail << 2;
          x += tail << 2;
        }
        S = f64x2.add(S, f64x2.add(low(ss), high(ss)));
        P = f64x2.add(P, f64x2.add(low(pp), high(pp)));
      }
      store<f64>(s, load<f64>(s) + sum2(S));
      store<f64>(p, load<f64>(p) + sum2(P));
      left -= n;
    }
    if (++c == channels) {
      c = 0;
      count += <f64>inner;
    }
  }
}
