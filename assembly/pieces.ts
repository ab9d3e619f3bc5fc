// A traversal in pieces, for several threads. A job describes one traversal; `piece` does one part of it, on any
// thread and in any order. Pieces depend on the job alone, never on the number of threads. Elementwise kernels are
// cut anywhere, because they treat every value by itself. Reductions keep the order of one thread:
//
//   planes    a piece has some channels, in all the examples; or, from memory, some planes that are a block each, and then
//             goes on as with rows
//   rows      a piece has whole blocks of rows, or, in cache, some columns of all blocks. It leaves the state of each block
//             by itself; `poolMoments` or `poolSums` then pools them, one after the other, as the kernel does
//
// Elementwise kernels on rows are never cut by columns. Two threads that write to the same rows take cache lines away from
// each other, since hardware reads ahead: it took 0.6 times as long on one thread. Planes in cache are cut by channels, as
// reductions are, so that a thread finds in its own cache what it has just read.
//
// This is a binary of its own, which calls the kernels of the other two: kernels.ts.
//
// A piece can be done again if what it writes is neither what it nor what another piece reads. That is so but in three
// cases: users ask for y or dx in place of an input; tensors go through the stream buffers, in which y takes the place of x
// and dx that of dy; and, if there is an activation and no dadd, a gradient reads the gated dy where it writes dx. What happens
// then is in protocol.ts.
//
// shares.ts writes jobs.

import {
  affinePlanes, affineStrips, affineSweep, gatePlanes, gateRows,
  gradientPlanes, gradientStrips, gradientSumsPlanes, gradientSumsRows, gradientSweep, gradientTerms,
  momentsPlanes, momentsRows, roundMeans, scaleShift,
} from "./kernels";
import { SCRATCH, SHIFT, SLOPE } from "./blocks";
import { widen } from "./lanes";

/** What a job does. */
export const AFFINE_STRIPS: u32 = 0;
export const AFFINE_SWEEP: u32 = 1;
export const GRADIENT_STRIPS: u32 = 2;
export const GRADIENT_SWEEP: u32 = 3;
export const GATE_ROWS: u32 = 4;
export const AFFINE_PLANES: u32 = 5;
export const GRADIENT_PLANES: u32 = 6;
export const GATE_PLANES: u32 = 7;
export const MOMENTS_ROWS: u32 = 8;
export const MOMENTS_PLANES: u32 = 9;
export const SUMS_ROWS: u32 = 10;
export const SUMS_PLANES: u32 = 11;
export const NEAR: u32 = 12;
/** Nothing: the pieces of a call that was cut short. */
export const NOTHING: u32 = 13;

/** A job, field by field. Pointers that a kind does not need are 0. */
@unmanaged export class Job {
  kind: u32;
  /** How many pieces there are. */
  pieces: u32;
  out: usize;
  /** x of an elementwise kernel or of moments; dy of a gradient. */
  a: usize;
  /** x of a gradient. */
  b: usize;
  terms: usize;
  /** Rows, their width and their stride in bytes; for planes, the first channel, how many planes, and of how many channels. */
  d0: u32;
  d1: u32;
  d2: u32;
  /** Values in a plane. */
  inner: u32;
  /** The residual of an elementwise job, 0 if there is none. */
  add: usize;
  /** Fields that only `NearJob` has. */
  near0: usize;
  near1: usize;
  /** Where the states of a reduction go: base, offset and m2 of moments; sumDy and sumDyX of a gradient. */
  into0: usize;
  into1: usize;
  into2: usize;
  /** Reductions of rows: rows in a block. */
  each: u32;
  /** How many parts the columns are cut into; for planes, whether channels are cut (elementwise) or planes (reductions). */
  parts: u32;
  /** Another field of `NearJob` alone. */
  near2: f64;
  /** The range of the activation. */
  low: f32;
  high: f32;
}

/** Where part p of n of something long `size` begins, if it is cut at multiples of `step`. */
function cut(size: u32, p: u32, n: u32, step: u32): u32 {
  const steps = (size + step - 1) / step;
  return min(size, <u32>(<u64>steps * p / n) * step);
}

