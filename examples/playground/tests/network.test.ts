import { BatchNorm } from "batchnorm-wasm";
import { expect, test } from "vitest";
import type { Layer } from "../../mnist/layers.js";
import { Random } from "../../mnist/random.js";
import {
  byMiniBatch,
  byRunningAverages,
  dense,
  descend,
  gradients,
  logits,
  softmax,
} from "../src/network.js";

/** 6 inputs, two layers of 5 sigmoids, ten classes. */
function small(seed: number): Layer[] {
  const random = new Random(seed);
  const sizes = [6, 5, 5, 10];
  return sizes.slice(1).map((outputs, i) => ({
    inputs: sizes[i],
    outputs,
    weight: Float32Array.from({ length: sizes[i] * outputs }, () => random.normal()),
    bias: i === 2 ? Float32Array.from({ length: outputs }, () => random.normal()) : null,
    norm: i === 2 ? null : normOf(random),
  }));
}

function normOf(random: Random): BatchNorm {
  const norm = new BatchNorm(5);
  norm.gamma?.forEach((_, c, gamma) => {
    gamma[c] = 1 + 0.3 * random.normal();
  });
  norm.beta?.forEach((_, c, beta) => {
    beta[c] = 0.3 * random.normal();
  });
  return norm;
}

const inputs = (rows: number, seed = 9): Float32Array => {
  const random = new Random(seed);
  return Float32Array.from({ length: rows * 6 }, (_, i) => (i % 4 === 0 ? 0 : random.normal()));
};
const LABELS = [0, 3, 9, 1, 3, 7, 2];

test("a dense layer is the matrix product, and its bias", () => {
  const [, , last] = small(1);
  const x = Float32Array.of(1, 0, -2, 0.5, 3, 0, 0, 0, 0, 0);
  const expected = Array.from({ length: 20 }, (_, k) => {
    const [r, o] = [Math.floor(k / 10), k % 10];
    let sum = last.bias?.[o] ?? 0;
    for (let i = 0; i < 5; i++) sum += x[5 * r + i] * last.weight[10 * i + o];
    return sum;
  });
  dense(last, x).forEach((value, k) => {
    expect(value).toBeCloseTo(expected[k], 5);
  });
});

test("softmax of large scores", () => {
  const p = softmax(Float32Array.from({ length: 20 }, (_, i) => (i < 10 ? 1000 + i : -i)));
  for (const row of [p.subarray(0, 10), p.subarray(10)]) {
    expect(row.reduce((sum, value) => sum + value)).toBeCloseTo(1, 6);
    expect(Math.max(...row)).toBeCloseTo(1 / (1 + Math.exp(-1) + Math.exp(-2) + Math.exp(-3)), 1);
  }
});

test("gradients are the slopes of the loss", () => {
  const layers = small(2);
  const x = inputs(LABELS.length);
  const { loss, gradients: all } = gradients(layers, x, LABELS);
  expect(loss).toBeGreaterThan(0);
  const lossNow = () => gradients(layers, x, LABELS).loss;
  const h = 0.01;
  layers.forEach((layer, i) => {
    const parts: [Float32Array | null | undefined, Float32Array | null][] = [
      [layer.weight, all[i].weight],
      [layer.bias, all[i].bias],
      [layer.norm?.gamma, all[i].gamma],
      [layer.norm?.beta, all[i].beta],
    ];
    for (const [values, gradient] of parts) {
      expect(values == null).toBe(gradient === null);
      values?.forEach((value, k) => {
        values[k] = value + h;
        const up = lossNow();
        values[k] = value - h;
        const down = lossNow();
        values[k] = value;
        // float32 leaves the loss about 1e-7, so the slope 1e-5; the rest is curvature, h².
        expect(Math.abs((up - down) / (2 * h) - (gradient as Float32Array)[k])).toBeLessThan(1e-3);
      });
    }
  });
});

test("descends, and the running averages follow", () => {
  const layers = small(3);
  const x = inputs(LABELS.length);
  const losses = Array.from({ length: 60 }, () => descend(layers, x, LABELS, 0.5));
  expect(losses[59]).toBeLessThan(0.5 * losses[0]);
  expect(layers[0].norm?.batchesSeen).toBe(60);
});

test("by running averages an answer depends on its own example alone, bit for bit", () => {
  const layers = small(4);
  const x = inputs(7);
  descend(layers, x, LABELS, 0.1);
  const together = logits(layers, x, byRunningAverages);
  for (let r = 0; r < 7; r++) {
    const alone = logits(layers, x.subarray(6 * r, 6 * r + 6), byRunningAverages);
    expect(alone).toEqual(together.slice(10 * r, 10 * r + 10));
  }
});

test("a mini-batch of one is answered by β, whatever it is; nothing moves", () => {
  const layers = small(5);
  const before = layers.map(({ norm }) => norm?.snapshot());
  const [one, other] = [inputs(1, 1), inputs(1, 2)].map((x) => logits(layers, x, byMiniBatch));
  expect(one).toEqual(other);
  const two = logits(layers, inputs(2), byMiniBatch);
  expect(two.subarray(0, 10)).not.toEqual(two.subarray(10));
  expect(layers.map(({ norm }) => norm?.snapshot())).toEqual(before);
});
