// Frozen layers and snapshots.

import type { BatchNorm } from "batchnorm-wasm";
import { assertSameBits } from "../../support/compare.js";
import { LAYOUTS, type Shaped, sizeOf } from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell } from "../values.js";

/** A frozen layer is a value of its own. */
export function frozen({ checks, library, testTime, layerOf }: Suite): void {
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
export function snapshots({ checks, library, layerOf }: Suite): void {
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
