// Kernels that share large traversals out to a crew. They have the names and the arguments of all other kernels, so the
// engine does not know of threads, but for two hooks: calls without a tensor in shared memory take another machine
// (src/threads/start.ts), and `backward` in planes does some channels at a time in pieces (near.ts).

import type { Exports, ThreadExports } from "../engine/machine.js";
import type { At } from "../engine/memory.js";
import { BLOCK_PLANE, rowsOfOne, rowsOfTwo } from "../engine/plan.js";
import type { Crew } from "./crew.js";
import * as kinds from "./job.js";
import { piecesOf } from "./job.js";
import { COLUMNS, type Room, STATES } from "./room.js";
import { CACHED, HEAVY, RUN } from "./sizes.js";

/** Where pieces leave states: base, offset and m2 of moments, or the two sums of a gradient. */
const statesIn = ({ at }: Room) =>
  [at, at + STATES, at + 2 * STATES] as [At<"base" & "sumDy">, At<"offset" & "sumDyX">, At<"m2">];

const padded = (width: number): number => (width + 3) & ~3;

/** The kernels of a binary, of which those that go through a tensor hand out pieces of large ones. */
export function sharedOut(wasm: Exports, pieces: ThreadExports, crew: Crew, room: Room): Exports {
  const each = elementwise(wasm, crew);
  return {
    ...wasm,
    ...each,
    ...reductionsOfRows(wasm, each.gateRows, pieces, crew, room),
    ...reductionsOfPlanes(wasm, pieces, crew, room),
  };
}

type Elementwise =
  | "affineStrips"
  | "affineSweep"
  | "affinePlanes"
  | "gateRows"
  | "gatePlanes"
  | "gradientStrips"
  | "gradientSweep"
  | "gradientPlanes";

/** Hands out an elementwise kernel: what it does, its arguments, the kernel's dimensions. */
type HandOut = (
  kind: number,
  out: number,
  a: number,
  b: number,
  add: number,
  terms: number,
  low: number,
  high: number,
  d0: number,
  d1: number,
  d2: number,
  d3?: number,
) => boolean;

