// x -> per channel: mean and sum of squared deviations (m2), without E[x²] - E[x]².
//
// Data are cut into blocks. A block is read twice while it is in cache: first S = Σx in float64,
// which is exact for all but the wildest data, then, with k = float32(S/n), q = Σ(x - k)². Since
// r = S - n·k is known as well, m2 = q - r²/n ("corrected two-pass", Chan, Golub & LeVeque 1983,
// "Algorithms for computing the sample variance", eq. 1.7). Blocks are pooled in float64 (same
// paper, eq. 2.1).
//
// The mean has to be that exact: with a large gamma, its error is seen in every y. The squares are
// summed in float32 lanes over at most 8 values, 4 and 4, and go on in float64: rounding stays below
// (4 + 3)·2^-24 of q, 4e-7, in the worst case, near 1e-7 in practice (8 in a row were 5 % faster, and
// dx was off by 1.3e-6 where a few equal values stand against others). Planes: 32 values in a lane, by
// twos, fours and eights, then 4 eights one after the other, (3 + 3 + 3)·2^-24.
//
// The state of a column is (base, offset, m2): mean = base + offset, where base is a float32 near
// the data, so that the mean is known to an ulp of sigma and not of the mean itself.
//
// Blocks depend on the dimensions alone, never on addresses: the same bits wherever data live.

import {
  accumulate, BLOCK_PLANE, BLOCK_ROWS, firstLanes, high, low, SCRATCH, sum2, widen,
} from "./lanes";

/** Bytes of a row up to which two of them are read at once: of 1 KB they are two streams. */
const PAIR: usize = 512;

/** Sums of `n` rows, down one strip of 16 columns after the other: the rows are in cache. */
function sumStrips(sum: usize, x: usize, n: u32, width: u32, stride: usize): void {
  for (let c: u32 = 0; c < width; c += 16) {
    let a0 = f64x2.splat(0), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0;
    let p = x;
    for (let i: u32 = 0; i < n; i++) {
      a0 = f64x2.add(a0, widen(p));
      a1 = f64x2.add(a1, low(v128.load64_zero(p, 8)));
      a2 = f64x2.add(a2, low(v128.load64_zero(p, 16)));
      a3 = f64x2.add(a3, low(v128.load64_zero(p, 24)));
      a4 = f64x2.add(a4, low(v128.load64_zero(p, 32)));
      a5 = f64x2.add(a5, low(v128.load64_zero(p, 40)));
      a6 = f64x2.add(a6, low(v128.load64_zero(p, 48)));
      a7 = f64x2.add(a7, low(v128.load64_zero(p, 56)));
      p += stride;
    }
    v128.store(sum, a0);
    v128.store(sum, a1, 16);
    v128.store(sum, a2, 32);
    v128.store(sum, a3, 48);
    v128.store(sum, a4, 64);
    v128.store(sum, a5, 80);
    v128.store(sum, a6, 96);
    v128.store(sum, a7, 112);
    x += 64;
    sum += 128;
  }
}

/**
 * The same sums, of the same bits, with the rows read in the order of memory: they are not in cache.
 * Short rows go in pairs, which halves the traffic with `sum` and still is one ascending stream.
 */
function sumSweep(sum: usize, x: usize, n: u32, width: u32, stride: usize): void {
  const end = sum + (<usize>width << 3);
  memory.fill(sum, 0, <usize>((width + 15) & ~15) << 3);
  let i: u32 = 0;
  if (stride <= PAIR) {
    for (; i + 2 <= n; i += 2) {
      let p = x, q = x + stride;
      for (let s = sum; s < end; s += 64) {
        v128.store(s, f64x2.add(f64x2.add(v128.load(s), widen(p)), widen(q)));
        v128.store(s, f64x2.add(f64x2.add(v128.load(s, 16), low(v128.load64_zero(p, 8))), low(v128.load64_zero(q, 8))), 16);
        v128.store(s, f64x2.add(f64x2.add(v128.load(s, 32), low(v128.load64_zero(p, 16))), low(v128.load64_zero(q, 16))), 32);
        v128.store(s, f64x2.add(f64x2.add(v128.load(s, 48), low(v128.load64_zero(p, 24))), low(v128.load64_zero(q, 24))), 48);
        p += 32;
        q += 32;
      }
      x += stride << 1;
    }
  }
  for (; i < n; i++) {
    let p = x;
    for (let s = sum; s < end; s += 64) {
      v128.store(s, f64x2.add(v128.load(s), widen(p)));
      v128.store(s, f64x2.add(v128.load(s, 16), low(v128.load64_zero(p, 8))), 16);
      v128.store(s, f64x2.add(v128.load(s, 32), low(v128.load64_zero(p, 16))), 32);
      v128.store(s, f64x2.add(v128.load(s, 48), low(v128.load64_zero(p, 24))), 48);
      p += 32;
    }
    x += stride;
  }
}

