// The work that is done once per channel and not once per value: it turns sums into statistics, statistics
// into the terms of the elementwise kernels, and moves the running averages. It computes in float64 and
// rounds to float32 at the end.
//
// Two channels are read and written at a time, so every array has room for one more than `n`.

import { SCALE, SHIFT, SLOPE } from "./blocks";
import { widen } from "./lanes";

/** Stores a float64 pair as two float32. */
// @ts-ignore: decorator
@inline function narrow(p: usize, v: v128): void {
  v128.store_lane<i64>(p, f32x4.demote_f64x2_zero(v), 0);
}

/** 1/√(variance + epsilon). It is 0 where both are 0, so that a channel without any spread gives beta. */
// @ts-ignore: decorator
@inline
function inverse(variance: v128, epsilon: v128): v128 {
  const square = f64x2.add(variance, epsilon);
  const value = f64x2.div(f64x2.splat(1), f64x2.sqrt(square));
  return v128.andnot(value, f64x2.eq(square, f64x2.splat(0)));
}

// γ/√(variance + epsilon), limited to the range of float32, since an infinite scale times x - mean = 0 would
// be NaN. pmin and pmax are one instruction each, min and max about ten; NaN goes through both.
// @ts-ignore: decorator
@inline
function scaleOf(inv: v128, gamma: usize): v128 {
  const scale = gamma ? f64x2.mul(inv, widen(gamma)) : inv;
  const most = f64x2.splat(f32.MAX_VALUE);
  return f64x2.pmax(f64x2.pmin(scale, most), f64x2.neg(most));
}

/**
 * Pools columns of `count` values each into one state per channel (Chan, Golub & LeVeque 1983, eq. 2.1).
 * Channel c has `times` columns: column c·pitch and those that follow it `step` columns apart.
 */
export function mergeMoments(
  base: usize, offset: usize, m2: usize, count: f64,
  channels: u32, pitch: u32, times: u32, step: u32,
): void {
  for (let c: usize = 0; c < channels; c++) {
    let column = c * pitch;
    const b = load<f32>(base + (column << 2));
    let o = load<f64>(offset + (column << 3));
    let v = load<f64>(m2 + (column << 3));
    for (let i: u32 = 1; i < times; i++) {
      column += step;
      const d = <f64>load<f32>(base + (column << 2)) - <f64>b + load<f64>(offset + (column << 3)) - o;
      const next = <f64>(i + 1);
      o += d * (1 / next);
      v += load<f64>(m2 + (column << 3)) + d * d * ((count * <f64>i) / next);
    }
    store<f32>(base + (c << 2), b);
    store<f64>(offset + (c << 3), o);
    store<f64>(m2 + (c << 3), v);
  }
}

/** Adds up the columns of each channel, which lie as in `mergeMoments`. */
export function mergeSums(sum: usize, channels: u32, pitch: u32, times: u32, step: u32): void {
  for (let c: usize = 0; c < channels; c++) {
    let column = c * pitch;
    let s = load<f64>(sum + (column << 3));
    for (let i: u32 = 1; i < times; i++) {
      column += step;
      s += load<f64>(sum + (column << 3));
    }
    store<f64>(sum + (c << 3), s);
  }
}

/** Lays a parameter out for the columns of a row: each channel's `inner` times, and all that `repeats` times. */
export function spread(columns: usize, parameter: usize, channels: u32, inner: u32, repeats: u32): void {
  for (let r: u32 = 0; r < repeats; r++) {
    for (let c: usize = 0; c < channels; c++) {
      const value = load<f32>(parameter + (c << 2));
      for (let i: u32 = 0; i < inner; i++) {
        store<f32>(columns, value);
        columns += 4;
      }
    }
  }
}

/** Sets all bits of the lanes that can be a variance: neither negative nor infinite nor NaN. */
// @ts-ignore: decorator
@inline function isVariance(v: v128): v128 {
  return v128.and(f64x2.ge(v, f64x2.splat(0)), f64x2.lt(v, f64x2.splat(Infinity)));
}

/**
 * The first channel whose variance is negative or not finite; n if there is none. `valid` joins the
 * `isVariance` of all channels, and of the value behind the last one, which was read with it.
 */
function firstInvalid(variance: usize, n: u32, valid: v128): u32 {
  if (i64x2.all_true(valid)) return n;
  let c: u32 = 0;
  while (c < n) {
    const v = load<f64>(variance + (<usize>c << 3));
    if (!(v >= 0 && v < Infinity)) break;
    c++;
  }
  return c;
}

/**
 * Turns the state that `momentsRows` and `momentsPlanes` leave into mean and population variance, and into
 * what float64 rounds off the mean (by Knuth's two-sum). Returns the first channel whose variance is negative
 * or not finite; n if there is none.
 */
export function finishMoments(
  mean: usize, meanLow: usize, variance: usize, base: usize, offset: usize, m2: usize, count: f64, n: u32,
): u32 {
  const values = f64x2.splat(count);
  let valid = i64x2.splat(-1);
  for (let c: usize = 0; c < n; c += 2) {
    const b = widen(base + (c << 2)), o = v128.load(offset + (c << 3));
    const sum = f64x2.add(b, o);
    const part = f64x2.sub(sum, b);
    const v = f64x2.div(v128.load(m2 + (c << 3)), values);
    v128.store(mean + (c << 3), sum);
    v128.store(meanLow + (c << 3), f64x2.add(f64x2.sub(b, f64x2.sub(sum, part)), f64x2.sub(o, part)));
    v128.store(variance + (c << 3), v);
    valid = v128.and(valid, isVariance(v));
  }
  return firstInvalid(variance, n, valid);
}

