// `npm run bench -- --against DIST`: compares this build with another build of the package, for example that of
// the commit before. It shows whether a change has cost speed.
//
// Both builds run in one process and take turns, a few milliseconds each. Other programs then slow both down
// alike, and the ratio of two neighbouring bursts stays right. Each row shows the median of these ratios. Two
// things could still favour one build for as long as the process lives:
//
// - Where its arrays lie in the machine's memory. For that reason alone two copies of one build differed by a
//   fifth. So both builds write ordinary results into the same array, and share one kernel memory.
// - How the engine happened to optimize its code. So each build has its own copy of the loop that calls it
//   (ours.ts is loaded twice), and a row outside the bounds is measured again in new processes
//   (against-child.ts) before it counts.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import * as thisBuild from "../dist/index.js";
import { CASES, type Case, type Data, LARGE, makeData, type Op, opsOf } from "./cases.js";
import { check, expect, limitsOf } from "./check.js";
import { burst, SAMPLE, warm } from "./measure.js";
import { type Build, FRESH, ours, type waysOf } from "./ours.js";
import type { Peer, Session } from "./peers/peer.js";

/** How many milliseconds a burst lasts, and how many calls it has at least, so that it has a median. */
const BURST = { time: 4, calls: 3 };
/** How often both builds have a burst, and how often layers and tensors are made anew for that. */
const ROUNDS = 12;
const OPENINGS = 3;
/** Seconds to wait before the rows outside the bounds are measured again, and in how many processes each time. */
const PAUSES = [2, 5, 10];
const PROCESSES = 3;

const CHILD = fileURLToPath(new URL("against-child.ts", import.meta.url));

export type Way = keyof typeof ours;

export interface Wanted {
  readonly shape: (c: Case) => boolean;
  readonly op: (op: Op) => boolean;
  /** If null, all but FRESH, whose time is mostly that of the system, which has to find new memory. */
  readonly sides: readonly string[] | null;
  /** How far from 1 a ratio may be. */
  readonly within: number;
}

/** What one process has measured of a row. */
export interface Found {
  /** The other build's time over this one's: the median of all pairs of bursts, then the two quartiles. */
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
  /** Microseconds a call of this build. */
  readonly time: number;
}

interface Row {
  readonly c: Case;
  readonly op: Op;
  readonly way: Way;
  /** One entry for each process. */
  readonly found: Found[];
}

/** Prints a line for each row and returns the lines of those that stayed outside the bounds. */
export async function compare(
  folder: string,
  { shape, op: isWanted, sides, within }: Wanted,
  say: (text: string) => void,
): Promise<string[]> {
  const file = fileOf(folder);
  const builds = await Builds.load(file);
  const rows: Row[] = [];
  console.log(HEADER);
  for (const c of CASES.filter(shape)) {
    const data = dataOf(c);
    for (const op of opsOf(c).filter(isWanted)) {
      for (const way of waysFor(op, sides)) {
        const row: Row = { c, op, way, found: [] };
        say(nameOf(row));
        row.found.push(await builds.measure(c, op, way, data));
        say("");
        console.log(lineOf(row, within));
        rows.push(row);
      }
    }
  }
  const outside = rows.filter((row) => isOutside(row, within));
  return (await measureAgain(file, outside, within, say)).map((row) => lineOf(row, within));
}

/** Returns the rows that stay outside the bounds. */
async function measureAgain(
  file: string,
  rows: readonly Row[],
  within: number,
  say: (text: string) => void,
): Promise<readonly Row[]> {
  let outside = rows;
  for (const pause of PAUSES) {
    if (outside.length === 0) break;
    console.log(`\nOutside: ${outside.length}; measured again in ${pause} s:\n`);
    await setTimeout(1000 * pause);
    for (const row of outside) {
      for (let i = 0; i < PROCESSES; i++) {
        say(nameOf(row));
        row.found.push(await inNewProcess(file, row));
      }
      say("");
      console.log(lineOf(row, within));
    }
    outside = outside.filter((row) => isOutside(row, within));
  }
  return outside;
}

/** Measures a row in a new process. The other build begins in every second one. */
async function inNewProcess(file: string, { c, op, way, found }: Row): Promise<Found> {
  const otherFirst = found.length % 2 === 1;
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...["--expose-gc", "--import", "tsx", CHILD],
    ...[file, String(CASES.indexOf(c)), op, way, String(otherFirst)],
  ]);
  return JSON.parse(stdout);
}

export class NoBuild extends Error {
  constructor(folder: string) {
    super(`--against: the folder of a build, with an index.js in it, not ${folder}`);
  }
}

/** The module of a build. A relative path starts where `npm run` was called. */
function fileOf(folder: string): string {
  const file = resolve(process.env.INIT_CWD ?? "", folder, "index.js");
  if (!existsSync(file)) throw new NoBuild(folder);
  return file;
}

export const dataOf = (c: Case): Data => ({ ...makeData(c), out: new Float32Array(c.size) });

const waysFor = (op: Op, sides: readonly string[] | null): Way[] =>
  (Object.keys(ours) as Way[]).filter((way) => {
    const { name, ops } = ours[way];
    return ops.includes(op) && (sides ? sides.includes(name) : name !== FRESH);
  });

/** This build, `here`, and the other, `there`. */
export class Builds {
  readonly #here = ours;
  readonly #there: typeof ours;
  readonly #thereFirst: boolean;

