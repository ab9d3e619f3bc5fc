// What the package promises, checked in whatever runtime this runs in: nothing here but ECMAScript,
// and all inputs by exact arithmetic, so that the hash over all results has to be the same everywhere.
// `npm run test:runtimes` runs it in each runtime and out of each bundle, against the packed tarball.

import type { BatchNorm, BatchNormOptions, FrozenJSON, Moments } from "batchnorm-wasm";
import {
  assertGradients,
  assertMoments,
  assertNormalized,
  assertSameBits,
  assertWithin,
} from "../support/compare.js";
import { anyBits } from "../support/data.js";
import { guarded, guardedCopy } from "../support/guards.js";
import { POOLING_ERROR } from "../support/limits.js";
import * as oracle from "../support/oracle.js";
import {
  channelsOf,
  countOf,
  LAYOUTS,
  nameOf,
  placesOf,
  SHAPES,
  type Shaped,
  sizeOf,
  viewOf,
} from "../support/shapes.js";
import { Checks, expect, type Outcome } from "./checks.js";
import { bell, maskOf } from "./values.js";

export type { Outcome } from "./checks.js";

/** `batchnorm-wasm`. */
export type Library = typeof import("batchnorm-wasm");

/** What the suite asks of `batchnorm-wasm/infer`. */
export interface TestTimeLibrary {
  readonly FrozenBatchNorm: {
    fromJSON(json: FrozenJSON | string): {
      readonly channels: number;
      infer(
        x: Float32Array,
        options?: { shape?: readonly number[]; out?: Float32Array },
      ): Float32Array;
    };
  };
}

/** Up to so many values a result is compared with the oracle, which takes its time. */
const COMPARED = 30_000;

/** Runs every check. */
export async function conformance(
  library: Library,
  testTime: TestTimeLibrary,
  onProgress: (section: string) => void = () => {},
): Promise<Outcome> {
  const checks = new Checks();
  for (const [name, section] of Object.entries(SECTIONS)) {
    onProgress(name);
    await section({ checks, library, testTime, layerOf: layersOf(library) });
  }
  return checks.outcome;
}

interface Suite {
  readonly checks: Checks;
  readonly library: Library;
  readonly testTime: TestTimeLibrary;
  /** A layer for a shape, with a γ, β and averages that are not those of a fresh one. */
  readonly layerOf: (shaped: Shaped, options?: BatchNormOptions, seed?: number) => BatchNorm;
}

const layersOf =
  ({ BatchNorm }: Library): Suite["layerOf"] =>
  (shaped, options = {}, seed = 1) => {
    const channels = channelsOf(shaped);
    const layer = new BatchNorm(channels, { ...options, layout: shaped.layout });
    layer.gamma?.set(bell(channels, seed + 101, 1, 0.5));
    layer.beta?.set(bell(channels, seed + 102));
    layer.runningMean.set(bell(channels, seed + 103, 0.5, 0.4));
    layer.runningVariance.set(bell(channels, seed + 104, 2, 0.5));
    layer.batchesSeen = 5;
    return layer;
  };

const SECTIONS: Record<string, (suite: Suite) => void | Promise<void>> = {
  shapes,
  sizes,
  places,
  layouts,
  options,
  averages,
  statistics,
  parts,
  calibration,
  adaptation,
  folding,
  frozen,
  snapshots,
  numbers,
  memory,
  errors,
};

