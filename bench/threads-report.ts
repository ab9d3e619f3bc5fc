// What the report says of several threads (threads.ts), and its picture.

import type { TopLevelSpec } from "vega-lite";
import { OPS, type Op } from "./cases.js";
import { geometricMean, number } from "./goals.js";
import { PLAIN, RESIDENT } from "./ours.js";
import { inChromium } from "./peers/index.js";
import { COMMON, SIZE_LABEL } from "./plots.js";
import { type ThreadsResult, timeOf } from "./record.js";
import { commitOf, goalTable, micro, noiseOf, OP_NAMES, table, versionsOf } from "./tables.js";
import {
  against,
  bandwidth,
  beyondCaches,
  gains,
  memoryLimits,
  several,
  threadGoals,
} from "./threads-goals.js";

/** The chapter of the report: one part for each number of threads. */
export function threadsSection(
  runs: readonly ThreadsResult[],
  picture: (file: string, text: string) => string,
): string[] {
  if (runs.length === 0) return [];
  return [
    "### Several threads",
    "This package on several threads, its tensors in memory that all of them share, against itself on one; and other " +
      "libraries on as many. onnxruntime-web has threads in Node. tfjs-wasm has them in browsers only, so it runs in a page " +
      "of headless Chromium, and this package beside it in the same page.",
    picture("threads.svg", "How many times as long one thread takes, against size"),
    ...runs.flatMap(partOf),
  ];
}

function partOf(result: ThreadsResult): string[] {
  const { count, cases } = result;
  const sides = [...new Set(cases.flatMap(({ timings }) => timings.map(({ side }) => side)))];
  const times = (op: Op): string => {
    const found = cases.filter((m) => m.op === op);
    const shown = sides.filter((side) => found.some((m) => timeOf(m, side) !== undefined));
    return table(
      ["", ...shown],
      found.map((m) => [`${m.name} ${m.layout}`, ...shown.map((side) => micro(timeOf(m, side)))]),
    );
  };
  return [
    aboutRun(result),
    goalTable("one thread or others against ours", threadGoals(result)),
    "Their time over ours: the mean over the shapes, then the least and the most.",
    peersTable(result),
    ...coresOf(result),
    ...OPS.flatMap((op) => [`**${OP_NAMES[op]}, on one thread and on ${count}**`, times(op)]),
  ];
}

/** Below this load average no other program ran all the time. */
const QUIET = 0.7;
const BUSY =
  "**Other programs were running, so these figures are not those of a quiet machine, and several threads gain more than " +
  "they show.** ";

function aboutRun(result: ThreadsResult): string {
  const { count, cases, date, load, machine } = result;
  const others = result.peers.filter(({ kind }) => kind !== "ours");
  const rates = [1, count].map((threads) => bandwidth(result, threads));
  const { least, median, most } = result.roundTrip;
  const [one, all] = rates.map((rate) => (rate === undefined ? "" : rate.toFixed(0)));
  const memory = one
    ? ` \`infer\` of the largest tensor, which no cache holds, moves ${one} GB/s on one thread and ${all} on ${count}: what the memory gives.`
    : "";
  return (
    `Run of ${date.slice(0, 16).replace("T", " ")} UTC, ${commitOf(result)}, on ${count} threads of ${machine.cores} cores, by ` +
    `\`npm run bench -- --threads ${count}\`. ${load < QUIET ? "" : BUSY}The load average before it was ${load.toFixed(1)}; the ` +
    `median burst took ${number(noiseOf(cases))} times as long as the best one. A word went from one thread to another and back in ` +
    `${least.toFixed(0)} to ${most.toFixed(0)} ns, mostly ${median.toFixed(0)}.${memory} Versions: ${versionsOf(others)}.`
  );
}

/** Which of ours a library is compared with: those that run where it runs. */
function beside(peer: string, count: number): string[] {
  if (peer === "tfjs-wasm") return [RESIDENT, PLAIN].map((way) => inChromium(way, count));
  if (peer === "onnxruntime-web") return [RESIDENT, PLAIN].map((way) => several(way, count));
  return [several(RESIDENT, count)];
}

function peersTable(result: ThreadsResult): string {
  const others = result.peers.filter(({ kind }) => kind !== "ours");
  const rows = others.flatMap(({ name }) =>
    beside(name, result.count).map((ours) => [
      name,
      ours,
      ...OPS.map((op) => {
        const ratios = against(result, op, name, ours).map(({ value }) => value);
        return ratios.length === 0
          ? ""
          : `${number(geometricMean(ratios))} (${number(Math.min(...ratios))} – ${number(Math.max(...ratios))})`;
      }),
    ]),
  );
  return table(["their time / ours", "ours", ...OPS], rows);
}

const CORES_OF = ["infer", "train"] as const;

