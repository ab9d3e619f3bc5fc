// Layers models of TensorFlow.js, as nsfwjs ships them: MobileNet v2 and Inception v3, converted from Keras
// and quantized to 8 bits, and a MobileNet as a graph model. Run by TensorFlow.js on its wasm backend.

import "@tensorflow/tfjs-backend-wasm";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import type { BatchNorm } from "batchnorm-wasm";
import { foldKeras, readKeras, writeKeras } from "batchnorm-wasm/state";
import { check, type Trial } from "./trial.js";

interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly quantization?: { readonly dtype: string; readonly scale: number; readonly min: number };
}
interface ModelJson {
  readonly format?: string;
  readonly modelTopology: object;
  readonly weightsManifest: readonly {
    readonly paths: readonly string[];
    readonly weights: readonly Entry[];
  }[];
}
interface Files {
  readonly model: ModelJson;
  readonly weights: Record<string, Uint8Array>;
}

/** A model of the package: its JSON, and shards as text in base 64, a module each. */
export async function filesOf(name: string): Promise<Files> {
  const folder = new URL(`node_modules/nsfwjs/dist/models/${name}/`, import.meta.url);
  const load = async (path: string) =>
    (await import(new URL(`${path}.min.js`, folder).href)) as { default: unknown };
  const model = (await load("model")).default as ModelJson;
  const weights: Files["weights"] = {};
  for (const path of model.weightsManifest.flatMap(({ paths }) => paths)) {
    weights[path] = new Uint8Array(Buffer.from((await load(path)).default as string, "base64"));
  }
  return { model, weights };
}

/** The float32 numbers of every weight by name: a plain reader, apart from the one that is tried. */
function numbersOf({ model, weights }: Files): Map<string, Float32Array> {
  const numbers = new Map<string, Float32Array>();
  for (const { paths, weights: entries } of model.weightsManifest) {
    const data = Buffer.concat(paths.map((path) => weights[path]!));
    let at = 0;
    for (const { name, shape, quantization } of entries) {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < values.length; i++) {
        values[i] = quantization
          ? data[at + i]! * quantization.scale + quantization.min
          : data.readFloatLE(at + 4 * i);
      }
      at += values.length * (quantization ? 1 : 4);
      numbers.set(name, values);
    }
  }
  return numbers;
}

const quiet = { onWarning: () => {} };

/** The norms that the JSON of a model has: their configs, by name. */
function configsOf({ model }: Files): Map<string, Record<string, unknown>> {
  const { model_config } = model.modelTopology as {
    model_config: { config: { layers: { class_name: string; config: { name: string } }[] } };
  };
  const norms = model_config.config.layers.filter(
    (each) => each.class_name === "BatchNormalization",
  );
  return new Map(norms.map(({ config }) => [config.name, config]));
}

function checkNumbers(name: string, bn: BatchNorm, numbers: Map<string, Float32Array>): void {
  const values = {
    gamma: bn.gamma,
    beta: bn.beta,
    moving_mean: bn.runningMean,
    moving_variance: bn.runningVariance,
  };
  for (const [weight, found] of Object.entries(values)) {
    const expected = numbers.get(`${name}/${weight}`);
    check((expected === undefined) === (found === null), () => `${name}/${weight}`);
    for (const [c, v] of expected?.entries() ?? []) {
      check(v === found![c], () => `${name}/${weight}[${c}]`);
    }
  }
}

async function read(name: string): Promise<string> {
  const files = await filesOf(name);
  const configs = configsOf(files);
  const file = readKeras(files);
  check(String(file.layers) === String([...configs.keys()]), () => `found ${file.layers}`);
  const layers = file.loadAll(quiet);
  const numbers = numbersOf(files);
  for (const [each, bn] of Object.entries(layers)) {
    checkNumbers(each, bn, numbers);
    const { epsilon, momentum, axis } = configs.get(each)!;
    check(bn.epsilon === epsilon && bn.decay === momentum, () => `${each}: epsilon, momentum`);
    // Axis 3, of four, or the last of any number.
    check(bn.layout === (axis === -1 ? "channelsLast" : "NHWC"), () => `${each}: ${bn.layout}`);
  }
  const same = writeKeras(layers, { into: files });
  check(same.model === JSON.stringify(files.model), () => "model.json written back differs");
  for (const [path, bytes] of Object.entries(files.weights)) {
    check(Buffer.from(bytes).equals(same.weights[path]!), () => `${path} written back differs`);
  }
  return `${file.layers.length} batch norms, every number as an independent reader has it`;
}

