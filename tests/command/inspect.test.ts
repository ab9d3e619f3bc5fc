// `inspect` on files of every format: the table, the JSON, the exit codes.

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { BatchNorm } from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import {
  foldOnnx,
  readKeras,
  readModel,
  readOnnx,
  save,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import type { LayerReport } from "../../src/command/inspect.js";
import { safetensors } from "../state/files.js";
import { bytesAt, command, folder, golden } from "./command.js";

const { at, copy } = folder();

interface FileJson {
  readonly file: string;
  readonly error: string | null;
  readonly format: string;
  readonly momentumIsWeightOf: string;
  readonly layers: readonly LayerReport[];
  readonly broken: readonly { name: string; error: string }[];
}

/** What `--json` prints of one file, which can be read. */
function json(path: string, ...options: string[]): FileJson {
  const { stdout, stderr } = command(["inspect", path, "--json", ...options]);
  expect(stderr).toBe("");
  const { version, files } = JSON.parse(stdout);
  expect(version).toBe(1);
  expect(files).toHaveLength(1);
  expect(files[0].error).toBeNull();
  return files[0];
}

describe("the table", () => {
  test("of a model that says everything", () => {
    const path = copy("torch/module.pt");
    expect(command(["inspect", path])).toEqual({
      code: 0,
      stderr: "",
      stdout: `${path}
  PyTorch · 3 batch norms · 15 channels
  mini-batches seen 7
  momentum is the weight of the new value

    name     channels  layout         epsilon  momentum  variance     gamma
    bn1             4  NCHW           1e-5     0.1        1.6 … 1.8   0.81 … 1.2
    block.1         6  NCHW           0.001    0.3       0.24 … 0.44  0.94 … 1.1
    head            5  channelsFirst  1e-5     0.1       0.73 … 1.1      –
`,
    });
  });

  test("of a state_dict: what it does not say is marked, what is the same stands above", () => {
    const path = copy("network.safetensors");
    expect(command(["inspect", path]).stdout).toBe(`${path}
  PyTorch · 3 batch norms · 15 channels
  layout channelsFirst · epsilon 1e-5? · momentum 0.1? (the weight of the new value) · mini-batches seen 7
  ? the file does not say it: the default of its framework

    name     channels  variance     gamma
    block.1         6  0.24 … 0.44  0.94 … 1.1
    bn1             4   1.6 … 1.8   0.81 … 1.2
    head            5  0.73 … 1.1      –
`);
    const given = command(["inspect", path, "--eps=1e-3", "--momentum", "0.2", "--layout=NCHW"]);
    expect(given.stdout).toContain(
      "  layout NCHW · epsilon 0.001 · momentum 0.2 (the weight of the new value) · mini-batches seen 7\n\n",
    );
  });

  test("of several files, one after the other", () => {
    const paths = [copy("opset15.onnx"), copy("keras-files/sequential.keras")];
    const { code, stdout } = command(["inspect", ...paths]);
    expect(code).toBe(0);
    expect(stdout).toBe(paths.map((path) => command(["inspect", path]).stdout).join("\n"));
  });

  test("no line is longer than COLUMNS, names apart that are longer themselves", () => {
    const path = at("long.safetensors");
    const layers = Object.fromEntries(
      Array.from({ length: 12 }, (_, i) => {
        const bn = BatchNorm.torch(40);
        bn.runningVariance.fill(0, 0, 1 + i);
        return [`backbone.stage${i}.blocks.7.conv_branches.0.normalization`, bn];
      }),
    );
    writeFileSync(path, writeTorch(layers));
    for (const COLUMNS of ["60", "80", "100"]) {
      const [name, ...lines] = command(["inspect", path], { COLUMNS }).stdout.trim().split("\n");
      expect(name).toBe(path);
      for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(Number(COLUMNS));
    }
  });

  test("of a model without batch norms says why", () => {
    const path = at("none.safetensors");
    writeFileSync(path, writeTorch({ bn: new BatchNorm(2) }));
    const text = readFileSync(path, "latin1").replace("running_mean", "other__means");
    writeFileSync(path, text, "latin1");
    expect(command(["inspect", path])).toEqual({
      code: 0,
      stderr: "",
      stdout: `${path}\n  PyTorch · no batch norms: no module in it has running_mean and running_var\n`,
    });
    const folded = at("folded.onnx");
    writeFileSync(folded, foldOnnx(readFileSync(golden("networks/residual.onnx"))).bytes);
    expect(command(["inspect", folded]).stdout).toMatch(
      /ONNX · no batch norms: most exporters fold .*; those in functions and in the bodies of If, Loop and Scan are not read\n$/,
    );
  });
});

describe("what is wrong", () => {
  const path = at("broken.safetensors");
  const make = (change: (bn: BatchNorm) => void): BatchNorm => {
    const bn = BatchNorm.torch(8);
    bn.runningMean.fill(1);
    bn.batchesSeen = 3;
    change(bn);
    return bn;
  };
  const layers = {
    first: make((bn) => bn.runningVariance.fill(0, 2, 4)),
    second: make((bn) => {
      bn.runningVariance[5] = Number.NaN;
      bn.runningVariance[6] = 1e-6;
      bn.gamma![7] = 0;
    }),
    "evil\u001b[2J": make(() => {}),
  };
  writeFileSync(path, writeTorch(layers));

  test("is marked in the table and explained below it", () => {
    const { code, stdout } = command(["inspect", path]);
    expect(code).toBe(0);
    expect(stdout).toBe(`${path}
  PyTorch · 3 batch norms · 24 channels
  layout channelsFirst · epsilon 1e-5? · momentum 0.1? (the weight of the new value) · mini-batches seen 3
  ? the file does not say it: the default of its framework

    name           channels  variance  gamma
    evil\\u001b[2J         8     1      1
  ! first                 8     0 … 1  1
  x second                8  1e-6 … 1  0 … 1

  x running variance NaN or infinite: test time fails
    second  1 of 8  channel 5

  ! running variance 0: the channel never varied in training; any deviation at test time is magnified by 1/√ε
    first  2 of 8  channels 2, 3

  ! running variance below epsilon: epsilon outweighs it, so outputs spread by less than 1/√2 of gamma
    second  1 of 8  channel 6

  ! gamma 0: the channel's output is beta, whatever comes in
    second  1 of 8  channel 7
`);
  });

  test("fails only under --strict, and then with a code of its own", () => {
    expect(command(["inspect", path, "--strict"]).code).toBe(3);
    expect(command(["inspect", path, "--json", "--strict"]).code).toBe(3);
    expect(command(["inspect", golden("opset15.onnx"), "--strict"]).code).toBe(0);
    // What cannot be read goes before what was found.
    expect(command(["inspect", path, at("none"), "--strict"]).code).toBe(1);
  });

  test("epsilon decides what is small", () => {
    const kinds = (...options: string[]) =>
      json(path, ...options).layers.flatMap(({ findings }) => findings.map(({ kind }) => kind));
    expect(kinds()).toContain("variance-tiny");
    expect(kinds("--eps", "1e-7")).not.toContain("variance-tiny");
  });

  test("names are in the JSON as they are, and none commands a terminal", () => {
    const names = ["a [ 1,  2 ]", "\u009b2J", "\u202e", 'q"\\\n[\n 3\n]'];
    const layer = new BatchNorm(1);
    writeFileSync(at("names.safetensors"), save(Object.fromEntries(names.map((n) => [n, layer]))));
    const { stdout } = command(["inspect", at("names.safetensors"), "--json"]);
    const found: { name: string }[] = JSON.parse(stdout).files[0].layers;
    expect(found.map(({ name }) => name).sort()).toEqual([...names].sort());
    expect(stdout).not.toMatch(/[\u007f-\u009f\u202e]/);
    // The lists of channels have a line each.
    expect(command(["inspect", path, "--json"]).stdout).toContain('"channels": [2, 3]');
  });

  test("is in the JSON, channel by channel", () => {
    const second = json(path).layers.find(({ name }) => name === "second")!;
    expect(second).toEqual({
      name: "second",
      module: null,
      channels: 8,
      layout: "channelsFirst",
      epsilon: 1e-5,
      epsilonFrom: "default",
      momentum: 0.1,
      momentumFrom: "default",
      batchesSeen: 3,
      variance: { min: Math.fround(1e-6), max: 1 },
      gamma: { min: 0, max: 1 },
      findings: [
        { kind: "variance-not-finite", severity: "error", channels: [5] },
        { kind: "variance-tiny", severity: "warning", channels: [6] },
        { kind: "gamma-zero", severity: "warning", channels: [7] },
      ],
      warnings: [],
    });
  });
});

describe("the numbers of a format are those of its reader", () => {
  /** The reports on these layers, as far as the layers themselves tell. */
  const expected = (layers: Record<string, BatchNorm>) =>
    Object.entries(layers).map(([name, bn]) => ({
      name,
      channels: bn.channels,
      layout: bn.layout,
      batchesSeen: bn.ageKnown ? bn.batchesSeen : null,
      variance: { min: Math.min(...bn.runningVariance), max: Math.max(...bn.runningVariance) },
      gamma: bn.gamma && { min: Math.min(...bn.gamma), max: Math.max(...bn.gamma) },
    }));
  const quiet = { onWarning: () => {} };

  test("PyTorch: a whole module, a checkpoint, the format before 1.6", () => {
    for (const name of ["module.pt", "checkpoint.pt", "state-dict-row.pt"]) {
      const file = readModel(bytesAt(golden(`torch/${name}`)));
      if (file.format !== "torch") throw new Error(file.format);
      const layers = file.loadAll(name === "module.pt" ? {} : { eps: 1e-5 });
      const found = json(golden(`torch/${name}`));
      expect([found.format, found.momentumIsWeightOf]).toEqual(["torch", "new"]);
      expect(found.layers).toMatchObject(expected(layers));
      const from = name === "module.pt" ? "file" : "default";
      for (const { epsilonFrom, momentumFrom } of found.layers) {
        expect([epsilonFrom, momentumFrom]).toEqual([from, from]);
      }
    }
  });

  test("ONNX, with the names of PyTorch's modules", () => {
    const path = golden("networks/residual.onnx");
    const file = readOnnx(bytesAt(path));
    const found = json(path);
    expect([found.format, found.momentumIsWeightOf]).toEqual(["onnx", "old"]);
    expect(found.layers).toMatchObject(expected(file.loadAll(quiet)));
    for (const { name, module } of found.layers) expect(module).toBe(file.nodes[name]!.module);
    expect(found.layers.some(({ module }) => module !== null)).toBe(true);
    // epsilon is float32 in the file.
    for (const { epsilon } of found.layers) expect([1e-5, 1e-3]).toContain(epsilon);
  });

  test("Keras, from .keras and .h5", () => {
    for (const name of ["sequential.keras", "functional.h5"]) {
      const path = golden(`keras-files/${name}`);
      const found = json(path);
      expect(found.format).toBe("keras");
      expect(found.layers).toMatchObject(expected(readKerasFile(bytesAt(path)).loadAll(quiet)));
      expect(new Set(found.layers.map((each) => each.epsilonFrom))).toEqual(new Set(["file"]));
    }
  });

  test("Keras' weights alone, whose epsilon may be given", () => {
    const path = golden("keras-files/weights.h5");
    const assumed = json(path).layers;
    const given = json(path, "--eps", "0.25").layers;
    for (const [i, { epsilon, epsilonFrom, momentum, momentumFrom }] of assumed.entries()) {
      expect([epsilon, epsilonFrom, momentum, momentumFrom]).toEqual([
        1e-3,
        "default",
        0.99,
        "default",
      ]);
      expect([given[i]!.epsilon, given[i]!.epsilonFrom]).toEqual([0.25, "option"]);
    }
  });

  test("Keras' weights alone, with the model's JSON", () => {
    const [path, config] = [golden("keras-files/weights.h5"), golden("keras-files/config.json")];
    const file = readKerasFile(bytesAt(path), { config: bytesAt(config) });
    const found = json(path, "--config", config);
    expect(found.layers).toMatchObject(expected(file.loadAll(quiet)));
    const said = found.layers.map(({ epsilonFrom, momentumFrom }) => [epsilonFrom, momentumFrom]);
    expect(new Set(said.flat())).toEqual(new Set(["file"]));
    expect(found.broken).toEqual([]);
  });

  test("Keras' weights alone, with layers of which a flag says what they lack", () => {
    const path = golden("keras-files/unnamed.weights.h5");
    const [asked] = json(path).broken;
    expect(asked!.error).toMatch(
      /^--no-scale, --no-center: expected one of them for layer ".*", which has three arrays, got neither$/,
    );
    for (const [flag, has] of [
      ["--no-scale", { gamma: null }],
      ["--no-center", { gamma: { min: expect.any(Number) } }],
    ] as const) {
      const { layers, broken } = json(path, flag);
      expect(broken).toEqual([]);
      expect(layers.find(({ name }) => asked!.name === name)).toMatchObject(has);
    }
  });

  test.each([["--config", golden("keras-files/config.json")], ["--no-scale"], ["--no-center"]])(
    "%s is refused for files that say it themselves",
    (...option) => {
      for (const name of ["opset15.onnx", "network.safetensors", "keras/model.json"]) {
        const { code, stderr } = command(["inspect", golden(name), ...option]);
        expect(code).toBe(1);
        expect(stderr).toMatch(new RegExp(`: ${option[0]}: .* says it itself, or has none`));
      }
    },
  );

  test("TensorFlow.js, with its shards read from beside model.json", () => {
    const names = ["model.json", "group1-shard1of2.bin", "group1-shard2of2.bin"];
    mkdirSync(at("tfjs"));
    for (const name of names) copyFileSync(golden(`keras/${name}`), at(`tfjs/${name}`));
    const [model, ...shards] = names.map((name) => bytesAt(at(`tfjs/${name}`)));
    const weights = Object.fromEntries(shards.map((bytes, i) => [names[i + 1]!, bytes]));
    const found = json(at("tfjs/model.json"));
    expect(found.format).toBe("tfjs");
    expect(found.layers).toMatchObject(
      expected(readKeras({ model: model!, weights }).loadAll(quiet)),
    );
  });

  test("a file of save, whose age may be unknown without that being a fault", () => {
    const known = BatchNorm.keras(3, { layout: "NHWC" });
    known.runningMean.fill(1);
    known.batchesSeen = 9;
    const unknown = readOnnx(writeOnnx({ bn: known })).load("bn");
    writeFileSync(at("own.safetensors"), save({ known, unknown }));
    const found = json(at("own.safetensors"));
    expect([found.format, found.momentumIsWeightOf]).toEqual(["batchnorm-wasm", "old"]);
    expect(found.layers).toMatchObject(expected({ known, unknown }));
    expect(found.layers.map((each) => each.batchesSeen)).toEqual([9, null]);
    expect(found.layers.flatMap((each) => each.findings)).toEqual([]);
  });

  test("what a reader warns of, once for all layers in the table", () => {
    const path = golden("opset15-training.onnx");
    const said = json(path).layers.map(({ warnings }) => warnings);
    expect(said).toHaveLength(2);
    expect(said[0]).toEqual([expect.stringContaining('node "norm_a": is in training mode')]);
    const { stdout } = command(["inspect", path]);
    expect(stdout).toContain("  notes\n    norm_a and 1 other layer: is in training mode, where");
    expect(stdout.match(/is in training mode/g)).toHaveLength(1);
  });
});

test("counters that no module has are not shown as a dash alone", () => {
  const layers = { a: new BatchNorm(2), b: new BatchNorm(2) };
  const { tensors } = safetensors(writeTorch(layers));
  for (const name of Object.keys(layers)) tensors.delete(`${name}.num_batches_tracked`);
  writeFileSync(at("uncounted.safetensors"), safetensors.write(tensors));
  const { stdout } = command(["inspect", at("uncounted.safetensors")]);
  expect(stdout).toContain(" · mini-batches seen: unknown\n");
  expect(stdout).toContain("counter of mini-batches missing");
});

describe("files beside an ONNX model", () => {
  test("are read", () => {
    const path = copy(
      "opset15-external.onnx as external/model.onnx",
      "opset15-external.bin as external/weights.bin",
    );
    const { layers, broken } = json(path);
    expect(broken).toEqual([]);
    const external = { "weights.bin": bytesAt(golden("opset15-external.bin")) };
    const expected = readOnnx(bytesAt(path), { external }).loadAll();
    expect(layers.map(({ variance }) => variance!.max)).toEqual(
      Object.values(expected).map(({ runningVariance }) => Math.max(...runningVariance)),
    );
  });

  test("that are missing are named, layer by layer", () => {
    const path = copy("opset15-external.onnx as alone/model.onnx");
    const { code, stdout } = command(["inspect", path]);
    expect(code).toBe(1);
    expect(stdout).toContain(
      '  not read\n    norm_a: the file "weights.bin", which has some of the model\'s numbers, is not in ' +
        "its folder: copy it there\n",
    );
    expect(stdout).not.toMatch(/external/);
    expect(json(path)).toMatchObject({
      layers: [],
      broken: [{ name: "norm_a" }, { name: "norm_b" }],
    });
  });

  test("that are outside of its folder are not read", () => {
    mkdirSync(at("out/in"), { recursive: true });
    writeFileSync(at("out/eights.bin"), "secret");
    // The same number of characters, so that no length in the file changes.
    for (const location of ["../eights.b", "/eights.bin", "a/../../b.b", "C:\\ights.b"]) {
      const model = readFileSync(golden("opset15-external.onnx"), "latin1");
      const name = location.slice(0, 11).padEnd(11, "x");
      writeFileSync(at("out/in/m.onnx"), model.replaceAll("weights.bin", name), "latin1");
      const { broken } = json(at("out/in/m.onnx"));
      expect(broken[0]!.error).toBe(
        `the file "${name}", which the model names, is not in the folder of the model: it is not read`,
      );
    }
  });
});

describe("what cannot be read", () => {
  test.each<[string, string, string]>([
    ["nothing there", "missing.onnx", "no such file"],
    ["a folder", "a-folder", "a folder: name the file in it, its model.json or saved_model.pb for"],
    [
      "an empty file",
      "empty.pth",
      "expected a model file, got no bytes: perhaps a download failed",
    ],
    ["text", "text.txt", "got 5 bytes that begin with 68 65 6c 6c 6f"],
    [
      "other JSON, as that of a layer",
      "other.json",
      "expected a model file, got JSON that is no model.json of TensorFlow.js; layers of this package",
    ],
    ["a TFLite model", "model.tflite", "got a TensorFlow Lite model: its batch norms were folded"],
    ["a shard", "group1-shard1of2.bin", "(a shard of a TensorFlow.js model: name its model.json)"],
    ["a checkpoint of several", "several.pt", '--key: expected one of "model", "ema.model"'],
    ["a truncated model", "cut.keras", "expected a zip archive"],
  ])("%s: one line with its name, and the other files are read", (_, name, message) => {
    mkdirSync(at("a-folder"), { recursive: true });
    writeFileSync(at("empty.pth"), "");
    writeFileSync(at("text.txt"), "hello");
    writeFileSync(at("other.json"), '{ "weights": [1, 2] }');
    writeFileSync(at("model.tflite"), "\u0018\0\0\0TFL3");
    copy("keras/group1-shard1of2.bin", "torch/several.pt");
    writeFileSync(
      at("cut.keras"),
      bytesAt(golden("keras-files/sequential.keras")).subarray(0, 900),
    );
    const good = golden("opset15.onnx");
    const { code, stdout, stderr } = command(["inspect", at(name), good]);
    expect(code).toBe(1);
    expect(stdout).toBe(command(["inspect", good]).stdout);
    expect(stderr.startsWith(`batchnorm-wasm: ${at(name)}: `)).toBe(true);
    expect(stderr).toContain(message);
    expect(stderr.trimEnd()).not.toContain("\n");
    const both = command(["inspect", at(name), good, "--json"]);
    expect([both.code, both.stderr]).toEqual([1, stderr]);
    const [bad, fine] = JSON.parse(both.stdout).files;
    expect(stderr).toBe(`batchnorm-wasm: ${bad.file}: ${bad.error}\n`);
    expect(fine.error).toBeNull();
  });

  test("one of several models is chosen by --key", () => {
    expect(json(golden("torch/several.pt"), "--key", "ema.model").layers).toHaveLength(3);
  });

  test("options of what the file says itself are refused", () => {
    for (const [path, option] of [
      [golden("opset15.onnx"), "eps"],
      [golden("keras/model.json"), "key"],
      [golden("keras-files/sequential.keras"), "key"],
    ] as const) {
      const { code, stderr } = command(["inspect", path, `--${option}`, "1"]);
      expect(code).toBe(1);
      expect(stderr).toContain(`: --${option}: `);
    }
  });

  test("an epsilon that the file says goes before the option, with a note", () => {
    const [first] = json(golden("keras-files/sequential.keras"), "--eps", "0.5").layers;
    expect([first!.epsilon, first!.epsilonFrom]).toEqual([0.001, "file"]);
    expect(first!.warnings).toEqual([
      'layer "bn_conv": the file says epsilon, 0.001; --eps is not used',
    ]);
    const [tfjs] = json(golden("keras/model.json"), "--eps", "0.5").layers;
    expect([tfjs!.epsilon, tfjs!.epsilonFrom]).toEqual([1e-4, "file"]);
    expect(tfjs!.warnings).toEqual([
      'layer "bn_conv": the file says epsilon, 0.0001; --eps is not used',
    ]);
    const [torch] = json(golden("torch/module.pt"), "--eps", "0.5").layers;
    expect([torch!.epsilon, torch!.epsilonFrom, torch!.momentumFrom]).toEqual([
      0.5,
      "option",
      "file",
    ]);
  });
});
