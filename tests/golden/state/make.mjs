// Keras models as TensorFlow.js itself writes them, for tests/state; and, with --check, what `npm run
// golden:check` wrote with our writer, loaded by TensorFlow.js.
//
//   node tests/golden/state/make.mjs [--check]

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import "@tensorflow/tfjs-backend-cpu";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";

const OUT = new URL("./", import.meta.url);
const BUILD = new URL("../../../build/golden/", import.meta.url);

/** An array as in the other golden files. */
const encode = (array) => `f32:${Buffer.from(new Float32Array(array).buffer).toString("base64")}`;

/** Numbers of mean 0 and variance 1 from a seed. */
function normals(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
}

/** Weights of a model that are nowhere near their start, variances positive. */
function settle(model, seed) {
  const normal = normals(seed);
  for (const layer of model.layers) {
    if (layer.getClassName() === "Sequential") settle(layer, seed + 1);
    else
      layer.setWeights(
        layer.weights.map((weight) => {
          const size = weight.shape.reduce((a, b) => a * b, 1);
          const variance = weight.originalName.endsWith("moving_variance");
          const values = Array.from({ length: size }, () => {
            const z = normal();
            return variance ? 0.5 + z * z : 0.3 + z;
          });
          return tf.tensor(values, weight.shape);
        }),
      );
  }
}

/** What `model.save` gives, as files: model.json and shards of at most `limit` bytes. */
async function filesOf(model, limit) {
  let saved;
  await model.save(
    tf.io.withSaveHandler(async (artifacts) => {
      saved = artifacts;
      return { modelArtifactsInfo: tf.io.getModelArtifactsInfoForJSON(artifacts) };
    }),
  );
  const data = new Uint8Array(tf.io.CompositeArrayBuffer.join(saved.weightData));
  return { ...filesFrom(saved, saved.weightSpecs, data, limit) };
}

function filesFrom(saved, weights, data, limit) {
  const count = Math.max(1, Math.ceil(data.length / limit));
  const shards = Array.from({ length: count }, (_, i) => data.slice(i * limit, (i + 1) * limit));
  const paths = shards.map((_, i) => `group1-shard${i + 1}of${count}.bin`);
  const json = {
    modelTopology: saved.modelTopology,
    format: saved.format,
    generatedBy: saved.generatedBy,
    convertedBy: saved.convertedBy,
    weightsManifest: [{ paths, weights }],
  };
  return { json, shards: Object.fromEntries(paths.map((path, i) => [path, shards[i]])) };
}

/**
 * The same model with quantized weights, as tensorflowjs.converters.quantization of the Python
 * converter does: value = q·scale + min, or float16.
 */
function quantized({ json, shards }, kinds) {
  const [{ weights }] = json.weightsManifest;
  const data = Buffer.concat(Object.values(shards));
  const parts = [];
  let at = 0;
  const specs = weights.map((spec, i) => {
    const size = spec.shape.reduce((a, b) => a * b, 1);
    const values = new Float32Array(
      data.buffer.slice(data.byteOffset + at, data.byteOffset + at + 4 * size),
    );
    at += 4 * size;
    const kind = kinds[i % kinds.length];
    if (kind === null) {
      parts.push(Buffer.from(values.buffer));
      return spec;
    }
    if (kind === "float16") {
      parts.push(Buffer.from(Uint16Array.from(values, half).buffer));
      return { ...spec, quantization: { dtype: kind, original_dtype: "float32" } };
    }
    const levels = kind === "uint8" ? 255 : 65535;
    const min = Math.min(...values);
    const scale = (Math.max(...values) - min) / levels || 1;
    const array = kind === "uint8" ? Uint8Array : Uint16Array;
    parts.push(Buffer.from(array.from(values, (v) => Math.round((v - min) / scale)).buffer));
    return { ...spec, quantization: { dtype: kind, min, scale, original_dtype: "float32" } };
  });
  return filesFrom(json, specs, new Uint8Array(Buffer.concat(parts)), 1 << 20);
}

/** A float32 in the normal range of float16, cut to it. */
function half(value) {
  const [bits] = new Uint32Array(Float32Array.of(value).buffer);
  const exponent = ((bits >>> 23) & 255) - 112;
  if (exponent <= 0) return (bits >>> 16) & 0x8000;
  return ((bits >>> 16) & 0x8000) | (exponent << 10) | ((bits >>> 13) & 1023);
}

