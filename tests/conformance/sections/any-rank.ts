// Layouts of any rank, "channelsFirst" and "channelsLast": the same bits as the layouts that name the same axes.

import type { BatchNorm } from "batchnorm-wasm";
import { assertSameBits } from "../../support/compare.js";
import { countOf, nameOf, sizeOf, type Twin, twins } from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell, maskOf } from "../values.js";

/** Every method on tensors of two to six axes. */
export function anyRank(suite: Suite): void {
  for (const [i, twin] of twins(3, 5).entries()) {
    training(suite, twin, i);
    testTime(suite, twin, i);
    tools(suite, twin, i);
  }
  withoutShape(suite);
}

const dataOf = ({ shaped }: Twin, seed: number): Float32Array =>
  bell(sizeOf(shaped), 200 + seed, 1, 2);

function training({ checks, layerOf }: Suite, twin: Twin, i: number): void {
  const { shaped, named } = twin;
  checks.check(`${nameOf(shaped)}: train, backward, moments`, () => {
    const [layer, other] = [layerOf(shaped, {}, i), layerOf(named, {}, i)];
    const x = dataOf(twin, i);
    const dy = bell(x.length, 220 + i);
    const mask = maskOf(countOf(shaped), 240 + i);
    mask.fill(1, 0, 2);
    for (const options of [{}, { mask }]) {
      const [given, expected] = [
        { ...options, shape: shaped.shape },
        { ...options, shape: named.shape },
      ];
      const y = layer.train(x, given);
      assertSameBits("y", y, other.train(x, expected));
      const [{ dx, dgamma, dbeta }, gradients] = [layer.backward(dy), other.backward(dy)];
      assertSameBits("dx", dx, gradients.dx);
      assertSameBits("dgamma", dgamma!, gradients.dgamma!);
      assertSameBits("dbeta", dbeta!, gradients.dbeta!);
      const { mean, m2 } = layer.moments(x, given);
      assertSameBits("m2", m2, other.moments(x, expected).m2);
      checks.record(y, dx, dgamma, dbeta, mean, m2);
    }
    assertSameBits("running mean", layer.runningMean, other.runningMean);
    assertSameBits("running variance", layer.runningVariance, other.runningVariance);
    checks.record(layer.runningMean, layer.runningVariance);
  });
}

function testTime({ checks, library, testTime, layerOf }: Suite, twin: Twin, i: number): void {
  const { shaped, named } = twin;
  const { shape } = shaped;
  checks.check(`${nameOf(shaped)}: infer, frozen layers of both entries, snapshots`, () => {
    const layer = layerOf(shaped, {}, i);
    const x = dataOf(twin, i);
    const expected = layerOf(named, {}, i).infer(x, { shape: named.shape });
    const frozen = layer.freeze();
    const text = JSON.stringify(frozen);
    const ways: Record<string, Pick<BatchNorm, "infer">> = {
      layer,
      frozen,
      "from JSON": library.FrozenBatchNorm.fromJSON(text),
      "of a snapshot": library.BatchNorm.fromSnapshot(JSON.stringify(layer)),
    };
    for (const [name, way] of Object.entries(ways)) {
      assertSameBits(name, way.infer(x, { shape }), expected);
    }
    const small = testTime.FrozenBatchNorm.fromJSON(text);
    assertSameBits("batchnorm-wasm/infer", small.infer(x, { shape }), expected);
    checks.record(expected);
    checks.say(text);
  });
}

function tools({ checks, library, layerOf }: Suite, twin: Twin, i: number): void {
  const { adapt, adapter, diagnose } = library;
  const { shaped, named } = twin;
  checks.check(`${nameOf(shaped)}: adapt, adapter, diagnose`, () => {
    const [layer, other] = [layerOf(shaped, {}, i), layerOf(named, {}, i)];
    const x = dataOf(twin, i);
    const [{ shape }, expected] = [shaped, { shape: named.shape }];
    // The examples of rows are their positions.
    const prior = named.shape[0]! / shape[0]!;
    const y = adapt(layer, x, { prior: 1, shape }).infer(x, { shape });
    assertSameBits("adapt", y, adapt(other, x, { prior, ...expected }).infer(x, expected));
    const stream = adapter(layer, { prior: 1, memory: 8 });
    assertSameBits("adapter", stream.infer(x, { shape }), y);
    const { channels } = diagnose(layer, x, { shape });
    const { meanDrift } = diagnose(other, x, expected).channels;
    assertSameBits("mean drift", channels.meanDrift, meanDrift);
    checks.record(y, channels.meanDrift, channels.varianceRatio);
  });
}

function withoutShape({ checks, library, layerOf }: Suite): void {
  const x = bell(30, 260);
  checks.check("channelsLast without a shape: rows", () => {
    const layer = layerOf({ layout: "channelsLast", shape: [6, 5] });
    const y = layer.train(x);
    assertSameBits("y", y, layerOf({ layout: "NC", shape: [6, 5] }).train(x));
    expect(layer.backward(x).dx.length === 30, 30, "another length");
    checks.record(y);
  });
  const layer = layerOf({ layout: "channelsFirst", shape: [6, 5] });
  const refused = (name: string, call: () => unknown): void =>
    checks.refuses(
      `channelsFirst without a shape: ${name}`,
      library.ShapeError,
      "SHAPE",
      call,
      layer,
    );
  refused("train", () => layer.train(x));
  refused("infer", () => layer.infer(x));
  refused("a frozen layer", () => layer.freeze().infer(x));
  refused("moments", () => layer.moments(x));
}