function elementwise(wasm: Exports, crew: Crew): Pick<Exports, Elementwise> {
  /** Describes rows, and hands them out; false if this thread is to do all of them. */
  const rowsShared: HandOut = (kind, out, a, b, add, terms, low, high, rows, width, stride) => {
    const work = rows * width * (b === 0 ? 1 : HEAVY);
    const n = crew.pieces(work);
    if (n === 1) return false;
    crew.job.begin(kind, n, out, a).on(b, terms, rows, width).of(stride, 0, add);
    crew.job.parts(0, 1).limits(low, high);
    crew.run(n, out !== a && out !== add);
    return true;
  };
  /** The same of planes. */
  const planesShared: HandOut = (
    kind,
    out,
    a,
    b,
    add,
    terms,
    low,
    high,
    first,
    planes,
    channels,
    inner = 1,
  ) => {
    const work = planes * inner * (b === 0 ? 1 : HEAVY);
    let n = crew.pieces(work);
    if (n === 1) return false;
    const byChannels =
      planes * inner <= CACHED && first === 0 && planes % channels === 0 && channels >= n;
    // Where there are fewer planes than pieces, each is cut into equally many.
    if (planes < n) n = Math.floor(n / planes) * planes;
    const parts = byChannels ? n : 1;
    crew.job.begin(kind, n, out, a).on(b, terms, first, planes).of(channels, inner, add);
    crew.job.parts(0, parts).limits(low, high);
    crew.run(n, out !== a && out !== add);
    return true;
  };
  const affineRows =
    (kind: number, alone: Exports["affineStrips"]): Exports["affineStrips"] =>
    (y, x, add, terms, low, high, rows, width, stride) => {
      if (!rowsShared(kind, y, x, 0, add, terms, low, high, rows, width, stride))
        alone(y, x, add, terms, low, high, rows, width, stride);
    };
  const gradientRows =
    (kind: number, alone: Exports["gradientStrips"]): Exports["gradientStrips"] =>
    (dx, dy, x, terms, rows, width, stride) => {
      if (!rowsShared(kind, dx, dy, x, 0, terms, 0, 0, rows, width, stride))
        alone(dx, dy, x, terms, rows, width, stride);
    };
  const { AFFINE_PLANES, GRADIENT_PLANES, GATE_ROWS, GATE_PLANES } = kinds;
  return {
    affineStrips: affineRows(kinds.AFFINE_STRIPS, wasm.affineStrips),
    affineSweep: affineRows(kinds.AFFINE_SWEEP, wasm.affineSweep),
    gradientStrips: gradientRows(kinds.GRADIENT_STRIPS, wasm.gradientStrips),
    gradientSweep: gradientRows(kinds.GRADIENT_SWEEP, wasm.gradientSweep),
    gateRows(g, dy, x, add, terms, low, high, rows, width, stride) {
      if (!rowsShared(GATE_ROWS, g, dy, x, add, terms, low, high, rows, width, stride))
        wasm.gateRows(g, dy, x, add, terms, low, high, rows, width, stride);
    },
    gatePlanes(g, dy, x, add, terms, low, high, first, planes, channels, inner) {
      const [kind, c, p] = [GATE_PLANES, channels, planes];
      if (!planesShared(kind, g, dy, x, add, terms, low, high, first, p, c, inner))
        wasm.gatePlanes(g, dy, x, add, terms, low, high, first, planes, channels, inner);
    },
    affinePlanes(y, x, add, terms, low, high, first, planes, channels, inner) {
      const [kind, c, p] = [AFFINE_PLANES, channels, planes];
      if (!planesShared(kind, y, x, 0, add, terms, low, high, first, p, c, inner))
        wasm.affinePlanes(y, x, add, terms, low, high, first, planes, channels, inner);
    },
    gradientPlanes(dx, dy, x, terms, first, planes, channels, inner) {
      const [kind, c, p] = [GRADIENT_PLANES, channels, planes];
      if (!planesShared(kind, dx, dy, x, 0, terms, 0, 0, first, p, c, inner))
        wasm.gradientPlanes(dx, dy, x, terms, first, planes, channels, inner);
    },
  };
}

function reductionsOfRows(
  wasm: Exports,
  gateRows: Exports["gateRows"],
  { poolMoments, poolSums }: ThreadExports,
  crew: Crew,
  room: Room,
): Pick<Exports, "momentsRows" | "gradientSumsRows"> {
  const { job } = crew;
  const [into0, into1, into2] = statesIn(room);
  /** Whether one thread is to do all of some rows. Narrow rows in caches are not cut. */
  const isAlone = (size: number, width: number): boolean =>
    (size <= CACHED && width < 32) || crew.pieces(size * HEAVY) === 1;
  /**
   * Hands out rows from `row` on, as many as there is room for the states of: in caches some columns of all of them to
   * each piece, else whole blocks of `each` rows. Returns how many.
   */
  const blocks = (
    kind: number,
    a: number,
    b: number,
    center: number,
    row: number,
    rows: number,
    width: number,
    stride: number,
    each: number,
  ): number => {
    const n = Math.min(Math.floor(COLUMNS / padded(width)) * each, rows - row);
    const isCached = rows * width <= CACHED;
    const most = isCached ? Math.max(2, width / RUN) : Math.ceil(n / each);
    const count = piecesOf(n * width * HEAVY, most);
    job
      .begin(kind, count, 0, a + row * stride)
      .on(b + row * stride, center, n, width)
      .of(stride, 0)
      .into(0, into0, into1, into2)
      .parts(each, isCached ? count : 1);
    crew.run(count, true);
    return n;
  };
  return {
    momentsRows(base, offset, m2, scratch, x, count, rows, width, stride, whole) {
      const each = rowsOfOne(width);
      if (isAlone(rows * width, width)) {
        return wasm.momentsRows(base, offset, m2, scratch, x, count, rows, width, stride, whole);
      }
      for (let row = 0, n: number; row < rows; row += n) {
        n = blocks(kinds.MOMENTS_ROWS, x, 0, 0, row, rows, width, stride, each);
        poolMoments(base, offset, m2, into0, into1, into2, count + row, n, width, each);
      }
    },
    gradientSumsRows(
      s,
      p,
      scratch,
      g,
      dy,
      x,
      add,
      terms,
      low,
      high,
      count,
      rows,
      width,
      stride,
      whole,
    ) {
      if (isAlone(rows * width, width)) {
        const { gradientSumsRows: alone } = wasm;
        alone(s, p, scratch, g, dy, x, add, terms, low, high, count, rows, width, stride, whole);
        return;
      }
      // Pieces add up only what is gated already: by rows, while sums may be cut by columns.
      if (low <= high) {
        gateRows(g, dy, x, add, terms, low, high, rows, width, stride);
      }
      const each = rowsOfTwo(width);
      for (let row = 0, n: number; row < rows; row += n) {
        n = blocks(kinds.SUMS_ROWS, g, x, terms, row, rows, width, stride, each);
        poolSums(s, into0, count + row, n, width, each);
        poolSums(p, into1, count + row, n, width, each);
      }
    },
  };
}

