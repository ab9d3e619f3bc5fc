// "channelsFirst" and "channelsLast", which take tensors of any rank: the bits of the layouts that name the axes.

import {
  adapt,
  adapter,
  BatchNorm,
  calibrate,
  diagnose,
  FrozenBatchNorm,
  type Layout,
  OptionError,
  ShapeError,
} from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import { load, save } from "batchnorm-wasm/state";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  countOf,
  layerOf,
  nameOf,
  seeds,
  settle,
  sizeOf,
  type Twin,
  twins,
} from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import { check } from "./support/property.js";
import { assertRefuses } from "./support/refuse.js";
import { product, viewOf } from "./support/shapes.js";

const TWINS = twins(6, 5).map((twin) => [nameOf(twin.shaped), twin] as const);

/** Tensors of two to six axes; the named layouts take all sides as one. */
const anyTwin: fc.Arbitrary<Twin> = fc
  .record({
    first: fc.boolean(),
    examples: fc.integer({ min: 2, max: 9 }),
    channels: fc.integer({ min: 1, max: 40 }),
    sides: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
  })
  .map(({ first, examples, channels, sides }) => {
    const inner = product(sides);
    return first
      ? {
          shaped: { layout: "channelsFirst", shape: [examples, channels, ...sides] },
          named: { layout: "NCL", shape: [examples, channels, inner] },
        }
      : {
          shaped: { layout: "channelsLast", shape: [examples, ...sides, channels] },
          named: { layout: "NC", shape: [examples * inner, channels] },
        };
  });

function drawn(positions: number, seed: number): Uint8Array {
  const next = random(seed);
  return Uint8Array.from({ length: positions }, (_, p) => Number(p < 2 || next() < 0.6));
}

/** train, backward, moments and infer of both give the same bits, with or without a mask. */
function assertAlike({ shaped, named }: Twin, masked: boolean, seed: number): void {
  const [layer, other] = [settle(layerOf(shaped, {}, seed)), settle(layerOf(named, {}, seed))];
  const mask = masked ? { mask: drawn(countOf(shaped), seed) } : {};
  const [own, theirs] = [
    { shape: shaped.shape, ...mask },
    { shape: named.shape, ...mask },
  ];
  const [x, dy] = [normal(sizeOf(shaped), seed, 2), normal(sizeOf(shaped), seed + 1)];
  assertSameBits("infer", layer.infer(x, own), other.infer(x, theirs));
  assertSameBits("train", layer.train(x, own), other.train(x, theirs));
  expect(layer.lastBatch!.shape).toEqual(shaped.shape);
  const [actual, expected] = [layer.backward(dy), other.backward(dy)];
  for (const name of ["dx", "dgamma", "dbeta"] as const) {
    assertSameBits(name, actual[name]!, expected[name]!);
  }
  expect(layer.moments(x, own)).toEqual(other.moments(x, theirs));
  expect(layer.backwardSums(dy)).toEqual(other.backwardSums(dy));
  assertSameBits("mean", layer.runningMean, other.runningMean);
  assertSameBits("variance", layer.runningVariance, other.runningVariance);
}

test("the bits of the named layouts, for any rank, shape and mask", () => {
  check(fc.property(anyTwin, fc.boolean(), seeds, assertAlike), 150);
});

describe.each(TWINS)("%s", (_, twin) => {
  const { shaped, named } = twin;
  const { layout, shape } = shaped;
  const x = normal(sizeOf(shaped), 3, 1, 2);
  const make = () => settle(layerOf(shaped));
  const other = () => settle(layerOf(named));

  test("train, backward, moments and infer", () => {
    for (const masked of [false, true]) assertAlike(twin, masked, 7);
  });

  test("frozen layers and their JSON, in both entries", () => {
    const y = other().infer(x, { shape: named.shape });
    const frozen = make().freeze();
    expect(frozen.layout).toBe(layout);
    for (const json of [frozen.toJSON(), JSON.stringify(frozen)]) {
      for (const Frozen of [FrozenBatchNorm, Small]) {
        const read = Frozen.fromJSON(json);
        expect(read.layout).toBe(layout);
        assertSameBits("y", read.infer(x, { shape }), y);
      }
    }
    assertSameBits("y", frozen.infer(x, { shape }), y);
  });

  test("snapshots, clones and files go on where the layer was", () => {
    const layer = make();
    layer.train(x, { shape });
    const fresh = new BatchNorm(5, { layout });
    fresh.restore(layer.snapshot());
    const copies = [
      BatchNorm.fromSnapshot(JSON.stringify(layer)),
      layer.clone(),
      fresh,
      load(save({ layer })).layer!,
    ];
    const y = layer.infer(x, { shape });
    for (const copy of copies) {
      expect(copy.layout).toBe(layout);
      assertSameBits("y", copy.infer(x, { shape }), y);
      expect(copy.snapshot()).toEqual(layer.snapshot());
    }
  });

  test("calibrate", async () => {
    const [layer, reference] = [make(), other()];
    const batches = [1, 2].map((seed) => normal(x.length, seed, seed));
    const report = await calibrate([layer], (b) => layer.train(b, { shape }), batches);
    await calibrate([reference], (b) => reference.train(b, { shape: named.shape }), batches);
    expect(report.examples).toBe(2 * shape[0]!);
    assertSameBits("mean", layer.runningMean, reference.runningMean);
    assertSameBits("variance", layer.runningVariance, reference.runningVariance);
  });

  test("adapt, adapter and diagnose", () => {
    // As rows, each position is an example: a prior of as many weighs the same.
    const prior = named.shape[0]! / shape[0]!;
    const theirs = { shape: named.shape };
    const expected = adapt(other(), x, { prior, ...theirs }).infer(x, theirs);
    assertSameBits("adapt", adapt(make(), x, { prior: 1, shape }).infer(x, { shape }), expected);
    const stream = adapter(make(), { prior: 1, memory: 100 });
    assertSameBits("adapter", stream.infer(x, { shape }), expected);
    expect(stream.examples).toBe(shape[0]);
    const [own, reference] = [diagnose(make(), x, { shape }), diagnose(other(), x, theirs)];
    expect(own.channels).toEqual(reference.channels);
    expect(own.verdict).toBe(reference.verdict);
  });

  test("shapes that do not fit", () => {
    const layer = make();
    const axis = layout === "channelsFirst" ? 1 : shape.length - 1;
    const axes = layout === "channelsFirst" ? "[N, C, …]" : "[N, …, C]";
    const six = shape.map((size, i) => (i === axis ? 6 : size));
    const more = [7, ...shape.slice(1)];
    for (const given of [[30], [], six, more]) {
      const error = new ShapeError(
        `shape: expected sizes ${axes} with C = 5, ${x.length} values in all, for layout "${layout}", got [${given.join(", ")}]`,
      );
      for (const one of [layer, layer.freeze()]) {
        expect(() => one.infer(x, { shape: given })).toThrow(error);
      }
      expect(() => layer.train(x, { shape: given })).toThrow(error);
      expect(() => layer.moments(x, { shape: given })).toThrow(error);
    }
    expect(layer.lastBatch).toBeNull();
  });

  test("no examples", () => {
    const none = { shape: [0, ...shape.slice(1)] };
    for (const one of [make(), make().freeze()]) {
      expect(one.infer(new Float32Array(0), none).length).toBe(0);
    }
  });
});

