// What `node scripts/size.mjs --parts` weighs without any check computes what the package computes: so the difference is
// checks, and nothing that a result needs.

import { fileURLToPath } from "node:url";
import { build, type OutputFile } from "esbuild";
import { describe, expect, it } from "vitest";
import { withoutChecks, withShortNames } from "../scripts/ablation.mjs";
import type { BatchNorm as Layer } from "../src/index.js";

const { outputFiles } = await build({
  stdin: {
    contents: 'export { BatchNorm } from "./dist/index.js"',
    resolveDir: fileURLToPath(new URL("..", import.meta.url)),
  },
  bundle: true,
  format: "esm",
  target: "es2022",
  write: false,
});
const whole = (outputFiles[0] as OutputFile).text;
const unchecked = withoutChecks(whole);

async function layerOf(code: string): Promise<typeof Layer> {
  const module = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  return module.BatchNorm;
}

/** Results of everything that computes, on two steps with a residual and one with a mask. */
function results(BatchNorm: typeof Layer, layout: "NHWC" | "NCHW"): unknown[] {
  const shape = layout === "NHWC" ? [6, 5, 7, 48] : [6, 48, 5, 7];
  const bn = new BatchNorm(48, { layout, activation: "relu" });
  const x = Float32Array.from({ length: 10080 }, (_, i) => Math.sin(i * 1.7) * 3 + (i % 5));
  const add = x.map((value) => Math.cos(value));
  const mask = Uint8Array.from({ length: 210 }, (_, i) => i % 5);
  const steps = [{ add }, { add }, { mask }].map((options) => [
    bn.train(x, { shape, ...options }),
    bn.backward(x),
    bn.backwardSums(x).toJSON(),
    bn.infer(x, { shape, ...options }),
  ]);
  const moments = bn.moments(x, { shape });
  const again = BatchNorm.fromSnapshot(JSON.stringify(bn));
  return [
    steps,
    moments.merge(moments).toJSON(),
    again.freeze().infer(x, { shape }),
    bn.snapshot(),
  ];
}

describe("a bundle without any check", () => {
  it.each(["NHWC", "NCHW"] as const)("computes the same bits in %s", async (layout) => {
    const [checked, bare] = await Promise.all([layerOf(whole), layerOf(unchecked)]);
    expect(results(bare, layout)).toEqual(results(checked, layout));
  });

  it("throws nothing, and has none of the messages", () => {
    expect(whole).toMatch(/throw new ShapeError/);
    expect(unchecked).not.toMatch(/\bthrow\b|memory of its own|at least two values/);
  });

  it("may have short names for all but what JavaScript has built in", async () => {
    const short = await withShortNames(unchecked);
    expect(short).not.toMatch(/runningMean\b(?!")/);
    expect(short).toMatch(/\.subarray\(/);
  });
});
