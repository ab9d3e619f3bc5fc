// The only caller of kernels. Works in place on tensors in kernel memory, and streams ordinary
// arrays through fixed buffers of cache size, tile by tile, so that memory stays O(tile).
//
// A view (outer, channels, inner) is walked in one of two ways, chosen by its dimensions alone:
//   planes  SIMD along the `inner` values of a channel;
//   rows    SIMD across columns: a row is all channels, each `inner` times. Narrow rows are taken
//           several at once (`repeats`), so that every width fills its vectors.
// Channels that do not fit the parameter arrays go in tiles.

import { NonFiniteError, StateError } from "./errors.js";
import type { Machine } from "./kernels.js";
import { countOf, sizeOf, type View } from "./layout.js";
import { MAX_COLUMNS, type Memory, type Slot } from "./memory.js";

/** Mean and variance per channel. */
export interface Statistics {
  readonly mean: Float64Array;
  readonly variance: Float64Array;
}

/** What a layer normalizes with. */
export interface Terms extends Statistics {
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly epsilon: number;
}

/** Terms worked out per channel: y = (x - hi)·scale + shift. */
export interface Affine {
  readonly hi: Float32Array;
  readonly scale: Float32Array;
  readonly shift: Float32Array;
}

/** Shorter planes go as rows, if there are rows enough to pool their columns for. */
const MIN_PLANE = 16;
const MIN_ROWS = 8;
/** A block of moments.ts: parts of a reduction are cut at its multiples. */
const BLOCK_ROWS = 64;
/** Values that go through a stream buffer at a time: 64 KiB, of which L2 holds several. */
const PART = 16384;
/** Up to here (values read) column strips win, from L2; beyond it, one ascending sweep. */
const STRIPS = 65536;
/** From here (values read) a reduction in kernel memory touches its rows first: L2 has lost them. */
const COLD = 262144;

interface Walk {
  readonly rows: boolean;
  /** Channels in a tile; the last one may have fewer. */
  readonly tile: number;
  /** Rows taken as one. */
  readonly repeats: number;
}

function walkOf({ outer, channels, inner }: View): Walk {
  const rows = inner === 1 || (inner < MIN_PLANE && outer >= MIN_ROWS);
  const tile = Math.min(channels, rows ? Math.floor(MAX_COLUMNS / inner) : MAX_COLUMNS);
  const width = channels * inner;
  let repeats = 1;
  if (rows && tile === channels) {
    while (
      ((repeats * width) % 16 !== 0 || repeats * width < 64) &&
      2 * repeats * width <= MAX_COLUMNS &&
      outer >= 2 * repeats * BLOCK_ROWS
    ) {
      repeats *= 2;
    }
  }
  return { rows, tile, repeats };
}

/** A tensor that a kernel reads or writes: at its own address, or through a stream buffer. */
interface Operand {
  readonly array: Float32Array;
  /** -1 for an ordinary array. */
  readonly address: number;
  readonly stream: Slot<Float32Array>;
}

const operand = (
  memory: Memory,
  name: string,
  array: Float32Array,
  stream: Slot<Float32Array>,
): Operand => ({ array, address: memory.addressOf(name, array), stream });

const isOrdinary = (o: Operand | null): boolean => o !== null && o.address < 0;

const pointer = (o: Operand, offset: number): number =>
  o.address < 0 ? o.stream.at : o.address + offset * 4;

function copyIn(o: Operand, offset: number, length: number): void {
  if (o.address >= 0) return;
  const whole = offset === 0 && length === o.array.length;
  o.stream.array.set(whole ? o.array : o.array.subarray(offset, offset + length));
}

function copyOut(o: Operand, offset: number, length: number): void {
  if (o.address < 0) o.array.set(o.stream.array.subarray(0, length), offset);
}

/** Calls a kernel on `length` values at `offset`, with the addresses of out, a and b. */
type Step = (out: number, a: number, b: number, offset: number, length: number) => void;

/** Operands of one kernel: `out` may be absent (a reduction), `b` as well. */
interface Operands {
  readonly out: Operand | null;
  readonly a: Operand;
  readonly b: Operand | null;
}