/** running += weight·(batch - running). The batch's variance is multiplied by `bessel`, Bessel's correction or 1, first. */
export function moveRunning(
  runningMean: usize, runningVariance: usize, mean: usize, variance: usize,
  weight: f64, bessel: f64, n: u32,
): void {
  const w = f64x2.splat(weight);
  const k = f64x2.splat(bessel);
  // At weight 1 the result has to be the new value exactly. Computed as above it might not be: of an old
  // value 1 and a new one 1e-30 it would be 1 + (1e-30 - 1) = 0.
  const keep = f64x2.splat(weight == 1 ? 0 : 1);
  for (let c: usize = 0; c < n; c += 2) {
    const at = c << 3;
    const m = f64x2.mul(v128.load(runningMean + at), keep);
    const v = f64x2.mul(v128.load(runningVariance + at), keep);
    v128.store(runningMean + at, f64x2.add(m, f64x2.mul(w, f64x2.sub(v128.load(mean + at), m))));
    const sample = f64x2.mul(v128.load(variance + at), k);
    v128.store(runningVariance + at, f64x2.add(v, f64x2.mul(w, f64x2.sub(sample, v))));
  }
}

/** center = float32(mean): what the elementwise kernels and the sums of the gradient subtract from x. */
export function roundMeans(center: usize, mean: usize, n: u32): void {
  for (let c: usize = 0; c < n; c += 2) narrow(center + (c << 2), v128.load(mean + (c << 3)));
}

/**
 * Works out the terms of y = (x - center)·scale + shift, which normalizes by mean and variance:
 * scale = γ/√(σ²+ε), shift = β - (mean - center + meanLow)·scale. An address 0 says that a layer has no
 * gamma or no beta, or that meanLow is not known.
 * Returns the first channel whose variance is negative or not finite; n if there is none.
 */
export function scaleShift(
  terms: usize,
  mean: usize, meanLow: usize, variance: usize, gamma: usize, beta: usize, epsilon: f64, n: u32,
): u32 {
  const e = f64x2.splat(epsilon);
  const zero = f64x2.splat(0);
  let valid = i64x2.splat(-1);
  for (let c: usize = 0; c < n; c += 2) {
    const m = v128.load(mean + (c << 3));
    const low = meanLow ? v128.load(meanLow + (c << 3)) : zero;
    const center = f32x4.demote_f64x2_zero(m);
    const v = v128.load(variance + (c << 3));
    const scale = scaleOf(inverse(v, e), gamma ? gamma + (c << 2) : 0);
    const rest = f64x2.mul(f64x2.add(f64x2.sub(m, f64x2.promote_low_f32x4(center)), low), scale);
    const b = beta ? widen(beta + (c << 2)) : zero;
    v128.store_lane<i64>(terms + (c << 2), center, 0);
    narrow(terms + SCALE + (c << 2), scale);
    narrow(terms + SHIFT + (c << 2), f64x2.sub(b, rest));
    valid = v128.and(valid, isVariance(v));
  }
  return firstInvalid(variance, n, valid);
}

/**
 * Turns the sums of sums.ts into the gradients of γ and β, and into scale, shift and slope of the
 * gradient of x; the centers have been written before. `perValue` is 1/m, or 0 where the statistics are
 * constants, as in a frozen layer.
 */
export function gradientTerms(
  terms: usize, dgamma: usize, dbeta: usize,
  sumDy: usize, sumDyX: usize, mean: usize, variance: usize, gamma: usize,
  epsilon: f64, perValue: f64, n: u32,
): void {
  const e = f64x2.splat(epsilon);
  const each = f64x2.splat(perValue);
  for (let c: usize = 0; c < n; c += 2) {
    const m = v128.load(mean + (c << 3));
    const rest = f64x2.sub(m, f64x2.promote_low_f32x4(f32x4.demote_f64x2_zero(m)));
    const s = v128.load(sumDy + (c << 3));
    const p = f64x2.sub(v128.load(sumDyX + (c << 3)), f64x2.mul(rest, s));
    const inv = inverse(v128.load(variance + (c << 3)), e);
    const scale = scaleOf(inv, gamma ? gamma + (c << 2) : 0);
    const slope = f32x4.demote_f64x2_zero(f64x2.mul(f64x2.mul(f64x2.mul(p, inv), inv), each));
    const shift = f64x2.sub(f64x2.mul(s, each), f64x2.mul(rest, f64x2.promote_low_f32x4(slope)));
    narrow(terms + SCALE + (c << 2), scale);
    narrow(terms + SHIFT + (c << 2), shift);
    v128.store_lane<i64>(terms + SLOPE + (c << 2), slope, 0);
    narrow(dgamma + (c << 2), f64x2.mul(p, inv));
    narrow(dbeta + (c << 2), s);
  }
}