function coresOf({ cores, cases, count }: ThreadsResult): string[] {
  if (cores.length === 0) return [];
  const sides = [...new Set(cores.map(({ side }) => side))];
  const cell = (side: string, op: Op): string => {
    const found = cores.find((each) => each.side === side && each.op === op);
    return found ? found.cores.toFixed(2) : "";
  };
  return [
    `How many cores each keeps busy on ${count} threads: processor time over time, ${cases.at(-1)!.name}. In onnxruntime-web and ` +
      "in tfjs-wasm batch norm is a loop on one thread, however many there are, unlike matrix products, for example. What they have " +
      "above 1 is mostly V8, which frees the memory of their results.",
    table(
      ["", ...CORES_OF],
      sides.map((side) => [side, ...CORES_OF.map((op) => cell(side, op))]),
    ),
  ];
}

// ---- picture ------------------------------------------------------------------------------------

/** The picture, by the name of its file; none where the record has no threads. */
export const threadsPlots = (
  runs: readonly ThreadsResult[] | undefined,
): [string, TopLevelSpec][] => (runs && runs.length > 0 ? [["threads.svg", speedUps(runs)]] : []);

/** Of each run: the line, the dots, and the bars of memory. */
const COLORS = [
  ["#0b3fb3", "#4f9bff", "#1f9e5a"],
  ["#d62742", "#e8702a", "#8a9a12"],
  ["#8e44ad", "#c39bd3", "#0e8074"],
  ["#222222", "#888888", "#a0522d"],
] as const;
const SERIES = [
  "rows of 64 channels (line)",
  "other shapes (dots)",
  "what the memory allows, if less than the threads could gain (bars)",
] as const;

const seriesName = (kind: number, count: number, runs: number): string =>
  runs === 1 ? SERIES[kind] : `${count} threads: ${SERIES[kind]}`;

/** The speed-up against size: a line for rows of 64 channels, dots for other shapes, bars for what the memory allows. */
function speedUps(runs: readonly ThreadsResult[]): TopLevelSpec {
  const named = (result: ThreadsResult): string[] =>
    SERIES.map((_, i) => seriesName(i, result.count, runs.length));
  const points = runs.flatMap((result) =>
    OPS.flatMap((op) => {
      const all = [
        gains(result, result.sizes, op, RESIDENT),
        gains(result, result.cases, op, RESIDENT),
        memoryLimits(result, op).filter(({ value }) => value < result.count),
      ];
      return all.flatMap((ratios, kind) =>
        ratios.map(({ size, value }) => ({ op, kind, name: named(result)[kind], size, value })),
      );
    }),
  );
  const caches = OPS.flatMap((op) => {
    const size = beyondCaches(runs[0], op);
    const shown = points.some((point) => point.op === op && point.size > (size ?? Infinity));
    return shown ? [{ op, kind: SERIES.length, size }] : [];
  });
  const most = Math.max(...runs.map(({ count }) => count), ...points.map(({ value }) => value));
  const x = {
    field: "size",
    type: "quantitative",
    scale: { type: "log", base: 2, nice: false, domain: [64, 2 ** 25] },
    axis: {
      title: "floats",
      values: [6, 10, 14, 18, 22].map((power) => 2 ** power),
      labelExpr: SIZE_LABEL,
      labelAngle: 0,
    },
  };
  const y = {
    field: "value",
    type: "quantitative",
    scale: { domain: [0, Math.ceil(4 * most + 0.4) / 4] },
    axis: { title: "time on one thread / on several" },
  };
  const color = {
    field: "name",
    type: "nominal",
    title: null,
    scale: {
      domain: runs.flatMap(named),
      range: runs.flatMap((_, i) => [...COLORS[i % COLORS.length]]),
    },
    legend: {
      orient: "bottom",
      columns: SERIES.length,
      symbolType: "circle",
      symbolStrokeWidth: 0,
      symbolSize: 90,
    },
  };
  const filled = { ...color, legend: null };
  const of = (kind: number) => [{ filter: `datum.kind === ${kind}` }];
  return {
    ...COMMON,
    title: {
      text: "What several threads gain",
      subtitle: [
        "tensors in memory that the threads share; above 1: several threads are faster; right of the grey line no cache holds the arrays",
        `of a call, and what the memory gives limits all threads together; ${runs[0].machine.cores} cores, ${runs[0].machine.cpu}`,
      ],
    },
    data: { values: [...points, ...caches] },
    facet: {
      column: {
        field: "op",
        type: "nominal",
        sort: [...OPS],
        title: null,
        header: { labelFontSize: 13 },
      },
    },
    spec: {
      width: 290,
      height: 250,
      layer: [
        ...[1, ...runs.map(({ count }) => count)].map((value) => ({
          mark: { type: "rule", color: "#999", strokeDash: [4, 3] },
          encoding: { y: { datum: value } },
        })),
        {
          transform: of(SERIES.length),
          mark: { type: "rule", color: "#bbb" },
          encoding: { x },
        },
        {
          transform: of(1),
          mark: { type: "circle", size: 55, opacity: 0.85 },
          encoding: { x, y, color },
        },
        {
          transform: of(0),
          mark: { type: "line", point: { size: 40 }, strokeWidth: 2.25 },
          encoding: { x, y, color: filled },
        },
        {
          transform: of(2),
          mark: { type: "tick", orient: "horizontal", thickness: 3, size: 16 },
          encoding: { x, y, color: filled },
        },
      ],
    },
  } as unknown as TopLevelSpec;
}
