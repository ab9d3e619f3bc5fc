/**
 * `npm run convnet`, in the repository's root: trains the network on the 60,000 MNIST digits, with the batch norm of
 * this package and with TensorFlow.js' own in turns, and serves the first one folded, one test digit at a time.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { loadMnist } from "../mnist/data.js";
import { answers, CLASSES, type Digits, pixels } from "../mnist/digits.js";
import { startProgress } from "../mnist/progress.js";
import { startBackend } from "./backend.js";
import type { Network } from "./network.js";
import { type Folded, foldNetwork, Served } from "./served.js";
import { BATCH_SIZE } from "./sizes.js";
import { accuracyOf, median, type Side, train, WARM_UP } from "./train.js";

const HELP = `Trains a convolutional network on the MNIST digits, with the batch norm of this package
and with TensorFlow.js' own in turns, and serves the first one folded.

  npm run convnet -- [options]

  --steps N   mini-batches of ${BATCH_SIZE} (default 1000)
  --seed N    of the initial weights and the order of the digits (default 1)
  --seeds N   how often to train, each time with the next seed (default 1)
  --help      this text
`;

/** Digits that tfjs' own layers answer one at a time, only to see how long that takes. */
const ALONE = 1000;
const OUT = fileURLToPath(new URL("./out/", import.meta.url));

type Data = ReturnType<typeof loadMnist>;

/** What one training gives. */
interface Result {
  readonly seed: number;
  /** Test accuracies: the two networks, and the folded one; shares, 0 … 1. */
  readonly accuracy: { ours: number; tfjs: number; folded: number };
  /** Milliseconds of a step of training: the median, and the least. */
  readonly step: { ours: readonly [number, number]; tfjs: readonly [number, number] };
  /** Milliseconds for one digit: the median, and how long 99 of 100 take at most. */
  readonly one: { folded: readonly [number, number]; tfjs: readonly [number, number] };
  /** The largest difference of a score between the folded network and the one that was trained. */
  readonly difference: number;
}

async function trained(digits: Data, steps: number, seed: number): Promise<readonly Side[]> {
  const progress = startProgress("training", steps);
  const onStep = (step: number, sides: readonly Side[]) => {
    const loss = sides.map(({ losses }) => mean(losses.slice(-50)).toFixed(3));
    progress.update(step, `loss ${loss[0]} ours, ${loss[1]} tfjs`);
    return setImmediate(); // the progress bar's timer may have something to do
  };
  try {
    return await train(digits.train, { sides: ["ours", "tfjs"], steps, seed, onStep });
  } finally {
    progress.stop();
  }
}

function measured([ours, tfjs]: readonly Side[], { test }: Data, seed: number): Result {
  const folded = foldNetwork(ours.network);
  writeNetwork(folded);
  const { share, times, difference } = servedOneByOne(folded, ours.network, tfjs.network, test);
  return {
    seed,
    accuracy: {
      ours: accuracyOf(ours.network, test),
      tfjs: accuracyOf(tfjs.network, test),
      folded: share,
    },
    step: { ours: stepTimes(ours), tfjs: stepTimes(tfjs) },
    one: { folded: middleAndMost(times.folded), tfjs: middleAndMost(times.tfjs) },
    difference,
  };
}

function writeNetwork(folded: Folded): void {
  mkdirSync(OUT, { recursive: true });
  const plain = folded.layers.map((one) => ({
    ...one,
    weight: [...one.weight],
    bias: [...one.bias],
  }));
  writeFileSync(`${OUT}network.json`, JSON.stringify(plain));
}

/**
 * Has the folded network answer one digit after the other, and those that were trained the first ones: the share of right
 * answers, the milliseconds that each took, and the largest difference of a score to the unfolded network.
 */
