// Writes the options and the state of a layer as JSON, exact to the bit, and reads them back.

import { describe, OptionError, StateError } from "../errors.js";
import { type ActivationJSON, readActivation, writeActivation } from "../values/activation.js";
import { checkChannels, flag, recorded } from "../values/check.js";
import { fromNumbers, type JsonNumber, parse, toNumbers } from "../values/json.js";
import type { Layout } from "../values/layout.js";
import type { VarianceKind } from "../values/moments.js";
import { completed, RECORDED, type Settings, WEIGHT } from "./options.js";
import { type RenormJSON, readRenorm, writeRenorm } from "./renorm.js";
import { checkSeen, type RunningAverages } from "./running-averages.js";

/** What `bn.snapshot()` gives: options and state of a layer, as an object for JSON. */
export interface Snapshot {
  /** Tells a snapshot from other JSON. */
  readonly format: "batchnorm-wasm/layer";
  /** Version of the format: 2 if there is an activation or renorm, which version 1 did not have. */
  readonly version: 1 | 2;
  /** How many features are normalized. */
  readonly channels: number;
  /** Order of the axes of the data. */
  readonly layout: Layout;
  /** Added to the variance under the square root. */
  readonly epsilon: number;
  /** Weight of the old value in the running averages, or `"cumulative"`. */
  readonly decay: number | "cumulative";
  /** Weight of the new value, where 1 - decay is not close enough to it; else absent. */
  readonly weight?: number;
  /** Whether the share of the initial 0 and 1 is taken out of early averages. */
  readonly debias: boolean;
  /** Which variance of a mini-batch enters the running average. */
  readonly runningVarianceOf: VarianceKind;
  /** What limits the output, if anything does. */
  readonly activation?: ActivationJSON;
  /** The limits of batch renormalization and its `decay`, if the layer has them. */
  readonly renorm?: RenormJSON;
  /** [channels] float32 values, `null` where the parameter is left out. */
  readonly gamma: readonly JsonNumber[] | null;
  /** [channels] float32 values, `null` where the parameter is left out. */
  readonly beta: readonly JsonNumber[] | null;
  /** [channels] float64 values, in the unit of the data. */
  readonly runningMean: readonly JsonNumber[];
  /** [channels] float64 values, in the unit of the data squared. */
  readonly runningVariance: readonly JsonNumber[];
  /** How many mini-batches entered the averages. */
  readonly batchesSeen: number;
  /** [channels] float64 values, in the unit of the data, if `renorm` has a `decay`; else absent. */
  readonly renormMean?: readonly JsonNumber[];
  /** [channels] float64 values, in the unit of the data, if `renorm` has a `decay`; else absent. */
  readonly renormDeviation?: readonly JsonNumber[];
  /** `false` if more mini-batches than `batchesSeen` may have entered, else absent: see `bn.ageKnown`. */
  readonly ageKnown?: boolean;
}

/** What a snapshot holds, after it has been checked. */
export interface Restored extends State {
  readonly channels: number;
  readonly settings: Settings;
}

/** The state of a layer: what training changes. */
export interface State<Values = ArrayLike<number>> {
  readonly gamma: Values | null;
  readonly beta: Values | null;
  readonly runningMean: Values;
  readonly runningVariance: Values;
  readonly batchesSeen: number;
  readonly ageKnown: boolean;
  readonly renormMean?: Values | undefined;
  readonly renormDeviation?: Values | undefined;
}

/** The snapshot of a layer that has these options and this state. */
export function writeSnapshot(
  { kernels: _own, [WEIGHT]: weight, activation, renorm, ...options }: Settings,
  layer: State<Float32Array | Float64Array> &
    Pick<RunningAverages, "renormMean" | "renormDeviation"> & { readonly channels: number },
): Snapshot {
  return {
    format: "batchnorm-wasm/layer",
    version: activation === null && renorm === null ? 1 : 2,
    channels: layer.channels,
    ...options,
    ...(weight === undefined ? {} : { weight }),
    ...(activation && { activation: writeActivation(activation) }),
    ...(renorm && { renorm: writeRenorm(renorm) }),
    gamma: layer.gamma && toNumbers(layer.gamma),
    beta: layer.beta && toNumbers(layer.beta),
    runningMean: toNumbers(layer.runningMean),
    runningVariance: toNumbers(layer.runningVariance),
    batchesSeen: checkSeen("batchesSeen", layer.batchesSeen),
    ...(renorm?.decay === undefined
      ? {}
      : {
          renormMean: toNumbers(layer.renormMean),
          renormDeviation: toNumbers(layer.renormDeviation),
        }),
    ...(layer.ageKnown ? {} : { ageKnown: false }),
  };
}

/** Throws StateError if a snapshot differs from a layer in the number of channels, or in having γ or β. */
export function checkFits(snapshot: Restored, layer: State & { readonly channels: number }): void {
  if (snapshot.channels !== layer.channels) {
    throw new StateError("snapshot.channels", `the layer's ${layer.channels}`, snapshot.channels);
  }
  for (const name of ["gamma", "beta"] as const) {
    if ((snapshot[name] === null) !== (layer[name] === null)) {
      const [expected, got] = layer[name] ? ["values", "null"] : ["null", "values"];
      throw new StateError(`snapshot.${name}`, `${expected}, as the layer has it`, got);
    }
  }
}

/** The settings that a snapshot, or the record in a file, states. Throws OptionError if one is missing or wrong. */
export function settingsIn(record: Partial<Snapshot>): Settings {
  for (const name of RECORDED) {
    if (record[name] === undefined) throw new OptionError(name, "a value", "none");
  }
  const { decay, weight } = record;
  const isWeight = typeof weight === "number" && weight >= 0 && weight <= 1;
  if (weight !== undefined && !(isWeight && 1 - weight === decay)) {
    throw new OptionError("weight", "1 - decay, or none", describe(weight));
  }
  const [gamma, beta] = [record.gamma !== null, record.beta !== null];
  const activation = readActivation(record.activation);
  const given: object = {
    ...record,
    gamma,
    beta,
    activation,
    renorm: readRenorm(record.renorm),
    kernels: undefined,
    [WEIGHT]: weight,
  };
  return completed(given);
}

/** Reads a snapshot, given as object or as JSON text. Throws StateError if it is none. */
export function readSnapshot(json: unknown): Restored {
  const s = parse<Snapshot>("snapshot", json, "batchnorm-wasm/layer", 2);
  return recorded("snapshot.", () => {
    const channels = checkChannels(s.channels);
    const numbers = (name: keyof State & keyof Snapshot, of32?: boolean) =>
      fromNumbers(`snapshot.${name}`, s[name], channels, of32);
    const settings = settingsIn(s);
    const own = settings.renorm?.decay === undefined ? null : numbers;
    return {
      channels,
      settings,
      gamma: s.gamma === null ? null : numbers("gamma", true),
      beta: s.beta === null ? null : numbers("beta", true),
      runningMean: numbers("runningMean"),
      runningVariance: numbers("runningVariance"),
      renormMean: own?.("renormMean"),
      renormDeviation: own?.("renormDeviation"),
      batchesSeen: checkSeen("snapshot.batchesSeen", s.batchesSeen),
      ageKnown: flag("ageKnown", s.ageKnown, true),
    };
  });
}
