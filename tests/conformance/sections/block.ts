// Activation and residual: the bits of the separate steps, which are the layer without them, the sum, and the limits.

import { assertSameBits } from "../../support/compare.js";
import { countOf, nameOf, placesOf, type Shaped, sizeOf } from "../../support/shapes.js";
import type { Suite } from "../section.js";
import { bell, maskOf } from "../values.js";

/** Rows and planes, in one part and in several, in one tile and in several. */
const SHAPES: readonly Shaped[] = [
  { layout: "NC", shape: [9, 5] },
  { layout: "NC", shape: [70, 1030] },
  { layout: "NHWC", shape: [2, 6, 5, 3] },
  { layout: "NCHW", shape: [3, 5, 4, 7] },
  { layout: "NCHW", shape: [2, 2, 200, 180] },
];

const ACTIVATIONS = {
  relu: { activation: "relu", low: 0, high: Infinity },
  relu6: { activation: "relu6", low: 0, high: 6 },
  range: { activation: [-0.5, 0.75], low: -0.5, high: 0.75 },
} as const;

export function block(suite: Suite): void {
  for (const shaped of SHAPES) {
    for (const name of ["relu", "relu6", "range"] as const) {
      for (const added of [false, true]) {
        for (const masked of [false, true]) steps(suite, shaped, name, added, masked);
      }
    }
  }
}

function steps(
  { checks, library, testTime, layerOf }: Suite,
  shaped: Shaped,
  name: keyof typeof ACTIVATIONS,
  added: boolean,
  masked: boolean,
): void {
  const { activation, low, high } = ACTIVATIONS[name];
  const title = `${nameOf(shaped)}: ${name}${added ? ", add" : ""}${masked ? ", mask" : ""}`;
  checks.check(title, () => {
    const { shape } = shaped;
    const size = sizeOf(shaped);
    const mask = maskOf(countOf(shaped), 304);
    const padding = new Set(masked ? placesOf(shaped, (position) => mask[position] === 0) : []);
    const [x, dy] = [bell(size, 301, 0.5, 2), bell(size, 302)];
    const add = bell(size, 303);
    const data = masked ? { shape, mask } : { shape };
    const options = added ? { ...data, add } : data;
    const sum = (v: number, i: number): number =>
      added && !padding.has(i) ? Math.fround(v + add[i]!) : v;
    const united = (z: Float32Array): Float32Array =>
      z.map((v, i) => {
        const whole = sum(v, i);
        return whole < low ? low : whole > high ? high : whole;
      });

    const plain = layerOf(shaped, {}, 300);
    const layer = layerOf(shaped, { activation }, 300);
    const z = plain.train(x, data);
    const y = layer.train(x, options);
    assertSameBits("train", y, united(z));
    const kept = dy.map((v, i) => (low < sum(z[i]!, i) && sum(z[i]!, i) < high ? v : 0));
    const expected = plain.backward(kept);
    const { dx, dgamma, dbeta, dadd } = layer.backward(dy);
    assertSameBits("dx", dx, expected.dx);
    assertSameBits("dgamma", dgamma!, expected.dgamma!);
    assertSameBits("dbeta", dbeta!, expected.dbeta!);
    if (added) {
      assertSameBits(
        "dadd",
        dadd!,
        kept.map((v, i) => (padding.has(i) ? 0 : v)),
      );
    }
    const inferred = united(plain.infer(x, data));
    const text = JSON.stringify(layer.freeze());
    assertSameBits("infer", layer.infer(x, options), inferred);
    assertSameBits("frozen", library.FrozenBatchNorm.fromJSON(text).infer(x, options), inferred);
    assertSameBits("small", testTime.FrozenBatchNorm.fromJSON(text).infer(x, options), inferred);
    const again = library.BatchNorm.fromSnapshot(JSON.stringify(layer));
    assertSameBits("snapshot", again.infer(x, options), inferred);
    checks.record(y, dx, dgamma, dbeta, dadd, inferred);
  });
}
