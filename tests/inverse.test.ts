// `frozen.inverse`, and `FrozenBatchNorm.fromMoments`.

import {
  BatchNorm,
  type FrozenBatchNorm,
  FrozenBatchNorm as Main,
  Moments,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { layerOf, seeds, settle, shapes, sizeOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal } from "./support/data.js";
import { check } from "./support/property.js";

const UNIT = 2 ** -24;

/** The channel of a value. */
const channelOf = (bn: BatchNorm, shape: readonly number[], i: number): number => {
  if (bn.layout[1] !== "C") return i % bn.channels;
  const inner = shape.slice(2).reduce((a, b) => a * b, 1);
  return Math.floor(i / inner) % bn.channels;
};

describe("inverse", () => {
  test("mean + (y - β)·√(variance + ε)/γ in float64, in both entries, for any layout and shape", () => {
    check(
      fc.property(
        shapes(1),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(0, 1, 1e4),
        seeds,
        (shaped, gamma, beta, mean, seed) => {
          const bn = settle(layerOf(shaped, { gamma, beta }, seed), seed, mean);
          const { shape } = shaped;
          const frozen = bn.freeze();
          const y = normal(sizeOf(shaped), seed, 0, 3);
          const x = frozen.inverse(y, { shape });
          for (let i = 0; i < y.length; i++) {
            const c = channelOf(bn, shape, i);
            const sigma = Math.sqrt(bn.runningVariance[c]! + bn.epsilon);
            const [g, b] = [bn.gamma?.[c] ?? 1, bn.beta?.[c] ?? 0];
            const apart = ((y[i]! - b) * sigma) / g;
            const wanted = bn.runningMean[c]! + apart;
            const limit =
              5 * UNIT * (Math.abs(apart) + Math.abs(b / g) * sigma) + UNIT * Math.abs(wanted);
            if (!(Math.abs(x[i]! - wanted) <= limit * (1 + 1e-6))) {
              throw new Error(`x[${i}] is ${x[i]}, ${wanted} is right within ${limit}`);
            }
          }
          const small = Small.fromJSON(frozen.toJSON());
          assertSameBits("x", small.inverse(y, { shape }), x);
          const out = y.slice();
          expect(frozen.inverse(out, { shape, out })).toBe(out);
          assertSameBits("x", out, x);
        },
      ),
      120,
    );
  });

  test("beyond the activation's range: what the limit gives, where γ is negative too; NaN stays", () => {
    // Few values are computed in JavaScript, and the last ones go through kernel memory in parts.
    for (const rows of [1, 3, 40, 2000, 600_000]) {
      const bn = new BatchNorm(2, { activation: [-1, 2] });
      bn.gamma!.set([2, -0.5]);
      bn.beta!.set([0.5, 1]);
      bn.runningMean.set([10, -3]);
      const plain = new BatchNorm(2);
      plain.restore({ ...plain.snapshot(), ...parametersOf(bn) });
      const y = normal(2 * rows, 3, 0, 4);
      y.set([Infinity, -Infinity]);
      const limited = y.map((v) => Math.min(2, Math.max(-1, v)));
      const x = plain.freeze().inverse(limited);
      assertSameBits("x", bn.freeze().inverse(y), x);
      const [given, out] = [y.slice(), new Float32Array(y.length)];
      expect(bn.freeze().inverse(given, { out })).toBe(out);
      assertSameBits("out", out, x);
      assertSameBits("y", given, y);
      expect(bn.freeze().inverse(given, { out: given })).toBe(given);
      assertSameBits("in place", given, x);
      y[0] = NaN;
      expect(bn.freeze().inverse(y)[0]).toBeNaN();
    }
  });

  test("-0 within the limits stays -0, as without an activation", () => {
    const y = new Float32Array(200).fill(-0);
    for (const activation of [null, "relu6"] as const) {
      const bn = new BatchNorm(1, { beta: false, activation });
      bn.runningMean[0] = -0;
      expect([...bn.freeze().inverse(y)]).toEqual([...y]);
    }
  });

  test("relu: what is 0 comes from β at the most", () => {
    const bn = new BatchNorm(1, { activation: "relu", epsilon: 0 });
    bn.runningMean[0] = 5;
    bn.runningVariance[0] = 4;
    expect([...bn.freeze().inverse(Float32Array.of(-3, 0, 1))]).toEqual([5, 5, 7]);
  });

  test("γ of 0, or a scale whose inverse float32 does not hold: StateError, and nothing is written", () => {
    const bn = new BatchNorm(2);
    const y = Float32Array.of(1, 2);
    const out = Float32Array.of(7, 7);
    for (const [gamma, variance] of [
      [0, 1],
      [1e-30, 1e20],
      [NaN, 1],
    ] as const) {
      bn.gamma![1] = gamma;
      bn.runningVariance[1] = variance;
      const frozen = bn.freeze();
      expect(() => frozen.inverse(y, { out })).toThrow(StateError);
      expect(() => frozen.inverse(y, { out })).toThrow(
        /^scale: expected one that has an inverse, got .* in channel 1$/,
      );
    }
    expect([...out]).toEqual([7, 7]);
  });

  test("names y, out and options that do not fit", () => {
    const frozen = new BatchNorm(3).freeze();
    const y = new Float32Array(6);
    expect(() => frozen.inverse([1, 2, 3] as never)).toThrow(/^y: expected a Float32Array/);
    expect(() => frozen.inverse(new Float32Array(4))).toThrow(/^y: expected rows of 3 channels/);
    expect(() => frozen.inverse(y, { out: new Float32Array(3) })).toThrow(/^out: /);
    const buffer = new Float32Array(7);
    const part = { out: buffer.subarray(1) };
    expect(() => frozen.inverse(buffer.subarray(0, 6), part)).toThrow(/^out: .* of y$/);
    expect(() => frozen.inverse(y, { add: y } as never)).toThrow(OptionError);
    expect(() => frozen.inverse(y, { mask: y } as never)).toThrow(OptionError);
  });

  test("on tensors of its kernels, and a freed one is named", () => {
    const bn = settle(layerOf({ layout: "NC", shape: [40, 5] }));
    const { kernels } = bn;
    const y = kernels.alloc(200);
    y.set(normal(200, 4));
    const frozen = bn.freeze();
    assertSameBits("x", frozen.inverse(y), frozen.inverse(y.slice()));
    kernels.free(y);
    expect(() => frozen.inverse(y)).toThrow(/^y: /);
  });
});

const parametersOf = (bn: BatchNorm) => {
  const { gamma, beta, runningMean, runningVariance } = bn.snapshot();
  return { gamma, beta, runningMean, runningVariance };
};

describe("fromMoments", () => {
  const data = normal(60 * 4, 5, 3, 2);
  const bn = new BatchNorm(4);
  const moments = bn.moments(data);

  test("the bits of setRunning and freeze, with every option", () => {
    for (const varianceOf of ["population", "sample"] as const) {
      for (const activation of [null, "relu", [-0.5, 0.75]] as const) {
        const options = { layout: "NHWC", epsilon: 1e-8, activation } as const;
        const layer = new BatchNorm(4, { ...options, runningVarianceOf: varianceOf });
        layer.gamma!.set([1, -2, 0.5, 0]);
        layer.beta!.set([0, 1, 2, 3]);
        layer.setRunning(moments);
        const { gamma, beta } = layer;
        const frozen: FrozenBatchNorm = Main.fromMoments(moments, {
          ...options,
          gamma,
          beta,
          varianceOf,
        });
        expect(frozen.toJSON()).toEqual(layer.freeze().toJSON());
        assertSameBits("y", frozen.infer(data), layer.infer(data));
        gamma!.fill(9); // the frozen layer has copies
        expect(frozen.toJSON().scale[3]).toBe(0);
      }
    }
  });

  test("by default: no γ, no β, the population's variance, ε 1e-5", () => {
    const layer = new BatchNorm(4, { runningVarianceOf: "population", gamma: false, beta: false });
    layer.setRunning(moments);
    expect(Main.fromMoments(moments).toJSON()).toEqual(layer.freeze().toJSON());
    const clone = structuredClone({ ...moments }); // what a worker gets
    expect(Main.fromMoments(clone).toJSON()).toEqual(layer.freeze().toJSON());
  });

  test("a mean that float64 does not hold counts in full", () => {
    const far = Float32Array.from({ length: 400 }, (_, i) => 2 ** 20 + (i % 4) / 8);
    const one = new BatchNorm(1, { gamma: false, beta: false });
    const frozen = Main.fromMoments(one.moments(far));
    assertSameBits("y", frozen.infer(far), one.train(far, { updateRunning: false }));
  });

  test("moments that are none, too few values, options that are none", () => {
    expect(() => Main.fromMoments(null as never)).toThrow(ShapeError);
    const empty = Moments.fromJSON({ ...moments.toJSON(), count: 0, m2: [0, 0, 0, 0] });
    expect(() => Main.fromMoments(empty)).toThrow(SingleValueError);
    const none = { count: 3, mean: new Float64Array(0), m2: new Float64Array(0) };
    expect(() => Main.fromMoments(none)).toThrow(/^channels: /);
    for (const [options, error] of [
      [{ gamma: new Float32Array(3) }, ShapeError],
      [{ beta: [0, 0, 0, 0] }, ShapeError],
      [{ epsilon: -1 }, OptionError],
      [{ layout: "NWHC" }, OptionError],
      [{ activation: "gelu" }, OptionError],
      [{ varianceOf: "biased" }, OptionError],
      [{ kernels: {} }, OptionError],
      [{ eps: 1e-5 }, OptionError],
    ] as const) {
      expect(() => Main.fromMoments(moments, options as never)).toThrow(error);
    }
  });

  test("observations: clipped to ±10, and back", () => {
    const seen = new BatchNorm(2).moments(Float32Array.of(1, 10, 3, 30, 5, 20));
    const norm = Main.fromMoments(seen, { epsilon: 1e-8, activation: [-10, 10] });
    expect([...norm.infer(Float32Array.of(1000, -1000))]).toEqual([10, -10]);
    const x = Float32Array.of(2, 12);
    norm.inverse(norm.infer(x)).forEach((v, i) => {
      expect(v).toBeCloseTo(x[i]!, 5);
    });
  });
});
