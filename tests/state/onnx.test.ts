// ONNX models: files that the onnx package wrote, in every way that it keeps tensors, and back.

import { BatchNorm, OptionError, StateError } from "batchnorm-wasm";
import { readOnnx, writeOnnx } from "batchnorm-wasm/state";
import { describe, expect, test, vi } from "vitest";
import { assertWithin } from "../support/compare.js";
import { normal } from "../support/data.js";
import { goldenBytes, modelsGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";

const golden = modelsGolden();
const bytesOf = (name: string) => goldenBytes(`${name}.onnx`);

/** Values of the types that models are kept in, exact but for these. */
const ROUNDING: Record<string, number> = { float16: 2 ** -11, bfloat16: 2 ** -8 };
const EXACT = [
  "opset7",
  "opset9",
  "opset14",
  "opset15",
  "opset15-double",
  "opset15-double-data",
  "opset15-constants",
  "opset15-identity",
];
const ROUNDED = ["opset15-float16", "opset15-float16-data", "opset15-bfloat16"];
const quiet = { onWarning: () => {} };

describe("models of the onnx package", () => {
  test.each(EXACT)("%s: the same outputs, to 1e-6", (name) => {
    const file = readOnnx(bytesOf(name));
    const names = name === "opset15" ? ["h", "y"] : ["norm_a", "norm_b"];
    expect(file.layers).toEqual(names);
    const layers = file.loadAll({ layout: "NCHW" });
    const { shape } = golden;
    const y = layers[names[1]!]!.infer(layers[names[0]!]!.infer(golden.x, { shape }), { shape });
    assertWithin(name, y, golden.y, (i) => 1e-6 * Math.max(1, Math.abs(golden.y[i]!)));
  });

  test.each([...EXACT, ...ROUNDED])("%s: the numbers of the file", (name) => {
    const file = readOnnx(bytesOf(name));
    const relative = ROUNDING[name.split("-")[1]!] ?? 0;
    for (const [i, layer] of (["a", "b"] as const).entries()) {
      const bn = file.load(file.layers[i]!, { layout: "NCHW" });
      const expected = golden.layers[layer];
      for (const [actual, wanted] of [
        [bn.gamma!, expected.scale],
        [bn.beta!, expected.bias],
        [bn.runningMean, expected.mean],
        [bn.runningVariance, expected.var],
      ] as const) {
        assertWithin(name, actual, wanted, (c) => relative * Math.abs(wanted[c]!));
      }
      const like = BatchNorm.onnx(3, {
        epsilon: Math.fround(1e-3),
        momentum: 0.75,
        layout: "NCHW",
      });
      for (const option of ["layout", "epsilon", "decay", "debias", "runningVarianceOf"] as const) {
        expect(bn[option]).toBe(like[option]);
      }
      expect([bn.batchesSeen, bn.ageKnown]).toEqual([1, false]);
    }
  });

  test("the layout is that of as many axes as the file says", () => {
    const layout = (name: string) => readOnnx(bytesOf(name)).load("norm_b").layout;
    expect(layout("opset14")).toBe("NCHW");
    expect(layout("opset9")).toBe("NC"); // says nothing of what is between the nodes
    expect(readOnnx(bytesOf("opset9")).load("norm_a").layout).toBe("NCHW");
  });

  test.each(["opset15-training", "opset9-training"])("%s: warned about", (name) => {
    const messages: string[] = [];
    const layers = readOnnx(bytesOf(name)).loadAll({ onWarning: (text) => messages.push(text) });
    expect(Object.keys(layers)).toEqual(["norm_a", "norm_b"]);
    expect(messages[0]).toMatch(/^node "norm_a": is in training mode, where ONNX normalizes by/);
    expect(messages.length).toBe(2);
    const log = vi.spyOn(console, "warn").mockImplementation(() => {});
    readOnnx(bytesOf(name)).load("norm_a");
    expect(log.mock.calls).toEqual([[messages[0]]]);
    log.mockRestore();
    expect(() => readOnnx(bytesOf("opset14")).load("norm_a", quiet)).not.toThrow();
  });

  test.each<[string, RegExp]>([
    ["opset15-external", /^tensor "a\.scale": expected values in the model, got external data/],
    ["opset7-spatial0", /^node "norm_a": expected spatial 1, statistics by channel, got 0/],
  ])("%s: refused, loading", (name, message) => {
    assertRefuses(StateError, message, () => readOnnx(bytesOf(name)).load("norm_a"));
  });

  test("an opset before 7: refused", () => {
    assertRefuses(StateError, /^opset: expected 7 or later, got 6; onnx\.version_converter/, () =>
      readOnnx(bytesOf("opset6")),
    );
  });
});

describe("into a model", () => {
  test.each([...EXACT, ...ROUNDED, "opset15-training"])("%s: unchanged, the same bytes", (name) => {
    const bytes = bytesOf(name);
    expect(writeOnnx(readOnnx(bytes).loadAll(quiet), { into: bytes })).toEqual(bytes);
  });

  test.each([...EXACT, ...ROUNDED])("%s: other values, the rest as it was", (name) => {
    const bytes = bytesOf(name);
    const file = readOnnx(bytes);
    const [first, second] = file.layers as [string, string];
    const layer = file.load(first);
    layer.runningMean.set([0.5, -2, 3]);
    layer.runningVariance.set([0.25, 2, 1024]);
    layer.gamma!.set([1, -0.5, 0]);
    const written = readOnnx(writeOnnx({ [first]: layer }, { into: bytes }));
    expect(written.layers).toEqual(file.layers);
    expect(written.load(first).snapshot()).toEqual(layer.snapshot());
    expect(written.load(second).snapshot()).toEqual(file.load(second).snapshot());
    const back = writeOnnx(
      { [first]: file.load(first) },
      { into: writeOnnx({ [first]: layer }, { into: bytes }) },
    );
    if (/-data|^opset[79]$|bfloat16/.test(name)) {
      expect(readOnnx(back).load(first).snapshot()).toEqual(file.load(first).snapshot());
    } else expect(back).toEqual(bytes);
  });

  test("a tensor that nodes share changes for all of them or not at all", () => {
    const into = bytesOf("opset15-shared");
    const { norm_a, norm_b } = readOnnx(into).loadAll();
    expect(norm_b!.runningMean).toEqual(norm_a!.runningMean);
    expect(writeOnnx({ norm_a: norm_a!, norm_b: norm_b! }, { into })).toEqual(into);
    norm_a!.runningMean.set([1, 2, 3]);
    const refused = /^tensor "a\.mean": expected one that only the layers written use, .* shared/;
    assertRefuses(StateError, refused, () => writeOnnx({ norm_a: norm_a! }, { into }));
    assertRefuses(StateError, refused, () =>
      writeOnnx({ norm_a: norm_a!, norm_b: norm_b! }, { into }),
    );
    norm_b!.runningMean.set([1, 2, 3]);
    const again = readOnnx(writeOnnx({ norm_a: norm_a!, norm_b: norm_b! }, { into })).loadAll();
    expect([[...again.norm_a!.runningMean], [...again.norm_b!.runningMean]]).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
    norm_a!.gamma!.set([4, 5, 6]); // a tensor of its own may change meanwhile
    norm_a!.runningMean.set(readOnnx(into).load("norm_a").runningMean);
    expect([...readOnnx(writeOnnx({ norm_a: norm_a! }, { into })).load("norm_a").gamma!]).toEqual([
      4, 5, 6,
    ]);
  });

  test("another epsilon, other channels, unknown names: refused", () => {
    const into = bytesOf("opset15");
    assertRefuses(StateError, /^node "h": expected the epsilon of the model, 0.0010000000474/, () =>
      writeOnnx({ h: BatchNorm.onnx(3) }, { into }),
    );
    assertRefuses(StateError, /^tensor "a\.scale": expected its 3 channels, got 2$/, () =>
      writeOnnx({ h: BatchNorm.onnx(2, { epsilon: 1e-3 }) }, { into }),
    );
    assertRefuses(OptionError, /^name: expected one of "h", "y", got "z"$/, () =>
      writeOnnx({ z: BatchNorm.onnx(3) }, { into }),
    );
    assertRefuses(StateError, /external data/, () =>
      writeOnnx(
        { norm_a: BatchNorm.onnx(3, { epsilon: 1e-3 }) },
        { into: bytesOf("opset15-external") },
      ),
    );
  });
});

describe("a model of layers alone", () => {
  const layers = () => {
    const a = new BatchNorm(3, { layout: "NHWC", epsilon: 1e-3 });
    a.train(normal(60, 1, 3), { shape: [5, 2, 2, 3] });
    a.gamma!.set([1, 2, 3]);
    return { a, b: BatchNorm.torch(2, { affine: false, momentum: 0.25 }) };
  };

  test("is read as it was written", () => {
    const { a, b } = layers();
    const file = readOnnx(writeOnnx({ a, b }));
    expect(file.layers).toEqual(["a", "b"]);
    const read = file.loadAll();
    expect([read.a!.layout, read.b!.layout]).toEqual(["NCHW", "NC"]);
    expect([read.a!.epsilon, read.b!.decay]).toEqual([Math.fround(1e-3), 0.75]);
    expect([...read.a!.gamma!, ...read.b!.gamma!, ...read.b!.beta!]).toEqual([1, 2, 3, 1, 1, 0, 0]);
    expect(read.a!.runningMean).toEqual(Float64Array.from(a.runningMean, Math.fround));
    expect(read.a!.runningVariance).toEqual(Float64Array.from(a.runningVariance, Math.fround));
  });

  test("a cumulative average needs a momentum", () => {
    const layer = new BatchNorm(2, { decay: "cumulative" });
    assertRefuses(OptionError, /^momentum: expected one for layer "a", whose decay is "cum/, () =>
      writeOnnx({ a: layer }),
    );
    expect(readOnnx(writeOnnx({ a: layer }, { momentum: 0.5 })).load("a").decay).toBe(0.5);
    assertRefuses(OptionError, /^momentum: /, () => writeOnnx({ a: layer }, { momentum: 1 }));
  });
});

test("what is no model", () => {
  assertRefuses(StateError, /^bytes: expected an ONNX model with a graph, got none$/, () =>
    readOnnx(new Uint8Array(0)),
  );
  assertRefuses(StateError, /^bytes: expected Protocol Buffers at 0, got illegal tag/, () =>
    readOnnx(new Uint8Array(10)),
  );
  assertRefuses(OptionError, /^epsilon: expected an option among momentum/, () =>
    readOnnx(bytesOf("opset15")).load("h", wrong({ epsilon: 1 })),
  );
});
