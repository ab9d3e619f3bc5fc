import {
  BatchNorm,
  calibrate,
  diagnose,
  NonFiniteError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import { describe, expect, it } from "vitest";
import { stateOf } from "./support/cases.js";
import { normal } from "./support/data.js";

const C = 4;

/** A layer whose averages are those of normal data. */
function trained(mean = 0, sigma = 1, options = {}): BatchNorm {
  const bn = new BatchNorm(C, options);
  bn.setRunning(bn.moments(normal(20000 * C, 1, mean, sigma)));
  return bn;
}

describe("the verdict", () => {
  it("fit, for data like those of training", () => {
    const { verdict, advice } = diagnose(trained(5, 2), normal(500 * C, 2, 5, 2));
    expect([verdict, advice]).toEqual([
      "fit",
      "The running averages fit these data, as far as 500 values per channel tell.",
    ]);
  });

  it("fit, as far as they tell, for so few data that large differences may be chance", () => {
    const { advice, channels } = diagnose(
      trained(1),
      Float32Array.from({ length: 3 * C }, (_, i) => i / 9),
    );
    expect(advice).toBe(
      "The running averages fit these data, as far as 3 values per channel tell.",
    );
    expect(Math.max(...channels.varianceRatio)).toBeGreaterThan(4);
  });

  it("untrained, while the averages are 0 and 1", () => {
    const bn = new BatchNorm(C);
    expect(diagnose(bn, normal(500 * C, 3)).verdict).toBe("untrained");
    bn.runningMean.fill(1); // written by hand
    expect(diagnose(bn, normal(500 * C, 3, 1)).verdict).toBe("fit");
    const trainedToo = new BatchNorm(C);
    trainedToo.batchesSeen = 500; // 0 and 1 are what came of it
    expect(diagnose(trainedToo, normal(500 * C, 3)).verdict).toBe("fit");
  });

  it("undertrained, while they hold much of their start, until calibrate", async () => {
    const bn = new BatchNorm(C, { decay: 0.99 });
    for (let step = 0; step < 50; step++) bn.train(normal(60 * C, 10 + step, 5, 3));
    const x = normal(1000 * C, 4, 5, 3);
    const { verdict, advice, batchesSeen } = diagnose(bn, x);
    expect(verdict).toBe("undertrained");
    expect(advice).toMatch(/^After 50 mini-batches the running averages still hold 60.5 % of/);
    expect(batchesSeen).toBe(50);
    await calibrate([bn], (batch: Float32Array) => bn.train(batch), [x]);
    expect(diagnose(bn, x).verdict).toBe("fit");
  });

  it("undertrained, where batch renormalization averages deviations", () => {
    for (const sigma of [0.05, 3, 100]) {
      const renorm = { rmax: 3, dmax: 5, decay: 0.99 };
      const bn = new BatchNorm(C, { decay: 0.99, renorm });
      for (let step = 0; step < 50; step++) bn.train(normal(60 * C, 10 + step, 5, sigma));
      const x = normal(1000 * C, 4, 5, sigma);
      expect(diagnose(bn, x).verdict).toBe("undertrained");
      expect(diagnose(bn, normal(1000 * C, 4, 5, 20 * sigma)).verdict).toBe("drifted");
    }
  });

  it.each([{ decay: "cumulative" }, { decay: 0.99, debias: true }, { decay: 0.9 }] as const)(
    "never undertrained where nothing of the start is held: %o",
    (options) => {
      const bn = new BatchNorm(C, options);
      for (let step = 0; step < 50; step++) bn.train(normal(60 * C, 10 + step, 5, 3));
      expect(diagnose(bn, normal(1000 * C, 4, 5, 3)).verdict).toBe("fit");
      expect(diagnose(bn, normal(1000 * C, 4, 9, 3)).verdict).toBe("drifted");
    },
  );

  it("drifted and not undertrained, for averages that were written before any training", () => {
    const bn = new BatchNorm(C);
    bn.runningVariance.fill(0.25);
    expect(diagnose(bn, normal(500 * C, 5, 0, 3)).verdict).toBe("drifted");
  });

  it("drifted, by the mean or by the variance, each way", () => {
    const bn = trained(5, 2);
    for (const [mean, sigma] of [
      [7, 2],
      [3, 2],
      [5, 4],
      [5, 1],
    ] as const) {
      const { verdict, channels } = diagnose(bn, normal(500 * C, 5, mean, sigma));
      expect(verdict).toBe("drifted");
      for (let c = 0; c < C; c++) {
        expect(channels.meanDrift[c]).toBeCloseTo((5 - mean) / sigma, 0);
        expect(channels.varianceRatio[c]! / (4 / sigma ** 2)).toBeCloseTo(1, 0);
      }
    }
  });

  it("epsilon, where it is more than the variance", () => {
    const bn = trained(0, 1e-3);
    const { verdict, channels } = diagnose(bn, normal(500 * C, 6, 0, 1e-3));
    expect([verdict, channels.epsilonDominates]).toEqual(["epsilon", [0, 1, 2, 3]]);
  });

  it("dead, where nothing varies", () => {
    const bn = new BatchNorm(C);
    const x = normal(500 * C, 7).map((v, i) => (i % C === 2 ? 0.25 : v));
    bn.setRunning(bn.moments(x));
    const { verdict, channels } = diagnose(bn, x);
    expect([verdict, channels.dead, channels.epsilonDominates]).toEqual(["dead", [2], []]);
    expect([channels.meanDrift[2], channels.varianceRatio[2]]).toEqual([0, 1]);
  });
});

it.each(["sample", "population"] as const)("numbers are those of the formulas, %s", (kind) => {
  const bn = new BatchNorm(C, { epsilon: 0.5, runningVarianceOf: kind });
  bn.runningMean.set([1, -2, 0, 4]);
  bn.runningVariance.set([1, 4, 0.25, 9]);
  const x = normal(100 * C, 8, 1, 2);
  const moments = bn.moments(x);
  const variance = moments.variance(kind);
  const { meanDrift, varianceRatio } = diagnose(bn, x).channels;
  for (let c = 0; c < C; c++) {
    const root = Math.sqrt(variance[c]! + 0.5);
    expect(meanDrift[c]).toBeCloseTo((bn.runningMean[c]! - moments.mean[c]!) / root, 12);
    expect(varianceRatio[c]).toBeCloseTo((bn.runningVariance[c]! + 0.5) / root ** 2, 12);
  }
});

describe("chance", () => {
  it.each([8, 32, 128, 1000])("raises no alarm with %i values", (m) => {
    const bn = trained(5, 2);
    let alarms = 0;
    for (let seed = 0; seed < 300; seed++) {
      if (diagnose(bn, normal(m * C, 1000 + seed, 5, 2)).verdict !== "fit") alarms++;
    }
    expect(alarms).toBeLessThanOrEqual(m < 32 ? 30 : 3);
  });

  it("hides no shift of one sigma from 100 values", () => {
    const bn = trained(5, 2);
    for (let seed = 0; seed < 100; seed++) {
      expect(diagnose(bn, normal(100 * C, 2000 + seed, 7, 2)).verdict).toBe("drifted");
    }
  });
});

it("takes shapes and masks", () => {
  const bn = new BatchNorm(2, { layout: "NCL" });
  const x = normal(50 * 2 * 6, 9);
  bn.setRunning(bn.moments(x, { shape: [50, 2, 6] }));
  for (let i = 0; i < x.length; i += 6) x[i] = NaN;
  const mask = Uint8Array.from({ length: 300 }, (_, i) => i % 6);
  expect(diagnose(bn, x, { shape: [50, 2, 6], mask }).verdict).toBe("fit");
  expect(() => diagnose(bn, x, { shape: [50, 2, 6] })).toThrow(NonFiniteError);
});

it("is readable", () => {
  const bn = new BatchNorm(20);
  bn.runningMean.fill(3);
  bn.batchesSeen = 200;
  const x = Float32Array.from({ length: 400 }, (_, i) => ((i / 20) & 1 ? 1 : -1));
  expect(String(diagnose(bn, x))).toBe(
    [
      "drifted: 20 of 20 channels are off, by up to 2.92 standard deviations and a factor of 1.05 in variance: if these data are like those of training, calibrate; if the world has changed, adapt.",
      "  mini-batches seen   200",
      "  channels off        20 (0, 1, 2, 3, 4, 5, 6, 7, …)",
      "  mean drift          up to 2.92 standard deviations (channel 0)",
      "  variance ratio      0.95 to 0.95",
      "  below epsilon       none",
      "  dead                none",
    ].join("\n"),
  );
});

it.each<[string, (bn: BatchNorm) => void, RegExp]>([
  ["a mean NaN", (bn) => bn.runningMean.fill(NaN, 1, 2), /^runningMean: .*got NaN for channel 1$/],
  ["a mean infinite", (bn) => bn.runningMean.fill(-Infinity, 3), /^runningMean: .*for channel 3$/],
  ["a variance NaN", (bn) => bn.runningVariance.fill(NaN, 2, 3), /^runningVariance: .*channel 2$/],
  ["a variance below 0", (bn) => bn.runningVariance.fill(-1, 0, 1), /^runningVariance: .*got -1/],
  ["half a batch seen", (bn) => (bn.batchesSeen = 0.5), /^batchesSeen: .*got 0.5$/],
])("averages that fit no data, %s: StateError", (_, spoil, message) => {
  const bn = trained();
  spoil(bn);
  const before = stateOf(bn);
  expect(() => diagnose(bn, normal(400, 4))).toThrow(StateError);
  expect(() => diagnose(bn, normal(400, 4))).toThrow(message);
  expect(stateOf(bn)).toBe(before);
});

it("changes nothing, and refuses what has no variance", () => {
  const bn = trained();
  bn.train(normal(20, 3));
  const before = bn.snapshot();
  const last = bn.lastBatch;
  diagnose(bn, normal(40, 4));
  expect(() => diagnose(bn, normal(C, 4))).toThrow(SingleValueError);
  expect(() => diagnose(bn, new Float32Array(0))).toThrow(SingleValueError);
  expect(() => diagnose(bn, normal(8, 4), { out: 1 } as never)).toThrow('got "out"');
  expect(bn.snapshot()).toEqual(before);
  expect(bn.lastBatch).toBe(last);
});
