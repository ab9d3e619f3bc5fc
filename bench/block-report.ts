// What the report says of the block (block.ts), and its picture.

import type { TopLevelSpec } from "vega-lite";
import { ALONE, blockGoals, FUSED, PYTORCH, ratios, STEPS } from "./block-goals.js";
import { BLOCK_OURS } from "./block-ours.js";
import { type After, OPS, type Op } from "./cases.js";
import { COMMON, geometricMeanTick } from "./plots.js";
import { type BlockResult, timeOf } from "./record.js";
import { goalTable, micro, OP_NAMES, table } from "./tables.js";

/** The chapter of the report. */
export function blockSection(
  block: BlockResult,
  picture: (file: string, text: string) => string,
): string[] {
  const sides = [...BLOCK_OURS, ...block.peers].map(({ name }) => name);
  const times = (after: After, op: Op): string => {
    const found = block.cases.filter((m) => m.after === after && m.op === op);
    const shown = sides.filter((side) => found.some((m) => timeOf(m, side) !== undefined));
    const rows = found.map((m) => [
      `${m.name} ${m.layout}`,
      ...shown.map((side) => micro(timeOf(m, side))),
    ]);
    return table(["", ...shown], rows);
  };
  return [
    "### The block: batch norm, then a ReLU, or a residual and then a ReLU",
    `Run of ${block.date.slice(0, 16).replace("T", " ")} UTC, by \`npm run bench -- --block\`. *${FUSED}* and *plain* do all in ` +
      "one call; *norm alone* leaves out what follows; *then JavaScript* and *then ours* do it in a second step (in " +
      "`backward` in one before), the latter by a frozen layer of scale 1. PyTorch makes new tensors or works in place. oneDNN " +
      "has fuse_norm_relu, and no residual.",
    picture("block.svg", "How many times as long separate steps and other libraries take"),
    goalTable("the block", blockGoals(block)),
    ...(["relu", "add, relu"] as const).flatMap((after) =>
      OPS.flatMap((op) => [`**${OP_NAMES[op]}, ${after}**`, times(after, op)]),
    ),
  ];
}

/** The picture, by the name of its file; none where the record has no block. */
export const blockPlots = (block: BlockResult | null | undefined): [string, TopLevelSpec][] =>
  block ? [["block.svg", blockRatios(block)]] : [];

/**
 * What steps read and write of the tensor, over what the block does in one call: passes over memory. `backward` in one call
 * reads dy and x, and the residual, and writes the gradient behind the activation; then it reads that and x, and writes dx.
 */
const PASSES: Readonly<
  Record<After, Readonly<Record<Op, readonly [steps: number, fused: number]>>>
> = {
  relu: { infer: [4, 2], train: [5, 3], backward: [8, 6] },
  "add, relu": { infer: [7, 3], train: [8, 4], backward: [8, 7] },
};

const BLOCK_ROWS: readonly (readonly [label: string, sides: readonly string[]])[] = [
  ["batch norm alone, ours", [ALONE]],
  ["separate steps, ours", STEPS],
  ["PyTorch (native)", PYTORCH],
  ["oneDNN, fused (native)", ["oneDNN"]],
  ["onnxruntime-web", ["onnxruntime-web"]],
  ["tfjs-wasm", ["tfjs-wasm"]],
];

/** Separate steps and others over ours in one call, with the ratio that passes over memory alone would give. */
function blockRatios(block: BlockResult): TopLevelSpec {
  const panels = (["relu", "add, relu"] as const).flatMap((after) =>
    (["infer", "train", "backward"] as const).map((op) => ({ after, op })),
  );
  const dots = panels.flatMap(({ after, op }) => {
    const [steps, fused] = PASSES[after][op];
    const panel = `${after === "relu" ? "ReLU" : "add, ReLU"}: ${op} (passes ${steps} : ${fused})`;
    return BLOCK_ROWS.flatMap(([row, sides]) =>
      ratios(block, after, op, sides).map(({ value }) => ({
        row,
        panel,
        value,
        passes: steps / fused,
      })),
    );
  });
  const y = {
    field: "row",
    type: "nominal",
    sort: BLOCK_ROWS.map(([label]) => label),
    title: null,
    axis: { labelLimit: 0, grid: true },
  };
  const x = {
    field: "value",
    type: "quantitative",
    scale: { type: "log" },
    axis: { title: "their time / ours in one call", values: [0.5, 1, 2, 5, 10, 20, 50] },
  };
  return {
    ...COMMON,
    title: {
      text: "The block in one call",
      subtitle:
        "each dot a shape, the bar their geometric mean; right of 1: one call is faster; green: what passes over memory alone " +
        `would give separate steps; ${block.machine.cpu}`,
    },
    data: { values: dots },
    facet: {
      field: "panel",
      type: "nominal",
      sort: [...new Set(dots.map(({ panel }) => panel))],
      title: null,
      header: { labelFontSize: 13 },
    },
    columns: 3,
    spec: {
      width: 260,
      height: 150,
      layer: [
        {
          mark: { type: "rule", color: "#999", strokeDash: [4, 3] },
          encoding: { x: { datum: 1 } },
        },
        {
          mark: { type: "rule", color: "#1f9e5a", strokeWidth: 2 },
          encoding: { x: { aggregate: "min", field: "passes", type: "quantitative" } },
        },
        {
          mark: { type: "circle", size: 45, opacity: 0.7, color: "#0b3fb3" },
          encoding: { x, y },
        },
        geometricMeanTick("value", y, ["row", "panel"], 18),
      ],
    },
  } as unknown as TopLevelSpec;
}
