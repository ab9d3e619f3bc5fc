// A layer as JSON, exact to the bit: options and state.

import { OptionError, StateError } from "./errors.js";
import { fromNumbers, type JsonNumber, parse } from "./json.js";
import type { Layout } from "./layout.js";
import {
  checkChannels,
  checkSeen,
  flag,
  type Settings,
  settingsOf,
  type VarianceKind,
} from "./options.js";

/** What `bn.snapshot()` gives: options and state of a layer, JSON-able. */
export interface Snapshot {
  /** Says what this is. */
  readonly format: "batchnorm-wasm/layer";
  /** Of the format. */
  readonly version: 1;
  /** How many features are normalized. */
  readonly channels: number;
  /** Order of the axes of the data. */
  readonly layout: Layout;
  /** Added to the variance under the square root. */
  readonly epsilon: number;
  /** Weight of the old value in the running averages, or `"cumulative"`. */
  readonly decay: number | "cumulative";
  /** Whether early averages are freed of the initial 0 and 1. */
  readonly debias: boolean;
  /** Which variance of a mini-batch enters the running average. */
  readonly runningVarianceOf: VarianceKind;
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
  /** There, and false, where more mini-batches may have entered: see `bn.ageKnown`. */
  readonly ageKnown?: boolean;
}

/** A snapshot, checked. */
export interface Restored extends State {
  readonly channels: number;
  readonly settings: Settings;
}

/** What of a layer training changes. */
export interface State {
  readonly gamma: ArrayLike<number> | null;
  readonly beta: ArrayLike<number> | null;
  readonly runningMean: ArrayLike<number>;
  readonly runningVariance: ArrayLike<number>;
  readonly batchesSeen: number;
  readonly ageKnown: boolean;
}

/** Reads a snapshot, the object or its JSON text. Throws StateError where it is none. */
export function readSnapshot(json: unknown): Restored {
  const s = parse<Snapshot>("snapshot", json, "batchnorm-wasm/layer");
  const values = (name: "gamma" | "beta"): number[] | null =>
    s[name] === null ? null : fromNumbers(`snapshot.${name}`, s[name], s.channels);
  try {
    const { layout, epsilon, decay, debias, runningVarianceOf } = s;
    return {
      channels: checkChannels(s.channels),
      settings: settingsOf({
        layout,
        epsilon,
        decay,
        debias,
        runningVarianceOf,
        gamma: s.gamma !== null,
        beta: s.beta !== null,
      }),
      gamma: values("gamma"),
      beta: values("beta"),
      runningMean: fromNumbers("snapshot.runningMean", s.runningMean, s.channels),
      runningVariance: fromNumbers("snapshot.runningVariance", s.runningVariance, s.channels),
      batchesSeen: checkSeen("snapshot.batchesSeen", s.batchesSeen),
      ageKnown: flag("ageKnown", s.ageKnown, true),
    };
  } catch (error) {
    if (error instanceof OptionError) throw new StateError(`snapshot.${error.message}`);
    throw error;
  }
}
