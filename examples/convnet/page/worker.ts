/** The web worker: TensorFlow.js on its wasm backend, the digits of the playground, and the training. */

import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import binary from "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url";
import * as tf from "@tensorflow/tfjs-core";
import { answers, type Digits, PIXELS, pixels } from "../../mnist/digits.js";
import heldOutFile from "../../playground/data/held-out.bin?url";
import trainingFile from "../../playground/data/training.bin?url";
import { gunzip, unpackDigits } from "../../playground/src/packed.js";
import { registerGradients } from "../kernels.js";
import { foldNetwork, Served } from "../served.js";
import { median, type Side, train, WARM_UP } from "../train.js";
import type { Answer, Outcome, Request } from "./messages.js";

/** Milliseconds between two messages about the training. */
const PAUSE = 50;
/** Digits whose times are added up, since browsers round the time, to 0.1 ms or to 1 ms. */
const GROUP = 25;
/** Digits that the page shows with their answers. */
const SHOWN = 20;

const say = (answer: Answer) => postMessage(answer);

async function digitsOf(file: string): Promise<Digits> {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: ${response.status}`);
  return unpackDigits(await gunzip(new Uint8Array(await response.arrayBuffer())));
}

async function start(): Promise<{ digits: Digits; heldOut: Digits }> {
  // One thread, on all pages alike. With the right headers tfjs would take several.
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  // tfjs wants to know where all three binaries are, and loads this one.
  setWasmPaths({
    "tfjs-backend-wasm.wasm": binary,
    "tfjs-backend-wasm-simd.wasm": binary,
    "tfjs-backend-wasm-threaded-simd.wasm": binary,
  });
  if (!(await tf.setBackend("wasm"))) throw new Error("tfjs' wasm backend did not start.");
  registerGradients();
  const [digits, heldOut] = await Promise.all([trainingFile, heldOutFile].map(digitsOf));
  say({ kind: "ready", digits: digits.count, heldOut: heldOut.count });
  return { digits, heldOut };
}

const started = start();

async function run({ whose, steps }: Request): Promise<void> {
  const { digits, heldOut } = await started;
  let last = performance.now();
  const onStep = (step: number, [{ losses, times, network }]: readonly Side[]) => {
    const now = performance.now();
    if (now - last < PAUSE && step < steps) return;
    last = now;
    const recent = losses.slice(-10);
    const timed = times.length > WARM_UP ? times.slice(WARM_UP) : times;
    say({
      kind: "step",
      step,
      loss: recent.reduce((sum, loss) => sum + loss, 0) / recent.length,
      time: median(timed),
      means: Array.from(network.norms[0].runningMean),
    });
  };
  const [{ network }] = await train(digits, { sides: [whose], steps, seed: 1, onStep });
  say({ kind: "trained", ...outcomeOf(network, whose, heldOut) });
  network.dispose();
}

/** Answers the held-out digits one at a time. */
function outcomeOf(network: Side["network"], whose: Request["whose"], heldOut: Digits): Outcome {
  const served = whose === "ours" ? new Served(foldNetwork(network)) : null;
  const times: number[] = [];
  let group = 0;
  const examples: Outcome["examples"][number][] = [];
  let right = 0;
  let difference = served === null ? null : 0;
  for (let digit = 0; digit < heldOut.count; digit++) {
    const indices = Uint32Array.of(digit);
    const x = pixels(heldOut, indices);
    const start = performance.now();
    const scores = served === null ? network.predict(heldOut, indices) : served.scores(x);
    group += performance.now() - start;
    if (digit % GROUP === GROUP - 1) {
      times.push(group / GROUP);
      group = 0;
    }
    const [answer] = answers(scores);
    const label = heldOut.labels[digit];
    if (answer === label) right++;
    if (digit >= SHOWN) continue;
    examples.push({
      image: heldOut.images.slice(digit * PIXELS, (digit + 1) * PIXELS),
      answer,
      label,
    });
    if (difference === null) continue;
    const unfolded = network.predict(heldOut, indices);
    difference = Math.max(difference, ...scores.map((v, k) => Math.abs(v - unfolded[k])));
  }
  served?.dispose();
  return { accuracy: right / heldOut.count, one: median(times), difference, examples };
}

const failed = (error: unknown) => say({ kind: "failed", message: String(error) });
started.catch(failed);
addEventListener("message", ({ data }: MessageEvent<Request>) => {
  run(data).catch(failed);
});
