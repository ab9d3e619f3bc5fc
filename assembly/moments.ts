// x -> per channel: mean and sum of squared deviations (m2), without E[x²] - E[x]².
//
// Data are cut into blocks. A block is read twice while it is in cache. The first time, S = Σx is added in
// float64, which is exact unless values differ extremely in magnitude. The second time, q = Σ(x - k)² is
// added, with k = float32(S/n). The rounding of k is made up for by r = S - n·k: m2 = q - r²/n ("corrected
// two-pass", Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.7). Blocks are
// pooled in float64 (same paper, eq. 2.1).
//
// The mean has to be this exact because its error, times gamma, is in every y. Squares need less. In rows, 16
// of them at most are added in float32 (in pairs, then pairs of pairs, and so on), and these sums are added in
// float64. The rounding error stays below (4 + 3)·2^-24 of q, which is 4e-7. Eight values added one after the
// other would be too inexact for dx (docs/tuning.md). In planes a lane adds 32 values in float32: four groups
// of eight in pairs, then the groups one after the other. That stays below (3 + 3 + 3)·2^-24. What all of
// this means for y and dx is in docs/guides/exactness.md.
//
// The state of a column is (base, offset, m2), and its mean is base + offset. base is a float32 near the data,
// so offset is about as small as sigma, and float64 rounds it to an ulp of sigma instead of one of the mean.
//
// Blocks depend on the dimensions alone, never on addresses, so the same data give the same bits wherever
// they lie.

import { apartOf, BLOCK_PLANE, lastOf, rowsOfOne, SCRATCH, stepOf } from "./blocks";
import { accumulate, firstLanes, high, low, sum2, widen, widenNext } from "./lanes";

/** Sums of the columns of `n` rows, which are taken four at a time (`apartOf`). */
function sums(sum: usize, x: usize, n: u32, width: u32, stride: usize, whole: u32): void {
  const bytes = <usize>((width + 3) & ~3) << 2;
  const apart = apartOf(n, whole, stride), step = stepOf(whole, stride);
  memory.fill(sum, 0, bytes << 1);
  for (let i = n >> 2; i > 0; i--) {
    const x1 = x + apart, x2 = x1 + apart, x3 = x2 + apart;
    for (let c: usize = 0; c < bytes; c += 16) {
      const p = x + c, p1 = x1 + c, p2 = x2 + c, p3 = x3 + c, s = sum + (c << 1);
      v128.store(s, f64x2.add(v128.load(s),
        f64x2.add(f64x2.add(widen(p), widen(p1)), f64x2.add(widen(p2), widen(p3)))));
      v128.store(s, f64x2.add(v128.load(s, 16),
        f64x2.add(f64x2.add(widenNext(p), widenNext(p1)), f64x2.add(widenNext(p2), widenNext(p3)))), 16);
    }
    x += step;
  }
  x += lastOf(apart, whole);
  for (n &= 3; n > 0; n--) {
    for (let c: usize = 0; c < bytes; c += 16) accumulate(sum + (c << 1), v128.load(x + c));
    x += stride;
  }
}

/** (x - k)² of four columns. */
// @ts-ignore: decorator
@inline
function square(x: usize, k: v128): v128 {
  const d = f32x4.sub(v128.load(x), k);
  return f32x4.mul(d, d);
}

/**
 * Σ(x - k)² of four columns of eight rows. The addresses are worked out from the first one, with an
 * instruction each, because eight pointers that are kept would not fit the registers.
 */
// @ts-ignore: decorator
@inline
function eight(x: usize, stride: usize, k: v128): v128 {
  const x1 = x + stride, x2 = x + (stride << 1), x3 = x1 + (stride << 1);
  const x4 = x + (stride << 2), x5 = x1 + (stride << 2), x6 = x2 + (stride << 2), x7 = x3 + (stride << 2);
  return f32x4.add(
    f32x4.add(f32x4.add(square(x, k), square(x1, k)), f32x4.add(square(x2, k), square(x3, k))),
    f32x4.add(f32x4.add(square(x4, k), square(x5, k)), f32x4.add(square(x6, k), square(x7, k))),
  );
}

/**
 * q = Σ(x - k)² of `n` rows, in float64. Sixteen rows are taken at a time: the sums over the first eight
 * wait in `first` until those over the next eight are there. Each of the two loops reads only one vector of
 * each row between two stores, because V8 loads all that is read there before it computes with any of it.
 */
