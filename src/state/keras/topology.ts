// The layers of a Keras model as its JSON has them, a config for each, in config.json of a `.keras`
// file, the attribute model_config of an `.h5` file and model.json of TensorFlow.js alike
// (keras/src/saving/serialization_lib.py, keras/src/models/functional.py, get_config).

import { OptionError, StateError } from "../../errors.js";
import { CHANNELS_FIRST, CHANNELS_LAST, type Layout, ofRank } from "../../values/layout.js";
import { isCount, isObject } from "../bytes.js";

export type Json = Record<string, unknown>;

/** A batch-norm layer of a model. */
export interface KerasLayer {
  /** What the JSON has for it; `config` are the options of its class. */
  readonly item: Json;
  readonly config: Json;
  /** Its own name. */
  readonly leaf: string;
  /** The names of the models and wrappers that it is in, without the model itself, from outside. */
  readonly inside: readonly string[];
  /** Whether the innermost of those is a wrapper, TimeDistributed for instance. */
  readonly wrapped: boolean;
  /** Of an operation of a graph: the names of its constants by weight, and its layout if known. */
  readonly constants?: Readonly<Record<string, string | undefined>>;
  readonly layout?: Layout | null;
}

const BATCH_NORM = /^(Sync)?BatchNormalization(V[12])?$/;

/** A name of a layer and those of what it is in. */
export const fullName = ({ inside, leaf }: KerasLayer): string => [...inside, leaf].join("/");

/**
 * The batch-norm layers of a topology by name, wherever they are nested: by their own names, with
 * those of the models and wrappers around them where several have the same.
 */
export function layersOf(topology: unknown): ReadonlyMap<string, KerasLayer> {
  const found = allOf(topology);
  const count = new Map<string, number>();
  for (const { leaf } of found) count.set(leaf, (count.get(leaf) ?? 0) + 1);
  const layers = new Map<string, KerasLayer>();
  for (const layer of found) {
    const name = count.get(layer.leaf) === 1 ? layer.leaf : fullName(layer);
    if (layers.has(name)) {
      throw new StateError(
        `modelTopology: expected layers of different names, got "${name}" twice`,
      );
    }
    layers.set(name, layer);
  }
  return layers;
}

/** The batch-norm layers of a topology, in its order. */
function allOf(topology: unknown): KerasLayer[] {
  const found: KerasLayer[] = [];
  // A stack of our own: files may nest deeper than calls do.
  type Part = { value: unknown; inside: readonly string[]; wrapped: boolean; top: boolean };
  const left: Part[] = [{ value: topology, inside: [], wrapped: false, top: true }];
  // Parsed JSON comes from users too, who may have made a ring of it.
  const seen = new Set<object>();
  while (left.length > 0) {
    let { value, inside, wrapped, top } = left.pop()!;
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    seen.add(value);
    const item = value as Json;
    const { class_name: kind, config } = item;
    if (isObject(config)) {
      const name = typeof config.name === "string" ? config.name : null;
      if (name !== null && typeof kind === "string" && BATCH_NORM.test(kind)) {
        found.push({ item, config, leaf: name, inside, wrapped });
        continue;
      }
      const model = Array.isArray(config.layers);
      const wrapper = isObject(config.layer) && isObject(config.layer.config);
      if (name !== null && (wrapper || (model && !top))) {
        inside = [...inside, name];
        wrapped = wrapper;
      }
      if (model) top = false;
    }
    const values = Object.values(item).filter((each) => typeof each === "object");
    for (let i = values.length - 1; i >= 0; i--) {
      left.push({ value: values[i], inside, wrapped, top });
    }
  }
  return found;
}

/** The layout that an axis and a shape say. */
export function layoutOf(name: string, layer: KerasLayer): Layout {
  const { item, config } = layer;
  if (layer.layout) return layer.layout;
  if (layer.layout === null) {
    throw new OptionError(
      `layout: expected for operation "${name}", whose data format is unknown, got none`,
    );
  }
  const { axis = -1 } = config;
  const channels = Array.isArray(axis) && axis.length === 1 ? axis[0] : axis;
  const built = isObject(item.build_config) ? item.build_config.input_shape : undefined;
  const shape = config.batch_input_shape ?? config.batch_shape ?? built;
  const rank = Array.isArray(shape) ? shape.length : null;
  let layout: Layout | undefined;
  if (rank === null) {
    // Axis 1 may be the last or not; a later one is taken for the last.
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
    throw new OptionError(
      `layout: expected for layer "${name}", whose axis ${JSON.stringify(axis)?.slice(0, 40)} ` +
        `${rank === null ? "without an input shape" : `of ${rank}`} is that of no one layout, got none`,
    );
  }
  return layout;
}
