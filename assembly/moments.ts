// x -> per channel: mean and sum of squared deviations (m2), without E[x²] - E[x]².
//
// Data are cut into blocks. A block is read twice while it is in cache: a quarter of it gives a
// shift k near its mean, then all of it gives s = Σ(x - k) and q = Σ(x - k)² ("corrected two-pass",
// Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.7). A quarter is
// enough: (k - mean)² <= 3·variance whatever the data, so q - s²/n cancels at most two bits.
// Blocks are pooled in float64 (same paper, eq. 2.1).
//
// Sums run in float32 lanes over at most 8 values, then over at most 8 such sums, and go on in
// float64: rounding stays below (8 + 8 + 3)·2^-24 of q in the worst case, near 1e-7 in practice.
//
// The state of a column is (base, offset, m2): mean = base + offset, where base is a float32 near
// the data, so that the mean is known to an ulp of sigma and not of the mean itself.
//
// Blocks depend on the dimensions alone, never on addresses: the same bits wherever data live.

import { firstLanes, high, low, sum2 } from "./lanes";

/** Rows in a block: 8 sums of 8. */
export const BLOCK_ROWS: u32 = 64;
/** Values in a block of a plane: 16 KiB, so that the second reading finds it in L1. */
export const BLOCK_PLANE: u32 = 4096;

// Pools a block of sums s, q about the shift k into four columns.
// @ts-ignore: decorator
@inline function pool(
  base: usize, offset: usize, m2: usize,
  k: v128, s: v128, q: v128,
  perValue: v128, weight: v128, between: v128,
): void {
  const b = v128.load(base);
  const s0 = f64x2.mul(low(s), perValue);
  const s1 = f64x2.mul(high(s), perValue);
  const o0 = v128.load(offset);
  const o1 = v128.load(offset, 16);
  const d0 = f64x2.sub(f64x2.add(f64x2.sub(low(k), low(b)), s0), o0);
  const d1 = f64x2.sub(f64x2.add(f64x2.sub(high(k), high(b)), s1), o1);
  v128.store(offset, f64x2.add(o0, f64x2.mul(d0, weight)));
  v128.store(offset, f64x2.add(o1, f64x2.mul(d1, weight)), 16);
  const q0 = f64x2.max(f64x2.sub(low(q), f64x2.mul(s0, low(s))), f64x2.splat(0));
  const q1 = f64x2.max(f64x2.sub(high(q), f64x2.mul(s1, high(s))), f64x2.splat(0));
  const m0 = f64x2.add(q0, f64x2.mul(f64x2.mul(d0, d0), between));
  const m1 = f64x2.add(q1, f64x2.mul(f64x2.mul(d1, d1), between));
  v128.store(m2, f64x2.add(v128.load(m2), m0));
  v128.store(m2, f64x2.add(v128.load(m2, 16), m1), 16);
}

/**
 * Adds `rows` rows of `width` columns, `stride` bytes apart, to the state of the columns, which
 * holds `count` rows already (0: it is overwritten). A call's rows start a new block: callers cut
 * at multiples of BLOCK_ROWS. State and rows are read up to the next multiple of 16 columns.
 */