/** How many columns a row of states or of sums has, with those that are written past its end. */
// @ts-ignore: decorator
@inline export function padded(width: u32): u32 {
  return (width + 3) & ~3;
}

/** Does piece p of a job. `scratch` is memory of the thread that calls (told.ts). */
export function piece(at: usize, p: u32, scratch: usize): void {
  const job = changetype<Job>(at);
  const kind = job.kind;
  if (kind < AFFINE_PLANES) rowsOfPiece(job, p);
  else if (kind < MOMENTS_ROWS) planesOfPiece(job, p);
  else if (kind == MOMENTS_ROWS || kind == SUMS_ROWS) blocksOfPiece(job, p, scratch);
  else if (kind < NEAR) reductionOfPiece(job, p);
  else if (kind == NEAR) nearPiece(changetype<NearJob>(at), p, scratch);
}

/** An elementwise kernel on some rows. Pieces begin at multiples of eight rows, as strips do. */
function rowsOfPiece(job: Job, p: u32): void {
  const first = cut(job.d0, p, job.pieces, 8);
  run(job, <usize>first * job.d2, cut(job.d0, p + 1, job.pieces, 8) - first, job.d1, job.d2, 0);
}

/**
 * An elementwise kernel on some channels, in all the examples; or on some planes; or, where there are fewer planes than
 * pieces, on a part of one.
 */
function planesOfPiece(job: Job, p: u32): void {
  const planes = job.d1, channels = job.d2, inner = job.inner;
  const parts = planes < job.pieces ? job.pieces / planes : 1;
  const byChannels = job.parts > 1;
  let plane = p / parts, n: u32 = 1;
  if (parts == 1) {
    const all = byChannels ? channels : planes;
    plane = cut(all, p, job.pieces, 1);
    n = cut(all, p + 1, job.pieces, 1) - plane;
  }
  const start = cut(inner, p % parts, parts, 16);
  const length = cut(inner, p % parts + 1, parts, 16) - start;
  do {
    run(job, (<usize>plane * inner + start) << 2, (job.d0 + plane) % channels, n, channels, length);
    plane += channels;
  } while (byChannels && plane < planes);
}

/**
 * The kernel of a job, from so many bytes on. Of rows: how many, their width and stride. Of planes: the channel of the first one,
 * how many, of how many channels, how many values.
 */
function run(job: Job, at: usize, n0: u32, n1: u32, n2: u32, n3: u32): void {
  const kind = job.kind;
  const out = job.out + at, a = job.a + at, b = job.b + at, add = job.add ? job.add + at : 0;
  const terms = job.terms, low = job.low, high = job.high;
  if (kind == AFFINE_STRIPS) affineStrips(out, a, add, terms, low, high, n0, n1, n2);
  else if (kind == AFFINE_SWEEP) affineSweep(out, a, add, terms, low, high, n0, n1, n2);
  else if (kind == GATE_ROWS) gateRows(out, a, b, add, terms, low, high, n0, n1, n2);
  else if (kind == GRADIENT_STRIPS) gradientStrips(out, a, b, terms, n0, n1, n2);
  else if (kind == GRADIENT_SWEEP) gradientSweep(out, a, b, terms, n0, n1, n2);
  else if (kind == AFFINE_PLANES) affinePlanes(out, a, add, terms, low, high, n0, n1, n2, n3);
  else if (kind == GATE_PLANES) gatePlanes(out, a, b, add, terms, low, high, n0, n1, n2, n3);
  else gradientPlanes(out, a, b, terms, n0, n1, n2, n3);
}

