// How many cores a library keeps busy: the processor time of its processes over the time that passes. From /proc, so on Linux
// only. Where other programs have the cores it comes out too small.

import { readdirSync, readFileSync } from "node:fs";
import type { Case, Data, PeerOp } from "./cases.js";
import { warm } from "./measure.js";
import type { Peer } from "./peers/peer.js";

/** For how long a library is watched, in milliseconds. The system counts processor time in steps of ten. */
const WATCH = 1000;
/** Steps a second in which Linux counts processor time for programs (USER_HZ in proc(5)). */
const HERTZ = 100;

/** What proc(5) says in /proc/PID/stat, from the third field on: the second one, the name, may have spaces. */
function statOf(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

/** Seconds that the threads of a process have spent on processors so far; 0 if it has ended. */
function spent(pid: number): number {
  const stat = statOf(pid);
  return stat ? (Number(stat[11]) + Number(stat[12])) / HERTZ : 0;
}

/** A process and all that it started, and so on. */
export function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    const parent = /^\d+$/.test(name) ? Number(statOf(Number(name))?.[1]) : Number.NaN;
    if (parent > 0) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found = [pid];
  for (const each of found) found.push(...(children.get(each) ?? []));
  return found;
}

/** How many cores one operation keeps busy. `undefined` where the system does not tell. */
export async function coresOf(
  peer: Peer,
  c: Case,
  op: PeerOp,
  data: Data,
): Promise<number | undefined> {
  if (process.platform !== "linux") return undefined;
  const session = await peer.open(c, op, data);
  try {
    const calls = Math.max(1, Math.ceil(20 / (await warm(session))));
    const pids = peer.processes?.() ?? [process.pid];
    const total = () => pids.reduce((sum, pid) => sum + spent(pid), 0);
    const [began, before] = [performance.now(), total()];
    while (performance.now() - began < WATCH) await session.sample(calls);
    return (1000 * (total() - before)) / (performance.now() - began);
  } finally {
    session.close?.();
  }
}
