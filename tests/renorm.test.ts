// Batch renormalization (Ioffe 2017, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized
// Models", algorithm 1 and section 3), against its formulas in float64.

import {
  BatchNorm,
  type BatchNormOptions,
  calibrate,
  OptionError,
  type Renorm,
  StateError,
} from "batchnorm-wasm";
import { load, readTorch, save } from "batchnorm-wasm/state";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  channelsOf,
  layerOf,
  product,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
} from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal } from "./support/data.js";
import { DX_ERROR, SUM_ERROR, Y_ERROR } from "./support/limits.js";
import { check } from "./support/property.js";

interface Averages {
  readonly mean: readonly number[];
  readonly variance: readonly number[];
}

const averagesOf = (bn: BatchNorm): Averages => ({
  mean: [...bn.runningMean],
  variance: [...bn.runningVariance],
});

/** The indices of a channel's values. */
function* valuesOf({ layout, shape }: Shaped, c: number): Generator<number> {
  const channels = channelsOf({ layout, shape });
  const inner = layout[1] === "C" ? product(shape.slice(2)) : 1;
  for (let i = 0; i < product(shape); i++) if (Math.floor(i / inner) % channels === c) yield i;
}

const clip = (v: number, low: number, high: number): number => Math.min(high, Math.max(low, v));

/** Algorithm 1 and its gradient for one channel, in float64. The averages are those before the batch. */
function oracle(
  x: Float32Array,
  dy: Float32Array,
  at: readonly number[],
  bn: BatchNorm,
  { mean: running, variance: spread }: Averages,
  { rmax, dmax, rmin = 1 / rmax }: Renorm,
  c: number,
) {
  const m = at.length;
  const mean = at.reduce((s, i) => s + (x[i]! - x[at[0]!]!), 0) / m + x[at[0]!]!;
  const variance = at.reduce((s, i) => s + (x[i]! - mean) ** 2, 0) / m;
  const sigma = Math.sqrt(variance + bn.epsilon);
  const s = Math.sqrt(spread[c]! + bn.epsilon);
  const r = clip(sigma / s, rmin, rmax);
  const d = clip((mean - running[c]!) / s, -dmax, dmax);
  const [gamma, beta] = [bn.gamma?.[c] ?? 1, bn.beta?.[c] ?? 0];
  const normed = at.map((i) => (x[i]! - mean) / sigma);
  const dbeta = at.reduce((sum, i) => sum + dy[i]!, 0);
  const product = at.reduce((sum, i, k) => sum + dy[i]! * normed[k]!, 0);
  return {
    r,
    d,
    y: normed.map((n) => gamma * (r * n + d) + beta),
    // The largest of what meets in y.
    size: normed.map((n) =>
      Math.max(1, Math.abs(gamma * r * n), Math.abs(gamma * d) + Math.abs(beta)),
    ),
    dx: at.map((i, k) => ((gamma * r) / sigma) * (dy[i]! - dbeta / m - (normed[k]! * product) / m)),
    dxSize: Math.max(...at.map((i) => Math.abs((gamma * r * dy[i]!) / sigma))),
    dgamma: r * product + d * dbeta,
    dgammaSize: at.reduce(
      (sum, i, k) => sum + Math.abs(dy[i]!) * (Math.abs(r * normed[k]!) + Math.abs(d)),
      0,
    ),
    dbeta,
  };
}

function expectWithin(name: string, got: number, wanted: number, limit: number): void {
  if (!(Math.abs(got - wanted) <= limit)) {
    throw new Error(`${name}: ${got}, where ${wanted} is right within ${limit}`);
  }
}

