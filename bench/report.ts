// The report, bench/results/report.md with its plots, the README's table of speed, and the tables of the
// terminal. All of it is made from the records, and none of it is written by hand.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { blockPlots, blockSection } from "./block-report.js";
import { bytesOf, type Case, OPS, type Op, type PeerOp } from "./cases.js";
import { copyRatios, type Goal, geometricMean, goals, number, theirTime } from "./goals.js";
import { FRESH, FROZEN, PLAIN, RESIDENT } from "./ours.js";
import { SET_PLAIN, SET_RESIDENT, SLICE, THROUGH } from "./peers/copy.js";
import { COPIES } from "./peers/index.js";
import { Missing } from "./peers/peer.js";
import { plots } from "./plots.js";
import { withSpeed } from "./readme.js";
import {
  allRecords,
  type Measured,
  RESULTS,
  type Recorded,
  type Result,
  timeOf,
} from "./record.js";
import {
  commitOf,
  goalTable,
  micro,
  noiseOf,
  OP_NAMES,
  table,
  verdict,
  versionsOf,
} from "./tables.js";
import { threadsPlots, threadsSection } from "./threads-report.js";

const OURS = [RESIDENT, PLAIN, FRESH, FROZEN];

/**
 * The time of `train` and `backward` together. Some libraries do both in one call and cannot be timed
 * otherwise; of all others it is the sum.
 */
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

export function goalsTable(list: readonly Goal[]): string {
  const width = Math.max(...list.map(({ what }) => what.length));
  return list
    .map(
      ({ what, goal, measured, met }) =>
        `${verdict(met).padEnd(6)} ${what.padEnd(width)}  ${measured}  (goal: ${goal})`,
    )
    .join("\n");
}

// ---- Markdown -----------------------------------------------------------------------------------

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

/** Which of our ways a library is compared with: kernel memory, if it keeps its tensors. */
const comparable = (peer: string): readonly string[] => {
  if (peer.startsWith("js")) return [RESIDENT, PLAIN];
  return peer === "PyTorch" || peer === "oneDNN" ? [RESIDENT] : [PLAIN, FRESH];
};

