// Kernels that share large traversals out to a crew. They have the names and the arguments of all other kernels, so the
// engine does not know of threads, but for two hooks: calls without a tensor in shared memory take another machine
// (src/threads/start.ts), and `backward` in planes does some channels at a time in pieces (near.ts).

import type { Exports, ThreadExports } from "../engine/machine.js";
import type { At } from "../engine/memory.js";
import { BLOCK_ONE, rowsOf } from "../engine/plan.js";
import type { Crew } from "./crew.js";
import * as kinds from "./job.js";
import { columnsOf, piecesOf } from "./job.js";
import { ARRAY, COLUMNS, move, type Room } from "./room.js";
import { BY_COLUMNS, CACHED, HEAVY, RUN } from "./sizes.js";

const padded = (width: number): number => (width + 3) & ~3;

/** The kernels of a binary, of which those that go through a tensor hand out pieces of large ones. */
export function sharedOut(wasm: Exports, pieces: ThreadExports, crew: Crew, room: Room): Exports {
  const shared = {
    ...wasm,
    ...elementwise(wasm, crew),
    ...reductionsOfRows(wasm, pieces, crew, room),
    ...reductionsOfPlanes(wasm, crew, room),
  };
  // Two jobs, because rows are gated by rows and added up by columns.
  shared.gatedSumsRows = (s, p, g, dy, x, add, terms, low, high, count, rows, width, stride) => {
    if (crew.pieces(rows * width * HEAVY) === 1) {
      wasm.gatedSumsRows(s, p, g, dy, x, add, terms, low, high, count, rows, width, stride);
      return;
    }
    shared.gateRows(g, dy, x, add, terms, low, high, rows, width, stride);
    const gated = g as number as At<"a">;
    shared.gradientSumsRows(s, p, gated, x, terms, count, rows, width, stride, width);
  };
  return shared;
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
  pieces: ThreadExports,
  crew: Crew,
  room: Room,
): Pick<Exports, "momentsRows" | "gradientSumsRows"> {
  const { job } = crew;
  const sums0 = room.at;
  const sums1 = sums0 + ARRAY;
  const states0 = (sums0 + 3 * ARRAY) as At<"base">;
  const states1 = (states0 + 4 * COLUMNS) as At<"offset">;
  const states2 = (states1 + 8 * COLUMNS) as At<"m2">;
  return {
    momentsRows(base, offset, m2, scratch, x, count, rows, width, stride, whole) {
      const each = rowsOf(width, BLOCK_ONE);
      const isCached = rows * width <= CACHED;
      const most = Math.floor(COLUMNS / padded(width)) * each;
      const possible = isCached ? columnsOf(width) : Math.ceil(rows / each);
      if (crew.pieces(rows * width * HEAVY, possible) === 1) {
        return wasm.momentsRows(base, offset, m2, scratch, x, count, rows, width, stride, whole);
      }
      for (let row = 0; row < rows; row += most) {
        const some = Math.min(most, rows - row);
        const work = some * width * HEAVY;
        const n = piecesOf(work, isCached ? columnsOf(width) : Math.ceil(some / each));
        job
          .begin(kinds.MOMENTS_ROWS, n, 0, x + row * stride)
          .on(0, 0, some, width)
          .of(stride, 0)
          .into(0, states0, states1, states2)
          .parts(each, isCached ? n : 1);
        crew.run(n, true);
        const { poolMoments } = pieces;
        poolMoments(base, offset, m2, states0, states1, states2, count + row, some, width, each);
      }
    },
    gradientSumsRows(sumDy, sumDyX, dy, x, center, count, rows, width, stride, whole) {
      const size = rows * width;
      const n = size > BY_COLUMNS ? 1 : crew.pieces(size * HEAVY, columnsOf(width, RUN));
      if (n === 1) {
        const { gradientSumsRows: alone } = wasm;
        return alone(sumDy, sumDyX, dy, x, center, count, rows, width, stride, whole);
      }
      job
        .begin(kinds.SUMS_ROWS, n, 0, dy)
        .on(x, center, rows, width)
        .of(stride, 0, sumDy, sumDyX)
        .into(0, sums0, sums1, 0)
        .numbers(count);
      crew.run(n, true);
      move(room, sumDy, sums0, 8 * padded(width));
      move(room, sumDyX, sums1, 8 * padded(width));
    },
  };
}

function reductionsOfPlanes(
  wasm: Exports,
  crew: Crew,
  room: Room,
): Pick<Exports, "momentsPlanes" | "gradientSumsPlanes"> {
  const { job } = crew;
  const into0 = room.at;
  const into1 = into0 + ARRAY;
  const into2 = into1 + ARRAY;
  /** Pieces have some channels each. The planes have to begin with channel 0 and to end with the last one. */
  const piecesOfChannels = (first: number, planes: number, channels: number, inner: number) =>
    first !== 0 || planes % channels !== 0 ? 1 : crew.pieces(planes * inner * HEAVY, channels);
  return {
    momentsPlanes(base, offset, m2, x, count, first, planes, channels, inner) {
      const n = piecesOfChannels(first, planes, channels, inner);
      if (n === 1) {
        return wasm.momentsPlanes(base, offset, m2, x, count, first, planes, channels, inner);
      }
      job
        .begin(kinds.MOMENTS_PLANES, n, 0, x)
        .on(0, 0, 0, planes)
        .of(channels, inner, base, offset)
        .into(m2, into0, into1, into2)
        .numbers(count);
      crew.run(n, true);
      move(room, base, into0, 4 * channels);
      move(room, offset, into1, 8 * channels);
      move(room, m2, into2, 8 * channels);
    },
    gradientSumsPlanes(sumDy, sumDyX, dy, x, center, count, first, planes, channels, inner) {
      const n = piecesOfChannels(first, planes, channels, inner);
      if (n === 1) {
        const { gradientSumsPlanes: alone } = wasm;
        return alone(sumDy, sumDyX, dy, x, center, count, first, planes, channels, inner);
      }
      job
        .begin(kinds.SUMS_PLANES, n, 0, dy)
        .on(x, center, 0, planes)
        .of(channels, inner, sumDy, sumDyX)
        .into(0, into0, into1, 0)
        .numbers(count);
      crew.run(n, true);
      move(room, sumDy, into0, 8 * channels);
      move(room, sumDyX, into1, 8 * channels);
    },
  };
}
