// Activations: what follows γ·x̂ + β in the same pass. Each is a range to which values are limited; ReLU is the one
// from 0 on (Nair & Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines").

import { OptionError } from "../errors.js";
import { type JsonNumber, named, toNumber } from "./json.js";
import { show } from "./layout.js";

/**
 * Limits values to a range: `"relu"` is [0, Infinity], `"relu6"` is [0, 6]. Of another range, give both ends, which
 * are rounded to float32; the first is less than the second, and either may be infinite.
 */
export type Activation = "relu" | "relu6" | readonly [low: number, high: number];

/** An activation in JSON, where numbers that JSON lacks are texts. */
export type ActivationJSON = "relu" | "relu6" | readonly JsonNumber[];

/** The range of an activation: y = min(max(value, low), high). Both are float32 values, low < high. */
export interface Limits {
  readonly low: number;
  readonly high: number;
}

/** The limits of a value that has no activation. */
export const NO_LIMITS: Limits = {
  low: -Infinity,
  high: Infinity,
};

/** Returns an activation, `null` for none; its ends are rounded to float32. Throws OptionError for anything else. */
export function checkActivation(value: unknown): Activation | null {
  if (value === undefined || value === null) return null;
  if (value === "relu" || value === "relu6") return value;
  if (Array.isArray(value) && value.length === 2) {
    const [low, high] = [value[0], value[1]].map((end) =>
      typeof end === "number" ? Math.fround(end) : NaN,
    ) as [number, number];
    if (low < high) return activationOf({ low, high });
  }
  throw new OptionError("activation", '"relu", "relu6" or [low, high], low < high', show(value));
}

/** The limits of an activation; `null` without one. */
export const rangeOf = (activation: Activation | null): Limits | null =>
  typeof activation === "string"
    ? { low: 0, high: activation === "relu" ? Infinity : 6 }
    : activation && { low: activation[0], high: activation[1] };

/** The shortest way to write limits as an activation. */
export function activationOf(limits: Limits | null): Activation | null {
  if (limits === null) return null;
  const { low, high } = limits;
  if (low === 0 && high === Infinity) return "relu";
  return low === 0 && high === 6 ? "relu6" : Object.freeze([low, high] as const);
}

/** An activation as JSON has it. */
export const writeActivation = (activation: Activation): ActivationJSON =>
  typeof activation === "string" ? activation : activation.map(toNumber);

/** The activation that `writeActivation` wrote; `null` for none. Throws OptionError for anything else. */
export const readActivation = (value: unknown): Activation | null =>
  checkActivation(Array.isArray(value) ? Array.from(value, named) : value);

/** min(max(value, low), high); NaN stays NaN, as in the kernels. */
export function limited(value: number, limits: Limits | null): number {
  if (limits === null) return value;
  const { low, high } = limits;
  return value < low ? low : value > high ? high : value;
}
