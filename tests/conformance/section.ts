// What every section of the conformance suite works with.

import type { BatchNorm, BatchNormOptions, FrozenJSON } from "batchnorm-wasm";
import { channelsOf, type Shaped } from "../support/shapes.js";
import type { Checks } from "./checks.js";
import { bell } from "./values.js";

/** `batchnorm-wasm`. */
export type Library = typeof import("batchnorm-wasm");

/** What the suite asks of `batchnorm-wasm/infer`. */
export interface TestTimeLibrary {
  readonly FrozenBatchNorm: {
    fromJSON(json: FrozenJSON | string): {
      readonly channels: number;
      infer(
        x: Float32Array,
        options?: {
          shape?: readonly number[];
          out?: Float32Array;
          mask?: Uint8Array;
          add?: Float32Array;
        },
      ): Float32Array;
    };
  };
}

export interface Suite {
  readonly checks: Checks;
  readonly library: Library;
  readonly testTime: TestTimeLibrary;
  /** A layer for a shape, with a γ, β and averages that are not those of a fresh one. */
  readonly layerOf: (shaped: Shaped, options?: BatchNormOptions, seed?: number) => BatchNorm;
}

/** A group of checks. */
export type Section = (suite: Suite) => void | Promise<void>;

export const layersOf =
  ({ BatchNorm }: Library): Suite["layerOf"] =>
  (shaped, options = {}, seed = 1) => {
    const channels = channelsOf(shaped);
    const layer = new BatchNorm(channels, { ...options, layout: shaped.layout });
    layer.gamma?.set(bell(channels, seed + 101, 1, 0.5));
    layer.beta?.set(bell(channels, seed + 102));
    layer.runningMean.set(bell(channels, seed + 103, 0.5, 0.4));
    layer.runningVariance.set(bell(channels, seed + 104, 2, 0.5));
    layer.batchesSeen = 5;
    return layer;
  };

export function join(arrays: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(arrays.reduce((sum, each) => sum + each.length, 0));
  let at = 0;
  for (const each of arrays) {
    all.set(each, at);
    at += each.length;
  }
  return all;
}
