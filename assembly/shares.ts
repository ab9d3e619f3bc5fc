// Kernels that share large traversals out to several threads. They have the names and the arguments of kernels of the
// other binaries, and call those where one thread is to do all of the work. So the engine does not know of threads, but for two
// hooks (src/threads/start.ts and near.ts).
//
// A kernel here describes the traversal as a job, which `piece` of pieces.ts takes apart, and has all threads do its pieces
// (crew.ts). Jobs know nothing of the bits of bits.ts: the engine gives such only while there is one thread (src/engine/bits.ts),
// which is then to do all of the work.

import * as kernels from "./kernels";
import {
  AFFINE_PLANES, AFFINE_STRIPS, AFFINE_SWEEP, GATE_PLANES, GATE_ROWS, GRADIENT_PLANES, GRADIENT_STRIPS,
  GRADIENT_SWEEP, Job, MOMENTS_PLANES, MOMENTS_ROWS, NEAR, NearJob, SUMS_PLANES, SUMS_ROWS,
  padded, piece, poolMoments, poolSums,
} from "./pieces";
import { hand, pieces, piecesOf } from "./crew";
import { MAX_PIECES } from "./protocol";
import { CACHED, COLUMNS, RUN, into0, into1, into2, setting, shared } from "./told";
import { BLOCK_PLANE, rowsOfOne, rowsOfTwo } from "./blocks";

/** The work for a value in a reduction or in the gradient of x, as in src/threads/sizes.ts. */
const HEAVY: u32 = 3;

/** Describes a job: what it does, the tensors, the terms, the dimensions. */
function describe(
  job: Job, kind: u32, n: u32, out: usize, a: usize, b: usize, terms: usize,
  d0: u32, d1: u32, d2: u32, inner: u32, parts: u32,
): void {
  job.kind = kind;
  job.pieces = n;
  job.out = out;
  job.a = a;
  job.b = b;
  job.terms = terms;
  job.d0 = d0;
  job.d1 = d1;
  job.d2 = d2;
  job.inner = inner;
  job.parts = parts;
}

/**
 * An elementwise kernel, by all threads or, as a job of one piece, by this one. What one thread does alone is described in
 * another place: a worker that was given up may still read about the last call that it knew.
 */
function elementwise(
  kind: u32, out: usize, a: usize, b: usize, add: usize, terms: usize, low: f32, high: f32,
  d0: u32, d1: u32, d2: u32, inner: u32,
): void {
  const isPlanes = kind >= AFFINE_PLANES;
  const size = d1 * (isPlanes ? inner : d0);
  let n = pieces(size * (b ? HEAVY : 1), MAX_PIECES);
  const byChannels = isPlanes && (size <= setting(CACHED)) & (d0 == 0) & (d1 % d2 == 0) & (d2 >= n);
  // Where there are fewer planes than pieces, each is cut into equally many.
  if (isPlanes && d1 < n) n = n / d1 * d1;
  const job = changetype<Job>(n > 1 ? shared : shared + offsetof<NearJob>());
  describe(job, kind, n, out, a, b, terms, d0, d1, d2, inner, byChannels ? n : 1);
  job.add = add;
  job.low = low;
  job.high = high;
  if (n > 1) hand(n, out != a && out != add);
  else piece(changetype<usize>(job), 0, 0);
}

export function affineStrips(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  elementwise(AFFINE_STRIPS, y, x, 0, add, terms, low, high, rows, width, <u32>stride, 0);
}

