/**
 * The report's plots, by Vega-Lite, as SVG text. Colours are CSS variables of the page, so that one
 * drawing serves in light and in dark; each plot is drawn for a wide page and for a phone.
 */

import { parse, View } from "vega";
import { type Config, compile, type TopLevelSpec } from "vega-lite";
import type { LayerSpec, UnitSpec } from "vega-lite/types_unstable/spec/index.js";
import type { Way } from "./evaluate.js";
import type { SweepPoint } from "./testtime.js";
import { type Milestone, SETTLING, type UnitStatistics } from "./train.js";

/** One plot in both widths. */
export interface Plot {
  readonly wide: string;
  readonly narrow: string;
}

/** Widths of the plots in CSS pixels: the report's text column, and a phone of 360 less margins. */
const WIDTHS = { wide: 680, narrow: 316 } as const;
type Room = keyof typeof WIDTHS;

type Panel = UnitSpec<string> | LayerSpec<string>;
type Panels = { vconcat: { hconcat: Panel[] }[] } | { vconcat: Panel[] };

const NETWORKS = {
  domain: ["with batch norm", "without"],
  range: ["var(--with)", "var(--without)"],
};
const DASHES = {
  domain: NETWORKS.domain,
  range: [
    [1, 0],
    [6, 3],
  ],
};

/** As Figure 1a of the paper. */
export function accuracyBySteps(milestones: readonly Milestone[]): Promise<Plot> {
  const values = milestones.map(({ step, network, accuracy }) => ({
    step,
    network: network === "with" ? "with batch norm" : "without",
    accuracy: 100 * accuracy,
  }));
  return draw((room) => ({
    data: { values },
    width: panelWidth(room, 1),
    height: room === "wide" ? 300 : 230,
    mark: { type: "line", point: { size: 18, filled: true }, clip: true },
    encoding: {
      x: { field: "step", type: "quantitative", title: "mini-batches of 60", axis: stepAxis(room) },
      y: {
        field: "accuracy",
        type: "quantitative",
        title: "test accuracy, %",
        scale: { domain: [70, 100] },
        axis: { tickCount: 7 },
      },
      color: { field: "network", type: "nominal", scale: NETWORKS, legend: legend(room) },
      strokeDash: { field: "network", type: "nominal", scale: DASHES, legend: legend(room) },
    },
  }));
}

/** Mini-batch statistics at test time, against the two lines that do not depend on the batch. */
export function accuracyByTestBatch(ways: readonly Way[]): Promise<Plot> {
  const names = ["mini-batch statistics", "running averages", "no batch norm"];
  const color = (room: Room) =>
    ({
      field: "name",
      type: "nominal",
      scale: { domain: names, range: ["var(--batch)", "var(--with)", "var(--without)"] },
      legend: legend(room),
    }) as const;
  const points = ways
    .filter(({ kind }) => kind === "mini-batch")
    .map(({ batchSize, accuracy }) => ({
      batchSize,
      accuracy: 100 * accuracy,
      name: names[0],
      note: batchSize === 1 ? "refused: beta alone" : "",
    }));
  const levels = (["running", "none"] as const).flatMap((kind, i) =>
    ways
      .filter((way) => way.kind === kind)
      .slice(0, 1)
      .map(({ accuracy }) => ({ accuracy: 100 * accuracy, name: names[i + 1] })),
  );
  const x = {
    field: "batchSize",
    type: "quantitative",
    scale: { type: "log", base: 2, domain: [1, 256] },
    axis: { values: points.map(({ batchSize }) => batchSize), grid: false, format: "d" },
    title: "test digits normalized together",
  } as const;
  const y = {
    field: "accuracy",
    type: "quantitative",
    title: "test accuracy, %",
    scale: { domain: [0, 100] },
  } as const;
  return draw((room) => ({
    width: panelWidth(room, 1),
    height: room === "wide" ? 260 : 220,
    layer: [
      {
        data: { values: levels },
        mark: { type: "rule", strokeWidth: 2 },
        encoding: {
          y,
          color: color(room),
          strokeDash: {
            field: "name",
            type: "nominal",
            scale: {
              domain: names,
              range: [
                [1, 0],
                [1, 0],
                [6, 3],
              ],
            },
            legend: legend(room),
          },
        },
      },
      {
        data: { values: points.filter(({ batchSize }) => batchSize > 1) },
        mark: { type: "line", point: { size: 40, filled: true } },
        encoding: { x, y, color: color(room) },
      },
      {
        data: { values: points.filter(({ batchSize }) => batchSize === 1) },
        mark: { type: "point", filled: false, size: 50, strokeWidth: 2 },
        encoding: { x, y, color: color(room) },
      },
      {
        data: { values: points.filter(({ note }) => note !== "") },
        mark: { type: "text", align: "left", dx: 9, dy: -1, color: "currentColor" },
        encoding: { x, y, text: { field: "note" } },
      },
    ],
  }));
}