/** Walks the contiguous values from..to: at once where they lie, or in parts of `part` values. */
function walkRun(operands: Operands, from: number, to: number, part: number, step: Step): void {
  const { out, a, b } = operands;
  const streamed = isOrdinary(out) || isOrdinary(a) || isOrdinary(b);
  const most = streamed ? part : to - from;
  for (let offset = from; offset < to; offset += most) {
    const length = Math.min(most, to - offset);
    copyIn(a, offset, length);
    if (b) copyIn(b, offset, length);
    step(
      out ? pointer(out, offset) : 0,
      pointer(a, offset),
      b ? pointer(b, offset) : 0,
      offset,
      length,
    );
    if (out) copyOut(out, offset, length);
  }
}

/**
 * Walks `width` columns at `column` of rows of `pitch` values. In place if no operand is an
 * ordinary array; else all are gathered row by row into the stream buffers.
 */
function walkColumns(
  operands: Operands,
  outer: number,
  column: number,
  width: number,
  pitch: number,
  step: (out: number, a: number, b: number, rows: number, stride: number) => void,
): void {
  const { out, a, b } = operands;
  if (!isOrdinary(out) && !isOrdinary(a) && !isOrdinary(b)) {
    step(
      out ? pointer(out, column) : 0,
      pointer(a, column),
      b ? pointer(b, column) : 0,
      outer,
      pitch * 4,
    );
    return;
  }
  for (let row = 0; row < outer; row += BLOCK_ROWS) {
    const rows = Math.min(BLOCK_ROWS, outer - row);
    for (let i = 0; i < rows; i++) {
      const offset = (row + i) * pitch + column;
      a.stream.array.set(a.array.subarray(offset, offset + width), i * width);
      b?.stream.array.set(b.array.subarray(offset, offset + width), i * width);
    }
    step(out?.stream.at ?? 0, a.stream.at, b?.stream.at ?? 0, rows, width * 4);
    for (let i = 0; out && i < rows; i++) {
      const from = out.stream.array.subarray(i * width, (i + 1) * width);
      out.array.set(from, (row + i) * pitch + column);
    }
  }
}

/** What a kernel does with some rows: `count` rows came before in the same columns. */
type RowStep = (
  out: number,
  a: number,
  b: number,
  count: number,
  rows: number,
  width: number,
  stride: number,
) => void;

/** What a kernel does with some planes, or with a part of one. */
type PlaneStep = (
  out: number,
  a: number,
  b: number,
  count: number,
  first: number,
  planes: number,
  channels: number,
  inner: number,
) => void;

/** Rows of a tile of channels, in blocks of at most BLOCK_ROWS per part when streamed. */
function walkRows(
  operands: Operands,
  { outer, channels, inner }: View,
  walk: Walk,
  first: number,
  tile: number,
  merge: ((rows: number) => void) | null,
  step: RowStep,
): void {
  if (tile < channels) {
    let count = 0;
    walkColumns(
      operands,
      outer,
      first * inner,
      tile * inner,
      channels * inner,
      (out, a, b, rows, stride) => {
        step(out, a, b, count, rows, tile * inner, stride);
        count += rows;
      },
    );
    return;
  }
  const narrow = channels * inner;
  const width = walk.repeats * narrow;
  const rows = Math.floor(outer / walk.repeats);
  const block = BLOCK_ROWS * width;
  const part = Math.max(1, Math.floor(PART / block)) * block;
  walkRun(operands, 0, rows * width, part, (out, a, b, offset, length) => {
    step(out, a, b, offset / width, length / width, width, width * 4);
  });
  merge?.(rows);
  // Rows that did not fill a wide one.
  walkRun(operands, rows * width, outer * narrow, part, (out, a, b, offset, length) => {
    step(out, a, b, offset / narrow, length / narrow, narrow, narrow * 4);
  });
}

