// model.json of a Keras model as TensorFlow.js keeps it: the layers with their options, and which weights
// lie where (https://www.tensorflow.org/js/guide/save_load).

import { checkKeys, describe, OptionError, StateError } from "../../errors.js";
import { type Bytes, bytesOf, isObject, jsonOf, textOf } from "../bytes.js";
import { checkFormat } from "../format.js";
import { graphOf, isGraph } from "./graph.js";
import { type Group, groupOf, type Weight } from "./shards.js";
import { fullName, type Json, type KerasLayer, layersOf } from "./topology.js";

/** The files of a model of TensorFlow.js. */
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
  readonly layers: ReadonlyMap<string, KerasLayer>;
  /** How many layers' weights may go by a name: the layer's own, or that of the wrapper around it. */
  readonly owners: ReadonlyMap<string, number>;
  /** Of a graph: the names of constants that are those of one operation alone. `null` of layers. */
  readonly own: ReadonlySet<string> | null;
}

export function parse(name: string, files: unknown): Model {
  if (typeof files !== "object" || files === null || !("model" in files)) {
    const got = typeof files === "string" ? "text" : describe(files);
    throw new OptionError(`${name}: expected { model, weights }, the files by path, got ${got}`);
  }
  // What foldKeras gives are files too.
  checkKeys(name, files, ["model", "weights", "folded", "kept"]);
  const { model, weights } = files as KerasFiles;
  let text: string | null = null;
  if (typeof model === "string") text = model;
  else if (!isObject(model) || isBytes(model)) {
    const bytes = bytesOf("model", model);
    checkFormat(bytes, "model.json of TensorFlow.js", ["json"], "model");
    text = textOf("model", bytes);
  }
  const json = text === null ? model : jsonOf("model", text);
  if (!isObject(json) || !isObject(json.modelTopology) || !Array.isArray(json.weightsManifest)) {
    throw new StateError(
      "model: expected model.json of TensorFlow.js, with modelTopology and weightsManifest, got " +
        `${isObject(json) ? "JSON without" : describe(json)}`,
    );
  }
  const { format, modelTopology: topology } = json;
  // Old files do not say what they are.
  const graph = isGraph(topology) && (format === undefined || format === "graph-model");
  if (!graph && format !== undefined && format !== "layers-model") {
    throw new StateError(
      `model.format: expected "layers-model", or "graph-model" with nodes, got ${describe(format)}`,
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
  const operations = graph ? graphOf(topology) : null;
  const layers = operations?.layers ?? layersOf(topology);
  const owners = new Map<string, number>();
  for (const { leaf, inside, wrapped } of layers.values()) {
    for (const owner of wrapped ? new Set([leaf, inside.at(-1)!]) : [leaf]) {
      owners.set(owner, (owners.get(owner) ?? 0) + 1);
    }
  }
  const own = operations?.own ?? null;
  return { json, text, groups, weights: found, byEnd, layers, owners, own };
}

const isBytes = (value: object): boolean => ArrayBuffer.isView(value) || "byteLength" in value;

/**
 * The entry of a weight of a layer. Weights go by the name of their layer, with or without those of
 * the models around it; those of a layer in a wrapper by the name of the wrapper.
 */
export function weightOf(model: Model, name: string, weight: string): Weight {
  const layer = model.layers.get(name)!;
  if (layer.constants !== undefined) return constantOf(model, name, layer.constants[weight]);
  const full = fullName(layer);
  const wrapper = layer.wrapped ? layer.inside.at(-1)! : null;
  // Where another layer has a name too, what is not under its full name may be the other's.
  const loose = [layer.leaf, ...(wrapper === null ? [] : [wrapper])];
  const alone = loose.filter((owner) => model.owners.get(owner) === 1);
  const found = findWeight(
    model,
    wrapper === null ? [full] : [full, layer.inside.join("/")],
    alone,
    weight,
  );
  if (typeof found === "object") return found;
  throw new StateError(
    `weightsManifest: expected "${wrapper ?? layer.leaf}/${weight}" for layer "${name}", got ${found}`,
  );
}

/**
 * The entry of a weight that is under one of the names `full`, or whose name ends with one of the
 * names `loose`; else how many there are.
 */
export function findWeight(
  { weights, byEnd }: Model,
  full: readonly string[],
  loose: readonly string[],
  weight: string,
): Weight | "none" | "several" {
  for (const owner of [...full, ...loose]) {
    const found = weights.get(`${owner}/${weight}`);
    if (found !== undefined) return found;
  }
  let got: "none" | "several" = "none";
  for (const owner of loose) {
    const end = byEnd.get(`${owner}/${weight}`);
    if (typeof end === "string") return weights.get(end)!;
    if (end === null) got = "several";
  }
  return got;
}

/** The entry of a constant of an operation. */
function constantOf({ weights }: Model, name: string, constant: string | undefined): Weight {
  const found = constant === undefined ? undefined : weights.get(constant);
  if (found !== undefined) return found;
  throw new StateError(
    `operation "${name}": expected parameters that are constants, got ${
      constant === undefined ? "none" : `"${constant}", which is worked out`
    }`,
  );
}
