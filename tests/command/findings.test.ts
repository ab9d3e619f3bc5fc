// What is found wrong in the numbers of a layer, and where the limits are.

import { BatchNorm } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { FAULTS, type FindingKind, findingsOf } from "../../src/command/findings.js";

/** A layer with nothing wrong. */
function sound(): BatchNorm {
  const bn = new BatchNorm(4, { epsilon: 1e-3 });
  bn.runningMean.set([0.5, -1, 2, 0]);
  bn.runningVariance.set([1, 2, 0.5, 4]);
  bn.batchesSeen = 10;
  return bn;
}

const CHANNEL_CASES: readonly (readonly [FindingKind, (bn: BatchNorm, c: number) => void])[] = [
  ["variance-not-finite", (bn, c) => (bn.runningVariance[c] = Number.NaN)],
  ["variance-not-finite", (bn, c) => (bn.runningVariance[c] = Infinity)],
  ["variance-not-finite", (bn, c) => (bn.runningVariance[c] = -Infinity)],
  ["variance-negative", (bn, c) => (bn.runningVariance[c] = -1e-30)],
  ["variance-zero", (bn, c) => (bn.runningVariance[c] = 0)],
  ["variance-zero", (bn, c) => (bn.runningVariance[c] = -0)],
  ["variance-tiny", (bn, c) => (bn.runningVariance[c] = 0.000999)],
  ["variance-tiny", (bn, c) => (bn.runningVariance[c] = 5e-324)],
  ["mean-not-finite", (bn, c) => (bn.runningMean[c] = -Infinity)],
  ["gamma-not-finite", (bn, c) => (bn.gamma![c] = Number.NaN)],
  ["gamma-zero", (bn, c) => (bn.gamma![c] = -0)],
  ["beta-not-finite", (bn, c) => (bn.beta![c] = Infinity)],
];

describe("findings", () => {
  test("of a sound layer: none", () => {
    expect(findingsOf(sound(), true)).toEqual([]);
  });

  test.each(CHANNEL_CASES)("%s, with its channels", (kind, damage) => {
    const bn = sound();
    damage(bn, 3);
    damage(bn, 1);
    const { severity } = FAULTS[kind];
    expect(findingsOf(bn, true)).toEqual([{ kind, severity, channels: [1, 3] }]);
  });

  test("a variance of epsilon is not small", () => {
    const bn = sound();
    bn.runningVariance[0] = bn.epsilon;
    expect(findingsOf(bn, true)).toEqual([]);
  });

  test("below epsilon, outputs spread by less than 1/√2 of gamma", () => {
    const spreadAt = (variance: number): number => {
      const bn = new BatchNorm(1, { epsilon: 0.25 });
      bn.runningVariance[0] = variance;
      return bn.infer(Float32Array.of(Math.sqrt(variance)))[0]!;
    };
    expect(spreadAt(0.25)).toBeCloseTo(Math.SQRT1_2, 6);
    expect(spreadAt(0.24)).toBeLessThan(Math.SQRT1_2);
  });

  test("errors are what test time refuses or answers with no numbers", () => {
    for (const [kind, damage] of CHANNEL_CASES) {
      const bn = sound();
      damage(bn, 2);
      let fails = false;
      try {
        fails = !bn.infer(new Float32Array(4).fill(1)).every(Number.isFinite);
      } catch {
        fails = true;
      }
      expect(fails, kind).toBe(FAULTS[kind].severity === "error");
    }
  });

  test("averages that never moved, and a counter at 0", () => {
    const bn = new BatchNorm(2);
    expect(findingsOf(bn, true).map(({ kind }) => kind)).toEqual(["averages-initial", "age-zero"]);
    bn.runningMean[1] = 1;
    expect(findingsOf(bn, true)).toEqual([
      { kind: "age-zero", severity: "warning", channels: null },
    ]);
  });

  test("an age that is not known is a fault only where files count", () => {
    const bn = sound();
    const state = { ...bn.snapshot(), ageKnown: false };
    const unknown = BatchNorm.fromSnapshot(state);
    expect(unknown.ageKnown).toBe(false);
    expect(findingsOf(unknown, false)).toEqual([]);
    expect(findingsOf(unknown, true)).toEqual([
      { kind: "age-unknown", severity: "warning", channels: null },
    ]);
  });

  test("several faults come in the order of the list, and a layer without gamma has none of it", () => {
    const bn = new BatchNorm(3, { gamma: false, beta: false });
    bn.batchesSeen = 1;
    bn.runningMean.set([1, Number.NaN, 3]);
    bn.runningVariance.set([0, Number.NaN, 1e-9]);
    expect(findingsOf(bn, true).map(({ kind, channels }) => [kind, channels])).toEqual([
      ["variance-not-finite", [1]],
      ["mean-not-finite", [1]],
      ["variance-zero", [0]],
      ["variance-tiny", [2]],
    ]);
  });
});
