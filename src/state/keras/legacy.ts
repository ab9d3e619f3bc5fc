// Finds the weights of a layer in an `.h5` file of Keras 2, which Keras 3 writes on request. Each layer
// has a group of its name, whose attribute `weight_names` lists its arrays
// (keras/src/legacy/saving/legacy_h5_format.py, save_weights_to_hdf5_group). A long list is divided into
// `weight_names0`, `weight_names1` and so on. Keras 1 calls the averages running_mean and running_std, and has
// `_` in place of the `/` before each name; what it keeps in running_std is the variance, and Keras 2 loads it
// as that (keras 2.0, layers/normalization.py; engine/topology.py, preprocess_weights_for_loading). A model
// inside the model has one group for the weights of all its layers, in the order of the layers. Keras matches
// them by this order when it loads, whatever their names are.

import type { Hdf5Node } from "../hdf5/node.js";
import { Numbered } from "./numbered.js";
import { fullName, type KerasLayer } from "./topology.js";

/** The arrays of a batch norm by weight: gamma, beta, moving_mean, moving_variance. */
export interface Norm {
  /** The part of its arrays' names before that of the weight: `bn` in `bn/gamma:0`. */
  readonly prefix: string;
  /** The name of the group that its arrays are in. */
  readonly top: string;
  /** Its name if the group has several norms: the prefix and, if norms share that, its number. */
  readonly name: string;
  /** True if there is an array of a weight, though it may be that of a norm with the same prefix. */
  readonly has: (weight: string) => boolean;
  /** The array of a weight, `null` if there is none. Throws StateError if it may be another norm's. */
  readonly array: (weight: string) => Hdf5Node | null;
}

/** The group that contains the groups of all layers, `null` for a file that is not of this kind. */
export function legacyRoot(root: Hdf5Node): Hdf5Node | null {
  if (root.texts("layer_names") ?? root.texts("layer_names0")) return root;
  return root.get("model_weights");
}

/** The texts of a list, which may be divided into several attributes if it is long. */
function listOf(node: Hdf5Node, name: string): string[] {
  const whole = node.texts(name);
  if (whole !== null) return whole;
  const list: string[] = [];
  for (let i = 0; ; i++) {
    const part = node.texts(`${name}${i}`);
    if (part === null) return list;
    for (const text of part) list.push(text);
  }
}

/** Matches the name of the mean: before Keras 2, that of a layer `bn` is `bn_running_mean`. */
const MEAN = /(?:(?:^|\/)moving|(?:^|_)running)_mean(_\d+)?(:\d+)?$/;

/** The batch norms of a file by the names of their groups, in the order of the weights in each group. */
export function normsIn(weights: Hdf5Node): ReadonlyMap<string, readonly Norm[]> {
  const norms = new Map<string, readonly Norm[]>();
  for (const top of listOf(weights, "layer_names")) {
    const group = weights.get(top);
    if (group === null) continue;
    const found: Norm[] = [];
    const names = new Set(listOf(group, "weight_names"));
    const numbered = new Numbered(names);
    for (const name of names) {
      const mean = MEAN.exec(name);
      if (mean === null) continue;
      const prefix = name.slice(0, mean.index);
      const [whole] = mean;
      // What separates the names: "/", "_", or nothing where there is no name before.
      const start = prefix + /^\W?_?/.exec(whole)![0];
      const old = whole.includes("running");
      const stemOf = (weight: string): string =>
        start + (old ? weight.replace("moving", "running").replace("variance", "std") : weight);
      const number = numbered.numberOf(name);
      found.push({
        prefix,
        top,
        name: (prefix || top) + (number && `/${number}`),
        has: (weight) => numbered.has(stemOf(weight)),
        array(weight) {
          const own = numbered.beside(name, stemOf(weight));
          return own === null ? null : group.get(own);
        },
      });
    }
    norms.set(top, found);
  }
  return norms;
}

/**
 * Returns a function that finds the arrays of a layer by the layer's name. Where it finds none, or cannot tell which
 * they are, it returns a sentence that says so.
 *
 * @param norms the batch norms in the file's groups.
 * @param layers the batch-norm layers that the config lists.
 */
export function legacyFinder(
  norms: ReadonlyMap<string, readonly Norm[]>,
  layers: ReadonlyMap<string, KerasLayer>,
): (name: string) => Norm | string {
  const topOf = ({ inside, leaf }: KerasLayer): string => inside[0] ?? leaf;
  const tops = new Map<string, KerasLayer[]>();
  for (const layer of layers.values()) {
    const same = tops.get(topOf(layer));
    if (same) same.push(layer);
    else tops.set(topOf(layer), [layer]);
  }
  return (name) => {
    const layer = layers.get(name)!;
    const top = topOf(layer);
    const found = norms.get(top) ?? [];
    const beside = tops.get(top)!;
    if (found.length === beside.length) return found[beside.indexOf(layer)]!;
    // The numbers differ if two models share a layer, since its weights are kept only once. The order says
    // nothing then, so the layer is found by its name.
    const own = [fullName(layer), layer.leaf];
    const named = found.filter(({ prefix }) =>
      own.some((each) => prefix === each || prefix.endsWith(`/${each}`)),
    );
    const alone = beside.filter(({ leaf }) => leaf === layer.leaf).length === 1;
    if (named.length === 1 && alone) return named[0]!;
    return (
      `layer "${name}": expected the weights of ${beside.length} batch norms in the group "${top}", ` +
      `got those of ${found.length}`
    );
  };
}
