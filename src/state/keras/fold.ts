// Folds the batch norms of a TensorFlow.js layers model into the layers beside them, by `fold`, wherever
// that is exact (Jacob et al. 2018, section 3.2), and takes the folded norms out of the model.

import { BatchNormError, StateError } from "../../errors.js";
import { fold } from "../../testtime/fold.js";
import { FLOATS } from "../bytes.js";
import { encodeFolded, foldBeside, type Into } from "../folding.js";
import { timesOf } from "../keys.js";
import type { KeptNorm } from "../layers.js";
import { type Changes, filesOf, noChanges, plain, type WrittenKeras, weightsAt } from "./files.js";
import { isFirst, kernelOf, linearOf, rankOf } from "./linear.js";
import { loadLayer } from "./load.js";
import { findWeight, type KerasFiles, type Model, parse, weightOf } from "./model.js";
import { Container, containersOf, type Layer } from "./network.js";
import { numbersOf, valuesOf, type Weight } from "./shards.js";
import type { Json } from "./topology.js";

/** What {@link foldKeras} returns. */
export interface FoldedKeras extends WrittenKeras {
  /** The names of the norms that were folded, as `readKeras` lists them. */
  readonly folded: readonly string[];
  /** The norms that were not folded, and why neither the layer before nor the layer after could take them in. */
  readonly kept: readonly KeptNorm[];
}

/** A model whose norms are being folded. */
interface Work {
  readonly model: Model;
  readonly changes: Changes;
  /** How many layers of the model have a name. */
  readonly count: ReadonlyMap<string, number>;
}

/**
 * Folds the batch norms of a whole TensorFlow.js layers model into the linear layers and convolutions
 * beside them, where that is exact. The new model gives the same predictions with fewer layers. A norm is
 * folded into the layer before it if that layer has no activation and nothing else uses its output. If
 * not, it is folded into the layer after it if only that layer uses the norm's output and that layer has no
 * padding. A layer without a bias gets one. Everything else in the files stays as it is, except for an
 * optimizer's state: it would not fit the layers any more, and is left out.
 *
 * Weights into which a norm is folded become float32, even if they were quantized: fold first, then
 * quantize. A folded model is for test time; keep the original if you want to train further.
 *
 * @param files `model.json` and its weight files, as for {@link readKeras}; unchanged.
 * @returns the files of the new model, and which norms were folded.
 * @throws ShapeError if a file is not bytes; OptionError if `files` is no `{ model, weights }`; StateError
 * for files that are truncated, malformed or missing, and for a graph model, whose norms the converter has
 * already folded where it could.
 *
 * @example
 * const files = { model: original.model, weights: original.weights };
 * const { model, weights, folded, kept } = foldKeras(files);
 * for (const { name, reason } of kept) console.log(`${name} stays: ${reason}`);
 */
export function foldKeras(files: KerasFiles): FoldedKeras {
  const model = parse("files", files);
  if (model.own !== null) {
    throw new StateError(
      "model",
      "a layers model",
      "a graph model, in which the converter has folded what can be",
    );
  }
  const containers = containersOf(model.json.modelTopology);
  const all = containers.flatMap(({ layers }) => layers);
  const count = timesOf(all.map(({ name }) => name));
  const places = new Map<unknown, Layer>(all.map((layer) => [layer.item, layer]));
  const work: Work = { model, changes: noChanges(), count };
  const folded: string[] = [];
  const kept: KeptNorm[] = [];
  for (const [name, { item, unlisted }] of model.layers) {
    const layer = places.get(item);
    const apart = unlisted ? "the config does not list it" : "it is in a wrapper";
    const reason = layer === undefined ? apart : foldOne(work, name, layer);
    if (reason === null) folded.push(name);
    else kept.push({ name, reason });
  }
  if (folded.length > 0) {
    for (const container of containers) container.write(work.changes.replaced);
    leaveOptimizerOut(work);
  }
  return { ...filesOf(model, work.changes), folded, kept };
}

/** Folds a norm into a layer beside it. Returns `null`, or the reason why the norm stays. */
function foldOne(work: Work, name: string, norm: Layer): string | null {
  const { container } = norm;
  if (Container.hasOptions(norm)) return "it is called with options";
  return foldBeside((into) => {
    const layer = container[into](norm);
    try {
      foldInto(work, name, norm, layer, into);
    } catch (error) {
      if (!(error instanceof BatchNormError)) throw error;
      throw new StateError(`"${layer.name}" ${into} it: ${error.message}`);
    }
    leaveOut(work, name);
    container.remove(norm);
  });
}

