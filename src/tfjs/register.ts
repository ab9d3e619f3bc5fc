// `register`: models that are loaded get the layers of this package.

import { serialization } from "@tensorflow/tfjs-core";
import { choice } from "../values/check.js";
import { BatchNormalization, type BatchNormalizationArgs, Theirs } from "./keras-layer.js";
import { Normalization } from "./normalization.js";

/** Options of {@link register}. */
export interface RegisterOptions {
  /** That of the batch-norm layers in models that are loaded from now on. Default `"keras"`. */
  rules?: "keras" | "tfjs";
}

/**
 * Makes tfjs use this package's layer for every `BatchNormalization` in models that are loaded
 * (`tf.loadLayersModel`, `tf.models.modelFromJSON`) or cloned from now on, whichever layer they were saved with, and
 * {@link Normalization} for the layer of that name, which tfjs lacks. Models that exist already, and
 * `tf.layers.batchNormalization`, stay as they are.
 *
 * @returns a function that gives the names back to those that had them.
 * @throws OptionError for other `rules`.
 */
export function register({ rules }: RegisterOptions = {}): () => void {
  const chosen = choice("rules", rules, "keras", ["keras", "tfjs"]);
  class AsTfjs extends BatchNormalization {
    constructor(args?: BatchNormalizationArgs) {
      super({ ...args, rules: "tfjs" });
    }
  }
  const { SerializationMap } = serialization;
  const { classNameMap } = SerializationMap.getMap();
  const { Normalization: before } = classNameMap;
  SerializationMap.register(chosen === "keras" ? BatchNormalization : AsTfjs);
  SerializationMap.register(Normalization);
  return () => {
    SerializationMap.register(Theirs);
    if (before) classNameMap.Normalization = before;
    else delete classNameMap.Normalization;
  };
}
