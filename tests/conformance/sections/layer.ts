// Layouts and masks, options and factories, running averages.

import type { BatchNorm, BatchNormOptions, Layout } from "batchnorm-wasm";
import {
  assertGradients,
  assertNormalized,
  assertSameBits,
  assertWithin,
} from "../../support/compare.js";
import * as oracle from "../../support/oracle.js";
import { countOf, LAYOUTS, placesOf, type Shaped, sizeOf, viewOf } from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell, maskOf } from "../values.js";

/** Masks in every layout, and what a layout is: the same values in another order. */
export function layouts(suite: Suite): void {
  for (const layout of LAYOUTS) paddedLayout(suite, layout);
}

/** Data with padding, which holds NaN. */
function paddedOf(layout: Layout) {
  const [examples, channels] = [4, 5];
  const sides = [3, 4, 2].slice(0, layout.length - 2);
  const shape = layout[1] === "C" ? [examples, channels, ...sides] : [examples, ...sides, channels];
  const shaped: Shaped = { layout, shape };
  const x = bell(sizeOf(shaped), 11, 3, 2);
  const dy = bell(sizeOf(shaped), 12);
  const mask = maskOf(countOf(shaped), 13);
  const at = placesOf(shaped, (position) => mask[position] !== 0);
  const padding = placesOf(shaped, (position) => mask[position] === 0);
  for (const i of padding) x[i] = dy[i] = NaN;
  const rows: Shaped = { layout: "NC", shape: [at.length / channels, channels] };
  return { shaped, rows, x, dy, mask, at, padding };
}

/** train, backward and moments of padded data give what they give of the data alone. */
function paddedLayout({ checks, layerOf }: Suite, layout: Layout): void {
  const { shaped, rows, x, dy, mask, at, padding } = paddedOf(layout);
  const { shape } = shaped;
  const { channels } = viewOf(shaped);
  checks.check(`${layout}: padding takes no part`, () => {
    const layer = layerOf(shaped);
    const packed = layerOf(rows);
    const y = layer.train(x, { shape, mask });
    packed.train(Float32Array.from(at, (i) => x[i]!));
    assertSameBits("running mean", layer.runningMean, packed.runningMean);
    assertSameBits("running variance", layer.runningVariance, packed.runningVariance);
    const inner = viewOf(shaped).inner;
    for (const i of padding) {
      const beta = layer.beta![Math.floor(i / inner) % channels];
      expect(y[i] === beta, beta, y[i]);
    }
    checks.record(y, layer.runningMean, layer.runningVariance);
  });
  checks.check(`${layout}: nor in the gradient`, () => {
    const layer = layerOf(shaped);
    const packed = layerOf(rows);
    layer.train(x, { shape, mask });
    packed.train(Float32Array.from(at, (i) => x[i]!));
    const given = layer.backward(dy);
    const expected = packed.backward(Float32Array.from(at, (i) => dy[i]!));
    assertSameBits("dgamma", given.dgamma!, expected.dgamma!);
    assertSameBits("dbeta", given.dbeta!, expected.dbeta!);
    assertSameBits(
      "dx",
      Float32Array.from(at, (i) => given.dx[i]!),
      expected.dx,
    );
    for (const i of padding) expect(given.dx[i] === 0, 0, given.dx[i]);
    checks.record(given.dx);
  });
  checks.check(`${layout}: moments`, () => {
    const { count, mean, m2 } = layerOf(shaped).moments(x, { shape, mask });
    expect(count === at.length / channels, at.length / channels, count);
    checks.record(mean, m2);
  });
}

