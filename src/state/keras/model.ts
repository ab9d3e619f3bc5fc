// Reads the model.json of a Keras model as TensorFlow.js keeps it. It has the layers with their options,
// and says which weights lie in which file (https://www.tensorflow.org/js/guide/save_load).

import { checkKeys, describe, OptionError, StateError } from "../../errors.js";
import { type Bytes, describeFile, isBytes, isObject } from "../bytes.js";
import { checkFormat, jsonIn, jsonTextOf } from "../format.js";
import { timesOf } from "../keys.js";
import { graphOf, isGraph } from "./graph.js";
import { Numbered } from "./numbered.js";
import { type Group, groupOf, type Weight } from "./shards.js";
import { fullName, type Json, type KerasLayer, layersOf } from "./topology.js";

/** The files of a TensorFlow.js model. */
export interface KerasFiles {
  /** `model.json`, as parsed JSON, as text, or as bytes. */
  model: object | string | Bytes;
  /** The weight files by the paths that `model.json` lists, `"group1-shard1of1.bin"` for instance. */
  weights: Readonly<Record<string, Bytes>>;
}

export interface Model {
  readonly json: Json;
  /** The text of model.json, `null` if the caller passed it parsed. */
  readonly text: string | null;
  readonly groups: readonly Group[];
  readonly weights: ReadonlyMap<string, Weight>;
  /**
   * The full names of weights by the last two parts of these, layer and weight. `null` where several weights
   * share the last two parts.
   */
  readonly byEnd: ReadonlyMap<string, string | null>;
  readonly layers: ReadonlyMap<string, KerasLayer>;
  /**
   * For each name, how many layers may have their weights under it. A layer's weights may be under the
   * layer's own name or under that of a wrapper around it.
   */
  readonly owners: ReadonlyMap<string, number>;
  /** For a graph model, the names of constants that only one operation uses. `null` for a layers model. */
  readonly own: ReadonlySet<string> | null;
}

/**
 * Reads the files of a model, without decoding any weights.
 *
 * @param name what the caller calls `files`, for messages.
 */
export function parse(name: string, files: unknown): Model {
  const expected = "{ model, weights }, the files of TensorFlow.js";
  if (typeof files !== "object" || files === null || !("model" in files)) {
    if (isBytes(Object(files))) checkFormat(name, files, expected, []);
    throw new OptionError(name, expected, describeFile(files));
  }
  // The result of foldKeras can be passed as files too.
  checkKeys(name, files, ["model", "weights", "folded", "kept"]);
  const { model, weights } = files as KerasFiles;
  const text = jsonTextOf("model", model, "model.json of TensorFlow.js");
  const json = text === null ? model : jsonIn("model", text);
  if (!isObject(json) || !isObject(json.modelTopology) || !Array.isArray(json.weightsManifest)) {
    throw new StateError(
      "model",
      "model.json of TensorFlow.js, with modelTopology and weightsManifest",
      isObject(json) ? "JSON without" : describe(json),
    );
  }
  const { format, modelTopology: topology } = json;
  // Old files have no `format`.
  const graph = isGraph(topology) && (format === undefined || format === "graph-model");
  if (!graph && format !== undefined && format !== "layers-model") {
    throw new StateError(
      "model.format",
      '"layers-model", or "graph-model" with nodes',
      describe(format),
    );
  }
  if (describe(weights) !== "an Object") {
    throw new OptionError("weights", "weight files by path", describeFile(weights));
  }
  const found = new Map<string, Weight>();
  const groups = json.weightsManifest.map((group: unknown, i) =>
    groupOf(`weightsManifest[${i}]`, group, weights, found),
  );
  const byEnd = new Map<string, string | null>();
  for (const key of found.keys()) {
    const end = key.split("/").slice(-2).join("/");
    byEnd.set(end, byEnd.has(end) ? null : key);
  }
  const operations = graph ? graphOf(topology) : null;
  const layers = operations?.layers ?? layersOf(topology);
  const owners = timesOf(
    [...layers.values()].flatMap((layer) => [...new Set([layer.leaf, ...wrappersOf(layer)])]),
  );
  const own = operations?.own ?? null;
  const read = { json, text, groups, weights: found, byEnd, layers, owners, own };
  return graph ? read : { ...read, layers: new Map([...layers, ...unlistedIn(read)]) };
}

