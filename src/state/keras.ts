// Keras models as TensorFlow.js keeps them: model.json, which holds the layers' options and says which
// weights lie where, and shards, which hold their bytes one after another
// (https://www.tensorflow.org/js/guide/save_load, tfjs-core/src/io/types.ts).

import type { Kernels } from "../engine/kernels.js";
import { checkKeys, describe, OptionError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { type KerasOptions, kerasOptions } from "../layer/frameworks.js";
import { NO_OPTIONS } from "../values/check.js";
import { CHANNELS_FIRST, CHANNELS_LAST, type Layout, ofRank } from "../values/layout.js";
import {
  type Bytes,
  bytesOf,
  decode,
  encode,
  FLOATS,
  type FloatFormat,
  holds,
  isCount,
  isObject,
  jsonOf,
  textOf,
  viewOfBytes,
} from "./bytes.js";
import {
  checkName,
  constant,
  entriesOf,
  fileOf,
  fromFile,
  layerOf,
  momentumOf,
  NO_COUNTER,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "./layers.js";

/** The files of a layers model. */
export interface KerasFiles {
  /** `model.json`: parsed, its text, or its bytes. */
  model: object | string | Bytes;
  /** The weight files by the paths that `model.json` has for them, `"group1-shard1of1.bin"` for instance. */
  weights: Readonly<Record<string, Bytes>>;
}

/** Options of `load` and `loadAll` of {@link readKeras}; epsilon, scale and center are in the file. */
export interface KerasLoadOptions {
  /** Weight of the OLD value. Default: that in the file. */
  momentum?: number;
  /**
   * Default: what the layer's axis and input shape say; where a file has no shape and the axis is the
   * last, `"NC"`, that is rows of channels. Needed for axis 1 without a shape.
   */
  layout?: Layout;
  /** Takes what one should know about the layer. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

const LOAD_KEYS = ["momentum", "layout", "onWarning", "kernels"];

/** Options of {@link writeKeras}. */
export interface KerasWriteOptions {
  /** The files of a model to write the layers into: all that is not theirs stays as it is. */
  into?: KerasFiles;
  /** For layers whose decay is `"cumulative"`, which Keras has not: the momentum to write. */
  momentum?: number;
}

type Json = Record<string, unknown>;

/** A weight: its entry in model.json and where its bytes are in those of its group. */
interface Weight {
  readonly entry: Json;
  readonly group: number;
  readonly begin: number;
  readonly end: number;
}

/** The shards of a group of weights, in order. */
interface Group {
  readonly paths: readonly string[];
  readonly shards: readonly Uint8Array[];
  readonly weights: readonly string[];
}

interface Model {
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

/** Bytes a value of each type that weights are kept in. */
const SIZES: Readonly<Record<string, number>> = {
  float32: 4,
  float16: 2,
  int32: 4,
  uint16: 2,
  uint8: 1,
  bool: 1,
  complex64: 8,
};

const BATCH_NORM = /^(Sync)?BatchNormalization(V[12])?$/;

/**
 * The batch-norm layers of a Keras model in the TensorFlow.js layers format, as `model.save` of
 * TensorFlow.js writes and the converter of Keras models makes it, quantized weights included. Layers
 * go by their Keras names, with the names of the models they are nested in where several have the
 * same. Epsilon, momentum, scale and center come from the layer's config.
 *
 * The file has no counter: `batchesSeen` is 1, and `ageKnown` false.
 *
 * @param files `model.json` and its weight files; bytes are not copied, so leave them unchanged until
 * the layers are loaded.
 * @throws ShapeError for what is no bytes; StateError for files that are truncated, malformed,
 * missing, or a graph model, whose batch norms are no layers any more.
 *
 * @example
 * const model = await (await fetch("model.json")).json();
 * const shard = await (await fetch("group1-shard1of1.bin")).arrayBuffer();
 * const file = readKeras({ model, weights: { "group1-shard1of1.bin": shard } });
 * const bn = file.load("batch_normalization");
 */
export function readKeras(files: KerasFiles): StateFile<KerasLoadOptions> {
  const model = parse("files", files);
  return fileOf([...model.layers.keys()], (name, options: KerasLoadOptions) => {
    checkKeys("options", options, LOAD_KEYS);
    const { onWarning, ...given } = options;
    const warn = warningsTo(onWarning);
    const { kernels } = kerasOptions(given);
    const { config, item } = model.layers.get(name)!;
    const layout = options.layout ?? layoutOf(name, item, config);
    const settings = fromFile(`layer "${name}"`, () => {
      const { epsilon, momentum, scale, center } = config as KerasOptions;
      const own = { epsilon, momentum: options.momentum ?? momentum, scale, center, layout };
      return kerasOptions(own as KerasOptions);
    });
    const of = (weight: string): Float64Array => valuesOf(model, name, weight);
    const runningMean = of("moving_mean");
    const state = {
      gamma: settings.gamma ? of("gamma") : null,
      beta: settings.beta ? of("beta") : null,
      runningMean,
      runningVariance: of("moving_variance"),
      ...NO_COUNTER,
    };
    for (const [weight, values] of Object.entries(state)) {
      if (values instanceof Float64Array && values.length !== runningMean.length) {
        throw new StateError(
          `layer "${name}": expected ${runningMean.length} values of ${weight}, as of the mean, got ${values.length}`,
        );
      }
    }
    if (config.renorm === true) {
      warn(`layer "${name}": has renorm, without which it trains here`);
    }
    return layerOf(kernels ? { ...settings, kernels } : settings, state);
  });
}

/** The layout that an axis and a shape say. */
function layoutOf(name: string, item: Json, config: Json): Layout {
  const { axis = -1 } = config;
  const channels = Array.isArray(axis) && axis.length === 1 ? axis[0] : axis;
  const built = isObject(item.build_config) ? item.build_config.input_shape : undefined;
  const shape = config.batch_input_shape ?? config.batch_shape ?? built;
  const rank = Array.isArray(shape) ? shape.length : null;
  let layout: Layout | undefined;
  if (rank === null) {
    // The last axis of any rank, as rows; a positive one after the first is taken for the last.
    if (channels === -1) layout = "NC";
    else if (isCount(channels) && channels > 1) layout = ofRank(CHANNELS_LAST, channels + 1);
  } else if (channels === -1 || channels === rank - 1) layout = ofRank(CHANNELS_LAST, rank);
  else if (channels === 1 || channels === 1 - rank) layout = ofRank(CHANNELS_FIRST, rank);
  if (layout === undefined) {
    throw new OptionError(
      `layout: expected for layer "${name}", whose axis ${JSON.stringify(axis)?.slice(0, 40)} ` +
        `${rank === null ? "without an input shape" : `of ${rank}`} is that of no one layout, got none`,
    );
  }
  return layout;
}

/** The entry of a weight of a layer. */
function weightOf({ weights, byEnd, layers }: Model, name: string, weight: string): Weight {
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

/** The values of a weight [channels], as TensorFlow.js decodes them. */
function valuesOf(model: Model, name: string, weight: string): Float64Array {
  const found = weightOf(model, name, weight);
  const { dtype, quantization: q, shape } = found.entry;
  if (!Array.isArray(shape) || shape.length !== 1 || shape[0] === 0) {
    throw new StateError(
      `${found.entry.name}: expected a shape of one axis, at least one channel, got ${describe(shape)}`,
    );
  }
  const data = bytesBetween(model.groups[found.group]!, found.begin, found.end);
  const format = formatOf(found.entry);
  if (format !== null) return decode(format, data);
  const { scale, min, dtype: packed } = isObject(q) ? q : {};
  const size = packed === "uint8" ? 1 : packed === "uint16" ? 2 : null;
  if (
    dtype !== "float32" ||
    size === null ||
    typeof scale !== "number" ||
    typeof min !== "number"
  ) {
    throw new StateError(
      `${found.entry.name}: expected float32, or uint8 or uint16 with a scale and a min, got ` +
        describe(packed ?? dtype),
    );
  }
  const view = viewOfBytes(data);
  // In float32, as TensorFlow.js stores the product and the sum.
  return Float64Array.from({ length: data.length / size }, (_, i) =>
    Math.fround((size === 1 ? view.getUint8(i) : view.getUint16(2 * i, true)) * scale + min),
  );
}

/** The floating-point format of a weight, `null` if it has none. */
function formatOf({ dtype, quantization: q }: Json): FloatFormat | null {
  const packed = isObject(q) ? q.dtype : dtype;
  if (dtype !== "float32" && dtype !== "float16") return null;
  return packed === "float32" ? FLOATS.F32! : packed === "float16" ? FLOATS.F16! : null;
}

/** Bytes of a group, across shards. */
function bytesBetween({ shards }: Group, begin: number, end: number): Uint8Array {
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const shard of shards) {
    if (begin < at + shard.length && end > at) {
      parts.push(shard.subarray(Math.max(0, begin - at), Math.min(shard.length, end - at)));
    }
    at += shard.length;
  }
  return parts.length === 1 ? parts[0]! : spread(parts, [end - begin])[0]!;
}

/** Parts one after another, cut into arrays of these lengths; the last takes the rest. */
function spread(parts: readonly Uint8Array[], lengths: readonly number[]): Uint8Array[] {
  const all = parts.reduce((sum, { length }) => sum + length, 0);
  const before = lengths.slice(0, -1).reduce((sum, length) => sum + length, 0);
  const cut = [...lengths.slice(0, -1), Math.max(0, all - before)];
  const arrays = cut.map((length) => new Uint8Array(length));
  let [into, at] = [0, 0];
  for (let part of parts) {
    while (part.length > 0) {
      const room = arrays[into]!.length - at;
      arrays[into]!.set(part.subarray(0, room), at);
      at += Math.min(room, part.length);
      part = part.subarray(room);
      if (part.length > 0) [into, at] = [into + 1, 0];
    }
  }
  return arrays;
}

function parse(name: string, files: unknown): Model {
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

/** A group, its weights laid out over its shards and added to `found`. */
function groupOf(
  name: string,
  value: unknown,
  files: Readonly<Record<string, Bytes>>,
  group: number,
  found: Map<string, Weight>,
): Group {
  const { paths, weights } = isObject(value) ? value : {};
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === "string")) {
    throw new StateError(`${name}.paths: expected an array of texts, got ${describe(paths)}`);
  }
  if (!Array.isArray(weights)) {
    throw new StateError(`${name}.weights: expected an array, got ${describe(weights)}`);
  }
  const shards = paths.map((path: string) => {
    if (!Object.hasOwn(files, path)) {
      throw new StateError(`weights: expected the file "${path}", as model.json says, got none`);
    }
    return bytesOf(`weights["${path}"]`, files[path]);
  });
  const length = shards.reduce((sum, shard) => sum + shard.length, 0);
  const names: string[] = [];
  let begin = 0;
  for (const entry of weights as unknown[]) {
    if (!isObject(entry) || typeof entry.name !== "string" || found.has(entry.name)) {
      throw new StateError(
        `${name}.weights: expected entries of different names, got ${describe(entry)}`,
      );
    }
    const end = begin + sizeOf(entry, shards, begin);
    if (end > length) {
      throw new StateError(
        `${entry.name}: expected bytes up to ${end}, got files of ${length} bytes in ${name}`,
      );
    }
    found.set(entry.name, { entry, group, begin, end });
    names.push(entry.name);
    begin = end;
  }
  if (begin !== length) {
    throw new StateError(`${name}: expected files of ${begin} bytes in all, got ${length}`);
  }
  return { paths, shards, weights: names };
}

/** Bytes that a weight takes. */
function sizeOf(entry: Json, shards: readonly Uint8Array[], begin: number): number {
  const { name, shape, dtype, quantization: q } = entry;
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw new StateError(`${name}.shape: expected whole numbers, got ${describe(shape)}`);
  }
  const values = shape.reduce((product, n) => product * n, 1);
  const type = isObject(q) ? q.dtype : dtype;
  if (typeof type === "string" && Object.hasOwn(SIZES, type)) return values * SIZES[type]!;
  if (type !== "string") {
    throw new StateError(`${name}.dtype: expected a type of TensorFlow.js, got ${describe(type)}`);
  }
  // Each text: its length in four bytes, and its bytes. Past the end there is nothing to read.
  const group = { paths: [], shards, weights: [] };
  let at = begin;
  for (let i = 0; i < values; i++) {
    const length = bytesBetween(group, at, at + 4);
    if (length.length < 4) return Infinity;
    at += 4 + viewOfBytes(length).getUint32(0, true);
  }
  return at - begin;
}

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

/**
 * A Keras model in the TensorFlow.js layers format, for `tf.loadLayersModel`: with `into`, that model
 * with new values of these layers; else a model of these layers alone, each with an input and an
 * output of its own. `moving_variance` is an average of the variance that `runningVarianceOf` names;
 * Keras' own is `"population"`, and at test time the same for either. `debias` and the counter have no
 * place in Keras.
 *
 * Written `into` a model, weights keep their type, float32 or float16; those quantized to integers
 * become float32, unless the layer has their values still. A parameter that is left out is written as ones or zeros where the file has it.
 *
 * @param layers by the names of the Keras layers, as `readKeras` lists them.
 * @returns `model.json` as text and the weight files, fit for {@link readKeras}.
 * @throws OptionError for what is no layer, a name that the model `into` has not, or a decay
 * `"cumulative"` without `momentum`; ShapeError for an `into` that is no bytes;
 * StateError where the model `into` is malformed or has another
 * epsilon, other channels or no place for a parameter.
 *
 * @example
 * const { model, weights } = writeKeras({ batch_normalization: bn }, { into: original });
 */
export function writeKeras(
  layers: Readonly<Record<string, BatchNorm>>,
  options: KerasWriteOptions = NO_OPTIONS,
): {
  /** `model.json`, its text. */
  model: string;
  /** The weight files, by the paths that `model.json` has for them. */
  weights: Record<string, Uint8Array>;
} {
  checkKeys("options", options, ["into", "momentum"]);
  kerasOptions(options.momentum === undefined ? {} : { momentum: options.momentum });
  const entries = entriesOf(layers);
  if (options.into !== undefined) return writeInto(parse("into", options.into), entries);
  return writeInto(parse("files", emptyModel(entries, options.momentum)), entries);
}

function writeInto(
  model: Model,
  entries: readonly [string, BatchNorm][],
): ReturnType<typeof writeKeras> {
  const data = new Map<string, Uint8Array>();
  const changed = new Map<unknown, Json>();
  const names = [...model.layers.keys()];
  for (const [name, layer] of entries) {
    checkName(names, name);
    const { config } = model.layers.get(name)!;
    const settings = fromFile(`layer "${name}"`, () => {
      const { epsilon, scale, center } = config as KerasOptions;
      return kerasOptions({ epsilon, scale, center } as KerasOptions);
    });
    if (settings.epsilon !== layer.epsilon) {
      throw new StateError(
        `layer "${name}": expected the epsilon of the model, ${settings.epsilon}, got ${layer.epsilon}`,
      );
    }
    const put = (weight: string, values: ArrayLike<number>): void => {
      const { entry } = weightOf(model, name, weight);
      const before = valuesOf(model, name, weight);
      if (holds(values, before)) return;
      if (before.length !== values.length) {
        throw new StateError(
          `${entry.name}: expected ${before.length} values, got ${values.length}`,
        );
      }
      const key = entry.name as string;
      const format = formatOf(entry);
      data.set(key, encode(key, format ?? FLOATS.F32!, values));
      if (format === null) {
        const { quantization: _integers, ...plain } = entry;
        changed.set(entry, plain);
      }
    };
    for (const [parameter, value] of [
      ["gamma", 1],
      ["beta", 0],
    ] as const) {
      if (settings[parameter]) put(parameter, layer[parameter] ?? constant(layer.channels, value));
      else if (layer[parameter] !== null) {
        throw new StateError(
          `layer "${name}": expected no ${parameter}, since the model leaves it out, got values`,
        );
      }
    }
    put("moving_mean", layer.runningMean);
    put("moving_variance", layer.runningVariance);
  }
  const written: [string, Uint8Array][] = [];
  for (const group of model.groups) {
    const parts = group.weights.map((key) => {
      const { begin, end } = model.weights.get(key)!;
      return data.get(key) ?? bytesBetween(group, begin, end);
    });
    const files = spread(
      parts,
      group.shards.map(({ length }) => length),
    );
    for (const [i, path] of group.paths.entries()) written.push([path, files[i]!]);
  }
  const weights = Object.fromEntries(written);
  if (changed.size === 0) return { model: model.text ?? textOfJson(model.json), weights };
  const weightsManifest = (model.json.weightsManifest as Json[]).map((group) => ({
    ...group,
    weights: (group.weights as unknown[]).map((entry) => changed.get(entry) ?? entry),
  }));
  return { model: textOfJson({ ...model.json, weightsManifest }), weights };
}

function textOfJson(json: Json): string {
  try {
    return JSON.stringify(json);
  } catch (error) {
    throw new StateError(
      `model: expected what JSON can say, got an object of which: ${(error as Error).message}`,
    );
  }
}

/** A model of these layers, each between an input and an output of its own, all weights zero. */
function emptyModel(
  entries: readonly [string, BatchNorm][],
  momentum: number | undefined,
): KerasFiles {
  const layers: object[] = [];
  const weights: object[] = [];
  let size = 0;
  for (const [name, layer] of entries) {
    const { channels, layout, epsilon } = layer;
    if (name === "") throw new OptionError('layers: expected names for Keras, got ""');
    const scale = layer.gamma !== null;
    const center = layer.beta !== null;
    const shape = [...layout].map((axis) => (axis === "C" ? channels : null));
    const input = `${name}_input`;
    layers.push(
      {
        class_name: "InputLayer",
        name: input,
        config: { batch_input_shape: shape, dtype: "float32", sparse: false, name: input },
        inbound_nodes: [],
      },
      {
        class_name: "BatchNormalization",
        name,
        config: {
          name,
          trainable: true,
          batch_input_shape: shape,
          dtype: "float32",
          axis: layout.endsWith("C") ? -1 : 1,
          momentum: momentumOf("Keras", name, layer, momentum),
          epsilon,
          center,
          scale,
        },
        inbound_nodes: [[[input, 0, 0, {}]]],
      },
    );
    for (const weight of [scale && "gamma", center && "beta", "moving_mean", "moving_variance"]) {
      if (weight === false) continue;
      weights.push({ name: `${name}/${weight}`, shape: [channels], dtype: "float32" });
      size += 4 * channels;
    }
  }
  const ends = (suffix: string): unknown[] => entries.map(([name]) => [name + suffix, 0, 0]);
  const path = "group1-shard1of1.bin";
  return {
    model: {
      format: "layers-model",
      generatedBy: "batchnorm-wasm",
      convertedBy: null,
      modelTopology: {
        class_name: "Model",
        config: { name: "model", layers, input_layers: ends("_input"), output_layers: ends("") },
        backend: "tensor_flow.js",
      },
      weightsManifest: [{ paths: [path], weights }],
    },
    weights: { [path]: new Uint8Array(size) },
  };
}