/** Planes of a tile of channels: one run if the tile has all of them, else one run per example. */
function walkPlanes(
  operands: Operands,
  { outer, channels, inner }: View,
  first: number,
  tile: number,
  step: PlaneStep,
): void {
  const whole = tile === channels;
  const runs = whole ? 1 : outer;
  const planes = whole ? outer * channels : tile;
  for (let run = 0; run < runs; run++) {
    const start = (run * channels + first) * inner;
    const visit = (from: number, to: number, part: number): void =>
      walkRun(operands, from, to, part, (out, a, b, offset, length) => {
        const plane = Math.floor((offset - start) / inner);
        const before = (run + Math.floor(plane / tile)) * inner + ((offset - start) % inner);
        if (length < inner) step(out, a, b, before, plane % tile, 1, tile, length);
        else step(out, a, b, before, plane % tile, length / inner, tile, inner);
      });
    if (inner <= PART) {
      visit(start, start + planes * inner, Math.floor(PART / inner) * inner);
    } else {
      for (let p = 0; p < planes; p++) visit(start + p * inner, start + (p + 1) * inner, PART);
    }
  }
}

/** Calls `visit` for each tile of channels. */
function eachTile(channels: number, tile: number, visit: (first: number, n: number) => void): void {
  for (let first = 0; first < channels; first += tile)
    visit(first, Math.min(tile, channels - first));
}

/** Puts the channels first … first + n of a parameter into its place in kernel memory. */
function put<A extends Float32Array | Float64Array>(
  slot: Slot<A>,
  array: A | null,
  first: number,
  n: number,
): number {
  if (array === null) return 0;
  slot.array.set(n === array.length ? array : array.subarray(first, first + n));
  return slot.at;
}

/** Takes them out again. */
function take<A extends Float32Array | Float64Array>(
  array: A,
  slot: Slot<A>,
  first: number,
  n: number,
): void {
  array.set(n === slot.array.length ? slot.array : slot.array.subarray(0, n), first);
}

/**
 * Mean and population variance of each channel, exact to 5e-7 sigma and 1e-6 relative.
 * Throws NonFiniteError and has written nothing of the user's then.
 */
export function moments({ run, memory }: Machine, x: Float32Array, view: View): Statistics {
  const { base, offset, m2, mean, variance } = memory.slots;
  const { channels, inner } = view;
  const walk = walkOf(view);
  const operands: Operands = { out: null, a: operand(memory, "x", x, memory.streams[0]), b: null };
  const result = { mean: new Float64Array(channels), variance: new Float64Array(channels) };
  const cold = Number(operands.a.address >= 0 && sizeOf(view) >= COLD);
  const bad: number[] = [];
  eachTile(channels, walk.tile, (first, n) => {
    if (walk.rows) {
      const merge = (rows: number): void => {
        if (walk.repeats > 1)
          run.mergeRepeats(base.at, offset.at, m2.at, rows, n * inner, walk.repeats);
      };
      walkRows(operands, view, walk, first, n, merge, (_out, a, _b, count, rows, width, stride) =>
        run.momentsRows(base.at, offset.at, m2.at, a, count, rows, width, stride, cold),
      );
      if (inner > 1) run.mergeInner(base.at, offset.at, m2.at, view.outer, n, inner);
    } else {
      walkPlanes(operands, view, first, n, (_out, a, _b, count, at, planes, tile, length) =>
        run.momentsPlanes(base.at, offset.at, m2.at, a, count, at, planes, tile, length),
      );
    }
    run.finishMoments(mean.at, variance.at, base.at, offset.at, m2.at, countOf(view), n);
    for (
      let c = run.firstNonFinite(mean.at, variance.at, 0, n);
      c < n && bad.length <= 4;
      c = run.firstNonFinite(mean.at, variance.at, c + 1, n)
    ) {
      bad.push(first + c);
    }
    take(result.mean, mean, first, n);
    take(result.variance, variance, first, n);
  });
  if (bad.length > 0) {
    const names = `${bad.slice(0, 4).join(", ")}${bad.length > 4 ? ", …" : ""}`;
    throw new NonFiniteError(
      `x: expected finite values whose variance does not overflow, got NaN, infinity or an overflow ` +
        `in channel ${names}`,
    );
  }
  return result;
}

/** Throws StateError if a running variance is negative or not finite. */
export function checkVariance({ run, memory }: Machine, variances: Float64Array): void {
  const { variance } = memory.slots;
  eachTile(variances.length, MAX_COLUMNS, (first, n) => {
    const c = run.firstInvalidVariance(put(variance, variances, first, n), n);
    if (c < n) throw invalidVariance(first + c, variances[first + c]!);
  });
}

