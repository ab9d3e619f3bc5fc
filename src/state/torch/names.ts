// Which tensors of a PyTorch model are those of its batch norms: by the names that modules give them
// (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html), that pruning gives them
// (torch/nn/utils/prune.py: weight_orig and weight_mask), and that Burn and candle give them in their
// files of PyTorch's kind (gamma and beta).

import { StateError } from "../../errors.js";
import type { Tensor } from "../safetensors.js";

type Tensors = ReadonlyMap<string, Tensor>;

/** The key of a tensor of a module; the whole model's own name is "". */
export const keyOf = (name: string, tensor: string): string =>
  name === "" ? tensor : `${name}.${tensor}`;

/** Names of the scale and the shift, PyTorch's own first. */
const SCALES = ["weight", "gamma", "weight_orig"];
const SHIFTS = ["bias", "beta", "bias_orig"];
const AVERAGES = ["running_mean", "running_var", "num_batches_tracked"];
const MASKS = ["weight_mask", "bias_mask"];
/** All tensors of a batch norm that are known here. */
export const TENSORS: readonly string[] = [...SCALES, ...SHIFTS, ...MASKS, ...AVERAGES];

/** The key of a module's scale or shift, `null` if it has none. */
export function parameterKey(
  tensors: Tensors,
  name: string,
  tensor: "weight" | "bias",
): string | null {
  const names = tensor === "weight" ? SCALES : SHIFTS;
  const [found, other] = names.filter((each) => tensors.has(keyOf(name, each)));
  if (other !== undefined) {
    throw new StateError(keyOf(name, tensor), "one tensor that is it", `${found} and ${other}`);
  }
  return found === undefined ? null : keyOf(name, found);
}

/** True for the key of a parameter of a pruned module, which is multiplied by a mask. */
export const isPruned = (key: string): boolean => key.endsWith("_orig");

const MEAN = /(^|\.)running_mean$/;

/** The names of the modules that keep running averages. */
export const layersOf = (tensors: Tensors): string[] =>
  [...tensors.keys()]
    .filter((key) => MEAN.test(key))
    .map((key) => key.replace(MEAN, ""))
    .filter((name) => tensors.has(keyOf(name, "running_var")));

/** Modules that hold the model under a name of theirs: DataParallel and averaged ones; compiled ones. */
const WRAPPERS = ["module.", "_orig_mod."];
/** What an averaged model (torch.optim.swa_utils) has beside the one that it holds. */
const BESIDE = "n_averaged";

/** What the names of all tensors begin with because the model was wrapped: `"module."` or nothing. */
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

/** How many dots of a name are looked at. */
const MOST_DOTS = 64;

/**
 * By module, the first tensor that is kept within one of these modules and is none that is known: a
 * parameter under another name, or one that a parameter is computed from.
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
      // Other modules of a model that is a batch norm itself are its own affair.
      const within = name !== "" || end === parts.length - 1 || parts[0] === "parametrizations";
      if (within && !TENSORS.includes(tensor) && !strangers.has(name)) strangers.set(name, key);
      break;
    }
  }
  return strangers;
}
