// `npm run bench`: reads the command line, measures what it asks for, and keeps the record. HELP has the options.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compare, NoBuild } from "./against.js";
import { blocks } from "./block.js";
import { blockGoals } from "./block-goals.js";
import { CASES, type Case, makeData, OPS, type Op, opsOf, type PeerOp, SIZES } from "./cases.js";
import { cycle } from "./cycle.js";
import { goals } from "./goals.js";
import { extraMemory, growth } from "./growth.js";
import { commit, machine } from "./machine.js";
import { type Effort, measure } from "./measure.js";
import { ours } from "./ours.js";
import { COPIES, JS, loadPeers, OURS, QUICK_SIDES, SIDES, type Skipped } from "./peers/index.js";
import { kept, type Peer } from "./peers/peer.js";
import {
  type Measured,
  type Result,
  type Run,
  readRecord,
  withThreads,
  writeRecord,
} from "./record.js";
import { expectedFor, regressions } from "./regression.js";
import { caseTable, goalsTable, writeReport } from "./report.js";
import { type Conditions, threads } from "./threads.js";
import { threadGoals } from "./threads-goals.js";

const HELP = `npm run bench                      everything, a quarter of an hour; keeps the record
npm run bench -- --peers           first installs the libraries to measure against (800 MB)
npm run bench -- --quick           ours and the JavaScript loop only, a minute or two; keeps nothing
npm run bench -- --check           as --quick, and fails where a ratio is worse than the record's
npm run bench -- --block           batch norm with a ReLU, or a residual and a ReLU, in one call: against
                                   batch norm alone, separate steps and other libraries; a few
                                   minutes; adds to the record
npm run bench -- --huge            arrays up to 1 Gi floats (8 GiB of memory); adds to the record
npm run bench -- --against DIST    this build against the one in the folder DIST, a few minutes;
                                   with --within 0.05 fails where a ratio is not 0.95 to 1.05
npm run bench -- --threads 2       this build on 2 threads against itself on one, and against other
                                   libraries on 2, then against itself while other processes keep the
                                   other core busy; some minutes; adds to the record. With --busy all of
                                   it under that load; with --copies against the copies of ordinary
                                   arrays alone; these two keep nothing
npm run bench -- --cycle           observations [8, 17] normalized as they come, against a loop
npm run bench -- --report          draws the report anew from the records
  --shape 256,256    only this shape          --op infer|train|backward   only this operation
  --side js,oneDNN   only these, and ours     with any of the three, nothing is kept
                     (with --against: ${Object.values(ours)
                       .map(({ name }) => `"${name}"`)
                       .join(", ")})`;

const FULL: Effort = { rounds: 16, burst: 10 };
const CURVES: Effort = { rounds: 10, burst: 7 };
const QUICK: Effort = { rounds: 12, burst: 6 };

const root = fileURLToPath(new URL("..", import.meta.url));
const started = performance.now();

/** A mistake in the command line. Its message is printed without a stack trace. */
class Usage extends Error {}

interface Choice {
  readonly shape: (c: Case) => boolean;
  readonly op: (op: PeerOp) => boolean;
  readonly side: (name: string) => boolean;
  readonly all: boolean;
}

const given = () =>
  parseArgs({
    options: {
      quick: { type: "boolean" },
      check: { type: "boolean" },
      huge: { type: "boolean" },
      block: { type: "boolean" },
      against: { type: "string" },
      within: { type: "string" },
      threads: { type: "string" },
      busy: { type: "boolean" },
      copies: { type: "boolean" },
      peers: { type: "boolean" },
      report: { type: "boolean" },
      cycle: { type: "boolean" },
      help: { type: "boolean" },
      shape: { type: "string" },
      op: { type: "string" },
      side: { type: "string" },
    },
  }).values;

async function main(): Promise<void> {
  const values = given();
  if (values.help) return console.log(HELP);
  await work(values);
  console.log(`${minutes(performance.now() - started)} minutes, checksum ${kept().toPrecision(6)}`);
}

async function work(values: ReturnType<typeof given>): Promise<void> {
  if (values.peers) installPeers();
  if (values.report) return report();
  if (values.huge) return huge();
  if (values.cycle) return cycle();
  if (values.against !== undefined) return against(values.against, values);
  const choice = chosen(values);
  if (values.threads !== undefined) return onThreads(values.threads, choice, values);
  if (values.block) return block(choice);
  if (values.check) return checkAgainstRecord(choice);
  if (values.quick) {
    await measureCases(CASES.filter(choice.shape), QUICK_SIDES, choice, QUICK);
    return;
  }
  return full(choice);
}

