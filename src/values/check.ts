// Checks of options that several methods have. Each error names the option, what was expected and what came.

import { describe, OptionError, StateError } from "../errors.js";

/** The options of a call that is given none. */
export const NO_OPTIONS: Readonly<Record<string, never>> = {};

/** The options of `infer`, of a layer and of a frozen one. */
export const INFER_KEYS: readonly string[] = ["shape", "out", "mask", "add"];

/** Returns a boolean `value`, or `fallback` if it is undefined; throws OptionError for anything else. */
export function flag(name: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback;
  if (typeof value !== "boolean") {
    throw new OptionError(name, "true or false", describe(value));
  }
  return value;
}

/** Returns a finite number `value` that `holds` accepts, or `fallback` if it is undefined; else throws OptionError. */
export function number(
  name: string,
  value: unknown,
  fallback: number,
  expected: string,
  holds: (value: number) => boolean,
): number {
  if (value === undefined) return fallback;
  if (typeof value !== "number" || !Number.isFinite(value) || !holds(value)) {
    throw new OptionError(name, expected, describe(value));
  }
  return value;
}

/** Returns a `value` among `choices`, or `fallback`, if there is one, for undefined; else throws OptionError. */
export function choice<T extends string>(
  name: string,
  value: unknown,
  fallback: T | undefined,
  choices: readonly T[],
): T {
  if (value === undefined && fallback !== undefined) return fallback;
  if (!choices.includes(value as T)) {
    const names = choices.map((each) => JSON.stringify(each)).join(" or ");
    throw new OptionError(name, names, describe(value));
  }
  return value as T;
}

export function checkChannels(channels: unknown): number {
  if (
    !Number.isSafeInteger(channels) ||
    (channels as number) < 1 ||
    (channels as number) > 2 ** 30
  ) {
    throw new OptionError("channels", "a whole number from 1 to 2^30", describe(channels));
  }
  return channels as number;
}

/**
 * Runs `make`, which checks options that stand in JSON or in a file. The fault is then not in what the caller passed, so
 * an OptionError becomes a StateError, whose message begins with `prefix`.
 */
export function recorded<T>(prefix: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof OptionError) throw new StateError(prefix + error.message);
    throw error;
  }
}
