// The files of a TensorFlow.js model with some weights or layers changed: what is not changed stays as it
// is, in the same files.

import { StateError } from "../../errors.js";
import type { Model } from "./model.js";
import { bytesBetween, spread } from "./shards.js";
import type { Json } from "./topology.js";

/** The files of a model as they are written. */
export interface WrittenKeras {
  /** `model.json`, its text. */
  model: string;
  /** The weight files, by the paths that `model.json` has for them. */
  weights: Record<string, Uint8Array>;
}

/** A weight: its entry in model.json and its bytes. */
export interface Entry {
  readonly entry: Json;
  readonly data: Uint8Array;
}

/** What becomes of a model. */
export interface Changes {
  /** Weights by name: with other values, or `null` where they are left out. */
  readonly weights: Map<string, Entry | null>;
  /** New weights, by the name of the weight that they follow. */
  readonly added: Map<string, Entry>;
  /** What becomes of objects in the topology. */
  readonly replaced: Map<unknown, unknown>;
}

export const noChanges = (): Changes => ({
  weights: new Map(),
  added: new Map(),
  replaced: new Map(),
});

/** The entry of a weight that is quantized no more. */
export function plain(entry: Json): Json {
  const { quantization: _integers, ...rest } = entry;
  return rest;
}

/** The files of a model with these changes; model.json is the same text where nothing in it changes. */
export function filesOf(model: Model, changes: Changes): WrittenKeras {
  const manifest = model.json.weightsManifest as Json[];
  const written: [path: string, bytes: Uint8Array][] = [];
  let same = changes.replaced.size === 0;
  const weightsManifest = model.groups.map((group, i) => {
    const entries: Entry[] = group.weights.flatMap((key) => {
      const { entry, begin, end } = model.weights.get(key)!;
      const changed = changes.weights.get(key);
      same &&= changed !== null && (changed === undefined || changed.entry === entry);
      const added = changes.added.get(key);
      same &&= added === undefined;
      const own =
        changed === undefined ? { entry, data: bytesBetween(group, begin, end) } : changed;
      return [...(own === null ? [] : [own]), ...(added === undefined ? [] : [added])];
    });
    const lengths = group.shards.map(({ length }) => length);
    const data = entries.map((each) => each.data);
    const shards = spread(data, lengths).map((bytes, k) => [group.paths[k]!, bytes] as const);
    // A file that has nothing left is left out, unless it had nothing.
    const kept = shards.filter(([, bytes], k) => bytes.length > 0 || lengths[k] === 0);
    for (const [path, bytes] of kept) written.push([path, bytes]);
    return {
      ...manifest[i],
      paths: kept.map(([path]) => path),
      weights: entries.map(({ entry }) => entry),
    };
  });
  const weights = Object.fromEntries(written);
  if (same) return { model: model.text ?? textOfJson(model.json), weights };
  const text = textOfJson({ ...model.json, weightsManifest }, changes.replaced);
  return { model: text, weights };
}

function textOfJson(json: Json, replaced?: ReadonlyMap<unknown, unknown>): string {
  try {
    return JSON.stringify(json, replaced && ((_, value) => replaced.get(value) ?? value));
  } catch (error) {
    throw new StateError(
      `model: expected what JSON can say, got an object of which: ${(error as Error).message}`,
    );
  }
}
