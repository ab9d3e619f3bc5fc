// The sums of a gradient in rows, by several threads: `gradientSumsRows` (gradient.ts) in two halves. It adds float32
// sums over four rows to float64 sums, one after the other, and another order would give other bits. So threads make the
// sums over four rows first, each of other rows, and then add them up, each of other columns, in the order of one thread.
//
// In between they lie in the shared memory: for each piece of rows, for each strip of columns, for each four of rows, the
// sums of dy and those of dy·(x - center). A piece has a place of its own, because hardware reads ahead: where two threads
// write near to each other, they take cache lines away from each other, which took three times as long.

import { apartOf, stepOf } from "./blocks";
import { product } from "./gradient";
import { widen, widenNext } from "./lanes";

/** Columns of a strip. Their float64 sums, of both kinds, fit the registers. */
const STRIP: u32 = 8;
/** Bytes that a four leaves in a strip: a whole cache line. With strips of four columns all of this took twice as long. */
const LINE: usize = 64;

/** Where part p of n of something long `size` begins, if it is cut at multiples of `step`. */
// @ts-ignore: decorator
@inline export function cut(size: u32, p: u32, n: u32, step: u32): u32 {
  const steps = (size + step - 1) / step;
  return min(size, <u32>(<u64>steps * p / n) * step);
}

/** How many columns a row of states or of sums has, with those that are written past its end. */
// @ts-ignore: decorator
@inline export function padded(width: u32): u32 {
  return (width + 3) & ~3;
}

/**
 * Bytes of a strip of a piece: room for all its fours. It is an odd number of cache lines, since strips a multiple of
 * 4 KB apart would compete for the same places of the cache.
 */
// @ts-ignore: decorator
@inline function pitchOf(rows: u32, pieces: u32): usize {
  return <usize>(((rows >> 2) / pieces + 1) | 1) * LINE;
}

// @ts-ignore: decorator
@inline function stripsOf(width: u32): usize {
  return (width + STRIP - 1) / STRIP;
}

/** The sums over four rows of piece p of `pieces`. Up to three rows are left over. */
export function fours(
  to: usize, dy: usize, x: usize, center: usize,
  rows: u32, width: u32, stride: usize, each: u32, p: u32, pieces: u32,
): void {
  const pitch = pitchOf(rows, pieces), step = stepOf(width, stride);
  const perPiece = stripsOf(width) * pitch;
  const last = cut(rows >> 2, p + 1, pieces, 1);
  let four = cut(rows >> 2, p, pieces, 1);
  let at = to + <usize>p * perPiece;
  while (four < last) {
    // Which rows make a four, and in which order fours follow each other, is as in a block of `gradientSumsRows`.
    const block = four / (each >> 2), within = four - block * (each >> 2);
    const n = min(each, rows - block * each);
    const end = min(last, four - within + (n >> 2));
    const apart = apartOf(n, width, stride);
    let row = <usize>(block * each) * stride + <usize>within * step;
    for (; four < end; four++) {
      sumsOfFour(at, pitch, dy + row, x + row, center, apart, width);
      at += LINE;
      row += step;
    }
  }
}

function sumsOfFour(
  to: usize, pitch: usize, dy: usize, x: usize, center: usize, apart: usize, width: u32,
): void {
  const bytes = <usize>padded(width) << 2;
  const dy1 = dy + apart, dy2 = dy1 + apart, dy3 = dy2 + apart;
  const x1 = x + apart, x2 = x1 + apart, x3 = x2 + apart;
  for (let c: usize = 0; c < bytes; c += 16) {
    const k = v128.load(center + c);
    const g = v128.load(dy + c), g1 = v128.load(dy1 + c);
    const g2 = v128.load(dy2 + c), g3 = v128.load(dy3 + c);
    const q = product(g, x + c, k), q1 = product(g1, x1 + c, k);
    const q2 = product(g2, x2 + c, k), q3 = product(g3, x3 + c, k);
    v128.store(to, f32x4.add(f32x4.add(g, g1), f32x4.add(g2, g3)));
    v128.store(to, f32x4.add(f32x4.add(q, q1), f32x4.add(q2, q3)), 32);
    to += c & 16 ? pitch - 16 : 16;
  }
}

/**
 * Adds what the `pieces` of `rows` rows have left, at `from`, to the sums of `n` columns from `first` on, of `width`.
 * If `count` is 0, the sums are overwritten. They are written up to the next multiple of eight columns.
 */
export function addFours(
  sumDy: usize, sumDyX: usize, from: usize, count: f64,
  first: u32, n: u32, rows: u32, width: u32, pieces: u32,
): void {
  const pitch = pitchOf(rows, pieces), perPiece = stripsOf(width) * pitch;
  let strip = from + <usize>(first / STRIP) * pitch;
  if (count == 0) {
    memory.fill(sumDy, 0, <usize>padded(n) << 3);
    memory.fill(sumDyX, 0, <usize>padded(n) << 3);
  }
  for (let c: u32 = 0; c < n; c += STRIP) {
    let s0 = v128.load(sumDy), s1 = v128.load(sumDy, 16);
    let s2 = v128.load(sumDy, 32), s3 = v128.load(sumDy, 48);
    let p0 = v128.load(sumDyX), p1 = v128.load(sumDyX, 16);
    let p2 = v128.load(sumDyX, 32), p3 = v128.load(sumDyX, 48);
    for (let piece: u32 = 0; piece < pieces; piece++) {
      let at = strip + <usize>piece * perPiece;
      for (let i = cut(rows >> 2, piece + 1, pieces, 1) - cut(rows >> 2, piece, pieces, 1); i; i--) {
        s0 = f64x2.add(s0, widen(at));
        s1 = f64x2.add(s1, widenNext(at));
        s2 = f64x2.add(s2, widen(at + 16));
        s3 = f64x2.add(s3, widenNext(at + 16));
        p0 = f64x2.add(p0, widen(at + 32));
        p1 = f64x2.add(p1, widenNext(at + 32));
        p2 = f64x2.add(p2, widen(at + 48));
        p3 = f64x2.add(p3, widenNext(at + 48));
        at += LINE;
      }
    }
    v128.store(sumDy, s0);
    v128.store(sumDy, s1, 16);
    v128.store(sumDy, s2, 32);
    v128.store(sumDy, s3, 48);
    v128.store(sumDyX, p0);
    v128.store(sumDyX, p1, 16);
    v128.store(sumDyX, p2, 32);
    v128.store(sumDyX, p3, 48);
    sumDy += 64;
    sumDyX += 64;
    strip += pitch;
  }
}
