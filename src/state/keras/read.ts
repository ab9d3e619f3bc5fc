// Batch-norm layers read from Keras models in the TensorFlow.js layers format.

import { fileOf, type StateFile } from "../layers.js";
import { checkLoadOptions, type KerasLoadOptions, loadLayer } from "./load.js";
import { type KerasFiles, parse, weightOf } from "./model.js";
import { valuesOf } from "./shards.js";
import { layoutOf } from "./topology.js";

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
    checkLoadOptions(options);
    const layer = model.layers.get(name)!;
    const given = {
      config: layer.config,
      layout: () => layoutOf(name, layer),
      values: (weight: string) => valuesOf(model.groups, weightOf(model, name, weight)),
    };
    return loadLayer(name, given, options);
  });
}
