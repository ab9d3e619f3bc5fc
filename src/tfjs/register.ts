// `register`: models that are loaded get the layers of this package.

import { serialization } from "@tensorflow/tfjs-core";
import { checkKeys } from "../errors.js";
import { choice } from "../values/check.js";
import { BatchNormalization, type BatchNormalizationArgs } from "./keras-layer.js";
import { Normalization } from "./normalization.js";

/** Options of {@link register}. */
export interface RegisterOptions {
  /** That of the batch-norm layers in models that are loaded from now on. Default `"keras"`. */
  rules?: "keras" | "tfjs";
}

/** The names that are taken over. */
const NAMES = ["BatchNormalization", "Normalization"];

/**
 * Makes tfjs use this package's layer for every `BatchNormalization` in models that are loaded
 * (`tf.loadLayersModel`, `tf.models.modelFromJSON`) or cloned from now on, whichever layer they were saved with, and
 * {@link Normalization} for the layer of that name, which tfjs lacks. Models that exist already, and
 * `tf.layers.batchNormalization`, stay as they are.
 *
 * @returns a function that gives both names back to those that had them.
 * @throws OptionError for other `rules`, and for an option that is none.
 */
export function register(options: RegisterOptions = {}): () => void {
  checkKeys("options", options, ["rules"]);
  const { rules } = options;
  const chosen = choice("rules", rules, "keras", ["keras", "tfjs"]);
  class AsTfjs extends BatchNormalization {
    constructor(args?: BatchNormalizationArgs) {
      super({ ...args, rules: "tfjs" });
    }
  }
  const { SerializationMap } = serialization;
  const { classNameMap } = SerializationMap.getMap();
  const before = NAMES.map((name) => classNameMap[name]);
  SerializationMap.register(chosen === "keras" ? BatchNormalization : AsTfjs);
  SerializationMap.register(Normalization);
  return () => {
    NAMES.forEach((name, i) => {
      if (before[i]) classNameMap[name] = before[i];
      else delete classNameMap[name];
    });
  };
}
