// Makes a batch-norm layer from the config and the weights that a Keras file has for it.

import type { Kernels } from "../../engine/kernels.js";
import { OptionError, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { type KerasOptions, keeping, kerasOptions } from "../../layer/frameworks.js";
import { checkRenorm } from "../../layer/renorm.js";
import type { Activation } from "../../values/activation.js";
import type { Layout } from "../../values/layout.js";
import { fromFile, layerOf, NO_COUNTER, type OnWarning, warningsTo } from "../layers.js";
import type { Json } from "./topology.js";

/** Options of `load` and `loadAll` of `readKeras`. Scale and center come from the file, epsilon from the config in it. */
export interface KerasLoadOptions {
  /**
   * Required for a layer whose config is not in the file, since its weights do not contain epsilon. For the other
   * layers, that of the config is used.
   */
  epsilon?: number;
  /** Weight of the OLD value. Default: the momentum in the file; `train` needs one if that is 1. */
  momentum?: number;
  /**
   * Default: the layout that follows from the layer's axis and input shape. If the file has no input
   * shape, `"channelsLast"` for the last axis, -1, and `"channelsFirst"` for axis 1; a later axis tells the layout.
   */
  layout?: Layout;
  /** Is called with what you should know about the layer. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/**
 * The epsilon of the layer `name`, of which the file has weights alone.
 *
 * @throws OptionError if the caller has not given it.
 */
export function givenEpsilon(name: string, { epsilon }: KerasLoadOptions): number {
  if (epsilon !== undefined) return epsilon;
  throw new OptionError(
    "epsilon",
    `for layer "${name}", of which the file has weights alone`,
    "none",
  );
}

/** What a file says about a layer. */
export interface Stated {
  readonly config: Json;
  /** What limits the output. Default: nothing. */
  readonly activation?: Activation | null;
  /** Returns the layout that follows from the file; throws OptionError if none does. */
  readonly layout: () => Layout;
  /** Returns the values [channels] of a weight by the name that it has in Keras: gamma, moving_mean, … */
  readonly values: (weight: string) => Float64Array;
}

/**
 * Checks options of `load`, which were read once each, before anything is read from the file: those above but
 * `onWarning`, which `loadLayer` checks first of all, and of `BatchNorm.keras` those that a file may lack.
 *
 * @throws OptionError for an option that is unknown or out of range.
 */
export function checkLoadOptions({
  onWarning: _,
  ...own
}: KerasLoadOptions & Pick<KerasOptions, "scale" | "center">): void {
  kerasOptions(own);
}

/** Makes a new layer from the file's facts about it and the caller's options, which take precedence. */
export function loadLayer(name: string, stated: Stated, options: KerasLoadOptions): BatchNorm {
  const { config } = stated;
  const { momentum, kernels } = options;
  const warn = warningsTo(options.onWarning);
  const layout = options.layout ?? stated.layout();
  const isRenormed = config.renorm === true;
  const settings = fromFile(`layer "${name}"`, () => {
    const { epsilon, scale, center } = config as KerasOptions;
    const own = {
      epsilon,
      momentum: momentum ?? config.momentum,
      scale,
      center,
      layout,
      kernels,
    };
    const { activation = null } = stated;
    const renorm = checkRenorm(isRenormed ? renormOf(config) : null);
    return { ...keeping(kerasOptions, own as KerasOptions), activation, renorm };
  });
  const runningMean = stated.values("moving_mean");
  const state = {
    gamma: settings.gamma ? stated.values("gamma") : null,
    beta: settings.beta ? stated.values("beta") : null,
    runningMean,
    runningVariance: stated.values("moving_variance"),
    // (`moving_stddev` is not read: `moving_variance` is its square less epsilon.)
    renormMean: isRenormed ? stated.values("renorm_mean") : undefined,
    renormDeviation: isRenormed ? stated.values("renorm_stddev") : undefined,
    ...NO_COUNTER,
  };
  for (const [weight, values] of Object.entries(state)) {
    if (values instanceof Float64Array && values.length !== runningMean.length) {
      throw new StateError(
        `layer "${name}"`,
        `${runningMean.length} values of ${weight}, as of the mean`,
        values.length,
      );
    }
  }
  for (const sentence of warningsOf(config)) warn(`layer "${name}": ${sentence}`);
  return layerOf(settings, state);
}

/** Batch renormalization as Keras has it: without limits for what `renorm_clipping` leaves out or has as `null`. */
const renormOf = ({ renorm_clipping: limits, renorm_momentum: decay = 0.99 }: Json): object => ({
  rmax: Infinity,
  dmax: Infinity,
  rmin: 0,
  ...Object.fromEntries(Object.entries(Object(limits)).filter(([, limit]) => limit !== null)),
  decay,
});

/** Sentences about what the layer does differently when Keras trains it. */
function* warningsOf(config: Json): Iterable<string> {
  const { virtual_batch_size: part } = config;
  if (part !== undefined && part !== null) {
    yield `has virtual_batch_size ${part}, but trains here on the whole mini-batch`;
  }
  if (config.trainable === false) {
    yield 'has trainable: false: Keras trains it as train does here with { statistics: "running" }';
  }
}