/** Mean and variance of one unit: what each mini-batch says, and the averages that settle. */
export function unitStatistics(unit: readonly UnitStatistics[]): Promise<Plot> {
  const names = ["this mini-batch (dots)", "running average (line)"];
  const panel = (
    room: Room,
    quantity: {
      title: string;
      batch: "mean" | "variance";
      average: "runningMean" | "runningVariance";
    },
    span: { title: string; first: number; last: number },
  ): Panel => {
    const rows = unit.filter(({ step }) => span.first <= step && step <= span.last);
    const values = rows.flatMap((row) => [
      { step: row.step, name: names[0], value: row[quantity.batch] },
      { step: row.step, name: names[1], value: row[quantity.average] },
    ]);
    const color = {
      field: "name",
      type: "nominal",
      scale: { domain: names, range: ["var(--batch)", "var(--with)"] },
      legend: legend(room, "circle"),
    } as const;
    const x = {
      field: "step",
      type: "quantitative",
      title: "mini-batches seen",
      scale: { zero: span.first === 1 },
      axis: stepAxis(room),
    } as const;
    const y = {
      field: "value",
      type: "quantitative",
      title: quantity.title,
      scale: { zero: false },
    } as const;
    const of = (name: string) => [{ filter: { field: "name", equal: name } }];
    return {
      data: { values },
      title: { text: `${quantity.title}: ${span.title}` },
      width: panelWidth(room, 2),
      height: 150,
      layer: [
        {
          transform: of(names[0]),
          mark: { type: "circle", size: 12, opacity: 0.75 },
          encoding: { x, y, color },
        },
        {
          transform: of(names[1]),
          mark: { type: "line", strokeWidth: 2 },
          encoding: { x, y, color },
        },
      ],
    };
  };
  const last = unit.at(-1)?.step ?? 0;
  const spans = [
    { title: `mini-batches 1 to ${Math.min(SETTLING, last)}`, first: 1, last: SETTLING },
    ...(last > SETTLING ? [{ title: "the rest of the run", first: SETTLING + 1, last }] : []),
  ];
  const quantities = [
    { title: "mean", batch: "mean", average: "runningMean" },
    { title: "variance", batch: "variance", average: "runningVariance" },
  ] as const;
  return draw((room) =>
    arrange(
      room,
      quantities.map((quantity) => spans.map((span) => panel(room, quantity, span))),
    ),
  );
}

/** As Figures 1b and 1c of the paper: what one sigmoid is fed while the network trains. */
export function inputPercentiles(milestones: readonly Milestone[]): Promise<Plot> {
  // One scale for both, so that they can be compared.
  const inputs = milestones.flatMap(({ percentiles }) => percentiles);
  const domain = [Math.min(...inputs), Math.max(...inputs)];
  const panel = (room: Room, network: Milestone["network"], title: string): Panel => {
    const values = milestones
      .filter((milestone) => milestone.network === network)
      .map(({ step, percentiles: [low, middle, high] }) => ({ step, low, middle, high }));
    const color = { value: network === "with" ? "var(--with)" : "var(--without)" };
    const x = {
      field: "step",
      type: "quantitative",
      title: "mini-batches of 60",
      axis: stepAxis(room),
    } as const;
    const y = (field: string) =>
      ({
        field,
        type: "quantitative",
        title: "input of the sigmoid",
        scale: { domain, nice: true },
      }) as const;
    return {
      data: { values },
      title: { text: title },
      width: panelWidth(room, 2),
      height: 150,
      layer: [
        {
          mark: { type: "area", opacity: 0.25 },
          encoding: { x, y: y("low"), y2: { field: "high" }, color },
        },
        { mark: { type: "line", strokeWidth: 2 }, encoding: { x, y: y("middle"), color } },
      ],
    };
  };
  return draw((room) =>
    arrange(room, [
      [panel(room, "without", "without batch norm"), panel(room, "with", "with batch norm")],
    ]),
  );
}

