// Numbers at the edges, and kernel memory.

import { assertNormalized, assertSameBits } from "../../support/compare.js";
import { anyBits } from "../../support/data.js";
import * as oracle from "../../support/oracle.js";
import { type Shaped, sizeOf } from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell } from "../values.js";

/** Numbers at the edges: means a million σ away, the smallest and largest, any bits at all. */
export function numbers(suite: Suite): void {
  magnitudes(suite);
  degenerate(suite);
  anyNumbers(suite);
}

/** Means and deviations, and parameters, of any order. */
function magnitudes({ checks, layerOf }: Suite): void {
  const view = { outer: 67, channels: 5, inner: 1 };
  const shaped: Shaped = { layout: "NC", shape: [67, 5] };
  for (const sigma of [1e-15, 1e-3, 1, 1e3, 1e15]) {
    for (const ratio of [0, 1e3, 1e6]) {
      checks.check(`σ = ${sigma}, |mean|/σ = ${ratio}`, () => {
        const x = bell(sizeOf(shaped), 150, ratio * sigma, sigma);
        const layer = layerOf(shaped, { epsilon: 0 });
        const { gamma, beta } = layer;
        const terms = { ...oracle.moments(x, view), gamma, beta, epsilon: 0 };
        const y = layer.train(x);
        assertNormalized(y, x, view, terms);
        checks.record(y, layer.runningMean, layer.runningVariance);
        layer.runningMean.set(terms.mean);
        layer.runningVariance.set(terms.variance);
        const z = layer.infer(x);
        assertNormalized(z, x, view, terms);
        checks.record(z);
      });
    }
  }
  for (const size of [1e3, 1e6, 1e30]) {
    checks.check(`gamma and beta of the order of ${size}`, () => {
      const x = bell(sizeOf(shaped), 151, 1e6);
      const layer = layerOf(shaped);
      layer.gamma!.set(bell(5, 152, size, size / 4));
      layer.beta!.set(bell(5, 153, size, size / 4));
      const { gamma, beta, epsilon } = layer;
      const y = layer.train(x);
      assertNormalized(y, x, view, { ...oracle.moments(x, view), gamma, beta, epsilon });
      checks.record(y);
    });
  }
}

/** Denormal numbers, and no spread at all. */
function degenerate({ checks, library }: Suite): void {
  checks.check("denormal numbers are not flushed to zero", () => {
    const x = Float32Array.from({ length: 335 }, (_, i) => 1.401298464324817e-45 * ((i * 7) % 97));
    const layer = new library.BatchNorm(5, { epsilon: 0, gamma: false, beta: false });
    // σ itself is beyond float32 here; the statistics, in float64, have to see it.
    const { mean, m2 } = layer.moments(x);
    for (let c = 0; c < 5; c++) {
      expect(mean[c]! > 0 && m2[c]! > 0, "statistics above zero", `${mean[c]}, ${m2[c]}`);
    }
    layer.runningVariance.fill(1);
    const z = layer.infer(x);
    assertSameBits("infer by mean 0 and variance 1", z, x);
    const tensor = layer.kernels.alloc(x.length);
    tensor.set(x);
    assertSameBits("in kernel memory", layer.infer(tensor), x);
    layer.kernels.free(tensor);
    checks.record(mean, m2, z);
  });
  checks.check("no spread at all", () => {
    const layer = new library.BatchNorm(3, { epsilon: 0 });
    layer.beta!.set([1, 2, 3]);
    const y = layer.train(new Float32Array(30).fill(7));
    for (let i = 0; i < 30; i++) expect(y[i] === 1 + (i % 3), 1 + (i % 3), y[i]);
    const { dx } = layer.backward(bell(30, 154));
    for (const slope of dx) expect(slope === 0, 0, slope);
  });
}

function anyNumbers({ checks, library }: Suite): void {
  const kernels = new library.Kernels({ memory: 1 << 20 });
  for (let seed = 1; seed <= 12; seed++) {
    checks.check(`any bits, ${seed}: in JavaScript and in the kernels`, () => {
      const channels = 1 + ((seed * 5) % 23);
      const layer = new library.BatchNorm(channels, { kernels, epsilon: seed % 2 ? 1e-5 : 0 });
      layer.gamma!.set(anyBits(channels, seed + 1));
      layer.beta!.set(anyBits(channels, seed + 2));
      layer.runningMean.set(anyBits(channels, seed + 3));
      const variances = anyBits(channels, seed + 4);
      layer.runningVariance.set(variances.map((v) => (v > 0 && v < Infinity ? v : 0)));
      const x = anyBits(channels * 9, seed + 5);
      const y = layer.infer(x);
      const tensor = kernels.alloc(x.length);
      tensor.set(x);
      assertSameBits("kernel memory", layer.infer(tensor), y);
      assertSameBits("frozen", layer.freeze().infer(x), y);
      kernels.free(tensor);
      checks.record(y);
    });
  }
}

/** Kernel memory: alloc and free, arrays larger than it, tensors that are swept. */
export function memory({ checks, library, layerOf }: Suite): void {
  const { Kernels } = library;
  checks.check("tensors are aligned, zeroed, and come back", () => {
    const kernels = new Kernels({ memory: 2 << 20 });
    for (let round = 0; round < 50; round++) {
      const a = kernels.alloc(1 + 97 * round);
      const b = kernels.alloc(100_000);
      for (const tensor of [a, b]) {
        expect(tensor.byteOffset % 64 === 0, "64-byte alignment", tensor.byteOffset);
        expect(
          tensor.every((v) => v === 0),
          "zeros",
          "something else",
        );
        tensor.fill(1);
      }
      kernels.free(a);
      kernels.free(b);
    }
    expect(kernels.memory === 2 << 20, 2 << 20, kernels.memory);
  });
  checks.check("arrays larger than the memory", () => {
    const shaped: Shaped = { layout: "NC", shape: [6000, 70] };
    const x = bell(sizeOf(shaped), 160);
    const small = layerOf(shaped, { kernels: new Kernels({ memory: 1 << 20 }) });
    const large = layerOf(shaped, { kernels: new Kernels({ memory: 8 << 20 }) });
    const y = small.train(x);
    assertSameBits("y", large.train(x), y);
    const { dx } = small.backward(x);
    assertSameBits("dx", large.backward(x).dx, dx);
    checks.record(y, dx, small.runningVariance);
  });
  checks.check("tensors beyond the caches", () => {
    const shaped: Shaped = { layout: "NC", shape: [9001, 256] };
    const x = bell(sizeOf(shaped), 161, 3);
    const kernels = new Kernels({ memory: 32 << 20 });
    const tensor = kernels.alloc(x.length);
    tensor.set(x);
    const inside = layerOf(shaped, { kernels });
    const outside = layerOf(shaped);
    const y = outside.train(x);
    assertSameBits("y", inside.train(tensor), y);
    assertSameBits("dx", inside.backward(x).dx, outside.backward(x).dx);
    checks.record(y);
  });
}
