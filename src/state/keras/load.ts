// A batch-norm layer from the config and the weights that a Keras file has for it.

import type { Kernels } from "../../engine/kernels.js";
import { checkKeys, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { type KerasOptions, kerasOptions } from "../../layer/frameworks.js";
import type { Layout } from "../../values/layout.js";
import { fromFile, layerOf, NO_COUNTER, type OnWarning, warningsTo } from "../layers.js";
import type { Json } from "./topology.js";

/** Options of `load` and `loadAll` of `readKeras`; epsilon, scale and center are in the file. */
export interface KerasLoadOptions {
  /** Weight of the OLD value. Default: that in the file. */
  momentum?: number;
  /**
   * Default: what the layer's axis and input shape say; where a file has no shape,
   * `"channelsLast"` for the last axis and `"channelsFirst"` for axis 1.
   */
  layout?: Layout;
  /** Takes what one should know about the layer. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

const LOAD_KEYS = ["momentum", "layout", "onWarning", "kernels"];

/** What a file says of a layer. */
export interface Given {
  readonly config: Json;
  /** The layout that the file says; may throw. */
  readonly layout: () => Layout;
  /** The values of a weight [channels] by its name: gamma, beta, moving_mean, moving_variance. */
  readonly values: (weight: string) => Float64Array;
}

/** Throws OptionError for options that are none of `load`, before the file is looked at. */
export function checkLoadOptions(options: KerasLoadOptions, more: readonly string[] = []): void {
  checkKeys("options", options, [...LOAD_KEYS, ...more]);
  const { onWarning, ...own } = options;
  warningsTo(onWarning);
  kerasOptions(own);
}

/** A new layer of what a file says and what the options say. */
export function loadLayer(name: string, given: Given, options: KerasLoadOptions): BatchNorm {
  const { config } = given;
  const { momentum, kernels } = options;
  const warn = warningsTo(options.onWarning);
  const layout = options.layout ?? given.layout();
  const settings = fromFile(`layer "${name}"`, () => {
    const { epsilon, scale, center } = config as KerasOptions;
    const own = { epsilon, momentum: momentum ?? movingOf(config), scale, center, layout };
    return kerasOptions(own as KerasOptions);
  });
  const runningMean = given.values("moving_mean");
  const state = {
    gamma: settings.gamma ? given.values("gamma") : null,
    beta: settings.beta ? given.values("beta") : null,
    runningMean,
    runningVariance: given.values("moving_variance"),
    ...NO_COUNTER,
  };
  for (const [weight, values] of Object.entries(state)) {
    if (values instanceof Float64Array && values.length !== runningMean.length) {
      throw new StateError(
        `layer "${name}": expected ${runningMean.length} values of ${weight}, as of the mean, got ${values.length}`,
      );
    }
  }
  for (const sentence of warningsOf(config, momentum)) warn(`layer "${name}": ${sentence}`);
  return layerOf(kernels ? { ...settings, kernels } : settings, state);
}

/** The momentum of a config; that under which nothing would ever move is left out. */
const movingOf = ({ momentum }: Json): unknown => (momentum === 1 ? undefined : momentum);

/** What the layer does in Keras' training and not here. */
function* warningsOf(config: Json, momentum: number | undefined): Iterable<string> {
  const { virtual_batch_size: part } = config;
  if (config.momentum === 1 && momentum === undefined) {
    yield "has momentum 1, under which nothing moves: unless given, it is Keras' default here, 0.99";
  }
  if (config.renorm === true) yield "has renorm, without which it trains here";
  if (part !== undefined && part !== null) {
    yield `has virtual_batch_size ${part}, but trains here on the whole mini-batch`;
  }
  if (config.trainable === false) {
    yield 'has trainable: false: Keras trains it as train does here with { statistics: "running" }';
  }
}
