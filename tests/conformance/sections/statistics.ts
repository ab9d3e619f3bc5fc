// Statistics as values: pooled, split over workers, gathered by calibrate, diagnosed.

import type { BatchNorm, Moments } from "batchnorm-wasm";
import { assertSameBits, assertWithin } from "../../support/compare.js";
import { POOLING_ERROR } from "../../support/limits.js";
import { type Shaped, sizeOf } from "../../support/shapes.js";
import { expect } from "../checks.js";
import { join, type Suite } from "../section.js";
import { bell } from "../values.js";

/** Moments as values: pooling in any order, JSON, clones, setRunning. */
export function statistics({ checks, library, layerOf }: Suite): void {
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
  asValues({ checks, library, layerOf });
}

/** The identity of merge, JSON, clones, setRunning. */
function asValues({ checks, library: { Moments }, layerOf }: Omit<Suite, "testTime">): void {
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
export function parts({ checks, library, layerOf }: Suite): void {
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
export async function calibration(suite: Suite): Promise<void> {
  const { checks, library, layerOf } = suite;
  const { calibrate } = library;
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
  await failedCalibration(suite, shaped, batches);
  diagnosis(suite, shaped);
}

async function failedCalibration(
  { checks, library, layerOf }: Suite,
  shaped: Shaped,
  batches: readonly Float32Array[],
): Promise<void> {
  const { calibrate } = library;
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
}

function diagnosis({ checks, library: { diagnose }, layerOf }: Suite, shaped: Shaped): void {
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
