// Reads batch-norm layers from the models of TensorFlow.js.

import { BatchNormError } from "../../errors.js";
import type { Activation } from "../../values/activation.js";
import { flag, readOptions } from "../../values/check.js";
import { fileOf, LOAD_KEYS, type StateFile } from "../layers.js";
import { activationAfter } from "./graph.js";
import { checkLoadOptions, givenEpsilon, type KerasLoadOptions, loadLayer } from "./load.js";
import { type KerasFiles, type Model, parse, weightOf } from "./model.js";
import { containersOf } from "./network.js";
import { valuesOf } from "./shards.js";
import { type KerasLayer, layoutOf } from "./topology.js";

/** Options of `load` and `loadAll` of {@link readKeras}. */
export interface KerasReadOptions extends KerasLoadOptions {
  /**
   * True gives the layer the `activation` of the ReLU or ReLU6 that takes its output, if nothing else does: a layer, or in
   * graph models an operation. Leave that out of what you run after the norm. Default false: layers have no activation.
   */
  withActivation?: boolean;
}

/**
 * Reads the batch-norm layers of a Keras model in the TensorFlow.js layers format, which `model.save` of
 * TensorFlow.js and the converter of Keras models write. Weights may be quantized. Layers have their Keras
 * names; if several layers have the same name, the names of the models around them are put in front.
 * Epsilon, momentum, scale and center come from the layer's config. Weights of a layer in a wrapper,
 * TimeDistributed for instance, are found by the name of the wrapper, or of a wrapper around that.
 *
 * Batch norms that the config does not list as such, those inside of custom layers and those whose class is a subclass of
 * BatchNormalization, follow under the names that their weights have. Nothing but the weights is known of them: give
 * `epsilon` to `load`. Their momentum is Keras' default, 0.99, and their layout `"channelsLast"`. If several such norms share
 * a name, their weights have numbers (`block/moving_mean` and `block/moving_mean_1`), and the layers are called `block` and
 * `block/1`; `load` throws if the numbers do not say which weight belongs to which norm.
 *
 * In a graph model, the layers are the operations `FusedBatchNorm` with constant parameters, and have the
 * names of their nodes. Other batch norms cannot be read: the converter has folded them into the
 * convolutions before them, or made products and sums of them. What remains are mainly the norms of
 * pre-activation networks. A graph has no momentum, so layers have Keras' default, 0.99.
 *
 * The file has no counter: `batchesSeen` is 1, and `ageKnown` false.
 *
 * @param files `model.json` and its weight files; bytes are not copied, so leave them unchanged until
 * the layers are loaded.
 * @throws ShapeError if a file is not bytes; OptionError for what is no model and weights; StateError for files that
 * are truncated, malformed, missing or of another format.
 *
 * @example
 * const model = await (await fetch("model.json")).json();
 * const shard = await (await fetch("group1-shard1of1.bin")).arrayBuffer();
 * const file = readKeras({ model, weights: { "group1-shard1of1.bin": shard } });
 * const bn = file.load("batch_normalization");
 */
export function readKeras(files: KerasFiles): StateFile<KerasReadOptions> {
  const model = parse("files", files);
  const bytes = model.groups.flatMap(({ shards }) => shards);
  return fileOf([...model.layers.keys()], bytes, (name, own: KerasReadOptions) => {
    const { withActivation, ...options } = readOptions(own, [
      ...LOAD_KEYS,
      "epsilon",
      "withActivation",
    ]);
    checkLoadOptions(options);
    const follows = flag("withActivation", withActivation, false);
    const layer = model.layers.get(name)!;
    const { config, unlisted } = layer;
    const given = {
      config: unlisted ? { ...config, epsilon: givenEpsilon(name, options) } : config,
      activation: follows ? activationBehind(model, layer) : null,
      layout: () => layoutOf(name, layer),
      values: (weight: string) => valuesOf(weightOf(model, name, weight)),
    };
    return loadLayer(name, given, options);
  });
}

/** The activation of the layer or node that alone takes the output of a norm; `null` if that is no plain ReLU. */
function activationBehind(
  { json, own: graph }: Model,
  { item, leaf }: KerasLayer,
): Activation | null {
  if (graph !== null) return activationAfter(json, leaf);
  const layers = containersOf(json.modelTopology).flatMap((container) => container.layers);
  const own = layers.find(({ inner }) => inner === item);
  if (own === undefined) return null;
  try {
    const { kind, config } = own.container.next(own);
    if (kind === "Activation") {
      return config.activation === "relu" || config.activation === "relu6"
        ? config.activation
        : null;
    }
    const { max_value: most = null, negative_slope: slope, threshold } = config;
    if (kind !== "ReLU" || slope || threshold) return null;
    return most === null ? "relu" : most === 6 ? "relu6" : null;
  } catch (error) {
    if (error instanceof BatchNormError) return null; // It says why no layer follows it alone.
    throw error;
  }
}
