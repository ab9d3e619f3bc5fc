/**
 * The demo: trains the network of Ioffe & Szegedy 2015, section 4.1, on the MNIST digits with and
 * without batch normalization, tries every way of normalizing at test time, and writes a report and
 * the trained network to `out/`.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs";
import Table from "cli-table3";
import { type Arguments, readArguments } from "./args.js";
import { startBackend } from "./backend.js";
import { strip } from "./bitmap.js";
import { loadMnist } from "./data.js";
import { type Digits, PIXELS } from "./digits.js";
import { type Evaluation, evaluate, type Way } from "./evaluate.js";
import { type Progress, startProgress } from "./progress.js";
import { percent, type Results, renderReport } from "./report.js";
import { type About, encodeNetwork } from "./saved.js";
import { shift } from "./shift.js";
import {
  type Estimate,
  estimate,
  type OnProgress,
  sweep,
  type TestTime,
  trainBriefly,
} from "./testtime.js";
import { type Trained, train } from "./train.js";

const BATCH_SIZE = 60;
/** Mini-batches of each network of the sweep. */
const SWEEP_STEPS = 1000;
const OUT = fileURLToPath(new URL("./out/", import.meta.url));

async function main(args: Arguments): Promise<void> {
  const digits = loadMnist();
  await startBackend();
  console.log(
    `${digits.train.count} digits to train on, ${digits.test.count} to test with. ` +
      `${args.steps} mini-batches of ${BATCH_SIZE}, two networks side by side.`,
  );

  const trained = await trainWithProgress(digits, args);
  const evaluation = await evaluateWithProgress(trained, digits);
  const about: About = {
    steps: args.steps,
    seed: args.seed,
    learningRate: args.learningRate,
    batchSize: BATCH_SIZE,
    testAccuracy: evaluation.ways[0].accuracy,
  };
  const testTime = await examineTestTime(trained, digits, args);
  const { milestones, unit, stepTime } = trained;
  const environment = describeEnvironment();
  const pictures = picturesOf(digits.test, args.seed);
  const results: Results = {
    about,
    milestones,
    unit,
    evaluation,
    testTime,
    pictures,
    stepTime,
    environment,
  };

  mkdirSync(OUT, { recursive: true });
  write("network.json", JSON.stringify(encodeNetwork(trained.with.layers, about)));
  write("results.json", JSON.stringify(results));
  write("report.html", await renderReport(results));
  console.log(`\n${tableOf(evaluation.ways)}\n`);
  console.log(`${estimatesTable(testTime.estimates)}\n`);
  const { mean, variance } = testTime.exactness;
  console.log(
    `The exact statistics of the first layer, over ${digits.train.count} digits, against float64: ` +
      `means off by ${mean.toExponential(1)} σ,\nvariances by ${variance.toExponential(1)} of ` +
      `themselves (goal: at most 1e-6).\n`,
  );
  console.log(
    `The first layer, asked about the shifted digits\n${testTime.shiftedDiagnosis.text}\n`,
  );
  const { steps: few, diagnosis, before, after } = testTime.brief;
  console.log(
    `The first layer of a network trained for ${few} mini-batches only\n${diagnosis.text}\n` +
      `  test accuracy       ${percent(before)}, after calibrate ${percent(after)}\n`,
  );
  console.log(`report:  ${path.join(OUT, "report.html")}`);
  console.log(`network: ${path.join(OUT, "network.json")}`);
}

async function trainWithProgress(
  digits: Parameters<typeof train>[0],
  { steps, seed, learningRate }: Arguments,
): Promise<Trained> {
  const progress = startProgress("training", steps);
  const smooth = { with: Number.NaN, without: Number.NaN };
  const onStep: Parameters<typeof train>[1]["onStep"] = (step, loss) => {
    for (const name of ["with", "without"] as const) {
      const before = Number.isNaN(smooth[name]) ? loss[name] : smooth[name];
      smooth[name] = 0.98 * before + 0.02 * loss[name];
    }
    const { with: ours, without } = smooth;
    progress.update(step, `loss ${ours.toFixed(3)} with, ${without.toFixed(3)} without`);
  };
  try {
    return await train(digits, { steps, seed, learningRate, batchSize: BATCH_SIZE, onStep });
  } finally {
    progress.stop();
  }
}

async function evaluateWithProgress(
  trained: Trained,
  { test }: Parameters<typeof train>[0],
): Promise<Evaluation> {
  const progress = startProgress("testing ", test.count);
  const onProgress = (done: number) => progress.update(done, "one digit at a time");
  try {
    return await evaluate(trained.with, trained.without, test, onProgress);
  } finally {
    progress.stop();
  }
}

async function examineTestTime(
  trained: Trained,
  digits: Parameters<typeof train>[0],
  { steps, seed, learningRate }: Arguments,
): Promise<TestTime> {
  let bar: { title: string; progress: Progress } | undefined;
  const onProgress: OnProgress = (title, done, total) => {
    if (bar?.title !== title) {
      bar?.progress.stop();
      bar = { title, progress: startProgress(title, total) };
    }
    bar.progress.update(done, title === "calibrating" ? "digits, one pass" : "mini-batches");
  };
  try {
    const estimated = await estimate(trained.with, trained.cumulative, digits, seed, onProgress);
    const brief = await trainBriefly(digits, { seed, learningRate, batchSize: BATCH_SIZE });
    const swept = { seed, learningRate, steps: Math.min(steps, SWEEP_STEPS) };
    return { ...estimated, brief, sweep: await sweep(digits, swept, onProgress) };
  } finally {
    bar?.progress.stop();
  }
}

/** A few test digits as they are and shifted. */
function picturesOf(test: Digits, seed: number): Results["pictures"] {
  const few = { ...test, count: 10, images: test.images.subarray(0, 10 * PIXELS) };
  const split = ({ images }: Digits) =>
    Array.from({ length: 10 }, (_, i) => images.subarray(i * PIXELS, (i + 1) * PIXELS));
  return { plain: strip(split(few)), shifted: strip(split(shift(few, seed))) };
}

function estimatesTable(estimates: readonly Estimate[]): string {
  const table = new Table({
    head: ["statistics", "test digits", "shifted"],
    colAligns: ["left", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  table.push(
    ...estimates.map(({ label, plain, shifted }) => [label, percent(plain), percent(shifted)]),
  );
  return table.toString();
}

function tableOf(ways: readonly Way[]): string {
  const table = new Table({
    head: ["normalized by", "accuracy", ""],
    colAligns: ["left", "right", "left"],
    colWidths: [39, 10, 27],
    wordWrap: true,
    style: { head: [], border: [], compact: true },
  });
  table.push(...ways.map(({ label, accuracy, remark }) => [label, percent(accuracy), remark]));
  return table.toString();
}

function describeEnvironment(): string {
  const processor = cpus()[0]?.model.trim() ?? "unknown processor";
  return `${processor}, Node ${process.versions.node}, tfjs ${tf.version.tfjs} (wasm backend).`;
}

function write(name: string, text: string): void {
  writeFileSync(path.join(OUT, name), text);
}

await main(readArguments()).catch((error: Error) => {
  console.error(error.stack ?? error.message);
  process.exit(1);
});
