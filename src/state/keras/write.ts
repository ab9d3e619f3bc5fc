// Writes batch-norm layers as a Keras model in the TensorFlow.js layers format, or into one that exists.

import { checkKeys, OptionError, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { type KerasOptions, kerasOptions } from "../../layer/frameworks.js";
import { NO_OPTIONS } from "../../values/check.js";
import { encode, FLOATS, holds } from "../bytes.js";
import { checkName, constant, entriesOf, fromFile, momentumOf } from "../layers.js";
import { filesOf, noChanges, plain, type WrittenKeras } from "./files.js";
import { type KerasFiles, type Model, parse, weightOf } from "./model.js";
import { formatOf, valuesOf } from "./shards.js";

/** Options of {@link writeKeras}. */
export interface KerasWriteOptions {
  /** The files of a model to write the layers into. Everything else in it stays as it is. */
  into?: KerasFiles;
  /** The momentum to write for layers whose decay is `"cumulative"`, which Keras does not have. */
  momentum?: number;
}

/**
 * Writes layers as a Keras model in the TensorFlow.js layers format, for `tf.loadLayersModel`. With `into`,
 * the result is that model with the numbers of these layers. Without it, the result is a model of only these
 * layers, each with an input and an output of its own. `moving_variance` is an average of the kind of
 * variance that the layer's `runningVarianceOf` names. Keras' own kind is `"population"`; test time is the
 * same with either. `debias`, the activation, the options of `renorm` and the counter of mini-batches are left out without
 * a warning, since the layer of TensorFlow.js has none of them. Where a layer of the model `into` has `renorm`, the averages
 * of batch renormalization are written too: `renormMean` and `renormDeviation` or, if our layer's `renorm` has no `decay`,
 * what the running averages give.
 *
 * Weights that are written `into` a model keep their type, float32 or float16. Weights that are quantized to
 * integers there become float32, unless the layer's values are still the same. A parameter that the layer
 * leaves out but the model has is written as ones (gamma) or zeros (beta). In a graph model, only constants
 * that a single operation uses can get new values.
 *
 * @param layers the layers by the names of the Keras layers, as `readKeras` lists them.
 * @returns the text of `model.json` and the weight files, as {@link readKeras} takes them.
 * @throws OptionError for a value that is no layer, for a name that the model `into` does not have or that has half a
 * character in it, for a decay `"cumulative"` without `momentum`, and, without `into`, for a layout that leaves the number of axes open;
 * ShapeError if a file of `into` is not bytes; StateError if the model `into` is malformed or has another
 * epsilon, another number of channels, no place for a parameter, or a constant that several operations use.
 *
 * @example
 * const { model, weights } = writeKeras({ batch_normalization: bn }, { into: original });
 */
export function writeKeras(
  layers: Readonly<Record<string, BatchNorm>>,
  options: KerasWriteOptions = NO_OPTIONS,
): WrittenKeras {
  checkKeys("options", options, ["into", "momentum"]);
  const { into, momentum } = options;
  kerasOptions(momentum === undefined ? {} : { momentum });
  const entries = entriesOf(layers);
  if (into !== undefined) return writeInto(parse("into", into), entries);
  return writeInto(parse("files", emptyModel(entries, momentum)), entries);
}

function writeInto(model: Model, entries: readonly [string, BatchNorm][]): WrittenKeras {
  const changes = noChanges();
  const names = [...model.layers.keys()];
  for (const [name, layer] of entries) {
    checkName(names, name);
    const { config, unlisted } = model.layers.get(name)!;
    const settings = fromFile(`layer "${name}"`, () => {
      const { epsilon, scale, center } = config as KerasOptions;
      return kerasOptions({ epsilon, scale, center } as KerasOptions);
    });
    // Of a layer that the config does not list, the file does not say its epsilon.
    if (!unlisted && settings.epsilon !== layer.epsilon) {
      throw new StateError(
        `layer "${name}"`,
        `the epsilon of the model, ${settings.epsilon}`,
        layer.epsilon,
      );
    }
    /** Returns whether these are other values than the file has. */
    const put = (weight: string, values: ArrayLike<number>): boolean => {
      const found = weightOf(model, name, weight);
      const { entry } = found;
      const key = entry.name as string;
      const before = valuesOf(found);
      if (holds(values, before)) return false;
      if (before.length !== values.length) {
        throw new StateError(key, `${before.length} values`, values.length);
      }
      if (model.own !== null && !model.own.has(key)) {
        throw new StateError(
          key,
          `a constant of operation "${name}" alone to write other values into`,
          "one that other operations have too",
        );
      }
      const format = formatOf(entry);
      const data = encode(key, format ?? FLOATS.F32!, values);
      const written = format === null ? plain(entry) : entry;
      changes.weights.set(key, [{ entry: written, data: () => data }]);
      return true;
    };
    for (const [parameter, value] of [
      ["gamma", 1],
      ["beta", 0],
    ] as const) {
      if (settings[parameter]) put(parameter, layer[parameter] ?? constant(layer.channels, value));
      else if (layer[parameter] !== null) {
        throw new StateError(
          `layer "${name}"`,
          `no ${parameter}, since the model leaves it out`,
          "values",
        );
      }
    }
    put("moving_mean", layer.runningMean);
    const moved = put("moving_variance", layer.runningVariance);
    if (config.renorm === true) {
      const { epsilon, runningMean, runningVariance } = layer;
      const deviation = runningVariance.map((variance) => Math.sqrt(variance + epsilon));
      // The file has rounded both, so that one does not follow to the bit from the other.
      if (moved) put("moving_stddev", deviation);
      const own = layer.renorm?.decay !== undefined;
      put("renorm_mean", own ? layer.renormMean : runningMean);
      put("renorm_stddev", own ? layer.renormDeviation : deviation);
    }
  }
  return filesOf(model, changes);
}

/** A model of only these layers, each with an input and an output of its own. All its weights are zero. */
function emptyModel(
  entries: readonly [string, BatchNorm][],
  momentum: number | undefined,
): KerasFiles {
  const layers: object[] = [];
  const weights: object[] = [];
  let size = 0;
  for (const [name, layer] of entries) {
    const { channels, layout, epsilon } = layer;
    if (name === "") throw new OptionError("layers", "names for Keras", '""');
    if (!layout.startsWith("N")) {
      throw new OptionError(
        `layers["${name}"]`,
        'a layout that says how many axes there are, as "NHWC" does, for the input of a Keras model',
        `"${layout}"; or write it into a model, with { into }`,
      );
    }
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
