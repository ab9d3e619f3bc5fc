// Finds the weights of a layer in the HDF5 file of a `.keras` archive and in `.weights.h5`, as Keras 3,
// and tf.keras from 2.12 on, write them. A model's group contains a group `layers`, the container, with a
// group for each layer. That is named after the layer's class in snake case and its number among the
// layers of this class in the container: "conv2d", "conv2d_1" and so on. It contains a group `vars` of
// arrays "0", "1" and so on (keras/src/saving/saving_lib.py, _save_state and _save_container_state;
// keras/src/utils/naming.py, to_snake_case).
//
// tf.keras 2.12 calls the container `_layer_checkpoint_dependencies`, and uses only every second number.
// Newer files have the layer's own name as an attribute of `vars`.

import { isObject } from "../bytes.js";
import type { Hdf5Node } from "../hdf5/node.js";
import type { Json } from "./topology.js";

/** The arrays of a layer in the order of their numbers. */
export type Arrays = readonly Hdf5Node[];

/** The name of a class as Keras' paths have it: "batch_normalization" for BatchNormalization. */
export const snakeCase = (name: string): string =>
  name
    .replace(/[^\p{L}\p{N}_]+/gu, "")
    .replace(/(.)([A-Z][a-z]+)/g, "$1_$2")
    .replace(/([a-z])([A-Z])/g, "$1_$2")
    .toLowerCase();

/** The layer's own name, which its group has as an attribute; `null` in older files, which have none. */
export const nameIn = (group: Hdf5Node): string | null =>
  group.get("vars")?.texts("name")?.[0] ?? null;

/** The groups of a model's layers, by the objects that stand for the layers in the model's parsed JSON. */
export function groupsOf(model: unknown, root: Hdf5Node): ReadonlyMap<Json, Hdf5Node> {
  const groups = new Map<Json, Hdf5Node>();
  // Not recursive: a file may nest deeper than the call stack reaches.
  const left: [item: unknown, group: Hdf5Node][] = [[model, root]];
  while (left.length > 0) {
    const [item, group] = left.pop()!;
    if (!isObject(item) || !isObject(item.config) || groups.has(item)) continue;
    groups.set(item, group);
    for (const [attribute, value] of Object.entries(item.config)) {
      if (Array.isArray(value)) {
        const inside = group.get(attribute) ?? group.get(OLD_NAMES[attribute] ?? attribute);
        if (inside !== null) left.push(...pairsOf(value, inside));
      } else if (isObject(value) && isObject(value.config)) {
        // This is a layer in a wrapper. Its group is named after the key that the wrapper's config has for it.
        const inside = group.get(attribute);
        if (inside !== null) left.push([value, inside]);
      }
    }
  }
  return groups;
}

/** What tf.keras 2.12 calls a container, by its name in newer files. */
const OLD_NAMES: Readonly<Record<string, string>> = { layers: "_layer_checkpoint_dependencies" };

/** Pairs the layers that a config lists in a container with their groups. */
function pairsOf(items: readonly unknown[], container: Hdf5Node): [Json, Hdf5Node][] {
  const kinds = new Map<string, Json[]>();
  for (const item of items) {
    if (!isObject(item) || !isObject(item.config) || typeof item.class_name !== "string") continue;
    const kind = snakeCase(item.class_name);
    const same = kinds.get(kind);
    if (same) same.push(item);
    else kinds.set(kind, [item]);
  }
  const numbered = numberedIn(container);
  const pairs: [Json, Hdf5Node][] = [];
  for (const [kind, same] of kinds) {
    const found = numbered.get(kind) ?? [];
    // With as many groups as layers, they match in order, whatever the numbers are. There are fewer groups
    // if a layer is shared with another container and kept there; then the numbers tell which is missing.
    const inOrder = found.length === same.length;
    const named = new Map(found.map(({ group }) => [nameIn(group), group]));
    for (const [k, item] of same.entries()) {
      const { name } = item.config as Json;
      const group =
        (typeof name === "string" ? named.get(name) : undefined) ??
        (inOrder ? found[k] : found.find(({ number }) => number === k))?.group;
      if (group !== undefined) pairs.push([item, group]);
    }
  }
  return pairs;
}

/** The groups in a container by class, each class in the order of its numbers ("conv2d" is number 0). */
function numberedIn(container: Hdf5Node): Map<string, { number: number; group: Hdf5Node }[]> {
  const kinds = new Map<string, { number: number; group: Hdf5Node }[]>();
  for (const name of container.names) {
    const [, kind, digits] = /^(.*?)(?:_(\d+))?$/s.exec(name)!;
    const group = container.get(name)!;
    const same = kinds.get(kind!) ?? [];
    same.push({ number: digits === undefined ? 0 : Number(digits), group });
    kinds.set(kind!, same);
  }
  for (const same of kinds.values()) same.sort((a, b) => a.number - b.number);
  return kinds;
}

/** The arrays in a layer's group; an empty list if it has none. */
export function arraysIn(group: Hdf5Node): Arrays {
  const vars = group.get("vars");
  const arrays: Hdf5Node[] = [];
  for (;;) {
    const array = vars?.get(String(arrays.length)) ?? null;
    if (array === null) return arrays;
    arrays.push(array);
  }
}
