// Finds the models in what torch.save wrote: a state_dict, a checkpoint that holds state_dicts under keys,
// or a whole module, whose attributes are those of torch.nn.Module
// (https://github.com/pytorch/pytorch/blob/main/torch/nn/modules/module.py: state_dict, named_modules).

import { describe, OptionError, StateError } from "../../errors.js";
import type { Layout } from "../../values/layout.js";
import { isCount } from "../bytes.js";
import { oneOf } from "../layers.js";
import { PyObject } from "../python.js";
import type { Tensor } from "../safetensors.js";
import { layersOf } from "./names.js";
import { counterOf } from "./numbers.js";
import { isTensor, unreadable } from "./tensors.js";

/** What a pickled module says about itself beside its tensors. */
export interface ModuleFacts {
  readonly eps: unknown;
  readonly momentum: unknown;
  readonly layout: Layout | undefined;
  /** False for a module that keeps running averages but is no batch norm: InstanceNorm. */
  readonly normalizes: boolean;
}

/** The tensors of a model by their names, and what is known about its modules by theirs. */
export interface StateDict {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly modules: ReadonlyMap<string, ModuleFacts>;
}

/** The most levels of keys in a checkpoint that are searched for models. */
const MOST_NESTED = 64;
/** The most levels of modules within modules. */
const MOST_LEVELS = 64;
/** The most visits to modules. One module may stand in many models, and is visited in each of them. */
const MOST_MODULES = 100_000;

const NOTHING: ReadonlyMap<never, never> = new Map<never, never>();

const itemsOf = (value: unknown): ReadonlyMap<unknown, unknown> =>
  (value instanceof PyObject ? value.items : null) ?? NOTHING;

/** The value of an object's attribute, `undefined` if it has none of this name. */
const attributeOf = (object: PyObject, name: string): unknown => itemsOf(object.state).get(name);

const isModule = (value: unknown): value is PyObject =>
  value instanceof PyObject &&
  attributeOf(value, "_modules") instanceof PyObject &&
  attributeOf(value, "_buffers") instanceof PyObject;

/** True for an object that is neither a dict nor a tensor: nothing is known about its class. */
const isOther = (value: unknown): value is PyObject =>
  value instanceof PyObject && !value.isDict && value.items === null;

/** The tensors that a dict holds, with their names, which get `prefix` in front. */
function* tensorsOf(dict: unknown, prefix = ""): Generator<[string, Tensor]> {
  for (const [name, value] of itemsOf(dict)) {
    if (typeof name !== "string") continue;
    if (isTensor(value)) yield [prefix + name, value];
    else if (isOther(value)) {
      yield [prefix + name, unreadable(`an object of ${value.type?.path}`)];
    } else if (typeof value !== "object" && /(^|\.)num_batches_tracked$/.test(name)) {
      yield [prefix + name, isCount(value) ? counterOf(value) : unreadable("no tensor")];
    }
  }
}

function factsOf(module: PyObject): ModuleFacts {
  const path = module.type?.path ?? "";
  const axes = /BatchNorm\w*([23])d$/i.exec(path)?.[1];
  return {
    eps: attributeOf(module, "eps"),
    momentum: attributeOf(module, "momentum"),
    layout: axes === undefined ? undefined : axes === "2" ? "NCHW" : "NCDHW",
    normalizes: !/InstanceNorm/.test(path),
  };
}

/**
 * The tensors of a module and of all modules within it, by the names that they would have in its
 * state_dict. A module that stands in several places is listed once, under the name of the first place, as
 * named_modules does it.
 */
function flattened(root: PyObject, count: { modules: number }): StateDict {
  const tensors = new Map<string, Tensor>();
  const modules = new Map<string, ModuleFacts>();
  const seen = new Set<PyObject>();
  const visit = (module: PyObject, prefix: string, level: number): void => {
    if (seen.has(module)) return;
    seen.add(module);
    if (++count.modules > MOST_MODULES || level > MOST_LEVELS) {
      throw new StateError(
        "bytes",
        `at most ${MOST_MODULES} modules on ${MOST_LEVELS} levels`,
        "more",
      );
    }
    modules.set(prefix.slice(0, -1), factsOf(module));
    for (const part of ["_parameters", "_buffers"]) {
      for (const [name, tensor] of tensorsOf(attributeOf(module, part), prefix)) {
        tensors.set(name, tensor);
      }
    }
    for (const [name, child] of itemsOf(attributeOf(module, "_modules"))) {
      if (isModule(child)) visit(child, `${prefix}${name}.`, level + 1);
    }
  };
  visit(root, "", 0);
  return { tensors, modules };
}

/** The names of the batch norms of a model. */
export const normsOf = ({ tensors, modules }: StateDict): string[] =>
  layersOf(tensors).filter((name) => modules.get(name)?.normalizes !== false);

/**
 * All models that have batch norms, by the keys that lead to them, joined by dots. A model is not searched
 * for further models, and a model that stands in several places is found in the first of them only.
 */
function modelsIn(saved: unknown): Map<string, StateDict> {
  const models = new Map<string, StateDict>();
  const count = { modules: 0 };
  const seen = new Set<unknown>();
  let level: [string, unknown][] = [["", saved]];
  for (let depth = 0; depth <= MOST_NESTED && level.length > 0; depth++) {
    const next: [string, unknown][] = [];
    for (const [path, value] of level) {
      if (typeof value !== "object" || value === null || seen.has(value)) continue;
      seen.add(value);
      const model = isModule(value)
        ? flattened(value, count)
        : { tensors: new Map(tensorsOf(value)), modules: NOTHING };
      if (normsOf(model).length > 0) models.set(path, model);
      else if (!isModule(value)) {
        const entries = Array.isArray(value) ? value.entries() : itemsOf(value);
        let place = 0;
        for (const [key, item] of entries) {
          // A key that is a tuple goes by its place.
          const name = typeof key === "object" ? `[${place}]` : `${key}`;
          if (typeof item === "object") next.push([path === "" ? name : `${path}.${name}`, item]);
          place++;
        }
      }
    }
    level = next;
  }
  return models;
}

/**
 * The model in what was saved: the one that `key` names, or without a key the only one that has batch
 * norms. If no model has any and no key was given, a model without tensors is returned.
 *
 * @throws OptionError if there are several models and no key, or if the key leads to no model.
 */
export function modelIn(saved: unknown, key: unknown): StateDict {
  const models = modelsIn(saved);
  if (key === undefined && models.size < 2) {
    return [...models.values()][0] ?? { tensors: NOTHING, modules: NOTHING };
  }
  const model = models.get(key as string);
  if (model !== undefined) return model;
  throw new OptionError(
    "key",
    models.has("")
      ? "none, since the whole file is one model"
      : oneOf([...models.keys()], "none, since nothing in the file has batch norms"),
    key === undefined ? "none" : describe(key),
  );
}
