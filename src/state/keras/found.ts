// Finds the batch-norm layers of Keras' own files: those that the model's config lists, and those of which
// the file has arrays but the config says nothing.

import { StateError } from "../../errors.js";
import type { Layout } from "../../values/layout.js";
import type { Hdf5Node } from "../hdf5/node.js";
import { timesOf } from "../keys.js";
import { legacyFinder, legacyRoot, type Norm, normsIn } from "./legacy.js";
import { type Arrays, arraysIn, groupsOf, nameIn } from "./saved.js";
import { type Json, type KerasLayer, layersOf, layoutOf } from "./topology.js";

/** A layer of a file. */
export interface Found {
  /** Its config, `null` where the file has none. */
  readonly config: Json | null;
  readonly layout: () => Layout;
  /**
   * Which parameters a layer without a config has. `null` if it has a config, or if it has one of the two
   * and its arrays do not say which.
   */
  readonly has: { readonly scale: boolean; readonly center: boolean } | null;
  /**
   * The array of one of the layer's weights, `null` if there is none. The config tells which arrays there
   * are, where they have numbers for names.
   */
  readonly array: (weight: string, config: Json) => Hdf5Node | null;
}

/** The layers of a file by name. */
export function findLayers(root: Hdf5Node, config: unknown): ReadonlyMap<string, Found> {
  const weights = legacyRoot(root);
  return weights === null ? savedLayers(root, config) : legacyLayers(weights, config);
}

/** A layer that the config lists. */
const listedLayer = (name: string, layer: KerasLayer, array: Found["array"]): Found => ({
  config: layer.config,
  layout: () => layoutOf(name, layer),
  has: null,
  array,
});

/** A layer without a config. Its channels are on the last axis, which is Keras' default. */
const otherLayer = (has: Found["has"], array: Found["array"]): Found => ({
  config: null,
  layout: () => "channelsLast",
  has,
  array,
});

/**
 * The layers of an `.h5` file: first those that its config lists, if it has one, then those that it does not
 * list, named after their groups or their arrays.
 */
function legacyLayers(weights: Hdf5Node, config: unknown): Map<string, Found> {
  const layers = new Map<string, Found>();
  const norms = normsIn(weights);
  const listed = new Set<Norm>();
  if (config !== null) {
    const known = layersOf(config);
    const find = legacyFinder(norms, known);
    for (const [name, layer] of known) {
      const found = find(name);
      if (typeof found !== "string") listed.add(found);
      const array = (weight: string): Hdf5Node | null => {
        if (typeof found === "string") throw new StateError(found);
        return found.array(weight);
      };
      layers.set(name, listedLayer(name, layer, array));
    }
  }
  for (const [top, inside] of norms) {
    for (const norm of inside) {
      if (listed.has(norm)) continue;
      let own = inside.length === 1 ? top : norm.name;
      while (layers.has(own)) own = `${top}/${own}`;
      const has = { scale: norm.has("gamma"), center: norm.has("beta") };
      layers.set(own, otherLayer(has, norm.array));
    }
  }
  return layers;
}

/** The layers of a file of Keras 3: first those that its config lists, then those that it does not list. */
function savedLayers(root: Hdf5Node, config: unknown): Map<string, Found> {
  const layers = new Map<string, Found>();
  const listed = new Set<number>();
  if (config !== null) {
    const groups = groupsOf(config, root);
    const known = layersOf(config);
    // The weights of a layer that two models share are kept in the first of them only. Both entries of the
    // config have the same shared_object_id.
    const shared = new Map<unknown, Hdf5Node>();
    for (const { item } of known.values()) {
      const group = groups.get(item);
      if (group !== undefined) shared.set(item.shared_object_id, group);
    }
    shared.delete(undefined);
    for (const [name, layer] of known) {
      const group = groups.get(layer.item) ?? shared.get(layer.item.shared_object_id);
      if (group !== undefined) listed.add(group.address);
      const arrays = group === undefined ? [] : arraysIn(group);
      layers.set(name, listedLayer(name, layer, finderIn(arrays)));
    }
  }
  for (const [name, arrays] of otherNorms(root, listed, layers)) {
    const count = arrays.length;
    const has = count === 3 ? null : { scale: count > 3, center: count > 3 };
    layers.set(name, otherLayer(has, finderIn(arrays)));
  }
  return layers;
}

/** The weights of a layer in the order in which they lie, gamma and beta if it has them. */
const ORDER = "gamma beta moving_mean moving_variance moving_stddev renorm_mean renorm_stddev";

/** Returns a function that finds the array of a weight. */
const finderIn =
  (arrays: Arrays): Found["array"] =>
  (weight, { scale, center }) => {
    const missing = [scale === false && "gamma", center === false && "beta"];
    const kept = ORDER.split(" ").filter((each) => !missing.includes(each));
    return arrays[kept.indexOf(weight)] ?? null;
  };

/** Matches the names of the groups of batch-norm layers. */
const GROUP = /^(sync_)?batch_normalization(_\d+)?$/;

/**
 * The arrays of batch norms that no config lists, by name. A group is taken for a batch norm if it is named
 * after that class and has two to four vectors (seven with batch renormalization), or if it has any other
 * name and exactly four vectors, which no other layer of Keras has.
 */
function otherNorms(
  root: Hdf5Node,
  listed: ReadonlySet<number>,
  taken: ReadonlyMap<string, Found>,
): Map<string, Arrays> {
  const norms: { name: string | null; path: string; arrays: Arrays }[] = [];
  const seen = new Set(listed);
  const left = [root];
  while (left.length > 0) {
    const group = left.pop()!;
    if (seen.has(group.address)) continue;
    seen.add(group.address);
    const arrays = arraysIn(group);
    const last = group.path.slice(group.path.lastIndexOf("/") + 1);
    const counts = GROUP.test(last) ? [2, 3, 4, 7] : [4];
    if (counts.includes(arrays.length) && areVectors(arrays)) {
      norms.push({ name: nameIn(group), path: group.path, arrays });
      continue;
    }
    left.push(...group.groups.filter(({ path }) => path !== "/optimizer").reverse());
  }
  const count = timesOf(norms.flatMap(({ name }) => name ?? []));
  const named = new Map<string, Arrays>();
  for (const { name, path, arrays } of norms) {
    const own = name !== null && count.get(name) === 1 ? name : placeOf(path);
    const isTaken = taken.has(own) || named.has(own);
    named.set(isTaken ? path : own, arrays);
  }
  return named;
}

/** A name for a group by its path, without the names of containers, such as "layers". */
const placeOf = (path: string): string =>
  path
    .split("/")
    .filter((part) => !/^(layers|_layer_checkpoint_dependencies)?$/.test(part))
    .join("/");

/** True if all arrays are vectors of floating-point numbers, and of the same length. */
function areVectors(arrays: Arrays): boolean {
  return arrays.every(
    (array) =>
      array.isArray &&
      array.isFloat &&
      array.shape.length === 1 &&
      array.shape[0] === arrays[0]!.shape[0],
  );
}
