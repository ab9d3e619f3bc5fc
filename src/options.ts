// Options of the layer: checked once, each error naming the option.

import { checkKeys, describe, OptionError, StateError } from "./errors.js";
import { checkKernels, type Kernels } from "./kernels.js";
import { checkLayout, LAYOUTS, type Layout } from "./layout.js";

/** Which variance of a mini-batch enters the running average: divided by m - 1 or by m. */
export type VarianceKind = "sample" | "population";

/** Options of `new BatchNorm`. */
export interface BatchNormOptions {
  /** Order of the axes of the data. Default `"NC"`. */
  layout?: Layout;
  /** Added to the variance under the square root, >= 0, in the unit of the data squared. Default 1e-5. */
  epsilon?: number;
  /**
   * Weight of the OLD value in the running averages, 0 <= decay < 1, or `"cumulative"`: the plain
   * average over all mini-batches so far. Default 0.9. (PyTorch's momentum is 1 - decay.)
   */
  decay?: number | "cumulative";
  /**
   * True: early averages are not dragged towards the initial 0 and 1 (as Kingma & Ba 2015, "Adam",
   * section 3). Default false. Nothing to `"cumulative"`, which never is.
   */
  debias?: boolean;
  /**
   * Default `"sample"`, as in the paper (algorithm 2, line 10) and PyTorch; `"population"` as in Keras,
   * ONNX, Flax.
   */
  runningVarianceOf?: VarianceKind;
  /** False leaves the scale out. Default true. */
  gamma?: boolean;
  /** False leaves the shift out. Default true. */
  beta?: boolean;
  /** Kernels of your own, for tensors in their memory. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/** Options with every default filled in. */
export interface Settings {
  readonly layout: Layout;
  readonly epsilon: number;
  readonly decay: number | "cumulative";
  readonly debias: boolean;
  readonly runningVarianceOf: VarianceKind;
  readonly gamma: boolean;
  readonly beta: boolean;
  readonly kernels: Kernels | undefined;
}

/** `value`, or `fallback` if it is undefined; a boolean. */
export function flag(name: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback;
  if (typeof value !== "boolean") {
    throw new OptionError(`${name}: expected true or false, got ${describe(value)}`);
  }
  return value;
}

/** `value`, or `fallback` if it is undefined; a finite number for which `holds`. */
export function number(
  name: string,
  value: unknown,
  fallback: number,
  expected: string,
  holds: (value: number) => boolean,
): number {
  if (value === undefined) return fallback;
  if (typeof value !== "number" || !Number.isFinite(value) || !holds(value)) {
    throw new OptionError(`${name}: expected ${expected}, got ${describe(value)}`);
  }
  return value;
}

/** `value`, or `fallback`, if there is one, for undefined; one of `choices`. */
export function choice<T extends string>(
  name: string,
  value: unknown,
  fallback: T | undefined,
  choices: readonly T[],
): T {
  if (value === undefined && fallback !== undefined) return fallback;
  if (!choices.includes(value as T)) {
    const names = choices.map((each) => JSON.stringify(each)).join(" or ");
    throw new OptionError(`${name}: expected ${names}, got ${describe(value)}`);
  }
  return value as T;
}

export function checkChannels(channels: unknown): number {
  if (
    !Number.isSafeInteger(channels) ||
    (channels as number) < 1 ||
    (channels as number) > 2 ** 30
  ) {
    throw new OptionError(
      `channels: expected a whole number from 1 to 2^30, got ${describe(channels)}`,
    );
  }
  return channels as number;
}

export const epsilonOf = (name: string, value: unknown, fallback: number): number =>
  number(name, value, fallback, "a finite number >= 0", (e) => e >= 0);

const KEYS = [
  "layout",
  "epsilon",
  "decay",
  "debias",
  "runningVarianceOf",
  "gamma",
  "beta",
  "kernels",
];

export function settingsOf(options: BatchNormOptions): Settings {
  if (typeof options === "object" && options !== null && "momentum" in options) {
    throw new OptionError(
      "momentum: expected decay, the weight of the old average (1 - momentum in PyTorch), or a " +
        "factory such as BatchNorm.torch, got momentum",
    );
  }
  checkKeys("options", options, KEYS);
  const { layout, decay, kernels } = options;
  return {
    layout: layout === undefined ? "NC" : checkLayout(layout, LAYOUTS),
    epsilon: epsilonOf("epsilon", options.epsilon, 1e-5),
    decay:
      decay === "cumulative"
        ? decay
        : number("decay", decay, 0.9, '0 <= decay < 1 or "cumulative"', (d) => d >= 0 && d < 1),
    debias: flag("debias", options.debias, false),
    runningVarianceOf: choice("runningVarianceOf", options.runningVarianceOf, "sample", [
      "sample",
      "population",
    ]),
    gamma: flag("gamma", options.gamma, true),
    beta: flag("beta", options.beta, true),
    kernels: kernels === undefined ? undefined : checkKernels(kernels),
  };
}

/** What a call without options has. */
export const NO_OPTIONS: Readonly<Record<string, never>> = {};
/** The options of `infer`, of a layer and of a frozen one. */
export const INFER_KEYS: readonly string[] = ["shape", "out"];

/** A count of mini-batches, as users may write it. */
export function checkSeen(name: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new StateError(`${name}: expected a whole number >= 0, got ${describe(value)}`);
  }
  return value as number;
}