/** A `train` and a `backward`, held against the oracle in every channel. */
function expectRight(bn: BatchNorm, shaped: Shaped, x: Float32Array, dy: Float32Array): void {
  const before = averagesOf(bn);
  const { shape } = shaped;
  const y = bn.train(x, { shape });
  const { dx, dgamma, dbeta } = bn.backward(dy);
  const { r, d } = bn.lastBatch!;
  for (let c = 0; c < bn.channels; c++) {
    const at = [...valuesOf(shaped, c)];
    const right = oracle(x, dy, at, bn, before, bn.renorm!, c);
    expectWithin("r", r![c]!, right.r, 1e-6 * right.r);
    expectWithin("d", d![c]!, right.d, 1e-6 * Math.max(1, Math.abs(right.d)));
    at.forEach((i, k) => {
      expectWithin(`y[${i}]`, y[i]!, right.y[k]!, 2 * Y_ERROR * right.size[k]!);
      expectWithin(`dx[${i}]`, dx[i]!, right.dx[k]!, 2 * DX_ERROR * right.dxSize);
    });
    if (dgamma) expectWithin("dgamma", dgamma[c]!, right.dgamma, 2 * SUM_ERROR * right.dgammaSize);
    if (dbeta) expectWithin("dbeta", dbeta[c]!, right.dbeta, SUM_ERROR * right.dgammaSize + 1e-5);
  }
}

const LIMITS = fc.constantFrom<Renorm>(
  { rmax: 3, dmax: 5 },
  { rmax: 1, dmax: 0 },
  { rmax: 1.5, dmax: 0.25 },
  { rmax: Infinity, dmax: Infinity, rmin: 0 },
  { rmax: 2, dmax: 1, rmin: 0.9 },
);

const FREE: Renorm = { rmax: Infinity, dmax: Infinity, rmin: 0 };

