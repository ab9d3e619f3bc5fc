// ONNX models: files that the onnx package wrote, in every way that it keeps tensors, and back.

import { BatchNorm, type Layout, OptionError, ShapeError, StateError } from "batchnorm-wasm";
import { foldOnnx, readOnnx, writeOnnx } from "batchnorm-wasm/state";
import { describe, expect, test, vi } from "vitest";
import { assertWithin } from "../support/compare.js";
import { normal } from "../support/data.js";
import { goldenBytes, modelsGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { type Message, protobuf } from "./files.js";
import { plainModel } from "./onnx-run.js";

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

  test.each(["opset14", "opset9"])("%s: the layout is that of as many axes", (name) => {
    // Opset 9's file says nothing of the value between the nodes.
    const { norm_a, norm_b } = readOnnx(bytesOf(name)).loadAll();
    expect([norm_a!.layout, norm_b!.layout]).toEqual(["NCHW", "NCHW"]);
  });

  test("a layout that is given goes before, channels last too", () => {
    const load = (layout: Layout) => readOnnx(bytesOf("opset14")).load("norm_a", { layout });
    expect(load("NHWC").layout).toBe("NHWC");
    expect(load("channelsLast").layout).toBe("channelsLast");
    assertRefuses(OptionError, /^layout: expected one of "NC", .* got "NWC"$/, () =>
      load(wrong("NWC")),
    );
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

  test.each<[string, RegExp | null]>([
    ["opset6", /^node "norm_a": is in training mode, where ONNX normalizes by the mini-batch/],
    ["opset6-is-test", null],
    [
      "opset7-spatial0",
      /^node "norm_a": has spatial 0, statistics for each position, but its numbers/,
    ],
    ["opset15-momentum1", null],
  ])("%s: the numbers of the file, and what one should know", (name, message) => {
    const messages: string[] = [];
    const onWarning = (text: string) => messages.push(text);
    const bn = readOnnx(bytesOf(name)).load("norm_a", { onWarning });
    expect(bn.layout).toBe("NCHW");
    assertWithin(name, bn.runningVariance, golden.layers.a.var, () => 0);
    expect(messages.map((text) => message?.test(text))).toEqual(message === null ? [] : [true]);
    expect(writeOnnx({ norm_a: bn }, { into: bytesOf(name) })).toEqual(bytesOf(name));
  });

  test("a momentum that is given goes before that of the file", () => {
    const bn = readOnnx(bytesOf("opset15-momentum1")).load("norm_a", { momentum: 0.5 });
    expect(bn.decay).toBe(0.5);
  });
});

describe("tensors in a file beside the model", () => {
  const [model, weights] = [bytesOf("opset15-external"), goldenBytes("opset15-external.bin")];
  const external = { "weights.bin": weights };

  test("the numbers are those of the model in one file", () => {
    const layers = readOnnx(model, { external }).loadAll();
    const whole = readOnnx(bytesOf("opset15")).loadAll();
    expect(Object.values(layers).map((layer) => layer.snapshot())).toEqual(
      Object.values(whole).map((layer) => layer.snapshot()),
    );
    expect(writeOnnx(layers, { into: model, external })).toEqual(model);
  });

  test("one that changes is in the model from then on", () => {
    const { norm_a } = readOnnx(model, { external }).loadAll();
    norm_a!.gamma!.set([3, 2, 1]);
    const written = readOnnx(writeOnnx({ norm_a: norm_a! }, { into: model, external }), {
      external,
    });
    expect([...written.load("norm_a").gamma!]).toEqual([3, 2, 1]);
    expect(written.load("norm_a").runningMean).toEqual(norm_a!.runningMean);
    expect(written.load("norm_b").snapshot()).toEqual(
      readOnnx(model, { external }).load("norm_b").snapshot(),
    );
  });

  test.each<[string, Record<string, Uint8Array> | undefined, RegExp]>([
    [
      "no files",
      undefined,
      /^tensor "a\.scale": expected the bytes of "weights\.bin", a file beside .* got none; or save/,
    ],
    ["others", { "other.bin": weights }, /in external, got only other\.bin; or save/],
    [
      "too few bytes",
      { "weights.bin": weights.subarray(0, 60) },
      /^tensor "b\.bias": expected bytes 60 to 72 of "weights\.bin", got 60 bytes$/,
    ],
  ])("%s: refused, loading", (_, files, message) => {
    const file = readOnnx(model, files === undefined ? {} : { external: files });
    assertRefuses(StateError, message, () => file.loadAll());
  });

  test("a file that is no bytes: refused at once, by every function that takes files", () => {
    for (const [file, got] of [
      ["weights.bin", '"weights\\.bin"; readFileSync\\(path\\) of node:fs gives the bytes'],
      [null, "null"],
      [[1, 2], "an Array of length 2"],
    ]) {
      const external = wrong({ other: new Uint8Array(3), "weights.bin": file });
      const message = new RegExp(
        `^external\\["weights\\.bin"\\]: expected a Uint8Array or ArrayBuffer, got ${got}$`,
      );
      assertRefuses(ShapeError, message, () => readOnnx(model, { external }));
      assertRefuses(ShapeError, message, () => foldOnnx(model, { external }));
      const layers = { a: new BatchNorm(1) };
      assertRefuses(ShapeError, message, () => writeOnnx(layers, { into: model, external }));
    }
  });

  test("what is no record of files: refused", () => {
    assertRefuses(OptionError, /^external: expected bytes by location, got a Uint8Array/, () =>
      readOnnx(model, { external: wrong(weights) }),
    );
    assertRefuses(
      OptionError,
      /^externals: expected an option among external, got "externals"/,
      () => readOnnx(model, wrong({ externals: {} })),
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

  test("a tensor that nodes share stays as it is for those that are not written", () => {
    const into = bytesOf("opset15-shared");
    const { norm_a, norm_b } = readOnnx(into).loadAll();
    const before = norm_a!.runningMean.slice();
    expect(norm_b!.runningMean).toEqual(before);
    expect(writeOnnx({ norm_a: norm_a!, norm_b: norm_b! }, { into })).toEqual(into);
    norm_a!.runningMean.set([1, 2, 3]);
    const means = (layers: Record<string, BatchNorm>, of = into) => {
      const written = readOnnx(writeOnnx(layers, { into: of })).loadAll();
      return [[...written.norm_a!.runningMean], [...written.norm_b!.runningMean]];
    };
    expect(means({ norm_a: norm_a! })).toEqual([[1, 2, 3], [...before]]);
    expect(means({ norm_a: norm_a!, norm_b: norm_b! })).toEqual([[1, 2, 3], [...before]]);
    norm_b!.runningMean.set([4, 5, 6]);
    const both = [
      [1, 2, 3],
      [4, 5, 6],
    ];
    expect(means({ norm_a: norm_a!, norm_b: norm_b! })).toEqual(both);
    expect(means({ norm_b: norm_b! }, writeOnnx({ norm_a: norm_a! }, { into }))).toEqual(both);
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
    assertRefuses(StateError, /^tensor "a\.scale": expected the bytes of "weights\.bin"/, () =>
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

  test("what is no name: refused", () => {
    assertRefuses(OptionError, /^layers: expected names for nodes, got ""$/, () =>
      writeOnnx({ "": new BatchNorm(2) }),
    );
  });

  test("a layer of any number of axes is written without them", () => {
    const bn = new BatchNorm(2, { layout: "channelsLast" });
    expect(readOnnx(writeOnnx({ bn })).load("bn").layout).toBe("channelsFirst");
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

// Numbers of fields: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
describe("models of our own making", () => {
  const TENSORS = ["s", "b", "m", "v"];
  const PYTORCH = ["weight", "bias", "running_mean", "running_var"];
  const tensor = (name: string, dimensions = [1]): [5, Message] => [
    5,
    [
      ...dimensions.map((n) => [1, n] as const),
      [2, 1],
      [8, name],
      [9, new Uint8Array(Float32Array.of(name.charCodeAt(0)).buffer)],
    ],
  ];
  const float32 = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
  const node = (type: string, inputs: string[], output: string, more: Message = []) =>
    [1, [...inputs.map((name) => [1, name] as const), [2, output], [4, type], ...more]] as const;
  const norm = (output: string, more?: Message) =>
    node("BatchNormalization", ["x", ...TENSORS], output, more);
  const graph = (...parts: Message) => [7, parts] as const;
  const opset = (version: number, domain = "") =>
    [
      8,
      [
        [1, domain],
        [2, version],
      ],
    ] as const;
  const all = TENSORS.map((name) => tensor(name));
  const read = (...message: Message) => readOnnx(protobuf(message));

  test("is a layer of its numbers", () => {
    const { runningMean, runningVariance } = read(graph(norm("y"), ...all), opset(15)).load("y");
    expect([...runningMean, ...runningVariance]).toEqual(
      ["m", "v"].map((name) => name.charCodeAt(0)),
    );
  });

  test("operators of others that have its name are none", () => {
    const other = norm("z", [[7, "com.example"]]);
    const own = norm("y", [[7, "ai.onnx"]]);
    expect(read(graph(own, other, ...all), opset(15)).layers).toEqual(["y"]);
  });

  test("the opset is that of ONNX' own operators, and nothing to a model without batch norms", () => {
    const body = graph(norm("y"), ...all);
    expect(read(body, opset(15), opset(3, "ai.onnx.ml")).layers).toEqual(["y"]);
    expect(read(body, opset(15, "ai.onnx"), opset(3, "ai.onnx.ml")).layers).toEqual(["y"]);
    expect(read(body, opset(3, "ai.onnx.ml"), opset(6)).layers).toEqual(["y"]);
    const without = /^opset_import: expected the opset, .* BatchNormalization depends, got none$/;
    assertRefuses(StateError, without, () => read(body));
    assertRefuses(StateError, without, () => read(body, opset(3, "ai.onnx.ml")));
    expect(read(graph(node("Relu", ["x"], "y"))).layers).toEqual([]);
  });

  test("nodes of one name go by their outputs", () => {
    const named = (output: string) => norm(output, [[3, "bn"]]);
    expect(read(graph(named("y"), named("z"), ...all), opset(15)).layers).toEqual(["y", "z"]);
    assertRefuses(StateError, /^bytes: expected nodes of different names, got "y" twice$/, () =>
      read(graph(named("y"), named("y"), ...all), opset(15)),
    );
  });

  test("a tensor that comes through an Identity changes, if nothing else takes it", () => {
    const inputs = ["x", "t", ...TENSORS.slice(1)];
    const parts = [
      node("BatchNormalization", inputs, "y"),
      node("Identity", ["s"], "t"),
      ...all,
    ] as const;
    const into = protobuf([graph(...parts), opset(15)]);
    const layer = readOnnx(into).load("y");
    layer.gamma![0] = 5;
    expect(readOnnx(writeOnnx({ y: layer }, { into })).load("y").gamma![0]).toBe(5);
    const shared = protobuf([graph(...parts, node("Relu", ["s"], "z")), opset(15)]);
    const written = plainModel(writeOnnx({ y: layer }, { into: shared }));
    expect(written.nodes.map(({ type, inputs }) => [type, inputs[1] ?? inputs[0]])).toEqual([
      ["BatchNormalization", "t"],
      ["Relu", "s"],
    ]);
    expect(["t", "s"].map((name) => written.tensors.get(name)!.data)).toEqual([
      [5],
      ["s".charCodeAt(0)],
    ]);
  });

  test("averages that PyTorch's exporter merged with other tensors are written", () => {
    // PyTorch keeps equal tensors once. Before any training the mean is beta, and the variance gamma.
    const tensors = ["1.weight", "1.bias"].map((name) => {
      const values = name === "1.weight" ? [1, 1] : [0, 0];
      return [
        5,
        [
          [1, 2],
          [2, 1],
          [8, name],
          [9, float32(...values)],
        ],
      ] as [5, Message];
    });
    const nodes = [1, 2].map((k) =>
      node("BatchNormalization", [`x${k}`, ...PYTORCH.map((each) => `${k}.${each}`)], `y${k}`),
    );
    const merged = PYTORCH.flatMap((each, i) =>
      [1, 2]
        .filter((k) => k > 1 || i > 1)
        .map((k) =>
          node("Identity", [["1.weight", "1.bias"][i === 0 || i === 3 ? 0 : 1]!], `${k}.${each}`),
        ),
    );
    const into = protobuf([graph(...merged, ...nodes, ...tensors), opset(15)]);
    const file = readOnnx(into);
    expect(file.layers.map((name) => file.nodes[name]!.module)).toEqual(["1", "2"]);
    let model: Uint8Array = into;
    for (const [i, name] of file.layers.entries()) {
      const layer = file.load(name);
      expect(layer.snapshot()).toEqual(file.load(file.layers[1 - i]!).snapshot());
      layer.runningMean.set([i + 1, -1]);
      layer.runningVariance.set([4, i + 2]);
      model = writeOnnx({ [name]: layer }, { into: model });
    }
    const written = readOnnx(model);
    expect(written.layers.map((name) => written.nodes[name]!.module)).toEqual(["1", "2"]);
    const numbers = written.layers.map((name) => {
      const { gamma, beta, runningMean, runningVariance } = written.load(name);
      return [gamma!, beta!, runningMean, runningVariance].map((values) => [...values]);
    });
    expect(numbers).toEqual([
      [
        [1, 1],
        [0, 0],
        [1, -1],
        [4, 2],
      ],
      [
        [1, 1],
        [0, 0],
        [2, -1],
        [4, 3],
      ],
    ]);
    // Both at once come to the same numbers.
    const layers = Object.fromEntries(file.layers.map((name) => [name, written.load(name)]));
    const again = readOnnx(writeOnnx(layers, { into }));
    for (const name of file.layers) {
      expect(again.load(name).snapshot()).toEqual(written.load(name).snapshot());
    }
  });

  test("a module's name is the one beside the node, not that of the module whose tensors it shares", () => {
    const [own, other] = [
      PYTORCH.map((each) => `bn2.${each}`),
      PYTORCH.map((each) => `bn1.${each}`),
    ];
    const renamed = all.map(([number, fields], i): [5, Message] => [
      number,
      fields.map((field) => (field[0] === 8 ? ([8, other[i]!] as const) : field)),
    ]);
    const parts = [
      node("BatchNormalization", ["x", ...other], "y"),
      ...[2, 3].map((i) => node("Identity", [other[i]!], own[i]!)),
      node("BatchNormalization", ["x", ...other.slice(0, 2), ...own.slice(2)], "z"),
    ];
    const { nodes } = read(graph(...parts, ...renamed), opset(15));
    expect([nodes.y!.module, nodes.z!.module]).toEqual(["bn1", "bn2"]);
    const into = protobuf([graph(...parts, ...renamed), opset(15)]);
    const layer = readOnnx(into).load("bn1");
    layer.runningMean[0] = 7;
    layer.runningVariance[0] = 8;
    const written = readOnnx(writeOnnx({ bn1: layer }, { into }));
    expect([written.nodes.y!.module, written.nodes.z!.module]).toEqual(["bn1", "bn2"]);
    expect(written.load("bn2").snapshot()).toEqual(readOnnx(into).load("bn2").snapshot());
    // A module that the network runs twice is two nodes, and its name is that of neither.
    const twice = read(
      graph(parts[0]!, node("BatchNormalization", ["y", ...other], "z"), ...renamed),
      opset(15),
    );
    expect([twice.nodes.y!.module, twice.nodes.z!.module]).toEqual([null, null]);
    assertRefuses(OptionError, /^name: expected one of "y", "z", got "bn1"$/, () =>
      twice.load("bn1"),
    );
  });

  test("two layers for one node: refused", () => {
    const renamed = all.map(([number, fields], i): [5, Message] => [
      number,
      fields.map((field) => (field[0] === 8 ? ([8, `bn.${PYTORCH[i]}`] as const) : field)),
    ]);
    const inputs = ["x", ...PYTORCH.map((each) => `bn.${each}`)];
    const into = protobuf([graph(node("BatchNormalization", inputs, "y"), ...renamed), opset(15)]);
    const { y } = readOnnx(into).loadAll();
    assertRefuses(OptionError, /^layers: expected each node once, got "y" twice$/, () =>
      writeOnnx({ y: y!, bn: y! }, { into }),
    );
  });

  test("values that lie elsewhere, by data_location alone", () => {
    const [[, first], ...rest] = all as [[5, Message], ...[5, Message][]];
    const outside = [5, [...first, [14, 1]]] as const;
    const file = read(graph(norm("y"), outside, ...rest), opset(15));
    assertRefuses(StateError, /^tensor "s": expected the bytes of "", a file/, () =>
      file.load("y"),
    );
  });

  test("a field that ends behind its message is refused", () => {
    // A node of two bytes, whose first field says that it has nine.
    const bytes = protobuf([graph([1, Uint8Array.of(0x0a, 9)], ...all), opset(15)]);
    assertRefuses(StateError, /^bytes: expected a field at \d+ to end at \d+ at most, got/, () =>
      readOnnx(bytes),
    );
  });

  test("channels are the second axis of what a Conv gives, as its weight says", () => {
    const floats = (name: string, dimensions: number[], ...values: number[]): [5, Message] => [
      5,
      [...dimensions.map((n) => [1, n] as const), [2, 1], [8, name], [9, float32(...values)]],
    ];
    const file = read(
      graph(
        node("Conv", ["image", "w"], "x"),
        norm("y"),
        floats("w", [2, 1, 1, 1], 1, 1),
        floats("s", [2], 1, 2),
        floats("b", [2], 0, 1),
        floats("m", [2], 0, 10),
        floats("v", [2], 1, 4),
      ),
      opset(15),
    );
    const bn = file.load("y");
    const x = Float32Array.of(0, 1, 2, 3, 0, 1, 2, 3);
    const y = [0, 1, 2, 3, -9, -8, -7, -6];
    assertWithin("y", bn.infer(x, { shape: [1, 2, 2, 2] }), y, () => 5e-5);
    assertRefuses(
      ShapeError,
      /^shape: expected the sizes of all axes for layout "NCHW", .* got none$/,
      () => bn.infer(x),
    );
  });

  test("where nothing tells the axes, the channels are the second, and shape is needed", () => {
    const bn = read(graph(norm("y"), ...all), opset(15)).load("y");
    expect(bn.layout).toBe("channelsFirst");
    assertRefuses(
      ShapeError,
      /^shape: expected the sizes of all axes for layout "channelsFirst", .* got none$/,
      () => bn.infer(new Float32Array(4)),
    );
    expect(bn.infer(new Float32Array(4), { shape: [2, 1, 1, 1, 2, 1] }).length).toBe(4);
  });

  test.each<[string, Message, string]>([
    ["a Conv behind it", [node("Relu", ["y"], "r"), node("Conv", ["r", "w"], "z")], "NCL"],
    [
      "a pool behind it",
      [
        node("MaxPool", ["y"], "z", [
          [
            5,
            [
              [1, "kernel_shape"],
              [8, 2],
              [8, 2],
              [8, 2],
            ],
          ],
        ]),
      ],
      "NCDHW",
    ],
    ["a Gemm behind it", [node("Gemm", ["y", "any"], "z")], "NC"],
    ["what it is joined to", [node("Concat", ["y", "image"], "z")], "NCHW"],
    ["a sum with less axes", [node("Add", ["s", "y"], "image")], "NCHW"],
    ["a sum with as many", [node("Add", ["other", "y"], "image")], "channelsFirst"],
    [
      "an axis less behind it",
      [node("Squeeze", ["y", "s"], "p"), node("Conv", ["p", "w"], "z")],
      "NCHW",
    ],
    ["an axis more behind it", [node("Unsqueeze", ["y", "s"], "image")], "NCL"],
    [
      "a node of its name that is no one's",
      [node("Conv", ["y", "w"], "z", [[7, "other"]])],
      "channelsFirst",
    ],
  ])("what comes before it is unknown, but %s is not", (_, after, layout) => {
    const weight = tensor("w", [1, 1, 1]);
    const image: Message = [
      [1, "image"],
      [
        2,
        [
          [
            1,
            [
              [1, 1],
              [2, Array(4).fill([1, [[1, 2]]])],
            ],
          ],
        ],
      ],
    ];
    const parts = [
      node("Any", ["in"], "x", [[7, "other"]]),
      norm("y"),
      ...after,
      ...all,
      weight,
    ] as const;
    expect(read(graph(...parts, [13, image]), opset(15)).load("y").layout).toBe(layout);
  });

  test.each<[string, Message, string]>([
    ["Atan", [node("Atan", ["image"], "x")], "NCHW"],
    ["IsNaN", [node("IsNaN", ["image"], "n"), node("Cast", ["n"], "x")], "NCHW"],
    ["LessOrEqual", [node("LessOrEqual", ["image", "s"], "n"), node("Cast", ["n"], "x")], "NCHW"],
    ["GridSample", [node("GridSample", ["image", "grid"], "x")], "NCHW"],
    ["RoiAlign", [node("RoiAlign", ["image", "rois", "batch"], "x")], "NCHW"],
    ["OneHot", [node("OneHot", ["image", "depth", "s"], "x")], "NCDHW"],
    ["LSTM, all of its steps", [node("LSTM", ["steps", "w", "r"], "x", [[2, "last"]])], "NCHW"],
    ["GRU, its last step", [node("GRU", ["steps", "w", "r"], "all", [[2, "x"]])], "NCL"],
    ["what stands before an RNN", [node("RNN", ["x", "w", "r"], "all")], "NCL"],
    ["names that are almost ONNX'", [node("LogSoftsign", ["image"], "x")], "channelsFirst"],
    [
      "a constant in the shape of something",
      [node("Shape", ["image"], "sizes"), node("ConstantOfShape", ["sizes"], "x")],
      "NCHW",
    ],
    [
      "Expand to a list whose -1 another list replaces",
      [
        node("Shape", ["image"], "sizes"),
        node("Equal", ["sizes", "number"], "open"),
        node("Where", ["open", "sizes", "sizes"], "list"),
        node("Expand", ["s", "list"], "x"),
      ],
      "NCHW",
    ],
    [
      "Expand to a list of which a part is unknown",
      [
        node("Shape", ["image"], "sizes"),
        node("Mul", ["sizes", "unknown"], "list"),
        node("Expand", ["s", "list"], "x"),
      ],
      "channelsFirst",
    ],
  ])("the axes behind %s", (_, before, layout) => {
    const image: Message = [
      [1, "image"],
      [
        2,
        [
          [
            1,
            [
              [1, 1],
              [2, Array(4).fill([1, [[1, 2]]])],
            ],
          ],
        ],
      ],
    ];
    const parts = [...before, norm("y"), ...all, tensor("number", [])] as const;
    expect(read(graph(...parts, [11, image]), opset(16)).load("y").layout).toBe(layout);
  });

  test("layers that go by numbers come in the order of the file", () => {
    const parts = ["14", "__proto__", "7", "x9"].map((output) => norm(output));
    const file = read(graph(...parts, ...all), opset(15));
    expect(file.layers).toEqual(["14", "__proto__", "7", "x9"]);
    const layers = file.loadAll();
    expect(Object.keys(layers)).toEqual(file.layers);
    expect(Object.entries(layers).map(([name]) => name)).toEqual(file.layers);
    expect(Object.keys(file.nodes)).toEqual(file.layers);
    expect(layers["7"]).toBeInstanceOf(BatchNorm);
    delete layers["14"];
    layers.more = layers["7"]!;
    expect(Object.keys(layers)).toEqual(["__proto__", "7", "x9", "more"]);
  });

  test("parameters that operations fill, and lists in attributes", () => {
    const parts = [
      node("ConstantOfShape", ["size"], "s", [
        [
          5,
          [
            [1, "value"],
            [5, tensor("one")[1]],
          ],
        ],
      ]),
      node("ConstantOfShape", ["size"], "b"),
      node("Constant", [], "m", [
        [
          5,
          [
            [1, "value_floats"],
            [7, float32(3, 4)],
          ],
        ],
      ]),
      node("Constant", [], "size", [
        [
          5,
          [
            [1, "value_ints"],
            [8, 2],
          ],
        ],
      ]),
      node("Constant", [], "v", [
        [
          5,
          [
            [1, "value"],
            [
              5,
              [
                [1, 2],
                [2, 1],
                [4, float32(5, 6)],
              ],
            ],
          ],
        ],
      ]),
      norm("y"),
    ] as const;
    const into = protobuf([graph(...parts), opset(15)]);
    const layer = readOnnx(into).load("y");
    const one = "o".charCodeAt(0);
    expect([...layer.gamma!, ...layer.beta!]).toEqual([one, one, 0, 0]);
    expect([...layer.runningMean, ...layer.runningVariance]).toEqual([3, 4, 5, 6]);
    expect(writeOnnx({ y: layer }, { into })).toEqual(into);
    layer.gamma!.set([7, 8]);
    layer.beta!.set([9, 10]);
    layer.runningMean.set([11, 12]);
    layer.runningVariance.set([13, 14]);
    const again = readOnnx(writeOnnx({ y: layer }, { into })).load("y");
    expect(again.snapshot()).toEqual(layer.snapshot());
  });

  test("more values than networks have channels are not filled in", () => {
    const size = node("Constant", [], "size", [
      [
        5,
        [
          [1, "value_ints"],
          [8, 2 ** 40],
        ],
      ],
    ]);
    const parts = [
      size,
      node("ConstantOfShape", ["size"], "s"),
      norm("y"),
      ...all.slice(1),
    ] as const;
    const file = read(graph(...parts), opset(15));
    assertRefuses(
      StateError,
      /^tensor "s": expected at most 65536 values, got 1099511627776$/,
      () => file.load("y"),
    );
    const circle = node("ConstantOfShape", ["s"], "s");
    const own = read(graph(circle, norm("y"), ...all.slice(1)), opset(15));
    assertRefuses(StateError, /for scale, got "s", which is computed or fed$/, () => own.load("y"));
  });

  test("a layer goes by the name of PyTorch's module too", () => {
    const names = ["weight", "bias", "running_mean", "running_var"].map((each) => `fc.1.${each}`);
    const renamed = TENSORS.map((name, i): [5, Message] => {
      const fields = tensor(name)[1].map((field) =>
        field[0] === 8 ? ([8, names[i]!] as const) : field,
      );
      return [5, fields];
    });
    const parts = [
      node("Identity", [names[2]!], "mean"),
      node("BatchNormalization", ["x", names[0]!, names[1]!, "mean", names[3]!], "y"),
      norm("z"),
    ] as const;
    const into = protobuf([graph(...parts, ...renamed, ...all), opset(15)]);
    const file = readOnnx(into);
    expect(file.layers).toEqual(["y", "z"]);
    expect(file.nodes).toEqual({
      y: { input: "x", output: "y", module: "fc.1" },
      z: { input: "x", output: "z", module: null },
    });
    const layer = file.load("fc.1");
    expect(layer.snapshot()).toEqual(file.load("y").snapshot());
    layer.gamma![0] = 2;
    const written = readOnnx(writeOnnx({ "fc.1": layer }, { into }));
    expect([...written.load("y").gamma!]).toEqual([2]);
    assertRefuses(OptionError, /^name: expected one of "y", "z", got "fc"$/, () => file.load("fc"));
  });

  test("a tensor that the body of an If takes is shared", () => {
    const body = [
      [
        1,
        [
          [1, "s"],
          [2, "inner"],
          [4, "Relu"],
        ],
      ],
      [12, [[1, "inner"]]],
    ] as const;
    const branch = [
      5,
      [
        [1, "then_branch"],
        [6, body],
      ],
    ] as const;
    const into = protobuf([graph(norm("y"), node("If", ["x"], "z", [branch]), ...all), opset(15)]);
    const layer = readOnnx(into).load("y");
    layer.gamma![0] = 2;
    const written = plainModel(writeOnnx({ y: layer }, { into }));
    expect(written.nodes[0]!.inputs[1]).toBe("s_1");
    expect(["s", "s_1"].map((name) => written.tensors.get(name)!.data)).toEqual([
      ["s".charCodeAt(0)],
      [2],
    ]);
  });

  test("a value that is an initializer and made by a node too: refused", () => {
    assertRefuses(StateError, /^bytes: expected values of different names, got "s" twice$/, () =>
      read(graph(node("Relu", ["x"], "s"), norm("y"), ...all), opset(15)),
    );
  });

  test("Identity nodes in a circle end nowhere", () => {
    const circle = [node("Identity", ["s"], "t"), node("Identity", ["t"], "s")] as const;
    const file = read(graph(norm("y"), ...circle, ...all.slice(1)), opset(15));
    assertRefuses(StateError, /^node "y": .* for scale, got "s", which is computed or fed$/, () =>
      file.load("y"),
    );
  });

  test.each<[string, Message, RegExp]>([
    ["two graphs", [graph(), graph()], /^bytes: expected one graph, got several$/],
    [
      "a tensor twice",
      [graph(norm("y"), ...all, tensor("s")), opset(15)],
      /^bytes: expected initializers of different names, got "s" twice$/,
    ],
  ])("%s: refused", (_, message, said) => {
    assertRefuses(StateError, said, () => read(...message));
  });

  test("more axes than any tensor has are not counted", () => {
    const many = tensor("s", Array<number>(100).fill(1));
    const file = read(graph(norm("y"), many, ...all.slice(1)), opset(15));
    assertRefuses(StateError, /^tensor "s": expected one axis, got many$/, () => file.load("y"));
    const two = read(graph(norm("y"), tensor("s", [1, 1]), ...all.slice(1)), opset(15));
    assertRefuses(StateError, /^tensor "s": expected one axis, got 2$/, () => two.load("y"));
  });
});

test("what is no model", () => {
  assertRefuses(StateError, /^bytes: expected an ONNX model with a graph, got none$/, () =>
    readOnnx(Uint8Array.of(8, 8)),
  );
  assertRefuses(StateError, /^bytes: expected Protocol Buffers at 0, got the tag 0$/, () =>
    readOnnx(new Uint8Array(10)),
  );
  assertRefuses(OptionError, /^epsilon: expected an option among momentum/, () =>
    readOnnx(bytesOf("opset15")).load("h", wrong({ epsilon: 1 })),
  );
  assertRefuses(OptionError, /^onWarning: expected a function, got "console"$/, () =>
    readOnnx(bytesOf("opset15")).load("h", wrong({ onWarning: "console" })),
  );
});