function servedOneByOne(folded: Folded, ours: Network, tfjs: Network, test: Digits) {
  const served = new Served(folded);
  const times = { folded: [] as number[], tfjs: [] as number[] };
  const scores = new Float32Array(test.count * CLASSES);
  let difference = 0;
  for (let digit = 0; digit < test.count; digit++) {
    const x = pixels(test, Uint32Array.of(digit));
    const start = performance.now();
    const answer = served.scores(x);
    times.folded.push(performance.now() - start);
    scores.set(answer, digit * CLASSES);
    if (digit >= ALONE) continue;
    const unfolded = predict(ours, test, digit);
    difference = Math.max(difference, ...answer.map((v, k) => Math.abs(v - unfolded[k])));
    const startTfjs = performance.now();
    predict(tfjs, test, digit);
    times.tfjs.push(performance.now() - startTfjs);
  }
  served.dispose();
  const right = answers(scores).filter((answer, i) => answer === test.labels[i]).length;
  return { share: right / test.count, times, difference };
}

/** Milliseconds of a step: the median, and the least. */
function stepTimes({ times }: Side): readonly [number, number] {
  const timed = times.slice(Math.min(WARM_UP, times.length - 1));
  return [median(timed), Math.min(...timed)];
}

const predict = (network: Network, digits: Digits, digit: number) =>
  network.predict(digits, Uint32Array.of(digit));

function middleAndMost(times: readonly number[]): readonly [number, number] {
  const sorted = times.slice(WARM_UP).sort((a, b) => a - b);
  return [median(sorted), sorted[Math.floor(0.99 * sorted.length)]];
}

const mean = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;
const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
const milliseconds = (time: number) => `${time.toFixed(time < 1 ? 3 : 1)} ms`;

function textOf({ seed, accuracy, step, one, difference }: Result): string {
  const times = step.tfjs[0] / step.ours[0];
  const rows = [
    [`seed ${seed}`, "this package", "tfjs' own layers"],
    ["test accuracy", percent(accuracy.ours), percent(accuracy.tfjs)],
    ["a training step, median", ...[step.ours[0], step.tfjs[0]].map(milliseconds)],
    ["  the fastest", ...[step.ours[1], step.tfjs[1]].map(milliseconds)],
    ["one digit, median", ...[one.folded[0], one.tfjs[0]].map(milliseconds)],
    ["  99 of 100 within", ...[one.folded[1], one.tfjs[1]].map(milliseconds)],
  ];
  const table = rows.map(
    ([what, ours, tfjs]) => `${what.padEnd(26)}${ours.padStart(14)}${tfjs.padStart(20)}`,
  );
  return `${table.join("\n")}

A step is ${times.toFixed(2)} times as fast as with tfjs' own layers. One digit at a time, the folded
network answers ${percent(accuracy.folded)} rightly; its scores differ from those before folding
by ${difference.toExponential(1)} at most.
`;
}

async function main(steps: number, first: number, seeds: number): Promise<void> {
  const digits = loadMnist();
  await startBackend();
  console.log(`${digits.train.count} digits to train on, ${digits.test.count} to test with.`);
  const results: Result[] = [];
  for (let seed = first; seed < first + seeds; seed++) {
    const sides = await trained(digits, steps, seed);
    const result = measured(sides, digits, seed);
    results.push(result);
    console.log(`\n${textOf(result)}`);
    for (const { network } of sides) network.dispose();
  }
  if (seeds > 1) {
    const means = (["ours", "tfjs", "folded"] as const).map((key) =>
      percent(mean(results.map(({ accuracy }) => accuracy[key]))),
    );
    console.log(
      `Test accuracy, mean of ${seeds}: ${means[0]} with this package, ${means[1]} with tfjs' own layers.`,
    );
  }
  const load = loadavg()[0].toFixed(1);
  console.log(
    `${cpus()[0]?.model.trim()}, Node ${process.versions.node}; load of the machine ${load}.`,
  );
  writeFileSync(`${OUT}results.json`, JSON.stringify({ steps, results }, null, 1));
}

/** A whole number above 0, or the end of the program with a message. */
function whole(flag: string, text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text);
  console.error(`${flag}: expected a whole number from 1 to 9999999, got "${text}".\n\n${HELP}`);
  process.exit(2);
}

const options = {
  steps: { type: "string", default: "1000" },
  seed: { type: "string", default: "1" },
  seeds: { type: "string", default: "1" },
  help: { type: "boolean", short: "h", default: false },
} as const;
const { values } = parseArgs({ options });
if (values.help) console.log(HELP);
else {
  const { steps, seed, seeds } = values;
  await main(whole("--steps", steps), whole("--seed", seed), whole("--seeds", seeds));
}
