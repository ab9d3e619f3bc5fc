// Measures one point of growth.ts: `growth-child.ts OP FLOATS IN_PLACE` prints a JSON object.
//
// The extra memory of a call is how much the process grows between just before the layer is made and the end
// of its first call: the peak of the resident set, minus the resident set before. All arrays have been written
// by then, so they do not count as growth.

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

// In place, each call works on the result of the one before. With a scale of 1 the values stay as large as they are.
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

// A sample is as many calls as take a millisecond. What counts is the fastest sample of half a second, and of
// at least five samples.
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