  private constructor(there: typeof ours, thereFirst: boolean) {
    this.#there = there;
    this.#thereFirst = thereFirst;
  }

  static async load(file: string, otherFirst = false): Promise<Builds> {
    const other: Build = await import(pathToFileURL(file).href);
    const copy: { waysOf: typeof waysOf } = await import(
      new URL("ours.js?other", import.meta.url).href
    );
    // At its first call a build makes the kernel memory through which it takes ordinary arrays.
    await inOneMemory(async () => {
      for (const { BatchNorm } of [thisBuild, other]) new BatchNorm(1).infer(new Float32Array(1));
    });
    return new Builds(copy.waysOf(other), otherFirst);
  }

  async measure(c: Case, op: Op, way: Way, data: Data): Promise<Found> {
    const pair = { here: this.#here[way], there: this.#there[way] };
    await answerRightly(pair, c, op, data);
    const ratios: number[] = [];
    const times: number[] = [];
    for (let opening = 0; opening < OPENINGS; opening++) {
      // The kernel memory of the opening before would be in the way.
      if (c.size >= LARGE) globalThis.gc?.();
      const { here, there } = await inOneMemory(async () => ({
        here: await pair.here.open(c, op, data),
        there: await pair.there.open(c, op, data),
      }));
      const turned = this.#thereFirst !== (opening % 2 === 1);
      const sessions: Two<Session> = turned ? [there, here] : [here, there];
      for (const [first, second] of await takeTurns(sessions, c.size >= LARGE)) {
        ratios.push(turned ? first / second : second / first);
        times.push(1000 * (turned ? second : first));
      }
    }
    const [low, ratio, high] = [0.25, 0.5, 0.75].map((part) => quantile(ratios, part));
    return { ratio, low, high, time: quantile(times, 0.5) };
  }
}

type Two<T> = readonly [T, T];

/** Throws if a build gives wrong results: their time would say nothing. */
async function answerRightly(
  { here, there }: { here: Peer; there: Peer },
  c: Case,
  op: Op,
  data: Data,
): Promise<void> {
  const expected = expect(c, op, data);
  for (const [build, peer] of [
    ["this build", here],
    ["the other build", there],
  ] as const) {
    const session = await peer.open(c, op, data);
    check(`${peer.name}, ${build},`, c, expected, await session.answer(), limitsOf("ours"));
  }
}

/**
 * Lets both builds have the same kernel memory: all memories of one size that are made during `open` are one.
 * The builds overwrite each other's values there, but never during a call, and only results by results and
 * inputs by the same inputs. If one build needs more room before its first tensor, its tensors lie a little
 * behind those of the other, and ours.ts leaves enough space between them.
 */
async function inOneMemory<T>(open: () => Promise<T>): Promise<T> {
  const made = new Map<string, WebAssembly.Memory>();
  const { Memory } = WebAssembly;
  WebAssembly.Memory = new Proxy(Memory, {
    construct(target, [descriptor]: [WebAssembly.MemoryDescriptor]) {
      const key = JSON.stringify(descriptor);
      const memory = made.get(key) ?? new target(descriptor);
      made.set(key, memory);
      return memory;
    },
  });
  try {
    return await open();
  } finally {
    WebAssembly.Memory = Memory;
  }
}

/** Milliseconds of a call of `a` and of `b`, for each pair of bursts. Each of them begins every second pair. */
async function takeTurns([a, b]: Two<Session>, large: boolean): Promise<Two<number>[]> {
  const call = Math.min(await warm(a), await warm(b));
  const calls = Math.max(1, Math.ceil(SAMPLE / call));
  const time = Math.max(BURST.time, BURST.calls * call);
  // One call that is not timed, to bring this build's arrays into the caches.
  const settle = large ? 1 : 0;
  const timeOf = (session: Session) => burst({ session, calls, settle }, time);
  const times: Two<number>[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (round % 2 === 0) {
      const first = await timeOf(a);
      times.push([first, await timeOf(b)]);
    } else {
      const first = await timeOf(b);
      times.push([await timeOf(a), first]);
    }
  }
  return times;
}

function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = part * (sorted.length - 1);
  return (sorted[Math.floor(at)] + sorted[Math.ceil(at)]) / 2;
}

/** The median over the processes. */
const over = ({ found }: Row, what: keyof Found): number =>
  quantile(
    found.map((one) => one[what]),
    0.5,
  );

const isOutside = (row: Row, within: number): boolean => Math.abs(over(row, "ratio") - 1) > within;

const nameOf = ({ c, op, way }: Row): string =>
  `${`${c.name} ${c.layout}`.padEnd(20)} ${op.padEnd(8)} ${ours[way].name.padEnd(16)}`;

const HEADER =
  "The other build's time over this one's (more than 1: this one is faster), and between which\n" +
  "ratios the middle half of the rounds lies; microseconds a call of this build.\n";

function lineOf(row: Row, within: number): string {
  const [ratio, low, high] = (["ratio", "low", "high"] as const).map((what) =>
    over(row, what).toFixed(3),
  );
  const time = over(row, "time").toPrecision(3).padStart(9);
  const mark = isOutside(row, within) ? "  OUTSIDE" : "";
  return `${nameOf(row)} ${ratio}  (${low} to ${high}) ${time} µs${mark}`;
}