/** The model that TensorFlow.js makes of files. */
function modelOf({ model, weights }: Files): Promise<tfl.LayersModel> {
  const parts = model.weightsManifest.flatMap(({ paths }) => paths).map((path) => weights[path]!);
  const weightSpecs = model.weightsManifest.flatMap((group) => group.weights);
  return tfl.loadLayersModel(
    tf.io.fromMemory({
      modelTopology: model.modelTopology,
      weightSpecs: weightSpecs as unknown as tf.io.WeightsManifestEntry[],
      weightData: new Uint8Array(Buffer.concat(parts)).buffer,
    }),
  );
}

const pictures = (model: tfl.LayersModel, count: number): tf.Tensor =>
  tf.randomUniform([count, ...(model.inputs[0]!.shape.slice(1) as number[])], 0, 1, "float32", 7);

/** Milliseconds of a prediction by either model, one after the other in turn. */
function times(models: readonly [tfl.LayersModel, tfl.LayersModel], rounds: number): number[][] {
  const x = pictures(models[0], 1);
  const found: number[][] = [[], []];
  for (let round = -2; round < rounds; round++) {
    for (const k of round % 2 ? [0, 1] : [1, 0]) {
      const start = performance.now();
      const y = models[k]!.predict(x) as tf.Tensor;
      y.dataSync();
      const took = performance.now() - start;
      y.dispose();
      if (round >= 0) found[k]!.push(took);
    }
  }
  x.dispose();
  return found;
}

async function fold(name: string, rounds: number): Promise<string> {
  const installed = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(installed)}/`);
  tf.env().set("IS_TEST", true); // without its advice to install tfjs-node
  check(await tf.setBackend("wasm"), () => "the wasm backend does not start");
  const files = await filesOf(name);
  const { model, weights, folded, kept } = foldKeras(files);
  check(kept.length === 0, () => `kept ${JSON.stringify(kept)}`);
  const models = [
    await modelOf(files),
    await modelOf({ model: JSON.parse(model) as ModelJson, weights }),
  ] as const;
  const [before, after] = models.map(({ layers }) => layers.length) as [number, number];
  check(after === before - folded.length, () => `${before} layers before, ${after} after`);
  const x = pictures(models[0], 2);
  const [y, z] = models.map((each) => (each.predict(x) as tf.Tensor).dataSync<"float32">());
  const difference = y!.reduce((most, v, i) => Math.max(most, Math.abs(v - z![i]!)), 0);
  check(difference < 1e-5, () => `predictions differ by ${difference}`);
  const fastest = times(models, rounds).map((found) => Math.min(...found));
  const [first, second] = fastest as [number, number];
  for (const each of models) each.dispose();
  return (
    `${folded.length} batch norms folded, ${before} layers before and ${after} after, predictions ` +
    `within ${difference.toExponential(1)}; ${first.toFixed(1)} and ${second.toFixed(1)} ms at the fastest, ` +
    `${(first / second).toFixed(2)} times as fast`
  );
}

/** The converter has folded every norm of this one, so none is left to read. */
async function graph(name: string): Promise<string> {
  const files = await filesOf(name);
  check(files.model.format === "graph-model", () => `a ${files.model.format}`);
  check(readKeras(files).layers.length === 0, () => "norms in a graph that has none");
  return "a graph model without batch norms";
}

export const KERAS: readonly Trial[] = [
  { name: "keras mobilenet_v2 read", run: () => read("mobilenet_v2") },
  { name: "keras inception_v3 read", run: () => read("inception_v3") },
  { name: "keras mobilenet_v2_mid read", run: () => graph("mobilenet_v2_mid") },
  { name: "keras mobilenet_v2 fold", run: () => fold("mobilenet_v2", 21) },
  { name: "keras inception_v3 fold", run: () => fold("inception_v3", 5) },
];
