import { assertNormalized, assertSameBits, assertWithin } from "../../support/compare.js";
import { type Shaped, sizeOf, viewOf } from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell } from "../values.js";

/** Test-time adaptation. */
export function adaptation({ checks, library, layerOf }: Suite): void {
  const { adapt, adapter } = library;
  const shaped: Shaped = { layout: "NC", shape: [24, 6] };
  const x = bell(sizeOf(shaped), 100, 4, 2);
  for (const prior of [0, 8, 1e6, Infinity]) {
    checks.check(`adapt with prior ${prior}`, () => {
      const layer = layerOf(shaped);
      const before = JSON.stringify(layer);
      const y = adapt(layer, x, { prior }).infer(x);
      expect(JSON.stringify(layer) === before, before, JSON.stringify(layer));
      const { mean, m2, count } = layer.moments(x);
      const w = prior === Infinity ? 1 : prior / (prior + count);
      const blend = (running: Float64Array, target: (c: number) => number): Float64Array =>
        running.map((v, c) => w * v + (1 - w) * target(c));
      assertNormalized(y, x, viewOf(shaped), {
        mean: blend(layer.runningMean, (c) => mean[c]!),
        variance: blend(layer.runningVariance, (c) => m2[c]! / count),
        gamma: layer.gamma,
        beta: layer.beta,
        epsilon: layer.epsilon,
      });
      if (prior === 0) assertWithin("as train", y, layer.clone().train(x), () => 2e-6);
      if (prior === Infinity) assertSameBits("as infer", y, layer.infer(x));
      checks.record(y);
    });
  }
  checks.check("adapter: targets one at a time", () => {
    const stream = adapter(layerOf(shaped), { prior: 16, memory: 8 });
    for (let n = 0; n < 24; n++) checks.record(stream.infer(x.subarray(6 * n, 6 * n + 6)));
    expect(stream.examples === 8, 8, stream.examples);
  });
}

/** The layer folded into its neighbour. */
export function folding({ checks, library: { fold }, layerOf }: Suite): void {
  const shaped: Shaped = { layout: "NC", shape: [1, 6] };
  const cases = [
    { kind: "linear", order: "OI", shape: [6, 10], into: "before" },
    { kind: "linear", order: "IO", shape: [6, 10], into: "after" },
    { kind: "conv", order: "OIHW", shape: [6, 3, 3, 3], into: "before" },
    { kind: "conv", order: "HWIO", shape: [3, 3, 1, 6], groups: 6, into: "before" },
    { kind: "conv", order: "OIHW", shape: [4, 6, 3, 3], into: "after", padding: 0 },
    { kind: "convTranspose", order: "IOHW", shape: [3, 6, 2, 2], into: "before" },
  ] as const;
  for (const [i, each] of cases.entries()) {
    const name = `fold: ${each.kind} ${each.order}, ${each.into} the layer`;
    checks.check(name, () => {
      const size = each.shape.reduce<number>((a, b) => a * b, 1);
      const { weight, bias, maxDifference } = fold(layerOf(shaped).freeze(), {
        ...each,
        weight: bell(size, 110 + i),
      });
      expect(maxDifference < 1e-4, "less than 1e-4", maxDifference);
      checks.record(weight, bias, maxDifference);
    });
  }
}
