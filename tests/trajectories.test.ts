// Long trajectories of the running averages against their closed forms in float64, after every
// step: the plain mean for `decay: "cumulative"`, the weighted one of `debias`.

import { BatchNorm, type BatchNormOptions } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { stateOf } from "./support/cases.js";
import { assertWithin } from "./support/compare.js";
import { random } from "./support/data.js";
import { sum } from "./support/oracle.js";

const CHANNELS = 3;
const STEPS = 2000;
const ERROR = 1e-12;

/** Per channel. */
interface Values {
  mean: number[];
  variance: number[];
}

/**
 * A mini-batch whose statistics are known to the last bit: half of the values of a channel lie at
 * mean + deviation, half at mean - deviation, all of them few binary digits long. Batches differ in
 * size, and in their values by powers of ten.
 */
function batchOf(seed: number): { x: Float32Array; count: number } & Values {
  const next = random(seed);
  const count = 2 * (1 + Math.floor(next() * 6));
  const drawn = (): number => (1 + Math.floor(next() * 255)) * 4 ** Math.floor(next() * 5);
  const mean = Array.from({ length: CHANNELS }, drawn);
  const deviation = Array.from({ length: CHANNELS }, drawn);
  const x = Float32Array.from({ length: count * CHANNELS }, (_, i) => {
    const c = i % CHANNELS;
    return mean[c]! + (i < CHANNELS * (count / 2) ? deviation[c]! : -deviation[c]!);
  });
  return { x, count, mean, variance: deviation.map((d) => d * d) };
}

/** The averages as a list of all batches that entered them gives them. */
type ClosedForm = (of: readonly number[]) => number;

const plain: ClosedForm = (of) => sum(of) / of.length;

/** Σ decay^(t-i)·new_i·(1 - decay)/(1 - decay^t). */
function debiased(decay: number): ClosedForm {
  const powers = Float64Array.from({ length: STEPS }, (_, k) => decay ** k);
  return (of) => {
    const t = of.length;
    // 1 - decay^t without its cancellation.
    const total = decay === 0 ? 1 : -Math.expm1(t * Math.log(decay));
    // All positive: plain summation is exact to a few times 1e-15 here.
    let weighted = 0;
    for (let i = 0; i < t; i++) weighted += powers[t - 1 - i]! * of[i]!;
    return (weighted * (1 - decay)) / total;
  };
}

const FORMS: readonly (readonly [BatchNormOptions, ClosedForm])[] = [
  [{ decay: "cumulative" }, plain],
  [{ decay: "cumulative", runningVarianceOf: "population" }, plain],
  [{ decay: "cumulative", debias: true }, plain],
  ...[0, 0.5, 0.9, 0.99, 0.999].map((decay) => [{ decay, debias: true }, debiased(decay)] as const),
  [{ decay: 0.9, debias: true, runningVarianceOf: "population" }, debiased(0.9)],
];

/** A layer, and what entered its averages: per channel, all of it. */
class Trajectory {
  readonly means: number[][] = Array.from({ length: CHANNELS }, () => []);
  readonly variances: number[][] = Array.from({ length: CHANNELS }, () => []);

  constructor(
    readonly layer: BatchNorm,
    readonly form: ClosedForm,
  ) {}

  /** Takes a batch that enters the averages. */
  enter({ count, mean, variance }: ReturnType<typeof batchOf>): void {
    const correction = this.layer.runningVarianceOf === "sample" ? count / (count - 1) : 1;
    for (let c = 0; c < CHANNELS; c++) {
      this.means[c]!.push(mean[c]!);
      this.variances[c]!.push(variance[c]! * correction);
    }
  }

  forget(): void {
    for (const list of [...this.means, ...this.variances]) list.length = 0;
  }

  /** All that is relative to the value itself: nothing here is negative. */
  assert(): void {
    const { runningMean, runningVariance, batchesSeen } = this.layer;
    expect(batchesSeen).toBe(this.means[0]!.length);
    if (batchesSeen === 0) return;
    const [mean, variance] = [this.means, this.variances].map((all) => all.map(this.form));
    assertWithin("runningMean", runningMean, mean!, (c) => ERROR * mean![c]!);
    assertWithin("runningVariance", runningVariance, variance!, (c) => ERROR * variance![c]!);
  }
}

test("the statistics of these batches are exact", () => {
  for (let seed = 1; seed < 50; seed++) {
    const { x, mean, variance } = batchOf(seed);
    const layer = new BatchNorm(CHANNELS);
    layer.train(x);
    expect([...layer.lastBatch!.mean]).toEqual(mean);
    expect([...layer.lastBatch!.variance]).toEqual(variance);
  }
});

describe.each(FORMS)("%o", (options, form) => {
  test(`after each of ${STEPS} steps`, () => {
    const trajectory = new Trajectory(new BatchNorm(CHANNELS, options), form);
    for (let t = 1; t <= STEPS; t++) {
      const batch = batchOf(t);
      trajectory.layer.train(batch.x);
      trajectory.enter(batch);
      trajectory.assert();
    }
  });

  test("with steps that move nothing, pooled ones, reset, snapshot and restore between", () => {
    const next = random(3);
    const trajectory = new Trajectory(new BatchNorm(CHANNELS, options), form);
    const { layer } = trajectory;
    let resets = 0;
    for (let t = 1; t <= 400; t++) {
      const batch = batchOf(t);
      const turn = next();
      if (turn < 0.2) {
        const before = stateOf(layer);
        layer.train(batch.x, { updateRunning: false });
        layer.train(batch.x, { statistics: "running" });
        layer.train(batch.x, { statistics: layer.moments(batch.x), updateRunning: false });
        expect(stateOf(layer)).toBe(before);
      } else if (turn < 0.25) {
        // Steps that are taken back.
        const snapshot = JSON.stringify(layer.snapshot());
        for (let k = 0; k < 5; k++) layer.train(batchOf(t + k).x);
        layer.restore(snapshot);
      } else if (turn < 0.26) {
        layer.reset();
        trajectory.forget();
        resets++;
      } else {
        if (turn < 0.5) layer.train(batch.x, { statistics: layer.moments(batch.x) });
        else layer.train(batch.x);
        trajectory.enter(batch);
      }
      trajectory.assert();
    }
    expect(resets).toBeGreaterThan(1);
  });

  test("a layer made of a snapshot, and a clone, go on as the layer itself", () => {
    const trajectory = new Trajectory(new BatchNorm(CHANNELS, options), form);
    for (let t = 1; t <= 37; t++) {
      trajectory.layer.train(batchOf(t).x);
      trajectory.enter(batchOf(t));
    }
    const { layer } = trajectory;
    const others = [BatchNorm.fromSnapshot(JSON.stringify(layer.snapshot())), layer.clone()];
    for (let t = 38; t <= 80; t++) {
      const batch = batchOf(t);
      for (const each of [layer, ...others]) each.train(batch.x);
      trajectory.enter(batch);
      trajectory.assert();
    }
    for (const other of others) expect(stateOf(other)).toBe(stateOf(layer));
  });
});
