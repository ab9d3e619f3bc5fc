// The bars that the project has set itself, each beside what a record shows. Ratios are the
// other's time over ours in the same run, so more is better for us.

import type { Layout, Op } from "./cases.js";
import { FRESH, PLAIN, RESIDENT } from "./ours.js";
import { SET_PLAIN, SET_RESIDENT, THROUGH } from "./peers/copy.js";
import { type Measured, type Result, timeOf } from "./record.js";

export interface Bar {
  readonly what: string;
  readonly bar: string;
  readonly measured: string;
  /** null where what it takes is not in the record. A copy is no bar, but what one may be held against. */
  readonly pass: boolean | "copy" | null;
}

interface Ratio {
  readonly at: string;
  readonly value: number;
}

const OPS: readonly Op[] = ["infer", "train", "backward"];

export function bars(result: Result): Bar[] {
  return [
    ...againstJs(result),
    ...OPS.flatMap((op) => againstOnednn(result, op)),
    ...againstPytorch(result),
    againstCopy(result),
    ...["tfjs-wasm", "tfjs-cpu", "onnxruntime-web"].flatMap((peer) =>
      againstLibrary(result, peer, 2, 8),
    ),
    ...againstLibrary(result, "jax-js", 1, 3),
    ...plainAgainstJs(result),
    extraMemory(result),
  ];
}

function againstJs(result: Result): Bar[] {
  const shapes = ["[256,256]", "[32,64,56,56]"];
  const found = result.cases.filter((m) => shapes.includes(m.name) && m.op !== "backward");
  return found.flatMap((m) =>
    ratiosOf([m], "js", RESIDENT).map(({ at, value }) =>
      bar(`kernel memory against the JavaScript loop, ${at}`, value, "≥ 10", value >= 10),
    ),
  );
}

function againstOnednn(result: Result, op: Op): Bar[] {
  return (["NCHW", "NHWC"] as const).map((images) => {
    const ours = result.cases.filter(
      (m) => m.op === op && (m.layout === "NC" || m.layout === images),
    );
    const ratios = ours.flatMap((m) =>
      ratio(m, theirTime(result, m, "oneDNN"), timeOf(m, RESIDENT)),
    );
    const other = images === "NHWC" ? "" : " (its NHWC)";
    return geometric(
      `kernel memory against oneDNN${other}, ${op}, rows and ${images}`,
      ratios,
      1,
      0.8,
    );
  });
}

/** oneDNN's fast kernels are those for NHWC; our planes are held against them as well. */
export const theirTime = (result: Result, m: Measured, peer: string): number | undefined =>
  peer === "oneDNN" && m.layout === "NCHW"
    ? timeOf(find(result, m.name, "NHWC", m.op), peer)
    : timeOf(m, peer);

function againstPytorch(result: Result): Bar[] {
  const rows = (["infer", "train"] as const).map((op) => {
    const found = result.cases.filter((m) => m.op === op);
    return least(
      `kernel memory against PyTorch, ${op}, every shape`,
      ratiosOf(found, "PyTorch", RESIDENT),
      1,
    );
  });
  const ratios = ratiosOf(result.cases, "PyTorch", SET_RESIDENT);
  return [...rows, ...copied("Float32Array.set of as many against PyTorch, infer", ratios)];
}

/** What a bar would show if all that ours did was to move the values; nothing where it is not in the record. */
function copied(what: string, ratios: readonly Ratio[]): Bar[] {
  if (ratios.length === 0) return [];
  const { measured } = geometric(what, ratios, 0, 0);
  return [{ what, bar: "", measured, pass: "copy" }];
}

function againstCopy(result: Result): Bar {
  const what = "infer of 16 Mi floats in kernel memory against Float32Array.set of as many";
  const large = result.sizes.find((m) => m.op === "infer" && m.size === 2 ** 24);
  const copies = [SET_PLAIN, SET_RESIDENT].map((side) => timeOf(large, side));
  const ours = timeOf(large, RESIDENT);
  if (!ours || copies.some((time) => time === undefined)) return missing(what, "≥ 0.9");
  const value = Math.min(...(copies as number[])) / ours;
  return bar(what, value, "≥ 0.9", value >= 0.9);
}

