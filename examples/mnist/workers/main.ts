/**
 * Data-parallel training: the demo's network on one thread and on two, each of which has half of
 * every mini-batch. Batch normalization over the whole of it makes both end at the same network.
 *
 *   npm run workers --prefix examples/mnist -- --steps 500
 */

import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import Table from "cli-table3";
import { startProgress } from "../progress.js";
import { seats } from "./exchange.js";
import type { Done, Work } from "./thread.js";

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "300" },
    threads: { type: "string", default: "2" },
    seed: { type: "string", default: "1" },
  },
});
/** Digits in a mini-batch: each thread has some of them. */
const BATCH_SIZE = 60;
const whole = (name: "steps" | "threads" | "seed", least: number, most: number): number => {
  const value = Number(values[name]);
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new Error(`--${name}: expected a whole number ${least} … ${most}, got "${values[name]}".`);
};
const steps = whole("steps", 1, 10_000_000);
const threads = whole("threads", 2, BATCH_SIZE);
const seed = whole("seed", 0, 2 ** 32 - 1);

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

/** Trains on `count` threads; what each of them has in the end. */
async function run(count: number): Promise<Done[]> {
  const progress = startProgress(`${count} thread${count > 1 ? "s" : " "}`, steps);
  try {
    return await Promise.all(
      seats(count).map((seat) => {
        const workerData: Work = { seat, steps, batchSize: BATCH_SIZE, seed, learningRate: 0.3 };
        const transferList = seat.ports.filter((port) => port !== null);
        const worker = new Worker(new URL("./start.mjs", import.meta.url), {
          argv: ["thread.ts"],
          workerData,
          transferList,
        });
        return new Promise<Done>((resolve, reject) => {
          worker.on("message", (told: number | Done) => {
            if (typeof told !== "number") resolve(told);
            else if (seat.index === 0) progress.update(told, `mini-batches of ${BATCH_SIZE}`);
          });
          worker.on("error", reject);
        });
      }),
    );
  } finally {
    progress.stop();
  }
}

/** The largest difference, against the largest value. */
function apart(
  a: readonly (Float32Array | Float64Array)[],
  b: readonly (Float32Array | Float64Array)[],
): number {
  const ratios = a.map((values, i) => {
    let difference = 0;
    let size = 0;
    values.forEach((value, k) => {
      difference = Math.max(difference, Math.abs(value - b[i][k]));
      size = Math.max(size, Math.abs(value));
    });
    return difference / size;
  });
  return Math.max(...ratios);
}

const [one] = await run(1);
const many = await run(threads);
const table = new Table({
  head: ["threads", "test accuracy", "ms a step", "weights off by", "averages off by"],
  style: { head: [], border: [], compact: true },
});
table.push(["1", percent(one.accuracy), one.stepTime.toFixed(1), "", ""]);
for (const done of many) {
  table.push([
    `${threads}`,
    percent(done.accuracy),
    done.stepTime.toFixed(1),
    apart(one.weights, done.weights).toExponential(1),
    apart(one.averages, done.averages).toExponential(1),
  ]);
}
console.log(`\n${table.toString()}\n`);
const [first, ...others] = many;
const differences = others.flatMap(({ weights, averages }) => [
  apart(first.weights, weights),
  apart(first.averages, averages),
]);
const alike = differences.every((difference) => difference === 0);
console.log(
  alike
    ? "All threads hold the same network, bit for bit."
    : `The threads' networks differ by ${Math.max(...differences)}.`,
);
process.exitCode = alike ? 0 : 1;
