// The figures of the statistics as values, each beside what it may be at most: parts of a batch
// pooled in random groupings and orders, and two threads against one. (What `calibrate` and `diagnose`
// do to a network, `npm run demo` shows.)
//
//   npm run figures

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { BatchNorm, GradientSums, Moments } from "batchnorm-wasm";
import { normal } from "../tests/support/data.js";
import * as oracle from "../tests/support/oracle.js";
import { CASES, CHANNELS, dataOf, GROUPINGS, pooled } from "../tests/support/pooling.js";

let missed = 0;

/** One line, a figure for each name. */
function print(title: string, figures: Readonly<Record<string, number>>, goal: number): void {
  const met = Object.values(figures).every((figure) => figure <= goal);
  if (!met) missed++;
  const listed = Object.entries(figures).map(
    ([name, figure]) => `${name} ${figure.toExponential(1).padStart(7)}`,
  );
  console.log(`  ${title.padEnd(26)}  ${listed.join("   ")}${met ? "" : "   MISSED"}`);
}

type Values = ArrayLike<number>;

/** The largest |a - b| / size. */
const apart = (a: Values, b: Values, size: (i: number) => number): number =>
  Array.from(a).reduce(
    // Where there is nothing to divide by, both are to be the same.
    (most, value, i) => Math.max(most, value === b[i] ? 0 : Math.abs(value - b[i]!) / size(i)),
    0,
  );

console.log(`Parts pooled in ${GROUPINGS} random groupings and orders, the largest difference`);
console.log("between two of them, relative (goal: at most 1e-12); mean of max(|mean|, σ):");
const against: [string, Record<string, number>][] = [];
for (const [title, parts] of Object.entries(CASES)) {
  const rows = new BatchNorm(CHANNELS);
  const data = dataOf(parts);
  const moments = data.map((x) => rows.moments(x));
  const first = pooled(moments, 0);
  const variance = first.variance("population");
  const sigma = variance.map(Math.sqrt);
  const worst = { mean: 0, variance: 0 };
  for (let seed = 1; seed < GROUPINGS; seed++) {
    const other = pooled(moments, seed);
    const size = (c: number): number => Math.max(Math.abs(first.mean[c]!), sigma[c]!);
    worst.mean = Math.max(worst.mean, apart(other.mean, first.mean, size));
    const off = apart(other.variance("population"), variance, (c) => variance[c]!);
    worst.variance = Math.max(worst.variance, off);
  }
  print(title, worst, 1e-12);
  const all = Float32Array.from(data.flatMap((x) => [...x]));
  const exact = oracle.moments(all, { outer: first.count, channels: CHANNELS, inner: 1 });
  against.push([
    title,
    {
      mean: apart(first.mean, exact.mean, (c) => Math.sqrt(exact.variance[c]!)),
      variance: apart(variance, exact.variance, (c) => exact.variance[c]!),
    },
  ]);
}
console.log("\nThe same against float64 over the raw data (goal: at most 1e-6); mean in σ:");
for (const [title, figures] of against) print(title, figures, 1e-6);

const SHAPE = { examples: 64, channels: 100 };

/** One training step of a batch, on two threads that have half of it each. */
async function onTwoThreads(bn: BatchNorm, x: Float32Array, dy: Float32Array) {
  const snapshot = bn.snapshot();
  const halves = [x.subarray(0, x.length / 2), x.subarray(x.length / 2)];
  const slopes = [dy.subarray(0, dy.length / 2), dy.subarray(dy.length / 2)];
  const workers = halves.map(
    (half, i) =>
      new Worker(new URL("./half-batch.mjs", import.meta.url), {
        workerData: { snapshot, x: half.slice(), dy: slopes[i]!.slice() },
      }),
  );
  const all = () => Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
  const tell = (value: unknown) => {
    for (const worker of workers) worker.postMessage(value);
  };
  const exited = Promise.all(workers.map((worker) => once(worker, "exit")));
  tell(Moments.pool(await all()));
  tell(GradientSums.pool(await all()));
  const results = await all();
  await exited;
  return results;
}

console.log(
  `\nTwo threads against one, [${SHAPE.examples}, ${SHAPE.channels}] (goal: at most 1e-6), each of its ` +
    "largest value;\nthe running mean in σ, the running variance relative:",
);
for (const mean of [0, 100, 1e6]) {
  const size = SHAPE.examples * SHAPE.channels;
  const x = normal(size, 1, mean);
  const dy = normal(size, 2, 0.1);
  const bn = new BatchNorm(SHAPE.channels);
  bn.gamma!.set(normal(SHAPE.channels, 3, 1, 0.3));
  const threads = await onTwoThreads(bn, x, dy);
  bn.train(x);
  const one = bn.backward(dy);
  const { runningMean, runningVariance } = bn;
  const largest = (values: Values) => {
    const most = Math.max(...Array.from(values, Math.abs));
    return () => most;
  };
  const dx = Float32Array.from([...threads[0].dx, ...threads[1].dx]);
  const sigma = bn.lastBatch!.variance.map(Math.sqrt);
  print(
    `mean ${mean === 0 ? 0 : mean.toExponential(0)} σ`,
    {
      dx: apart(dx, one.dx, largest(one.dx)),
      dgamma: apart(threads[0].dgamma, one.dgamma!, largest(one.dgamma!)),
      dbeta: apart(threads[0].dbeta, one.dbeta!, largest(one.dbeta!)),
      mean: apart(threads[0].runningMean, runningMean, (c) => sigma[c]!),
      variance: apart(threads[0].runningVariance, runningVariance, (c) => runningVariance[c]!),
    },
    1e-6,
  );
}

console.log(missed === 0 ? "\nAll within." : `\n${missed} lines beyond their goal.`);
process.exitCode = missed === 0 ? 0 : 1;
