// Draws the plots of the report, as SVG, with Vega-Lite.

import type { TopLevelSpec } from "vega-lite";
import { bytesOf } from "./cases.js";
import { theirTime } from "./goals.js";
import { FRESH, PLAIN, RESIDENT } from "./ours.js";
import { SET_PLAIN } from "./peers/copy.js";
import { peerModule } from "./peers/peer.js";
import { type Growth, type Measured, type Result, timeOf } from "./record.js";

interface Look {
  readonly side: string;
  readonly label: string;
  readonly color: string;
  readonly dash?: readonly number[];
  readonly width?: number;
}

/** This package is blue. Lines of JavaScript libraries are solid, of native ones dashed, that of a copy dotted. */
const LOOKS: readonly Look[] = [
  { side: RESIDENT, label: "batchnorm-wasm, kernel memory", color: "#0b3fb3", width: 3 },
  { side: PLAIN, label: "batchnorm-wasm, ordinary arrays", color: "#4f9bff", width: 3 },
  { side: "js", label: "JavaScript loop", color: "#d19900", width: 2.5 },
  { side: "jax-js", label: "jax-js (wasm)", color: "#1f9e5a" },
  { side: "tfjs-wasm", label: "tfjs-wasm", color: "#e8702a" },
  { side: "tfjs-cpu", label: "tfjs-cpu", color: "#a0522d" },
  { side: "onnxruntime-web", label: "onnxruntime-web", color: "#8e44ad" },
  { side: "onnxruntime-node", label: "onnxruntime-node (native)", color: "#8e44ad", dash: [6, 3] },
  { side: "PyTorch", label: "PyTorch (native)", color: "#d62742", dash: [6, 3] },
  { side: "oneDNN", label: "oneDNN AVX-512 (native)", color: "#222222", dash: [6, 3] },
  {
    side: SET_PLAIN,
    label: "memcpy (Float32Array.set)",
    color: "#777777",
    dash: [1, 3],
    width: 2.5,
  },
];

