// The only caller of kernels. Works in place on tensors in kernel memory, and copies
// ordinary arrays through fixed buffers of cache size: at once where they fit, else part by part, so
// that memory stays O(part).
//
// A view (outer, channels, inner) is walked in one of two ways, chosen by its dimensions alone:
//   planes  SIMD along the `inner` values of a channel;
//   rows    SIMD across columns: a row is all channels, each `inner` times. Narrow rows are taken
//           several at once (`repeats`), so that every width fills its vectors.
// Channels that do not fit the parameter arrays go in tiles.

import { NonFiniteError, StateError } from "./errors.js";
import { countOf, sizeOf, type View } from "./layout.js";
import type { AffineExports, AffineMachine, Machine } from "./machine.js";
import type { Copies, Selection } from "./mask.js";
import {
  BLOCK_ROWS,
  type Buffers,
  firstOf,
  MAX_COLUMNS,
  type Slot,
  STREAM_FLOATS,
} from "./memory.js";
import { GradientSums, Moments } from "./moments.js";

/** Mean and variance per channel. */
export interface Statistics {
  /** [channels], in the unit of the values. */
  readonly mean: Float64Array;
  /** [channels], in the unit of the values squared. */
  readonly variance: Float64Array;
}

/** What a layer normalizes with. */
export interface Terms extends Statistics {
  readonly gamma: Float32Array | null;
  readonly beta: Float32Array | null;
  readonly epsilon: number;
  /** What float64 rounds off the mean, where it is known. */
  readonly meanLow: Float64Array | null;
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
/**
 * Of arrays beyond a stream buffer: values of planes or narrow rows that go at a time, 128 KiB; wide rows go a
 * block at a time, up to 256 KiB. Copies are bound by memory: from 32 to 256 KiB all took the same
 * within a tenth. A multiple of BLOCK_PLANE (assembly/lanes.ts), so that reductions
 * are cut between blocks and give the same bits in one part or many.
 */
const PART = 32768;
/**
 * Up to this many bytes, all tensors of a call together, rows in kernel memory are taken to be in
 * cache and are walked in column strips; beyond it, in the order of memory. Nanoseconds for four
 * values, strips and sweep: infer of 8 MiB 0.71 and 0.91, of 16 MiB 2.8 and 1.5; gradient of 12 MiB
 * 2.7 and 1.8. Of 9.2 MiB it was 1.0 and 1.3 on a quiet machine, but five times that for strips
 * where others used the shared cache.
 */
const HOT = 8 << 20;

interface Walk {
  readonly rows: boolean;
  /** Channels in a tile; the last one may have fewer. */
  readonly tile: number;
  /** Rows taken as one. */
  readonly repeats: number;
}

function walkOf({ outer, channels, inner }: View): Walk {
  const rows = inner === 1 || (inner < MIN_PLANE && outer >= MIN_ROWS);
  const tile = Math.min(
    channels,
    rows ? Math.floor(MAX_COLUMNS / Math.max(inner, 1)) : MAX_COLUMNS,
  );
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

/** A tensor that a kernel reads or writes: where it lies, or through a stream buffer. */
interface Operand {
  readonly array: Float32Array;
  /** -1 for an ordinary array that goes through its stream buffer in parts. */
  readonly address: number;
  readonly stream: Slot<Float32Array>;
  /**
   * An ordinary array all of which fits its stream buffer: in by `enter`, out by `leave`. All operands
   * of a call are of one length, so that none is held while another is streamed.
   */
  readonly held: boolean;
  /** The rows that take part, copied together. */
  readonly copies: Copies;
}

/** Throws StateError for a tensor that is freed. */
function operand(
  memory: Buffers,
  name: string,
  array: Float32Array,
  index: number,
  selection: Selection | null,
): Operand {
  const stream = memory.streams[index]!;
  const own = memory.addressOf(name, array);
  const copies = selection ?? ALL;
  const held = copies === ALL && own < 0 && array.length <= STREAM_FLOATS;
  const address = copies !== ALL ? -1 : held ? stream.at : own;
  return { array, address, stream, held, copies };
}

/** Copies an input that is held. Two readings of it then need one copy. */
function enter({ held, stream, array }: Operand): void {
  if (held) stream.array.set(array);
}

/** Copies an output that is held. */
function leave({ held, stream, array }: Operand): void {
  if (held) array.set(firstOf(stream, array.length));
}

/** Operands of one kernel: `out` may be absent (a reduction), `b` as well. */
interface Operands {
  readonly out: Operand | null;
  readonly a: Operand;
  readonly b: Operand | null;
}

/** True if one of them is an ordinary array whose values have to be copied part by part. */
const isStreamed = ({ out, a, b }: Operands): boolean =>
  a.address < 0 || (out !== null && out.address < 0) || (b !== null && b.address < 0);

const pointer = (o: Operand | null, offset: number): number =>
  o === null ? 0 : o.address < 0 ? o.stream.at : o.address + offset * 4;

/** All rows of an array. */
const ALL: Copies = {
  // What is not cut into columns may be cut anywhere.
  pitch: 1,
  gather({ array: packed }, array, pitch, row, rows, column, width) {
    let from = row * pitch + column;
    if (width === pitch) packed.set(array.subarray(from, from + rows * pitch));
    else {
      for (let i = 0; i < rows; i++, from += pitch) {
        packed.set(array.subarray(from, from + width), i * width);
      }
    }
  },
  scatter(stream, array, pitch, row, rows, column, width) {
    let to = row * pitch + column;
    if (width === pitch) array.set(firstOf(stream, rows * pitch), to);
    else {
      for (let i = 0; i < rows; i++, to += pitch) {
        array.set(stream.array.subarray(i * width, (i + 1) * width), to);
      }
    }
  },
};

/** Walks the contiguous values from..to: at once where they lie, or in parts of `part` values. */
function walkRun(
  operands: Operands,
  from: number,
  to: number,
  part: number,
  step: (out: number, a: number, b: number, offset: number, length: number) => void,
): void {
  const { out, a, b } = operands;
  if (!isStreamed(operands)) {
    if (from < to) step(pointer(out, from), pointer(a, from), pointer(b, from), from, to - from);
    return;
  }
  const { pitch } = a.copies;
  for (let offset = from; offset < to; offset += part) {
    const length = Math.min(part, to - offset);
    const row = offset / pitch;
    const rows = length / pitch;
    for (const o of [a, b]) {
      if (o !== null && o.address < 0) {
        o.copies.gather(o.stream, o.array, pitch, row, rows, 0, pitch);
      }
    }
    step(pointer(out, offset), pointer(a, offset), pointer(b, offset), offset, length);
    if (out !== null && out.address < 0) {
      out.copies.scatter(out.stream, out.array, pitch, row, rows, 0, pitch);
    }
  }
}

/**
 * Walks `width` columns at `column` of rows of `pitch` values: in place, or, if one operand is an
 * ordinary array, all gathered row by row into the stream buffers.
 */
function walkColumns(
  operands: Operands,
  outer: number,
  column: number,
  width: number,
  pitch: number,
  step: RowStep,
): void {
  const { out, a, b } = operands;
  if (!isStreamed(operands)) {
    step(pointer(out, column), pointer(a, column), pointer(b, column), 0, outer, width, pitch * 4);
    return;
  }
  for (let row = 0; row < outer; row += BLOCK_ROWS) {
    const rows = Math.min(BLOCK_ROWS, outer - row);
    for (const o of [a, b]) {
      o?.copies.gather(o.stream, o.array, pitch, row, rows, column, width);
    }
    step(out?.stream.at ?? 0, a.stream.at, b?.stream.at ?? 0, row, rows, width, width * 4);
    out?.copies.scatter(out.stream, out.array, pitch, row, rows, column, width);
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

/** Rows of a tile of channels; streamed, in parts that are whole blocks. */
function walkRows(
  operands: Operands,
  { outer, channels, inner }: View,
  { repeats }: Walk,
  first: number,
  tile: number,
  step: RowStep,
  merge?: (rows: number, width: number) => void,
): void {
  const narrow = tile * inner;
  // All columns of rows that stay where they are: one step as well.
  if (tile < channels || (repeats === 1 && !isStreamed(operands))) {
    walkColumns(operands, outer, first * inner, narrow, channels * inner, step);
    return;
  }
  const width = repeats * narrow;
  const rows = Math.floor(outer / repeats);
  const block = BLOCK_ROWS * width;
  const part = Math.ceil(PART / block) * block;
  walkRun(operands, 0, rows * width, part, (out, a, b, offset, length) =>
    step(out, a, b, offset / width, length / width, width, width * 4),
  );
  if (repeats > 1) merge?.(rows, narrow);
  // Rows that did not fill a wide one.
  walkRun(operands, rows * width, outer * narrow, part, (out, a, b, offset, length) =>
    step(out, a, b, offset / narrow, length / narrow, narrow, narrow * 4),
  );
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
  // A part is whole planes, or, of planes that exceed it, whole blocks of one.
  const long = inner > PART && isStreamed(operands);
  const part = long ? PART : Math.floor(PART / inner) * inner;
  const visits = long ? planes : 1;
  const length = (planes * inner) / visits;
  for (let run = 0; run < runs; run++) {
    const start = (run * channels + first) * inner;
    for (let visit = 0; visit < visits; visit++) {
      const from = start + visit * length;
      walkRun(operands, from, from + length, part, (out, a, b, offset, n) => {
        const plane = Math.floor((offset - start) / inner);
        const count = (run + Math.floor(plane / tile)) * inner + ((offset - start) % inner);
        step(out, a, b, count, plane % tile, Math.max(1, n / inner), tile, Math.min(n, inner));
      });
    }
  }
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
  array: A | null,
  slot: Slot<A>,
  first: number,
  n: number,
): void {
  if (array !== null) array.set(firstOf(slot, n), first);
}

/** True if the tensors of a call, those in one place counted once, are more than the cache holds. */
function isCold(operands: Operands, view: View): boolean {
  const { out, a, b } = operands;
  const others = Number(out !== null && out.address !== a.address) + Number(b !== null);
  return !isStreamed(operands) && 4 * (1 + others) * sizeOf(view) > HOT;
}

/**
 * Leaves mean and variance of the channels first … first + n in kernel memory. Returns the first channel
 * of these whose values are not all finite, n if there is none.
 */
function moments(
  { run, memory: { slots, scratch } }: Machine,
  operands: Operands,
  view: View,
  walk: Walk,
  first: number,
  n: number,
): number {
  const { base, offset, m2, mean, meanLow, variance } = slots;
  const { outer, inner } = view;
  if (walk.rows) {
    walkRows(
      operands,
      view,
      walk,
      first,
      n,
      (_out, a, _b, count, rows, width, stride) =>
        run.momentsRows(base.at, offset.at, m2.at, scratch, a, count, rows, width, stride),
      (rows, width) => run.merge(base.at, offset.at, m2.at, rows, width, 1, walk.repeats, width),
    );
    if (inner > 1) run.merge(base.at, offset.at, m2.at, outer, n, inner, inner, 1);
  } else {
    walkPlanes(operands, view, first, n, (_out, a, _b, count, at, planes, tile, length) =>
      run.momentsPlanes(base.at, offset.at, m2.at, a, count, at, planes, tile, length),
    );
  }
  // A value that is not finite leaves no finite variance.
  const count = countOf(view);
  return run.finishMoments(mean.at, meanLow.at, variance.at, base.at, offset.at, m2.at, count, n);
}

const isVariance = (value: number): boolean => value >= 0 && value < Number.POSITIVE_INFINITY;

/** The error about channels whose statistics are not finite, of which four are named. */
function nonFinite(channels: readonly number[]): NonFiniteError {
  const names = `${channels.slice(0, 4).join(", ")}${channels.length > 4 ? ", …" : ""}`;
  return new NonFiniteError(
    `x: expected finite values and variances, got NaN, infinity or an overflow in channel ${names}`,
  );
}

/**
 * Works out scale and shift of the channels first … first + n in kernel memory, from `terms` or,
 * if `fresh`, from mean, meanLow and variance that lie there. Throws StateError for a variance that none
 * can be.
 */
function scaleShift(
  { run, memory: { slots } }: Machine,
  terms: Terms,
  first: number,
  n: number,
  fresh: boolean,
): void {
  const { mean, variance, hi, scale, shift } = slots;
  let meanLow = slots.meanLow.at;
  if (!fresh) {
    put(mean, terms.mean, first, n);
    put(variance, terms.variance, first, n);
    meanLow = put(slots.meanLow, terms.meanLow, first, n);
  }
  const gamma = put(slots.gamma, terms.gamma, first, n);
  const beta = put(slots.beta, terms.beta, first, n);
  const { epsilon } = terms;
  const bad = run.scaleShift(
    hi.at,
    scale.at,
    shift.at,
    mean.at,
    meanLow,
    variance.at,
    gamma,
    beta,
    epsilon,
    n,
  );
  if (bad < n) checkVariance(terms.variance, first + bad);
}

/** Throws StateError if a channel's variance is none that a variance can be. */
export function checkVariance(variance: Float64Array, channel: number): void {
  const value = variance[channel]!;
  if (!isVariance(value)) {
    throw new StateError(
      `runningVariance: expected finite numbers >= 0, got ${value} for channel ${channel}`,
    );
  }
}

/** out = (x - hi)·scale + shift of a tile whose scale and shift lie in kernel memory. */
function affine(
  { run, memory: { slots } }: AffineMachine,
  operands: Operands,
  view: View,
  walk: Walk,
  first: number,
  n: number,
): void {
  const { hi, scale, shift, columnHi, columnScale, columnShift } = slots;
  if (!walk.rows) {
    walkPlanes(operands, view, first, n, (y, x, _b, _count, at, planes, tile, length) =>
      run.affinePlanes(y, x, hi.at, scale.at, shift.at, at, planes, tile, length),
    );
    return;
  }
  const h = spread(run, columnHi, hi, n, view, walk);
  const a = spread(run, columnScale, scale, n, view, walk);
  const b = spread(run, columnShift, shift, n, view, walk);
  const kernel = isCold(operands, view) ? run.affineSweep : run.affineStrips;
  walkRows(operands, view, walk, first, n, (y, x, _b, _count, rows, width, stride) =>
    kernel(y, x, h, a, b, rows, width, stride),
  );
}

/** Where the columns of a row find a parameter: laid out for them, or as it is. */
function spread(
  run: AffineExports,
  columns: Slot<Float32Array>,
  parameter: Slot<Float32Array>,
  n: number,
  { inner }: View,
  { repeats }: Walk,
): number {
  if (repeats * inner === 1) return parameter.at;
  run.spread(columns.at, parameter.at, n, inner, repeats);
  return columns.at;
}

/** Where running averages go from here: += weight·(batch - running). */
export interface Update extends Statistics {
  readonly weight: number;
  /** What the batch's population variance is multiplied with. */
  readonly correction: number;
}

/**
 * Normalizes x by its own statistics, mean to 5e-7 sigma, variance to 1e-6, and moves
 * running averages. Mean and variance of `terms` are filled, meanLow is if there are several tiles. Throws NonFiniteError or StateError
 * before anything else outside kernel memory is written. out may be x.
 */
export function train(
  machine: Machine,
  terms: Terms,
  out: Float32Array,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  update: Update | null,
): void {
  const { memory } = machine;
  const { mean, meanLow, variance } = memory.slots;
  const { channels } = view;
  const walk = walkOf(view);
  const a = operand(memory, "x", x, 0, selection);
  const y = operand(memory, "out", out, 0, selection);
  const operands: Operands = { out: y, a, b: null };
  // One tile stays in kernel memory.
  const fresh = walk.tile === channels;
  enter(a);
  allMoments(machine, a, view, walk, (first, n) => {
    take(terms.mean, mean, first, n);
    if (!fresh) take(terms.meanLow, meanLow, first, n);
    take(terms.variance, variance, first, n);
  });
  for (let first = 0; first < channels; first += walk.tile) {
    const n = Math.min(walk.tile, channels - first);
    scaleShift(machine, terms, first, n, fresh);
    if (update !== null) move(machine, update, first, n);
    affine(machine, operands, view, walk, first, n);
  }
  leave(y);
  selection?.pad(out, terms.beta);
}

/** Moves running averages towards the mean and variance of the channels in kernel memory. */
function move({ run, memory }: Machine, update: Update, first: number, n: number): void {
  const { mean, variance, runningMean, runningVariance } = memory.slots;
  put(runningMean, update.mean, first, n);
  put(runningVariance, update.variance, first, n);
  const { weight, correction } = update;
  run.updateRunning(
    runningMean.at,
    runningVariance.at,
    mean.at,
    variance.at,
    weight,
    correction,
    n,
  );
  take(update.mean, runningMean, first, n);
  take(update.variance, runningVariance, first, n);
}

/** Moves running averages towards statistics that came from elsewhere. */
export function moveTo(machine: Machine, update: Update, { mean, variance }: Statistics): void {
  const { slots } = machine.memory;
  for (let first = 0; first < mean.length; first += MAX_COLUMNS) {
    const n = Math.min(MAX_COLUMNS, mean.length - first);
    put(slots.mean, mean, first, n);
    put(slots.variance, variance, first, n);
    move(machine, update, first, n);
  }
}

/**
 * Works out the moments of every channel, a tile at a time; `each` finds those of the channels
 * first … first + n in kernel memory. Throws NonFiniteError in the end for those not finite.
 */
function allMoments(
  machine: Machine,
  a: Operand,
  view: View,
  walk: Walk,
  each: (first: number, n: number) => void,
): void {
  const { variance } = machine.memory.slots;
  const bad: number[] = [];
  for (let first = 0; first < view.channels; first += walk.tile) {
    const n = Math.min(walk.tile, view.channels - first);
    const from = moments(machine, { out: null, a, b: null }, view, walk, first, n);
    for (let c = from; c < n; c++) if (!isVariance(variance.array[c]!)) bad.push(first + c);
    each(first, n);
  }
  if (bad.length > 0) throw nonFinite(bad);
}

/** The moments of x. Throws NonFiniteError for values that have none. */
export function momentsOf(
  machine: Machine,
  x: Float32Array,
  view: View,
  selection: Selection | null,
): Moments {
  const { memory } = machine;
  const { mean, meanLow, m2 } = memory.slots;
  const array = (): Float64Array => new Float64Array(view.channels);
  const result = new Moments(countOf(view), array(), array(), array());
  const a = operand(memory, "x", x, 0, selection);
  if (result.count === 0) return result;
  enter(a);
  allMoments(machine, a, view, walkOf(view), (first, n) => {
    take(result.mean, mean, first, n);
    take(result.meanLow, meanLow, first, n);
    take(result.m2, m2, first, n);
  });
  return result;
}

/**
 * The terms of every channel as the elementwise kernels take them. Throws StateError for a variance
 * that none can be.
 */
export function affineOf(machine: Machine, terms: Terms): Affine {
  const { hi, scale, shift } = machine.memory.slots;
  const array = (): Float32Array => new Float32Array(terms.mean.length);
  const result = { hi: array(), scale: array(), shift: array() };
  for (let first = 0; first < terms.mean.length; first += MAX_COLUMNS) {
    const n = Math.min(MAX_COLUMNS, terms.mean.length - first);
    scaleShift(machine, terms, first, n, false);
    take(result.hi, hi, first, n);
    take(result.scale, scale, first, n);
    take(result.shift, shift, first, n);
  }
  return result;
}

/**
 * Normalizes x by terms; out may be x. Throws StateError before anything is written for a variance
 * that none can be.
 */
export function normalize(
  machine: Machine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  terms: Terms,
  selection: Selection | null = null,
): void {
  // All channels are looked at before the first value is written: one tile looks as it goes.
  if (walkOf(view).tile < view.channels) {
    apply(machine, out, x, view, affineOf(machine, terms), selection);
  } else {
    applyTiles(machine, out, x, view, selection, (first, n) =>
      scaleShift(machine, terms, first, n, false),
    );
  }
  selection?.pad(out, terms.beta);
}

/** out = (x - hi)·scale + shift; out may be x. */
export function apply(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  affine: Affine,
  selection: Selection | null = null,
): void {
  const { hi, scale, shift } = machine.memory.slots;
  applyTiles(machine, out, x, view, selection, (first, n) => {
    put(hi, affine.hi, first, n);
    put(scale, affine.scale, first, n);
    put(shift, affine.shift, first, n);
  });
}

/** The same; `enterTile` has hi, scale and shift of the channels first … first + n in kernel memory. */
function applyTiles(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  enterTile: (first: number, n: number) => void,
): void {
  const { memory } = machine;
  const { channels } = view;
  const walk = walkOf(view);
  const a = operand(memory, "x", x, 0, selection);
  const y = operand(memory, "out", out, 0, selection);
  const operands: Operands = { out: y, a, b: null };
  enter(a);
  for (let first = 0; first < channels; first += walk.tile) {
    const n = Math.min(walk.tile, channels - first);
    enterTile(first, n);
    affine(machine, operands, view, walk, first, n);
  }
  leave(y);
}

/** What `backward` returns. */
export interface Gradients<Out extends Float32Array = Float32Array> {
  /** ∂loss/∂x, in the shape of x. */
  readonly dx: Out;
  /** ∂loss/∂γ, one per channel; `null` where gamma is left out. */
  readonly dgamma: Out | null;
  /** ∂loss/∂β, one per channel; `null` where beta is left out. */
  readonly dbeta: Out | null;
}

/** Σdy and Σdy·(x - float32(mean)) of each channel of a tile, left in kernel memory. */
function gradientSums(
  { run, memory: { slots } }: Machine,
  operands: Operands,
  view: View,
  walk: Walk,
  first: number,
  n: number,
): void {
  const { hi, columnHi, sumDy, sumDyX } = slots;
  const { inner } = view;
  if (sizeOf(view) === 0) {
    sumDy.array.fill(0);
    sumDyX.array.fill(0);
  } else if (!walk.rows) {
    walkPlanes(operands, view, first, n, (_out, dy, x, count, at, planes, tile, length) =>
      run.gradientSumsPlanes(sumDy.at, sumDyX.at, dy, x, hi.at, count, at, planes, tile, length),
    );
  } else {
    const h = spread(run, columnHi, hi, n, view, walk);
    walkRows(
      operands,
      view,
      walk,
      first,
      n,
      (_out, dy, x, count, rows, width, stride) =>
        run.gradientSumsRows(sumDy.at, sumDyX.at, dy, x, h, count, rows, width, stride),
      (_rows, width) => {
        run.mergeSums(sumDy.at, width, 1, walk.repeats, width);
        run.mergeSums(sumDyX.at, width, 1, walk.repeats, width);
      },
    );
    if (inner > 1) {
      run.mergeSums(sumDy.at, n, inner, inner, 1);
      run.mergeSums(sumDyX.at, n, inner, inner, 1);
    }
  }
}

/**
 * The gradient of a layer that normalized x with `terms`: by statistics that each value enters with
 * the weight `perValue`, 1/m, or 0 if they are constants. `sums` are those of the whole batch where
 * x is a part of it. dx may be dy. Throws StateError for a freed tensor before anything is written.
 */
export function backward(
  machine: Machine,
  into: Gradients,
  dy: Float32Array,
  x: Float32Array,
  view: View,
  terms: Terms,
  selection: Selection | null,
  perValue: number,
  sums: GradientSums | null,
): void {
  const { run, memory } = machine;
  const { slots } = memory;
  const { hi, scale, shift, slope, dgamma, dbeta, sumDy, sumDyX, mean, variance } = slots;
  const walk = walkOf(view);
  const a = operand(memory, "dy", dy, 1, selection);
  const b = operand(memory, "x", x, 0, selection);
  const dx = operand(memory, "out.dx", into.dx, 1, selection);
  const operands: Operands = { out: dx, a, b };
  // Written by copies, but not where a tensor was.
  for (const name of ["dgamma", "dbeta"] as const) {
    const array = into[name];
    if (array !== null) memory.addressOf(`out.${name}`, array);
  }
  const cold = isCold(operands, view);
  const sumsX = sums && aboutCenter(sums, terms.mean, 1);
  enter(a);
  enter(b);
  for (let first = 0; first < view.channels; first += walk.tile) {
    const n = Math.min(walk.tile, view.channels - first);
    run.center(hi.at, put(mean, terms.mean, first, n), n);
    if (sums === null) gradientSums(machine, { out: null, a, b }, view, walk, first, n);
    else {
      put(sumDy, sums.sumDy, first, n);
      put(sumDyX, sumsX, first, n);
    }
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
    // Constants: a sum that is not finite says nothing about dx, and 0 times it would be NaN.
    if (perValue === 0) for (const zero of [shift, slope]) firstOf(zero, n).fill(0);
    take(into.dgamma, dgamma, first, n);
    take(into.dbeta, dbeta, first, n);
    if (!walk.rows) {
      walkPlanes(operands, view, first, n, (out, g, p, _count, at, planes, tile, length) =>
        run.gradientPlanes(
          out,
          g,
          p,
          hi.at,
          scale.at,
          shift.at,
          slope.at,
          at,
          planes,
          tile,
          length,
        ),
      );
      continue;
    }
    const { columnHi, columnScale, columnShift, columnSlope } = slots;
    const h = spread(run, columnHi, hi, n, view, walk);
    const s = spread(run, columnScale, scale, n, view, walk);
    const t = spread(run, columnShift, shift, n, view, walk);
    const u = spread(run, columnSlope, slope, n, view, walk);
    const kernel = cold ? run.gradientSweep : run.gradientStrips;
    walkRows(operands, view, walk, first, n, (out, g, p, _count, rows, width, stride) =>
      kernel(out, g, p, h, s, t, u, rows, width, stride),
    );
  }
  leave(dx);
  selection?.pad(into.dx, null);
}

/** Σdy and Σdy·(x - mean) of x, a batch or a part of it, normalized with `mean`. */
export function gradientSumsOf(
  machine: Machine,
  dy: Float32Array,
  x: Float32Array,
  view: View,
  mean: Float64Array,
  selection: Selection | null,
): GradientSums {
  const { run, memory } = machine;
  const { hi, sumDy, sumDyX } = memory.slots;
  const walk = walkOf(view);
  const a = operand(memory, "dy", dy, 1, selection);
  const b = operand(memory, "x", x, 0, selection);
  const array = (): Float64Array => new Float64Array(view.channels);
  const result = new GradientSums(countOf(view), array(), array());
  enter(a);
  enter(b);
  for (let first = 0; first < view.channels; first += walk.tile) {
    const n = Math.min(walk.tile, view.channels - first);
    run.center(hi.at, put(memory.slots.mean, mean, first, n), n);
    gradientSums(machine, { out: null, a, b }, view, walk, first, n);
    take(result.sumDy, sumDy, first, n);
    take(result.sumDyXmu, sumDyX, first, n);
  }
  result.sumDyXmu.set(aboutCenter(result, mean, -1));
  return result;
}

/** Σdy·(x - mean) about float32(mean) instead, where kernels have it, or, with sign -1, back. */
const aboutCenter = ({ sumDy, sumDyXmu }: GradientSums, mean: Float64Array, sign: number) =>
  sumDyXmu.map((sum, c) => sum + sign * (mean[c]! - Math.fround(mean[c]!)) * sumDy[c]!);