function ratiosTable(result: Result): string {
  const cell = (peer: string, op: Op, ours: string): string => {
    const ratios = result.cases.flatMap((m) => {
      const [theirs, own] = [theirTime(result.cases, m, peer), timeOf(m, ours)];
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

function section(
  { result, growth, block, threads = [] }: Recorded,
  folder: string,
  drawn: readonly string[],
): string {
  const about = result ?? growth ?? block ?? threads[0] ?? null;
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
    parts.push(
      ...aboutRun(result),
      picture("speedups.svg", "How many times longer others take, for each shape"),
      picture("bandwidth.svg", "Bytes a second of infer against size, with the limit of memcpy"),
      ...goalsOf(result),
      "### Ratios",
      "Their time over ours: the mean over the shapes, then the least and the most.",
      ratiosTable(result),
      "### Microseconds a call",
      ...OPS.flatMap((op) => [`**${OP_NAMES[op]}**`, timesTable(result, op)]),
      "**train + backward**, in one call where a library does both in one, else the sum of the two:",
      stepTable(result),
      "### Time against size",
      picture("infer.svg", "Time of infer against size"),
      picture("train.svg", "Time of train against size"),
    );
  }
  if (block) parts.push(...blockSection(block, picture));
  parts.push(...threadsSection(threads, picture));
  if (growth) parts.push(...growthOf(growth, picture));
  return parts.filter(Boolean).join("\n\n");
}

/** From this day on runs fill the caches before a burst with large tensors (SETTLE in measure.ts). */
const SETTLED = "2026-11-28";

function aboutRun(result: Result): string[] {
  const skipped = result.skipped.map(({ name, reason }) => `${name} (${reason})`).join(", ");
  return [
    `Run of ${result.date.slice(0, 16).replace("T", " ")} UTC, ${commitOf(result)}. ` +
      `Noise: the median burst took ${number(noiseOf(result.cases))} times as long as the best one.`,
    `Versions: ${versionsOf(result.peers)}.${skipped ? ` Not measured: ${skipped}.` : ""}`,
    result.date < SETTLED
      ? "In this run the caches were not filled before a burst with large tensors, as they are in later runs. The " +
        "times of tensors of 1 MiB and more, ours and others', are longer for it."
      : "",
  ];
}

function goalsOf(result: Result): string[] {
  const copies = copyRatios(result);
  return [
    "### Goals",
    goalTable("ours against theirs", goals(result)),
    ...(copies.length > 0
      ? [
          "What the same ratios would be if ours did nothing but copy the values. Where ours is near it, " +
            "memory sets the limit and not arithmetic:",
          table(
            ["copy against theirs", "measured"],
            copies.map(({ what, measured }) => [what, measured]),
          ),
        ]
      : []),
  ];
}

function growthOf(
  { points }: NonNullable<Recorded["growth"]>,
  picture: (file: string, text: string) => string,
): string[] {
  const rows = points.map(({ op, floats, nanoseconds, extraBytes }) => [
    op,
    floats.toLocaleString("en"),
    nanoseconds.toPrecision(3),
    (extraBytes / 2 ** 20).toFixed(1),
  ]);
  return [
    "### Growth",
    "In place on ordinary arrays. *Extra* is memory that the process needs at the peak of a call beside the " +
      "arrays it works on.",
    picture("growth.svg", "Time a value and extra memory, up to 1 Gi floats"),
    table(["", "floats", "ns a value", "MiB extra"], rows),
  ];
}

const LEGEND = `# Benchmark

Made by \`npm run bench\` from the JSON files beside it, never edited by hand. There is one chapter for each
machine. All runs are on one thread, except those of the part *Several threads*.

## How to read it

Every library first has to give the right answer: it is compared with float64 before it is timed.

| term | meaning |
| --- | --- |
| time | what one call takes, in microseconds. All libraries take turns in short bursts of calls. Below 1 MiB the time is that of the best burst, because other programs can only make a burst slower. For tensors of 1 MiB and more it is that of the median burst: a single good one may have found caches that other programs had left |
| ratio | their time over ours. More than 1: this package is faster |
| mean | the geometric mean of the ratios of several shapes |
| shape | always written N, C, H, W |
| NC, NCHW, NHWC | the order of a tensor in memory: rows of channels; images with the channels first; images with the channels last |
| infer, train, backward | test time; training, forward; its gradients |
| goal | what the project has set itself, met or missed |

This package, called in four ways:

| name | meaning |
| --- | --- |
| ${RESIDENT} | x and the result lie in kernel memory (\`kernels.alloc\`). Nothing is copied |
| ${PLAIN} | x is an ordinary Float32Array, and so is the array that is given for the result (\`out\`) |
| ${FRESH} | the same, but each call makes a new array for its result |
| ${FROZEN} | as ${PLAIN}, by a layer's \`freeze().infer\` |

The others:

| name | meaning |
| --- | --- |
| js | a JavaScript loop, written to be as fast as JavaScript allows: four rows or values at a time |
| js-straight | the same loop as one writes it first |
| tfjs-cpu, tfjs-wasm | TensorFlow.js on two of its backends. Channels last only. Takes a Float32Array and returns a new one |
| jax-js | jax-js on its wasm backend. Takes a Float32Array and returns a new one |
| onnxruntime-web, onnxruntime-node | ONNX Runtime in WebAssembly, and native. Channels first only, no gradients. Takes a Float32Array and returns a new one |
| PyTorch, oneDNN | native code. They keep their tensors in memory of their own, so ours are compared as ${RESIDENT}. oneDNN's fast kernels are those for NHWC: it has NC as NHWC too, and our NCHW is compared with its NHWC |

Copies, which move as many values as \`infer\` reads and writes, and compute nothing:

| name | meaning |
| --- | --- |
| ${SET_PLAIN} | \`Float32Array.set\` between ordinary arrays |
| ${SET_RESIDENT} | \`Float32Array.set\` within one WebAssembly memory |
| ${THROUGH} | from an ordinary array into WebAssembly memory and out to another, as ${PLAIN} has to copy |
| ${SLICE} | \`slice\`: into a new array |`;

/** Draws the plots, writes the report and the README's table, and returns the names of the files. */
export async function writeReport(): Promise<string[]> {
  const files: string[] = [];
  const sections: string[] = [];
  for (const record of allRecords()) {
    const about = record.result ?? record.growth ?? record.block ?? record.threads?.[0];
    if (!about) continue;
    const { kind } = about.machine;
    const growth = record.growth && {
      points: record.growth.points,
      cpu: record.growth.machine.cpu,
    };
    let drawn = new Map<string, string>();
    try {
      const more = [...blockPlots(record.block), ...threadsPlots(record.threads)];
      drawn = await plots(record.result, growth, more);
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
  const readme = fileURLToPath(new URL("../README.md", import.meta.url));
  writeFileSync(readme, withSpeed(readFileSync(readme, "utf8")));
  const file = `${RESULTS}report.md`;
  writeFileSync(file, `${[LEGEND, ...sections].join("\n\n")}\n`);
  return [...files, file, readme];
}
