// The only caller of kernels. Works in place on tensors in kernel memory, and copies
// ordinary arrays through fixed buffers of cache size: at once where they fit, else part by part, so
// that memory stays O(part).
//
// A view (outer, channels, inner) is walked in one of two ways, chosen by its dimensions alone:
//   planes  SIMD along the `inner` values of a channel;
//   rows    SIMD across columns: a row is all channels, each `inner` times. Narrow rows are taken
//           several at once (`repeats`), so that every width fills its vectors and loops are long.
// Channels that do not fit the parameter arrays go in tiles, and those of `backward` in smaller ones where
// its two traversals then meet in cache (NEAR). At test time one example of `channels` values is not walked.

import { copy } from "./arrays.js";
import { NonFiniteError, StateError } from "./errors.js";
import { countOf, sizeOf, type View } from "./layout.js";
import type { AffineMachine, Machine } from "./machine.js";
import type { Selection } from "./mask.js";
import { type Buffers, firstOf, MAX_COLUMNS, type Slot, STREAM_FLOATS } from "./memory.js";
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

// As in assembly/lanes.ts, with the measurements.
const BLOCK_ROWS = 64;
/** Values in a block of wide rows where one tensor is reduced: both stream buffers. */
export const BLOCK_ONE = 131072;
/** And where two are: a stream buffer for each. */
export const BLOCK_TWO = 65536;
/** Rows in a block of `values`, narrow or wide. */
export const rowsOf = (width: number, values: number): number =>
  BLOCK_ROWS * (width > 64 ? Math.floor(values / BLOCK_ROWS / width) : 1);

/** Shorter planes go as rows, if there are rows enough to pool their columns for. */
const MIN_PLANE = 16;
const MIN_ROWS = 8;
/**
 * Up to this many values, 8 MiB, all tensors of a traversal together, values are taken to be in cache. Rows
 * of elementwise kernels then go by strips of columns; beyond it, in pairs, one of each half. Nanoseconds for
 * four values, strips and pairs: infer of 8 MiB 0.50 and 0.64, of 16 MiB 0.69 and 0.65, of 32 MiB 2.2 and
 * 1.0; gradient of 12 MiB 1.2 and 1.1, of 24 MiB 2.7 and 1.3. Between 8 and 16 MiB strips take up to five
 * times as long where others use the shared cache.
 */
const HOT = 2 << 20;
/** Columns that rows taken several at once are to have at least: loops along them are not too short. */
const MIN_COLUMNS = 64;
/**
 * And of more than HOT values, for moments, and for elementwise kernels of kernel memory. Nanoseconds for
 * four values of 25 MB, by 64 columns, 128 and 256: moments 1.15, 1.13 and 1.04, affine 0.92, 1.07 and 0.91,
 * gradient 1.52, 1.52 and 1.49; sums of the gradient gain nothing.
 */
const MIN_COLUMNS_LARGE = 256;

/**
 * Tensors in planes of at most NEAR values: `backward` takes as many channels at a time as fit a stream
 * buffer with all their examples, so that its second traversal finds them in cache, and copies ordinary
 * arrays once. Microseconds on an Intel Xeon, so and all channels at once, in kernel memory and ordinary
 * arrays: [8,128,28,28] 464 and 612, 687 and 895; [8,128,56,56] 1799 and 2425, 2619 and 3568; but
 * [8,256,56,56] 8015 and 5987, 9493 and 9517. Not measured on AMD's.
 */
const NEAR = 3670016;
/**
 * Unless fewer of an example's values would lie together. By runs of 1960, [32,256,14,14], 926 and 1179, 1551
 * and 1854; by runs of 980, [64,256,14,14], 2417 and 2301, 4064 and 3552.
 */
const NEAR_RUN = 1792;

interface Walk {
  readonly rows: boolean;
  /** Channels in a tile, at most; the last one may have fewer. */
  readonly tile: number;
}

function walkOf({ outer, channels, inner }: View): Walk {
  const rows = inner === 1 || (inner < MIN_PLANE && outer >= MIN_ROWS);
  const tile = Math.min(channels, rows ? Math.floor(MAX_COLUMNS / inner) : MAX_COLUMNS);
  return { rows, tile };
}

