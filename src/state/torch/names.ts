// Finds the tensors of batch norms among those of a PyTorch model by their names. Known are the names that
// PyTorch's modules use (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html), those
// that pruning makes of them (torch/nn/utils/prune.py: weight_orig and weight_mask), and gamma and beta,
// which Burn and candle write into files of PyTorch's formats.

import { StateError } from "../../errors.js";
import type { Tensor } from "../safetensors.js";

type Tensors = ReadonlyMap<string, Tensor>;

/** The key of a module's tensor in the state_dict. The name of the outermost module is "". */
export const keyOf = (name: string, tensor: string): string =>
  name === "" ? tensor : `${name}.${tensor}`;

/** The names that the scale and the shift may have; PyTorch's own come first. */
const SCALES = ["weight", "gamma", "weight_orig"];
const SHIFTS = ["bias", "beta", "bias_orig"];
const AVERAGES = ["running_mean", "running_var", "num_batches_tracked"];
const MASKS = ["weight_mask", "bias_mask"];
/** The averages that batch renormalization may have of its own, in files of `save`. */
export const RENORM_MEAN = "renorm_mean";
export const RENORM_DEVIATION = "renorm_deviation";
/** The names of all tensors of a batch norm that are known here. */
export const TENSORS: readonly string[] = [
  ...SCALES,
  ...SHIFTS,
  ...MASKS,
  ...AVERAGES,
  RENORM_MEAN,
  RENORM_DEVIATION,
];

/**
 * The key of a module's scale or shift, `null` if it has none.
 *
 * @throws StateError if the module has that parameter under two names.
 */
export function parameterKey(
  tensors: Tensors,
  name: string,
  tensor: "weight" | "bias",
): string | null {
  const names = tensor === "weight" ? SCALES : SHIFTS;
  const [found, other] = names.filter((each) => tensors.has(keyOf(name, each)));
  if (other !== undefined) {
    throw new StateError(keyOf(name, tensor), "one tensor for it", `both ${found} and ${other}`);
  }
  return found === undefined ? null : keyOf(name, found);
}

/** True for the key of a parameter that was pruned: its values are still to be multiplied by a mask. */
export const isPruned = (key: string): boolean => key.endsWith("_orig");

const MEAN = /(^|\.)running_mean$/;

/** The names of all modules that keep both running averages. */
export const layersOf = (tensors: Tensors): string[] =>
  [...tensors.keys()]
    .filter((key) => MEAN.test(key))
    .map((key) => key.replace(MEAN, ""))
    .filter((name) => tensors.has(keyOf(name, "running_var")));

/**
 * The names under which wrapping modules hold the model: `module` in DataParallel and in averaged models,
 * `_orig_mod` in compiled ones.
 */
const WRAPPERS = ["module.", "_orig_mod."];
/** The counter that an averaged model (torch.optim.swa_utils) keeps beside the model that it holds. */
const BESIDE = "n_averaged";

/** What all tensor names begin with because the model was wrapped, `"module."` for instance; else "". */
export function wrapperOf(tensors: Tensors): string {
  const keys = [...tensors.keys()].filter((key) => key !== BESIDE);
  let prefix = "";
  for (let depth = 0; depth < 3 && keys.length > 0; depth++) {
    const next = WRAPPERS.find((each) => keys.every((key) => key.startsWith(prefix + each)));
    if (next === undefined) break;
    prefix += next;
  }
  return prefix;
}

/** The most parts of a name, separated by dots, that are looked at. */
const MOST_DOTS = 64;

/**
 * For each of these modules that has tensors of unknown names, or a mask and nothing to mask, the key of the first
 * such tensor, by the name of the module. It may be a parameter under another name, or something that a parameter is computed
 * from, so the module's numbers cannot be told from its known tensors alone.
 */
export function strangersOf(tensors: Tensors, layers: readonly string[]): Map<string, string> {
  const known = new Set(layers);
  const strangers = new Map<string, string>();
  for (const key of tensors.keys()) {
    const parts = key.split(".", MOST_DOTS);
    for (let end = parts.length - 1; end >= 0; end--) {
      const name = parts.slice(0, end).join(".");
      if (!known.has(name)) continue;
      const tensor = key.slice(name === "" ? 0 : name.length + 1);
      // If the model itself is a batch norm, tensors of the modules inside of it are not its parameters.
      const within = name !== "" || end === parts.length - 1 || parts[0] === "parametrizations";
      const orphan = MASKS.includes(tensor) && !tensors.has(key.replace(/mask$/, "orig"));
      if (within && (orphan || !TENSORS.includes(tensor)) && !strangers.has(name))
        strangers.set(name, key);
      break;
    }
  }
  return strangers;
}
