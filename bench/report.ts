// The report, bench/results/report.md with its plots, and the tables of the terminal: all of it made
// from the records, none of it typed.

import { mkdirSync, writeFileSync } from "node:fs";
import { type Bar, bars, geometricMean, number, theirTime } from "./bars.js";
import { bytesOf, type Case, OPS, type Op, type PeerOp } from "./cases.js";
import { FRESH, FROZEN, PLAIN, RESIDENT } from "./ours.js";
import { COPIES } from "./peers/index.js";
import { Missing } from "./peers/peer.js";
import { plots } from "./plots.js";
import {
  allRecords,
  type Measured,
  RESULTS,
  type Recorded,
  type Result,
  timeOf,
} from "./record.js";

const OURS = [RESIDENT, PLAIN, FRESH, FROZEN];
const OP_NAMES: Readonly<Record<PeerOp, string>> = {
  infer: "infer",
  train: "train",
  backward: "backward",
  step: "train + backward",
};

/** Microseconds, three digits. */
const micro = (time: number | undefined): string =>
  time === undefined
    ? ""
    : time >= 1000
      ? Math.round(time).toLocaleString("en")
      : String(Number(time.toPrecision(3)));

const pass = (ok: Bar["pass"]): string =>
  ok === "copy" ? ok : ok === null ? "–" : ok ? "pass" : "FAIL";

/** Where a library has only forward and backward in one, ours is the sum of both. */
function stepOf(rows: readonly Measured[], side: string): number | undefined {
  const find = (op: PeerOp) => rows.find((row) => row.op === op);
  const own = timeOf(find("step"), side);
  const [train, backward] = [timeOf(find("train"), side), timeOf(find("backward"), side)];
  return own ?? (train && backward ? train + backward : undefined);
}

// ---- terminal -----------------------------------------------------------------------------------

export function caseTable(c: Case, rows: readonly Measured[]): string {
  const columns = (["infer", "train", "backward", "step"] as const).filter((op) =>
    rows.some((row) => row.op === op && (op !== "step" || row.timings.length > 0)),
  );
  const sides = [...new Set(rows.flatMap(({ timings }) => timings.map(({ side }) => side)))];
  const cell = (side: string, op: PeerOp): string => {
    const row = rows.find((known) => known.op === op);
    const time = op === "step" ? stepOf(rows, side) : timeOf(row, side);
    if (time === undefined) return "".padStart(26);
    const rate = `${(bytesOf(op, c.size) / time / 1e3).toFixed(1)} GB/s`;
    return `${micro(time).padStart(10)} µs ${rate.padStart(12)}`;
  };
  const head =
    `${c.name} ${c.layout}`.padEnd(20) + columns.map((op) => OP_NAMES[op].padStart(26)).join("");
  const lines = sides.map(
    (side) => `  ${side.padEnd(18)}${columns.map((op) => cell(side, op)).join("")}`,
  );
  return [head, ...lines, ""].join("\n");
}

export function barsTable(list: readonly Bar[]): string {
  const width = Math.max(...list.map(({ what }) => what.length));
  return list
    .map(
      ({ what, bar, measured, pass: ok }) =>
        `${pass(ok).padEnd(5)} ${what.padEnd(width)}  ${measured}${bar && `  (bar: ${bar})`}`,
    )
    .join("\n");
}

// ---- Markdown -----------------------------------------------------------------------------------

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");

function timesTable(result: Result, op: Op): string {
  const found = result.cases.filter((m) => m.op === op);
  const others = [...result.peers, ...COPIES].map(({ name }) => name);
  const sides = [...OURS, ...others].filter((side) =>
    found.some((m) => timeOf(m, side) !== undefined),
  );
  const rows = found.map((m) => [
    `${m.name} ${m.layout}`,
    ...sides.map((side) => micro(timeOf(m, side))),
  ]);
  return table(["", ...sides], rows);
}

function stepTable(result: Result): string {
  const names = [...new Set(result.cases.map((m) => `${m.name} ${m.layout}`))];
  const groups = names.map((name) => result.cases.filter((m) => `${m.name} ${m.layout}` === name));
  const sides = [RESIDENT, PLAIN, FRESH, ...result.peers.map(({ name }) => name)].filter((side) =>
    groups.some((rows) => stepOf(rows, side) !== undefined),
  );
  const rows = groups
    .filter((group) => stepOf(group, RESIDENT) !== undefined)
    .map((group) => [
      `${group[0].name} ${group[0].layout}`,
      ...sides.map((side) => micro(stepOf(group, side))),
    ]);
  return table(["", ...sides], rows);
}

/** Against which of ours a library is held: one that keeps its tensors against kernel memory. */
const comparable = (peer: string): readonly string[] => {
  if (peer.startsWith("js")) return [RESIDENT, PLAIN];
  return peer === "PyTorch" || peer === "oneDNN" ? [RESIDENT] : [PLAIN, FRESH];
};

function ratiosTable(result: Result): string {
  const cell = (peer: string, op: Op, ours: string): string => {
    const ratios = result.cases.flatMap((m) => {
      const [theirs, own] = [theirTime(result, m, peer), timeOf(m, ours)];
      return m.op === op && theirs && own ? [theirs / own] : [];
    });
    if (ratios.length === 0) return "";
    return `${number(geometricMean(ratios))} (${number(Math.min(...ratios))} – ${number(Math.max(...ratios))})`;
  };
  const rows = result.peers.flatMap(({ name }) =>
    comparable(name).map((ours) => [name, ours, ...OPS.map((op) => cell(name, op, ours))]),
  );
  return table(["their time / ours", "ours", ...OPS], rows);
}