/**
 * How many rows are taken as one of whole lines and at least `least` columns, if there are enough. Of rows
 * in tiles one: they are wider than MAX_COLUMNS.
 */
function repeatsOf({ outer, channels, inner }: View, { rows }: Walk, least: number): number {
  let width = channels * inner;
  let repeats = 1;
  while (
    rows &&
    (width % 16 !== 0 || width < least) &&
    2 * width <= MAX_COLUMNS &&
    outer >= 2 * repeats * BLOCK_ROWS
  ) {
    width *= 2;
    repeats *= 2;
  }
  return repeats;
}

/** A tensor that a kernel reads or writes: where it lies, or through a stream buffer. */
interface Operand {
  readonly array: Float32Array;
  /** Where the kernel finds its first value, and bytes to the next. 0: it goes through `stream` in parts. */
  readonly base: number;
  readonly unit: 0 | 4;
  readonly stream: Slot<Float32Array>;
  /** An ordinary array of at most STREAM_FLOATS: all of it in by `enter`, out by `leave`. */
  readonly held: boolean;
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
  const inPlace = !selection && own >= 0;
  const held = !selection && own < 0 && array.length <= STREAM_FLOATS;
  return {
    array,
    base: inPlace ? own : stream.at,
    unit: inPlace || held ? 4 : 0,
    stream,
    held,
  };
}

/** Copies an input that is held. Two readings of it then need one copy. */
function enter({ held, stream, array }: Operand): void {
  if (held) copy(stream.array, array);
}

/** Copies an output that is held. */
function leave({ held, stream, array }: Operand): void {
  if (held) copy(array, firstOf(stream, array.length));
}

/**
 * The same operand in parts. None that goes so is held: all of a call are of one length, so that where one
 * exceeds STREAM_FLOATS, all do.
 */
const inParts = (o: Operand): Operand => ({ ...o, base: o.stream.at, unit: 0 });

/** One traversal of tensors by a kernel, with all that a step of it needs. */
interface Pass<M> {
  readonly machine: M;
  readonly view: View;
  readonly walk: Walk;
  /** Rows taken as one. */
  readonly repeats: number;
  /** Whether parameters are laid out for the columns of a row; else they lie once per channel. */
  readonly columns: boolean;
  /** Absent in a reduction. */
  readonly out: Operand | null;
  readonly a: Operand;
  readonly b: Operand | null;
  /** For elementwise kernels: in kernel memory, and, those in one place counted once, more than HOT. */
  readonly cold: boolean;
  /** One of them goes in parts. */
  readonly streamed: boolean;
  /** The positions that take part; `null`: all. */
  readonly selection: Selection | null;
}

function passOf<M>(
  machine: M,
  view: View,
  selection: Selection | null,
  out: Operand | null,
  a: Operand,
  b: Operand | null,
): Pass<M> {
  const walk = walkOf(view);
  const size = sizeOf(view);
  const streamed = a.unit === 0 || b?.unit === 0 || out?.unit === 0;
  // Columns are cut out of all rows or of none: the kernels know one distance between rows.
  if (streamed && walk.rows && walk.tile < view.channels) {
    a = inParts(a);
    b &&= inParts(b);
    out &&= inParts(out);
  }
  const tensors = 1 + (out && out.base !== a.base ? 1 : 0) + (b ? 1 : 0);
  const large = tensors * size > HOT;
  const cold = !streamed && large;
  // Of a reduction by size alone: where values lie must not change the bits.
  const wide = out ? cold : large && !b;
  const repeats = repeatsOf(view, walk, wide ? MIN_COLUMNS_LARGE : MIN_COLUMNS);
  const columns = walk.rows && repeats * view.inner !== 1;
  return { machine, view, walk, repeats, columns, out, a, b, selection, streamed, cold };
}

/** What a kernel does with some rows: `count` rows came before in the same columns. */
type RowStep<M> = (
  pass: Pass<M>,
  out: number,
  a: number,
  b: number,
  count: number,
  rows: number,
  width: number,
  stride: number,
) => void;

