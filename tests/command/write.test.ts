// `fold` and `convert`: what is written, what is printed, and that nothing is overwritten unasked.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { BatchNorm } from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import {
  foldKeras,
  foldOnnx,
  load,
  readKeras,
  readOnnx,
  readTorch,
  save,
  writeKeras,
  writeTorch,
} from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { writeFiles } from "../../src/command/disk.js";
import { locationsIn } from "../../src/command/fold.js";
import { protobuf, safetensors } from "../state/files.js";
import { archive, dict, ONE_TWO_THREE, tensor } from "../state/torch-files.js";
import { bytesAt, command, folder, golden } from "./command.js";

const { at, copy } = folder();
const quiet = { onWarning: () => {} };

/** Runs a command that succeeds, and returns the lines that it prints. */
function lines(...args: string[]): string[] {
  const { code, stdout, stderr } = command(args);
  expect([code, stderr], stdout).toEqual([0, ""]);
  return stdout.trimEnd().split("\n");
}

/** Checks that two layers have the same numbers. */
function expectSame(actual: BatchNorm, expected: BatchNorm): void {
  expect([...actual.runningMean]).toEqual([...expected.runningMean]);
  expect([...actual.runningVariance]).toEqual([...expected.runningVariance]);
  expect(actual.gamma ?? new Float32Array(actual.channels).fill(1)).toEqual(
    expected.gamma ?? new Float32Array(actual.channels).fill(1),
  );
  expect(actual.beta ?? new Float32Array(actual.channels)).toEqual(
    expected.beta ?? new Float32Array(actual.channels),
  );
}

