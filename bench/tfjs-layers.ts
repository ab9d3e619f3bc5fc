// `npm run bench:tfjs`: the layer of batchnorm-wasm/tfjs-layers against tf.layers.batchNormalization. Both run on
// tfjs' wasm backend, on one thread, on tensors of that backend. Three calls of a layer are timed:
//
//   infer  at test time
//   train  in training, with the moving averages
//   step   the same, and then the gradients of x, gamma and beta
//
// Every answer is compared with float64 before it is timed. The record is results/tfjs-layers/{kind of
// machine}.json. Fails if the step on [32, 56, 56, 64] is less than ten times as fast as tfjs' own.

import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type * as Tf from "@tensorflow/tfjs-core";
import { batchNormalization } from "../dist/tfjs-layers.js";
import { moments } from "../tests/support/oracle.js";
import { type Case, type Data, EPSILON, makeCase, makeData, type PeerOp } from "./cases.js";
import { commit, machine } from "./machine.js";
import { type Effort, measure } from "./measure.js";
import type { Answer, Peer, Session } from "./peers/peer.js";
import { type Measured, RESULTS, timeOf } from "./record.js";

// The copies of tfjs that dist/ imports. bench/ may have others, of its own.
const root = createRequire(new URL("../package.json", import.meta.url));
const tf: typeof Tf = root("@tensorflow/tfjs-core");
const { layers } = root("@tensorflow/tfjs-layers");
const { setThreadsCount, setWasmPaths } = root("@tensorflow/tfjs-backend-wasm");

const MOMENTUM = 0.9;
const BAR = 10;
const IMAGES = makeCase([32, 64, 56, 56], "NHWC");
const CASES = [IMAGES, makeCase([256, 256], "NC"), makeCase([64, 64], "NC")];
const CALLS: readonly PeerOp[] = ["infer", "train", "step"];
/** Long bursts, because a step of tfjs' own layer takes a second. */
const EFFORT: Effort = { rounds: 12, burst: 240 };
const OURS = "batchnorm-wasm";
const THEIRS = "tfjs";

type Make = (args: { momentum: number; epsilon: number }) => ReturnType<typeof batchNormalization>;

const side = (name: string, kind: Peer["kind"], make: Make): Peer => ({
  name,
  version: tf.version_core,
  kind,
  layouts: ["NC", "NHWC"],
  ops: CALLS,
  open: async (c, op, data) => open(name, make, c, op, data),
});

function open(name: string, make: Make, c: Case, op: PeerOp, data: Data): Session {
  const shape = [...c.shape];
  const x = tf.tensor(data.x, shape);
  const dy = tf.tensor(data.dy, shape);
  const layer = make({ momentum: MOMENTUM, epsilon: EPSILON });
  tf.dispose(layer.apply(x) as Tf.Tensor); // builds it
  const start = () => {
    const { gamma, beta, mean, variance } = data;
    tf.tidy(() => layer.setWeights([gamma, beta, mean, variance].map((v) => tf.tensor1d(v))));
  };
  start();

  const training = op !== "infer";
  const apply = () => layer.apply(x, { training }) as Tf.Tensor;
  const [gamma, beta] = layer.weights.map((weight) => weight.read());
  const gradients = tf.grads(apply);
  const call = (): Tf.Tensor[] => (op === "step" ? gradients([x, gamma, beta], dy) : [apply()]);

  return {
    answer(): Answer {
      start();
      const answers = call();
      if (training) checkAverages(name, c, data, layer.getWeights().slice(2));
      const [first, dgamma, dbeta] = answers.map((tensor) => tensor.dataSync<"float32">());
      tf.dispose(answers);
      return op === "step" ? { dx: first, dgamma, dbeta } : { y: first };
    },
    sample(calls) {
      const begin = performance.now();
      for (let i = 0; i < calls; i++) tf.dispose(call());
      return performance.now() - begin;
    },
    close: () => {
      tf.dispose([x, dy]);
      layer.dispose();
    },
  };
}

/** Throws unless one step moved the averages towards the statistics of x as far as the momentum says. */
function checkAverages(name: string, c: Case, data: Data, got: readonly Tf.Tensor[]): void {
  const now = moments(data.x, c);
  for (const [i, key] of (["mean", "variance"] as const).entries()) {
    got[i].dataSync().forEach((value, k) => {
      const expected = MOMENTUM * data[key][k] + (1 - MOMENTUM) * now[key][k];
      if (Math.abs(value - expected) <= 1e-5 * Math.max(1, Math.abs(expected))) return;
      throw new Error(`${name} gives a moving ${key}[${k}] of ${value}, not ${expected}`);
    });
  }
}

tf.env().set("IS_TEST", true); // no advertisement on standard output
setThreadsCount(1);
setWasmPaths(`${dirname(root.resolve("@tensorflow/tfjs-backend-wasm"))}/`);
if (!(await tf.setBackend("wasm"))) throw new Error("expected tfjs' wasm backend to start");
tf.env().set("IS_TEST", false); // nor a count of tensors at every operation

const sides = [
  side(OURS, "ours", batchNormalization),
  side(THEIRS, "javascript", layers.batchNormalization),
];
const cases: Measured[] = [];
for (const c of CASES) {
  const data = makeData(c);
  for (const op of CALLS) {
    const timings = await measure(c, op, data, sides, EFFORT);
    const measured = { name: c.name, layout: c.layout, size: c.size, op, timings };
    cases.push(measured);
    const [ours, theirs] = [OURS, THEIRS].map((name) => timeOf(measured, name) as number);
    console.log(
      `[${c.shape.join(", ")}]`.padEnd(18) +
        op.padEnd(6) +
        `${OURS} ${ours.toFixed(1).padStart(9)} µs   ` +
        `${THEIRS} ${theirs.toFixed(1).padStart(9)} µs   ` +
        `${(theirs / ours).toFixed(1).padStart(5)} times as fast`,
    );
  }
}

const folder = `${RESULTS}tfjs-layers/`;
mkdirSync(folder, { recursive: true });
const file = `${folder}${machine().kind}.json`;
const versions = { tfjs: tf.version_core, backend: "wasm, one thread" };
const result = {
  date: new Date().toISOString(),
  commit: commit(),
  machine: machine(),
  ...versions,
  effort: EFFORT,
  cases,
};
writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`);
console.log(`Kept: ${file.slice(fileURLToPath(new URL("..", import.meta.url)).length)}`);

const step = cases.find(({ name, op }) => name === IMAGES.name && op === "step") as Measured;
const times = (timeOf(step, THEIRS) as number) / (timeOf(step, OURS) as number);
if (times < BAR) {
  console.error(`step on [${IMAGES.shape.join(", ")}]: ${times.toFixed(1)} times, not ${BAR}`);
  process.exitCode = 1;
}