/** The error about a running variance that no variance can be. */
export const invalidVariance = (channel: number, value: number): StateError =>
  new StateError(
    `runningVariance: expected finite numbers >= 0, got ${value} for channel ${channel}`,
  );

/** running += weight·(batch - running); the batch's variance counts `correction` times. */
export function updateRunning(
  { run, memory }: Machine,
  running: Statistics,
  batch: Statistics,
  weight: number,
  correction: number,
): void {
  const { mean, variance, runningMean, runningVariance } = memory.slots;
  eachTile(batch.mean.length, MAX_COLUMNS, (first, n) => {
    put(mean, batch.mean, first, n);
    put(variance, batch.variance, first, n);
    put(runningMean, running.mean, first, n);
    put(runningVariance, running.variance, first, n);
    run.updateRunning(
      runningMean.at,
      runningVariance.at,
      mean.at,
      variance.at,
      weight,
      correction,
      n,
    );
    take(running.mean, runningMean, first, n);
    take(running.variance, runningVariance, first, n);
  });
}

/** Works out scale and shift of the channels first … first + n in kernel memory. */
function scaleShift({ run, memory }: Machine, terms: Terms, first: number, n: number): void {
  const { mean, variance, gamma, beta, hi, scale, shift } = memory.slots;
  put(mean, terms.mean, first, n);
  put(variance, terms.variance, first, n);
  const g = put(gamma, terms.gamma, first, n);
  const b = put(beta, terms.beta, first, n);
  run.scaleShift(hi.at, scale.at, shift.at, mean.at, variance.at, g, b, terms.epsilon, n);
}

/** The terms of every channel as the elementwise kernels take them. */
export function affineOf(machine: Machine, terms: Terms): Affine {
  const { hi, scale, shift } = machine.memory.slots;
  const channels = terms.mean.length;
  const result = {
    hi: new Float32Array(channels),
    scale: new Float32Array(channels),
    shift: new Float32Array(channels),
  };
  eachTile(channels, MAX_COLUMNS, (first, n) => {
    scaleShift(machine, terms, first, n);
    take(result.hi, hi, first, n);
    take(result.scale, scale, first, n);
    take(result.shift, shift, first, n);
  });
  return result;
}

/** out = (x - hi)·scale + shift; out may be x. */
export function normalize(
  machine: Machine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  terms: Terms | Affine,
): void {
  const { run, memory } = machine;
  const { hi, scale, shift, columnHi, columnScale, columnShift } = memory.slots;
  const { channels, inner } = view;
  const walk = walkOf(view);
  const operands: Operands = {
    out: operand(memory, "out", out, memory.streams[0]),
    a: operand(memory, "x", x, memory.streams[0]),
    b: null,
  };
  const sweep = sizeOf(view) > STRIPS;
  eachTile(channels, walk.tile, (first, n) => {
    if ("hi" in terms) {
      put(hi, terms.hi, first, n);
      put(scale, terms.scale, first, n);
      put(shift, terms.shift, first, n);
    } else {
      scaleShift(machine, terms, first, n);
    }
    if (walk.rows) {
      let [h, a, b] = [hi.at, scale.at, shift.at];
      if (walk.repeats * inner > 1) {
        run.spread((h = columnHi.at), hi.at, n, inner, walk.repeats);
        run.spread((a = columnScale.at), scale.at, n, inner, walk.repeats);
        run.spread((b = columnShift.at), shift.at, n, inner, walk.repeats);
      }
      const kernel = sweep ? run.affineSweep : run.affineStrips;
      walkRows(operands, view, walk, first, n, null, (y, p, _b, _count, rows, width, stride) =>
        kernel(y, p, h, a, b, rows, width, stride),
      );
    } else {
      walkPlanes(operands, view, first, n, (y, p, _b, _count, at, planes, tile, length) =>
        run.affinePlanes(y, p, hi.at, scale.at, shift.at, at, planes, tile, length),
      );
    }
  });
}

/** Where `backward` puts its results. */
export interface Gradients {
  readonly dx: Float32Array;
  readonly dgamma: Float32Array | null;
  readonly dbeta: Float32Array | null;
}