/** The moments, or the sums of a gradient, of some blocks; or of some columns of all blocks. */
function blocksOfPiece(job: Job, p: u32, scratch: usize): void {
  const rows = job.d0, whole = job.d1, stride = <usize>job.d2, each = job.each, parts = job.parts;
  const first = cut(whole, p % parts, parts, 16);
  const n = cut(whole, p % parts + 1, parts, 16) - first;
  const blocks = (rows + each - 1) / each, groups = job.pieces / parts;
  const end = cut(blocks, p / parts + 1, groups, 1);
  for (let block = cut(blocks, p / parts, groups, 1); block < end; block++) {
    const row = block * each, some = min(each, rows - row);
    const from = <usize>row * stride + (<usize>first << 2);
    const at = <usize>(block * padded(whole) + first);
    const into1 = job.into1 + (at << 3), a = job.a + from;
    if (job.kind == MOMENTS_ROWS) {
      momentsRows(job.into0 + (at << 2), into1, job.into2 + (at << 3), scratch, a, 0, some, n, stride, whole);
    } else {
      // Added up in memory of the thread: a core reads ahead of where it adds, and would take the next cache lines away
      // from the thread that adds there.
      const sumDyX = scratch + 2 * SCRATCH, bytes = <usize>padded(n) << 3;
      const center = job.terms + (<usize>first << 2);
      gradientSumsRows(
        scratch, sumDyX, 0, a, a, job.b + from, 0, center, NaN, NaN, 0, some, n, stride, whole,
      );
      memory.copy(job.into0 + (at << 3), scratch, bytes);
      memory.copy(into1, sumDyX, bytes);
    }
  }
}

/**
 * Pools the states that the pieces of `rows` rows have left, block after block, into a state of `count` rows. The
 * formulas are those of `momentsRows`, so the bits are those of a single call.
 */
export function poolMoments(
  base: usize, offset: usize, m2: usize, from0: usize, from1: usize, from2: usize,
  count: f64, rows: u32, width: u32, each: u32,
): void {
  const pitch = <usize>padded(width);
  while (rows) {
    const n = min(rows, each);
    if (count == 0) {
      memory.copy(base, from0, pitch << 2);
      memory.copy(offset, from1, pitch << 3);
      memory.copy(m2, from2, pitch << 3);
    } else {
      const m = <f64>n;
      const weight = f64x2.splat(m / (count + m));
      const between = f64x2.splat((m * count) / (count + m));
      for (let c: usize = 0; c < width; c += 2) {
        const at = c << 3;
        const k = widen(from0 + (c << 2)), o = v128.load(offset + at);
        const d = f64x2.sub(f64x2.add(f64x2.sub(k, widen(base + (c << 2))), v128.load(from1 + at)), o);
        v128.store(offset + at, f64x2.add(o, f64x2.mul(d, weight)));
        const added = f64x2.add(v128.load(from2 + at), f64x2.mul(f64x2.mul(d, d), between));
        v128.store(m2 + at, f64x2.add(v128.load(m2 + at), added));
      }
    }
    count += <f64>n;
    rows -= n;
    from0 += pitch << 2;
    from1 += pitch << 3;
    from2 += pitch << 3;
  }
}

/** The same of one of the sums of a gradient, with the additions of `gradientSumsRows`. */
export function poolSums(sums: usize, from: usize, count: f64, rows: u32, width: u32, each: u32): void {
  const bytes = <usize>padded(width) << 3;
  if (count == 0) memory.fill(sums, 0, bytes);
  for (let row: u32 = 0; row < rows; row += each) {
    for (const end = from + bytes; from < end; from += 16) {
      v128.store(sums, f64x2.add(v128.load(sums), v128.load(from)));
      sums += 16;
    }
    sums -= bytes;
  }
}

/**
 * A reduction of planes, the first of which is one of channel 0. A piece has some channels in all the examples; or, if
 * there are parts, some planes, and leaves the state of each plane by itself. Such a plane is a single block.
 */
function reductionOfPiece(job: Job, p: u32): void {
  const channels = job.d2, planes = job.d1;
  if (job.parts > 1) {
    const end = cut(planes, p + 1, job.pieces, 1);
    let n: u32 = 0;
    for (let plane = cut(planes, p, job.pieces, 1); plane < end; plane += n) {
      const c = plane % channels;
      n = min(end - plane, channels - c);
      reduce(job, plane, c, n, plane / channels * padded(channels) + c, 0);
    }
    return;
  }
  const first = cut(channels, p, job.pieces, 1);
  const n = cut(channels, p + 1, job.pieces, 1) - first;
  let count: f64 = 0;
  for (let plane = first; plane < planes; plane += channels) {
    reduce(job, plane, first, n, first, count);
    count += <f64>job.inner;
  }
}

