// Reads batch-norm layers from Keras' own files: `.keras`, a zip archive of config.json and
// model.weights.h5; `.h5`, which has the config as an attribute; and files of weights alone, which have no
// config (keras/src/saving/saving_lib.py, keras/src/legacy/saving/legacy_h5_format.py).

import { checkKeys, describe, OptionError, StateError } from "../../errors.js";
import { NO_OPTIONS, readOptions } from "../../values/check.js";
import { show } from "../../values/layout.js";
import { type Bytes, jsonOf, textOf } from "../bytes.js";
import { checkFormat, jsonIn, jsonTextOf } from "../format.js";
import { Hdf5Node } from "../hdf5/node.js";
import { fileOf, LOAD_KEYS, type StateFile } from "../layers.js";
import { entriesOf } from "../zip.js";
import { type Found, findLayers } from "./found.js";
import { checkLoadOptions, givenEpsilon, type KerasLoadOptions, loadLayer } from "./load.js";
import type { Json } from "./topology.js";

/** Options of {@link readKerasFile}. */
export interface KerasFileOptions {
  /**
   * The config of the model, for a file of weights alone. This is the config.json of a model that was
   * saved without a zip, or what `model.to_json()` returns. It may be parsed JSON, text, or bytes.
   */
  config?: object | string | Bytes;
}

/** Options of `load` and `loadAll` of {@link readKerasFile}. */
export interface KerasFileLoadOptions extends KerasLoadOptions {
  /**
   * For a layer whose config is not in the file: false if it has no gamma. Used only if the file has three arrays for the
   * layer, since these may be gamma or beta beside the averages. Default true.
   */
  scale?: boolean;
  /** The same for beta. Default true. */
  center?: boolean;
}

/**
 * Reads the batch-norm layers of a file that Keras wrote: `.keras`, `.h5` (which Keras 2 writes, and Keras 3
 * on request), or weights alone in `.weights.h5` or `.h5`. Layers have their Keras names. If several layers
 * have the same name, the names of the models and wrappers around them are put in front; if a file has no
 * names, layers are named by their places in it.
 *
 * Epsilon, momentum, scale, center and the layout come from the model's config. A file of weights alone has
 * no config: either give the config here, or give `epsilon` to `load`. In the second case momentum is Keras'
 * default, 0.99, and the layout `"channelsLast"`. The same holds for layers that the config does not list as batch
 * norms: those inside of custom layers, and those whose class is a subclass of BatchNormalization. If several such norms
 * share a name, their weights have numbers (`block/moving_mean` and `block/moving_mean_1`), and the layers are called
 * `block` and `block/1`; `load` throws if the numbers do not say which weight belongs to which norm. `.keras` and
 * `.weights.h5` of Keras 3 do not name weights, so a custom layer that makes the weights of two norms itself is not listed
 * there. A file of Keras 1 keeps the variance under the name `running_std`; it is read as the variance.
 *
 * The file has no counter: `batchesSeen` is 1, and `ageKnown` false.
 *
 * @param bytes not copied, so leave them unchanged until the layers are loaded.
 * @throws ShapeError if `bytes` is not bytes, or the config neither JSON nor bytes; OptionError for an unknown option;
 * StateError for a file that is truncated, malformed, or of another format, and for one that Keras would not write: whose arrays are
 * compressed, virtual or in other files, or that has links to other places.
 *
 * @example
 * const bytes = await (await fetch("model.keras")).arrayBuffer();
 * const file = readKerasFile(bytes);
 * const bn = file.load("batch_normalization");
 */
export function readKerasFile(
  bytes: Bytes,
  options: KerasFileOptions = NO_OPTIONS,
): StateFile<KerasFileLoadOptions> {
  checkKeys("options", options, ["config"]);
  const { root, config, file } = open(bytes, options.config);
  const found = findLayers(root, config);
  return fileOf([...found.keys()], [file], (name, own: KerasFileLoadOptions) => {
    const given = readOptions(own, [...LOAD_KEYS, "epsilon", "scale", "center"]);
    checkLoadOptions(given);
    const layer = found.get(name)!;
    const config = layer.config ?? configOf(name, layer, given);
    const { mode = 0 } = config;
    if (mode !== 0) {
      throw new StateError(
        `layer "${name}"`,
        "mode 0 of Keras 1, which uses the averages",
        describe(mode),
      );
    }
    const values = (weight: string) => valuesOf(name, layer, config, weight);
    return loadLayer(name, { config, layout: layer.layout, values }, given);
  });
}

const EXPECTED = "a .keras file, a zip archive, or an .h5 file, HDF5";

/** The root of the HDF5 file in these bytes, and the model's config, `null` if there is none. */
function open(file: Bytes, given: KerasFileOptions["config"]) {
  // An archive that is damaged counts as one of torch, and is left to the reader of archives.
  const read = ["hdf5", "keras", "zip", "torch"] as const;
  const { file: bytes, format } = checkFormat("bytes", file, EXPECTED, read);
  if (format === "hdf5") {
    const root = Hdf5Node.root(bytes);
    const text = given === undefined ? root.texts("model_config")?.[0] : undefined;
    const json = text === undefined ? parsed(given) : jsonOf("model_config", text);
    return { root, config: json, file: bytes };
  }
  if (format === null) throw new StateError("bytes", EXPECTED, "bytes that begin as neither");
  const entries = entriesOf(bytes);
  const weights = entries.get("model.weights.h5");
  const config = entries.get("config.json");
  if (weights === undefined || config === undefined) {
    checkFormat("bytes", bytes, EXPECTED, ["keras", "zip"]);
    const names = [...entries.keys()].slice(0, 5).map((name) => JSON.stringify(name));
    const expected = "an archive of config.json and model.weights.h5";
    throw new StateError("bytes", expected, `one of ${names.join(", ")}`);
  }
  const json =
    given === undefined ? jsonOf("config.json", textOf("config.json", config)) : parsed(given);
  return { root: Hdf5Node.root(weights), config: json, file: bytes };
}

/** The config that the caller gave, parsed; `null` if none was given. */
function parsed(config: KerasFileOptions["config"]): unknown {
  if (config === undefined) return null;
  if (typeof config !== "string" && (typeof config !== "object" || config === null)) {
    throw new OptionError("config", "JSON, parsed, as text or bytes", describe(config));
  }
  const text = jsonTextOf("config", config, "the config of a model");
  return text === null ? config : jsonIn("config", text);
}

/** The config of a layer whose config is not in the file, made from the options and its arrays. */
function configOf(name: string, { has }: Found, options: KerasFileLoadOptions): Json {
  const epsilon = givenEpsilon(name, options);
  if (has !== null) return { epsilon, ...has };
  const [noScale, noCenter] = [options.scale === false, options.center === false];
  if (noScale === noCenter) {
    throw new OptionError(
      "scale, center",
      `one of them false for layer "${name}", which has three arrays`,
      noScale ? "both" : "neither",
    );
  }
  return { epsilon, scale: !noScale, center: !noCenter };
}

/** The values [channels] of one of a layer's weights. */
function valuesOf(name: string, layer: Found, config: Json, weight: string): Float64Array {
  const array = layer.array(weight, config);
  if (array === null) {
    throw new StateError(`layer "${name}"`, `an array of ${weight}`, "none");
  }
  if (!array.isArray || array.shape.length !== 1 || array.shape[0] === 0) {
    throw new StateError(
      `layer "${name}"`,
      `an array of one axis, at least one channel, for ${weight}`,
      array.isArray ? show(array.shape) : "a group",
    );
  }
  return array.values();
}
