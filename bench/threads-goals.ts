// What a record of several threads shows: how many times as long one thread takes, what the memory allows, and the goals. As in
// goals.ts a ratio is the other's time over ours in the same run, ours being that on several threads.

import { LARGE, OPS, type Op } from "./cases.js";
import { type Goal, geometricMean, meanAndLeast, number, type Ratio, theirTime } from "./goals.js";
import { PLAIN, RESIDENT } from "./ours.js";
import { type Measured, type ThreadsResult, timeOf } from "./record.js";

/** From how many values on threads are to gain something at all. */
export const SMALL = 1 << 14;
/** The goals are set for two threads. */
const SET_FOR = 2;

export const several = (way: string, count: number): string => `${way}, ${count} threads`;

export interface ThreadRatio extends Ratio {
  readonly size: number;
}

/** The time of one side over that of another one, for each shape that has both. */
export function ratiosOf(
  rows: readonly Measured[],
  op: Op,
  slow: (m: Measured) => number | undefined,
  fast: (m: Measured) => number | undefined,
): ThreadRatio[] {
  return rows
    .filter((m) => m.op === op)
    .flatMap((m) => {
      const [one, other] = [slow(m), fast(m)];
      return one && other
        ? [{ at: `${m.name} ${m.layout}`, size: m.size, value: one / other }]
        : [];
    });
}

const by =
  (side: string) =>
  (m: Measured): number | undefined =>
    timeOf(m, side);

/** How many times as long one thread takes, in one of our ways. */
export const gains = (
  { count }: Pick<ThreadsResult, "count">,
  rows: readonly Measured[],
  op: Op,
  way: string,
): ThreadRatio[] => ratiosOf(rows, op, by(way), by(several(way, count)));

/** Their time on several threads over ours on as many. */
export function against(
  result: Pick<ThreadsResult, "count" | "cases">,
  op: Op,
  peer: string,
  ours: string,
): ThreadRatio[] {
  const theirs = (m: Measured) => theirTime(result.cases, m, peer);
  return ratiosOf(result.cases, op, theirs, by(ours));
}

// ---- memory -------------------------------------------------------------------------------------

/**
 * Bytes that an operation moves for each value between memory and the processor. infer: x in, the line of y in, since it is
 * written, and y out. train reads x twice. backward reads x and dy twice, and writes dx as infer writes y.
 */
export const MOVED: Readonly<Record<Op, number>> = { infer: 12, train: 16, backward: 24 };

/** How many arrays of the tensor's size a call works on. */
const ARRAYS: Readonly<Record<Op, number>> = { infer: 2, train: 2, backward: 3 };

/** How many of the largest cache the threads may have together: cores that are far from each other have one each. */
const CACHES = 2;

/** From how many values on the arrays of a call have no room in the caches; `undefined` where nobody says how large those are. */
export function beyondCaches(
  { machine }: Pick<ThreadsResult, "machine">,
  op: Op,
): number | undefined {
  const kilobytes = Object.values(machine.caches).map((size) => Number.parseInt(size, 10));
  return kilobytes.length > 0
    ? (CACHES * 1024 * Math.max(...kilobytes)) / (4 * ARRAYS[op])
    : undefined;
}

/** Gigabytes a second that `infer` of the largest tensor moved between memory and some threads, if no cache holds it. */
export function bandwidth(result: ThreadsResult, threads: number): number | undefined {
  const from = beyondCaches(result, "infer") ?? Number.POSITIVE_INFINITY;
  const side = threads === 1 ? RESIDENT : several(RESIDENT, threads);
  const found = [...result.cases, ...result.sizes]
    .filter(({ op, size }) => op === "infer" && size > from)
    .sort((a, b) => b.size - a.size);
  const time = timeOf(found[0], side);
  return time === undefined ? undefined : (MOVED.infer * found[0].size) / time / 1e3;
}

/** How many times as long one thread could take at most of each tensor that no cache holds, the memory giving `bandwidth`. */
export function memoryLimits(result: ThreadsResult, op: Op): ThreadRatio[] {
  const gigabytes = bandwidth(result, result.count);
  const from = beyondCaches(result, op);
  if (gigabytes === undefined || from === undefined) return [];
  const rows = [...result.cases, ...result.sizes].filter(({ size }) => size > from);
  return ratiosOf(rows, op, by(RESIDENT), (m) => (MOVED[op] * m.size) / gigabytes / 1e3);
}

// ---- goals --------------------------------------------------------------------------------------

export function threadGoals(result: ThreadsResult): Goal[] {
  const { count, cases } = result;
  const gainOf = (way: string, op: Op, least: number, most: number): ThreadRatio[] =>
    gains(result, cases, op, way).filter(({ size }) => size >= least && size < most);
  return [
    ...OPS.flatMap((op) =>
      (
        [
          ["from 256 Ki values on", LARGE, Number.POSITIVE_INFINITY, 1.7],
          ["16 Ki to 256 Ki", SMALL, LARGE, 1.3],
          ["smaller", 0, SMALL, 0.95],
        ] as const
      ).map(([range, least, most, goal]) =>
        goalOf(
          count,
          `one thread / ${count}, ${RESIDENT}, ${op}, ${range}`,
          goal,
          gainOf(RESIDENT, op, least, most),
        ),
      ),
    ),
    ...OPS.map((op) =>
      goalOf(
        count,
        `one thread / ${count}, ${PLAIN}, ${op}, from 256 Ki values on`,
        1.2,
        gainOf(PLAIN, op, LARGE, Number.POSITIVE_INFINITY),
      ),
    ),
    ...["PyTorch", "oneDNN"].flatMap((peer) =>
      OPS.map((op) =>
        goalOf(
          count,
          `${peer} on ${count} / ${several(RESIDENT, count)}, ${op}`,
          1,
          against(result, op, peer, several(RESIDENT, count)),
        ),
      ),
    ),
    ...[RESIDENT, PLAIN].map((way) => busyGoal(result, way)),
  ];
}

/** How many times as long several threads take as one while all other cores are busy, by the medians of all rounds. */
function busyGoal({ count, busy = [] }: ThreadsResult, way: string): Goal {
  const middle =
    (side: string) =>
    (m: Measured): number | undefined => {
      const found = m.timings.find((timing) => timing.side === side);
      return found && found.time * found.noise;
    };
  const found = OPS.flatMap((op) =>
    ratiosOf(busy, op, middle(several(way, count)), middle(way)).map(({ at, ...rest }) => ({
      ...rest,
      at: `${at} ${op}`,
    })),
  );
  const what = `${several(way, count)} / one thread, other cores busy, median time`;
  const goal = count === SET_FOR ? "mean ≤ 1.3" : "none";
  if (found.length === 0) return { what, goal, measured: "not measured", met: null };
  const mean = geometricMean(found.map(({ value }) => value));
  const most = found.reduce((a, b) => (b.value > a.value ? b : a));
  return {
    what,
    goal,
    measured: `${number(mean)}, most ${number(most.value)} at ${most.at}`,
    met: count === SET_FOR ? mean <= 1.3 : null,
  };
}

function goalOf(count: number, what: string, mean: number, found: readonly ThreadRatio[]): Goal {
  const goal = count === SET_FOR ? `mean ≥ ${mean}` : "none";
  if (found.length === 0) return { what, goal, measured: "not measured", met: null };
  const value = geometricMean(found.map((ratio) => ratio.value));
  return {
    what,
    goal,
    measured: meanAndLeast(found),
    met: count === SET_FOR ? value >= mean : null,
  };
}
