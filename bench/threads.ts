// `npm run bench -- --threads N`: this package on N threads against itself on one, and against PyTorch and oneDNN on N. All
// take turns in one run, as in measure.ts, so what else the machine does hits them alike. Nothing is kept.
//
// With --busy, other processes keep N - 1 cores busy meanwhile. With --copies, it is also measured how long the copies of
// ordinary arrays into shared memory and out of it take by themselves, which nobody but the calling thread can make: however
// many threads compute, a call with ordinary arrays takes at least that long.

import { spawn } from "node:child_process";
import { CASES, type Case, LARGE, makeData, OPS, type Op, opsOf } from "./cases.js";
import { type Effort, measure, type Timing } from "./measure.js";
import { ours, PLAIN, RESIDENT } from "./ours.js";
import { sharedCopies } from "./peers/copy.js";
import { loadPeers } from "./peers/index.js";
import { threaded } from "./threaded.js";

const EFFORT: Effort = { rounds: 12, burst: 10 };
const NATIVE: readonly string[] = ["PyTorch", "oneDNN"];
/** From how many values on threads are to gain something at all. */
const SMALL = 1 << 14;

/** What is measured of a case and an operation: the times of all sides, by name. */
interface Row {
  readonly c: Case;
  readonly op: Op;
  readonly times: ReadonlyMap<string, Timing>;
}

/** Measures the chosen cases and prints what several threads gain. */
export async function threads(
  count: number,
  shape: (c: Case) => boolean,
  op: (op: Op) => boolean,
  side: (name: string) => boolean,
  { busy = false, copies = false }: { busy?: boolean; copies?: boolean },
  status: (text: string) => void,
): Promise<void> {
  // What native.ts gives its child processes.
  process.env.BENCH_THREADS = String(count);
  const { peers } = await loadPeers((name) => NATIVE.includes(name) && side(name));
  const sides = [
    ...[ours.resident, threaded("resident", count)],
    ...[ours.plain, threaded("plain", count), ...peers],
    ...(copies ? [sharedCopies] : []),
  ];
  const rows: Row[] = [];
  const loads = Array.from({ length: busy ? count - 1 : 0 }, () =>
    spawn(process.execPath, ["--eval", "for (;;);"], { stdio: "ignore" }),
  );
  try {
    for (const c of CASES.filter(shape)) {
      const data = makeData(c);
      for (const each of opsOf(c).filter(op)) {
        status(`${c.name} ${c.layout} ${each}`);
        const timings = await measure(c, each, data, sides, EFFORT);
        const times = new Map(timings.map((timing) => [timing.side, timing]));
        rows.push({ c, op: each, times });
        status("");
        console.log(line(rows.at(-1)!, count));
      }
    }
  } finally {
    for (const load of loads) load.kill("SIGKILL");
    for (const peer of peers) peer.close?.();
  }
  if (busy) console.log(`\n${underLoad(rows, count).join("\n")}`);
  console.log(
    `\n${summary(
      rows,
      count,
      peers.map(({ name }) => name),
    ).join("\n")}`,
  );
}

const timeOf = ({ times }: Row, name: string): number => times.get(name)?.time ?? Number.NaN;

/** How many times as long one side takes as another one. */
const ratio = (row: Row, slow: string, fast: string): number =>
  timeOf(row, slow) / timeOf(row, fast);

function line(row: Row, count: number): string {
  const { c, op, times } = row;
  const each = [...times.values()].map(({ side, time }) => `${side} ${time.toFixed(1)}`);
  const gain = [RESIDENT, PLAIN].map((way) =>
    ratio(row, way, `${way}, ${count} threads`).toFixed(2),
  );
  return `${`${c.name} ${c.layout} ${op}`.padEnd(30)} ${gain.join("  ")}   µs: ${each.join(", ")}`;
}

/** Of the medians of all rounds: how many times as long as on one thread it takes, the other cores being busy. */
const underLoad = (rows: readonly Row[], count: number): string[] =>
  [RESIDENT, PLAIN].map((way) => {
    const median = ({ times }: Row, name: string): number => {
      const { time, noise } = times.get(name)!;
      return time * noise;
    };
    const each = rows.map((row) => median(row, `${way}, ${count} threads`) / median(row, way));
    return `${way}, other cores busy: median time on ${count} threads / on one: ${mean(each)}, at most ${Math.max(...each).toFixed(2)}`;
  });

const mean = (values: readonly number[]): string =>
  values.length === 0
    ? "-"
    : Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length).toFixed(2);

/** Geometric means by the size of tensors, for each operation. */
function summary(rows: readonly Row[], count: number, native: readonly string[]): string[] {
  const several = (way: string): string => `${way}, ${count} threads`;
  const of = (op: Op, least: number, most: number): Row[] =>
    rows.filter((row) => row.op === op && row.c.size >= least && row.c.size < most);
  const lines = OPS.map((op) => {
    const gains = (
      [
        ["from 256 Ki values", LARGE, Infinity],
        ["16 Ki to 256 Ki", SMALL, LARGE],
        ["smaller", 0, SMALL],
      ] as const
    ).map(([name, least, most]) => {
      const each = [RESIDENT, PLAIN].map((way) =>
        mean(of(op, least, most).map((row) => ratio(row, way, several(way)))),
      );
      return `${name}: ${each.join(", ")}`;
    });
    return `${op.padEnd(9)} one thread / ${count} (${RESIDENT}, ${PLAIN}): ${gains.join("; ")}`;
  });
  for (const op of OPS) {
    const all = of(op, LARGE, Infinity).map((row) => ratio(row, PLAIN, sharedCopies.name));
    if (!all.some(Number.isNaN)) {
      lines.push(
        `${op.padEnd(9)} ${PLAIN} on one / its copies in shared memory alone: ${mean(all)}`,
      );
    }
  }
  for (const name of native) {
    for (const op of OPS) {
      const all = of(op, 0, Infinity).map((row) => ratio(row, name, several(RESIDENT)));
      lines.push(
        `${op.padEnd(9)} ${name} on ${count} / ours on ${count}, ${RESIDENT}: ${mean(all)}`,
      );
    }
  }
  return lines;
}
