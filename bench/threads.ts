// `npm run bench -- --threads N`: this package on N threads against itself on one, and against other libraries on N. All take
// turns in one run, as in measure.ts, so what else the machine does hits them alike. Whole runs also measure the speed-up
// against size, in rows of 64 channels, and how many cores each library keeps busy.
//
// At the end ours are measured once more while other processes keep N - 1 cores busy; with --busy, everything is, and only so. With --copies, it is also measured how long the copies of
// ordinary arrays into shared memory and out of it take by themselves, which nobody but the calling thread can make: however
// many threads compute, a call with ordinary arrays takes at least that long.

import { spawn } from "node:child_process";
import { loadavg } from "node:os";
import { CASES, type Case, LARGE, makeData, OPS, type Op, opsOf, SIZES } from "./cases.js";
import { coresOf } from "./cores.js";
import { geometricMean, number } from "./goals.js";
import { type Effort, measure, type Timing } from "./measure.js";
import { median } from "./median.js";
import { ours, PLAIN, RESIDENT } from "./ours.js";
import { parameterCopies, sharedCopies } from "./peers/copy.js";
import { inChromium, loadPeers, threadLoaders } from "./peers/index.js";
import type { Peer } from "./peers/peer.js";
import { type Cores, type Measured, type ThreadsResult, timeOf } from "./record.js";
import { roundTrip } from "./round-trip.js";
import { micro } from "./tables.js";
import { threaded } from "./threaded.js";
import { gains, ratiosOf, SMALL, several } from "./threads-goals.js";

/** The copies of parameters in memory of one thread, and in shared memory. */
const PARAMETERS = [parameterCopies(false), parameterCopies(true)];
const EFFORT: Effort = { rounds: 12, burst: 10 };

export interface Chosen {
  readonly shape: (c: Case) => boolean;
  readonly op: (op: Op) => boolean;
  readonly side: (name: string) => boolean;
  /** Nothing is left out. */
  readonly all: boolean;
}

export interface Conditions {
  readonly busy?: boolean;
  readonly copies?: boolean;
}

export type Threads = Omit<ThreadsResult, "date" | "commit" | "machine">;

/** Measures what is chosen on `count` threads, and prints a line for each operation of each shape. */
export async function threads(
  count: number,
  chosen: Chosen,
  conditions: Conditions,
  status: (text: string) => void,
): Promise<Threads> {
  const load = loadavg()[0];
  const trips: number[] = [];
  // What native.ts gives its child processes.
  process.env.BENCH_THREADS = String(count);
  const beside = [RESIDENT, PLAIN].map((way) => inChromium(way, count));
  const { peers, skipped } = await loadPeers(
    (name) => chosen.side(beside.includes(name) ? "tfjs-wasm" : name),
    threadLoaders(count),
  );
  const resident = [ours.resident, threaded("resident", count)];
  const own = [...resident, ours.plain, threaded("plain", count)];
  const all = [...own, ...peers, ...(conditions.copies ? [sharedCopies, ...PARAMETERS] : [])];
  const chosenOf = (sides: readonly Peer[], among: number[] | null): Promise<Measured[]> =>
    rows(CASES.filter(chosen.shape), sides, chosen.op, count, among, status);
  const whole = chosen.all && !conditions.busy && !conditions.copies;
  try {
    const cases = conditions.busy ? [] : await chosenOf(all, trips);
    const sizes = whole ? await rows(SIZES, resident, chosen.op, count, trips, status) : [];
    const cores = whole ? await coresOfAll([...resident, ...peers], status) : [];
    const loaded = conditions.busy ? all : own;
    const busy =
      conditions.busy || whole ? await underLoad(count - 1, () => chosenOf(loaded, null)) : [];
    const found = conditions.busy ? busy : cases;
    if (conditions.copies) {
      console.log(`\n${[...overCopies(found), ...ofSmall(found, count)].join("\n")}`);
    }
    const named = peers.map(({ name, version, kind }) => ({ name, version, kind }));
    const about = { count, load, roundTrip: spread(trips), effort: EFFORT };
    return { ...about, peers: named, skipped, cases, sizes, cores, busy };
  } finally {
    for (const peer of peers) peer.close?.();
  }
}

