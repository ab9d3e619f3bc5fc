// What all formats share: how a file offers its layers by name, and how a layer is made from numbers.

import { describe, OptionError, StateError } from "../errors.js";
import { BatchNorm } from "../layer/batch-norm.js";
import type { BatchNormOptions } from "../layer/options.js";
import type { State } from "../layer/snapshot.js";
import { NO_OPTIONS } from "../values/check.js";

/** The last parameter of a function: its options, which may be left out if none of them is required. */
export type Given<Options, Also = never> = object extends Options
  ? [options?: Options | Also]
  : [options: Options | Also];

/** The batch-norm layers of a file; `Options` are those of the format. */
export interface StateFile<Options> {
  /** Names of the batch-norm layers, in the order of the file. */
  readonly layers: readonly string[];
  /**
   * A new layer with the numbers that the file has under this name, and with the conventions of its framework.
   * Everything is checked before the layer is made.
   *
   * @throws OptionError for a name that is not among `layers`, and for an option that is unknown, out of range or
   * missing; StateError if the file does not hold what the layer needs.
   */
  load(name: string, ...options: Given<Options>): BatchNorm;
  /**
   * All layers by name, in the order of `layers`.
   *
   * @param options the options of all layers, or a function that returns those of the layer whose name it is given.
   * @throws as `load`, for the first layer that fails.
   */
  loadAll(...options: Given<Options, (name: string) => Options>): Record<string, BatchNorm>;
}

/** Names that an option may be, as a message has them; `none` where there are no names. */
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

/** A file with these `layers`; `load` makes one of them. */
export function fileOf<Options extends object>(
  layers: readonly string[],
  load: (name: string, options: Options) => BatchNorm,
): StateFile<Options> {
  const known = new Set(layers);
  const one = (name: string, options: unknown = NO_OPTIONS): BatchNorm => {
    if (!known.has(name)) checkName(layers, name);
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
 * Entries as an object whose keys come in their order. Plain objects have whole numbers first, and a
 * network's nodes may go by numbers.
 */
export function inOrder<T>(entries: readonly (readonly [string, T])[]): Record<string, T> {
  const object: Record<string, T> = Object.fromEntries(entries);
  if (!entries.some(([name]) => /^\d+$/.test(name))) return object;
  const ownKeys = (target: Record<string, T>): (string | symbol)[] => {
    const given = entries.map(([name]) => name).filter((name) => Object.hasOwn(target, name));
    return [...new Set([...given, ...Reflect.ownKeys(target)])];
  };
  return new Proxy<Record<string, T>>(object, { ownKeys });
}

/** What a file without a counter says of the age of the averages: one mini-batch or more. */
export const NO_COUNTER = { batchesSeen: 1, ageKnown: false } as const;

/** Makes a layer with these options and numbers. */
export function layerOf(options: BatchNormOptions, state: State): BatchNorm {
  const layer = new BatchNorm(state.runningMean.length, {
    ...options,
    gamma: state.gamma !== null,
    beta: state.beta !== null,
  });
  layer.setState(state);
  return layer;
}

/** Is called with a sentence about something that a user should know, but that kept no layer from loading. */
export type OnWarning = (message: string) => void;

/** The function that warnings go to: `value`, or one that writes to the console if it is undefined. */
export function warningsTo(value: unknown): OnWarning {
  if (value === undefined) return (message) => console.warn(message);
  if (typeof value === "function") return value as OnWarning;
  throw new OptionError(`onWarning: expected a function, got ${describe(value)}`);
}

/** The weight of the old average to write for a layer, in a format that does not know the cumulative average. */
export function momentumOf(
  format: string,
  name: string,
  { decay }: BatchNorm,
  momentum: number | undefined,
): number {
  if (decay !== "cumulative") return decay;
  if (momentum !== undefined) return momentum;
  throw new OptionError(
    `momentum: expected one for layer "${name}", whose decay is "cumulative", which ${format} has not, got none`,
  );
}

/** Checks the layers to write, and returns them with their names. */
export function entriesOf(layers: unknown): [string, BatchNorm][] {
  if (typeof layers !== "object" || layers === null) {
    throw new OptionError(`layers: expected layers by name, got ${describe(layers)}`);
  }
  const entries = Object.entries(layers);
  if (entries.length === 0) {
    throw new OptionError("layers: expected at least one layer, got none");
  }
  for (const [name, layer] of entries) {
    if (!(layer instanceof BatchNorm)) {
      throw new OptionError(
        `layers[${JSON.stringify(name)}]: expected a BatchNorm, got ${describe(layer)}`,
      );
    }
  }
  return entries;
}

/** `count` times the same value: what a file gets for a parameter that a layer leaves out. */
export const constant = (count: number, value: number): Float32Array =>
  new Float32Array(count).fill(value);

/** Runs `make` with options that come from a file. Turns an OptionError into a StateError about the file. */
export function fromFile<T>(where: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof OptionError) throw new StateError(`${where}: ${error.message}`);
    throw error;
  }
}

/** A batch norm of a whole network that was not folded. */
export interface KeptNorm {
  /** As the reader of the format lists it. */
  readonly name: string;
  /** Why it was kept: a sentence without its full stop. */
  readonly reason: string;
}