/** Options of the layer, and the factories. */
export function options({ checks, library, layerOf }: Suite): void {
  const shaped: Shaped = { layout: "NC", shape: [12, 7] };
  const view = viewOf(shaped);
  const x = bell(sizeOf(shaped), 21, 1, 2);
  const dy = bell(sizeOf(shaped), 22);
  for (const gamma of [true, false]) {
    for (const beta of [true, false]) {
      for (const epsilon of [0, 1e-5, 0.1]) {
        checks.check(`gamma ${gamma}, beta ${beta}, epsilon ${epsilon}`, () => {
          const layer = layerOf(shaped, { gamma, beta, epsilon });
          const terms = {
            ...oracle.moments(x, view),
            gamma: layer.gamma,
            beta: layer.beta,
            epsilon,
          };
          const y = layer.train(x);
          assertNormalized(y, x, view, terms);
          const given = layer.backward(dy);
          assertGradients(given, dy, x, view, terms);
          checks.record(y, given.dx, given.dgamma, given.dbeta);
        });
      }
    }
  }
  const { BatchNorm } = library;
  const factories: Record<string, () => BatchNorm> = {
    torch: () => BatchNorm.torch(7, { momentum: 0.2, eps: 1e-4 }),
    "torch, cumulative": () => BatchNorm.torch(7, { momentum: null }),
    "torch without affine": () => BatchNorm.torch(7, { affine: false }),
    keras: () => BatchNorm.keras(7, { momentum: 0.8, center: false }),
    onnx: () => BatchNorm.onnx(7),
    flax: () => BatchNorm.flax(7, { useScale: false }),
  };
  for (const [name, make] of Object.entries(factories)) {
    checks.check(`the conventions of ${name}`, () => {
      const layer = make();
      for (let step = 0; step < 4; step++) layer.train(bell(x.length, 30 + step, step));
      checks.record(layer.infer(x), layer.runningMean, layer.runningVariance);
      checks.say(JSON.stringify(layer));
    });
  }
}

/** Running averages over ten mini-batches against their definition. */
export function averages({ checks, library }: Suite): void {
  const weights: Record<string, [BatchNormOptions, (t: number) => number]> = {
    "decay 0.9": [{}, () => 1 - 0.9],
    "decay 0": [{ decay: 0 }, () => 1],
    cumulative: [{ decay: "cumulative" }, (t) => 1 / t],
    debias: [{ debias: true, decay: 0.8 }, (t) => (1 - 0.8) / (1 - power(0.8, t))],
  };
  for (const [name, [settings, weight]] of Object.entries(weights)) {
    for (const runningVarianceOf of ["sample", "population"] as const) {
      checks.check(`${name}, ${runningVarianceOf} variance`, () => {
        const layer = new library.BatchNorm(3, { ...settings, runningVarianceOf });
        const expected = [new Float64Array(3), new Float64Array(3).fill(1)] as const;
        for (let t = 1; t <= 10; t++) {
          const m = 4 + t;
          const x = bell(3 * m, 40 + t, t % 3, 1 + t / 10);
          layer.train(x);
          const { mean, variance } = oracle.moments(x, { outer: m, channels: 3, inner: 1 });
          const correction = runningVarianceOf === "sample" ? m / (m - 1) : 1;
          for (let c = 0; c < 3; c++) {
            expected[0][c]! += weight(t) * (mean[c]! - expected[0][c]!);
            expected[1][c]! += weight(t) * (variance[c]! * correction - expected[1][c]!);
          }
          assertWithin("running mean", layer.runningMean, expected[0], () => 1e-6);
          assertWithin(
            "running variance",
            layer.runningVariance,
            expected[1],
            (c) => 2e-6 * expected[1][c]!,
          );
        }
        expect(layer.batchesSeen === 10, 10, layer.batchesSeen);
        checks.record(layer.runningMean, layer.runningVariance);
      });
    }
  }
  checks.check("updateRunning: false moves nothing", () => {
    const layer = new library.BatchNorm(3);
    layer.train(bell(30, 1), { updateRunning: false });
    expect(layer.batchesSeen === 0, 0, layer.batchesSeen);
    assertSameBits("running mean", layer.runningMean, new Float64Array(3));
  });
}

/** base^t for a whole t: products alone, as Math.pow differs between engines. */
function power(base: number, t: number): number {
  let result = 1;
  for (let i = 0; i < t; i++) result *= base;
  return result;
}
