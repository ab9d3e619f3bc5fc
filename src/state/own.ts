// Our own file format. It is a safetensors file with PyTorch's names, so that PyTorch can load it too. The
// averages are in it as float64, and the options of each layer as JSON in the metadata.

import { checkKernels, type Kernels } from "../engine/kernels.js";
import { checkKeys, describe, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { type BatchNormOptions, RECORDED } from "../layer/options.js";
import { type Snapshot, settingsIn } from "../layer/snapshot.js";
import { flag, NO_OPTIONS } from "../values/check.js";
import { type Bytes, jsonOf } from "./bytes.js";
import { entriesOf, fromFile, layerOf } from "./layers.js";
import { parse, type Safetensors, serialize } from "./safetensors.js";
import { keyOf, RENORM_DEVIATION, RENORM_MEAN, TENSORS } from "./torch/names.js";
import { floats, numbersOf } from "./torch/numbers.js";
import { put, putFloats, stateOf } from "./torch/put.js";

/** Options of {@link save}. */
export interface WriteOptions {
  /** A safetensors file to write the layers into: all that is not theirs stays as it is. */
  into?: Bytes;
}

/**
 * A key of the metadata, whose value is the version of our entries there. The options of a layer have a key that
 * begins with this one and ends with the name of the layer.
 */
const KEY = "batchnorm-wasm";
const VERSION = "1";
const LAYER = `${KEY}:`;
/** No options make JSON as long as this, so longer text is refused before it is parsed. */
const LONGEST_RECORD = 1000;
/** Files of our own have nothing to warn about: their averages are exact, and theirs is the counter. */
const refuse = (message: string): never => {
  throw new StateError(message);
};
/** What is recorded of a snapshot; the numbers are tensors. */
const RECORD: string[] = [...RECORDED, "weight", "activation", "renorm", "ageKnown"];
/** The same, and what is in `renorm`. */
const WRITTEN = [...RECORD, "rmax", "dmax", "rmin"];
/** How many layers have a record, so that one that is lost is missed. Files of before do not say it. */
const COUNT = `${KEY}-layers`;

/**
 * Writes layers with their whole state, exactly: training that goes on after {@link load} gives the same bits as
 * training that was never interrupted. The file is a safetensors file with PyTorch's names. It holds gamma and
 * beta as F32, the averages as F64, the counter as I64, and the options in its metadata. PyTorch loads it too if
 * each layer has both gamma and beta or neither, and no `renorm` with averages of its own; it rounds the averages to its
 * own type.
 *
 * @param layers the layers, by names that you choose.
 * @param options `into`: a safetensors file whose other tensors, for instance weights of other layers, are kept.
 * @returns the bytes of the file.
 * @throws OptionError for what is no layer, for a name with half a character in it, and for an unknown option;
 * ShapeError if `into` is no bytes; StateError if the file `into` is malformed or of another format, for a name that is
 * longer than a file can have, and if a `batchesSeen` is no count.
 *
 * @example
 * const bytes = save({ bn1, bn2 });
 * const again = load(bytes); // elsewhere, later: again.bn1, again.bn2
 */
export function save(
  layers: Readonly<Record<string, BatchNorm>>,
  options: WriteOptions = NO_OPTIONS,
): Uint8Array {
  const entries = entriesOf(layers);
  const { tensors, metadata } = originalOf(options);
  const written = new Map(tensors);
  const records = new Map(Object.entries(metadata)).set(KEY, VERSION);
  for (const [name, layer] of entries) {
    for (const tensor of TENSORS) written.delete(keyOf(name, tensor));
    put(written, name, stateOf(layer), "F64", refuse);
    if (layer.renorm?.decay !== undefined) {
      putFloats(written, keyOf(name, RENORM_MEAN), layer.renormMean, "F64");
      putFloats(written, keyOf(name, RENORM_DEVIATION), layer.renormDeviation, "F64");
    }
    records.set(LAYER + name, JSON.stringify(layer, WRITTEN));
  }
  records.set(COUNT, `${[...records.keys()].filter((key) => key.startsWith(LAYER)).length}`);
  return serialize({ tensors: written, metadata: Object.fromEntries(records) });
}

/** True for a file of {@link save}. */
export const isOwn = ({ metadata }: Pick<Safetensors, "metadata">): boolean =>
  metadata[KEY] === VERSION;

/** The file to write into, or an empty one, marked as those of PyTorch are. */
function originalOf(options: WriteOptions): Safetensors {
  checkKeys("options", options, ["into"]);
  const { into } = options;
  return into === undefined
    ? { tensors: new Map(), metadata: { format: "pt" } }
    : parse("into", into);
}

/**
 * Reads all layers that {@link save} wrote, exact to the bit.
 *
 * @param bytes the file.
 * @param options `kernels`: kernels of your own for the layers.
 * @throws ShapeError for what is no bytes; StateError for a file that is truncated, malformed, of another format or
 * not written by `save`, and if it lacks options of a layer, or those of one are not as `save` writes them; OptionError for an unknown option.
 */
export function load(
  bytes: Bytes,
  options: { kernels?: Kernels } = NO_OPTIONS,
): Record<string, BatchNorm> {
  checkKeys("options", options, ["kernels"]);
  const { kernels: own } = options;
  const file = parse("bytes", bytes);
  if (!isOwn(file)) {
    throw new StateError(
      "__metadata__",
      `"${KEY}" of version ${VERSION}, as save writes it`,
      `${describe(file.metadata[KEY] ?? null)}; readTorch reads files of PyTorch`,
    );
  }
  return loadFrom(file, checkKernels(own));
}

/** All layers of a file that has been found to be of `save`. */
export function loadFrom(
  { tensors, metadata }: Safetensors,
  kernels: Kernels | undefined,
): Record<string, BatchNorm> {
  const layers: [string, BatchNorm][] = [];
  for (const [key, text] of Object.entries(metadata)) {
    if (!key.startsWith(LAYER)) continue;
    const name = key.slice(LAYER.length);
    const record = (text.length > LONGEST_RECORD ? null : jsonOf(key, text)) as Partial<Snapshot>;
    const state = numbersOf(tensors, name, refuse);
    if (!state.ageKnown) {
      throw new StateError(keyOf(name, "num_batches_tracked"), "a tensor", "none");
    }
    layers.push([
      name,
      fromFile(`layer "${name}"`, () => {
        checkKeys("options", record, RECORD);
        const ageKnown = flag("ageKnown", record.ageKnown, true);
        const settings = settingsIn(record);
        const averages = (tensor: string): Float64Array | undefined =>
          settings.renorm?.decay === undefined
            ? undefined
            : floats(tensors, keyOf(name, tensor), state.runningMean.length);
        return layerOf({ ...settings, kernels } as BatchNormOptions, {
          ...state,
          ageKnown,
          renormMean: averages(RENORM_MEAN),
          renormDeviation: averages(RENORM_DEVIATION),
        });
      }),
    ]);
  }
  const count = metadata[COUNT] ?? `${layers.length}`;
  if (count !== `${layers.length}`) {
    throw new StateError("__metadata__", `options of ${count} layers`, `those of ${layers.length}`);
  }
  return Object.fromEntries(layers);
}
