// The kept records: a JSON file for each kind of machine.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type After, LARGE, type Layout, type PeerOp } from "./cases.js";
import type { Commit, Machine } from "./machine.js";
import type { Effort, Timing } from "./measure.js";

export interface Measured {
  readonly name: string;
  readonly layout: Layout;
  readonly size: number;
  readonly op: PeerOp;
  readonly timings: readonly Timing[];
}

export interface PeerInfo {
  readonly name: string;
  readonly version: string;
  readonly kind: string;
}

/** One size of growth.ts, measured in a process of its own. */
export interface Growth {
  readonly op: PeerOp;
  readonly floats: number;
  /** Nanoseconds of a call, per value. */
  readonly nanoseconds: number;
  /** Bytes that the process needs beside its arrays, at the peak of the call. */
  readonly extraBytes: number;
  readonly arrayBytes: number;
}

export interface Run {
  readonly date: string;
  readonly commit: Commit;
  readonly machine: Machine;
}

/** A run that measured other libraries too. */
interface Compared extends Run {
  readonly effort: Effort;
  readonly peers: readonly PeerInfo[];
  readonly skipped: readonly { name: string; reason: string; remedy: string }[];
}

export interface Result extends Compared {
  readonly cases: readonly Measured[];
  readonly sizes: readonly Measured[];
  readonly memory: readonly Growth[];
}

export interface GrowthResult extends Run {
  readonly points: readonly Growth[];
}

/** An operation of a case, with what follows batch norm in it. */
export interface MeasuredBlock extends Measured {
  readonly after: After;
}

/** A run of block.ts. */
export interface BlockResult extends Compared {
  readonly cases: readonly MeasuredBlock[];
}

/** How many cores a library kept busy (cores.ts). */
export interface Cores {
  readonly side: string;
  readonly op: PeerOp;
  readonly cores: number;
}

/** A run of threads.ts on `count` threads. `sizes` has nothing but our own calls in kernel memory. */
export interface ThreadsResult extends Compared {
  readonly count: number;
  /** The load average of the last minute before the run. */
  readonly load: number;
  /** Nanoseconds from one thread to another and back (round-trip.ts), of all times that it was measured in the run. */
  readonly roundTrip: { readonly least: number; readonly median: number; readonly most: number };
  readonly cases: readonly Measured[];
  readonly sizes: readonly Measured[];
  /** Of the shape `cases` has last. Empty where the system does not tell. */
  readonly cores: readonly Cores[];
  /** While other processes keep all cores but one busy. Missing in records that are older than the measurement. */
  readonly busy?: readonly Measured[];
}

export interface Recorded {
  readonly result: Result | null;
  readonly growth: GrowthResult | null;
  /** Missing in records that are older than the measurement. */
  readonly block?: BlockResult | null;
  /** One run for each number of threads, in their order. Missing in records that are older than the measurement. */
  readonly threads?: readonly ThreadsResult[];
}

export const RESULTS = fileURLToPath(new URL("results/", import.meta.url));

const fileOf = (kind: string) => `${RESULTS}${kind}.json`;

export function readRecord(kind: string): Recorded {
  const file = fileOf(kind);
  if (!existsSync(file)) return { result: null, growth: null };
  return JSON.parse(readFileSync(file, "utf8"));
}

export function allRecords(): Recorded[] {
  if (!existsSync(RESULTS)) return [];
  const files = readdirSync(RESULTS).filter((name) => name.endsWith(".json"));
  return files.map((name) => readRecord(name.slice(0, -".json".length)));
}

export function writeRecord(kind: string, record: Recorded): string {
  mkdirSync(RESULTS, { recursive: true });
  const file = fileOf(kind);
  const digits = (_: string, value: unknown) =>
    typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
  writeFileSync(file, `${compact(JSON.stringify(record, digits, 1))}\n`);
  return file;
}

/** A record with a run on several threads, which takes the place of an older one on as many. */
export function withThreads(record: Recorded, run: ThreadsResult): Recorded {
  const others = (record.threads ?? []).filter(({ count }) => count !== run.count);
  return { ...record, threads: [...others, run].sort((a, b) => a.count - b.count) };
}

/** Puts each timing and each point on one line, so that a change of one is a change of one line. */
const compact = (json: string): string =>
  json.replace(
    /\{\n\s+"(side|op": "\w+",\n\s+"floats|name": "[^"]+",\n\s+"version)[^{}]*\}/g,
    (found) => found.replace(/\n\s+/g, " "),
  );

/**
 * What a call of a side takes, in microseconds. Of small tensors it is the best burst that counts, because other
 * programs can only make a burst slower. Of LARGE ones it is the median burst, because a single good one may
 * have found caches that other programs had just left.
 */
export function timeOf(m: Measured | undefined, side: string): number | undefined {
  const timing = m?.timings.find((known) => known.side === side);
  return timing && (m!.size < LARGE ? timing.time : timing.time * timing.noise);
}