function squares(q: usize, k: usize, first: usize, x: usize, n: u32, width: u32, stride: usize): void {
  const bytes = <usize>((width + 3) & ~3) << 2;
  memory.fill(q, 0, bytes << 1);
  while (n >= 8) {
    if (n >= 16) {
      for (let c: usize = 0; c < bytes; c += 16) v128.store(first + c, eight(x + c, stride, v128.load(k + c)));
      n -= 8;
      x += stride << 3;
    } else {
      memory.fill(first, 0, bytes);
    }
    for (let c: usize = 0; c < bytes; c += 16) {
      accumulate(q + (c << 1), f32x4.add(v128.load(first + c), eight(x + c, stride, v128.load(k + c))));
    }
    n -= 8;
    x += stride << 3;
  }
  for (; n > 0; n--) {
    for (let c: usize = 0; c < bytes; c += 16) accumulate(q + (c << 1), square(x + c, v128.load(k + c)));
    x += stride;
  }
}

/**
 * Adds `rows` rows of `width` columns, `stride` bytes apart, to the state of the columns. The state holds
 * `count` rows already; if that is 0, it is overwritten. The rows of a call begin a new block, so callers cut
 * data at multiples of `rowsOfOne`. Columns up to the next multiple of 4 are read in the rows, and written in
 * the state. `scratch` is overwritten; it has room for six arrays, SCRATCH bytes apart. `whole` is how many columns
 * the rows have of which these are a part: blocks are those of whole rows, so that parts have the same bits.
 */
export function momentsRows(
  base: usize, offset: usize, m2: usize, scratch: usize, x: usize, count: f64,
  rows: u32, width: u32, stride: usize, whole: u32,
): void {
  // q and sum are float64, so each takes the room of two arrays.
  const q = scratch, sum = scratch + 2 * SCRATCH;
  if (count == 0) {
    const padded = <usize>((width + 3) & ~3);
    memory.fill(offset, 0, padded << 3);
    memory.fill(m2, 0, padded << 3);
  }
  while (rows) {
    const n = min(rows, rowsOfOne(whole));
    const m = <f64>n;
    const perValue = f64x2.splat(1 / m);
    sums(sum, x, n, width, stride, whole);
    // What is subtracted from the first block becomes the base of the state.
    const shift = count == 0 ? base : scratch + 4 * SCRATCH;
    for (let c: usize = 0; c < width; c += 4) {
      v128.store(shift + (c << 2), shiftOf(sum + (c << 3), perValue));
    }
    squares(q, shift, scratch + 5 * SCRATCH, x, n, width, stride);
    const values = f64x2.splat(m);
    const weight = f64x2.splat(m / (count + m));
    const between = f64x2.splat((m * count) / (count + m));
    for (let c: usize = 0; c < width; c += 2) {
      const at = c << 3;
      const k = widen(shift + (c << 2));
      const r = f64x2.sub(v128.load(sum + at), f64x2.mul(values, k));
      const rest = f64x2.mul(r, perValue);
      const o = v128.load(offset + at);
      const d = f64x2.sub(f64x2.add(f64x2.sub(k, widen(base + (c << 2))), rest), o);
      v128.store(offset + at, f64x2.add(o, f64x2.mul(d, weight)));
      const within = f64x2.pmax(f64x2.sub(v128.load(q + at), f64x2.mul(r, rest)), f64x2.splat(0));
      const added = f64x2.add(within, f64x2.mul(f64x2.mul(d, d), between));
      v128.store(m2 + at, f64x2.add(v128.load(m2 + at), added));
    }
    count += m;
    rows -= n;
    x += <usize>n * stride;
  }
}

/** float32(sum·perValue) of four columns. */
// @ts-ignore: decorator
@inline
function shiftOf(sum: usize, perValue: v128): v128 {
  return v128.shuffle<i64>(
    f32x4.demote_f64x2_zero(f64x2.mul(v128.load(sum), perValue)),
    f32x4.demote_f64x2_zero(f64x2.mul(v128.load(sum, 16), perValue)),
    0, 2,
  );
}