describe("fold", () => {
  test("an ONNX model: the bytes of foldOnnx", () => {
    const path = copy("networks/residual.onnx");
    const out = at("folded/new/model.onnx");
    const { bytes, folded, kept } = foldOnnx(bytesAt(path));
    expect(lines("fold", path, "-o", out)).toEqual([
      `${folded.length} of ${folded.length + kept.length} batch norms folded`,
      ...(kept.length > 0 ? [expect.anything()] : []),
      `written: ${out}, ${(bytes.length / 1000).toFixed(1)} kB`,
    ]);
    expect(Buffer.from(bytes).equals(bytesAt(out))).toBe(true);
    expect(readdirSync(at("folded/new"))).toEqual(["model.onnx"]);
  });

  test("norms that stay are listed with their reasons", () => {
    const path = copy("opset15.onnx");
    const { kept } = foldOnnx(bytesAt(path));
    expect(kept).toHaveLength(2);
    const [first, titles, ...rows] = lines("fold", path, "-o", at("kept.onnx"));
    expect(first).toBe("0 of 2 batch norms folded");
    expect(titles).toMatch(/^ {2}kept +because$/);
    expect(rows.slice(0, 2)).toEqual(
      kept.map(({ name, reason }) => `  ${name.padEnd(4)}  ${reason}`),
    );
  });

  test("a model of TensorFlow.js: its weight files are written beside OUT", () => {
    const names = ["group1-shard1of2.bin", "group1-shard2of2.bin"];
    const path = copy(
      "keras/model.json as tfjs/model.json",
      ...names.map((name) => `keras/${name} as tfjs/${name}`),
    );
    const weights = Object.fromEntries(names.map((name) => [name, bytesAt(at(`tfjs/${name}`))]));
    const expected = foldKeras({ model: bytesAt(path), weights });
    const found = lines("fold", path, "-o", at("tfjs-folded/"));
    expect(found[0]).toBe(
      `${expected.folded.length} of ${expected.folded.length + expected.kept.length} batch norms folded`,
    );
    expect(found.at(-1)).toContain(`written: ${at("tfjs-folded/model.json")} and `);
    expect(readFileSync(at("tfjs-folded/model.json"), "utf8")).toBe(expected.model);
    const written = Object.keys(expected.weights);
    expect(readdirSync(at("tfjs-folded")).sort()).toEqual(["model.json", ...written].sort());
    for (const name of written) {
      const bytes = Buffer.from(expected.weights[name]!);
      expect(bytes.equals(bytesAt(at(`tfjs-folded/${name}`)))).toBe(true);
    }
  });

  test("weight files are never written over those of the input, unless it is replaced, too", () => {
    const model = JSON.stringify(JSON.parse(writeKeras({ bn: new BatchNorm(2) }).model));
    const { weights } = writeKeras({ bn: new BatchNorm(2) });
    mkdirSync(at("same"));
    writeFileSync(at("same/model.json"), model);
    for (const [name, bytes] of Object.entries(weights)) writeFileSync(at(`same/${name}`), bytes);
    const before = readdirSync(at("same"));
    const [shard] = Object.keys(weights);
    const fold = ["fold", at("same/model.json"), "-o"];
    for (const force of [[], ["--force"]]) {
      const { code, stderr } = command([...fold, at("same/new.json"), ...force]);
      expect([code, stderr]).toEqual([
        1,
        `batchnorm-wasm: ${at("same/model.json")}: the folded model would overwrite ${shard}, ` +
          `which this model needs: name another folder, such as -o ${at("same/folded")}/\n`,
      ]);
      expect(readdirSync(at("same"))).toEqual(before);
      expect(bytesAt(at(`same/${shard}`))).toEqual(weights[shard!]);
    }
    lines(...fold, at("same/folded/"));
    lines(...fold, at("same/"), "--force");
    expect(readdirSync(at("same"))).toEqual(["folded", ...before].sort());
  });

  test("a model whose weight files lead out of its folder is refused", () => {
    const { model } = writeKeras({ bn: new BatchNorm(2) });
    const json = JSON.parse(model);
    json.weightsManifest[0].paths = ["../escaped.bin"];
    mkdirSync(at("jail"));
    writeFileSync(at("jail/model.json"), JSON.stringify(json));
    writeFileSync(at("escaped.bin"), new Uint8Array(32));
    const { code, stderr } = command(["fold", at("jail/model.json"), "-o", at("jail/out/")]);
    expect(code).toBe(1);
    expect(stderr).toContain('"../escaped.bin", which the model names, is not in the folder');
    expect(existsSync(at("jail/out"))).toBe(false);
  });

  test("other formats are refused in a sentence", () => {
    for (const name of [
      "network.safetensors",
      "torch/state-dict.pt",
      "keras-files/functional.h5",
    ]) {
      const { code, stderr } = command(["fold", golden(name), "-o", at("no.onnx")]);
      expect(code).toBe(1);
      expect(stderr).toBe(
        `batchnorm-wasm: ${golden(name)}: fold takes ONNX models and the model.json of TensorFlow.js: ` +
          "export this model as one of these\n",
      );
    }
    expect(existsSync(at("no.onnx"))).toBe(false);
  });

  test("a model without batch norms is refused, and nothing is written", () => {
    const onnx = copy("networks/residual.onnx as without.onnx");
    lines("fold", onnx, "-o", at("once.onnx"));
    const { code, stdout, stderr } = command(["fold", at("once.onnx"), "-o", at("twice.onnx")]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(
      /: it has no batch norms, so there is nothing to fold \(most exporters fold them .*\); nothing was written\n$/,
    );
    expect(existsSync(at("twice.onnx"))).toBe(false);
    const { model, weights } = writeKeras({ bn: new BatchNorm(2, { layout: "NC" }) });
    const other = model
      .replaceAll('"BatchNormalization"', '"Activation"')
      .replaceAll("/moving_mean", "/other_mean");
    mkdirSync(at("none"));
    writeFileSync(at("none/model.json"), other);
    for (const [name, bytes] of Object.entries(weights)) writeFileSync(at(`none/${name}`), bytes);
    const found = command(["fold", at("none/model.json"), "-o", at("none/folded/")]);
    expect(found.code).toBe(1);
    expect(found.stderr).toContain("it has no batch norms, so there is nothing to fold");
    expect(existsSync(at("none/folded"))).toBe(false);
  });

  test("a file that is missing beside the model is named, and nothing is written", () => {
    const path = copy("opset15-external.onnx as lonely/model.onnx");
    const { code, stderr } = command(["convert", path, "-o", at("lonely/n.safetensors")]);
    expect(code).toBe(1);
    expect(stderr).toContain(
      'the file "weights.bin", which has some of the model\'s numbers, is not',
    );
    expect(stderr).not.toContain("external");
    expect(readdirSync(at("lonely"))).toEqual(["model.onnx"]);
    const tfjs = copy("keras/model.json as lonely-tfjs/model.json");
    expect(command(["fold", tfjs, "-o", at("lonely-tfjs/out/")]).stderr).toContain(
      'the file "group1-shard1of2.bin", which has some',
    );
  });

  test("an ONNX model of several files takes them along to another folder", () => {
    const path = copy(
      "opset15-external.onnx as ext/model.onnx",
      "opset15-external.bin as ext/weights.bin",
    );
    const found = lines("fold", path, "-o", at("ext-folded/model.onnx"));
    expect(found.at(-1)).toContain("model.onnx and 1 file beside it");
    expect(readdirSync(at("ext-folded")).sort()).toEqual(["model.onnx", "weights.bin"]);
    expect(bytesAt(at("ext-folded/weights.bin"))).toEqual(bytesAt(at("ext/weights.bin")));
    expect(command(["inspect", at("ext-folded/model.onnx")]).code).toBe(0);
    // In its own folder they are there already.
    lines("fold", path, "-o", at("ext/folded.onnx"));
    expect(readdirSync(at("ext")).sort()).toEqual(["folded.onnx", "model.onnx", "weights.bin"]);
  });

  test("the files of an ONNX model are found by their entries, long names too", () => {
    const name = `${"deep/".repeat(40)}weights.bin`;
    const model = protobuf([
      [
        7,
        [
          [
            5,
            [
              [
                13,
                [
                  [1, "location"],
                  [2, name],
                ],
              ],
              [
                13,
                [
                  [1, "offset"],
                  [2, "0"],
                ],
              ],
            ],
          ],
        ],
      ],
      [
        7,
        [
          [
            5,
            [
              [
                13,
                [
                  [1, "location"],
                  [2, "b"],
                ],
              ],
              [
                13,
                [
                  [1, "location"],
                  [2, "b"],
                ],
              ],
            ],
          ],
        ],
      ],
    ]);
    expect([...locationsIn(model)]).toEqual([name, "b"]);
    expect([...locationsIn(bytesAt(golden("opset15.onnx")))]).toEqual([]);
  });
});

describe("convert", () => {
  test("a module, whose eps and momentum a state_dict does not have", () => {
    const out = at("module.safetensors");
    expect(lines("convert", golden("torch/module.pt"), "-o", out).join("\n")).toContain(
      "without eps and momentum, for which a state_dict has no place",
    );
    const without = lines(
      "convert",
      golden("torch/state-dict.pt"),
      "-o",
      at("without.safetensors"),
    ).join("\n");
    expect(without).not.toContain("eps");
  });

  test("what torch.save wrote, to safetensors with every tensor as it was", () => {
    for (const [name, ...options] of [
      ["checkpoint.pt"],
      ["state-dict-row.pt"],
      ["half.pt"],
      ["views.pt"],
      ["pruned.pt"],
      ["several.pt", "--key", "ema.model"],
    ] as const) {
      const out = at(`${name}.safetensors`);
      const path = golden(`torch/${name}`);
      expect(lines("convert", path, "-o", out, ...options)[0]).toMatch(
        /^the whole state_dict, \d batch norms among its modules$/,
      );
      const key = options[1] === undefined ? {} : { key: options[1] };
      const before = readTorch(bytesAt(path), key).loadAll({ eps: 1e-5, ...quiet });
      const after = readTorch(bytesAt(out)).loadAll({ eps: 1e-5, ...quiet });
      expect(Object.keys(after).sort()).toEqual(Object.keys(before).sort());
      for (const [each, bn] of Object.entries(before)) {
        expectSame(after[each]!, bn);
        expect(after[each]!.batchesSeen).toBe(bn.batchesSeen);
      }
      // Whatever writes all layers into the file leaves the same tensors.
      const all = safetensors(writeTorch(before, { into: bytesAt(path), ...key, ...quiet }));
      expect(safetensors(bytesAt(out)).tensors).toEqual(all.tensors);
      expect(all.tensors.size).toBeGreaterThan(5 * Object.keys(before).length - 4);
    }
  });

  test("a checkpoint with a layer that cannot be read is converted all the same", () => {
    const norm = (name: string, ...more: string[]): Record<string, string> =>
      Object.fromEntries(
        ["running_mean", "running_var", ...more].map((each) => [`${name}.${each}`, tensor()]),
      );
    // weight_g stands for a weight that is computed, which the reader refuses.
    const checkpoint = archive(dict({ ...norm("a", "weight_g"), ...norm("b") }));
    writeFileSync(at("mixed.pth"), checkpoint);
    lines("convert", at("mixed.pth"), "-o", at("mixed.safetensors"));
    const { tensors } = safetensors(bytesAt(at("mixed.safetensors")));
    expect([...tensors.keys()].sort()).toEqual(
      Object.keys({ ...norm("a", "weight_g"), ...norm("b") }).sort(),
    );
    for (const { data } of tensors.values()) {
      expect([...new Float32Array(data.buffer)]).toEqual(ONE_TWO_THREE[0]);
    }
    writeFileSync(at("bad.pth"), archive(dict(norm("a", "weight_g"))));
    const { code, stderr } = command(["convert", at("bad.pth"), "-o", at("bad.safetensors")]);
    expect(code).toBe(1);
    expect(stderr).toContain("a.weight_g: expected a tensor that batch norms have");
  });

  test("a state_dict to ONNX, with the eps that it lacks", () => {
    const path = golden("torch/state-dict.pt");
    const { code, stderr } = command(["convert", path, "-o", at("sd.onnx")]);
    expect(code).toBe(2);
    expect(stderr).toBe(
      `batchnorm-wasm: ${path}: --eps: the file does not say it, so it has to be given (PyTorch's ` +
        "default is 1e-5); see batchnorm-wasm convert --help\n",
    );
    expect(existsSync(at("sd.onnx"))).toBe(false);
    expect(lines("convert", path, "-o", at("sd.onnx"), "--eps", "1e-3")).toEqual([
      "3 batch norms, and nothing else of the network",
      "momentum is the framework's default, as the file does not say it",
      expect.stringMatching(/^written: .*sd\.onnx, \d\.\d kB$/),
    ]);
    lines("convert", path, "-o", at("sd2.onnx"), "--eps", "1e-3", "--momentum", "0.25");
    const file = readTorch(bytesAt(path));
    const onnx = readOnnx(bytesAt(at("sd2.onnx")));
    expect(onnx.layers).toEqual(file.layers);
    for (const name of file.layers) {
      const bn = onnx.load(name);
      // PyTorch's weight of the new value is ONNX' weight of the old one.
      expect([bn.epsilon, bn.decay]).toEqual([Math.fround(1e-3), 0.75]);
      expectSame(bn, readOnnx(bytesAt(at("sd.onnx"))).load(name));
      const { runningMean } = file.load(name, { eps: 1e-3 });
      expect(bn.runningMean).toEqual(runningMean.map(Math.fround));
    }
  });

  test("activations that an ONNX model of norms alone has no place for are told", () => {
    const layer = (options: object = {}) => new BatchNorm(2, options);
    const relu = { activation: "relu" };
    const own = save({ plain: layer(), first: layer(relu), second: layer({ activation: [0, 3] }) });
    writeFileSync(at("active.safetensors"), own);
    expect(lines("convert", at("active.safetensors"), "-o", at("active.onnx"))).toEqual([
      "3 batch norms, and nothing else of the network",
      "first and 1 other layer: its activation is not in the file: in ONNX that is a node of its own",
      expect.stringMatching(/^written: /),
    ]);
  });

  test("ONNX to safetensors and back: the names of PyTorch, and nothing lost", () => {
    const path = golden("networks/residual.onnx");
    const onnx = readOnnx(bytesAt(path));
    const out = at("norms.safetensors");
    expect(lines("convert", path, "-o", out)).toContain(
      "names are those of the modules in PyTorch",
    );
    const kept = load(bytesAt(out));
    for (const [name, { module }] of Object.entries(onnx.nodes)) {
      const [before, after] = [onnx.load(name), kept[module!]!];
      expectSame(after, before);
      expect([after.epsilon, after.decay, after.layout, after.ageKnown]).toEqual([
        before.epsilon,
        before.decay,
        before.layout,
        false,
      ]);
    }
    lines("convert", out, "-o", at("back.onnx"));
    const back = readOnnx(bytesAt(at("back.onnx")));
    for (const [name, bn] of Object.entries(kept)) {
      expectSame(back.load(name), bn);
      expect(back.load(name).epsilon).toBe(bn.epsilon);
    }
  });

  test("Keras and TensorFlow.js to safetensors and to ONNX", () => {
    const tfjs = copy(
      "keras/model.json as k/model.json",
      "keras/group1-shard1of2.bin as k/group1-shard1of2.bin",
      "keras/group1-shard2of2.bin as k/group1-shard2of2.bin",
    );
    const names = ["group1-shard1of2.bin", "group1-shard2of2.bin"];
    const weights = Object.fromEntries(names.map((name) => [name, bytesAt(at(`k/${name}`))]));
    const keras = golden("keras-files/sequential.keras");
    for (const [path, layers] of [
      [tfjs, readKeras({ model: bytesAt(tfjs), weights }).loadAll(quiet)],
      [keras, readKerasFile(bytesAt(keras)).loadAll(quiet)],
    ] as const) {
      lines("convert", path, "-o", at("k.safetensors"), "--force");
      lines("convert", path, "-o", at("k.onnx"), "--force");
      const saved = load(bytesAt(at("k.safetensors")));
      const onnx = readOnnx(bytesAt(at("k.onnx")));
      expect(Object.keys(saved)).toEqual(Object.keys(layers));
      for (const [name, bn] of Object.entries(layers)) {
        expectSame(saved[name]!, bn);
        expect([saved[name]!.epsilon, saved[name]!.layout]).toEqual([bn.epsilon, bn.layout]);
        expectSame(onnx.load(name), bn);
      }
    }
  });

  test.each<[string, string, string, RegExp]>([
    [
      "safetensors to itself",
      "network.safetensors",
      "a.safetensors",
      /it is a safetensors file already/,
    ],
    ["ONNX to itself", "opset15.onnx", "a.onnx", /it is an ONNX model already/],
    [
      "a damaged layer",
      "keras-files/unnamed.weights.h5",
      "a.onnx",
      /--no-scale, --no-center: expected one of them for layer/,
    ],
    [
      "TorchScript",
      "torch/script.pt",
      "a.safetensors",
      /a TorchScript archive: in Python, torch\.save/,
    ],
    ["several models", "torch/several.pt", "a.safetensors", /--key: expected one of "model"/],
  ])("%s is refused in a sentence", (_, name, out, message) => {
    const { code, stdout, stderr } = command(["convert", golden(name), "-o", at(out)]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^batchnorm-wasm: .*\n$/);
    expect(stderr).toMatch(message);
    expect(existsSync(at(out))).toBe(false);
  });

  test("a model without batch norms is refused", () => {
    writeFileSync(
      at("linear.safetensors"),
      safetensors.write(
        new Map([["fc.weight", { dtype: "F32", shape: [1, 1], data: new Uint8Array(4) }]]),
      ),
    );
    const { code, stderr } = command(["convert", at("linear.safetensors"), "-o", at("l.onnx")]);
    expect(code).toBe(1);
    expect(stderr).toContain("it has no batch norms, and convert takes only models that have some");
  });

  test("options that a state_dict has no place for are refused", () => {
    for (const option of ["--eps=1e-3", "--momentum=0.1", "--layout=NCHW"]) {
      const args = ["convert", golden("torch/checkpoint.pt"), "-o", at("o.safetensors"), option];
      const { code, stderr } = command(args);
      expect(code).toBe(2);
      expect(stderr).toContain(`${option.split("=")[0]}: a state_dict in safetensors has no place`);
    }
  });
});

describe("files that exist", () => {
  const path = at("mine.safetensors");
  writeFileSync(path, save({ bn: new BatchNorm(3) }));

  test("stay as they are without --force, the input itself too", () => {
    const onnx = copy("opset15.onnx as precious.onnx");
    const before = bytesAt(onnx);
    for (const args of [
      ["convert", path, "-o", onnx],
      ["fold", onnx, "-o", onnx],
      ["fold", onnx, "-o", at(".")],
    ]) {
      const { code, stderr } = command(args);
      expect(code).toBe(1);
      expect(stderr).toContain(`${onnx} exists already; --force overwrites it`);
      expect(bytesAt(onnx)).toEqual(before);
    }
    lines("fold", onnx, "-o", onnx, "--force");
    lines("convert", path, "-o", onnx, "--force");
    expect(readOnnx(bytesAt(onnx)).layers).toEqual(["bn"]);
  });

  test("where one of several files cannot be written, none is replaced", () => {
    const { model, weights } = writeKeras({ bn: new BatchNorm(2) });
    const [name] = Object.keys(weights);
    mkdirSync(at("whole"));
    writeFileSync(at("whole/model.json"), "old model");
    // A draft cannot be written into a folder of its name.
    mkdirSync(at(`whole/${name}.${process.pid}.part`));
    const outputs = [
      { path: at("whole/model.json"), content: model },
      { path: at(`whole/${name}`), content: weights[name!]! },
    ];
    expect(() => writeFiles(outputs, true)).toThrow();
    expect(readFileSync(at("whole/model.json"), "utf8")).toBe("old model");
    expect(existsSync(at(`whole/${name}`))).toBe(false);
  });

  test("the model, which names its weight files, is replaced after them", () => {
    mkdirSync(at("order/model.json"), { recursive: true });
    const outputs = [
      { path: at("order/model.json"), content: "a folder is in its place" },
      { path: at("order/weights.bin"), content: "new" },
    ];
    expect(() => writeFiles(outputs, true)).toThrow();
    expect(readFileSync(at("order/weights.bin"), "utf8")).toBe("new");
    expect(readdirSync(at("order")).sort()).toEqual(["model.json", "weights.bin"]);
  });

  test("a folder that cannot be made is named, and nothing is left", () => {
    const { code, stderr } = command(["convert", path, "-o", `${path}/x.onnx`]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^batchnorm-wasm: .*\n$/);
    expect(readdirSync(at(".")).filter((name) => name.endsWith(".part"))).toEqual([]);
  });
});
