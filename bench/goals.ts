// The goals that the project has set itself for its speed, each beside what a record shows; and how ours is
// compared with others. A ratio is the other's time over ours in the same run: more than 1, and ours is faster.

import type { Op } from "./cases.js";
import { FRESH, PLAIN, RESIDENT } from "./ours.js";
import { SET_PLAIN, SET_RESIDENT, THROUGH } from "./peers/copy.js";
import { type Measured, type Result, timeOf } from "./record.js";

export interface Goal {
  readonly what: string;
  readonly goal: string;
  readonly measured: string;
  /** null where the record does not have what it takes. */
  readonly met: boolean | null;
}

/** A ratio that a mere copy of the values would reach in our place. */
export interface CopyRatio {
  readonly what: string;
  readonly measured: string;
}

/** A ratio, and of what. */
export interface Ratio {
  readonly at: string;
  readonly value: number;
}

const OPS: readonly Op[] = ["infer", "train", "backward"];

export function goals(result: Result): Goal[] {
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

/** Of the goals that a copy alone comes near; none where the record has no copies. */
export function copyRatios(result: Result): CopyRatio[] {
  const copied = (what: string, ratios: readonly Ratio[]): CopyRatio[] =>
    ratios.length > 0 ? [{ what, measured: meanAndLeast(ratios) }] : [];
  return [
    ...copied(
      `${SET_RESIDENT} against PyTorch, infer`,
      ratiosOf(result.cases, "PyTorch", SET_RESIDENT),
    ),
    ...copied(
      `${THROUGH} against js, infer, from 4,096 floats on`,
      ratiosOf(larger(result), "js", THROUGH),
    ),
  ];
}

function againstJs(result: Result): Goal[] {
  const shapes = ["[256,256]", "[32,64,56,56]"];
  const found = result.cases.filter((m) => shapes.includes(m.name) && m.op !== "backward");
  return found.flatMap((m) =>
    ratiosOf([m], "js", RESIDENT).map(({ at, value }) =>
      goal(`${RESIDENT} against js, ${at}`, value, "≥ 10", value >= 10),
    ),
  );
}

function againstOnednn(result: Result, op: Op): Goal[] {
  return (["NCHW", "NHWC"] as const).map((images) => {
    const ours = result.cases.filter(
      (m) => m.op === op && (m.layout === "NC" || m.layout === images),
    );
    const ratios = ours.flatMap((m) =>
      ratio(m, theirTime(result.cases, m, "oneDNN"), timeOf(m, RESIDENT)),
    );
    const theirs = images === "NHWC" ? "oneDNN" : "oneDNN with NHWC";
    return geometric(`${RESIDENT} against ${theirs}, ${op}, NC and ${images}`, ratios, 1, 0.8);
  });
}

/** oneDNN's fast kernels are those for NHWC, so our NCHW is compared with its NHWC, which is among `cases`. */
export function theirTime(
  cases: readonly Measured[],
  m: Measured,
  peer: string,
): number | undefined {
  if (peer !== "oneDNN" || m.layout !== "NCHW") return timeOf(m, peer);
  const nhwc = cases.find((k) => k.name === m.name && k.layout === "NHWC" && k.op === m.op);
  return timeOf(nhwc, peer);
}

const againstPytorch = (result: Result): Goal[] =>
  (["infer", "train"] as const).map((op) => {
    const found = result.cases.filter((m) => m.op === op);
    const what = `${RESIDENT} against PyTorch, ${op}, every shape`;
    return least(what, ratiosOf(found, "PyTorch", RESIDENT), "> 1", (value) => value > 1);
  });

function againstCopy(result: Result): Goal {
  const what = `${RESIDENT} against the faster of ${SET_PLAIN} and ${SET_RESIDENT}, infer of 16 Mi floats`;
  const large = result.sizes.find((m) => m.op === "infer" && m.size === 2 ** 24);
  const copies = [SET_PLAIN, SET_RESIDENT].map((side) => timeOf(large, side));
  const ours = timeOf(large, RESIDENT);
  if (!ours || copies.some((time) => time === undefined)) return missing(what, "≥ 0.9");
  const value = Math.min(...(copies as number[])) / ours;
  return goal(what, value, "≥ 0.9", value >= 0.9);
}

/**
 * These libraries return a fresh array. Ours can fill a given one as well, which spares the system the work
 * of finding fresh memory. So both of our ways are compared with them.
 */
function againstLibrary(result: Result, peer: string, every: number, mean: number): Goal[] {
  const found = result.cases.filter((m) => m.op === "infer" || m.op === "train");
  return [PLAIN, FRESH].map((side) =>
    geometric(`${side} against ${peer}, infer and train`, ratiosOf(found, peer, side), mean, every),
  );
}

const larger = (result: Result): Measured[] =>
  [...result.cases, ...result.sizes].filter((m) => m.size >= 4096);

function plainAgainstJs(result: Result): Goal[] {
  const every = ratiosOf([...result.cases, ...result.sizes], "js", PLAIN);
  const fromLarger = ratiosOf(larger(result), "js", PLAIN);
  const what = `${PLAIN} against js`;
  return [
    least(`${what}, every shape and size`, every, "≥ 1", (value) => value >= 1),
    least(`${what}, from 4,096 floats on`, fromLarger, "≥ 3", (value) => value >= 3),
  ];
}

function extraMemory(result: Result): Goal {
  const what = `${PLAIN}, memory that a call on 256 Mi floats needs beside its arrays`;
  if (result.memory.length === 0) return missing(what, "< 8 MiB");
  const worst = result.memory.reduce((a, b) => (b.extraBytes > a.extraBytes ? b : a));
  return {
    what,
    goal: "< 8 MiB",
    measured: `${(worst.extraBytes / 2 ** 20).toFixed(1)} MiB (${worst.op})`,
    met: worst.extraBytes < 8 * 2 ** 20,
  };
}

const ratio = (m: Measured, theirs: number | undefined, ours: number | undefined): Ratio[] =>
  theirs && ours ? [{ at: `${m.name} ${m.layout} ${m.op}`, value: theirs / ours }] : [];

const ratiosOf = (found: readonly Measured[], theirs: string, ours: string): Ratio[] =>
  found.flatMap((m) => ratio(m, timeOf(m, theirs), timeOf(m, ours)));

export const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

export const smallest = (ratios: readonly Ratio[]): Ratio =>
  ratios.reduce((a, b) => (b.value < a.value ? b : a));

export function meanAndLeast(ratios: readonly Ratio[]): string {
  const worst = smallest(ratios);
  const mean = geometricMean(ratios.map(({ value }) => value));
  return `${number(mean)}, least ${number(worst.value)} at ${worst.at}`;
}

/** A goal for the geometric mean of the ratios, and one for each of them. */
function geometric(what: string, ratios: readonly Ratio[], mean: number, every: number): Goal {
  const text = `mean ≥ ${mean}, each ${every === 1 ? "> 1" : `≥ ${every}`}`;
  if (ratios.length === 0) return missing(what, text);
  const worst = smallest(ratios).value;
  const measured = geometricMean(ratios.map(({ value }) => value));
  return {
    what,
    goal: text,
    measured: meanAndLeast(ratios),
    met: measured >= mean && (every === 1 ? worst > 1 : worst >= every),
  };
}

/** A goal for the least of the ratios. */
function least(
  what: string,
  ratios: readonly Ratio[],
  text: string,
  isMet: (value: number) => boolean,
): Goal {
  if (ratios.length === 0) return missing(what, text);
  const { at, value } = smallest(ratios);
  return { what, goal: text, measured: `least ${number(value)} at ${at}`, met: isMet(value) };
}

const goal = (what: string, value: number, text: string, met: boolean): Goal => ({
  what,
  goal: text,
  measured: number(value),
  met,
});

const missing = (what: string, text: string): Goal => ({
  what,
  goal: text,
  measured: "not measured",
  met: null,
});

/** A ratio, with three digits. */
export const number = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