/** Σdy and Σdy·(x - float32(mean)) of each channel of a tile, left in kernel memory. */
function gradientSums(
  { run, memory }: Machine,
  x: Operand,
  dy: Operand,
  view: View,
  walk: Walk,
  mean: Float64Array,
  first: number,
  n: number,
): void {
  const { slots } = memory;
  const { hi, columnHi, sumDy, sumDyX } = slots;
  const { inner } = view;
  run.center(hi.at, put(slots.mean, mean, first, n), n);
  sumDy.array.fill(0);
  sumDyX.array.fill(0);
  const operands: Operands = { out: null, a: dy, b: x };
  if (!walk.rows) {
    walkPlanes(operands, view, first, n, (_out, g, p, _count, at, planes, tile, length) =>
      run.gradientSumsPlanes(sumDy.at, sumDyX.at, g, p, hi.at, at, planes, tile, length),
    );
    return;
  }
  const cold = Number(x.address >= 0 && dy.address >= 0 && sizeOf(view) >= COLD / 2);
  let h = hi.at;
  if (walk.repeats * inner > 1) run.spread((h = columnHi.at), hi.at, n, inner, walk.repeats);
  const merge = (): void => {
    if (walk.repeats === 1) return;
    run.sumRepeats(sumDy.at, n * inner, walk.repeats);
    run.sumRepeats(sumDyX.at, n * inner, walk.repeats);
  };
  walkRows(operands, view, walk, first, n, merge, (_out, g, p, _count, rows, width, stride) =>
    run.gradientSumsRows(sumDy.at, sumDyX.at, g, p, h, rows, width, stride, cold),
  );
  if (inner > 1) {
    run.sumInner(sumDy.at, n, inner);
    run.sumInner(sumDyX.at, n, inner);
  }
}

/**
 * The gradient of a layer that normalized x with `terms`: by the statistics of x itself, or, if
 * `frozen`, by statistics that are constants. dx may be dy.
 */
export function backward(
  machine: Machine,
  into: Gradients,
  dy: Float32Array,
  x: Float32Array,
  view: View,
  terms: Terms,
  frozen: boolean,
): void {
  const { run, memory } = machine;
  const { slots } = memory;
  const { channels, inner } = view;
  const walk = walkOf(view);
  const a = operand(memory, "x", x, memory.streams[0]);
  const g = operand(memory, "dy", dy, memory.streams[1]);
  const out = operand(memory, "dx", into.dx, memory.streams[1]);
  const sweep = sizeOf(view) > STRIPS;
  const perValue = frozen ? 0 : 1 / countOf(view);
  eachTile(channels, walk.tile, (first, n) => {
    gradientSums(machine, a, g, view, walk, terms.mean, first, n);
    const { hi, scale, shift, slope, dgamma, dbeta, sumDy, sumDyX, mean, variance } = slots;
    put(variance, terms.variance, first, n);
    const gamma = put(slots.gamma, terms.gamma, first, n);
    run.gradientTerms(
      scale.at,
      shift.at,
      slope.at,
      dgamma.at,
      dbeta.at,
      sumDy.at,
      sumDyX.at,
      mean.at,
      variance.at,
      gamma,
      terms.epsilon,
      perValue,
      n,
    );
    if (into.dgamma) take(into.dgamma, dgamma, first, n);
    if (into.dbeta) take(into.dbeta, dbeta, first, n);
    const operands: Operands = { out, a: g, b: a };
    if (walk.rows) {
      const { columnHi, columnScale, columnShift, columnSlope } = slots;
      let [h, s, t, u] = [hi.at, scale.at, shift.at, slope.at];
      if (walk.repeats * inner > 1) {
        h = columnHi.at;
        run.spread((s = columnScale.at), scale.at, n, inner, walk.repeats);
        run.spread((t = columnShift.at), shift.at, n, inner, walk.repeats);
        run.spread((u = columnSlope.at), slope.at, n, inner, walk.repeats);
      }
      const kernel = sweep ? run.gradientSweep : run.gradientStrips;
      walkRows(operands, view, walk, first, n, null, (dx, d, p, _count, rows, width, stride) =>
        kernel(dx, d, p, h, s, t, u, rows, width, stride),
      );
    } else {
      walkPlanes(operands, view, first, n, (dx, d, p, _count, at, planes, tile, length) =>
        run.gradientPlanes(dx, d, p, hi.at, scale.at, shift.at, slope.at, at, planes, tile, length),
      );
    }
  });
}