/**
 * The batch norms whose weights belong to no layer that a layers model lists: those inside of custom layers, and those
 * of subclasses. They have the names that their weights have in common, and a number where several norms share these.
 */
function unlistedIn(model: Model): Map<string, KerasLayer> {
  const { layers, weights } = model;
  const listed = new Set(
    Array.from(layers.values(), (layer) => weightOfLayer(model, layer, "moving_mean")),
  );
  const numbered = new Numbered(weights.keys());
  const unlisted = new Map<string, KerasLayer>();
  for (const [key, mean] of weights) {
    const prefix = key.replace(/(^|\/)moving_mean(_\d+)?$/, "$1");
    if (prefix === key || listed.has(mean) || !numbered.has(`${prefix}moving_variance`)) continue;
    let leaf = (prefix + numbered.numberOf(key)).replace(/\/$/, "");
    while (layers.has(leaf) || unlisted.has(leaf)) leaf += "/";
    const config = {
      name: leaf,
      scale: numbered.has(`${prefix}gamma`),
      center: numbered.has(`${prefix}beta`),
    };
    const constant = (weight: string) => numbered.beside(key, prefix + weight) ?? undefined;
    const place = { leaf, inside: [], wrappers: 0 };
    unlisted.set(leaf, { item: config, config, ...place, unlisted: true, constant });
  }
  return unlisted;
}

/** Finds a weight of the layer or operation of this name. */
export function weightOf(model: Model, name: string, weight: string): Weight {
  const layer = model.layers.get(name)!;
  if (layer.constant !== undefined) return constantOf(model, name, layer.constant(weight));
  const found = weightOfLayer(model, layer, weight);
  if (typeof found === "object") return found;
  const [owner = layer.leaf] = wrappersOf(layer);
  throw new StateError("weightsManifest", `"${owner}/${weight}" for layer "${name}"`, found);
}

/** The names of the wrappers around a layer, from outside: those that stand in one another, without a model between. */
const wrappersOf = ({ inside, wrappers }: KerasLayer): readonly string[] =>
  inside.slice(inside.length - wrappers);

/**
 * Finds a weight of a layer that the topology lists. The weight is named after the layer, with or without the names
 * of the models around it. If the layer is in a wrapper, the weight may be named after the wrapper instead, and if that
 * is in another wrapper, after the outer one.
 */
function weightOfLayer(
  model: Model,
  layer: KerasLayer,
  weight: string,
): ReturnType<typeof findWeight> {
  const { leaf, inside, wrappers } = layer;
  const [full, loose] = [[fullName(layer)], [leaf, ...wrappersOf(layer)]];
  if (wrappers > 0) {
    // The innermost wrapper, and the outermost one.
    full.push(inside.join("/"), inside.slice(0, inside.length - wrappers + 1).join("/"));
  }
  // If several layers share a name, a weight under that short name may be another layer's.
  const alone = loose.filter((owner) => model.owners.get(owner) === 1);
  return findWeight(model, full, alone, weight);
}

/**
 * Finds a weight that is under one of the names `full` or `loose`, or whose name ends with one of the names
 * `loose`. Without exactly one such weight, returns whether there are none or several.
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

/** Finds the weight that is a constant of an operation. */
function constantOf({ weights }: Model, name: string, constant: string | undefined): Weight {
  const found = constant === undefined ? undefined : weights.get(constant);
  if (found !== undefined) return found;
  throw new StateError(
    `operation "${name}"`,
    "parameters that are constants",
    constant === undefined ? "none" : `"${constant}", which is worked out`,
  );
}
