// Every way that data are walked, every size around those of vectors and blocks, every place.

import type { BatchNorm, Kernels } from "batchnorm-wasm";
import {
  assertGradients,
  assertMoments,
  assertNormalized,
  assertSameBits,
} from "../../support/compare.js";
import { guarded, guardedCopy } from "../../support/guards.js";
import * as oracle from "../../support/oracle.js";
import {
  countOf,
  isCompared,
  LAYOUTS,
  nameOf,
  SHAPES,
  type Shaped,
  sizeOf,
  viewOf,
} from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell } from "../values.js";

/** A layer on data of one shape. */
interface Walk {
  readonly shaped: Shaped;
  readonly seed: number;
  readonly name: string;
  readonly layer: BatchNorm;
  readonly x: Float32Array;
  readonly dy: Float32Array;
  /** The statistics of x; `null` where it is too large to be compared. */
  readonly expected: ReturnType<typeof oracle.moments> | null;
}

function walkOf({ layerOf }: Suite, shaped: Shaped, seed: number): Walk {
  const x = bell(sizeOf(shaped), seed, 2, 3);
  return {
    shaped,
    seed,
    name: nameOf(shaped),
    layer: layerOf(shaped, {}, seed),
    x,
    dy: bell(sizeOf(shaped), seed + 100, 0, 0.5),
    expected: isCompared(shaped) ? oracle.moments(x, viewOf(shaped)) : null,
  };
}

/** train, backward and infer for each way that data are walked. */
export function shapes(suite: Suite): void {
  const kernels = new suite.library.Kernels({ memory: 32 << 20 });
  for (const [i, shaped] of SHAPES.entries()) {
    const walk = walkOf(suite, shaped, i);
    const y = walkTraining(suite, walk);
    walkTestTime(suite, walk);
    walkElsewhere(suite, walk, kernels, y);
  }
}

/** Returns the output of train. */
function walkTraining({ checks }: Suite, walk: Walk): Float32Array {
  const { name, shaped, layer, x, dy, expected } = walk;
  const { shape } = shaped;
  const view = viewOf(shaped);
  const { gamma, beta, epsilon } = layer;
  let y = x;
  checks.check(`${name}: train`, () => {
    const input = guardedCopy(x, 1);
    const out = guarded(x.length, 3);
    y = layer.train(input.array, { shape, out: out.array }).slice();
    input.assertIntact();
    out.assertIntact();
    assertSameBits("x", input.array, x);
    if (expected) assertNormalized(y, x, view, { ...expected, gamma, beta, epsilon });
    checks.record(y);
  });
  checks.check(`${name}: statistics of the mini-batch`, () => {
    const { mean, variance, count } = layer.lastBatch!;
    expect(count === countOf(shaped), countOf(shaped), count);
    if (expected) assertMoments({ mean, variance }, expected);
    checks.record(mean, variance, layer.runningMean, layer.runningVariance);
  });
  checks.check(`${name}: backward`, () => {
    const input = guardedCopy(dy, 2);
    const out = guarded(x.length, 1);
    const given = layer.backward(input.array, { x, out: { dx: out.array } });
    input.assertIntact();
    out.assertIntact();
    if (expected) assertGradients(given, dy, x, view, { ...expected, gamma, beta, epsilon });
    checks.record(given.dx, given.dgamma, given.dbeta);
  });
  return y;
}

function walkTestTime({ checks, testTime }: Suite, walk: Walk): void {
  const { name, shaped, layer, x, dy, expected } = walk;
  const { shape } = shaped;
  const view = viewOf(shaped);
  const { gamma, beta, epsilon } = layer;
  checks.check(`${name}: infer`, () => {
    const out = guarded(x.length, 2);
    const z = layer.infer(x, { shape, out: out.array });
    out.assertIntact();
    const { runningMean: mean, runningVariance: variance } = layer;
    if (expected) assertNormalized(z, x, view, { mean, variance, gamma, beta, epsilon });
    checks.record(z);
  });
  checks.check(`${name}: a frozen layer, and one from its JSON, give the bits of infer`, () => {
    const z = layer.infer(x, { shape });
    const frozen = layer.freeze();
    const text = JSON.stringify(frozen);
    assertSameBits("frozen", frozen.infer(x, { shape }), z);
    const small = testTime.FrozenBatchNorm.fromJSON(text);
    expect(small.channels === layer.channels, layer.channels, small.channels);
    assertSameBits("batchnorm-wasm/infer", small.infer(x, { shape }), z);
    const out = x.slice();
    assertSameBits("in place", small.infer(out, { shape, out }), z);
    checks.say(text);
  });
  checks.check(`${name}: statistics "running" and their gradient`, () => {
    const before = layer.runningMean.slice();
    assertSameBits(
      "y",
      layer.train(x, { shape, statistics: "running" }),
      layer.infer(x, { shape }),
    );
    const given = layer.backward(dy);
    const { runningMean: mean, runningVariance: variance } = layer;
    assertSameBits("running mean", mean, before);
    const terms = { mean, variance, gamma, beta, epsilon };
    if (expected) assertGradients(given, dy, x, view, terms, { frozen: true });
    checks.record(given.dx, given.dgamma, given.dbeta);
  });
}

