// The report on a file as text for a terminal.

import { FAULTS, type FindingKind } from "./findings.js";
import type { FileReport, LayerReport, Range } from "./inspect.js";
import type { ModelFormat, Origin } from "./model.js";
import { notesOn } from "./notes.js";
import { type Column, tableOf } from "./table.js";
import type { Paint } from "./terminal.js";
import { counted, plain, short, shorten, wrap } from "./text.js";

/** What files of each format are called. */
const FORMATS: Readonly<Record<ModelFormat, string>> = {
  torch: "PyTorch",
  onnx: "ONNX",
  keras: "Keras",
  tfjs: "TensorFlow.js",
  "batchnorm-wasm": "batchnorm-wasm",
};

/** Why a file of each format may have no batch norms. */
export const NONE: Readonly<Record<ModelFormat, string>> = {
  torch: "no module in it has running_mean and running_var",
  onnx: "most exporters fold them into the convolutions before them; those in functions and in the bodies of If, Loop and Scan are not read",
  keras: "no layer in it is a BatchNormalization",
  tfjs: "the converter folds those of graph models into the convolutions before them",
  "batchnorm-wasm": "none was saved",
};

/** What a file does not say is marked, where a default is used in its place. */
const ASSUMED = "?";
/** Stands in the place of what a file does not say, where nothing else does. */
const NOT_SAID = "–";
/** A space at which lines are not broken. */
const KEPT = "\u00a0";
/** How many layers are named for each kind of finding, and how many channels for each layer. */
const MOST_LAYERS = 8;
const MOST_CHANNELS = 6;

/**
 * The report as lines of text.
 *
 * @param width how many characters a line may have.
 */
export function textOfReport(report: FileReport, width: number, paint: Paint): string {
  const { layers, broken, format, file } = report;
  const all = layers.length + broken.length;
  const parts = [FORMATS[format], all === 0 ? "no batch norms" : counted(all, "batch norm")];
  const channels = layers.reduce((sum, each) => sum + each.channels, 0);
  if (layers.length > 0) parts.push(counted(channels, "channel"));
  const lines = [
    paint.bold(plain(file)),
    `  ${parts.join(" · ")}${all === 0 ? `: ${NONE[format]}` : ""}`,
    ...tableLines(report, width - 2, paint),
    ...sectionsOf(report, width, paint),
  ];
  return lines.join("\n");
}

/** What all layers have in common, in a line or two, and then a table of what they have not. */
function tableLines(report: FileReport, width: number, paint: Paint): string[] {
  const { layers, countsBatches } = report;
  if (layers.length === 0) return [];
  const columns = columnsOf(report);
  const weight = `the weight of the ${report.momentumIsWeightOf} value`;
  const shared = columns.filter(
    ({ inCommon, cells }) => inCommon !== undefined && cells.every((cell) => cell === cells[0]),
  );
  const facts = layers.length > 1 ? shared : [];
  const common = facts.map(({ inCommon, cells: [cell] }) =>
    cell === NOT_SAID ? `${inCommon}: unknown` : `${inCommon} ${cell}`,
  );
  const momentum = facts.findIndex(({ title }) => title === "momentum");
  if (momentum >= 0) common[momentum] += ` (${weight})`;
  if (!countsBatches) common.push("mini-batches not counted");
  const assumed = layers.some(
    (each) => each.epsilonFrom === "default" || each.momentumFrom === "default",
  );
  const above = [
    common.map((fact) => fact.replaceAll(" ", KEPT)).join(" · "),
    ...(momentum < 0 ? [`momentum is ${weight}`] : []),
    ...(assumed ? [`${ASSUMED} the file does not say it: the default of its framework`] : []),
  ];
  const rest = columns.filter((column) => !facts.includes(column));
  const [titles, ...rows] = tableOf(rest, width - 2);
  return [
    ...above
      .filter((line) => line !== "")
      .map((line) => paint.dim(`  ${wrap(line, width, "  ").replaceAll(KEPT, " ")}`)),
    "",
    `    ${paint.dim(titles!)}`,
    ...rows.map((row, i) => `  ${markOf(layers[i]!, paint)} ${row}`),
  ];
}

/** A column, and what its value is called in the line above the table if all layers have the same. */
type LayerColumn = Column & { readonly inCommon?: string };

