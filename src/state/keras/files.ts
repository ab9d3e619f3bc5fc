// Writes the files of a TensorFlow.js model with some weights or layers changed. All that is not changed
// stays as it is, in the same files.

import { StateError } from "../../errors.js";
import { joined, lengthOf } from "../bytes.js";
import type { Model } from "./model.js";
import { partsBetween, type Weight } from "./shards.js";
import type { Json } from "./topology.js";

/** The files of a model as they are written. */
export interface WrittenKeras {
  /** The text of `model.json`. */
  model: string;
  /** The weight files, by the paths that `model.json` lists for them. */
  weights: Record<string, Uint8Array>;
}

/** What is to be changed in a model. */
export interface Changes {
  /** The weights to write in place of one of the file, by its name: none leaves it out, a second one follows it. */
  readonly weights: Map<string, readonly Weight[]>;
  /** Objects of the parsed topology, and what is written in their place. */
  readonly replaced: Map<unknown, unknown>;
}

export const noChanges = (): Changes => ({
  weights: new Map(),
  replaced: new Map(),
});

/** The entry of a weight in model.json, without its quantization. */
export function plain(entry: Json): Json {
  const { quantization: _integers, ...rest } = entry;
  return rest;
}

/** The weights that are written in place of one of the file: itself, if nothing has changed it. */
export const weightsAt = ({ weights }: Model, changes: Changes, key: string): readonly Weight[] =>
  changes.weights.get(key) ?? [weights.get(key)!];

/** The files of a model with these changes. If nothing changes in model.json, its text stays the same. */
export function filesOf(model: Model, changes: Changes): WrittenKeras {
  const manifest = model.json.weightsManifest as Json[];
  const written: [path: string, bytes: Uint8Array][] = [];
  let same = changes.replaced.size === 0;
  const weightsManifest = model.groups.map((group, i) => {
    const entries = group.weights.flatMap((key) => {
      const weights = weightsAt(model, changes, key);
      same &&= weights.length === 1 && weights[0]!.entry === model.weights.get(key)!.entry;
      return weights;
    });
    const data = entries.map((weight) => weight.data());
    // Shards keep their lengths as long as there are bytes for them, and the last one takes the rest.
    let end = 0;
    const shards = group.shards.map(({ length }, k) => {
      const begin = end;
      end = k === group.shards.length - 1 ? lengthOf(data) : begin + length;
      return [group.paths[k]!, joined(partsBetween(data, begin, end))] as const;
    });
    // A file that has become empty is left out, but one that was empty before is kept.
    const kept = shards.filter(([, bytes], k) => bytes.length > 0 || group.shards[k]!.length === 0);
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
      "model",
      "what JSON can say",
      `an object of which: ${(error as Error).message}`,
    );
  }
}