export function momentsRows(
  base: usize, offset: usize, m2: usize, x: usize, count: f64,
  rows: u32, width: u32, stride: usize,
): void {
  if (count == 0) {
    const padded = <usize>((width + 15) & ~15);
    memory.fill(offset, 0, padded << 3);
    memory.fill(m2, 0, padded << 3);
  }
  while (rows) {
    const n = min(rows, BLOCK_ROWS);
    const m = <f64>n;
    const perValue = f64x2.splat(1 / m);
    const weight = f64x2.splat(m / (count + m));
    const between = f64x2.splat((m * count) / (count + m));
    const perSample = f32x4.splat(<f32>(1 / <f64>((n + 3) >> 2)));
    const zero = f32x4.splat(0);
    let b = base, o = offset, v = m2, column = x;
    for (let c: u32 = 0; c < width; c += 16) {
      let k0 = zero, k1 = zero, k2 = zero, k3 = zero;
      {
        const f0 = v128.load(column), f1 = v128.load(column, 16);
        const f2 = v128.load(column, 32), f3 = v128.load(column, 48);
        let p = column;
        for (let i: u32 = 4; i < n; i += 4) {
          p += stride << 2;
          k0 = f32x4.add(k0, f32x4.sub(v128.load(p), f0));
          k1 = f32x4.add(k1, f32x4.sub(v128.load(p, 16), f1));
          k2 = f32x4.add(k2, f32x4.sub(v128.load(p, 32), f2));
          k3 = f32x4.add(k3, f32x4.sub(v128.load(p, 48), f3));
        }
        k0 = f32x4.add(f0, f32x4.mul(k0, perSample));
        k1 = f32x4.add(f1, f32x4.mul(k1, perSample));
        k2 = f32x4.add(f2, f32x4.mul(k2, perSample));
        k3 = f32x4.add(f3, f32x4.mul(k3, perSample));
      }
      let S0 = zero, S1 = zero, S2 = zero, S3 = zero;
      let Q0 = zero, Q1 = zero, Q2 = zero, Q3 = zero;
      let p = column;
      for (let left = n; left > 0; ) {
        const group = min<u32>(left, 8);
        let s0 = zero, s1 = zero, s2 = zero, s3 = zero;
        let q0 = zero, q1 = zero, q2 = zero, q3 = zero;
        for (let i: u32 = 0; i < group; i++) {
          const d0 = f32x4.sub(v128.load(p), k0);
          const d1 = f32x4.sub(v128.load(p, 16), k1);
          s0 = f32x4.add(s0, d0);
          s1 = f32x4.add(s1, d1);
          q0 = f32x4.add(q0, f32x4.mul(d0, d0));
          q1 = f32x4.add(q1, f32x4.mul(d1, d1));
          const d2 = f32x4.sub(v128.load(p, 32), k2);
          const d3 = f32x4.sub(v128.load(p, 48), k3);
          s2 = f32x4.add(s2, d2);
          s3 = f32x4.add(s3, d3);
          q2 = f32x4.add(q2, f32x4.mul(d2, d2));
          q3 = f32x4.add(q3, f32x4.mul(d3, d3));
          p += stride;
        }
        S0 = f32x4.add(S0, s0);
        S1 = f32x4.add(S1, s1);
        S2 = f32x4.add(S2, s2);
        S3 = f32x4.add(S3, s3);
        Q0 = f32x4.add(Q0, q0);
        Q1 = f32x4.add(Q1, q1);
        Q2 = f32x4.add(Q2, q2);
        Q3 = f32x4.add(Q3, q3);
        left -= group;
      }
      if (count == 0) {
        v128.store(b, k0);
        v128.store(b, k1, 16);
        v128.store(b, k2, 32);
        v128.store(b, k3, 48);
      }
      pool(b, o, v, k0, S0, Q0, perValue, weight, between);
      pool(b + 16, o + 32, v + 32, k1, S1, Q1, perValue, weight, between);
      pool(b + 32, o + 64, v + 64, k2, S2, Q2, perValue, weight, between);
      pool(b + 48, o + 96, v + 96, k3, S3, Q3, perValue, weight, between);
      column += 64;
      b += 64;
      o += 128;
      v += 128;
    }
    count += m;
    rows -= n;
    x += <usize>n * stride;
  }
}