function noiseOf({ cases }: Result): number {
  const noise = cases.flatMap(({ timings }) => timings.map((timing) => timing.noise));
  return noise.sort((a, b) => a - b)[noise.length >> 1];
}

function section({ result, growth }: Recorded, folder: string, drawn: readonly string[]): string {
  const about = result ?? growth;
  if (!about) return "";
  const picture = (file: string, text: string) =>
    drawn.includes(file) ? `![${text}](${folder}/${file})` : "";
  const { machine } = about;
  const caches = Object.entries(machine.caches).map(([level, size]) => `${level} ${size}`);
  const parts = [
    `## ${machine.cpu}`,
    `${machine.cores} cores, ${caches.join(", ")}, ${machine.memoryGiB} GiB; ${machine.platform}, Node ${machine.node} (V8 ${machine.v8}).`,
  ];
  if (result) {
    const { id, changed } = result.commit;
    const at = id ? `commit ${id.slice(0, 12)}${changed ? " with changes" : ""}` : "no commit yet";
    const versions = result.peers.map(({ name, version }) => `${name} ${version}`).join(", ");
    const skipped = result.skipped.map(({ name, reason }) => `${name} (${reason})`).join(", ");
    parts.push(
      `Run of ${result.date.slice(0, 16).replace("T", " ")} UTC, ${at}, one thread. ` +
        `The median burst took ${number(noiseOf(result))} times the best one (1: a quiet machine). ` +
        `Measured against: ${versions}.${skipped ? ` Skipped: ${skipped}.` : ""}`,
      picture("speedups.svg", "How many times longer others take, for each shape"),
      picture("bandwidth.svg", "Bytes a second of infer against size, with the limit of memcpy"),
      "### Bars",
      table(
        ["", "bar", "measured", ""],
        bars(result).map(({ what, bar, measured, pass: ok }) => [what, bar, measured, pass(ok)]),
      ),
      "### Ratios",
      "Geometric mean over the shapes (least – most); more than 1: we are faster. Our NCHW is held against oneDNN's NHWC, for which it has its fast kernels.",
      ratiosTable(result),
      "### Microseconds a call",
      ...OPS.flatMap((op) => [`**${OP_NAMES[op]}**`, timesTable(result, op)]),
      "**train + backward**: for libraries that do both in one; for the others the sum",
      stepTable(result),
      "### Against size",
      picture("infer.svg", "Time of infer against size"),
      picture("train.svg", "Time of train against size"),
    );
  }
  if (growth) {
    const rows = growth.points.map(({ op, floats, nanoseconds, extraBytes }) => [
      op,
      floats.toLocaleString("en"),
      nanoseconds.toPrecision(3),
      (extraBytes / 2 ** 20).toFixed(1),
    ]);
    parts.push(
      "### Growth",
      picture("growth.svg", "Time a value and memory beyond the arrays, up to 1 Gi floats"),
      table(["", "floats", "ns a value", "MiB beyond the arrays"], rows),
    );
  }
  return parts.filter(Boolean).join("\n\n");
}

const HEAD = `# Benchmark

Made by \`npm run bench\` from the JSON files beside it; not edited by hand.

A time is that of the best of several short bursts, each the median of its samples; the bursts of all libraries alternate. Of tensors of 1 MiB and more it is that of the median burst: a best one there has found a cache that the machine's other guests had left. In runs from 2026-11-28 on, bursts of these begin with up to 32 calls that are not timed, fewer where a call is long, while the caches fill; before, large tensors were timed while they still came in. Every answer was held against float64 before it was timed. *resident*: tensors in kernel memory. *plain*: ordinary arrays, the result into one that is given. *plain, fresh out*: the result in a fresh array. *plain, frozen*: as plain, by \`freeze().infer\`. *js*: a JavaScript loop written as well as JavaScript allows (four rows or values at a time); *js-straight*: the same as one writes it first. Libraries for JavaScript take a Float32Array and give one; PyTorch and oneDNN keep their tensors. *set*, *copies in and out*: as many values moved and nothing computed, the second through a buffer of WebAssembly memory as values that a kernel is to see have to go; *slice*: the same into a fresh array; a bar's row *copy* has their time over such a copy's. It is measured like all else and no strict bound: ours takes less than *slice* for some of the largest. "kernel memory" in the bars is *resident*, "ordinary arrays" *plain*. tfjs has channels last only, ONNX channels first only; oneDNN's rows are its NHWC.`;

/** Returns the files written. */
export async function writeReport(): Promise<string[]> {
  const files: string[] = [];
  const sections: string[] = [];
  for (const record of allRecords()) {
    const about = record.result ?? record.growth;
    if (!about) continue;
    const { kind } = about.machine;
    const growth = record.growth && {
      points: record.growth.points,
      cpu: record.growth.machine.cpu,
    };
    let drawn = new Map<string, string>();
    try {
      drawn = await plots(record.result, growth);
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
      console.log(`The report is not drawn: ${error.message}. To draw it: ${error.remedy}`);
      return files;
    }
    mkdirSync(`${RESULTS}${kind}`, { recursive: true });
    for (const [name, svg] of drawn) {
      writeFileSync(`${RESULTS}${kind}/${name}`, svg);
      files.push(`${RESULTS}${kind}/${name}`);
    }
    sections.push(section(record, kind, [...drawn.keys()]));
  }
  const file = `${RESULTS}report.md`;
  writeFileSync(file, `${[HEAD, ...sections].join("\n\n")}\n`);
  return [...files, file];
}