/** Sum of n >= 1 values in float64. Four sums take turns at the pairs of values; the rest is added last. */
// @ts-ignore: decorator
@inline
function sumOf(x: usize, n: u32): f64 {
  let a = f64x2.splat(0), b = a, c = a, d = a;
  let p = x;
  let left = n;
  for (; left >= 8; left -= 8) {
    a = f64x2.add(a, widen(p));
    b = f64x2.add(b, widenNext(p));
    c = f64x2.add(c, low(v128.load64_zero(p, 16)));
    d = f64x2.add(d, low(v128.load64_zero(p, 24)));
    p += 32;
  }
  let sum = sum2(f64x2.add(f64x2.add(a, b), f64x2.add(c, d)));
  for (; left > 0; left--) {
    sum += <f64>load<f32>(p);
    p += 4;
  }
  return sum;
}

/** Σ(x - k)² of four vectors, lane by lane. */
// @ts-ignore: decorator
@inline
function four(x0: v128, x1: v128, x2: v128, x3: v128, k: v128): v128 {
  const d0 = f32x4.sub(x0, k), d1 = f32x4.sub(x1, k), d2 = f32x4.sub(x2, k), d3 = f32x4.sub(x3, k);
  const a = f32x4.add(f32x4.mul(d0, d0), f32x4.mul(d1, d1));
  return f32x4.add(a, f32x4.add(f32x4.mul(d2, d2), f32x4.mul(d3, d3)));
}

/**
 * Adds `planes` planes of `inner` values each, one after the other in memory, to the state of their
 * channels. The first plane belongs to channel `first`, the next to the channel after it; after the last of
 * the `channels` comes channel 0 again. `count` is how many values the state of channel `first` holds
 * already; if that is 0, it is overwritten. A call may also bring a part of a single plane; callers cut a
 * plane at multiples of BLOCK_PLANE.
 */
export function momentsPlanes(
  base: usize, offset: usize, m2: usize, x: usize, count: f64,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  let c = first;
  for (let plane: u32 = 0; plane < planes; plane++) {
    let held = count;
    let left = inner;
    while (left) {
      const n = min(left, BLOCK_PLANE);
      const m = <f64>n;
      const perValue = 1 / m;
      const sum = sumOf(x, n);
      const shift = <f32>(sum * perValue);
      const k = f32x4.splat(shift);
      const zero = f32x4.splat(0);
      let Q = f64x2.splat(0);
      let vectors = n >> 2;
      while (vectors >= 4) {
        const group = min<u32>(vectors >> 2, 8);
        let q = zero;
        let i: u32 = 1;
        for (; i < group; i += 2) {
          const a = four(v128.load(x), v128.load(x, 16), v128.load(x, 32), v128.load(x, 48), k);
          const b = four(v128.load(x, 64), v128.load(x, 80), v128.load(x, 96), v128.load(x, 112), k);
          q = f32x4.add(q, f32x4.add(a, b));
          x += 128;
        }
        if (i == group) {
          q = f32x4.add(q, four(v128.load(x), v128.load(x, 16), v128.load(x, 32), v128.load(x, 48), k));
          x += 64;
        }
        Q = f64x2.add(Q, f64x2.add(low(q), high(q)));
        vectors -= group << 2;
      }
      if (n & 15) {
        let q = zero;
        for (; vectors > 0; vectors--) {
          const d = f32x4.sub(v128.load(x), k);
          q = f32x4.add(q, f32x4.mul(d, d));
          x += 16;
        }
        const tail = n & 3;
        if (tail) {
          const d = v128.and(f32x4.sub(v128.load(x), k), firstLanes(tail));
          q = f32x4.add(q, f32x4.mul(d, d));
          x += tail << 2;
        }
        Q = f64x2.add(Q, f64x2.add(low(q), high(q)));
      }
      const r = sum - m * <f64>shift;
      const rest = r * perValue;
      const own = sum2(Q) - r * rest;
      const within = max<f64>(own, 0);
      const at = <usize>c;
      if (held == 0) {
        store<f32>(base + (at << 2), shift);
        store<f64>(offset + (at << 3), rest);
        store<f64>(m2 + (at << 3), within);
      } else {
        const from = load<f64>(offset + (at << 3));
        const delta = <f64>shift - <f64>load<f32>(base + (at << 2)) + rest - from;
        store<f64>(offset + (at << 3), from + delta * (m / (held + m)));
        store<f64>(m2 + (at << 3), load<f64>(m2 + (at << 3)) + (within + delta * delta * ((m * held) / (held + m))));
      }
      held += m;
      left -= n;
    }
    if (++c == channels) {
      c = 0;
      count += <f64>inner;
    }
  }
}
