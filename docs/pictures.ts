// The pictures of the guides, drawn by Vega-Lite from what layers of this package give:
// `npm run draw:guide-pictures`.

import { writeFileSync } from "node:fs";
import { BatchNorm, type BatchNormOptions } from "batchnorm-wasm";
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";

const BLUE = "#1f6fd6";
const ORANGE = "#d9730d";

let seed = 1;
const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
/** Mean 0 and variance 1, nearly normal. */
const bell = (): number => Array.from({ length: 12 }, random).reduce((a, b) => a + b) - 6;
const examples = (n: number): Float32Array =>
  Float32Array.from({ length: n }, () => 5 + 2 * bell());

async function draw(name: string, spec: object): Promise<void> {
  const look = {
    background: "white",
    padding: 12,
    config: {
      font: "Helvetica, Arial, sans-serif",
      axis: {
        labelFontSize: 12,
        titleFontSize: 13,
        titleFontWeight: "normal",
        gridColor: "#e8e8e8",
      },
      title: {
        fontSize: 16,
        anchor: "start",
        subtitleFontSize: 13,
        subtitleColor: "#555",
        offset: 12,
      },
      text: { fontSize: 13 },
      view: { stroke: null },
    },
  };
  const { spec: vega } = compile({ ...look, ...spec } as TopLevelSpec);
  const svg = await new View(parse(vega), { renderer: "none" }).toSVG();
  writeFileSync(new URL(`pictures/${name}.svg`, import.meta.url), `${svg}\n`);
}

/** The running mean of layers that meet the same mini-batches of mean 5. */
async function settling(): Promise<void> {
  const layers: { name: string; options: BatchNormOptions; color: string; dash: number[] }[] = [
    {
      name: "decay 0.99, debias",
      options: { decay: 0.99, debias: true },
      color: ORANGE,
      dash: [6, 3],
    },
    { name: "decay 0.9", options: { decay: 0.9 }, color: BLUE, dash: [1, 0] },
    { name: "decay 0.99", options: { decay: 0.99 }, color: ORANGE, dash: [1, 0] },
  ];
  const made = layers.map(({ options }) => new BatchNorm(1, options));
  const values: { step: number; mean: number; name: string }[] = [];
  for (let step = 0; step <= 300; step++) {
    made.forEach((bn, i) => {
      values.push({ step, mean: bn.runningMean[0]!, name: layers[i]!.name });
    });
    const x = examples(32);
    for (const bn of made) bn.train(x);
  }
  const names = layers.map(({ name }) => name);
  await draw("settling", {
    title: {
      text: "A running mean settles",
      subtitle: "mini-batches of 32 whose values have mean 5 and standard deviation 2",
    },
    width: 620,
    height: 260,
    data: { values },
    mark: { type: "line", strokeWidth: 2.5 },
    encoding: {
      x: { field: "step", type: "quantitative", title: "mini-batches", axis: { grid: false } },
      y: { field: "mean", type: "quantitative", title: "running mean", axis: { tickCount: 6 } },
      color: {
        field: "name",
        type: "nominal",
        scale: { domain: names, range: layers.map(({ color }) => color) },
        legend: {
          title: null,
          orient: "bottom-right",
          labelFontSize: 13,
          symbolSize: 300,
          labelLimit: 0,
        },
      },
      strokeDash: {
        field: "name",
        type: "nominal",
        scale: { domain: names, range: layers.map(({ dash }) => dash) },
      },
    },
  });
}

/** One example's output beside different companions, and by the running averages. */
async function companions(): Promise<void> {
  const bn = new BatchNorm(1);
  for (let step = 0; step < 300; step++) bn.train(examples(32));
  const one = 8;
  const values = [2, 3, 4, 8, 16, 32, 64, 128].flatMap((size) =>
    Array.from({ length: 50 }, () => {
      const x = examples(size);
      x[0] = one;
      return { size, y: bn.train(x, { updateRunning: false })[0]! };
    }),
  );
  const served = bn.infer(Float32Array.of(one))[0]!;
  await draw("companions", {
    title: {
      text: "What one and the same example becomes",
      subtitle: [
        "orange: by the statistics of the mini-batch it is in, 50 of each size",
        "blue: by the running averages",
      ],
    },
    width: 620,
    height: 280,
    layer: [
      {
        data: { values },
        mark: {
          type: "tick",
          color: ORANGE,
          opacity: 0.5,
          thickness: 2,
          bandSize: 26,
          orient: "horizontal",
        },
        encoding: {
          x: {
            field: "size",
            type: "ordinal",
            title: "examples in the mini-batch",
            axis: { labelAngle: 0 },
          },
          y: {
            field: "y",
            type: "quantitative",
            title: "normalized value",
            axis: { tickCount: 6 },
          },
        },
      },
      {
        data: { values: [{ served }] },
        mark: { type: "rule", color: BLUE, strokeWidth: 2.5 },
        encoding: { y: { field: "served", type: "quantitative" } },
      },
      {
        data: { values: [{ served, label: "infer: the same, always" }] },
        mark: { type: "text", color: BLUE, align: "left", dy: -12, x: 4, fontWeight: "bold" },
        encoding: {
          y: { field: "served", type: "quantitative" },
          text: { field: "label", type: "nominal" },
        },
      },
    ],
  });
}

await settling();
await companions();