function walkElsewhere(
  { checks, layerOf }: Suite,
  { name, shaped, seed, x, dy }: Walk,
  kernels: Kernels,
  y: Float32Array,
): void {
  const { shape } = shaped;
  checks.check(`${name}: in kernel memory, in place, the same bits`, () => {
    const twin = layerOf(shaped, { kernels }, seed);
    const tensor = kernels.alloc(x.length);
    tensor.set(x);
    assertSameBits("y", twin.train(tensor, { shape, out: tensor }), y);
    tensor.set(dy);
    const plain = layerOf(shaped, {}, seed);
    plain.train(x, { shape });
    const { dx, dgamma, dbeta } = plain.backward(dy);
    const given = twin.backward(tensor, { x, out: { dx: tensor } });
    assertSameBits("dx", given.dx, dx);
    assertSameBits("dgamma", given.dgamma!, dgamma!);
    assertSameBits("dbeta", given.dbeta!, dbeta!);
    assertSameBits("running mean", twin.runningMean, plain.runningMean);
    assertSameBits("running variance", twin.runningVariance, plain.runningVariance);
    kernels.free(tensor);
  });
}

/** Sizes around those of vectors and blocks: rows of few channels, narrow planes. */
export function sizes({ checks, layerOf }: Suite): void {
  const around = [1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65];
  for (const size of around) {
    const cases: Shaped[] = [
      ...[2, 5, 16, 65].map((n): Shaped => ({ layout: "NC", shape: [n, size] })),
      ...[1, 3].map((n): Shaped => ({ layout: "NCL", shape: [n + 1, 3, size] })),
    ];
    for (const shaped of cases) {
      checks.check(`${nameOf(shaped)}: train, backward, infer`, () => {
        const { shape } = shaped;
        const view = viewOf(shaped);
        const seed = 7 * size + shape[0]!;
        const x = bell(sizeOf(shaped), seed, -1, 2);
        const dy = bell(sizeOf(shaped), seed + 1);
        const layer = layerOf(shaped, { epsilon: 1e-3 }, seed);
        const { gamma, beta, epsilon, runningMean, runningVariance } = layer;
        const rest = { gamma, beta, epsilon };
        const z = layer.infer(x, { shape });
        assertNormalized(z, x, view, { mean: runningMean, variance: runningVariance, ...rest });
        const y = layer.train(x, { shape });
        const terms = { ...oracle.moments(x, view), ...rest };
        assertNormalized(y, x, view, terms);
        const given = layer.backward(dy);
        assertGradients(given, dy, x, view, terms);
        checks.record(z, y, given.dx, given.dgamma, given.dbeta, runningMean, runningVariance);
      });
    }
  }
}

/** The same bits wherever data live, and for an example alone or inside a batch. */
export function places({ checks, library, layerOf }: Suite): void {
  const shaped: Shaped = { layout: "NC", shape: [37, 19] };
  const x = bell(sizeOf(shaped), 3, 1, 2);
  const expected = layerOf(shaped).train(x);
  const z = layerOf(shaped).infer(x);
  const kernels = new library.Kernels({ memory: 1 << 20 });
  const others = new library.Kernels({ memory: 1 << 20 });
  // Where a runtime has no shared memory, this is one more ordinary array, so that counts agree.
  const Shared = typeof SharedArrayBuffer === "undefined" ? ArrayBuffer : SharedArrayBuffer;
  const rooms: Record<string, () => Float32Array> = {
    "an ordinary array": () => new Float32Array(x.length),
    "part of a larger one": () => new Float32Array(x.length + 9).subarray(3, 3 + x.length),
    "shared memory": () => new Float32Array(new Shared(4 * x.length + 12), 4, x.length),
    "kernel memory": () => kernels.alloc(x.length),
    "part of a tensor": () => kernels.alloc(x.length + 9).subarray(5, 5 + x.length),
    "the memory of other kernels": () => others.alloc(x.length),
  };
  for (const [from, source] of Object.entries(rooms)) {
    for (const [to, target] of Object.entries(rooms)) {
      checks.check(`from ${from} into ${to}`, () => {
        const input = source();
        input.set(x);
        const out = target();
        const layer = layerOf(shaped, { kernels });
        assertSameBits("infer", layer.infer(input, { out }), z);
        expect(layer.train(input, { out }) === out, "out", "another array");
        assertSameBits("train", out, expected);
        assertSameBits("x", input, x);
      });
    }
  }
  for (const layout of LAYOUTS) {
    checks.check(`${layout}: one example alone or inside a batch`, () => {
      const sides = [3, 2, 5].slice(0, layout.length - 2);
      const channelsFirst = layout[1] === "C";
      const rest = channelsFirst ? [6, ...sides] : [...sides, 6];
      const batch: Shaped = { layout, shape: [9, ...rest] };
      const values = bell(sizeOf(batch), 5);
      const frozen = layerOf(batch).freeze();
      const whole = frozen.infer(values, { shape: batch.shape });
      const each = values.length / 9;
      for (let n = 0; n < 9; n++) {
        const one = values.subarray(n * each, (n + 1) * each);
        const alone = frozen.infer(one, { shape: [1, ...rest] });
        assertSameBits(`example ${n}`, alone, whole.slice(n * each, (n + 1) * each));
      }
      checks.record(whole);
    });
  }
}