export function affineSweep(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void {
  elementwise(AFFINE_SWEEP, y, x, 0, add, terms, low, high, rows, width, <u32>stride, 0);
}

export function affinePlanes(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  elementwise(AFFINE_PLANES, y, x, 0, add, terms, low, high, first, planes, channels, inner);
}

export function gateRows(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize,
): void {
  elementwise(GATE_ROWS, g, dy, x, add, terms, low, high, rows, width, <u32>stride, 0);
}

export function gatePlanes(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  elementwise(GATE_PLANES, g, dy, x, add, terms, low, high, first, planes, channels, inner);
}

export function gradientStrips(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  elementwise(GRADIENT_STRIPS, dx, dy, x, 0, terms, 0, 0, rows, width, <u32>stride, 0);
}

export function gradientSweep(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void {
  elementwise(GRADIENT_SWEEP, dx, dy, x, 0, terms, 0, 0, rows, width, <u32>stride, 0);
}

export function gradientPlanes(
  dx: usize, dy: usize, x: usize, terms: usize,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  elementwise(GRADIENT_PLANES, dx, dy, x, 0, terms, 0, 0, first, planes, channels, inner);
}

/** Hands a reduction out, whose pieces leave states. */
function reduction(
  kind: u32, n: u32, a: usize, b: usize, center: usize, d0: u32, d1: u32, d2: u32, inner: u32, each: u32, parts: u32,
): void {
  const job = changetype<Job>(shared);
  describe(job, kind, n, 0, a, b, center, d0, d1, d2, inner, parts);
  job.into0 = into0;
  job.into1 = into1;
  job.into2 = into2;
  job.each = each;
  hand(n, true);
}

/** Whether one thread is to do all of some rows. Narrow rows in caches are not cut. */
function isAlone(size: u32, width: u32): bool {
  return (size <= setting(CACHED) && width < 32) || pieces(size * HEAVY, MAX_PIECES) == 1;
}

/**
 * Hands out rows from `row` on, as many as there is room for the states of: in caches some columns of all of them to
 * each piece, else whole blocks of `each` rows. Returns how many.
 */
function blocks(
  kind: u32, a: usize, b: usize, center: usize, row: u32, rows: u32, width: u32, stride: usize, each: u32,
): u32 {
  const n = min(setting(COLUMNS) / padded(width) * each, rows - row);
  const isCached = rows * width <= setting(CACHED);
  const most = isCached ? max(2, width / setting(RUN)) : (n + each - 1) / each;
  const count = piecesOf(n * width * HEAVY, most);
  const from = <usize>row * stride;
  reduction(kind, count, a + from, b + from, center, n, width, <u32>stride, 0, each, isCached ? count : 1);
  return n;
}

export function momentsRows(
  base: usize, offset: usize, m2: usize, scratch: usize, x: usize, count: f64,
  rows: u32, width: u32, stride: usize, whole: u32,
): void {
  if (isAlone(rows * width, width)) {
    kernels.momentsRows(base, offset, m2, scratch, x, count, rows, width, stride, whole);
    return;
  }
  const each = rowsOfOne(width);
  for (let row: u32 = 0, n: u32 = 0; row < rows; row += n) {
    n = blocks(MOMENTS_ROWS, x, 0, 0, row, rows, width, stride, each);
    poolMoments(base, offset, m2, into0, into1, into2, count + <f64>row, n, width, each);
  }
}

export function gradientSumsRows(
  sumDy: usize, sumDyX: usize, scratch: usize, g: usize, dy: usize, x: usize, add: usize, terms: usize,
  low: f32, high: f32, count: f64, rows: u32, width: u32, stride: usize, whole: u32,
): void {
  if (isAlone(rows * width, width)) {
    kernels.gradientSumsRows(
      sumDy, sumDyX, scratch, g, dy, x, add, terms, low, high, count, rows, width, stride, whole,
    );
    return;
  }
  // Pieces add up only what is gated already: by rows, while sums may be cut by columns.
  if (low <= high) gateRows(g, dy, x, add, terms, low, high, rows, width, stride);
  const each = rowsOfTwo(width);
  for (let row: u32 = 0, n: u32 = 0; row < rows; row += n) {
    n = blocks(SUMS_ROWS, g, x, terms, row, rows, width, stride, each);
    const before = count + <f64>row;
    poolSums(sumDy, into0, before, n, width, each);
    poolSums(sumDyX, into1, before, n, width, each);
  }
}

/**
 * Whether pieces have whole planes and leave a state of each, which is pooled afterwards: if a plane is one block. From
 * memory, that reads longer runs than some channels in all the examples.
 */
function isByPlanes(count: f64, planes: u32, channels: u32, inner: u32): bool {
  return (
    ((count > 0) | (planes * inner > setting(CACHED))) &
    (inner <= BLOCK_PLANE) &
    (planes / channels * padded(channels) <= setting(COLUMNS))
  );
}

/**
 * Hands out a reduction of planes; how many states of each channel it leaves, or 0 if this thread is to do it: so it is unless
 * planes begin with channel 0 and end with the last one, and if pieces of channels would have to go on with a state.
 */
function planesReduced(
  kind: u32, a: usize, b: usize, center: usize, count: f64, first: u32, planes: u32, channels: u32, inner: u32,
): u32 {
  const byPlanes = isByPlanes(count, planes, channels, inner);
  if ((first != 0) | (planes % channels != 0) | ((count > 0) & !byPlanes)) return 0;
  const n = pieces(planes * inner * HEAVY, channels);
  if (n == 1) return 0;
  reduction(kind, n, a, b, center, 0, planes, channels, inner, 0, byPlanes ? n : 1);
  return byPlanes ? planes / channels : 1;
}

export function momentsPlanes(
  base: usize, offset: usize, m2: usize, x: usize, count: f64,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const states = planesReduced(MOMENTS_PLANES, x, 0, 0, count, first, planes, channels, inner);
  // A single state of each channel is pooled as well, with nothing.
  if (states) poolMoments(base, offset, m2, into0, into1, into2, count, states * inner, channels, inner);
  else kernels.momentsPlanes(base, offset, m2, x, count, first, planes, channels, inner);
}

export function gradientSumsPlanes(
  sumDy: usize, sumDyX: usize, g: usize, dy: usize, x: usize, center: usize, bits: usize, count: f64,
  first: u32, planes: u32, channels: u32, inner: u32,
): void {
  const states = planesReduced(SUMS_PLANES, dy, x, center, count, first, planes, channels, inner);
  if (states) {
    poolSums(sumDy, into0, count, states, channels, 1);
    poolSums(sumDyX, into1, count, states, channels, 1);
  } else kernels.gradientSumsPlanes(sumDy, sumDyX, g, dy, x, center, bits, count, first, planes, channels, inner);
}

/**
 * The whole of `backward` for some channels in planes, of which a piece has `each` (`nearPiece` of pieces.ts). dgamma and dbeta
 * are copied from where pieces leave them: a worker that is given up may still write there.
 */
export function backward(
  dx: usize, dy: usize, x: usize, mean: usize, meanLow: usize, variance: usize, gamma: usize, beta: usize,
  dgamma: usize, dbeta: usize, each: u32, n: u32, channels: u32, inner: u32, examples: u32,
  epsilon: f64, perValue: f64, low: f32, high: f32,
): void {
  const own = changetype<NearJob>(shared);
  const count = (n + each - 1) / each;
  describe(changetype<Job>(shared), NEAR, count, dx, dy, x, mean, <u32>variance, <u32>gamma, <u32>into0, <u32>into1, u32(low <= high));
  own.each = each;
  own.channels = n;
  own.pitch = channels;
  own.inner = inner;
  own.examples = examples;
  own.meanLow = meanLow;
  own.beta = beta;
  own.epsilon = epsilon;
  own.low = low;
  own.high = high;
  own.perValue = perValue;
  // The gated dy is kept in dx until dx overwrites it.
  hand(count, (dx != dy) & !(low <= high));
  memory.copy(dgamma, into0, n << 2);
  memory.copy(dbeta, into1, n << 2);
}
