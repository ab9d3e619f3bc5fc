// Batch-norm layers read from Keras models in the TensorFlow.js layers format.

import type { Kernels } from "../engine/kernels.js";
import { checkKeys, OptionError, StateError } from "../errors.js";
import { type KerasOptions, kerasOptions } from "../layer/frameworks.js";
import { CHANNELS_FIRST, CHANNELS_LAST, type Layout, ofRank } from "../values/layout.js";
import { isCount, isObject } from "./bytes.js";
import { type KerasFiles, parse, weightOf } from "./keras-model.js";
import { type Json, valuesOf } from "./keras-shards.js";
import {
  fileOf,
  fromFile,
  layerOf,
  NO_COUNTER,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "./layers.js";

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
    const of = (weight: string): Float64Array =>
      valuesOf(model.groups, weightOf(model, name, weight));
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