const load = ({ json, shards }) =>
  tfl.loadLayersModel(
    tf.io.fromMemory({
      modelTopology: json.modelTopology,
      format: json.format,
      weightSpecs: json.weightsManifest.flatMap(({ weights }) => weights),
      weightData: Uint8Array.from(Buffer.concat(Object.values(shards))).buffer,
    }),
  );

/** What each batch norm of a model takes and gives at test time. */
function evaluations(model, name, results = {}) {
  for (const layer of model.layers) {
    if (layer.getClassName() === "Sequential") evaluations(layer, name, results);
    if (layer.getClassName() !== "BatchNormalization") continue;
    const shape = layer.input.shape.map((size) => size ?? 2);
    const normal = normals(shape.length + shape.at(-1));
    const x = Float32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      () => 1 + 2 * normal(),
    );
    const y = tf.tidy(() => layer.apply(tf.tensor(x, shape), { training: false }).dataSync());
    results[layer.name] = { shape, x: encode(x), y: encode(y) };
  }
  return results;
}

/** Convolution and batch norm, a nested model, dense and a batch norm without gamma. */
function network() {
  const nested = tfl.sequential({ name: "head" });
  nested.add(tfl.layers.dense({ units: 5, inputShape: [12], name: "dense" }));
  nested.add(tfl.layers.batchNormalization({ scale: false, momentum: 0.5, name: "bn_head" }));
  const model = tfl.sequential({ name: "network" });
  model.add(tfl.layers.conv2d({ filters: 3, kernelSize: 2, inputShape: [3, 3, 2], name: "conv" }));
  model.add(tfl.layers.batchNormalization({ epsilon: 1e-4, name: "bn_conv" }));
  model.add(tfl.layers.flatten());
  model.add(nested);
  model.add(tfl.layers.batchNormalization({ center: false, name: "bn_last" }));
  return model;
}

const write = (folder, name, content) => {
  writeFileSync(new URL(name, folder), content);
  console.log(`${name}: ${content.length} bytes`);
};

async function make() {
  const model = network();
  settle(model, 40);
  const plain = await filesOf(model, 300);
  const files = {
    keras: plain,
    "keras-quantized": quantized(plain, ["uint8", null, "uint16", "float16"]),
  };
  const found = {};
  for (const [name, each] of Object.entries(files)) {
    const folder = new URL(`${name}/`, OUT);
    mkdirSync(folder, { recursive: true });
    write(folder, "model.json", `${JSON.stringify(each.json)}\n`);
    for (const [path, shard] of Object.entries(each.shards)) write(folder, path, shard);
    found[name] = evaluations(await load(each), name);
  }
  const json = { madeWith: `TensorFlow.js ${tf.version_core}`, evaluations: found };
  write(OUT, "keras.json", `${JSON.stringify(json, null, 1)}\n`);
}

async function check() {
  const expected = JSON.parse(readFileSync(new URL("expected.json", BUILD), "utf8")).keras;
  for (const [name, layers] of Object.entries(expected)) {
    const folder = new URL(`${name}/`, BUILD);
    const json = JSON.parse(readFileSync(new URL("model.json", folder), "utf8"));
    const shards = Object.fromEntries(
      readdirSync(folder)
        .filter((path) => path !== "model.json")
        .sort()
        .map((path) => [path, readFileSync(new URL(path, folder))]),
    );
    const model = await load({ json, shards });
    const norms = Object.fromEntries(
      model.layers
        .flatMap((layer) => [layer, ...(layer.layers ?? [])])
        .filter((layer) => layer.getClassName() === "BatchNormalization")
        .map((layer) => [layer.name, layer]),
    );
    for (const [layer, values] of Object.entries(layers)) {
      const weights = ["gamma", "beta", "runningMean", "runningVariance"]
        .map((key) => values[key])
        .filter((value) => value !== null);
      const actual = norms[layer].getWeights().map((tensor) => [...tensor.dataSync()]);
      const wanted = weights.map((array) => [...Float32Array.from(array)]);
      if (JSON.stringify(actual) !== JSON.stringify(wanted)) {
        throw new Error(
          `${name}, ${layer}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(actual)}`,
        );
      }
      if (norms[layer].epsilon !== values.epsilon) throw new Error(`${name}, ${layer}: epsilon`);
    }
    console.log(
      `${name}: TensorFlow.js ${tf.version_core} loads it, ${Object.keys(layers).length} layers equal`,
    );
  }
}

await (process.argv.includes("--check") ? check() : make());