async function full(choice: Choice): Promise<void> {
  const { peers, skipped } = await loadPeers(choice.side);
  saySkipped(skipped);
  const sides = [...OURS, ...(choice.side(JS.name) ? [JS] : []), ...peers];
  try {
    const all = [...sides, ...COPIES.filter(({ name }) => choice.side(name))];
    const cases = await measureCases(CASES.filter(choice.shape), all, choice, FULL);
    if (!choice.all) return;

    const curves: Op[] = ["infer", "train"];
    const only = { ...choice, op: (op: PeerOp) => curves.includes(op as Op) };
    const sizes = await measureCases(SIZES, all, only, CURVES);
    const memory = await extraMemory(status);
    const result: Result = {
      ...run(),
      effort: FULL,
      peers: [JS, ...peers].map(({ name, version, kind }) => ({ name, version, kind })),
      skipped,
      cases,
      sizes,
      memory,
    };
    status("");
    console.log(goalsTable(goals(result)));
    await keepResult(result);
  } finally {
    for (const peer of peers) peer.close?.();
  }
}

/** Keeps a record, unless the one before has libraries that this run did not measure. */
async function keepResult(result: Result): Promise<void> {
  const { kind } = result.machine;
  const before = readRecord(kind);
  const lost = (before.result?.peers ?? []).filter(
    ({ name }) => !result.peers.some((peer) => peer.name === name),
  );
  if (lost.length > 0) {
    console.log(
      `Not kept: the record of ${kind} has ${lost.map(({ name }) => name).join(", ")} too.`,
    );
    return;
  }
  console.log(`Kept: ${relative(writeRecord(kind, { ...before, result }))}`);
  await report();
}

async function huge(): Promise<void> {
  const points = await growth(status);
  status("");
  const { kind } = machine();
  const kept = writeRecord(kind, { ...readRecord(kind), growth: { ...run(), points } });
  for (const { op, floats, nanoseconds, extraBytes } of points) {
    const memory = `${(extraBytes / 2 ** 20).toFixed(1)} MiB extra`;
    console.log(
      `${op.padEnd(9)} ${floats.toLocaleString("en").padStart(13)} floats  ` +
        `${nanoseconds.toFixed(3).padStart(8)} ns a value  ${memory.padStart(14)}`,
    );
  }
  console.log(`Kept: ${relative(kept)}`);
  await report();
}

async function block({ shape, op, side, all }: Choice): Promise<void> {
  const found = { ...run(), ...(await blocks(shape, op, side, status)) };
  saySkipped(found.skipped);
  console.log(goalsTable(blockGoals(found)));
  if (!all || found.skipped.length > 0) return;
  const { kind } = found.machine;
  console.log(`Kept: ${relative(writeRecord(kind, { ...readRecord(kind), block: found }))}`);
  await report();
}

async function report(): Promise<void> {
  for (const file of await writeReport()) console.log(`Drawn: ${relative(file)}`);
}

async function checkAgainstRecord(choice: Choice): Promise<void> {
  const expected = expectedFor(machine().kind);
  if (!expected) throw new Usage("no record in bench/results to check against: npm run bench");
  const measured = await measureCases(CASES.filter(choice.shape), QUICK_SIDES, choice, QUICK);
  const share = cpuShare();
  const failures = await regressions(expected, measured, QUICK, status);
  status("");
  if (failures.length > 0) {
    for (const failure of failures) console.error(`slower: ${failure}`);
    console.error(`(This process had ${share} % of a core; less than 90: others were running.)`);
    process.exitCode = 1;
  } else {
    console.log(`As fast as the record (${expected.from}): ${measured.length} cases.`);
  }
}

interface Flags {
  readonly shape?: string;
  readonly op?: string;
  readonly side?: string;
  readonly within?: string;
}

async function against(folder: string, flags: Flags): Promise<void> {
  const within = Number(flags.within ?? 0.05);
  if (!(within > 0 && within < 1)) {
    throw new Usage(`--within: how far from 1 a ratio may be, 0.05 say, not ${flags.within}`);
  }
  const names = Object.values(ours).map(({ name }) => name);
  const sides = flags.side?.split(/,(?! )/) ?? null;
  const unknown = sides?.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new Usage(
      `--side: with --against one or more of "${names.join('", "')}", not ${unknown}`,
    );
  }
  const { side: _, ...rest } = flags;
  const { shape, op } = chosen(rest);
  const outside = await compare(folder, { shape, op, sides, within }, status);
  if (outside.length === 0) {
    console.log(`\nAll ratios between ${1 - within} and ${1 + within}.`);
    return;
  }
  console.error(`\nNot between ${1 - within} and ${1 + within}, however often measured:`);
  for (const line of outside) console.error(line);
  if (flags.within !== undefined) process.exitCode = 1;
}