/** k = float32(sum·perValue), and q = Σ(x - k)² of `n` rows in float64, strip after strip. */
function squares(
  q: usize, k: usize, sum: usize, x: usize, perValue: v128, n: u32, width: u32, stride: usize,
): void {
  const zero = f32x4.splat(0);
  memory.fill(q, 0, <usize>((width + 15) & ~15) << 3);
  for (let c: u32 = 0; c < width; c += 16) {
    const k0 = shiftOf(sum, perValue), k1 = shiftOf(sum + 32, perValue);
    const k2 = shiftOf(sum + 64, perValue), k3 = shiftOf(sum + 96, perValue);
    v128.store(k, k0);
    v128.store(k, k1, 16);
    v128.store(k, k2, 32);
    v128.store(k, k3, 48);
    let p = x;
    for (let left = n; left > 0; ) {
      const rest = left - min<u32>(left, 8);
      let t0 = zero, t1 = zero, t2 = zero, t3 = zero;
      while (left > rest) {
        const half = min<u32>(left - rest, 4);
        let q0 = zero, q1 = zero, q2 = zero, q3 = zero;
        for (let i: u32 = 0; i < half; i++) {
          const d0 = f32x4.sub(v128.load(p), k0);
          const d1 = f32x4.sub(v128.load(p, 16), k1);
          const d2 = f32x4.sub(v128.load(p, 32), k2);
          const d3 = f32x4.sub(v128.load(p, 48), k3);
          q0 = f32x4.add(q0, f32x4.mul(d0, d0));
          q1 = f32x4.add(q1, f32x4.mul(d1, d1));
          q2 = f32x4.add(q2, f32x4.mul(d2, d2));
          q3 = f32x4.add(q3, f32x4.mul(d3, d3));
          p += stride;
        }
        t0 = f32x4.add(t0, q0);
        t1 = f32x4.add(t1, q1);
        t2 = f32x4.add(t2, q2);
        t3 = f32x4.add(t3, q3);
        left -= half;
      }
      accumulate(q, t0);
      accumulate(q + 32, t1);
      accumulate(q + 64, t2);
      accumulate(q + 96, t3);
    }
    x += 64;
    q += 128;
    k += 64;
    sum += 128;
  }
}

// Pools a block into two columns: sum, shift k, q = Σ(x - k)².
// @ts-ignore: decorator
@inline
function pool2(
  base: usize, offset: usize, m2: usize,
  sum: v128, k: v128, q: v128, n: v128, perValue: v128, weight: v128, between: v128,
): void {
  const r = f64x2.sub(sum, f64x2.mul(n, k));
  const rest = f64x2.mul(r, perValue);
  const o = v128.load(offset);
  const d = f64x2.sub(f64x2.add(f64x2.sub(k, widen(base)), rest), o);
  v128.store(offset, f64x2.add(o, f64x2.mul(d, weight)));
  const within = f64x2.pmax(f64x2.sub(q, f64x2.mul(r, rest)), f64x2.splat(0));
  const added = f64x2.add(within, f64x2.mul(f64x2.mul(d, d), between));
  v128.store(m2, f64x2.add(v128.load(m2), added));
}

/**
 * Adds `rows` rows of `width` columns, `stride` bytes apart, to the state of the columns, which
 * holds `count` rows already (0: it is overwritten). A call's rows start a new block: callers cut
 * at multiples of BLOCK_ROWS. The state is read and written, rows are read, up to the next multiple
 * of 16 columns. `scratch` is written: room for five arrays SCRATCH apart.
 *
 * `cold`: the rows are not in cache. Strips of columns jump from row to row, which no prefetcher
 * follows, so the first reading, which brings a block into cache, is in the order of memory then:
 * [16384, 256] takes 0.8 nanoseconds a vector, and 3.1 in strips.
 */
export function momentsRows(
  base: usize, offset: usize, m2: usize, scratch: usize, x: usize, count: f64,
  rows: u32, width: u32, stride: usize, cold: bool,
): void {
  // q and sum are float64, twice as long.
  const q = scratch, sum = scratch + 2 * SCRATCH;
  if (count == 0) {
    const padded = <usize>((width + 15) & ~15);
    memory.fill(offset, 0, padded << 3);
    memory.fill(m2, 0, padded << 3);
  }
  while (rows) {
    const n = min(rows, BLOCK_ROWS);
    const m = <f64>n;
    const perValue = f64x2.splat(1 / m);
    if (cold) sumSweep(sum, x, n, width, stride);
    else sumStrips(sum, x, n, width, stride);
    // The shifts of the first block are the base.
    const shift = count == 0 ? base : scratch + 4 * SCRATCH;
    squares(q, shift, sum, x, perValue, n, width, stride);
    const values = f64x2.splat(m);
    const weight = f64x2.splat(m / (count + m));
    const between = f64x2.splat((m * count) / (count + m));
    for (let c: usize = 0; c < width; c += 4) {
      const b = base + (c << 2), o = offset + (c << 3), v = m2 + (c << 3);
      const s = sum + (c << 3), t = q + (c << 3);
      const k = v128.load(shift + (c << 2));
      pool2(b, o, v, v128.load(s), low(k), v128.load(t), values, perValue, weight, between);
      pool2(b + 8, o + 16, v + 16, v128.load(s, 16), high(k), v128.load(t, 16), values, perValue, weight, between);
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

/** Sum of n >= 1 values in float64: four sums of every fourth pair, then the rest. */
// @ts-ignore: decorator
@inline
function sumOf(x: usize, n: u32): f64 {
  let a = f64x2.splat(0), b = a, c = a, d = a;
  let p = x;
  let left = n;
  for (; left >= 8; left -= 8) {
    a = f64x2.add(a, widen(p));
    b = f64x2.add(b, low(v128.load64_zero(p, 8)));
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
      const m = <f64>n;
      const sum = sumOf(x, n);
      const shift = <f32>(sum / m);
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
      const own = sum2(Q) - r * (r / m);
      const within = max<f64>(own, 0);
      const at = <usize>c;
      if (held == 0) {
        store<f32>(base + (at << 2), shift);
        store<f64>(offset + (at << 3), r / m);
        store<f64>(m2 + (at << 3), within);
      } else {
        const from = load<f64>(offset + (at << 3));
        const delta = <f64>shift - <f64>load<f32>(base + (at << 2)) + r / m - from;
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
