// `freeze`: an immutable test-time copy, and its JSON.

import { type BatchNorm, FrozenBatchNorm, Kernels, OptionError, StateError } from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LAYOUTS, layerOf, seeds, settle, shapes, sizeOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { anyBits, normal } from "./support/data.js";
import { check } from "./support/property.js";

/** Every bit of a number as JSON writes and reads it. */
const throughText = (frozen: FrozenBatchNorm): FrozenBatchNorm =>
  FrozenBatchNorm.fromJSON(JSON.stringify(frozen));

/** Parameters and averages of any bits at all, but for the variances. */
function anything(layer: BatchNorm, seed: number): BatchNorm {
  const { channels } = layer;
  layer.gamma?.set(anyBits(channels, seed));
  layer.beta?.set(anyBits(channels, seed + 1));
  layer.runningMean.set(anyBits(channels, seed + 2));
  layer.runningVariance.set(
    anyBits(channels, seed + 3).map((v) => (Number.isFinite(v) ? Math.abs(v) : 0)),
  );
  return layer;
}

describe("infer", () => {
  test("the bits of the layer's own, for any layout, shape and numbers", () => {
    check(
      fc.property(
        shapes(1),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(0, 1e-5, 1e-3),
        fc.boolean(),
        seeds,
        (shaped, gamma, beta, epsilon, any, seed) => {
          const layer = layerOf(shaped, { gamma, beta, epsilon }, seed);
          if (any) anything(layer, seed);
          else settle(layer, seed);
          const x = any ? anyBits(sizeOf(shaped), seed) : normal(sizeOf(shaped), seed);
          const { shape } = shaped;
          const frozen = layer.freeze();
          const y = layer.infer(x, { shape });
          assertSameBits("y", frozen.infer(x, { shape }), y);
          assertSameBits("y", throughText(frozen).infer(x, { shape }), y);
          const out = x.slice();
          expect(frozen.infer(out, { shape, out })).toBe(out);
          assertSameBits("y", out, y);
        },
      ),
      150,
    );
  });

  // The small entry has a walk of its own, in parts that fit the stream buffers: of a plane, or several planes.
  test.each([[[1, 1, 300_001]], [[1, 2, 270_000]], [[2, 3, 70_001]], [[3, 1100, 70]]])(
    "planes of %j, which no stream buffer holds, in batchnorm-wasm/infer",
    (shape) => {
      const shaped = { layout: "NCL", shape } as const;
      const size = sizeOf(shaped);
      const layer = settle(layerOf(shaped, { activation: [-1, 1] }));
      const [x, add] = [normal(size, 1), normal(size, 2)];
      const small = Small.fromJSON(layer.freeze().toJSON());
      assertSameBits("y", small.infer(x, { shape, add }), layer.infer(x, { shape, add }));
    },
  );

  test("the averages that training left", () => {
    const layer = layerOf({ layout: "NC", shape: [9, 5] });
    for (let step = 0; step < 5; step++) layer.train(normal(45, step, step));
    const one = normal(5, 9);
    assertSameBits("y", layer.freeze().infer(one), layer.infer(one));
  });
});

describe("immutable", () => {
  const make = () => settle(layerOf({ layout: "NC", shape: [9, 5] }));
  const x = normal(45, 2);

  test("nothing done to the layer afterwards shows", () => {
    const layer = make();
    const frozen = layer.freeze();
    const y = frozen.infer(x);
    const text = JSON.stringify(frozen);
    layer.gamma!.fill(9);
    layer.beta!.fill(9);
    layer.runningMean.fill(9);
    layer.runningVariance.fill(9);
    layer.train(x);
    layer.reset();
    assertSameBits("y", frozen.infer(x), y);
    expect(JSON.stringify(frozen)).toBe(text);
  });

  test("nothing done to its JSON, or to what it was read from, shows", () => {
    const layer = make();
    const frozen = layer.freeze();
    const y = frozen.infer(x);
    const json = frozen.toJSON();
    const read = FrozenBatchNorm.fromJSON(json);
    for (const name of ["center", "scale", "shift"] as const) {
      (json[name] as number[]).fill(9);
    }
    assertSameBits("y", frozen.infer(x), y);
    assertSameBits("y", read.infer(x), y);
  });

  test("its properties cannot be set", () => {
    const frozen = make().freeze();
    for (const name of ["channels", "layout"]) {
      expect(() => Reflect.set(frozen, name, 1)).not.toThrow();
      expect(Reflect.set(frozen, name, 1)).toBe(false);
    }
    expect(frozen.channels).toBe(5);
    expect(frozen.layout).toBe("NC");
  });

  test("freezing changes nothing of the layer", () => {
    const layer = make();
    layer.train(x);
    const [batch, text] = [layer.lastBatch, JSON.stringify(layer.snapshot())];
    layer.freeze();
    expect(layer.lastBatch).toBe(batch);
    expect(JSON.stringify(layer.snapshot())).toBe(text);
  });
});