/** What a kernel does with some planes, or with a part of one. */
type PlaneStep<M> = (
  pass: Pass<M>,
  out: number,
  a: number,
  b: number,
  count: number,
  first: number,
  planes: number,
  channels: number,
  inner: number,
) => void;

/**
 * The steps of a traversal. Functions of the module: a closure made for a call costs more than a step
 * of a small tensor.
 */
interface Steps<M> {
  /** Rows in a block of a reduction, at whose multiples parts are cut; elsewhere any cut gives the same bits. */
  readonly block?: (width: number) => number;
  readonly rows: RowStep<M>;
  readonly planes: PlaneStep<M>;
  /** Pools what `rows` rows taken several at once left, `width` columns for each of these. */
  readonly merge?: (pass: Pass<M>, rows: number, width: number) => void;
}

/**
 * Copies rows of an array that goes in parts into its stream buffer, where they lie one after the other, or
 * `back`: `rows` of `width` values, `pitch` apart, from the value `at` on. Of any other operand, or none:
 * nothing.
 */
function transfer<M>(
  { selection }: Pass<M>,
  operand: Operand | null,
  at: number,
  rows: number,
  width: number,
  pitch: number,
  back: boolean,
): void {
  if (operand?.unit !== 0) return;
  const { array } = operand;
  const packed = operand.stream.array;
  if (selection !== null) {
    selection.transfer(packed, array, at, rows, width, back);
    return;
  }
  const n = width === pitch ? rows : 1;
  const length = n * width;
  for (let i = 0; i < rows; i += n) {
    const from = at + i * pitch;
    const to = i * width;
    if (back) copy(array, packed.subarray(to, to + length), from);
    else copy(packed, array.subarray(from, from + length), to);
  }
}

/** Copies what of the inputs goes in parts into the stream buffers. */
function gather<M>(pass: Pass<M>, at: number, rows: number, width: number, pitch: number): void {
  transfer(pass, pass.a, at, rows, width, pitch, false);
  transfer(pass, pass.b, at, rows, width, pitch, false);
}

const pointer = (o: Operand | null, at: number): number => (o ? o.base + at * o.unit : 0);

/**
 * Walks `rows` rows of `width` values, `pitch` apart, from the value `from` on, after `count` rows of the
 * same columns: at once where they lie, or in parts of whole blocks.
 */
function walkRun<M>(
  pass: Pass<M>,
  steps: Steps<M>,
  from: number,
  count: number,
  rows: number,
  width: number,
  pitch: number,
): void {
  const { out, a, b, streamed } = pass;
  const block = steps.block?.(width) ?? 1;
  const part = streamed ? (Math.floor(STREAM_FLOATS / (block * width)) || 1) * block : rows;
  const stride = (streamed ? width : pitch) * 4;
  for (let row = 0; row < rows; row += part) {
    const n = Math.min(part, rows - row);
    const at = from + row * pitch;
    gather(pass, at, n, width, pitch);
    steps.rows(
      pass,
      pointer(out, at),
      pointer(a, at),
      pointer(b, at),
      count + row,
      n,
      width,
      stride,
    );
    transfer(pass, out, at, n, width, pitch, true);
  }
}

/** Rows of a tile of channels. */
function walkRows<M>(pass: Pass<M>, steps: Steps<M>, first: number, tile: number): void {
  const { outer, channels, inner } = pass.view;
  const { repeats } = pass;
  const narrow = tile * inner;
  const width = repeats * narrow;
  const rows = Math.floor(outer / repeats);
  walkRun(pass, steps, first * inner, 0, rows, width, repeats * channels * inner);
  if (repeats === 1) return;
  steps.merge?.(pass, rows, narrow);
  // Rows that did not fill a wide one.
  const done = rows * repeats;
  walkRun(pass, steps, rows * width, done, outer - done, narrow, narrow);
}