/** Folds a norm into a layer. Throws a BatchNormError if that is not possible; then nothing has changed. */
function foldInto(work: Work, name: string, norm: Layer, layer: Layer, into: Into): void {
  const kernel = kernelOf(layer, into);
  checkAxis(norm, layer);
  const weights = weightsOf(work, layer, kernel);
  const { weight, bias } = fold(frozenOf(work.model, name, norm.config), {
    weight: weights.weight,
    bias: weights.bias,
    ...linearOf(layer, weights.shape),
    into,
  });
  put(work, layer, weights, weight, bias);
}

/** Throws unless a norm normalizes along the channels of a layer beside it. */
function checkAxis({ config, container }: Layer, layer: Layer): void {
  const { axis = -1 } = config;
  const own: unknown = Array.isArray(axis) && axis.length === 1 ? axis[0] : axis;
  const rank = rankOf(layer) ?? (own === -1 ? null : container.rankOf(layer));
  const last = own === -1 || (rank !== null && own === rank - 1);
  const first = own === 1 || (rank !== null && own === 1 - rank);
  if (isFirst(layer) ? first : last) return;
  const which = `axis ${JSON.stringify(axis)}`;
  throw new StateError(
    rank === null
      ? `whether ${which} is that of its channels is not known`
      : `${which} is not that of its channels`,
  );
}

/** The norm at test time. The layout does not matter for folding. */
const frozenOf = (model: Model, name: string, config: Json) =>
  loadLayer(
    name,
    {
      config,
      layout: () => "channelsLast",
      values: (weight) => valuesOf(weightOf(model, name, weight)),
    },
    { onWarning: () => {} },
  ).freeze();

/** The weights of a layer that a norm is folded into, with the changes by norms that were folded before. */
interface Weights {
  readonly key: string;
  readonly shape: unknown;
  readonly weight: Float32Array;
  readonly bias: Float32Array | null;
  /** The name of the bias, `null` if the file has none. */
  readonly biasKey: string | null;
}

function weightsOf(work: Work, layer: Layer, name: string): Weights {
  const { model, changes } = work;
  const float32 = (weight: Weight) => new Float32Array(numbersOf(weight));
  const key = find(work, layer, name).entry.name as string;
  const [kernel, made] = weightsAt(model, changes, key);
  const own = { key, shape: kernel!.entry.shape, weight: float32(kernel!) };
  if (made) return { ...own, bias: float32(made), biasKey: null };
  if (layer.config.use_bias === false) return { ...own, bias: null, biasKey: null };
  const biasKey = find(work, layer, "bias").entry.name as string;
  return { ...own, bias: float32(weightsAt(model, changes, biasKey)[0]!), biasKey };
}

/** Where a weight of a layer lies in the files. */
function find({ model, count }: Work, { container, name }: Layer, weight: string): Weight {
  const loose = count.get(name) === 1 ? [name] : [];
  const found = findWeight(model, [[...container.inside, name].join("/")], loose, weight);
  if (typeof found === "object") return found;
  throw new StateError("weightsManifest", `"${name}/${weight}"`, found);
}

/** Replaces a layer's weights by folded ones. A layer without a bias gets one. */
function put(
  { model, changes }: Work,
  layer: Layer,
  { key, biasKey }: Weights,
  weight: Float32Array,
  bias: Float32Array,
): void {
  const weightBytes = encodeFolded("weight", FLOATS.F32!, weight);
  const biasBytes = encodeFolded("bias", FLOATS.F32!, bias);
  const set = (name: string, bytes: Uint8Array, ...behind: Weight[]): void => {
    const entry = { ...plain(model.weights.get(name)!.entry), dtype: "float32" };
    changes.weights.set(name, [{ entry, data: () => bytes }, ...behind]);
  };
  if (biasKey === null) {
    const name = key.replace(/[^/]*$/, "bias");
    if (model.weights.has(name)) {
      throw new StateError("use_bias", `true, since there is a "${name}"`, "false");
    }
    const entry = { name, shape: [bias.length], dtype: "float32" };
    set(key, weightBytes, { entry, data: () => biasBytes });
    layer.config = { ...layer.config, use_bias: true };
  } else {
    set(key, weightBytes);
    set(biasKey, biasBytes);
  }
}

/** Leaves out all weights under the name of a norm, those of batch renormalization included. */
function leaveOut({ model, changes }: Work, name: string): void {
  const mean = weightOf(model, name, "moving_mean").entry.name as string;
  const owner = mean.slice(0, -"moving_mean".length);
  for (const key of model.weights.keys()) {
    // The names of other layers may begin with this one's name and a slash: those have a further slash.
    const own = key.startsWith(owner) && !key.includes("/", owner.length);
    if (own) changes.weights.set(key, []);
  }
}

/** Leaves out the state of an optimizer, whose shapes are those of the weights before folding. */
function leaveOptimizerOut({ model, changes }: Work): void {
  for (const [key, { entry }] of model.weights) {
    if (entry.group === "optimizer") changes.weights.set(key, []);
  }
}