/** Test accuracy, and how far the averages are from exact statistics, against decay and batch size. */
export function sweepPlot(points: readonly SweepPoint[]): Promise<Plot> {
  const sizes = [...new Set(points.map(({ batchSize }) => batchSize))];
  const names = sizes.map((size) => `batches of ${size}`);
  const values = points.map(({ batchSize, decay, accuracy, distance }) => ({
    name: `batches of ${batchSize}`,
    decay: decay === null ? null : String(decay),
    accuracy: 100 * accuracy,
    mean: distance.mean,
    variance: distance.variance,
  }));
  const spanOf = (field: "accuracy" | "mean" | "variance"): [number, number] => {
    const drawn = values.filter(({ decay }) => decay !== null).map((point) => point[field]);
    return [Math.min(...drawn), Math.max(...drawn)];
  };
  const color = (room: Room) =>
    ({
      field: "name",
      type: "nominal",
      scale: { domain: names, range: ["var(--without)", "var(--batch)", "var(--with)"] },
      legend: legend(room),
    }) as const;
  const x = {
    field: "decay",
    type: "ordinal",
    title: "decay of the running averages",
    axis: { labelAngle: 0, grid: false },
    scale: { padding: 0.2 },
  } as const;
  const panel = (
    room: Room,
    field: "accuracy" | "mean" | "variance",
    { title, unit, across }: { title?: string; unit: string; across: number },
  ): Panel => ({
    ...(title && { title: { text: title } }),
    width: panelWidth(room, across),
    height: field === "accuracy" ? 210 : 170,
    layer: [
      {
        data: { values: values.filter(({ decay }) => decay !== null) },
        mark: { type: "line", point: { size: 40, filled: true } },
        encoding: {
          x,
          y: {
            field,
            type: "quantitative",
            title: unit,
            ...(field === "accuracy"
              ? { scale: { domain: [10 * Math.floor(spanOf(field)[0] / 10), 100] } }
              : decades(spanOf(field))),
          },
          color: color(room),
        },
      },
      ...(field === "accuracy"
        ? [
            {
              data: { values: values.filter(({ decay }) => decay === null) },
              mark: { type: "rule" as const, strokeDash: [5, 4] },
              encoding: { y: { field, type: "quantitative" as const }, color: color(room) },
            },
          ]
        : []),
    ],
  });
  return draw((room) =>
    arrange(room, [
      [panel(room, "accuracy", { unit: "test accuracy, %", across: 1 })],
      [
        panel(room, "mean", {
          title: "means: distance from exact",
          unit: "σ",
          across: 2,
        }),
        panel(room, "variance", {
          title: "variances: distance from exact",
          unit: "ln of the ratio",
          across: 2,
        }),
      ],
    ]),
  );
}

/** A logarithmic axis of whole decades, labelled at their ends. */
function decades([least, most]: [number, number]) {
  const from = Math.floor(Math.log10(least));
  const to = Math.ceil(Math.log10(most));
  const values = Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));
  const domain = [10 ** from, 10 ** to];
  return { scale: { type: "log", domain }, axis: { values, format: "~g" } } as const;
}

/** Rows of panels side by side where there is room, one below the other on a phone. */
function arrange(room: Room, rows: Panel[][]): Panels {
  if (room === "narrow") return { vconcat: rows.flat() };
  return { vconcat: rows.map((hconcat) => ({ hconcat })) };
}

function panelWidth(room: Room, across: number): number {
  const axis = 52; // y axis with its labels and title
  const columns = room === "wide" ? across : 1;
  const gap = 20 * (columns - 1);
  return Math.floor((WIDTHS[room] - gap) / columns) - axis;
}

function stepAxis(room: Room) {
  const labelExpr = "datum.value === 0 ? '0' : datum.label"; // not 0k
  return { tickCount: room === "wide" ? 6 : 4, format: "~s", labelExpr, grid: false } as const;
}

function legend(room: Room, symbolType: "stroke" | "circle" = "stroke") {
  const direction = room === "wide" ? "horizontal" : "vertical";
  const labels = { title: null, labelLimit: 0 } as const;
  const symbol =
    symbolType === "stroke"
      ? ({ symbolType, symbolStrokeWidth: 3, symbolSize: 100 } as const)
      : ({ symbolType, symbolStrokeWidth: 0, symbolSize: 40 } as const);
  return { ...labels, ...symbol, orient: "top", direction } as const;
}

const CONFIG: Config = {
  aria: false, // the page describes each plot; a description of every mark would triple its size
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "currentColor",
    titleColor: "currentColor",
    tickColor: "var(--line)",
    domainColor: "var(--line)",
    gridColor: "var(--line)",
    gridOpacity: 0.6,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: "normal",
    labelFlush: false,
  },
  legend: { labelColor: "currentColor", labelFontSize: 12 },
  title: { color: "currentColor", fontSize: 13, fontWeight: 600, anchor: "start", offset: 6 },
  text: { fontSize: 12 },
};

async function draw(spec: (room: Room) => object): Promise<Plot> {
  return { wide: await svg(spec("wide")), narrow: await svg(spec("narrow")) };
}

async function svg(spec: object): Promise<string> {
  const whole = { ...spec, background: "transparent", padding: 2, config: CONFIG } as TopLevelSpec;
  const view = new View(parse(compile(whole).spec), { renderer: "none" });
  const text = await view.toSVG();
  view.finalize();
  return text;
}