test("channelsFirst always needs a shape", () => {
  const layer = settle(layerOf({ layout: "channelsFirst", shape: [6, 5] }));
  const x = normal(30, 1);
  const frozen = layer.freeze();
  const message =
    /^shape: expected the sizes of all axes for layout "channelsFirst", as a length does not tell them, got none$/;
  for (const call of [
    () => layer.train(x),
    () => layer.train(x, { statistics: "running" }),
    () => layer.infer(x),
    () => layer.moments(x),
    () => frozen.infer(x),
    () => Small.fromJSON(frozen.toJSON()).infer(x),
    () => adapt(layer, x, { prior: 1 }),
    () => adapter(layer, { prior: 1, memory: 1 }).infer(x),
    () => diagnose(layer, x),
  ]) {
    assertRefuses(ShapeError, message, call, layer);
  }
});

test("channelsLast without a shape: rows; examples do not follow from a length", () => {
  const x = normal(60, 1);
  const make = (layout: Layout) => settle(layerOf({ layout, shape: [12, 5] }));
  const [layer, rows] = [make("channelsLast"), make("NC")];
  assertSameBits("infer", layer.infer(x), rows.infer(x));
  assertSameBits("frozen", layer.freeze().infer(x), rows.infer(x));
  assertSameBits("small", Small.fromJSON(layer.freeze().toJSON()).infer(x), rows.infer(x));
  assertSameBits("train", layer.train(x), rows.train(x));
  assertSameBits("dx", layer.backward(x).dx, rows.backward(x).dx);
  expect(viewOf({ layout: "channelsLast", shape: layer.lastBatch!.shape })).toEqual({
    outer: 12,
    channels: 5,
    inner: 1,
  });
  const message = /^shape: expected the sizes of all axes for layout "channelsLast", .* got none$/;
  assertRefuses(ShapeError, message, () => adapt(layer, x, { prior: 1 }), layer);
  assertRefuses(ShapeError, /^x: expected rows of 5 channels, got 61 values$/, () =>
    layer.infer(new Float32Array(61)),
  );
});

describe("factories", () => {
  const { torch, onnx, keras, flax } = BatchNorm;

  test.each(Object.entries({ torch, onnx, keras, flax }))("%s takes channelsFirst", (_, make) => {
    const layer = make(5, { layout: "channelsFirst" });
    const reference = make(5, { layout: "NCHW" });
    const x = normal(5 * 24, 1, 3);
    const shape = [2, 5, 3, 4];
    assertSameBits("y", layer.train(x, { shape }), reference.train(x, { shape }));
    expect({ ...layer.snapshot(), layout: "NCHW" }).toEqual(reference.snapshot());
  });

  test.each(Object.entries({ keras, flax }))("%s takes channelsLast", (_, make) => {
    const layer = make(5, { layout: "channelsLast" });
    const reference = make(5, { layout: "NHWC" });
    const x = normal(5 * 24, 1, 3);
    const shape = [2, 3, 4, 5];
    assertSameBits("y", layer.train(x, { shape }), reference.train(x, { shape }));
    expect({ ...layer.snapshot(), layout: "NHWC" }).toEqual(reference.snapshot());
  });

  test.each(Object.entries({ torch, onnx }))("%s, channels first alone, does not", (_, make) => {
    expect(() => make(5, { layout: "channelsLast" })).toThrow(
      new OptionError(
        'layout: expected one of "NC", "NCL", "NCHW", "NCDHW", "channelsFirst", got "channelsLast"',
      ),
    );
  });
});
