// What the benchmark says of the block: ratios, and the passes over memory beside them.

import { expect, test } from "vitest";
import { ALONE, FUSED, ratios, STEPS } from "../bench/block-goals.js";
import { blockPlots } from "../bench/block-report.js";
import { type After, type Layout, makeCase, type Op } from "../bench/cases.js";
import type { BlockResult, MeasuredBlock } from "../bench/record.js";

/** An operation of a shape, with the time of each side in microseconds. */
function row(
  layout: Layout,
  after: After,
  op: Op,
  times: Readonly<Record<string, number>>,
): MeasuredBlock {
  const { name, size } = makeCase([2, 3, 4, 4], layout);
  const timings = Object.entries(times).map(([side, time]) => ({ side, time, noise: 1, error: 0 }));
  return { name, layout, size, after, op, timings };
}

const run = (cases: readonly MeasuredBlock[]): BlockResult =>
  ({ machine: { cpu: "a processor" }, cases }) as unknown as BlockResult;

test("passes over memory: how often one call and separate steps read and write the tensor", () => {
  // Reads are in front of the arrow, writes behind it.
  const norm = { infer: ["x → y"], train: ["x →", "x → y"], backward: ["dy x →", "dy x → dx"] };
  const relu = { infer: ["y → out"], train: ["y → out"], backward: ["dy out → g"] };
  const add = { infer: ["y add → sum"], train: ["y add → sum"], backward: [] };
  const fused = {
    relu: { infer: ["x → out"], train: ["x →", "x → out"], backward: ["dy x → g", "g x → dx"] },
    "add, relu": {
      infer: ["x add → out"],
      train: ["x →", "x add → out"],
      backward: ["dy x add → dadd", "dadd x → dx"],
    },
  };
  const passes = (traversals: readonly string[]): number =>
    traversals
      .join(" ")
      .split(" ")
      .filter((word) => word !== "→").length;
  const expected: string[] = [];
  const cases: MeasuredBlock[] = [];
  for (const after of ["relu", "add, relu"] as const) {
    for (const op of ["infer", "train", "backward"] as const) {
      const steps = [...norm[op], ...relu[op], ...(after === "relu" ? [] : add[op])];
      const name = after === "relu" ? "ReLU" : "add, ReLU";
      expected.push(`${name}: ${op} (passes ${passes(steps)} : ${passes(fused[after][op])})`);
      cases.push(row("NCHW", after, op, { [FUSED]: 1, [ALONE]: 1 }));
    }
  }
  const [[file, spec]] = blockPlots(run(cases)) as [[string, { facet: { sort: string[] } }]];
  expect(file).toBe("block.svg");
  expect(spec.facet.sort).toEqual(expected);
});

test("ratios are of the fastest of some sides; our NCHW is compared with NHWC of oneDNN, of the same block", () => {
  const result = run([
    row("NCHW", "relu", "infer", { [FUSED]: 2, [STEPS[0]]: 8, [STEPS[1]]: 6, oneDNN: 10 }),
    row("NHWC", "add, relu", "infer", { [FUSED]: 1, oneDNN: 100 }),
    row("NHWC", "relu", "train", { [FUSED]: 1, oneDNN: 100 }),
    row("NHWC", "relu", "infer", { [FUSED]: 4, oneDNN: 5 }),
  ]);
  const valuesOf = (sides: readonly string[]) =>
    ratios(result, "relu", "infer", sides).map(({ value }) => value);
  expect(valuesOf(STEPS)).toEqual([3]);
  expect(valuesOf(["oneDNN"])).toEqual([2.5, 1.25]);
});