function columnsOf({ layers, countsBatches }: FileReport): LayerColumn[] {
  const cells = (of: (layer: LayerReport) => string): string[] => layers.map(of);
  const said = (value: string, from: Origin): string =>
    from === "default" ? value + ASSUMED : value;
  const momentum = (layer: LayerReport): string =>
    layer.momentum === null ? "cumulative" : short(layer.momentum);
  return [
    { title: "name", cells: cells(({ name }) => plain(name) || '""'), flexible: true },
    { title: "channels", cells: cells(({ channels }) => String(channels)), align: "right" },
    { title: "layout", inCommon: "layout", cells: cells(({ layout }) => layout) },
    {
      title: "epsilon",
      inCommon: "epsilon",
      cells: cells((layer) => said(short(layer.epsilon), layer.epsilonFrom)),
    },
    {
      title: "momentum",
      inCommon: "momentum",
      cells: cells((layer) => said(momentum(layer), layer.momentumFrom)),
    },
    ...(countsBatches
      ? [
          {
            title: "batches",
            inCommon: "mini-batches seen",
            cells: cells(({ batchesSeen: n }) => (n === null ? NOT_SAID : String(n))),
            align: "right",
          } as const,
        ]
      : []),
    { title: "variance", cells: rangeCells(layers.map((each) => each.variance)), optional: true },
    { title: "gamma", cells: rangeCells(layers.map((each) => each.gamma)), optional: true },
  ];
}

/** Ranges from the smallest to the largest number, the dots below each other. */
function rangeCells(ranges: readonly (Range | null)[]): string[] {
  const ends = ranges.map((range) =>
    range === null ? null : ([short(range.min, 2), short(range.max, 2)] as const),
  );
  const width = Math.max(0, ...ends.map((each) => each?.[0].length ?? 0));
  return ends.map((each) =>
    each === null
      ? NOT_SAID.padStart(width)
      : each[0].padStart(width) + (each[0] === each[1] ? "" : ` … ${each[1]}`),
  );
}

function markOf({ findings }: LayerReport, paint: Paint): string {
  if (findings.some(({ severity }) => severity === "error")) return paint.red("x");
  return findings.length > 0 ? paint.yellow("!") : " ";
}

/** What was found, kind by kind, then what the reader said, then the layers that it could not read. */
function sectionsOf(report: FileReport, width: number, paint: Paint): string[] {
  const { layers, broken } = report;
  return [
    ...(Object.keys(FAULTS) as FindingKind[]).flatMap((kind) =>
      findingLines(layers, kind, width, paint),
    ),
    ...listed("notes", notesOn(layers), width, paint.bold),
    ...listed(
      "not read",
      broken.map(({ name, error }) => `${name}: ${error}`),
      width,
      paint.red,
    ),
  ];
}

function findingLines(
  layers: readonly LayerReport[],
  kind: FindingKind,
  width: number,
  paint: Paint,
): string[] {
  const found = layers.flatMap((layer) => {
    const finding = layer.findings.find((each) => each.kind === kind);
    return finding === undefined ? [] : [{ layer, channels: finding.channels }];
  });
  if (found.length === 0) return [];
  const { severity, title, meaning } = FAULTS[kind];
  const colour = severity === "error" ? paint.red : paint.yellow;
  const mark = severity === "error" ? "x" : "!";
  const heading = wrap(`${title}: ${meaning}`, width - 4, "    ");
  const rest = found.slice(MOST_LAYERS);
  const more = rest.length > 0 ? [`    and ${counted(rest.length, "more layer")}`] : [];
  const painted = heading.startsWith(title) ? colour(title) + heading.slice(title.length) : heading;
  if (found.length === layers.length && found.every(({ channels }) => channels === null)) {
    return [
      "",
      `  ${colour(mark)} ${painted}`,
      `    ${layers.length === 1 ? "the layer" : "all layers"}`,
    ];
  }
  const shown = found.slice(0, MOST_LAYERS);
  const columns: Column[] = [
    { title: "", cells: shown.map(({ layer }) => plain(layer.name) || '""'), flexible: true },
    {
      title: "",
      cells: shown.map(({ layer, channels }) =>
        channels === null ? "" : `${channels.length} of ${layer.channels}`,
      ),
      align: "right",
    },
    { title: "", cells: shown.map(({ channels }) => channelList(channels)), optional: true },
  ];
  const rows = tableOf(columns, width - 4).slice(1);
  return ["", `  ${colour(mark)} ${painted}`, ...rows.map((row) => `    ${row}`), ...more];
}

function channelList(channels: readonly number[] | null): string {
  if (channels === null) return "";
  const some = channels.slice(0, MOST_CHANNELS).join(", ");
  const what = channels.length === 1 ? "channel" : "channels";
  return `${what} ${some}${channels.length > MOST_CHANNELS ? ", …" : ""}`;
}

/** Sentences under a heading, the first of them if there are many. */
function listed(
  heading: string,
  sentences: readonly string[],
  width: number,
  colour: (text: string) => string,
): string[] {
  if (sentences.length === 0) return [];
  const rest = sentences.length - MOST_LAYERS;
  return [
    "",
    `  ${colour(heading)}`,
    ...sentences
      .slice(0, MOST_LAYERS)
      .map((each) => `    ${wrap(plain(shorten(each, 1000)), width - 4, "      ")}`),
    ...(rest > 0 ? [`    and ${rest.toLocaleString("en-US")} more`] : []),
  ];
}
