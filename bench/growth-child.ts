// One point of growth.ts: `growth-child.ts OP FLOATS IN_PLACE` prints a JSON object. Extra memory is
// the peak of the resident set from before the layer is made until after its first call, less what
// was resident before: the arrays are touched by then, so that is all that the call takes.

import { readFileSync, writeFileSync } from "node:fs";
import { BatchNorm } from "../dist/index.js";
import type { Op } from "./cases.js";
import type { Growth } from "./record.js";

const CHANNELS = 64;
const [op, floats, inPlace] = [process.argv[2] as Op, Number(process.argv[3]), process.argv[4]];

function values(length: number): Float32Array {
  const array = new Float32Array(length);
  const first = Math.min(length, 65536);
  for (let i = 0; i < first; i++) array[i] = Math.fround(Math.sin(i * 12.9898) * 1.7);
  for (let at = first; at < length; at += first) {
    array.set(array.subarray(0, Math.min(first, length - at)), at);
  }
  return array;
}

const status = (field: string): number =>
  1024 *
  Number(
    new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "utf8"))?.[1],
  );

const onLinux = process.platform === "linux";
const residentNow = (): number => (onLinux ? status("VmRSS") : process.memoryUsage.rss());
const peak = (): number => (onLinux ? status("VmHWM") : 1024 * process.resourceUsage().maxRSS);

const x = values(floats);
const dy = op === "backward" ? values(floats) : x;
const fill = (array: Float32Array) => array.fill(1);
const out = inPlace === "true" ? dy : fill(new Float32Array(floats));
const options = { out };
const gradients = {
  out: { dx: out, dgamma: new Float32Array(CHANNELS), dbeta: new Float32Array(CHANNELS) },
};

globalThis.gc?.();
if (onLinux) writeFileSync("/proc/self/clear_refs", "5"); // proc(5): resets the peak
const before = residentNow();

// Called in place over and over, the values must neither grow nor fade away: scale is 1.
const bn = new BatchNorm(CHANNELS);
bn.gamma?.fill(Math.sqrt(1 + bn.epsilon));
let call: () => unknown = () => bn.infer(x, options);
if (op === "train") call = () => bn.train(x, options);
if (op === "backward") {
  bn.train(x, options);
  const variance = bn.lastBatch?.variance ?? [];
  bn.gamma?.set(Array.from(variance, (v) => Math.sqrt(v + bn.epsilon)));
  call = () => bn.backward(dy, gradients);
}
call();
const extraBytes = Math.max(0, peak() - before);

// A sample is as many calls as take a millisecond; the least of half a second's, or of five.
const time = (calls: number): number => {
  const start = performance.now();
  for (let i = 0; i < calls; i++) call();
  return (performance.now() - start) / calls;
};
let calls = 1;
while (time(calls) * calls < 1 && calls < 2 ** 20) calls *= 2;
let least = Number.POSITIVE_INFINITY;
const end = performance.now() + 500;
for (let samples = 0; samples < 5 || performance.now() < end; samples++) {
  least = Math.min(least, time(calls));
}

const arrays = new Set([x, dy, out]).size;
const point: Growth = {
  op,
  floats,
  nanoseconds: (least * 1e6) / floats,
  extraBytes,
  arrayBytes: 4 * floats * arrays,
};
process.stdout.write(JSON.stringify(point));
