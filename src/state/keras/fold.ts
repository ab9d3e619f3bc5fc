// Folds the batch norms of a TensorFlow.js layers model into the layers beside them, by `fold`, wherever
// that is exact (Jacob et al. 2018, section 3.2), and takes the folded norms out of the model.

import { BatchNormError, StateError } from "../../errors.js";
import { fold } from "../../testtime/fold.js";
import { FLOATS } from "../bytes.js";
import { encodeFolded, foldAll, foldBeside, type Into } from "../folding.js";
import { timesOf } from "../keys.js";
import type { KeptNorm } from "../layers.js";
import { type Changes, filesOf, noChanges, plain, type WrittenKeras, weightsAt } from "./files.js";
import { isFirst, kernelsOf, linearOf } from "./linear.js";
import { loadLayer, type Stated } from "./load.js";
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
  /** How many layers of the model may have their weights under a name. */
  readonly count: ReadonlyMap<string, number>;
}

/**
 * Folds the batch norms of a whole TensorFlow.js layers model into the linear layers and convolutions
 * beside them, where that is exact. The new model gives the same predictions with fewer layers. A norm is
 * folded into the layer before it, if that layer has no activation and only the norm uses its output. Otherwise it is
 * folded into the layer after it, if only that layer uses the norm's output. Unless the norm maps 0 to 0, a convolution
 * after it must not pad its input with zeros, and a transposed one must have a single tap and strides of 1. Layers between the
 * two that change nothing at test time, such as Dropout, do not matter. Each of these layers may be in TimeDistributed.
 * `kept` says why each other norm stays. A layer without a bias gets one. Everything else in the files stays as it is, except for an
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
  const count = timesOf(all.flatMap((layer) => [...new Set(namesOf(layer))]));
  const places = new Map<unknown, Layer>(all.map((layer) => [layer.inner, layer]));
  const work: Work = { model, changes: noChanges(), count };
  const names = [...model.layers.keys()];
  // A file may list layers in any order.
  const ranks = new Map<unknown, number>(
    containers.flatMap((each) => each.inOrder()).map(({ inner }, i) => [inner, i]),
  );
  const rankOfNorm = (name: string): number => ranks.get(model.layers.get(name)!.item) ?? -1;
  const order = [...names].sort((a, b) => rankOfNorm(a) - rankOfNorm(b));
  const { folded, kept } = foldAll(names, order, (name) => {
    const { item, unlisted } = model.layers.get(name)!;
    const layer = places.get(item);
    if (layer !== undefined) return foldOne(work, name, layer);
    return unlisted ? "the config does not list it" : "it is in a wrapper";
  });
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
  const names = kernelsOf(layer, into);
  checkAxis(norm, layer);
  const kernels = names.map((each) => kernelIn(work, layer, each));
  const [first, last] = [kernels[0]!, kernels.at(-1)!];
  const before = biasOf(work, layer, last);
  const foldTo = (kernel: Kernel, config: Json, values: Stated["values"]) =>
    fold(frozenOf(name, config, values), {
      weight: kernel.values,
      bias: kernel === last ? before.values : null,
      ...linearOf(layer, kernel),
      into,
    });
  const kernel = into === "before" ? last : first;
  let { weight, bias } = foldTo(kernel, norm.config, (each) =>
    valuesOf(weightOf(work.model, name, each)),
  );
  if (kernel !== last) {
    // The first convolution of a SeparableConv would need this bias, but has none. To add it is what a norm does that
    // has nothing but beta, and the second convolution takes that norm in.
    const beta = Float64Array.from(bias);
    const adding: Record<string, Float64Array> = {
      beta,
      moving_mean: beta.map(() => 0),
      moving_variance: beta.map(() => 1),
    };
    bias = foldTo(last, { scale: false, epsilon: 0 }, (each) => adding[each]!).bias;
  }
  put(work, layer, kernel, weight, before, bias);
}

/** Throws unless a norm normalizes along the channels of a layer beside it. */
function checkAxis({ config, container, timed }: Layer, layer: Layer): void {
  const { axis = -1 } = config;
  const own: unknown = Array.isArray(axis) && axis.length === 1 ? axis[0] : axis;
  const first = isFirst(layer);
  if (own === -1 && !first) return;
  const rank = container.rankOf(layer);
  if (rank !== null) {
    // Both numbers count the axes that the norm sees. On axis 0 are the examples, never the channels.
    const axes = rank - timed;
    const channels = first ? 1 + layer.timed - timed : axes - 1;
    if (channels > 0 && (own === channels || own === channels - axes)) return;
  }
  const which = `axis ${JSON.stringify(axis)}`;
  throw new StateError(
    rank === null
      ? `whether ${which} is that of its channels is not known`
      : `${which} is not that of its channels`,
  );
}