/**
 * The libraries give back a fresh array. Ours can fill a given one, which spares the system's work
 * for fresh pages; both are shown.
 */
function againstLibrary(result: Result, peer: string, every: number, mean: number): Bar[] {
  const found = result.cases.filter((m) => m.op === "infer" || m.op === "train");
  return [PLAIN, FRESH].map((side) => {
    const into = side === PLAIN ? "into a given array" : "a fresh result";
    const what = `ordinary arrays, ${into}, against ${peer}, infer and train`;
    return geometric(what, ratiosOf(found, peer, side), mean, every);
  });
}

function plainAgainstJs(result: Result): Bar[] {
  const all = [...result.cases, ...result.sizes];
  const larger = all.filter((m) => m.size >= 4096);
  const what = "against the JavaScript loop";
  return [
    least(`ordinary arrays ${what}, every shape and size`, ratiosOf(all, "js", PLAIN), 1, "≥ 1"),
    least(`ordinary arrays ${what}, from 4,096 floats on`, ratiosOf(larger, "js", PLAIN), 3, "≥ 3"),
    ...copied(
      `copies in and out alone ${what}, infer, from 4,096 floats on`,
      ratiosOf(larger, "js", THROUGH),
    ),
  ];
}

function extraMemory(result: Result): Bar {
  const what = "extra memory of a call on ordinary arrays of 256 Mi floats";
  if (result.memory.length === 0) return missing(what, "< 8 MiB");
  const worst = result.memory.reduce((a, b) => (b.extraBytes > a.extraBytes ? b : a));
  return {
    what,
    bar: "< 8 MiB",
    measured: `${(worst.extraBytes / 2 ** 20).toFixed(1)} MiB (${worst.op})`,
    pass: worst.extraBytes < 8 * 2 ** 20,
  };
}

const find = (result: Result, name: string, layout: Layout, op: string): Measured | undefined =>
  result.cases.find((m) => m.name === name && m.layout === layout && m.op === op);

const ratio = (m: Measured, theirs: number | undefined, ours: number | undefined): Ratio[] =>
  theirs && ours ? [{ at: `${m.name} ${m.layout} ${m.op}`, value: theirs / ours }] : [];

const ratiosOf = (found: readonly Measured[], theirs: string, ours: string): Ratio[] =>
  found.flatMap((m) => ratio(m, timeOf(m, theirs), timeOf(m, ours)));

export const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

const smallest = (ratios: readonly Ratio[]): Ratio =>
  ratios.reduce((a, b) => (b.value < a.value ? b : a));

function geometric(what: string, ratios: readonly Ratio[], mean: number, every: number): Bar {
  const text = `geometric mean ≥ ${mean}, each ${every === 1 ? "> 1" : `≥ ${every}`}`;
  if (ratios.length === 0) return missing(what, text);
  const worst = smallest(ratios);
  const measured = geometricMean(ratios.map(({ value }) => value));
  return {
    what,
    bar: text,
    measured: `${number(measured)}, least ${number(worst.value)} at ${worst.at}`,
    pass: measured >= mean && (every === 1 ? worst.value > 1 : worst.value >= every),
  };
}

function least(what: string, ratios: readonly Ratio[], every: number, text = `> ${every}`): Bar {
  if (ratios.length === 0) return missing(what, text);
  const worst = smallest(ratios);
  const pass = text.startsWith("≥") ? worst.value >= every : worst.value > every;
  return { what, bar: text, measured: `least ${number(worst.value)} at ${worst.at}`, pass };
}

const bar = (what: string, value: number, text: string, pass: boolean): Bar => ({
  what,
  bar: text,
  measured: number(value),
  pass,
});

const missing = (what: string, text: string): Bar => ({
  what,
  bar: text,
  measured: "not measured",
  pass: null,
});

export const number = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