describe("kernels", () => {
  test("those of the layer, or those given to fromJSON", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    const layer = settle(layerOf({ layout: "NC", shape: [9, 5] }, { kernels }));
    const frozen = layer.freeze();
    const given = FrozenBatchNorm.fromJSON(frozen.toJSON(), { kernels });
    const other = FrozenBatchNorm.fromJSON(frozen.toJSON());
    const x = kernels.alloc(45);
    x.set(normal(45, 1));
    const y = layer.infer(x);
    for (const each of [frozen, given, other]) assertSameBits("y", each.infer(x), y);
    // Layers on other kernels know a tensor that has been freed, too.
    kernels.free(x);
    for (const each of [frozen, given, other]) expect(() => each.infer(x)).toThrow(StateError);
  });
});

describe("JSON", () => {
  test("text and back, exactly, for every layout and any numbers", () => {
    check(
      fc.property(
        fc.constantFrom(...LAYOUTS),
        fc.integer({ min: 1, max: 40 }),
        seeds,
        (l, c, s) => {
          const shape = [...l].map((axis) => (axis === "C" ? c : 2));
          const layer = anything(layerOf({ layout: l, shape }), s);
          const frozen = layer.freeze();
          const again = throughText(frozen);
          expect(again.channels).toBe(c);
          expect(again.layout).toBe(l);
          expect(again.toJSON()).toEqual(frozen.toJSON());
          const x = anyBits(
            shape.reduce((a, b) => a * b, 1),
            s + 9,
          );
          assertSameBits("y", again.infer(x, { shape }), layer.infer(x, { shape }));
        },
      ),
      60,
    );
  });

  test("the object, its text and a structured clone are read alike", () => {
    const frozen = settle(layerOf({ layout: "NC", shape: [9, 5] })).freeze();
    const json = frozen.toJSON();
    const x = normal(45, 1);
    for (const each of [json, JSON.stringify(json), structuredClone(json)]) {
      assertSameBits("y", FrozenBatchNorm.fromJSON(each).infer(x), frozen.infer(x));
    }
  });

  const valid = () =>
    settle(layerOf({ layout: "NC", shape: [9, 2] }))
      .freeze()
      .toJSON();

  test.each<[string, unknown, string]>([
    [
      "no JSON",
      "{",
      'json: expected JSON of format "batchnorm-wasm/frozen", got text that is no JSON; of a file, give readFileSync(path, "utf8")',
    ],
    ["a path", "layer.json", 'of a file, give readFileSync(path, "utf8")'],
    ["null", null, "got null"],
    ["a number", 5, "got 5"],
    [
      "another object",
      { format: "x" },
      'json: expected an object of format "batchnorm-wasm/frozen"',
    ],
    ["text of another object", "[1]", "got an Array of length 1"],
    ["another version", { ...valid(), version: 3 }, "json: expected version 1 or 2, got 3"],
    ["no channels", { ...valid(), channels: 0 }, "got 0"],
    ["other channels", { ...valid(), channels: 3 }, "expected 3 numbers, got an Array of length 2"],
    ["no layout", { ...valid(), layout: "NWC" }, 'got "NWC"'],
    ["no scale", { ...valid(), scale: undefined }, "scale: expected 2 numbers, got undefined"],
    [
      "a short center",
      { ...valid(), center: [1] },
      "center: expected 2 numbers, got an Array of length 1",
    ],
    ["a word", { ...valid(), shift: [1, "two"] }, 'shift[1]: expected a float32 value, got "two"'],
    [
      "holes",
      { ...valid(), shift: new Array(2) },
      "shift[0]: expected a float32 value, got undefined",
    ],
    ...(["center", "scale", "shift", "beta"] as const).map((name): [string, unknown, string] => [
      `a ${name} that float32 has not`,
      { ...valid(), [name]: [1, 1e300] },
      `${name}[1]: expected a float32 value, got 1e+300`,
    ]),
    ["a null", { ...valid(), shift: [null, 1] }, "shift[0]: expected a float32 value, got null"],
  ])("%s is refused", (_, json, message) => {
    const read = () => FrozenBatchNorm.fromJSON(json as string);
    expect(read).toThrow(StateError);
    expect(read).toThrow(message);
  });

  test("unknown options are refused", () => {
    const read = (options: object) => () => FrozenBatchNorm.fromJSON(valid(), options);
    expect(read({ kernel: new Kernels({ memory: 1 << 20 }) })).toThrow(OptionError);
    expect(read({ kernels: {} })).toThrow("kernels: expected a Kernels, got an Object");
  });
});

test("new FrozenBatchNorm is refused, in both entries: there is nothing to freeze", () => {
  for (const Class of [FrozenBatchNorm, Small] as unknown as (new (
    given?: object,
  ) => object)[]) {
    for (const given of [undefined, {}]) {
      expect(() => new Class(given)).toThrow(StateError);
      expect(() => new Class(given)).toThrow(
        "FrozenBatchNorm: expected freeze, fromJSON or fromMoments, got new",
      );
    }
  }
});