function reductionsOfPlanes(
  wasm: Exports,
  { poolMoments, poolSums }: ThreadExports,
  crew: Crew,
  room: Room,
): Pick<Exports, "momentsPlanes" | "gradientSumsPlanes"> {
  const { job } = crew;
  const [into0, into1, into2] = statesIn(room);
  /**
   * Whether pieces have whole planes and leave a state of each, which is pooled afterwards: if a plane is one block. From
   * memory, that reads longer runs than some channels in all the examples.
   */
  const isByPlanes = (count: number, planes: number, channels: number, inner: number): boolean =>
    (count > 0 || planes * inner > CACHED) &&
    inner <= BLOCK_PLANE &&
    (planes / channels) * padded(channels) <= COLUMNS;
  /**
   * Hands out a reduction. False if this thread is to do it: so it is unless planes begin with channel 0 and end with the
   * last one, and if pieces of channels would have to go on with a state.
   */
  const planesShared = (
    kind: number,
    a: number,
    b: number,
    center: number,
    count: number,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): boolean => {
    const isByPlane = isByPlanes(count, planes, channels, inner);
    if (first !== 0 || planes % channels !== 0 || (count > 0 && !isByPlane)) return false;
    const n = crew.pieces(planes * inner * HEAVY, channels);
    if (n === 1) return false;
    job
      .begin(kind, n, 0, a)
      .on(b, center, 0, planes)
      .of(channels, inner)
      .into(0, into0, into1, into2)
      .parts(0, isByPlane ? n : 1);
    crew.run(n, true);
    return true;
  };
  return {
    momentsPlanes(base, offset, m2, x, count, first, planes, channels, inner) {
      const { MOMENTS_PLANES: kind } = kinds;
      if (!planesShared(kind, x, 0, 0, count, first, planes, channels, inner)) {
        return wasm.momentsPlanes(base, offset, m2, x, count, first, planes, channels, inner);
      }
      // A single state of each channel is pooled as well, with nothing.
      const values = isByPlanes(count, planes, channels, inner) ? (planes / channels) * inner : 1;
      poolMoments(base, offset, m2, into0, into1, into2, count, values, channels, inner);
    },
    gradientSumsPlanes(sumDy, sumDyX, dy, x, center, count, first, planes, channels, inner) {
      const { SUMS_PLANES: kind } = kinds;
      if (!planesShared(kind, dy, x, center, count, first, planes, channels, inner)) {
        const { gradientSumsPlanes: alone } = wasm;
        return alone(sumDy, sumDyX, dy, x, center, count, first, planes, channels, inner);
      }
      const states = isByPlanes(count, planes, channels, inner) ? planes / channels : 1;
      poolSums(sumDy, into0, count, states, channels, 1);
      poolSums(sumDyX, into1, count, states, channels, 1);
    },
  };
}
