// Batch-norm layers read from the models of TensorFlow.js.

import { fileOf, type StateFile } from "../layers.js";
import { checkLoadOptions, type KerasLoadOptions, loadLayer } from "./load.js";
import { type KerasFiles, parse, weightOf } from "./model.js";
import { valuesOf } from "./shards.js";
import { layoutOf } from "./topology.js";

/**
 * The batch-norm layers of a Keras model in the TensorFlow.js layers format, as `model.save` of
 * TensorFlow.js writes and the converter of Keras models makes it, quantized weights included. Layers
 * go by their Keras names, with the names of the models they are nested in where several have the
 * same. Epsilon, momentum, scale and center come from the layer's config. Weights of a layer in a
 * wrapper, TimeDistributed for instance, are found by the name of the wrapper.
 *
 * Of a graph model too, those batch norms that are operations `FusedBatchNorm` with constant
 * parameters, by the names of their nodes. The converter has taken the others into the convolutions before
 * them, or made products and sums of them; left are those of nets of pre-activation. A graph has
 * no momentum: it is Keras' default, 0.99.
 *
 * The file has no counter: `batchesSeen` is 1, and `ageKnown` false.
 *
 * @param files `model.json` and its weight files; bytes are not copied, so leave them unchanged until
 * the layers are loaded.
 * @throws ShapeError for what is no bytes; StateError for files that are truncated, malformed or
 * missing.
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