/** Planes of a tile of channels: one run if the tile has all of them, else one run per example. */
function walkPlanes<M>(pass: Pass<M>, steps: Steps<M>, first: number, tile: number): void {
  const { out, a, b } = pass;
  const { outer, channels, inner } = pass.view;
  const runs = tile === channels ? 1 : outer;
  const planes = (outer / runs) * tile;
  // As many whole planes as fit a part; one that exceeds it goes alone, in parts of whole blocks.
  const part = pass.streamed ? STREAM_FLOATS : planes * inner;
  const group = Math.max(1, Math.floor(part / inner));
  for (let run = 0; run < runs; run++) {
    for (let plane = 0; plane < planes; plane += group) {
      const n = Math.min(group, planes - plane);
      const from = (run * channels + first + plane) * inner;
      const channel = plane % tile;
      const count = (run + Math.floor(plane / tile)) * inner;
      for (let done = 0; done < n * inner; done += part) {
        const length = Math.min(part, n * inner - done);
        const at = from + done;
        gather(pass, at, 1, length, length);
        const to = pointer(out, at);
        const p = pointer(a, at);
        const q = pointer(b, at);
        steps.planes(pass, to, p, q, count + done, channel, n, tile, Math.min(length, inner));
        transfer(pass, out, at, 1, length, length, true);
      }
    }
  }
}

/** Takes a kernel through a tile of channels. */
const walkTile = <M>(pass: Pass<M>, steps: Steps<M>, first: number, n: number): void =>
  (pass.walk.rows ? walkRows : walkPlanes)(pass, steps, first, n);

/** Puts the channels first … first + n of a parameter into its place in kernel memory. */
function put<A extends Float32Array | Float64Array>(
  slot: Slot<A>,
  array: A | null,
  first: number,
  n: number,
): number {
  if (array === null) return 0;
  copy(slot.array, n === array.length ? array : array.subarray(first, first + n));
  return slot.at;
}

/** Takes them out again. */
function take<A extends Float32Array | Float64Array>(
  array: A | null,
  slot: Slot<A>,
  first: number,
  n: number,
): void {
  if (array !== null) copy(array, firstOf(slot, n), first);
}

const MOMENTS: Steps<Machine> = {
  block: (width) => rowsOf(width, BLOCK_ONE),
  rows({ machine: { run, memory } }, _out, a, _b, count, rows, width, stride) {
    const { base, offset, m2 } = memory.slots;
    run.momentsRows(base.at, offset.at, m2.at, memory.scratch, a, count, rows, width, stride);
  },
  planes({ machine: { run, memory } }, _out, a, _b, count, first, planes, channels, inner) {
    const { base, offset, m2 } = memory.slots;
    run.momentsPlanes(base.at, offset.at, m2.at, a, count, first, planes, channels, inner);
  },
  merge({ machine: { run, memory }, repeats }, rows, width) {
    const { base, offset, m2 } = memory.slots;
    run.merge(base.at, offset.at, m2.at, rows, width, 1, repeats, width);
  },
};

/**
 * Leaves mean and variance of the channels first … first + n in kernel memory. Returns which is the first
 * of these whose variance is not finite, as it is of values that are not, or where it overflows; n if there
 * is none.
 */
