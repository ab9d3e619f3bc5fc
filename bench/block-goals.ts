// The goals for the block, each beside what a record shows. As in goals.ts a ratio is the other's time over ours in the
// same run, ours being the block in one call, in kernel memory.

import { blockSide } from "./block-ours.js";
import type { After, Op } from "./cases.js";
import {
  type Goal,
  geometricMean,
  meanAndLeast,
  number,
  type Ratio,
  smallest,
  theirTime,
} from "./goals.js";
import { type BlockResult, timeOf } from "./record.js";

/** In one call, alone, and in steps, each in kernel memory. */
export const FUSED = blockSide("resident", "fused");
export const ALONE = blockSide("resident", "alone");
export const STEPS = [blockSide("resident", "ours"), blockSide("resident", "js")] as const;
export const PYTORCH = ["PyTorch", "PyTorch, in place"] as const;

/** From how many values on the block is to take no longer than batch norm alone. */
const SMALL = 1 << 14;

export function blockGoals(result: BlockResult): Goal[] {
  const ops: readonly Op[] = ["train", "backward"];
  return [
    ...(["infer", "train"] as const).map((op) => overAlone(result, op)),
    ...(["infer", "train", "backward"] as const).map((op) =>
      goalOf(
        `${FUSED} against the faster of its steps, relu, ${op}`,
        1.4,
        0,
        ratios(result, "relu", op, STEPS),
      ),
    ),
    ...ops.map((op) =>
      goalOf(
        `${FUSED} against PyTorch, add, relu, ${op}`,
        1.5,
        1,
        ratios(result, "add, relu", op, PYTORCH),
      ),
    ),
    ...ops.map((op) =>
      goalOf(
        `${FUSED} against oneDNN with NHWC, relu, ${op}`,
        1,
        0,
        ratios(result, "relu", op, ["oneDNN"]),
      ),
    ),
  ];
}

/** The time of the fastest of some sides over ours, for each shape that has both. */
export function ratios(
  result: BlockResult,
  after: After,
  op: Op,
  sides: readonly string[],
): Ratio[] {
  const cases = result.cases.filter((m) => m.after === after && m.op === op);
  return cases.flatMap((m) => {
    const times = sides.flatMap((side) => theirTime(cases, m, side) ?? []);
    const ours = timeOf(m, FUSED);
    if (times.length === 0 || !ours) return [];
    return [{ at: `${m.name} ${m.layout}`, value: Math.min(...times) / ours }];
  });
}

function overAlone(result: BlockResult, op: Op): Goal {
  const found = result.cases
    .filter((m) => m.after === "relu" && m.op === op && m.size >= SMALL)
    .flatMap((m) => {
      const [ours, alone] = [timeOf(m, FUSED), timeOf(m, ALONE)];
      return ours && alone ? [{ at: `${m.name} ${m.layout}`, value: ours / alone }] : [];
    });
  const what = `time of ${FUSED} over batch norm alone, relu, ${op}, from 16 Ki floats`;
  if (found.length === 0) return { what, goal: "≤ 1.05", measured: "not measured", met: null };
  const most = found.reduce((a, b) => (b.value > a.value ? b : a));
  const mean = number(geometricMean(found.map(({ value }) => value)));
  const measured = `mean ${mean}, most ${number(most.value)} at ${most.at}`;
  return { what, goal: "≤ 1.05", measured, met: most.value <= 1.05 };
}

/** A goal for the geometric mean; and, if `every` is not 0, each ratio is to be larger than that. */
function goalOf(what: string, mean: number, every: number, found: readonly Ratio[]): Goal {
  const goal = `mean ≥ ${mean}${every > 0 ? `, each > ${every}` : ""}`;
  if (found.length === 0) return { what, goal, measured: "not measured", met: null };
  const least = smallest(found);
  const value = geometricMean(found.map((ratio) => ratio.value));
  const measured = meanAndLeast(found);
  return { what, goal, measured, met: value >= mean && least.value > every };
}