/** A norm at test time. The layout does not matter for folding. */
const frozenOf = (name: string, config: Json, values: Stated["values"]) =>
  loadLayer(
    name,
    { config, layout: () => "channelsLast", values },
    { onWarning: () => {} },
  ).freeze();

/** A kernel of a layer, with the changes by norms that were folded before. */
interface Kernel {
  /** Its name within the layer. */
  readonly name: string;
  /** Its name in the files. */
  readonly key: string;
  readonly shape: unknown;
  readonly values: Float32Array;
}

/** The bias of a layer, with the changes by norms that were folded before. */
interface Bias {
  readonly values: Float32Array | null;
  /** Its name in the files, `null` if they have none. */
  readonly key: string | null;
  /** The name of the kernel behind which a bias is written that the files do not have. */
  readonly behind: string;
}

const float32 = (weight: Weight): Float32Array => new Float32Array(numbersOf(weight));

function kernelIn(work: Work, layer: Layer, name: string): Kernel {
  const key = find(work, layer, name).entry.name as string;
  const kernel = weightsAt(work.model, work.changes, key)[0]!;
  return { name, key, shape: kernel.entry.shape, values: float32(kernel) };
}

/** The bias of a layer with this last kernel. */
function biasOf(work: Work, layer: Layer, { key: behind }: Kernel): Bias {
  const { model, changes } = work;
  const made = weightsAt(model, changes, behind)[1];
  if (made) return { values: float32(made), key: null, behind };
  if (layer.config.use_bias === false) return { values: null, key: null, behind };
  const key = find(work, layer, "bias").entry.name as string;
  return { values: float32(weightsAt(model, changes, key)[0]!), key, behind };
}

/** Where a weight of a layer lies in the files. */
function find({ model, count }: Work, layer: Layer, weight: string): Weight {
  const { container, name, timed } = layer;
  const names = namesOf(layer);
  const full = [...container.inside, name].join("/");
  const loose = names.filter((each) => count.get(each) === 1);
  const found = findWeight(model, timed ? [`${full}/${names[0]}`, full] : [full], loose, weight);
  if (typeof found === "object") return found;
  throw new StateError("weightsManifest", `"${name}/${weight}"`, found);
}

/** The names under which a layer's weights may be: its own and, if it is in TimeDistributed, also the wrapper's. */
const namesOf = ({ config, name, timed }: Layer): readonly string[] =>
  timed ? [String(config.name), name] : [name];

/** Replaces a kernel and the bias of a layer by folded ones. A layer without a bias gets one. */
function put(
  { model, changes }: Work,
  layer: Layer,
  kernel: Kernel,
  weight: Float32Array,
  { key, behind }: Bias,
  bias: Float32Array,
): void {
  const weightBytes = encodeFolded("weight", FLOATS.F32!, weight);
  const biasBytes = encodeFolded("bias", FLOATS.F32!, bias);
  const set = (name: string, bytes: Uint8Array): void => {
    const entry = { ...plain(model.weights.get(name)!.entry), dtype: "float32" };
    changes.weights.set(name, [{ entry, data: () => bytes }]);
  };
  const made = behind.replace(/[^/]*$/, "bias");
  if (key === null && model.weights.has(made)) {
    throw new StateError("use_bias", `true, since there is a "${made}"`, "false");
  }
  set(kernel.key, weightBytes);
  if (key !== null) set(key, biasBytes);
  else {
    const entry = { name: made, shape: [bias.length], dtype: "float32" };
    const last = weightsAt(model, changes, behind)[0]!;
    changes.weights.set(behind, [last, { entry, data: () => biasBytes }]);
    layer.config = { ...layer.config, use_bias: true };
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