/** Adds n planes from one of channel `first` on to the states from the one at `into` on. */
function reduce(job: Job, plane: u32, first: u32, n: u32, into: u32, count: f64): void {
  const inner = job.inner;
  const at = <usize>(plane * inner) << 2, into1 = job.into1 + (<usize>into << 3);
  if (job.kind == MOMENTS_PLANES) {
    const into0 = job.into0 + (<usize>into << 2), into2 = job.into2 + (<usize>into << 3);
    momentsPlanes(into0, into1, into2, job.a + at, count, 0, n, n, inner);
  } else {
    const into0 = job.into0 + (<usize>into << 3), center = job.terms + (<usize>first << 2);
    gradientSumsPlanes(into0, into1, 0, job.a + at, job.b + at, center, 0, count, 0, n, n, inner);
  }
}

/** A job of the kind NEAR: the whole of `backward` in planes, some channels at a time. */
@unmanaged export class NearJob {
  kind: u32;
  pieces: u32;
  dx: usize;
  dy: usize;
  x: usize;
  mean: usize;
  variance: usize;
  gamma: usize;
  dgamma: usize;
  dbeta: usize;
  /** How many channels a piece has, but for the last one, which may have fewer; all of them; those of the tensor. */
  each: u32;
  channels: u32;
  pitch: u32;
  inner: u32;
  examples: u32;
  meanLow: usize;
  beta: usize;
  /** Whether there is an activation. Then mean and the last two arrays are as in `scaleShift`. */
  gated: u32;
  epsilon: f64;
  low: f32;
  high: f32;
  perValue: f64;
}

/** The address of the value of channel `first` in an array of float32 or, with shift 3, float64; 0 if there is none. */
function valueOf(array: usize, first: u32, shift: u32): usize {
  return array ? array + (<usize>first << shift) : 0;
}

/**
 * Sums, terms and dx of some channels, with an activation those of the gated dy, which dx holds in the meantime: the
 * second traversal finds what the first one has read in cache. Arrays per channel are those of the thread, because the
 * kernels of channel.ts write two channels at a time.
 */
function nearPiece(job: NearJob, p: u32, scratch: usize): void {
  const first = p * job.each;
  const n = min(job.each, job.channels - first);
  const inner = job.inner;
  const step = <usize>(job.pitch * inner) << 2;
  const start = <usize>(first * inner) << 2;
  const terms = scratch, dgamma = terms + 2 * SHIFT, dbeta = dgamma + SCRATCH;
  const sumDy = dbeta + SCRATCH, sumDyX = sumDy + 2 * SCRATCH;
  const mean = valueOf(job.mean, first, 3), variance = valueOf(job.variance, first, 3);
  const gamma = valueOf(job.gamma, first, 2), epsilon = job.epsilon;
  const gated = job.gated != 0, g = gated ? job.dx : job.dy;
  if (gated) {
    const meanLow = valueOf(job.meanLow, first, 3), beta = valueOf(job.beta, first, 2);
    scaleShift(terms, mean, meanLow, variance, gamma, beta, epsilon, n);
  } else roundMeans(terms, mean, n);
  let at = start;
  let count: f64 = 0;
  for (let i: u32 = 0; i < job.examples; i++) {
    if (gated) {
      gatePlanes(g + at, job.dy + at, job.x + at, 0, terms, job.low, job.high, 0, n, n, inner);
    }
    gradientSumsPlanes(sumDy, sumDyX, 0, g + at, job.x + at, terms, 0, count, 0, n, n, inner);
    at += step;
    count += <f64>inner;
  }
  gradientTerms(terms, dgamma, dbeta, sumDy, sumDyX, mean, variance, gamma, epsilon, job.perValue, n);
  const bytes = <usize>n << 2;
  // As in src/engine/gradient.ts: if statistics are constants, dx does not depend on the sums.
  if (job.perValue == 0) memory.fill(terms + SHIFT, 0, SLOPE - SHIFT + bytes);
  memory.copy(job.dgamma + (<usize>first << 2), dgamma, bytes);
  memory.copy(job.dbeta + (<usize>first << 2), dbeta, bytes);
  at = start;
  for (let i: u32 = 0; i < job.examples; i++) {
    gradientPlanes(job.dx + at, g + at, job.x + at, terms, 0, n, n, inner);
    at += step;
  }
}
