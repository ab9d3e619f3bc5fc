// What the readers and writers of all formats share: how a file offers its layers by name, and how a layer is
// made from the numbers in a file.

import { describe, OptionError } from "../errors.js";
import { BatchNorm } from "../layer/batch-norm.js";
import type { BatchNormOptions } from "../layer/options.js";
import type { State } from "../layer/snapshot.js";
import { NO_OPTIONS, recorded } from "../values/check.js";
import { present } from "../values/terms.js";
import { hasOwn } from "./keys.js";

/** The last parameter of a function: its options, which may be left out if none of them is required. */
export type Given<Options, Also = never> = object extends Options
  ? [options?: Options | Also]
  : [options: Options | Also];

/** The batch-norm layers of a file. `Options` are the options for loading a layer from a file of its format. */
export interface StateFile<Options> {
  /** Names of the batch-norm layers, in the order of the file. */
  readonly layers: readonly string[];
  /**
   * Makes a new layer with the numbers that the file has under this name, and with the conventions of the
   * framework that the file comes from. Everything is checked before the layer is made.
   *
   * @throws OptionError for a name that is not among `layers`, and for an option that is unknown, out of range or
   * missing; StateError if the file does not hold what the layer needs, or if its bytes were transferred to another
   * thread since it was read.
   */
  load(name: string, ...options: Given<Options>): BatchNorm;
  /**
   * All layers by name, in the order of `layers`.
   *
   * @param options the options for all layers, or a function that is given the name of a layer and returns the
   * options for that layer.
   * @throws as `load`, for the first layer that fails.
   */
  loadAll(...options: Given<Options, (name: string) => Options>): Record<string, BatchNorm>;
}

/** The names of the options that `load` takes for files of every framework. */
export const LOAD_KEYS: readonly string[] = ["momentum", "layout", "onWarning", "kernels"];

/** Lists the names that an option may have, at most eight of them, for an error message; without names, `none`. */
export function oneOf(names: readonly string[], none: string): string {
  if (names.length === 0) return none;
  const some = names.slice(0, 8).map((each) => JSON.stringify(each));
  const rest = names.length > 8 ? `, … (${names.length} in all)` : "";
  return `one of ${some.join(", ")}${rest}`;
}

/** Throws OptionError unless `name` is one of the `layers` of a file. */
export function checkName(layers: readonly string[], name: string): void {
  if (layers.includes(name)) return;
  const none = "none, since the file has no batch-norm layers";
  throw new OptionError("name", oneOf(layers, none), describe(name));
}

/**
 * Makes a file that offers these `layers`. `load` is called with a name among them, and makes that layer of the `bytes`,
 * which have to be there still.
 */
export function fileOf<Options extends object>(
  layers: readonly string[],
  bytes: readonly Uint8Array[],
  load: (name: string, options: Options) => BatchNorm,
): StateFile<Options> {
  const known = new Set(layers);
  const one = (name: string, options: unknown = NO_OPTIONS): BatchNorm => {
    if (!known.has(name)) checkName(layers, name);
    for (const each of bytes) present("bytes", each);
    return load(name, options as Options);
  };
  return {
    layers: Object.freeze([...layers]),
    load: (name, ...[options]) => one(name, options),
    loadAll(...[options]) {
      const of = typeof options === "function" ? (options as (name: string) => unknown) : null;
      return inOrder(layers.map((name) => [name, one(name, of ? of(name) : options)]));
    },
  };
}

/**
 * Makes an object whose keys come in the order of the entries. A plain object would list keys that are whole
 * numbers first, and the nodes of a network may be named by numbers.
 */
export function inOrder<T>(entries: readonly (readonly [string, T])[]): Record<string, T> {
  const object: Record<string, T> = Object.fromEntries(entries);
  if (!entries.some(([name]) => /^\d+$/.test(name))) return object;
  const ownKeys = (target: Record<string, T>): (string | symbol)[] => {
    const given = entries.map(([name]) => name).filter((name) => hasOwn(target, name));
    return [...new Set([...given, ...Reflect.ownKeys(target)])];
  };
  return new Proxy<Record<string, T>>(object, { ownKeys });
}

/**
 * The age of the averages from a file that does not count mini-batches. They come from one mini-batch at least,
 * so the count is 1, and it is marked as not known.
 */
export const NO_COUNTER = { batchesSeen: 1, ageKnown: false } as const;

/** Makes a layer with these options and numbers. */
export function layerOf(options: BatchNormOptions, state: State): BatchNorm {
  const [gamma, beta] = [state.gamma !== null, state.beta !== null];
  const layer = new BatchNorm(state.runningMean.length, { ...options, gamma, beta });
  layer.setState(state);
  return layer;
}

/** Is called with a sentence about something that the user should know, although the layer can be loaded. */
export type OnWarning = (message: string) => void;

/** The function that takes warnings: `value`, or, if `value` is undefined, a function that writes to the console. */
export function warningsTo(value: unknown): OnWarning {
  if (value === undefined) return (message) => console.warn(message);
  if (typeof value === "function") return value as OnWarning;
  throw new OptionError("onWarning", "a function", describe(value));
}

/**
 * The weight of the old average to write for a layer. `format` has no cumulative average, so that a layer whose
 * decay is `"cumulative"` needs a `momentum` from the caller.
 */
export function momentumOf(
  format: string,
  name: string,
  { decay }: BatchNorm,
  momentum: number | undefined,
): number {
  if (decay !== "cumulative") return decay;
  if (momentum !== undefined) return momentum;
  throw new OptionError(
    "momentum",
    `one for layer "${name}", whose decay is "cumulative", which ${format} has not`,
    "none",
  );
}

/** Checks the layers to write, and returns them with their names. */
export function entriesOf(layers: unknown): [string, BatchNorm][] {
  if (typeof layers !== "object" || layers === null) {
    throw new OptionError("layers", "an object of layers by name", describe(layers));
  }
  const entries = Object.entries(layers);
  if (entries.length === 0) {
    throw new OptionError("layers", "at least one layer, { name: layer }", describe(layers));
  }
  for (const [name, layer] of entries) {
    const where = `layers[${JSON.stringify(name)}]`;
    // It may come from another copy of the package: what is written is what everybody can read of a layer.
    if (typeof (Object(layer) as Partial<BatchNorm>).backward !== "function") {
      const got = describe(layer);
      const hint = /^Frozen/.test(got) ? ", the layer itself and not what freeze made of it" : "";
      throw new OptionError(where, `a BatchNorm${hint}`, got);
    }
    if (/\p{Surrogate}/u.test(name)) {
      throw new OptionError(where, "a name that has UTF-8", "one with half a character in it");
    }
  }
  return entries;
}

/** `count` times the same value. Files get these values for a parameter (gamma or beta) that a layer does not have. */
export const constant = (count: number, value: number): Float32Array =>
  new Float32Array(count).fill(value);

/** Runs `make`, which uses options from a file, at the place `where`. An OptionError of it becomes a StateError. */
export const fromFile = <T>(where: string, make: () => T): T => recorded(`${where}: `, make);

/** A batch norm that stays in its network, since it could not be folded into another layer. */
export interface KeptNorm {
  /** The name under which the reader of the format lists the batch norm. */
  readonly name: string;
  /** Why the batch norm was kept: a sentence without its full stop. */
  readonly reason: string;
}
