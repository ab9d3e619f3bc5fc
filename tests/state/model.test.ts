// A file of any format: the reader that fits is called, and every other format is named, by each reader,
// with what to call or do instead.

import { gzipSync } from "node:zlib";
import { BatchNorm, BatchNormError, OptionError, ShapeError, StateError } from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import {
  foldKeras,
  foldOnnx,
  load,
  readKeras,
  readModel,
  readOnnx,
  readTorch,
  save,
  tapOnnx,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { describe, expect, test, vi } from "vitest";
import { checkFormat, type Format, formatOf } from "../../src/state/format.js";
import { goldenBytes, kerasFiles } from "../support/golden.js";
import { READERS as READERS_OF_MODELS, type Reader } from "../support/readers.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { transfer } from "../support/transfer.js";
import { protobuf } from "./files.js";
import { archive, pickle, tensor, text } from "./torch-files.js";
import { zip } from "./zip-files.js";

const utf8 = (value: string): Uint8Array => new TextEncoder().encode(value);
const latin = (value: string): Uint8Array => new Uint8Array(Buffer.from(value, "latin1"));
const nothing = new Uint8Array(4);
const files = (...names: string[]): Uint8Array =>
  zip(names.map((name) => ({ name, data: nothing })));
const html = "<!DOCTYPE html><html><head><title>404</title></head></html>";

/** Files of each format, none of which is made by what is under test, and what is said of them. */
const FILES: readonly (readonly [string, Format, Uint8Array, RegExp])[] = [
  ["nothing", "empty", new Uint8Array(0), /got no bytes: perhaps a download failed$/],
  [
    "a state_dict in safetensors",
    "safetensors",
    goldenBytes("network.safetensors"),
    /got a safetensors file: readTorch reads it, or load if save wrote it$/,
  ],
  [
    "safetensors with a header of 0x8b1f bytes",
    "safetensors",
    latin(`\x1f\x8b\0\0\0\0\0\0{`),
    /got a safetensors file/,
  ],
  [
    "a file of torch.save",
    "torch",
    goldenBytes("torch/state-dict.pt"),
    /got a file of torch\.save: readTorch reads it$/,
  ],
  [
    "one before 1.6",
    "torch-row",
    goldenBytes("torch/state-dict-row.pt"),
    /got a file of torch\.save: readTorch reads it$/,
  ],
  [
    "a TorchScript archive",
    "torchscript",
    goldenBytes("torch/script.pt"),
    /got a TorchScript archive: .*torch\.jit\.load/,
  ],
  [
    "another TorchScript archive",
    "torchscript",
    files("m/data.pkl", "m/constants.pkl"),
    /got a TorchScript archive/,
  ],
  [
    "another pickle",
    "pickle",
    pickle(text("weights"), 4),
    /got a pickle that torch\.save did not make: in Python, torch\.save\(/,
  ],
  [
    "a NumPy archive",
    "numpy",
    files("mean.npy", "var.npy"),
    /got arrays of NumPy: bn\.runningMean\.set\(…\) takes their numbers$/,
  ],
  [
    "a NumPy array",
    "npy",
    latin("\x93NUMPY\x01\0"),
    /got arrays of NumPy: bn\.runningMean\.set\(…\) takes their numbers$/,
  ],
  [
    "a Keras model",
    "keras",
    files("metadata.json", "config.json", "model.weights.h5"),
    /got a file of Keras \(\.keras, \.h5\): readKerasFile of "batchnorm-wasm\/hdf5" reads it$/,
  ],
  [
    "a Keras model of several weight files",
    "zip",
    files("config.json", "model.weights.json"),
    /got a zip archive: unpack it$/,
  ],
  [
    "HDF5",
    "hdf5",
    latin("\x89HDF\r\n\x1a\n\0"),
    /got a file of Keras \(\.keras, \.h5\): readKerasFile of "batchnorm-wasm\/hdf5"/,
  ],
  ["another zip archive", "zip", files("README.md", "model.pth"), /got a zip archive: unpack it$/],
  ["an empty zip archive", "zip", zip([]), /got a zip archive: unpack it$/],
  ["ONNX of PyTorch", "onnx", goldenBytes("opset15.onnx"), /got an ONNX model: readOnnx reads it$/],
  ["ONNX of opset 6", "onnx", goldenBytes("opset6.onnx"), /got an ONNX model/],
  [
    "ONNX with a large graph that is cut off",
    "onnx",
    latin("\x08\x08\x12\x02ab\x3a\xff\xff\x03"),
    /got an ONNX model/,
  ],
  [
    "ONNX Runtime's format",
    "ort",
    latin("\x18\0\0\0ORTM\0\0"),
    /got a model of ONNX Runtime \(\.ort\): readOnnx reads the \.onnx/,
  ],
  [
    "TensorFlow Lite",
    "tflite",
    latin("\x1c\0\0\0TFL3\0\0"),
    /got a TensorFlow Lite model: .*folded/,
  ],
  [
    "a SavedModel",
    "saved-model",
    protobuf([
      [1, 1],
      [2, [[1, [[5, "serve"]]]]],
    ]),
    /got a SavedModel: in Python, tf_keras\.models\.load_model\(folder\)\.save\("model\.h5"\), then readKerasFile$/,
  ],
  [
    "ONNX of its first version",
    "onnx",
    latin("\x08\x01\x12\x07pytorch\x3a\0"),
    /got an ONNX model: readOnnx reads it$/,
  ],
  [
    "ONNX of its first version, of a long name",
    "onnx",
    latin(`\x08\x01\x12\xac\x02${"n".repeat(300)}`),
    /got an ONNX model/,
  ],
  [
    "GGUF",
    "gguf",
    latin("GGUF\x03\0\0\0{"),
    /got a GGUF file: no model of llama\.cpp has batch norms$/,
  ],
  [
    "gzip",
    "gzip",
    new Uint8Array(gzipSync("weights")),
    /got gzip: unpack it, new DecompressionStream\("gzip"\)$/,
  ],
  [
    "a pointer of Git LFS",
    "lfs",
    utf8("version https://git-lfs.github.com/spec/v1\noid sha256:12\n"),
    /got a pointer of Git LFS: git lfs pull/,
  ],
  ["a web page", "html", utf8(html), /got a web page: the address is not that of the file$/],
  [
    "a web page behind white space and a mark",
    "html",
    utf8(`\uFEFF\n  ${html.toLowerCase()}`),
    /got a web page/,
  ],
  ["an error in XML", "html", utf8('<?xml version="1.0"?><Error/>'), /got a web page/],
  [
    "model.json of TensorFlow.js",
    "json",
    utf8(kerasFiles("keras").model),
    /got JSON: readKeras\(\{ model, weights \}\) reads the model\.json/,
  ],
  [
    "an index of several files",
    "json",
    utf8('{"metadata": {}, "weight_map": {}}'),
    /got JSON: .* an index lists other files$/,
  ],
  [
    "a snapshot",
    "json",
    utf8(JSON.stringify(new BatchNorm(1))),
    /got JSON: readKeras.*, BatchNorm\.fromSnapshot and FrozenBatchNorm\.fromJSON that of a layer;/,
  ],
  ["other JSON", "json", utf8("\n{ }"), /got JSON: readKeras/],
  ["a row of JSON", "json", utf8("[1, 2]"), /got JSON/],
];

describe("formats", () => {
  test.each(FILES)("%s", (_, format, bytes) => {
    expect(formatOf(bytes)).toBe(format);
    const moved = new Uint8Array(bytes.length + 3).subarray(3);
    moved.set(bytes);
    expect(formatOf(moved)).toBe(format);
  });

  test.each<[string, Uint8Array]>([
    ["zeros", new Uint8Array(100)],
    ["text", utf8("PyTorch weights")],
    ["one byte of each", Uint8Array.from({ length: 256 }, (_, i) => i)],
    ["a number that is no version", Uint8Array.of(255, 255)],
    ["a message with another field behind its version", Uint8Array.of(8, 5, 0x4a, 0)],
    ["a version alone", Uint8Array.of(8, 5)],
  ])("none: %s", (_, bytes) => {
    expect(formatOf(bytes)).toBe(null);
  });

  test("the beginning of any file, and random bytes, are of some format or none", () => {
    let state = 1;
    const next = () => (state = (Math.imul(state, 48271) >>> 0) % 2147483647);
    for (const [, , bytes] of FILES) {
      for (let length = 0; length < Math.min(60, bytes.length); length++)
        formatOf(bytes.subarray(0, length));
      for (let i = 0; i < 20; i++) {
        const changed = bytes.slice(0, 200);
        if (changed.length > 0) changed[next() % changed.length] = next();
        formatOf(changed);
      }
    }
  });

  test("a damaged zip archive is left to the reader", () => {
    const bytes = goldenBytes("torch/bare.pt");
    expect(formatOf(bytes.subarray(0, 2000))).toBe("torch");
    expect(checkFormat("bytes", new Uint8Array(9), "a model", []).format).toBe(null);
  });
});

const layers = { a: new BatchNorm(1) };
const TORCH = ["torch", "torch-row", "safetensors"] as const;
const weights = {};

/** Every function that takes the bytes of a file: the formats that it reads, and what it says that it expects. */
const READERS: readonly (readonly [
  string,
  readonly Format[],
  RegExp,
  (file: Uint8Array) => unknown,
])[] = [
  [
    "readTorch",
    TORCH,
    /^bytes: expected a PyTorch model, of torch\.save or in safetensors, got /,
    readTorch,
  ],
  [
    "writeTorch",
    TORCH,
    /^into: expected a PyTorch model, /,
    (into) => writeTorch(layers, { into }),
  ],
  ["load", ["safetensors"], /^bytes: expected a safetensors file, /, load],
  [
    "save",
    ["safetensors"],
    /^into: expected a safetensors file, /,
    (into) => save(layers, { into }),
  ],
  ["readModel", [...TORCH, "onnx"], /^bytes: expected a model file, /, readModel],
  ["readOnnx", ["onnx"], /^bytes: expected an ONNX model, /, readOnnx],
  ["writeOnnx", ["onnx"], /^into: expected an ONNX model, /, (into) => writeOnnx(layers, { into })],
  ["foldOnnx", ["onnx"], /^bytes: expected an ONNX model, /, foldOnnx],
  ["tapOnnx", ["onnx"], /^bytes: expected an ONNX model, /, (file) => tapOnnx(file, [])],
  [
    "readKeras",
    [],
    /^files: expected \{ model, weights \}, the files of TensorFlow\.js, /,
    (file) => readKeras(wrong(file)),
  ],
  [
    "readKeras, model",
    ["json"],
    /^model: expected model\.json of TensorFlow\.js, /,
    (model) => readKeras({ model, weights }),
  ],
  ["foldKeras", [], /^files: expected \{ model, weights \}, /, (file) => foldKeras(wrong(file))],
  [
    "foldKeras, model",
    ["json"],
    /^model: expected model\.json /,
    (model) => foldKeras({ model, weights }),
  ],
  [
    "writeKeras",
    [],
    /^into: expected \{ model, weights \}, /,
    (file) => writeKeras(layers, { into: wrong(file) }),
  ],
  [
    "writeKeras, model",
    ["json"],
    /^model: expected model\.json /,
    (model) => writeKeras(layers, { into: { model, weights } }),
  ],
  [
    "readKerasFile",
    ["keras", "hdf5", "zip"],
    /^bytes: expected a \.keras file, .* or an \.h5 file, HDF5, /,
    readKerasFile,
  ],
  [
    "readKerasFile, config",
    ["json"],
    /^config: expected the config of a model, /,
    (config) => readKerasFile(goldenBytes("keras-files/weights.h5"), { config }),
  ],
];

describe("files of values beside a model, which may be a text that came in place of the file", () => {
  const { model, weights } = kerasFiles("keras");
  const everyOne = (file: Uint8Array) =>
    Object.fromEntries(Object.keys(weights).map((path) => [path, file]));
  const onnx = goldenBytes("opset15-external.onnx");
  const EXTERNAL = /^external\["a"\]: expected a file of values, got a /;
  const WEIGHTS = /^weights\["[^"]+"\]: expected a file of values, got a /;
  const PLACES: readonly (readonly [string, RegExp, (file: Uint8Array) => unknown])[] = [
    ["readOnnx", EXTERNAL, (a) => readOnnx(onnx, { external: { a } })],
    ["foldOnnx", EXTERNAL, (a) => foldOnnx(onnx, { external: { a } })],
    [
      "writeOnnx",
      EXTERNAL,
      (a) => writeOnnx({ h: new BatchNorm(1) }, { into: onnx, external: { a } }),
    ],
    ["readKeras", WEIGHTS, (file) => readKeras({ model, weights: everyOne(file) })],
    ["foldKeras", WEIGHTS, (file) => foldKeras({ model, weights: everyOne(file) })],
  ];
  const texts = FILES.filter(([, format]) => format === "lfs" || format === "html");

  test.each(PLACES)("%s", (_, place, call) => {
    expect(texts.length).toBeGreaterThan(3);
    for (const [, , bytes, message] of texts) {
      assertRefuses(StateError, place, () => call(bytes));
      assertRefuses(StateError, message, () => call(bytes));
    }
  });
});

describe.each(READERS)("%s names what it does not read", (_, reads, expected, call) => {
  test.each(FILES.filter(([, format]) => !reads.includes(format)))(
    "%s",
    (_, __, bytes, message) => {
      assertRefuses(StateError, expected, () => call(bytes));
      assertRefuses(StateError, message, () => call(bytes));
      assertRefuses(StateError, message, () => call(wrong(bytes.slice().buffer)));
    },
  );

  test("a path says how to read the file", () => {
    const path = /"\.?\/?model\.bin"; readFileSync\(path\) of node:fs gives the bytes$/;
    const text = /readFileSync\(path\) of node:fs gives (the bytes|that of a file)$/;
    let thrown: unknown;
    try {
      call(wrong("./model.bin"));
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(BatchNormError);
    const { message } = thrown as Error;
    expect(path.test(message) || text.test(message), message).toBe(true);
  });

  test("so does the address of a file, which is as good as a path in Node", () => {
    const cure = /got a URL; readFileSync\(path\) of node:fs gives the bytes$/;
    const file = wrong(new URL("file:///model.bin"));
    expect(() => call(file)).toThrow(BatchNormError);
    expect(() => call(file)).toThrow(cure);
  });

  test("the text of a whole file is not repeated in the message", () => {
    for (const text of [`{${" ".repeat(1e6)}`, "\u00ff".repeat(1e6)]) {
      let message = "";
      try {
        call(wrong(text));
      } catch (error) {
        message = (error as Error).message;
      }
      expect(message.length).toBeGreaterThan(0);
      expect(message.length).toBeLessThan(600);
    }
  });
});

describe.each<[string, (bytes: Uint8Array) => unknown, name: string]>([
  ...Object.entries<Reader>(READERS_OF_MODELS).flatMap(([reader, { files, read }]) =>
    Object.keys(files).map((file): [string, (bytes: Uint8Array) => unknown, name: string] => [
      `${reader}: ${file}`,
      (bytes) => read({ ...files, [file]: bytes }),
      file === "model" ? "bytes" : '(weights|external)\\[".*"\\]',
    ]),
  ),
  ["load", load, "bytes"],
])("%s", (_, read, name) => {
  const gone = new RegExp(
    `^${name}: expected bytes, got ones whose buffer is detached or too short$`,
  );

  test("bytes that lost their memory", () => {
    const bytes = new Uint8Array(8);
    transfer(bytes);
    assertRefuses(ShapeError, gone, () => read(bytes));
    const buffer = new (wrong(ArrayBuffer))(16, { maxByteLength: 16 });
    const beyond = new Uint8Array(buffer, 8, 8);
    wrong(buffer).resize(4);
    assertRefuses(ShapeError, gone, () => read(beyond));
  });
});

test("no code of a subclass of Uint8Array is run", () => {
  class Own extends Uint8Array {
    override get buffer(): never {
      throw new Error("ran");
    }
    override get byteOffset(): never {
      throw new Error("ran");
    }
    override get byteLength(): never {
      throw new Error("ran");
    }
    override get length(): never {
      throw new Error("ran");
    }
  }
  const layer = new BatchNorm(2, { epsilon: 0.25 });
  expect(load(new Own(save({ layer }))).layer!.epsilon).toBe(0.25);
});

test("what is given in place of files by path, or of JSON: refused, with the cure where it is a path", () => {
  const { model } = kerasFiles("keras");
  const onnx = goldenBytes("opset15-external.onnx");
  const file = new URL("file:///a.bin");
  const cure = "; readFileSync\\(path\\) of node:fs gives the bytes";
  for (const [given, got] of [
    ["a.bin", `"a\\.bin"${cure}`],
    [file, `a URL${cure}`],
    [["a.bin"], "an Array of length 1"],
    [new Map([["a.bin", nothing]]), "a Map"],
    [Promise.resolve({}), "a Promise"],
  ]) {
    const weights = wrong(given);
    const none = new RegExp(`^weights: expected weight files by path, got ${got}$`);
    assertRefuses(OptionError, none, () => readKeras({ model, weights }));
    const external = new RegExp(`^external: expected bytes by location, got ${got}$`);
    assertRefuses(OptionError, external, () => readOnnx(onnx, { external: weights }));
  }
  const bytes = goldenBytes("keras-files/weights.h5");
  const { weights } = kerasFiles("keras");
  for (const [given, got] of [
    [file, `a URL${cure}`],
    [new Map(), "a Map"],
    [Promise.resolve({}), "a Promise"],
  ]) {
    const no = (name: string): RegExp =>
      new RegExp(`^${name}: expected a Uint8Array or ArrayBuffer, got ${got}$`);
    assertRefuses(ShapeError, no("config"), () => readKerasFile(bytes, { config: wrong(given) }));
    assertRefuses(ShapeError, no("model"), () => readKeras({ model: wrong(given), weights }));
  }
});

test("weights that are the bytes of a file are no files by path", () => {
  const { model } = kerasFiles("keras");
  const message = /^weights: expected weight files by path, got a Uint8Array of length 4$/;
  assertRefuses(OptionError, message, () => readKeras({ model, weights: wrong(nothing) }));
  const shard = kerasFiles("keras").weights;
  const [path] = Object.keys(shard) as [string];
  assertRefuses(ShapeError, /got "a\.bin"; readFileSync\(path\) of node:fs gives the bytes$/, () =>
    readKeras({ model, weights: { [path]: wrong("a.bin") } }),
  );
});

describe("readModel", () => {
  test("PyTorch's files", () => {
    for (const name of ["torch/module.pt", "torch/state-dict-row.pt", "network.safetensors"]) {
      const file = readModel(goldenBytes(name));
      expect([file.format, [...file.layers].sort()]).toEqual(["torch", ["block.1", "bn1", "head"]]);
      if (file.format !== "torch") continue;
      const options = { eps: 1e-5, layout: "NCHW" } as const;
      const wanted = readTorch(goldenBytes("network.safetensors")).load("bn1", options);
      expect(file.load("bn1", options).snapshot()).toEqual(wanted.snapshot());
    }
    const several = readModel(goldenBytes("torch/several.pt"), { key: "ema.model" });
    expect(several.layers).toHaveLength(3);
    assertRefuses(OptionError, /^key: expected one of/, () =>
      readModel(goldenBytes("torch/several.pt")),
    );
  });

  test("ONNX models", () => {
    const layer = new BatchNorm(2, { layout: "NCHW", runningVarianceOf: "population" });
    layer.runningMean[1] = 5;
    const file = readModel(writeOnnx({ bn: layer }));
    expect([file.format, file.layers]).toEqual(["onnx", ["bn"]]);
    expect([...file.loadAll().bn!.runningMean]).toEqual([0, 5]);
    if (file.format === "onnx") expect(Object.keys(file.nodes)).toEqual(["bn"]);
    assertRefuses(OptionError, /^key: expected none for this format, got "a"$/, () =>
      readModel(goldenBytes("opset15.onnx"), { key: "a" }),
    );
  });

  test("ONNX models with tensors in other files", () => {
    const bytes = goldenBytes("opset15-external.onnx");
    const external = { "weights.bin": goldenBytes("opset15-external.bin") };
    const layers = readModel(bytes, { external }).loadAll();
    const expected = readOnnx(bytes, { external }).loadAll();
    expect(Object.keys(layers)).toEqual(Object.keys(expected));
    for (const [name, layer] of Object.entries(layers)) {
      expect(layer.snapshot()).toEqual(expected[name]!.snapshot());
    }
    assertRefuses(OptionError, /^external: expected none for this format, got/, () =>
      readModel(goldenBytes("network.safetensors"), { external }),
    );
    assertRefuses(StateError, /^bytes: expected a model of PyTorch, ONNX/, () =>
      readModel(Uint8Array.of(1, 2, 3), { external }),
    );
  });

  test("files of save", () => {
    const layer = new BatchNorm(2, { epsilon: 0.25, debias: true });
    layer.train(Float32Array.of(1, 2, 3, 5));
    const file = readModel(save({ a: layer }));
    expect([file.format, file.layers]).toEqual(["batchnorm-wasm", ["a"]]);
    const [one, two] = [file.loadAll().a!, file.loadAll().a!];
    expect(one.snapshot()).toEqual(layer.snapshot());
    expect(one).not.toBe(two);
    assertRefuses(
      OptionError,
      /^key: expected none for a safetensors file, which holds one model, got "ema"$/,
      () => readModel(save({ a: layer }), { key: "ema" }),
    );
    assertRefuses(OptionError, /^options: expected an object, got null$/, () =>
      file.load("a", wrong(null)),
    );
    assertRefuses(OptionError, /^options: expected an object, got an Array of length 1$/, () =>
      file.load("a", wrong(["NC"])),
    );
    assertRefuses(OptionError, /^eps: expected no options for a file of save, got "eps"$/, () =>
      file.load("a", wrong({ eps: 1 })),
    );
  });

  test("a header of safetensors is parsed once", () => {
    for (const bytes of [
      save({ unique: new BatchNorm(2) }),
      writeTorch({ unique: new BatchNorm(2) }),
    ]) {
      const parse = vi.spyOn(JSON, "parse");
      try {
        expect(readModel(bytes).layers).toEqual(["unique"]);
        const texts = parse.mock.calls.map(([text]) => text);
        expect(texts.filter((text) => text.includes('"unique.running_mean"'))).toHaveLength(1);
      } finally {
        parse.mockRestore();
      }
    }
  });

  test("what none reads", () => {
    assertRefuses(
      StateError,
      /^bytes: expected a model of PyTorch, ONNX, Keras or TensorFlow\.js, got 9 bytes that begin with 00 00 ff 00 00 00 00 00$/,
      () => readModel(Uint8Array.of(0, 0, 255, 0, 0, 0, 0, 0, 0)),
    );
    assertRefuses(StateError, /got 1 bytes that begin with 09/, () => readModel(Uint8Array.of(9)));
  });

  test("what is no bytes, and options that are none", () => {
    assertRefuses(
      ShapeError,
      /^bytes: expected a Uint8Array or ArrayBuffer, got "model\.pt"; readFileSync/,
      () => readModel(wrong("model.pt")),
    );
    assertRefuses(OptionError, /^eps: expected an option among key, external, got "eps"$/, () =>
      readModel(archive(tensor()), wrong({ eps: 1 })),
    );
  });
});
