// How a call goes through its tensors, chosen by their dimensions and where they lie. Every threshold of src/
// that was chosen by measuring is here; the measurements are in docs/tuning.md.
//
// A view (outer, channels, inner) is walked in one of two ways:
//   planes  SIMD along the `inner` values of a channel;
//   rows    SIMD across columns: a row is all channels, each `inner` times. Narrow rows are taken several at
//           once (`repeats`), so that every width fills its vectors and loops are long.
// Channels that do not fit the parameter arrays go in tiles. Bits must not depend on where tensors lie: in a
// reduction, what sets the order of additions is chosen by dimensions alone.

import type { Limits } from "../values/activation.js";
import { sizeOf, type View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import type { Bits } from "../values/terms.js";
import { MAX_COLUMNS, STREAM_FLOATS } from "./memory.js";
import { inParts, type Operand } from "./operand.js";

/** Up to this many values, a frozen layer is faster in JavaScript than through the kernels. */
export const TINY = 32;
/** From this many values on, a result is faster in memory that is not zeroed first, where Node has such. */
export const UNZEROED = 512;
/** From this many values on (32 MiB) that is no longer faster: the system hands out pages that are zeroed already. */
export const ZEROED_BY_SYSTEM = 8388608;

/** Rows of at most this many columns are narrow, and so many of them make a block, as in assembly/blocks.ts. */
export const NARROW = 64;
export const BLOCK_ROWS = 64;
/** Values in a block of wide rows where one tensor is reduced: as in assembly/blocks.ts. */
export const BLOCK_ONE = 131072;
/** Values of each tensor in a block of rows where two tensors are reduced: as in assembly/blocks.ts. */
export const BLOCK_TWO = 65536;
/** Values in a block of a plane: as in assembly/blocks.ts. */
export const BLOCK_PLANE = 4096;
/** How many rows of `width` columns make a block where one tensor is reduced, as in assembly/blocks.ts. */
export const rowsOfOne = (width: number): number =>
  BLOCK_ROWS * (width > NARROW ? Math.floor(BLOCK_ONE / BLOCK_ROWS / width) : 1);
/** The same where two tensors are reduced. */
export const rowsOfTwo = (width: number): number =>
  BLOCK_ROWS * Math.floor(BLOCK_TWO / BLOCK_ROWS / width);

/** Planes of fewer values than this make too short loops, so they are walked as rows, if there are MIN_ROWS. */
const MIN_PLANE = 16;
/** With fewer rows than this, walking as rows does not pay, because their columns have to be pooled afterwards. */
const MIN_ROWS = 8;
/** If the tensors of a traversal have at most this many values together (8 MiB), they are assumed to be in cache. */
const HOT = 2097152;
/** Rows taken several at once are to have at least this many columns. */
export const MIN_COLUMNS = 64;
/** The same if values are not in cache, for moments and for elementwise kernels on tensors in kernel memory. */
const MIN_COLUMNS_LARGE = 256;
/**
 * In planes of at most this many values `backward` takes as many channels at a time as fit a stream buffer
 * with all their examples: its second traversal then finds them in cache, and ordinary arrays are copied once.
 */
const NEAR = 3670016;
/** This is done only if at least this many values of each example then lie together. */
const NEAR_RUN = 1792;

/** Which way a view is walked. */
export interface Walk {
  readonly rows: boolean;
  /** How many channels a tile has; the last tile may have fewer. */
  readonly tile: number;
}

/** Which way a view is walked, chosen by its dimensions alone. */
export function walkOf({ outer, channels, inner }: View): Walk {
  const rows = inner === 1 || (inner < MIN_PLANE && outer >= MIN_ROWS);
  const tile = Math.min(channels, rows ? Math.floor(MAX_COLUMNS / inner) : MAX_COLUMNS);
  return { rows, tile };
}

/**
 * How many rows are taken as one: as many as it takes to fill whole cache lines and to have at least `least` columns,
 * but not so many that too few blocks are left. Rows that go in tiles are wide enough already.
 */
export function repeatsOf({ outer, channels, inner }: View, { rows }: Walk, least: number): number {
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

/** Whether terms have to be laid out for the columns of a row: a row is then more than one value per channel. */
export const needsColumns = ({ inner }: View, rows: boolean, repeats: number): boolean =>
  rows && repeats * inner !== 1;

/** One traversal of tensors by a kernel, with all that its steps need. */
export interface Pass<M> extends Walk {
  readonly machine: M;
  readonly view: View;
  /** Rows taken as one. */
  readonly repeats: number;
  /** Whether terms are laid out for the columns of a row; else they lie once per channel. */
  readonly columns: boolean;
  /** The tensor that is written; `null` in a reduction. */
  readonly out: Operand | null;
  readonly a: Operand;
  readonly b: Operand | null;
  readonly residual: Operand | null;
  /** The range of the activation, for kernels that apply one; `null`: none. */
  readonly limits: Limits | null;
  /** For elementwise kernels: whether all tensors lie in kernel memory and have more than HOT values together. */
  readonly cold: boolean;
  /** Whether at least one tensor goes in parts. */
  readonly streamed: boolean;
  /** The positions that take part; `null`: all. */
  readonly selection: Selection | null;
  /** Which values of y are above 0, where `train` keeps that, and for a `backward` that reads it. */
  bits: Bits | null;
}

/**
 * Plans a traversal. A reduction has no `out`, unless it says that it `reduces`; a kernel that reads one tensor has no
 * `b`, and only the gradient's reads a `residual` besides `a` and `b`.
 */
export function passOf<M>(
  machine: M,
  view: View,
  selection: Selection | null,
  out: Operand | null,
  a: Operand,
  b: Operand | null,
  limits: Limits | null = null,
  residual: Operand | null = null,
  reduces = out === null,
): Pass<M> {
  const { rows, tile } = walkOf(view);
  const size = sizeOf(view);
  const streamed = a.unit === 0 || b?.unit === 0 || residual?.unit === 0 || out?.unit === 0;
  // A kernel takes a single distance between rows for all its tensors, so if one tensor goes in parts of some
  // columns, all of them do. None of them is held: all have the same length, so none fits a stream buffer.
  if (streamed && rows && tile < view.channels) {
    a = inParts(a);
    b &&= inParts(b);
    residual &&= inParts(residual);
    out &&= inParts(out);
  }
  const tensors = 1 + (out && out.base !== a.base ? 1 : 0) + (b ? 1 : 0) + (residual ? 1 : 0);
  const large = tensors * size > HOT;
  const cold = !streamed && large;
  const wide = reduces ? large && !b : cold;
  const repeats = repeatsOf(view, { rows, tile }, wide ? MIN_COLUMNS_LARGE : MIN_COLUMNS);
  const columns = needsColumns(view, rows, repeats);
  // Every property by its name: an object spread here took 6 of the 7 µs of infer of [64, 64].
  return {
    rows,
    tile,
    machine,
    view,
    repeats,
    columns,
    out,
    a,
    b,
    residual,
    limits,
    selection,
    streamed,
    cold,
    bits: null,
  };
}

/** Channels that fit a stream buffer with all their examples. */
export const channelsNear = ({ outer, inner }: View): number =>
  Math.floor(STREAM_FLOATS / (outer * inner));

/** Whether `backward` takes some channels at a time (NEAR). Either all its tensors go in parts, or none. */
export function isNear<M>({ view, rows }: Pass<M>, dx: Operand, dy: Operand, x: Operand): boolean {
  const alike = dx.unit === dy.unit && dx.unit === x.unit;
  const run = channelsNear(view) * view.inner;
  return alike && !rows && sizeOf(view) <= NEAR && run >= NEAR_RUN;
}