/** train, backward and infer for each way that data are walked. */
function shapes({ checks, library, testTime, layerOf }: Suite): void {
  const kernels = new library.Kernels({ memory: 32 << 20 });
  for (const [i, shaped] of SHAPES.entries()) {
    const name = nameOf(shaped);
    const { shape } = shaped;
    const view = viewOf(shaped);
    const compared = sizeOf(shaped) <= COMPARED;
    const x = bell(sizeOf(shaped), i, 2, 3);
    const dy = bell(sizeOf(shaped), i + 100, 0, 0.5);
    const layer = layerOf(shaped, {}, i);
    const { gamma, beta, epsilon } = layer;
    const expected = compared ? oracle.moments(x, view) : null;

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
    checks.check(`${name}: infer`, () => {
      const z = layer.infer(x, { shape });
      const { runningMean: mean, runningVariance: variance } = layer;
      if (compared) assertNormalized(z, x, view, { mean, variance, gamma, beta, epsilon });
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
      if (compared) assertGradients(given, dy, x, view, terms, { frozen: true });
      checks.record(given.dx, given.dgamma, given.dbeta);
    });
    checks.check(`${name}: in kernel memory, in place, the same bits`, () => {
      const twin = layerOf(shaped, { kernels }, i);
      const tensor = kernels.alloc(x.length);
      tensor.set(x);
      assertSameBits("y", twin.train(tensor, { shape, out: tensor }), y);
      tensor.set(dy);
      const plain = layerOf(shaped, {}, i);
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
}

/** Sizes around those of vectors and blocks: rows of few channels, narrow planes. */
function sizes({ checks, layerOf }: Suite): void {
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
function places({ checks, library, layerOf }: Suite): void {
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

/** Masks in every layout, and what a layout is: the same values in another order. */
function layouts({ checks, layerOf }: Suite): void {
  const [examples, channels] = [4, 5];
  for (const layout of LAYOUTS) {
    const sides = [3, 4, 2].slice(0, layout.length - 2);
    const shape =
      layout[1] === "C" ? [examples, channels, ...sides] : [examples, ...sides, channels];
    const shaped: Shaped = { layout, shape };
    const x = bell(sizeOf(shaped), 11, 3, 2);
    const dy = bell(sizeOf(shaped), 12);
    const mask = maskOf(countOf(shaped), 13);
    const at = placesOf(shaped, (position) => mask[position] !== 0);
    const padding = placesOf(shaped, (position) => mask[position] === 0);
    for (const i of padding) x[i] = dy[i] = NaN;
    const rows: Shaped = { layout: "NC", shape: [at.length / channels, channels] };
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
}

/** Options of the layer, and the factories. */
function options({ checks, library, layerOf }: Suite): void {
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
function averages({ checks, library }: Suite): void {
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

/** Moments as values: pooling in any order, JSON, clones, setRunning. */
function statistics({ checks, library, layerOf }: Suite): void {
  const { BatchNorm, Moments } = library;
  for (const mean of [0, 1e3, 1e6]) {
    checks.check(`merge in any order and grouping, |mean|/σ = ${mean}`, () => {
      const layer = new BatchNorm(4);
      const sizes = [3, 1, 17, 64, 70];
      const parts = sizes.map((n, i) => bell(4 * n, 50 + i, mean));
      const moments = parts.map((x) => layer.moments(x));
      const forward = Moments.pool(moments);
      const backward = Moments.pool([...moments].reverse());
      const [a, b, c, d, e] = moments as [Moments, Moments, Moments, Moments, Moments];
      const grouped = a.merge(b).merge(c.merge(d.merge(e)));
      const count = sizes.reduce((sum, n) => sum + n, 0);
      for (const other of [backward, grouped]) {
        expect(other.count === count, count, other.count);
        assertWithin("mean", other.mean, forward.mean, () => POOLING_ERROR * Math.max(1, mean));
        assertWithin("m2", other.m2, forward.m2, (i) => POOLING_ERROR * forward.m2[i]!);
      }
      checks.record(forward.mean, forward.meanLow, forward.m2, backward.m2, grouped.m2);
    });
  }
  const shaped: Shaped = { layout: "NC", shape: [20, 5] };
  const x = bell(sizeOf(shaped), 60, 2, 3);
  checks.check("moments of nothing are the identity", () => {
    const layer = layerOf(shaped);
    const none = layer.moments(new Float32Array(0));
    const some = layer.moments(x);
    expect(none.count === 0, 0, none.count);
    assertSameBits("m2", none.merge(some).m2, some.m2);
    assertSameBits("mean", some.merge(none).mean, some.mean);
  });
  checks.check("through JSON and as a plain object, exactly", () => {
    const moments = layerOf(shaped).moments(x);
    const read = Moments.fromJSON(JSON.stringify(moments));
    assertSameBits("mean", read.mean, moments.mean);
    assertSameBits("meanLow", read.meanLow, moments.meanLow);
    assertSameBits("m2", read.m2, moments.m2);
    const clone = { count: moments.count, mean: moments.mean.slice(), m2: moments.m2.slice() };
    assertSameBits("m2", moments.merge(clone).m2, moments.merge(moments).m2);
    checks.record(moments.mean, moments.meanLow, moments.m2);
    checks.say(JSON.stringify(moments));
  });
  for (const kind of ["sample", "population"] as const) {
    checks.check(`setRunning by the ${kind} variance`, () => {
      const layer = layerOf(shaped, { runningVarianceOf: kind });
      const moments = layer.moments(x);
      layer.setRunning(moments);
      assertSameBits("mean", layer.runningMean, moments.mean);
      assertSameBits("variance", layer.runningVariance, moments.variance(kind));
      checks.record(layer.runningMean, layer.runningVariance);
    });
  }
}

/** A batch split over workers is normalized and differentiated as one. */
function parts({ checks, library, layerOf }: Suite): void {
  const { Moments, GradientSums } = library;
  for (const cuts of [
    [3, 30],
    [1, 64],
    [20, 20, 5],
  ]) {
    checks.check(`a batch in parts of ${cuts.join(", ")} examples`, () => {
      const channels = 6;
      const total = cuts.reduce((sum, n) => sum + n, 0);
      const whole: Shaped = { layout: "NC", shape: [total, channels] };
      const x = bell(sizeOf(whole), 70, 1, 2);
      const dy = bell(sizeOf(whole), 71);
      const one = layerOf(whole);
      const y = one.train(x);
      const expected = one.backward(dy);
      let from = 0;
      const pieces = cuts.map((n) => {
        const range = [from, (from += n * channels)] as const;
        return { x: x.slice(...range), dy: dy.slice(...range), layer: layerOf(whole) };
      });
      const pooled = Moments.pool(pieces.map((piece) => piece.layer.moments(piece.x)));
      const ys = pieces.map((piece) => piece.layer.train(piece.x, { statistics: pooled }));
      const sums = GradientSums.pool(pieces.map((piece) => piece.layer.backwardSums(piece.dy)));
      const gradients = pieces.map((piece) => piece.layer.backward(piece.dy, { sums }));
      const joined = join(ys);
      const dx = join(gradients.map((each) => each.dx));
      assertWithin("y", joined, y, () => 2e-6);
      assertWithin("dx", dx, expected.dx, () => 4e-6);
      for (const { dgamma, dbeta } of gradients) {
        assertWithin("dgamma", dgamma!, expected.dgamma!, () => 1e-4);
        assertWithin("dbeta", dbeta!, expected.dbeta!, () => 1e-4);
      }
      for (const { layer } of pieces) {
        assertWithin("running mean", layer.runningMean, one.runningMean, () => 1e-6);
      }
      checks.record(joined, dx, gradients[0]!.dgamma, gradients[0]!.dbeta);
      checks.record(sums.sumDy, sums.sumDyXmu);
      checks.say(JSON.stringify(sums));
    });
  }
}

/** calibrate over two layers, sync and async; diagnose. */
async function calibration({ checks, library, layerOf }: Suite): Promise<void> {
  const { calibrate, diagnose } = library;
  const shaped: Shaped = { layout: "NC", shape: [16, 5] };
  const batches = [1, 2, 3].map((i) => bell(sizeOf(shaped) * (i % 2 ? 1 : 2), 80 + i, i));
  const network = (first: BatchNorm, second: BatchNorm) => (x: Float32Array) =>
    second.train(first.train(x).map((v) => Math.max(0, v)));
  async function* later(): AsyncGenerator<Float32Array> {
    for (const batch of batches) yield batch;
  }
  let expected: Float64Array | undefined;
  for (const [name, source] of [
    ["an array", () => batches],
    ["an async iterable", later],
  ] as const) {
    await checks.wait(`calibrate on ${name}`, async () => {
      const layers = [layerOf(shaped), layerOf(shaped, {}, 9)] as const;
      const report = await calibrate(layers, network(...layers), source());
      expect(report.batches === 3, 3, report.batches);
      expect(report.examples === 64, 64, report.examples);
      const [first, second] = layers;
      const all = first.moments(join(batches));
      const variance = all.variance("sample");
      assertWithin("mean", first.runningMean, all.mean, (c) => 1e-6 * Math.sqrt(variance[c]!));
      assertWithin("variance", first.runningVariance, variance, (c) => 2e-6 * variance[c]!);
      expect(second.batchesSeen === 3, 3, second.batchesSeen);
      expected ??= second.runningVariance.slice();
      assertSameBits("second layer", second.runningVariance, expected);
      for (const { meanDrift, varianceRatio } of report.layers) {
        checks.record(meanDrift, varianceRatio);
      }
      checks.record(first.runningMean, second.runningMean, second.runningVariance);
    });
  }
  await checks.wait("calibrate that throws has changed nothing", async () => {
    const layer = layerOf(shaped);
    const before = JSON.stringify(layer);
    let thrown: unknown;
    try {
      await calibrate([layer], () => layer.train(batches[0]!), []);
    } catch (error) {
      thrown = error;
    }
    expect(thrown instanceof library.StateError, "a StateError", thrown);
    expect(JSON.stringify(layer) === before, before, JSON.stringify(layer));
  });
  checks.check("diagnose", () => {
    const layer = layerOf(shaped);
    const x = bell(2000, 90, 0.5);
    const drifted = diagnose(layer, bell(2000, 91, 5));
    expect(drifted.verdict === "drifted", "drifted", drifted.verdict);
    layer.setRunning(layer.moments(x));
    const fit = diagnose(layer, x);
    expect(fit.verdict === "fit", "fit", fit.verdict);
    for (const each of [drifted, fit]) {
      checks.record(each.channels.meanDrift, each.channels.varianceRatio);
      checks.say(String(each));
    }
  });
}

/** Test-time adaptation. */
function adaptation({ checks, library, layerOf }: Suite): void {
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
function folding({ checks, library: { fold }, layerOf }: Suite): void {
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

/** A frozen layer is a value of its own. */
function frozen({ checks, library, testTime, layerOf }: Suite): void {
  for (const layout of LAYOUTS) {
    const sides = [2, 3, 2].slice(0, layout.length - 2);
    const shape = layout[1] === "C" ? [3, 9, ...sides] : [3, ...sides, 9];
    const shaped: Shaped = { layout, shape };
    checks.check(`${layout}: JSON, text or object, in either entry`, () => {
      const x = bell(sizeOf(shaped), 120);
      const layer = layerOf(shaped);
      const y = layer.infer(x, { shape });
      const made = layer.freeze();
      layer.reset();
      layer.gamma!.fill(7);
      for (const json of [made.toJSON(), JSON.stringify(made)]) {
        assertSameBits("main", library.FrozenBatchNorm.fromJSON(json).infer(x, { shape }), y);
        assertSameBits("infer", testTime.FrozenBatchNorm.fromJSON(json).infer(x, { shape }), y);
      }
      checks.say(JSON.stringify(made));
    });
  }
  checks.check("numbers that JSON lacks", () => {
    const layer = new library.BatchNorm(4);
    layer.gamma!.set([NaN, Infinity, -0, 1e-45]);
    layer.beta!.set([1, -Infinity, -0, 3.4e38]);
    const x = bell(40, 130);
    const y = layer.infer(x);
    const text = JSON.stringify(layer.freeze());
    assertSameBits("main", library.FrozenBatchNorm.fromJSON(text).infer(x), y);
    assertSameBits("infer", testTime.FrozenBatchNorm.fromJSON(text).infer(x), y);
    checks.say(text);
    checks.record(y);
  });
  checks.check("no examples: an empty array", () => {
    const made = new library.BatchNorm(4).freeze();
    const y = made.infer(new Float32Array(0));
    expect(y.length === 0, 0, y.length);
    const small = testTime.FrozenBatchNorm.fromJSON(made.toJSON());
    expect(small.infer(new Float32Array(0)).length === 0, 0, "values");
    const planes = new library.BatchNorm(4, { layout: "NCHW" }).freeze();
    for (const shape of [
      [0, 4, 2, 2],
      [2, 4, 0, 3],
    ]) {
      const none = planes.infer(new Float32Array(0), { shape });
      expect(none.length === 0, 0, none.length);
    }
  });
}

/** snapshot, restore, clone, reset. */
function snapshots({ checks, library, layerOf }: Suite): void {
  const { BatchNorm } = library;
  const shaped: Shaped = { layout: "NHWC", shape: [2, 3, 3, 5] };
  const x = bell(sizeOf(shaped), 140, 1);
  const trained = (): BatchNorm => {
    const layer = layerOf(shaped, { decay: 0.75, debias: true });
    layer.train(x, { shape: shaped.shape });
    return layer;
  };
  const ways: Record<string, (layer: BatchNorm) => BatchNorm> = {
    "a snapshot": (layer) => BatchNorm.fromSnapshot(layer.snapshot()),
    "its text": (layer) => BatchNorm.fromSnapshot(JSON.stringify(layer)),
    clone: (layer) => layer.clone(),
    restore: (layer) => {
      const fresh = new BatchNorm(5, { layout: "NHWC", decay: 0.75, debias: true });
      fresh.restore(layer.snapshot());
      return fresh;
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    checks.check(`a layer by ${name} goes on where it was`, () => {
      const layer = trained();
      const other = way(layer);
      const text = JSON.stringify(layer);
      expect(JSON.stringify(other) === text, text, JSON.stringify(other));
      assertSameBits("y", other.train(x), layer.train(x));
      assertSameBits("running variance", other.runningVariance, layer.runningVariance);
      checks.say(JSON.stringify(other));
    });
  }
  checks.check("reset", () => {
    const layer = trained();
    layer.reset();
    expect(layer.lastBatch === null && layer.batchesSeen === 0, "a fresh one", layer);
    assertSameBits("running mean", layer.runningMean, new Float64Array(5));
  });
}

/** Numbers at the edges: means a million σ away, the smallest and largest, any bits at all. */
function numbers({ checks, library, layerOf }: Suite): void {
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
function memory({ checks, library, layerOf }: Suite): void {
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

/** Bad input: class, code and text, and nothing has changed. */
function errors({ checks, library, testTime, layerOf }: Suite): void {
  const { adapt, BatchNorm, Kernels, FrozenBatchNorm, Moments } = library;
  const { OptionError, ShapeError, SingleValueError, NonFiniteError, StateError, MemoryError } =
    library;
  const shaped: Shaped = { layout: "NC", shape: [4, 3] };
  const layer = layerOf(shaped);
  const x = bell(12, 170);
  const planes = layerOf({ layout: "NCHW", shape: [1, 3, 2, 2] });
  const anything = (value: unknown): never => value as never;
  const option = (name: string, call: () => unknown, of = layer) =>
    checks.refuses(name, OptionError, "OPTION", call, of);
  const shape = (name: string, call: () => unknown, of = layer) =>
    checks.refuses(name, ShapeError, "SHAPE", call, of);
  const state = (name: string, call: () => unknown, of = layer) =>
    checks.refuses(name, StateError, "STATE", call, of);

  option("no channels", () => new BatchNorm(0));
  option("half a channel", () => new BatchNorm(2.5));
  option("a negative epsilon", () => new BatchNorm(2, { epsilon: -1 }));
  option("decay 1", () => new BatchNorm(2, { decay: 1 }));
  option("momentum", () => new BatchNorm(2, anything({ momentum: 0.1 })));
  option("an unknown layout", () => new BatchNorm(2, anything({ layout: "CN" })));
  option("an unknown option of train", () => layer.train(x, anything({ training: true })));
  option("too little memory", () => new Kernels({ memory: 1000 }));
  option("adapt without a prior", () => adapt(layer, x, anything({})));
  shape("numbers", () => layer.train(anything([1, 2, 3, 4, 5, 6])));
  shape("a Float64Array", () => layer.infer(anything(new Float64Array(3))));
  shape("null", () => layer.infer(anything(null)));
  shape("half a row", () => layer.train(x.subarray(1)));
  shape("no examples", () => layer.train(new Float32Array(0)));
  shape("no shape", () => planes.train(x), planes);
  shape("a shape of other channels", () => planes.train(x, { shape: [1, 4, 3, 1] }), planes);
  shape("a shape of other size", () => planes.infer(x, { shape: [1, 3, 2, 3] }), planes);
  shape("a short out", () => layer.train(x, { out: new Float32Array(11) }));
  shape("an out that overlaps x", () => {
    const memory = new Float32Array(13);
    layer.infer(memory.subarray(0, 12), { out: memory.subarray(1) });
  });
  shape("a mask of numbers", () => layer.train(x, anything({ mask: [1, 1, 1, 1] })));
  shape("a short mask", () => layer.train(x, { mask: new Uint8Array(3) }));
  checks.refuses(
    "one example",
    SingleValueError,
    "SINGLE_VALUE",
    () => layer.train(x.subarray(0, 3)),
    layer,
  );
  for (const value of [NaN, Infinity, -Infinity]) {
    checks.refuses(
      `${value} in a mini-batch`,
      NonFiniteError,
      "NON_FINITE",
      () => {
        const bad = x.slice();
        bad[7] = value;
        layer.train(bad);
      },
      layer,
    );
  }
  checks.refuses("a variance that overflows", NonFiniteError, "NON_FINITE", () => {
    new BatchNorm(1).moments(Float32Array.of(3e38, -3e38, 3e38, -3e38).map((v) => v * 2));
  });
  state("backward before train", () => new BatchNorm(3).backward(x));
  state("backward after an in-place train", () => {
    const other = layerOf(shaped);
    const both = x.slice();
    other.train(both, { out: both });
    other.backward(x);
  });
  state("a batch of another layer", () => {
    const other = layerOf(shaped);
    other.train(x);
    layer.backward(x, { batch: other.lastBatch! });
  });
  state("a negative running variance", () => {
    const other = layerOf(shaped);
    other.runningVariance[1] = -1;
    other.infer(x);
  });
  state("no snapshot", () => BatchNorm.fromSnapshot("{}"));
  state("a frozen layer that is none", () => FrozenBatchNorm.fromJSON("[1, 2]"));
  state("moments that are none", () => Moments.fromJSON(anything({ format: "other" })));
  state("a tensor freed twice", () => {
    const tensor = layer.kernels.alloc(4);
    layer.kernels.free(tensor);
    layer.kernels.free(tensor);
  });
  state("a tensor freed already", () => {
    const tensor = layer.kernels.alloc(12);
    layer.kernels.free(tensor);
    layer.train(tensor);
  });
  const kernels = new Kernels({ memory: 1 << 20 });
  checks.refuses("more than the memory", MemoryError, "MEMORY", () => kernels.alloc(1 << 20));
  checks.check("the same refusals by batchnorm-wasm/infer", () => {
    const small = testTime.FrozenBatchNorm.fromJSON(layer.freeze().toJSON());
    const calls: [string, () => unknown][] = [
      ["SHAPE", () => small.infer(x.subarray(1))],
      ["SHAPE", () => small.infer(anything([1, 2, 3]))],
      ["OPTION", () => small.infer(x, anything({ training: true }))],
      ["STATE", () => testTime.FrozenBatchNorm.fromJSON("{}")],
    ];
    for (const [code, call] of calls) {
      let error: unknown;
      try {
        call();
      } catch (thrown) {
        error = thrown;
      }
      const { code: got } = (error ?? {}) as { code?: unknown };
      expect(got === code, code, got);
    }
  });
}

/** base^t for a whole t: products alone, as Math.pow differs between engines. */
function power(base: number, t: number): number {
  let result = 1;
  for (let i = 0; i < t; i++) result *= base;
  return result;
}

function join(arrays: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(arrays.reduce((sum, each) => sum + each.length, 0));
  let at = 0;
  for (const each of arrays) {
    all.set(each, at);
    at += each.length;
  }
  return all;
}