const FONT = "Helvetica, Arial, sans-serif";
export const COMMON = {
  $schema: "https://vega.github.io/schema/vega-lite/v6.json",
  background: "white",
  padding: 12,
  config: {
    font: FONT,
    axis: { labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", gridColor: "#e8e8e8" },
    legend: { labelFontSize: 12, labelLimit: 0, symbolStrokeWidth: 2.5, symbolSize: 220 },
    title: {
      fontSize: 16,
      anchor: "start",
      subtitleFontSize: 12,
      subtitleColor: "#555",
      offset: 12,
    },
    view: { stroke: null },
  },
} as const;

/** Writes sizes as programmers do: 64, 1 Ki, 16 Ki, 1 Mi. */
export const SIZE_LABEL =
  "datum.value >= 1073741824 ? datum.value / 1073741824 + ' Gi'" +
  " : datum.value >= 1048576 ? datum.value / 1048576 + ' Mi'" +
  " : datum.value >= 1024 ? datum.value / 1024 + ' Ki' : datum.value";

const LOG_AXIS = {
  values: [0.01, 0.1, 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7],
  labelExpr: "format(datum.value, ',~r')",
};

const sizeAxis = (sizes: readonly number[]) => ({
  field: "size",
  type: "quantitative" as const,
  scale: { type: "log" as const, base: 2, nice: false },
  axis: { title: "floats", values: [...new Set(sizes)], labelExpr: SIZE_LABEL, labelAngle: 0 },
});

interface Point {
  readonly size: number;
  readonly side: string;
  readonly value: number;
}

function curves(
  title: string,
  subtitle: string,
  axis: string,
  points: readonly Point[],
): TopLevelSpec {
  const looks = LOOKS.filter(({ side }) => points.some((point) => point.side === side));
  const range = (of: (look: Look) => unknown) => looks.map(of) as never;
  const domain = looks.map(({ label }) => label);
  const named = points.map(({ size, side, value }) => ({
    size,
    value,
    side: looks.find((look) => look.side === side)?.label,
  }));
  return {
    ...COMMON,
    width: 620,
    height: 380,
    title: { text: title, subtitle },
    data: { values: named.filter(({ side }) => side) },
    encoding: {
      x: sizeAxis(points.map(({ size }) => size)),
      y: {
        field: "value",
        type: "quantitative",
        scale: { type: "log", nice: false },
        axis: { title: axis, ...LOG_AXIS },
      },
      color: {
        field: "side",
        type: "nominal",
        sort: null,
        title: null,
        scale: { domain, range: range((l) => l.color) },
      },
      strokeDash: {
        field: "side",
        type: "nominal",
        sort: null,
        title: null,
        scale: { domain, range: range((l) => l.dash ?? [1, 0]) },
      },
      strokeWidth: {
        field: "side",
        type: "nominal",
        sort: null,
        title: null,
        scale: { domain, range: range((l) => l.width ?? 1.75) },
      },
    },
    mark: { type: "line", strokeJoin: "round" },
  } as TopLevelSpec;
}

const pointsOf = (
  sizes: readonly Measured[],
  op: string,
  value: (time: number, size: number) => number,
): Point[] =>
  sizes
    .filter((m) => m.op === op)
    .flatMap((m) =>
      m.timings.map(({ side, time }) => ({ size: m.size, side, value: value(time, m.size) })),
    );

const ROWS = "rows of 64 channels, float32, one thread";

function timeCurves(result: Result, op: "infer" | "train"): TopLevelSpec {
  const points = pointsOf(result.sizes, op, (time) => time);
  const title = op === "infer" ? "Test time (infer)" : "Training, forward (train)";
  return curves(
    `${title}: time of a call`,
    `${ROWS}; ${result.machine.cpu}`,
    "microseconds",
    points.filter(({ side }) => !side.startsWith("set")),
  );
}

/** Shows only some of the libraries: the curves of all the slow ones would lie on top of each other. */
function bandwidth(result: Result): TopLevelSpec {
  const shown = [RESIDENT, PLAIN, "js", "jax-js", "PyTorch", "oneDNN", "tfjs-wasm", SET_PLAIN];
  const points = pointsOf(
    result.sizes,
    "infer",
    (time, size) => bytesOf("infer", size) / time / 1e3,
  );
  return curves(
    "Test time (infer): bytes read and written a second",
    `${ROWS}; the limit is a copy of as many floats; ${result.machine.cpu}`,
    "GB/s",
    points.filter(({ side }) => shown.includes(side)),
  );
}

/** Which of our ways a library is compared with: the one that treats its arrays as the library does. */
const BASIS: Readonly<Record<string, readonly [side: string, label: string]>> = {
  js: [PLAIN, "against ordinary arrays"],
  PyTorch: [RESIDENT, "against kernel memory"],
  oneDNN: [RESIDENT, "against kernel memory"],
};
const FRESH_BASIS = [FRESH, "against ordinary arrays, a fresh result"] as const;

/** A bar at the geometric mean of the dots of a row: `groupby` are the fields by which rows and panels are told apart. */
export const geometricMeanTick = (
  field: string,
  y: object,
  groupby: readonly string[],
  size: number,
) => ({
  transform: [
    { calculate: `log(datum.${field})`, as: "log" },
    { aggregate: [{ op: "mean", field: "log", as: "mean" }], groupby },
    { calculate: "exp(datum.mean)", as: "geometric" },
  ],
  mark: { type: "tick", thickness: 3, size, color: "#222" },
  encoding: { x: { field: "geometric", type: "quantitative" }, y },
});

/** How many times longer each library takes: a dot for each shape, and a bar at the geometric mean. */
function speedups(result: Result): TopLevelSpec {
  const looks = LOOKS.filter(({ side }) => result.peers.some(({ name }) => name === side));
  const dots = result.cases
    .filter((m) => m.op === "infer" || m.op === "train")
    .flatMap((m) =>
      looks.flatMap(({ side, label }) => {
        const [own, basis] = BASIS[side] ?? FRESH_BASIS;
        const [theirs, ours] = [theirTime(result.cases, m, side), timeOf(m, own)];
        if (!theirs || !ours) return [];
        return [{ peer: label, op: m.op, ratio: theirs / ours, basis }];
      }),
    );
  const color = {
    field: "basis",
    type: "nominal",
    title: null,
    scale: {
      domain: [BASIS.js[1], FRESH_BASIS[1], BASIS.oneDNN[1]],
      range: ["#4f9bff", "#7a8bd8", "#0b3fb3"],
    },
    legend: { orient: "bottom" },
  };
  const y = {
    field: "peer",
    type: "nominal",
    sort: looks.map(({ label }) => label),
    title: null,
    axis: { labelLimit: 0, grid: true },
  };
  return {
    ...COMMON,
    title: {
      text: "How many times longer others take",
      subtitle: `each dot a shape, the bar their geometric mean; right of 1: we are faster; ${result.machine.cpu}`,
    },
    data: { values: dots },
    facet: { column: { field: "op", type: "nominal", title: null, header: { labelFontSize: 13 } } },
    spec: {
      width: 330,
      height: 240,
      layer: [
        {
          mark: { type: "rule", color: "#999", strokeDash: [4, 3] },
          encoding: { x: { datum: 1 } },
        },
        {
          mark: { type: "circle", size: 60, opacity: 0.75 },
          encoding: {
            x: {
              field: "ratio",
              type: "quantitative",
              scale: { type: "log" },
              axis: { title: "their time / ours", ...LOG_AXIS },
            },
            y,
            color,
          },
        },
        geometricMeanTick("ratio", y, ["peer", "op"], 22),
      ],
    },
  } as unknown as TopLevelSpec;
}

function growthCurves(points: readonly Growth[], cpu: string): TopLevelSpec {
  const values = points.map(({ op, floats, nanoseconds, extraBytes }) => ({
    op,
    size: floats,
    nanoseconds,
    mebibytes: extraBytes / 2 ** 20,
  }));
  const x = sizeAxis(points.map(({ floats }) => floats));
  const color = {
    field: "op",
    type: "nominal",
    title: null,
    sort: null,
    scale: { range: ["#0b3fb3", "#e8702a", "#1f9e5a"] },
  };
  const panel = (field: string, title: string, top: number | null) => ({
    width: 620,
    height: 200,
    mark: { type: "line", point: { size: 40 }, strokeWidth: 2.25 },
    encoding: {
      x,
      y: {
        field,
        type: "quantitative",
        axis: { title, ...(top === null && { ...LOG_AXIS, values: [0.2, 0.5, 1, 2, 5, 10] }) },
        scale: top === null ? { type: "log", nice: false } : { domain: [0, top] },
      },
      color,
    },
  });
  return {
    ...COMMON,
    title: {
      text: "Growth, ordinary arrays up to 4 GiB, in place",
      subtitle: `rows of 64 channels; each point a process of its own; ${cpu}`,
    },
    data: { values },
    vconcat: [
      panel("nanoseconds", "nanoseconds a value", null),
      panel("mebibytes", "MiB beyond the arrays", 8),
    ],
  } as unknown as TopLevelSpec;
}

/** What vega exports of vega-scenegraph, though its types do not say so. */
interface TextMetrics {
  width(item: { readonly fontSize?: number }, text: unknown): number;
}

/** The plots as SVG, by the names of their files. */
export async function plots(
  result: Result | null,
  growth: { points: readonly Growth[]; cpu: string } | null,
  more: readonly (readonly [name: string, spec: TopLevelSpec])[] = [],
): Promise<Map<string, string>> {
  const specs: (readonly [string, TopLevelSpec])[] = [...more];
  if (result) {
    specs.push(["speedups.svg", speedups(result)], ["bandwidth.svg", bandwidth(result)]);
    specs.push(
      ["infer.svg", timeCurves(result, "infer")],
      ["train.svg", timeCurves(result, "train")],
    );
  }
  if (growth) specs.push(["growth.svg", growthCurves(growth.points, growth.cpu)]);
  const vega = await peerModule(() => import("vega"));
  const { compile } = await peerModule(() => import("vega-lite"));
  // Without a canvas Vega takes a character to be 0.8 of its height wide. In Helvetica it is 0.53 on average.
  const { textMetrics } = vega as unknown as { textMetrics: TextMetrics };
  textMetrics.width = ({ fontSize = 11 }, text) => 0.53 * fontSize * String(text).length;
  const drawn = new Map<string, string>();
  for (const [name, spec] of specs) {
    const view = new vega.View(
      vega.parse(compile(spec, { logger: vega.logger(vega.Error) }).spec),
      { renderer: "none" },
    );
    drawn.set(name, `${await view.toSVG()}\n`);
  }
  return drawn;
}