function moments(pass: Pass<Machine>, first: number, n: number): number {
  const { run, memory } = pass.machine;
  const { base, offset, m2, mean, meanLow, variance } = memory.slots;
  const { outer, inner } = pass.view;
  walkTile(pass, MOMENTS, first, n);
  if (pass.walk.rows && inner > 1) {
    run.merge(base.at, offset.at, m2.at, outer, n, inner, inner, 1);
  }
  const count = countOf(pass.view);
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

/** Works out `scaleShift` of a tile from mean, `meanLow` and variance that lie in kernel memory. */
function scaleShift(
  { run, memory: { slots } }: Machine,
  terms: Terms,
  meanLow: number,
  first: number,
  n: number,
): void {
  const { mean, variance, hi, scale, shift } = slots;
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

/**
 * Works out scale and shift of the channels first … first + n in kernel memory. Throws StateError for a
 * variance that none can be.
 */
function enterTerms(machine: Machine, terms: Terms, first: number, n: number): void {
  const { mean, meanLow, variance } = machine.memory.slots;
  put(mean, terms.mean, first, n);
  put(variance, terms.variance, first, n);
  scaleShift(machine, terms, put(meanLow, terms.meanLow, first, n), first, n);
}

/** Copies hi, scale and shift of the channels first … first + n into kernel memory. */
function enterAffine({ memory: { slots } }: AffineMachine, from: Affine, first: number, n: number) {
  put(slots.hi, from.hi, first, n);
  put(slots.scale, from.scale, first, n);
  put(slots.shift, from.shift, first, n);
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

const AFFINE: Steps<AffineMachine> = {
  rows(pass, y, x, _b, _count, rows, width, stride) {
    const { run } = pass.machine;
    const { hi, scale, shift } = rowSlots(pass);
    // Without a sweep, the small binary, nothing is cold.
    const kernel = (pass.cold && run.affineSweep) || run.affineStrips;
    kernel(y, x, hi.at, scale.at, shift.at, rows, width, stride);
  },
  planes({ machine: { run, memory } }, y, x, _b, _count, first, planes, channels, inner) {
    const { hi, scale, shift } = memory.slots;
    run.affinePlanes(y, x, hi.at, scale.at, shift.at, first, planes, channels, inner);
  },
};

/** out = (x - hi)·scale + shift of a tile whose scale and shift lie in kernel memory. */
function affine(pass: Pass<AffineMachine>, first: number, n: number): void {
  spread(pass, ["hi", "scale", "shift"], n);
  walkTile(pass, AFFINE, first, n);
}

/** Where a row finds the parameters of its columns. */
const rowSlots = ({ machine: { memory }, columns }: Pass<AffineMachine>) =>
  columns ? memory.slots.columns : memory.slots;

/** Lays parameters out for the columns of a row, if the walk is one that needs it. */
function spread(
  { machine: { run, memory }, view, repeats, columns }: Pass<AffineMachine>,
  names: readonly ("hi" | "scale" | "shift" | "slope")[],
  n: number,
): void {
  if (!columns) return;
  for (const name of names) {
    run.spread(memory.slots.columns[name].at, memory.slots[name].at, n, view.inner, repeats);
  }
}

/** Where running averages go from here: += weight·(batch - running). */
export interface Update extends Statistics {
  readonly weight: number;
  /** What the batch's population variance is multiplied with. */
  readonly correction: number;
}

/**
 * Normalizes x by its own statistics, mean to 5e-7 sigma, variance to 1e-6, and moves
 * running averages. Mean and variance of `terms` are filled, meanLow is if there are several tiles.
 * Throws NonFiniteError or StateError before anything else outside kernel memory is written. out may
 * be x.
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
  const { channels } = view;
  const a = operand(memory, "x", x, 0, selection);
  const y = operand(memory, "out", out, 0, selection);
  enter(a);
  const reading = passOf(machine, view, selection, null, a, null);
  const { tile } = reading.walk;
  // One tile stays in kernel memory.
  const one = tile === channels;
  allMoments(reading, terms.mean, one ? null : terms.meanLow, terms.variance, null);
  const writing = passOf(machine, view, selection, y, a, null);
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    if (one) scaleShift(machine, terms, memory.slots.meanLow.at, first, n);
    else enterTerms(machine, terms, first, n);
    if (update !== null) move(machine, update, first, n);
    affine(writing, first, n);
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
 * Works out the moments of every channel, a tile at a time, into those of the arrays that are given.
 * Throws NonFiniteError in the end for channels not finite.
 */
function allMoments(
  pass: Pass<Machine>,
  mean: Float64Array,
  meanLow: Float64Array | null,
  variance: Float64Array | null,
  m2: Float64Array | null,
): void {
  const { slots } = pass.machine.memory;
  const { tile } = pass.walk;
  const { channels } = pass.view;
  const bad: number[] = [];
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    for (let c = moments(pass, first, n); c < n; c++) {
      if (!isVariance(slots.variance.array[c]!)) bad.push(first + c);
    }
    take(mean, slots.mean, first, n);
    take(meanLow, slots.meanLow, first, n);
    take(variance, slots.variance, first, n);
    take(m2, slots.m2, first, n);
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
  const array = (): Float64Array => new Float64Array(view.channels);
  const result = new Moments(countOf(view), array(), array(), array());
  const a = operand(machine.memory, "x", x, 0, selection);
  if (result.count === 0) return result;
  enter(a);
  const pass = passOf(machine, view, selection, null, a, null);
  allMoments(pass, result.mean, result.meanLow, null, result.m2);
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
    enterTerms(machine, terms, first, n);
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
    applyTiles(machine, out, x, view, selection, affineOf(machine, terms), enterAffine);
  } else applyTiles(machine, out, x, view, selection, terms, enterTerms);
  selection?.pad(out, terms.beta);
}

/** out = (x - hi)·scale + shift; out may be x. */
export function apply(
  machine: AffineMachine,
  out: Float32Array,
  x: Float32Array,
  view: View,
  affine: Affine,
): void {
  applyTiles(machine, out, x, view, null, affine, enterAffine);
}

/** The same; `enterTile` has hi, scale and shift of the channels first … first + n in kernel memory. */
function applyTiles<M extends AffineMachine, From>(
  machine: M,
  out: Float32Array,
  x: Float32Array,
  view: View,
  selection: Selection | null,
  from: From,
  enterTile: (machine: M, from: From, first: number, n: number) => void,
): void {
  const { channels } = view;
  const a = operand(machine.memory, "x", x, 0, selection);
  const y = operand(machine.memory, "out", out, 0, selection);
  enter(a);
  if (selection === null && x.length === channels && channels <= MAX_COLUMNS) {
    // One example needs no walk. [1, 64], so and otherwise: infer 0.40 and 0.47 µs, frozen 0.19 and 0.25.
    const { hi, scale, shift } = machine.memory.slots;
    enterTile(machine, from, 0, channels);
    machine.run.affineStrips(y.base, a.base, hi.at, scale.at, shift.at, 1, channels, 0);
  } else {
    const pass = passOf(machine, view, selection, y, a, null);
    const { tile } = pass.walk;
    for (let first = 0; first < channels; first += tile) {
      const n = Math.min(tile, channels - first);
      enterTile(machine, from, first, n);
      affine(pass, first, n);
    }
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

const SUMS: Steps<Machine> = {
  block: (width) => rowsOf(width, BLOCK_TWO),
  rows(pass, _out, dy, x, count, rows, width, stride) {
    const { run, memory } = pass.machine;
    const { sumDy, sumDyX } = memory.slots;
    const { hi } = rowSlots(pass);
    run.gradientSumsRows(sumDy.at, sumDyX.at, dy, x, hi.at, count, rows, width, stride);
  },
  planes({ machine: { run, memory } }, _out, dy, x, count, first, planes, channels, inner) {
    const { hi, sumDy, sumDyX } = memory.slots;
    const [s, p] = [sumDy.at, sumDyX.at];
    run.gradientSumsPlanes(s, p, dy, x, hi.at, count, first, planes, channels, inner);
  },
  merge({ machine: { run, memory }, repeats }, _rows, width) {
    for (const { at } of [memory.slots.sumDy, memory.slots.sumDyX]) {
      run.mergeSums(at, width, 1, repeats, width);
    }
  },
};

/** Σdy and Σdy·(x - float32(mean)) of each channel of a tile, left in kernel memory. */
function gradientSums(pass: Pass<Machine>, first: number, n: number): void {
  const { run, memory } = pass.machine;
  const { sumDy, sumDyX } = memory.slots;
  const { inner } = pass.view;
  if (sizeOf(pass.view) === 0) {
    sumDy.array.fill(0);
    sumDyX.array.fill(0);
    return;
  }
  spread(pass, ["hi"], n);
  walkTile(pass, SUMS, first, n);
  if (pass.walk.rows && inner > 1) {
    for (const { at } of [sumDy, sumDyX]) run.mergeSums(at, n, inner, inner, 1);
  }
}

const GRADIENT: Steps<Machine> = {
  rows(pass, out, dy, x, _count, rows, width, stride) {
    const { run } = pass.machine;
    const { hi, scale, shift, slope } = rowSlots(pass);
    const kernel = pass.cold ? run.gradientSweep : run.gradientStrips;
    kernel(out, dy, x, hi.at, scale.at, shift.at, slope.at, rows, width, stride);
  },
  planes({ machine: { run, memory } }, out, g, p, _count, first, planes, channels, inner) {
    const { hi, scale, shift, slope } = memory.slots;
    const [h, a, b, c] = [hi.at, scale.at, shift.at, slope.at];
    run.gradientPlanes(out, g, p, h, a, b, c, first, planes, channels, inner);
  },
};

/** Channels that fit a stream buffer with all their examples. */
const channelsNear = ({ outer, inner }: View): number =>
  Math.floor(STREAM_FLOATS / (outer * inner));

/** Whether `backward` takes so many at a time (NEAR): of planes, if the tensors are all of a kind. */
function isNear({ view, walk }: Pass<Machine>, dx: Operand, dy: Operand, x: Operand): boolean {
  const alike = dx.unit === dy.unit && dx.unit === x.unit;
  const run = channelsNear(view) * view.inner;
  return alike && !walk.rows && sizeOf(view) <= NEAR && run >= NEAR_RUN;
}

/** Takes a kernel over planes that lie in the stream buffers: `n` channels of all examples. */
function walkNear<M>(pass: Pass<M>, steps: Steps<M>, n: number): void {
  const { view, out, a, b } = pass;
  const [to, p, q] = [pointer(out, 0), pointer(a, 0), pointer(b, 0)];
  steps.planes(pass, to, p, q, 0, 0, view.outer * n, n, view.inner);
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
  const a = operand(memory, "dy", dy, 1, selection);
  const b = operand(memory, "x", x, 0, selection);
  const dx = operand(memory, "out.dx", into.dx, 1, selection);
  // Written by copies, but not where a tensor was.
  for (const name of ["dgamma", "dbeta"] as const) {
    const array = into[name];
    if (array !== null) memory.addressOf(`out.${name}`, array);
  }
  const sumsX = sums && aboutCenter(sums, terms.mean, 1);
  enter(a);
  enter(b);
  const reading = passOf(machine, view, selection, null, a, b);
  const writing = passOf(machine, view, selection, dx, a, b);
  const { outer, channels, inner } = view;
  const near = isNear(writing, dx, a, b);
  const tile = near ? Math.min(channelsNear(view), writing.walk.tile) : writing.walk.tile;
  // Both traversals are of what lies in the stream buffers then, and planes need no `spread`.
  const copied = near && writing.streamed;
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    run.center(hi.at, put(mean, terms.mean, first, n), n);
    if (copied) gather(writing, first * inner, outer, n * inner, channels * inner);
    if (sums !== null) {
      put(sumDy, sums.sumDy, first, n);
      put(sumDyX, sumsX, first, n);
    } else if (copied) walkNear(reading, SUMS, n);
    else gradientSums(reading, first, n);
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
    if (copied) {
      walkNear(writing, GRADIENT, n);
      transfer(writing, dx, first * inner, outer, n * inner, channels * inner, true);
    } else {
      spread(writing, ["hi", "scale", "shift", "slope"], n);
      walkTile(writing, GRADIENT, first, n);
    }
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
  const a = operand(memory, "dy", dy, 1, selection);
  const b = operand(memory, "x", x, 0, selection);
  const array = (): Float64Array => new Float64Array(view.channels);
  const result = new GradientSums(countOf(view), array(), array());
  enter(a);
  enter(b);
  const pass = passOf(machine, view, selection, null, a, b);
  const { tile } = pass.walk;
  for (let first = 0; first < view.channels; first += tile) {
    const n = Math.min(tile, view.channels - first);
    run.center(hi.at, put(memory.slots.mean, mean, first, n), n);
    gradientSums(pass, first, n);
    take(result.sumDy, sumDy, first, n);
    take(result.sumDyXmu, sumDyX, first, n);
  }
  result.sumDyXmu.set(aboutCenter(result, mean, -1));
  return result;
}

/** Σdy·(x - mean) about float32(mean) instead, where kernels have it, or, with sign -1, back. */
const aboutCenter = ({ sumDy, sumDyXmu }: GradientSums, mean: Float64Array, sign: number) =>
  sumDyXmu.map((sum, c) => sum + sign * (mean[c]! - Math.fround(mean[c]!)) * sumDy[c]!);