describe("train and backward", () => {
  it("any layout, shape and limits: as the formulas in float64", () => {
    check(
      fc.property(
        shapes(4, 3000),
        LIMITS,
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(0, 3, 300),
        seeds,
        (shaped, renorm, gamma, beta, mean, seed) => {
          const bn = settle(layerOf(shaped, { renorm, gamma, beta }, seed), seed, mean, 1.5);
          const x = normal(sizeOf(shaped), seed, mean, 1.5);
          expectRight(bn, shaped, x, normal(sizeOf(shaped), seed + 1));
        },
      ),
      80,
    );
  });

  it("rmax 1 and dmax 0 are plain batch normalization, bit for bit", () => {
    for (const shaped of [
      { layout: "NC", shape: [40, 7] },
      { layout: "NCHW", shape: [6, 5, 9, 9] },
      { layout: "NHWC", shape: [6, 9, 9, 5] },
    ] as const) {
      const x = normal(sizeOf(shaped), 3, 2, 3);
      const dy = normal(sizeOf(shaped), 4);
      const [plain, one] = [{}, { renorm: { rmax: 1, dmax: 0 } }].map((options) => {
        const bn = settle(layerOf(shaped, options));
        const y = bn.train(x, { shape: shaped.shape });
        return { y, ...bn.backward(dy), averages: bn.runningMean, spread: bn.runningVariance };
      });
      assertSameBits("y", one!.y, plain!.y);
      assertSameBits("dx", one!.dx, plain!.dx);
      assertSameBits("dgamma", one!.dgamma!, plain!.dgamma!);
      assertSameBits("dbeta", one!.dbeta!, plain!.dbeta!);
      expect([...one!.averages]).toEqual([...plain!.averages]);
      expect([...one!.spread]).toEqual([...plain!.spread]);
    }
  });

  it("without limits: what infer gives by the averages of before, but with a gradient through the batch", () => {
    const bn = settle(layerOf({ layout: "NC", shape: [50, 6] }, { renorm: FREE }));
    const x = normal(300, 9, 1, 2);
    const before = bn.infer(x);
    bn.train(x).forEach((y, i) => {
      expect(y).toBeCloseTo(before[i]!, 5);
    });
  });

  it("activation, residual and mask: the bits of the separate steps", () => {
    const shaped = { layout: "NCHW", shape: [5, 4, 6, 6] } as const;
    const { shape } = shaped;
    const renorm = { rmax: 1.4, dmax: 0.5 };
    const [x, add, dy] = [2, 3, 4].map((seed) => normal(sizeOf(shaped), seed, 0.5)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const mask = Uint8Array.from({ length: 180 }, (_, i) => (i % 5 === 1 ? 0 : 1));
    for (const masked of [undefined, mask] as const) {
      const plain = settle(layerOf(shaped, { renorm }));
      const block = settle(layerOf(shaped, { renorm, activation: [-0.75, 0.5] }));
      const given = masked === undefined ? { shape } : { shape, mask: masked };
      const inner = plain.train(x, given);
      const y = block.train(x, { ...given, add });
      const sum = inner.map((v, i) => v + add[i]!);
      const isData = (i: number) =>
        masked === undefined || masked[Math.floor(i / 144) * 36 + (i % 36)] !== 0;
      const limit = (v: number) => Math.min(0.5, Math.max(-0.75, v));
      assertSameBits(
        "y",
        y,
        sum.map((v, i) => limit(isData(i) ? v : inner[i]!)),
      );
      const kept = dy.map((v, i) => (isData(i) && sum[i]! > -0.75 && sum[i]! < 0.5 ? v : 0));
      const [a, b] = [plain.backward(kept), block.backward(dy)];
      assertSameBits("dx", b.dx, a.dx);
      assertSameBits("dgamma", b.dgamma!, a.dgamma!);
      assertSameBits("dadd", b.dadd!, kept);
      const [s, t] = [plain.backwardSums(kept), block.backwardSums(dy)];
      expect([...t.sumDyXmu]).toEqual([...s.sumDyXmu]);
    }
  });

  it("by running averages, by pooled moments and while calibrate runs: not corrected", async () => {
    const x = normal(60, 4, 3, 2);
    const bn = settle(layerOf({ layout: "NC", shape: [20, 3] }, { renorm: { rmax: 3, dmax: 5 } }));
    const plain = bn.clone();
    plain.renorm = null;
    const moments = bn.moments(x);
    for (const statistics of ["running", moments] as const) {
      assertSameBits("y", bn.train(x, { statistics }), plain.train(x, { statistics }));
      expect([bn.lastBatch!.r, bn.lastBatch!.d]).toEqual([null, null]);
    }
    const seen: Float32Array[] = [];
    await calibrate([bn], (batch: Float32Array) => seen.push(bn.train(batch)), [x]);
    assertSameBits("y", seen[0]!, plain.train(x, { updateRunning: false }));
  });

  it("channels without any spread, of the batch or of the averages, are finite", () => {
    for (const renorm of [{ rmax: 3, dmax: 5 }, FREE]) {
      const x = Float32Array.of(1, 5, 2, 5, 3, 5);
      const bn = new BatchNorm(2, { epsilon: 0, renorm });
      bn.runningVariance[0] = 0;
      const y = bn.train(x);
      expect([...y].every(Number.isFinite)).toBe(true);
      expect([y[1], y[3], y[5]]).toEqual([5, 5, 5]); // x̂ 0, d (5 - 0)/1
      // The averages of channel 0 say nothing.
      expect([bn.lastBatch!.r![0], bn.lastBatch!.d![0]]).toEqual([1, 0]);
      const { dx, dgamma } = bn.backward(y);
      expect([...dx, ...dgamma!].every(Number.isFinite)).toBe(true);
    }
  });

  it("an invalid running variance is refused, and nothing has changed", () => {
    const bn = new BatchNorm(2, { renorm: { rmax: 3, dmax: 5 } });
    bn.runningVariance[1] = -1;
    const before = bn.snapshot();
    const out = new Float32Array(6);
    expect(() => bn.train(Float32Array.of(1, 2, 3, 4, 5, 7), { out })).toThrow(StateError);
    expect(bn.snapshot()).toEqual(before);
    expect([...out, bn.lastBatch]).toEqual([0, 0, 0, 0, 0, 0, null]);
  });
});

describe("trajectories", () => {
  const C = 3;
  const batch = (step: number) => normal(16 * C, 100 + step, Math.sin(step), 1 + (step % 3));
  const dyOf = (step: number) => normal(16 * C, 500 + step);
  const shaped = { layout: "NC", shape: [16, C] } as const;

  /**
   * A channel of the code of sbx (BatchRenorm in sbx/common/jax_layers.py), in float64, which normalizes by a mean and
   * a variance that have r and d in them; and how far it may be from the paper's formula, as ε is in another place.
   */
  function sbx(own: readonly number[], ra: number, raVariance: number, isWarm: boolean) {
    const epsilon = 1e-3;
    const m = own.reduce((s, v) => s + v, 0) / own.length;
    const variance = own.reduce((s, v) => s + (v - m) ** 2, 0) / own.length;
    const spread = Math.sqrt(raVariance + epsilon);
    const r = isWarm ? clip(Math.sqrt(variance + epsilon) / spread, 1 / 3, 3) : 1;
    const d = isWarm ? clip((m - ra) / spread, -5, 5) : 0;
    const center = m - (d * Math.sqrt(variance)) / r;
    const y = own.map((v) => (v - center) / Math.sqrt(variance / r ** 2 + epsilon));
    const share = epsilon / variance;
    const apart = own.map(
      (v) =>
        (share / 2) *
        ((Math.abs(r * r - 1) * Math.abs(r * (v - m))) / Math.sqrt(variance) + r * r * Math.abs(d)),
    );
    return { mean: m, variance, y, apart };
  }

  it("sbx' BatchRenorm: plain for the first steps, then r within [1/3, 3] and d within ±5", () => {
    const [warm, steps] = [10, 30]; // 100,000 there
    const bn = new BatchNorm(C, {
      epsilon: 1e-3,
      decay: 0.99,
      runningVarianceOf: "population",
    });
    const mean = new Float64Array(C);
    const variance = new Float64Array(C).fill(1);
    for (let step = 0; step < steps; step++) {
      if (step === warm) bn.renorm = { rmax: 3, dmax: 5 };
      const [x, dy] = [batch(step), dyOf(step)];
      if (bn.renorm !== null) expectRight(bn.clone(), shaped, x, dy);
      const y = bn.train(x);
      for (let c = 0; c < C; c++) {
        const at = [...valuesOf(shaped, c)];
        const theirs = sbx(
          at.map((i) => x[i]!),
          mean[c]!,
          variance[c]!,
          step >= warm,
        );
        at.forEach((i, k) => {
          expectWithin(`y[${i}]`, y[i]!, theirs.y[k]!, theirs.apart[k]! + 4e-6);
        });
        mean[c] = 0.99 * mean[c]! + 0.01 * theirs.mean;
        variance[c] = 0.99 * variance[c]! + 0.01 * theirs.variance;
        expect(bn.runningMean[c]).toBeCloseTo(mean[c]!, 6);
        expect(bn.runningVariance[c]).toBeCloseTo(variance[c]!, 6);
      }
    }
  });

  it.each([
    ["the same momentum", 0.9, FREE],
    ["a momentum of their own", 0.5, FREE],
    ["limits", 0.9, { rmax: 1.2, dmax: 0.3, rmin: 0 }],
    ["a plain average of all mini-batches beside it", "cumulative", FREE],
  ] as const)("Keras 3, which averages standard deviations: with %s", (_, own, limits) => {
    const epsilon = 1e-3;
    const momentum = own === "cumulative" ? 0 : 0.9;
    const renormMomentum = own === "cumulative" ? 0.7 : own;
    const bn =
      own === "cumulative"
        ? new BatchNorm(C, { epsilon, decay: own, runningVarianceOf: "population" })
        : BatchNorm.keras(C, { momentum, epsilon });
    bn.renorm = { ...limits, decay: renormMomentum };
    bn.runningVariance.fill(1 - epsilon); // Keras begins with a deviation of 1
    // Keras' weights: moving_mean, moving_stddev, renorm_mean, renorm_stddev.
    const weights = Array.from({ length: C }, () => ({ mean: 0, stddev: 1, rMean: 0, rStddev: 1 }));
    for (let step = 0; step < 30; step++) {
      const x = batch(step);
      const y = bn.train(x);
      weights.forEach((w, c) => {
        const at = [...valuesOf(shaped, c)];
        const m = at.reduce((s, i) => s + x[i]!, 0) / at.length;
        const v = at.reduce((s, i) => s + (x[i]! - m) ** 2, 0) / at.length;
        const stddev = Math.sqrt(v + epsilon);
        const s = Math.max(w.rStddev, Math.sqrt(epsilon));
        const r = clip(stddev / s, limits.rmin!, limits.rmax);
        const d = clip((m - w.rMean) / s, -limits.dmax, limits.dmax);
        for (const i of at) expect(y[i]).toBeCloseTo(((x[i]! - m) / stddev) * r + d, 5);
        const old = own === "cumulative" ? step / (step + 1) : momentum;
        w.mean = old * w.mean + (1 - old) * m;
        w.stddev = old * w.stddev + (1 - old) * stddev;
        w.rMean = renormMomentum * w.rMean + (1 - renormMomentum) * m;
        w.rStddev = renormMomentum * w.rStddev + (1 - renormMomentum) * stddev;
        expect(bn.runningMean[c]).toBeCloseTo(w.mean, 6);
        expect(bn.runningVariance[c]).toBeCloseTo(Math.max(0, w.stddev ** 2 - epsilon), 6);
        expect(bn.renormMean[c]).toBeCloseTo(w.rMean, 6);
        expect(bn.renormDeviation[c]).toBeCloseTo(w.rStddev, 6);
      });
    }
  });

  it("a schedule is a line between steps", () => {
    const bn = new BatchNorm(C, { renorm: { rmax: 1, dmax: 0 } });
    for (let step = 0; step < 20; step++) {
      bn.renorm = { rmax: Math.min(3, 1 + step / 5), dmax: Math.min(5, step / 4) };
      expectRight(bn, shaped, batch(step), dyOf(step));
    }
  });
});

describe("the option", () => {
  it("has rmin 1/rmax by default, and cannot be changed from outside", () => {
    const given = { rmax: 4, dmax: 2 };
    const bn = new BatchNorm(2, { renorm: given });
    given.rmax = 9;
    expect(bn.renorm).toEqual({ rmax: 4, dmax: 2, rmin: 0.25 });
    expect(Object.isFrozen(bn.renorm)).toBe(true);
    // Both ends of the range of `decay`: the averages are those of the latest mini-batch, or never move.
    for (const decay of [0, 1]) {
      bn.renorm = { ...given, decay };
      expect(bn.renorm!.decay).toBe(decay);
    }
    bn.renorm = null;
    expect(bn.renorm).toBeNull();
    expect(new BatchNorm(2).renorm).toBeNull();
  });

  it.each([
    { rmax: 0.5, dmax: 1 },
    { rmax: NaN, dmax: 1 },
    { rmax: 3 },
    { rmax: 3, dmax: -1 },
    { rmax: 3, dmax: 1, rmin: 2 },
    { rmax: 3, dmax: 1, rmin: -1 },
    { rmax: "3", dmax: 1 },
    { rMax: 3, dmax: 1 },
    { rmax: 3, dmax: 1, decay: 1.5 },
    { rmax: 3, dmax: 1, decay: null },
    [3, 5],
    3,
    true,
  ])("refuses %o", (renorm) => {
    expect(() => new BatchNorm(2, { renorm } as never)).toThrow(OptionError);
    const bn = new BatchNorm(2, { renorm: { rmax: 3, dmax: 5 } });
    expect(() => Object.assign(bn, { renorm })).toThrow(OptionError);
    expect(bn.renorm!.rmax).toBe(3);
  });

  it("goes into snapshots, clones and our own file; restore leaves it", () => {
    const options: BatchNormOptions = { renorm: { rmax: 3, dmax: 5 } };
    const bn = new BatchNorm(2, options);
    bn.renorm = { rmax: Infinity, dmax: 0.1, rmin: 0 };
    const wanted = { rmax: Infinity, dmax: 0.1, rmin: 0 };
    const text = JSON.stringify(bn.snapshot());
    expect(JSON.parse(text).version).toBe(2);
    expect(BatchNorm.fromSnapshot(text).renorm).toEqual(wanted);
    expect(bn.clone().renorm).toEqual(wanted);
    expect(load(save({ bn })).bn!.renorm).toEqual(wanted);
    const other = new BatchNorm(2);
    other.restore(text);
    expect(other.renorm).toBeNull();
    for (const renorm of [{ rmax: 0, dmax: 0 }, { rmax: 1 }, 4]) {
      expect(() => BatchNorm.fromSnapshot({ ...bn.snapshot(), renorm } as never)).toThrow(
        /^snapshot\.renorm/,
      );
    }
  });
});

describe("averages of its own", () => {
  const renorm = { rmax: 3, dmax: 5, decay: 0.7 };
  const trained = (): BatchNorm => {
    const bn = new BatchNorm(2, { renorm });
    for (let step = 0; step < 5; step++) bn.train(normal(40, step, 3, 2));
    return bn;
  };
  const numbersOf = (bn: BatchNorm) => [...bn.renormMean, ...bn.renormDeviation];

  it("are 0 and 1 at first, and are not touched without a decay", () => {
    const bn = new BatchNorm(2, { renorm: { rmax: 3, dmax: 5 } });
    bn.train(normal(40, 1, 3, 2));
    expect(numbersOf(bn)).toEqual([0, 0, 1, 1]);
    expect("decay" in bn.renorm!).toBe(false);
  });

  it("a deviation below √ε counts as √ε, as in Keras", () => {
    const bn = new BatchNorm(1, { epsilon: 0.25, renorm: { ...FREE, decay: 1 } });
    for (const deviation of [0, 0.25, 0.5, 2]) {
      bn.renormDeviation[0] = deviation;
      bn.train(Float32Array.of(1, 2, 3, 6));
      const s = Math.max(0.5, deviation);
      expect(bn.lastBatch!.r![0]).toBeCloseTo(Math.sqrt(14 / 4 + 0.25) / s, 12);
      expect(bn.lastBatch!.d![0]).toBeCloseTo(3 / s, 12);
    }
  });

  it("a running variance of 0 does not fall below 0 by rounding", () => {
    const epsilon = 1e-3;
    expect(Math.sqrt(epsilon) ** 2).toBeLessThan(epsilon);
    const bn = new BatchNorm(1, { epsilon, decay: 0, renorm });
    bn.train(Float32Array.of(5, 5, 5));
    expect(bn.runningVariance[0]).toBe(0);
  });

  it("the deviation is that of the population, the running variance as the layer's option says", () => {
    const [population, sample] = (["population", "sample"] as const).map(
      (runningVarianceOf) => new BatchNorm(1, { decay: 0, epsilon: 0, runningVarianceOf, renorm }),
    ) as [BatchNorm, BatchNorm];
    for (const bn of [population, sample]) bn.train(Float32Array.of(1, 2, 3, 6));
    for (const bn of [population, sample]) {
      expect(bn.renormDeviation[0]).toBeCloseTo(0.7 + 0.3 * Math.sqrt(14 / 4), 12);
    }
    expect(population.runningVariance[0]).toBeCloseTo(14 / 4, 12);
    expect(sample.runningVariance[0]).toBeCloseTo(14 / 3, 12);
  });

  it("stay with updateRunning: false, by running statistics and while calibrate runs", async () => {
    const bn = trained();
    const before = numbersOf(bn);
    const x = normal(40, 9, 3, 2);
    bn.train(x, { updateRunning: false });
    bn.train(x, { statistics: "running" });
    await calibrate([bn], (each: Float32Array) => void bn.train(each), [x]);
    expect(numbersOf(bn)).toEqual(before);
    // Pooled moments are not corrected, but they are of a mini-batch that is averaged.
    bn.train(x, { statistics: bn.moments(x) });
    expect(bn.lastBatch!.r).toBeNull();
    expect(numbersOf(bn)).not.toEqual(before);
  });

  it("a weight of 1 replaces what stands in the averages, exactly, whatever its size", () => {
    const x = normal(40, 3, 1e-12, 1e-15);
    for (const options of [{ decay: 0 }, { decay: "cumulative" }, { debias: true }] as const) {
      for (const epsilon of [0, 1e-3, 1e30]) {
        for (const kind of ["sample", "population"] as const) {
          const one = { rmax: 3, dmax: 5, decay: 0 };
          const bn = new BatchNorm(2, {
            ...options,
            epsilon,
            renorm: one,
            runningVarianceOf: kind,
          });
          const plain = new BatchNorm(2, { ...options, epsilon, runningVarianceOf: kind });
          for (const each of [bn, plain]) each.runningMean.fill(1e10);
          bn.renormMean.fill(1e10);
          bn.renormDeviation.fill(1e10);
          bn.train(x);
          plain.train(x);
          const { mean, variance } = bn.lastBatch!;
          expect([...bn.renormMean, ...bn.runningMean]).toEqual([...mean, ...mean]);
          expect([...bn.renormDeviation]).toEqual([...variance].map((v) => Math.sqrt(v + epsilon)));
          expect([...bn.runningVariance]).toEqual([...plain.runningVariance]);
        }
      }
    }
  });

  it("the running variance keeps its digits beside any ε: as with integers of any length", () => {
    /** The square root, rounded down, of a whole number. */
    const root = (n: bigint): bigint => {
      let guess = n;
      for (let next = (n + 1n) / 2n; next < guess; next = (guess + n / guess) / 2n) guess = next;
      return guess;
    };
    const unit = 2 ** 140;
    const fixed = (v: number): bigint => BigInt(v * unit) * 2n ** 500n;
    for (const [epsilon, sigma, initial] of [
      [1e-3, 1e-9, 1e-17],
      [1, 1e-12, 1e-22],
      [2 ** 80, 1, 1],
      [1e-5, 1, 1],
      [0, 1e-15, 1],
      [2 ** -20, 1e6, 0],
    ] as const) {
      for (const decay of [0.5, 0.99, 2 ** -20]) {
        const bn = new BatchNorm(1, { epsilon, decay, renorm, runningVarianceOf: "population" });
        bn.runningVariance[0] = initial;
        bn.train(normal(64, 8, 0, sigma));
        const [from, to, e] = [initial, bn.lastBatch!.variance[0]!, epsilon].map(fixed);
        const weight = BigInt((1 - decay) * 2 ** 60);
        const [r, s] = [root((from! + e!) << 1000n), root((to! + e!) << 1000n)];
        const deviation = ((2n ** 60n - weight) * r + weight * s) >> 60n;
        const exact = (deviation * deviation - (e! << 1000n)) >> 1000n;
        const wanted = Number(exact >> 400n) / unit / 2 ** 100;
        expectWithin("runningVariance", bn.runningVariance[0]!, wanted, 4e-15 * wanted);
      }
    }
  });

  it("go into snapshots, clones and our own file, to the bit; training goes on alike", () => {
    const bn = trained();
    const text = JSON.stringify(bn.snapshot());
    const other = new BatchNorm(2, { renorm });
    other.restore(text);
    const plain = new BatchNorm(2);
    plain.train(normal(40, 3));
    // A snapshot without them leaves them.
    const kept = trained();
    kept.restore(plain.snapshot());
    expect(numbersOf(kept)).toEqual(numbersOf(bn));
    expect([...kept.runningMean]).toEqual([...plain.runningMean]);
    const file = load(save({ bn, plain }));
    // Written over a file that has them, a layer without them takes them out.
    expect(save({ bn: plain }, { into: save({ bn }) })).toEqual(save({ bn: plain }));
    // PyTorch's reader gives the numbers, and says that there is more.
    const warned: string[] = [];
    const onWarning = (text: string) => warned.push(text);
    const torch = readTorch(save({ bn })).load("bn", { eps: 1e-5, momentum: 0.1, onWarning });
    expect([torch.runningMean, torch.renorm]).toEqual([bn.runningMean, null]);
    expect(warned).toEqual([
      'module "bn": was written by save with all its options, which load(bytes) reads',
    ]);
    const same = [BatchNorm.fromSnapshot(text), other, bn.clone(), file.bn!];
    const y = bn.clone().train(normal(40, 77));
    for (const each of same) {
      expect(numbersOf(each)).toEqual(numbersOf(bn));
      assertSameBits("y", each.train(normal(40, 77)), y);
    }
    expect("renormMean" in plain.snapshot()).toBe(false);
    expect(file.plain!.renormMean).toEqual(new Float64Array(2));
    bn.reset();
    expect(numbersOf(bn)).toEqual([0, 0, 1, 1]);
  });

  it("a snapshot that should have them and has not, or has others, is refused", () => {
    const { renormMean: _, ...without } = trained().snapshot();
    expect(() => BatchNorm.fromSnapshot(without)).toThrow(/^snapshot\.renormMean: /);
    const wrong = { ...trained().snapshot(), renormDeviation: [1] };
    expect(() => BatchNorm.fromSnapshot(wrong)).toThrow(/^snapshot\.renormDeviation: .*2 numbers/);
  });

  it("our own file that should have them and has not, or has others, is refused", () => {
    const text = Buffer.from(save({ bn: trained() })).toString("latin1");
    for (const tensor of ["renorm_mean", "renorm_deviation"]) {
      const renamed = text.replace(`bn.${tensor}"`, `no.${tensor}"`);
      expect(() => load(Buffer.from(renamed, "latin1"))).toThrow(
        new RegExp(`^bn\\.${tensor}: .* \\[2\\], got none$`),
      );
    }
  });

  it("an invalid deviation, or arrays that are gone, are refused, and nothing has changed", () => {
    const x = normal(40, 5);
    const bn = trained();
    bn.renormDeviation[1] = -1;
    const before = bn.snapshot();
    const out = new Float32Array(40);
    expect(() => bn.train(x, { out })).toThrow(/^renormDeviation: .* -1 for channel 1$/);
    expect(bn.snapshot()).toEqual(before);
    expect(out).toEqual(new Float32Array(40));
    const gone = trained();
    const mean = [...gone.runningMean];
    structuredClone(gone.renormMean, { transfer: [gone.renormMean.buffer as ArrayBuffer] });
    for (const statistics of ["batch", gone.moments(x)] as const) {
      expect(() => gone.train(x, { out, statistics })).toThrow(/^renormMean: .*transferred/);
    }
    expect(() => gone.reset()).toThrow(/^renormMean/);
    expect(() => gone.snapshot()).toThrow(/^renormMean/);
    expect([[...gone.runningMean], gone.batchesSeen]).toEqual([mean, 5]);
    expect(out).toEqual(new Float32Array(40));
    // Pooled moments are not corrected, but the root of the running variance is taken all the same, if it is to move.
    const invalid = trained();
    invalid.runningVariance[1] = -1;
    const was = invalid.snapshot();
    const statistics = invalid.moments(x);
    for (const options of [{ out }, { out, statistics }]) {
      expect(() => invalid.train(x, options)).toThrow(/^runningVariance: .* -1 for channel 1$/);
    }
    expect(invalid.snapshot()).toEqual(was);
    expect(out).toEqual(new Float32Array(40));
    expect(() => invalid.train(x, { statistics, updateRunning: false })).not.toThrow();
    const inside = trained();
    const own = new Float32Array(inside.renormDeviation.buffer as ArrayBuffer, 0, 4);
    expect(() => inside.train(x.slice(0, 4), { out: own })).toThrow(/^out: .*renormDeviation$/);
  });
});

it("is over once it is set to null: y, lastBatch and dx are those of a layer without it", () => {
  const [bn, plain] = [new BatchNorm(4, { renorm: { rmax: 3, dmax: 5 } }), new BatchNorm(4)];
  for (let step = 0; step < 3; step++) bn.train(normal(80, step, 2));
  bn.renorm = null;
  const x = normal(80, 9, 3);
  assertSameBits("y", bn.train(x), plain.train(x));
  expect(bn.lastBatch!.r).toBeNull();
  assertSameBits("dx", bn.backward(x).dx, plain.backward(x).dx);
});
