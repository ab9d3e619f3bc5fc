// The other way round: files that the built package writes, loaded by PyTorch, onnx and TensorFlow.js.
//
//   npm run golden:check
//   node tests/golden/check.mjs python|tfjs     one of them
//
// Needs Debian's python3-torch and python3-onnx.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { BatchNorm } from "batchnorm-wasm";
import {
  readKeras,
  readOnnx,
  readTorch,
  save,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";

const PYTHON = "/usr/bin/python3";
const [only] = process.argv.slice(2);
if (only !== "tfjs") {
  const tried = spawnSync(PYTHON, ["-c", "import torch, onnx"], { encoding: "utf8" });
  if (tried.status !== 0) {
    const got = tried.error?.message ?? tried.stderr.trim().split("\n").at(-1);
    console.error(
      `golden:check: expected Debian's python3-torch and python3-onnx, got ${got}\n` +
        "To install them: apt-get install python3-torch python3-onnx\n" +
        "TensorFlow.js alone: node tests/golden/check.mjs tfjs",
    );
    process.exit(1);
  }
}

const here = new URL("./", import.meta.url);
const build = new URL("../../build/golden/", here);
const bytes = (name) => new Uint8Array(readFileSync(new URL(`state/${name}`, here)));
const expected = { torch: {}, onnx: {}, keras: {} };

/** All that the other program has to find of a layer. */
const valuesOf = ({ gamma, beta, runningMean, runningVariance, epsilon, batchesSeen }) => ({
  gamma: gamma && [...gamma],
  beta: beta && [...beta],
  runningMean: [...runningMean],
  runningVariance: [...runningVariance],
  epsilon,
  batchesSeen,
});

/** Values that no file had before: the layers trained on. */
function train(layers, shapeOf) {
  for (const [name, layer] of Object.entries(layers)) {
    const shape = shapeOf(name, layer);
    const size = shape.reduce((a, b) => a * b, 1);
    for (let t = 0; t < 3; t++) {
      layer.train(
        Float32Array.from({ length: size }, (_, i) => Math.sin(7 * i + t) * 3 + t),
        { shape },
      );
    }
    layer.gamma?.forEach((g, c, all) => {
      all[c] = g / 3 - c;
    });
  }
  return layers;
}

function put(kind, name, layers, keys) {
  expected[kind][name] = Object.fromEntries(
    Object.entries(layers).map(([layer, bn]) => {
      const { epsilon, batchesSeen, ...rest } = valuesOf(bn);
      return [layer, { ...rest, ...(keys === "epsilon" ? { epsilon } : { batchesSeen }) }];
    }),
  );
}

rmSync(build, { recursive: true, force: true });
mkdirSync(build, { recursive: true });

// The network of state/make.py: into its file, our own file into its file, its layers alone.
const torchLayers = () =>
  train(
    readTorch(bytes("network.safetensors")).loadAll((name) => ({
      eps: 1e-5,
      layout: name === "head" ? "NC" : "NCHW",
    })),
    (name, { channels }) => (name === "head" ? [4, channels] : [2, channels, 3, 3]),
  );
for (const [name, write] of Object.entries({
  network: (layers) => writeTorch(layers, { into: bytes("network.safetensors") }),
  own: (layers) => save(layers, { into: bytes("network.safetensors") }),
  "norms-alone": (layers) => writeTorch(layers),
  "own-norms": (layers) => save(layers),
})) {
  const layers = torchLayers();
  writeFileSync(new URL(`${name}.safetensors`, build), write(layers));
  put("torch", name, layers);
}

const fresh = () =>
  train(
    {
      a: BatchNorm.keras(3, { layout: "NHWC" }),
      b: new BatchNorm(4, { epsilon: 0.01 }),
      "c/d": BatchNorm.torch(2, { layout: "NCL", eps: 1e-3 }),
    },
    (_, { layout, channels }) => [...layout].map((axis) => (axis === "C" ? channels : 3)),
  );

for (const name of ["opset7", "opset9", "opset14", "opset15-identity"]) {
  const layers = train(readOnnx(bytes(`${name}.onnx`)).loadAll({ layout: "NCHW" }), () => [
    2, 3, 4, 5,
  ]);
  writeFileSync(new URL(`${name}.onnx`, build), writeOnnx(layers, { into: bytes(`${name}.onnx`) }));
  put("onnx", name, layers, "epsilon");
}
{
  const layers = fresh();
  writeFileSync(new URL("alone.onnx", build), writeOnnx(layers));
  put("onnx", "alone", layers, "epsilon");
}

function writeModel(name, layers, { model, weights }) {
  const folder = new URL(`${name}/`, build);
  mkdirSync(folder);
  writeFileSync(new URL("model.json", folder), model);
  for (const [path, shard] of Object.entries(weights)) writeFileSync(new URL(path, folder), shard);
  put("keras", name, layers, "epsilon");
}
for (const name of ["keras", "keras-quantized"]) {
  const files = {
    model: new TextDecoder().decode(bytes(`${name}/model.json`)),
    weights: Object.fromEntries(
      JSON.parse(
        new TextDecoder().decode(bytes(`${name}/model.json`)),
      ).weightsManifest[0].paths.map((path) => [path, bytes(`${name}/${path}`)]),
    ),
  };
  const layers = train(readKeras(files).loadAll(), (_, { channels }) => [5, channels]);
  if (name === "keras-quantized") {
    // Weights that are float16 in the file stay so: give them what it holds.
    for (const layer of Object.values(layers)) {
      for (const values of [layer.gamma, layer.beta, layer.runningMean, layer.runningVariance]) {
        values?.forEach((v, c) => {
          values[c] = Math.round(v * 64) / 64;
        });
      }
    }
  }
  writeModel(name, layers, writeKeras(layers, { into: files }));
}
const layers = fresh();
writeModel("alone", layers, writeKeras(layers));

writeFileSync(new URL("expected.json", build), JSON.stringify(expected));
const run = (program, ...parameters) =>
  execFileSync(program, parameters, { stdio: "inherit", cwd: fileURLToPath(here) });
if (only !== "tfjs") run(PYTHON, "state/make.py", "--check");
if (only !== "python") run(process.execPath, "state/make.mjs", "--check");
