// Takes a kernel through the tensors of a pass: in rows or planes, where they lie or in parts that are loaded
// into the stream buffers and stored back.

import { copy, part as partOf } from "../values/arrays.js";
import { type At, NOWHERE, STREAM_FLOATS } from "./memory.js";
import { type Operand, pointer } from "./operand.js";
import type { Pass } from "./plan.js";

/**
 * What a kernel does with a part of its tensors: it writes `out`, and reads `a`, `b` and the residual `c`. `count` says how much of the
 * same channels or columns came before: how many values in planes, how many rows in rows. The dimensions are, in rows,
 *
 *   rows, width, stride          as many rows of `width` columns, `stride` bytes apart
 *
 * and in planes, or in a part of a single plane, where the first plane belongs to channel `first`,
 *
 *   first, planes, channels, inner
 */
export type Step<M> = (
  pass: Pass<M>,
  out: At<"out">,
  a: At<"a">,
  b: At<"b">,
  c: At<"c">,
  count: number,
  ...dimensions: number[]
) => void;

/**
 * The steps of a traversal. They are functions of a module and not closures, because making a closure for each call
 * takes longer than a step of a small tensor.
 */
export interface Steps<M> {
  /** Rows in a block; parts are cut at its multiples. Only for reductions: elsewhere, any cut gives the same bits. */
  readonly block?: (width: number) => number;
  readonly rows: Step<M>;
  readonly planes: Step<M>;
  /**
   * How many values a part has at most if all tensors lie in kernel memory; 0 if they are not cut there. A step that walks
   * twice finds its part in cache.
   */
  readonly most?: (pass: Pass<M>) => number;
  /** Pools the columns of rows taken several at once: `rows` of them, `width` columns for each one. */
  readonly merge?: (pass: Pass<M>, rows: number, width: number) => void;
}

/** Rows of `width` values, `pitch` apart, from the value `at` of a tensor on. */
export interface Part {
  readonly at: number;
  readonly rows: number;
  readonly width: number;
  readonly pitch: number;
}

/**
 * Copies a part of an operand that goes in parts into its stream buffer, where the rows lie one after the other. If
 * `storing`, copies it back from there. Does nothing for other operands, or without one.
 */
function transfer<M>(
  { selection }: Pass<M>,
  operand: Operand | null,
  { at, rows, width, pitch }: Part,
  storing: boolean,
): void {
  if (operand?.unit !== 0) return;
  const { array } = operand;
  const packed = operand.stream.array;
  if (selection !== null) {
    selection.transfer(packed, array, at, rows, width, storing);
    return;
  }
  const n = width === pitch ? rows : 1;
  const length = n * width;
  for (let i = 0; i < rows; i += n) {
    const from = at + i * pitch;
    const to = i * width;
    if (storing) copy(array, packed.subarray(to, to + length), from);
    else copy(packed, partOf(array, from, from + length), to);
  }
}

/** Loads a part of the inputs into the stream buffers. */
export function load<M>(pass: Pass<M>, part: Part): void {
  transfer(pass, pass.a, part, false);
  transfer(pass, pass.b, part, false);
  transfer(pass, pass.residual, part, false);
}

/** Stores a part of the output from its stream buffer. */
export function store<M>(pass: Pass<M>, part: Part): void {
  transfer(pass, pass.out, part, true);
}

/** How many values a part has at most; 0 if tensors are not cut. */
const mostOf = <M>(pass: Pass<M>, steps: Steps<M>): number =>
  pass.streamed ? STREAM_FLOATS : (steps.most?.(pass) ?? 0);

/** Loads a piece of the inputs, takes the kernel through it, and stores the piece of the output. */
function walkPart<M>(
  pass: Pass<M>,
  step: Step<M>,
  part: Part,
  count: number,
  d0: number,
  d1: number,
  d2: number,
  d3 = 0,
): void {
  const { at } = part;
  const y = pointer<"out">(pass.out, at);
  const p = pointer<"a">(pass.a, at);
  const q = pointer<"b">(pass.b, at);
  const r = pointer<"c">(pass.residual, at);
  load(pass, part);
  step(pass, y, p, q, r, count, d0, d1, d2, d3);
  store(pass, part);
}

/**
 * Walks `rows` rows of `width` values, `pitch` apart, that begin at the value `from`; `count` rows of the same columns
 * came before. They are taken all at once if no tensor goes in parts, else in parts of whole blocks.
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
  const { streamed } = pass;
  const block = steps.block?.(width) ?? 1;
  const most = mostOf(pass, steps);
  const height = most === 0 ? rows : (Math.floor(most / (block * width)) || 1) * block;
  const stride = (streamed ? width : pitch) * 4;
  for (let row = 0; row < rows; row += height) {
    const n = Math.min(height, rows - row);
    const at = from + row * pitch;
    const part = { at, rows: n, width, pitch };
    walkPart(pass, steps.rows, part, count + row, n, width, stride);
  }
}

/** Walks the rows of a tile of channels. */
function walkRows<M>(pass: Pass<M>, steps: Steps<M>, first: number, tile: number): void {
  const { outer, channels, inner } = pass.view;
  const { repeats } = pass;
  const narrow = tile * inner;
  const width = repeats * narrow;
  const rows = Math.floor(outer / repeats);
  walkRun(pass, steps, first * inner, 0, rows, width, repeats * channels * inner);
  if (repeats === 1) return;
  steps.merge?.(pass, rows, narrow);
  // The rows at the end that are too few to be taken as one.
  const done = rows * repeats;
  walkRun(pass, steps, rows * width, done, outer - done, narrow, narrow);
}

/**
 * How many values a part has that begins at the value `done` of planes of `inner` values, `size` in all: as many whole
 * planes as `most` values hold. If they do not hold a single one, it is `most` values of it, which are whole blocks.
 */
export function cut(done: number, size: number, inner: number, most: number): number {
  const whole = most - (most % inner);
  return Math.min(whole || Math.min(most, inner - (done % inner)), size - done);
}

/** Walks the planes of a tile of channels: one run if the tile has all of them, else one run per example. */
function walkPlanes<M>(pass: Pass<M>, steps: Steps<M>, first: number, tile: number): void {
  const { outer, channels, inner } = pass.view;
  const runs = tile === channels ? 1 : outer;
  const size = (outer / runs) * tile * inner;
  const most = mostOf(pass, steps) || size;
  for (let run = 0; run < runs; run++) {
    for (let done = 0, width: number; done < size; done += width) {
      const within = done % inner;
      const plane = (done - within) / inner;
      width = cut(done, size, inner, most);
      const at = (run * channels + first) * inner + done;
      const count = (run + Math.floor(plane / tile)) * inner + within;
      const planes = Math.ceil(width / inner);
      const part = { at, rows: 1, width, pitch: width };
      walkPart(pass, steps.planes, part, count, plane % tile, planes, tile, Math.min(width, inner));
    }
  }
}

/** Takes a kernel through the tile of `n` channels from `first` on. */
export const walkTile = <M>(pass: Pass<M>, steps: Steps<M>, first: number, n: number): void =>
  (pass.rows ? walkRows : walkPlanes)(pass, steps, first, n);

/** Takes a kernel through planes that lie in the stream buffers: `n` channels with all their examples, and no residual. */
export function walkNear<M>(pass: Pass<M>, steps: Steps<M>, n: number): void {
  const { outer, inner } = pass.view;
  const y = pointer<"out">(pass.out, 0);
  const p = pointer<"a">(pass.a, 0);
  const q = pointer<"b">(pass.b, 0);
  steps.planes(pass, y, p, q, NOWHERE, 0, 0, outer * n, n, inner);
}