/** Measures while other processes keep some cores busy. */
async function underLoad(
  cores: number,
  measureThem: () => Promise<Measured[]>,
): Promise<Measured[]> {
  console.log(`\nWith ${cores} other ${cores === 1 ? "core" : "cores"} busy:`);
  const loads = Array.from({ length: cores }, () =>
    spawn(process.execPath, ["--eval", "for (;;);"], { stdio: "ignore" }),
  );
  try {
    return await measureThem();
  } finally {
    for (const each of loads) each.kill("SIGKILL");
  }
}

async function rows(
  cases: readonly Case[],
  sides: readonly Peer[],
  wanted: (op: Op) => boolean,
  count: number,
  trips: number[] | null,
  status: (text: string) => void,
): Promise<Measured[]> {
  const found: Measured[] = [];
  for (const c of cases) {
    const data = makeData(c);
    for (const op of opsOf(c).filter(wanted)) {
      status(`${c.name} ${c.layout} ${op}`);
      // Beside loads of the same real-time priority each of its trips would take a time slice.
      if (trips) trips.push(await roundTrip());
      const taking = sides.filter((side) => takesPart(side, c, op));
      const timings = await measure(c, op, data, taking, EFFORT);
      found.push({ name: c.name, layout: c.layout, size: c.size, op, timings });
      status("");
      console.log(line(found.at(-1)!, count));
    }
  }
  return found;
}

function spread(values: readonly number[]): ThreadsResult["roundTrip"] {
  return { least: Math.min(...values), median: median(values), most: Math.max(...values) };
}

const takesPart = ({ ops, layouts }: Peer, c: Case, op: Op): boolean =>
  ops.includes(op) && layouts.includes(c.layout);

/** The shapes with which each library is watched: the largest images, in the layout that it can take. */
const WATCHED: readonly Case[] = CASES.slice(-1).flatMap((last) =>
  CASES.filter(({ name }) => name === last.name),
);

async function coresOfAll(
  sides: readonly Peer[],
  status: (text: string) => void,
): Promise<Cores[]> {
  const found: Cores[] = [];
  for (const side of sides) {
    const c = WATCHED.find(({ layout }) => side.layouts.includes(layout))!;
    const data = makeData(c);
    for (const op of ["infer", "train"] as const) {
      status(`cores of ${side.name}, ${op}`);
      const cores = await coresOf(side, c, op, data);
      if (cores !== undefined) found.push({ side: side.name, op, cores });
    }
  }
  status("");
  for (const { side, op, cores } of found) console.log(`${side} ${op}: ${cores.toFixed(2)} cores`);
  return found;
}

function line(m: Measured, count: number): string {
  const each = m.timings.map(({ side }) => `${side} ${micro(timeOf(m, side))}`);
  const gain = [RESIDENT, PLAIN].flatMap((way) =>
    gains({ count }, [m], m.op as Op, way).map(({ value }) => value.toFixed(2)),
  );
  return `${`${m.name} ${m.layout} ${m.op}`.padEnd(30)} ${gain.join("  ")}   µs: ${each.join(", ")}`;
}

const mean = (values: readonly number[]): string =>
  values.length === 0 ? "-" : number(geometricMean(values));

const timing = (m: Measured, side: string): Timing | undefined =>
  m.timings.find((known) => known.side === side);

/** How many times as long a call with ordinary arrays takes on one thread as nothing but their copies in shared memory. */
const overCopies = (found: readonly Measured[]): string[] =>
  OPS.map((op) => {
    const large = found.filter(({ size }) => size >= LARGE);
    const each = ratiosOf(
      large,
      op,
      (m) => timing(m, PLAIN)?.time,
      (m) => timing(m, sharedCopies.name)?.time,
    );
    return `${op.padEnd(9)} ${PLAIN} on one / its copies in shared memory alone: ${mean(each.map(({ value }) => value))}`;
  });

/** What shared memory costs small calls, and what it costs the copies of their parameters alone. */
const ofSmall = (found: readonly Measured[], count: number): string[] =>
  found
    .filter(({ size, op }) => size < SMALL && op === "infer")
    .map((m) => {
      const nanoseconds = (sides: readonly string[]): string => {
        const [one, other] = sides.map((side) => 1e3 * timing(m, side)!.time);
        return `${one.toFixed(0)} and ${other.toFixed(0)} ns (${(other - one).toFixed(0)} more)`;
      };
      const calls = nanoseconds([RESIDENT, several(RESIDENT, count)]);
      const copies = nanoseconds(PARAMETERS.map(({ name }) => name));
      return `${m.name} infer, on one thread and on ${count}: ${calls}; copies of its parameters, into memory of one thread and into shared memory: ${copies}`;
    });
