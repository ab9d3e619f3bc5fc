// model.json of a Keras model as TensorFlow.js keeps it: the layers with their options, and which weights
// lie where (https://www.tensorflow.org/js/guide/save_load).

import { checkKeys, describe, OptionError, StateError } from "../errors.js";
import { type Bytes, bytesOf, isObject, jsonOf, textOf } from "./bytes.js";
import { type Group, groupOf, type Json, type Weight } from "./keras-shards.js";

/** The files of a layers model. */
export interface KerasFiles {
  /** `model.json`: parsed, its text, or its bytes. */
  model: object | string | Bytes;
  /** The weight files by the paths that `model.json` has for them, `"group1-shard1of1.bin"` for instance. */
  weights: Readonly<Record<string, Bytes>>;
}

export interface Model {
  readonly json: Json;
  /** The text of model.json, `null` where it came parsed. */
  readonly text: string | null;
  readonly groups: readonly Group[];
  readonly weights: ReadonlyMap<string, Weight>;
  /** Weights by the last two parts of their names, layer and weight; `null` where several have the same. */
  readonly byEnd: ReadonlyMap<string, string | null>;
  /** The layers: their items in model.json and the models that they are nested in. */
  readonly layers: ReadonlyMap<string, { item: Json; config: Json; path: string; leaf: string }>;
}

const BATCH_NORM = /^(Sync)?BatchNormalization(V[12])?$/;

export function parse(name: string, files: unknown): Model {
  if (typeof files !== "object" || files === null || !("model" in files)) {
    const got = typeof files === "string" ? "text" : describe(files);
    throw new OptionError(`${name}: expected { model, weights }, the files by path, got ${got}`);
  }
  checkKeys(name, files, ["model", "weights"]);
  const { model, weights } = files as KerasFiles;
  let text: string | null = null;
  if (typeof model === "string") text = model;
  else if (!isObject(model) || isBytes(model)) text = textOf("model", bytesOf("model", model));
  const json = text === null ? model : jsonOf("model", text);
  if (!isObject(json) || !isObject(json.modelTopology) || !Array.isArray(json.weightsManifest)) {
    throw new StateError(
      "model: expected model.json of a layers model, with modelTopology and weightsManifest, got " +
        `${isObject(json) ? "JSON without" : describe(json)}`,
    );
  }
  if (json.format !== undefined && json.format !== "layers-model") {
    throw new StateError(
      `model.format: expected "layers-model", got ${describe(json.format)}; in a graph model batch ` +
        "norms are operations, often folded into others: convert the Keras model to tfjs_layers_model",
    );
  }
  if (typeof weights !== "object" || weights === null) {
    throw new OptionError(`weights: expected weight files by path, got ${describe(weights)}`);
  }
  const found = new Map<string, Weight>();
  const groups = json.weightsManifest.map((group: unknown, i) =>
    groupOf(`weightsManifest[${i}]`, group, weights, i, found),
  );
  const byEnd = new Map<string, string | null>();
  for (const key of found.keys()) {
    const end = key.split("/").slice(-2).join("/");
    byEnd.set(end, byEnd.has(end) ? null : key);
  }
  const layers = layersOf(json.modelTopology);
  return { json, text, groups, weights: found, byEnd, layers };
}

const isBytes = (value: object): boolean => ArrayBuffer.isView(value) || "byteLength" in value;

/** The batch-norm layers of a topology by name, wherever they are nested. */
function layersOf(topology: Json): Model["layers"] {
  const found: { item: Json; config: Json; path: string; leaf: string }[] = [];
  // A stack of our own: files may nest deeper than calls do.
  const left: { value: unknown; path: string; top: boolean }[] = [
    { value: topology, path: "", top: true },
  ];
  while (left.length > 0) {
    const { value, path, top } = left.pop()!;
    if (typeof value !== "object" || value === null) continue;
    const { class_name: kind, config } = value as Json;
    let inside = path;
    let below = top;
    if (isObject(config)) {
      if (typeof kind === "string" && BATCH_NORM.test(kind) && typeof config.name === "string") {
        found.push({ item: value as Json, config, path, leaf: config.name });
        continue;
      }
      if (Array.isArray(config.layers)) {
        if (!top && typeof config.name === "string") inside = `${path}${config.name}/`;
        below = false;
      }
    }
    const values = Object.values(value).filter((each) => typeof each === "object");
    for (let i = values.length - 1; i >= 0; i--) {
      left.push({ value: values[i], path: inside, top: below });
    }
  }
  const count = new Map<string, number>();
  for (const { leaf } of found) count.set(leaf, (count.get(leaf) ?? 0) + 1);
  const layers = new Map<string, (typeof found)[number]>();
  for (const layer of found) {
    const name = count.get(layer.leaf) === 1 ? layer.leaf : layer.path + layer.leaf;
    if (layers.has(name)) {
      throw new StateError(
        `modelTopology: expected layers of different names, got "${name}" twice`,
      );
    }
    layers.set(name, layer);
  }
  return layers;
}

/** The entry of a weight of a layer. */
export function weightOf({ weights, byEnd, layers }: Model, name: string, weight: string): Weight {
  const { path, leaf } = layers.get(name)!;
  const [full, own] = [`${path}${leaf}/${weight}`, `${leaf}/${weight}`];
  // Where other layers have its name too, what is not under its full name may be theirs.
  const loose = name === leaf ? (weights.has(own) ? own : byEnd.get(own)) : undefined;
  const found = weights.has(full) ? full : loose;
  if (found === undefined || found === null) {
    throw new StateError(
      `weightsManifest: expected "${leaf}/${weight}" for layer "${name}", got ${found === null ? "several" : "none"}`,
    );
  }
  return weights.get(found)!;
}