async function onThreads(given: string, choice: Choice, conditions: Conditions): Promise<void> {
  const count = Number(given);
  if (!(Number.isInteger(count) && count >= 2 && count <= 64)) {
    throw new Usage(`--threads: how many, from 2 to 64, not ${given}`);
  }
  const found = { ...run(), ...(await threads(count, choice, conditions, status)) };
  saySkipped(found.skipped);
  console.log(`\n${goalsTable(threadGoals(found))}`);
  const partial = !choice.all || conditions.busy || conditions.copies;
  if (partial || found.skipped.length > 0) return;
  const { kind } = found.machine;
  console.log(`Kept: ${relative(writeRecord(kind, withThreads(readRecord(kind), found)))}`);
  await report();
}

/** Measures every operation of every case that was chosen. Prints a table for each case. */
async function measureCases(
  cases: readonly Case[],
  sides: readonly Peer[],
  choice: Choice,
  effort: Effort,
): Promise<Measured[]> {
  const measured: Measured[] = [];
  const plan = cases.map((c) => {
    const ops: readonly PeerOp[] = [...opsOf(c), ...(opsOf(c).length > 1 ? ["step" as const] : [])];
    return { c, ops: ops.filter(choice.op) };
  });
  const total = plan.reduce((sum, { ops }) => sum + ops.length, 0);
  const begun = performance.now();
  let done = 0;
  for (const { c, ops } of plan) {
    const data = makeData(c);
    const rows: Measured[] = [];
    for (const op of ops) {
      const left = done > 0 ? ((performance.now() - begun) / done) * (total - done) : Number.NaN;
      status(`${done + 1}/${total} ${c.name} ${c.layout} ${op}, ${minutes(left)} left`);
      const taking = sides.filter(
        (side) =>
          side.ops.includes(op) &&
          side.layouts.includes(c.layout) &&
          !(c.size > (side.most?.[op] ?? Number.POSITIVE_INFINITY)),
      );
      const timings = taking.length > 0 ? await measure(c, op, data, taking, effort) : [];
      rows.push({ name: c.name, layout: c.layout, size: c.size, op, timings });
      done++;
    }
    measured.push(...rows.filter(({ timings }) => timings.length > 0));
    status("");
    console.log(caseTable(c, rows));
  }
  return measured;
}

function chosen(values: Flags): Choice {
  const wanted = values.shape?.replace(/[[\]\s]/g, "");
  const names = values.side?.split(",");
  if (wanted && !CASES.some(({ name }) => name === `[${wanted}]`)) {
    throw new Usage(
      `--shape: one of ${[...new Set(CASES.map(({ name }) => name))].join(" ")}, not ${wanted}`,
    );
  }
  const unknown = names?.find((name) => !SIDES.includes(name));
  if (unknown !== undefined) {
    throw new Usage(`--side: one or more of ${SIDES.join(",")}, not ${unknown}`);
  }
  if (values.op && !OPS.some((op) => op === values.op)) {
    throw new Usage(`--op: one of ${OPS.join(", ")}, not ${values.op}`);
  }
  return {
    shape: ({ name }) => !wanted || name === `[${wanted}]`,
    op: (op) => !values.op || op === values.op,
    side: (name) => !names || names.includes(name),
    all: !wanted && !values.op && !names,
  };
}

const run = (): Run => ({ date: new Date().toISOString(), commit: commit(), machine: machine() });

function installPeers(): void {
  const done = spawnSync("npm", ["ci", "--ignore-scripts", "--prefix", "bench"], {
    cwd: root,
    stdio: "inherit",
  });
  if (done.status !== 0) throw new Error("npm ci --prefix bench failed");
}

function saySkipped(skipped: readonly Skipped[]): void {
  const remedies = new Map<string, string[]>();
  for (const { name, reason, remedy } of skipped) {
    remedies.set(remedy, [...(remedies.get(remedy) ?? []), name]);
    console.log(`Skipped: ${name} (${reason})`);
  }
  for (const [remedy, names] of remedies) console.log(`To measure ${names.join(", ")}: ${remedy}`);
}

const cpuShare = (): number => {
  const { user, system } = process.cpuUsage();
  return Math.round((user + system) / 10 / performance.now());
};

const minutes = (milliseconds: number): string =>
  Number.isNaN(milliseconds)
    ? "a while"
    : `${Math.floor(milliseconds / 60000)}:${String(Math.floor((milliseconds / 1000) % 60)).padStart(2, "0")}`;

const relative = (file: string): string => (file.startsWith(root) ? file.slice(root.length) : file);

/** Shows progress in one line of the terminal that is written over. Without a terminal only whole lines are shown. */
function status(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  else if (text.endsWith("\n")) process.stderr.write(text);
}

try {
  await main();
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  if (!(error instanceof Usage || error instanceof NoBuild) && !code?.startsWith("ERR_PARSE_ARGS"))
    throw error;
  console.error(`bench: ${message}`);
  process.exitCode = 1;
}