/** A float32 near the mean of n >= 1 values: from every fourth vector, relative to the first value. */
// @ts-ignore: decorator
@inline function shiftOf(x: usize, n: u32): f32 {
  const first = load<f32>(x);
  const vectors = n >> 2;
  if (vectors == 0) return first;
  const f = f32x4.splat(first);
  let s = f32x4.splat(0);
  let t = s;
  let p = x;
  let i: u32 = 4;
  for (; i < vectors; i += 8) {
    s = f32x4.add(s, f32x4.sub(v128.load(p), f));
    t = f32x4.add(t, f32x4.sub(v128.load(p, 64), f));
    p += 128;
  }
  if (i - 4 < vectors) s = f32x4.add(s, f32x4.sub(v128.load(p), f));
  s = f32x4.add(s, t);
  const sum =
    f32x4.extract_lane(s, 0) + f32x4.extract_lane(s, 1) +
    (f32x4.extract_lane(s, 2) + f32x4.extract_lane(s, 3));
  return <f32>(<f64>first + <f64>sum / <f64>(((vectors + 3) >> 2) << 2));
}

/**
 * Adds `planes` planes of `inner` values each, one after the other in memory, to the state of their
 * channels: the first belongs to channel `first`, the next to the one after it, modulo `channels`.
 * `count` is how many values channel `first` holds already; 0 overwrites. A call may also bring one
 * part of a plane, cut at multiples of BLOCK_PLANE.
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
      const shift = shiftOf(x, n);
      const k = f32x4.splat(shift);
      const zero = f32x4.splat(0);
      let S = f64x2.splat(0), Q = S;
      let vectors = n >> 2;
      while (vectors >= 4) {
        const group = min<u32>(vectors >> 2, 8);
        let s0 = zero, s1 = zero, s2 = zero, s3 = zero;
        let q0 = zero, q1 = zero, q2 = zero, q3 = zero;
        for (let i: u32 = 0; i < group; i++) {
          const d0 = f32x4.sub(v128.load(x), k);
          const d1 = f32x4.sub(v128.load(x, 16), k);
          s0 = f32x4.add(s0, d0);
          s1 = f32x4.add(s1, d1);
          q0 = f32x4.add(q0, f32x4.mul(d0, d0));
          q1 = f32x4.add(q1, f32x4.mul(d1, d1));
          const d2 = f32x4.sub(v128.load(x, 32), k);
          const d3 = f32x4.sub(v128.load(x, 48), k);
          s2 = f32x4.add(s2, d2);
          s3 = f32x4.add(s3, d3);
          q2 = f32x4.add(q2, f32x4.mul(d2, d2));
          q3 = f32x4.add(q3, f32x4.mul(d3, d3));
          x += 64;
        }
        const s = f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3));
        const q = f32x4.add(f32x4.add(q0, q1), f32x4.add(q2, q3));
        S = f64x2.add(S, f64x2.add(low(s), high(s)));
        Q = f64x2.add(Q, f64x2.add(low(q), high(q)));
        vectors -= group << 2;
      }
      if (n & 15) {
        let s = zero, q = zero;
        for (; vectors > 0; vectors--) {
          const d = f32x4.sub(v128.load(x), k);
          s = f32x4.add(s, d);
          q = f32x4.add(q, f32x4.mul(d, d));
          x += 16;
        }
        const tail = n & 3;
        if (tail) {
          const d = v128.and(f32x4.sub(v128.load(x), k), firstLanes(tail));
          s = f32x4.add(s, d);
          q = f32x4.add(q, f32x4.mul(d, d));
          x += tail << 2;
        }
        S = f64x2.add(S, f64x2.add(low(s), high(s)));
        Q = f64x2.add(Q, f64x2.add(low(q), high(q)));
      }
      const s = sum2(S);
      const m = <f64>n;
      const at = <usize>c;
      const own = sum2(Q) - s * (s / m);
      const within = max<f64>(own, 0);
      if (held == 0) {
        store<f32>(base + (at << 2), shift);
        store<f64>(offset + (at << 3), s / m);
        store<f64>(m2 + (at << 3), within);
      } else {
        const from = load<f64>(offset + (at << 3));
        const delta = <f64>shift - <f64>load<f32>(base + (at << 2)) + s / m - from;
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
