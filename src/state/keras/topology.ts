// Finds the batch-norm layers in the JSON of a Keras model, which has a config for each layer. It is the
// same JSON in config.json of a `.keras` file, in the attribute model_config of an `.h5` file, and in
// model.json of TensorFlow.js (keras/src/saving/serialization_lib.py, keras/src/models/functional.py,
// get_config).

import { OptionError, StateError } from "../../errors.js";
import { CHANNELS_FIRST, CHANNELS_LAST, type Layout, ofRank } from "../../values/layout.js";
import { isCount, isObject } from "../bytes.js";
import { timesOf } from "../keys.js";

export type Json = Record<string, unknown>;

/** A batch-norm layer of a model. */
export interface KerasLayer {
  /** The object that stands for it in the JSON. */
  readonly item: Json;
  /** The options of its class. */
  readonly config: Json;
  /** Its own name. */
  readonly leaf: string;
  /** The names of the models and wrappers around it, from outside, without the outermost model. */
  readonly inside: readonly string[];
  /** How many of the last names of `inside` are those of wrappers, one in the other, TimeDistributed for instance. */
  readonly wrappers: number;
  /** True if the topology does not list it: what is known of it are its weights, and so its config has no epsilon. */
  readonly unlisted?: boolean;
  /** Only for an operation of a graph, and for a layer that is not listed: returns the full name of a weight. */
  readonly constant?: (weight: string) => string | undefined;
  /** Only for an operation of a graph: its layout, `null` if that is unknown. */
  readonly layout?: Layout | null;
}

const BATCH_NORM = /^(Sync)?BatchNormalization(V[12])?$/;

/** The name of a layer, after the names of the models and wrappers around it. */
export const fullName = ({ inside, leaf }: KerasLayer): string => [...inside, leaf].join("/");

/**
 * The batch-norm layers of a topology by name, however deep they are nested. Layers have their own names; if
 * several have the same name, the names of the models and wrappers around them are put in front.
 */
export function layersOf(topology: unknown): ReadonlyMap<string, KerasLayer> {
  const found = allOf(topology);
  const count = timesOf(found.map(({ leaf }) => leaf));
  const layers = new Map<string, KerasLayer>();
  for (const layer of found) {
    const name = count.get(layer.leaf) === 1 ? layer.leaf : fullName(layer);
    if (layers.has(name)) {
      throw new StateError("modelTopology", "layers of different names", `"${name}" twice`);
    }
    layers.set(name, layer);
  }
  return layers;
}

/** The batch-norm layers of a topology, in the order in which it lists them. */
function allOf(topology: unknown): KerasLayer[] {
  const found: KerasLayer[] = [];
  for (const { item, inside, wrappers } of placesIn(topology)) {
    const { class_name: kind, config } = item;
    if (typeof kind !== "string" || !BATCH_NORM.test(kind) || !isObject(config)) continue;
    const { name: leaf } = config;
    if (typeof leaf === "string") found.push({ item, config, leaf, inside, wrappers });
  }
  return found;
}

/** An object in a topology: a layer, a model, or any other. */
interface Place {
  readonly item: Json;
  /** The layers that it lists, `null` if it is no model. */
  readonly layers: readonly unknown[] | null;
  /** The names of the models and wrappers around it, from outside, without the outermost model. */
  readonly inside: readonly string[];
  /** The same names for what is inside of it: its own name is among them if it is a model or wrapper. */
  readonly within: readonly string[];
  /** How many of the last names of `inside` are those of wrappers. */
  readonly wrappers: number;
}

/** All objects in a topology, however deep they are nested, in its order: each before those that are inside of it. */
export function* placesIn(topology: unknown): Generator<Place> {
  // Not recursive: a file may nest deeper than the call stack reaches.
  type Part = { value: unknown; inside: readonly string[]; wrappers: number; top: boolean };
  const left: Part[] = [{ value: topology, inside: [], wrappers: 0, top: true }];
  // Users may pass parsed JSON, in which an object may contain itself.
  const seen = new Set<object>();
  while (left.length > 0) {
    let { value, inside, wrappers, top } = left.pop()!;
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    seen.add(value);
    const item = value as Json;
    const { class_name: kind, config } = item;
    // Early versions of Keras wrote the layers of a Sequential model in place of its config.
    const { name, layers, layer } = isObject(config) ? config : ({ layers: config } as Json);
    const model = typeof kind === "string" && Array.isArray(layers) ? layers : null;
    const wrapper = isObject(layer) && isObject(layer.config);
    const named = typeof name === "string" && (wrapper || (model !== null && !top));
    const within = named ? [...inside, name] : inside;
    yield { item, layers: model, inside, within, wrappers };
    if (named) wrappers = wrapper ? wrappers + 1 : 0;
    if (model !== null) top = false;
    for (const each of Object.values(item).reverse()) {
      if (typeof each === "object") left.push({ value: each, inside: within, wrappers, top });
    }
  }
}

/** The layout of a layer, from its axis and the shape of its input as far as the file has that. */
export function layoutOf(name: string, layer: KerasLayer): Layout {
  const { item, config } = layer;
  if (layer.layout) return layer.layout;
  if (layer.layout === null) {
    throw new OptionError(
      "layout",
      `for operation "${name}", whose data format is unknown`,
      "none",
    );
  }
  const { axis = -1 } = config;
  const channels = Array.isArray(axis) && axis.length === 1 ? axis[0] : axis;
  const built = isObject(item.build_config) ? item.build_config.input_shape : undefined;
  const shape = config.batch_input_shape ?? config.batch_shape ?? built;
  const rank = Array.isArray(shape) ? shape.length : null;
  let layout: Layout | undefined;
  if (rank === null) {
    // Without a shape, axis 1 is taken for channels first, and a later axis for the last one.
    if (channels === 1) layout = "channelsFirst";
    else if (channels === -1) layout = "channelsLast";
    else if (isCount(channels) && channels > 1) {
      layout = ofRank(CHANNELS_LAST, channels + 1) ?? "channelsLast";
    }
  } else if (channels === -1 || channels === rank - 1) {
    layout = ofRank(CHANNELS_LAST, rank) ?? "channelsLast";
  } else if (channels === 1 || channels === 1 - rank) {
    layout = ofRank(CHANNELS_FIRST, rank) ?? "channelsFirst";
  }
  if (layout === undefined || (rank !== null && rank < 2)) {
    const among = rank === null ? "without an input shape" : `of ${rank}`;
    throw new OptionError(
      "layout",
      `for layer "${name}", whose axis ${JSON.stringify(axis)?.slice(0, 40)} ${among} is that of no one layout`,
      "none",
    );
  }
  return layout;
}
