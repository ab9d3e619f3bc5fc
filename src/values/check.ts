// Checks of options that several methods have. Each error names the option, what was expected and what came.

import { checkKeys, describe, OptionError, StateError } from "../errors.js";

/** The options of a call that is given none. */
export const NO_OPTIONS: Readonly<Record<string, never>> = {};

/** The options of `infer`, of a layer and of a frozen one. */
export const INFER_KEYS: readonly string[] = ["shape", "out", "mask", "add"];

/**
 * A copy of the options, each of which is read once. Known options count whether they are the object's own or inherited,
 * as the getters of a class are; of unknown ones only the object's own are refused (`checkKeys`).
 */
export function readOptions<T extends object>(options: T, known: readonly string[]): T {
  checkKeys("options", options, known);
  return Object.fromEntries(known.map((key) => [key, options[key as keyof T]])) as T;
}

/** True for a whole number from `least` to `most`. */
export const isWhole = (
  value: unknown,
  least = 0,
  most = Number.MAX_SAFE_INTEGER,
): value is number =>
  Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;

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
  if (!Number.isFinite(value) || !holds(value as number)) {
    throw new OptionError(name, expected, describe(value));
  }
  return value as number;
}

/** Returns an ε, or `fallback` if it is undefined; throws OptionError for anything else. */
export const epsilonOf = (name: string, value: unknown, fallback: number): number =>
  number(name, value, fallback, "a finite number >= 0", (e) => e >= 0);

/** Returns a `value` among `choices`, or `fallback`, if there is one, for undefined; else throws OptionError. */
export function choice<T extends string>(
  name: string,
  value: unknown,
  fallback: T | undefined,
  choices: readonly T[],
): T {
  if (value === undefined && fallback !== undefined) return fallback;
  if (!choices.includes(value as T)) {
    throw new OptionError(name, `one of "${choices.join('", "')}"`, describe(value));
  }
  return value as T;
}

export function checkChannels(channels: unknown): number {
  if (!isWhole(channels, 1, 2 ** 30)) {
    throw new OptionError("channels", "a whole number from 1 to 2^30", describe(channels));
  }
  return channels;
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
