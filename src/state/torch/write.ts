// Writes batch norms as a PyTorch state_dict in safetensors: by themselves, or into a model that exists.

import { checkKeys } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { NO_OPTIONS } from "../../values/check.js";
import type { Bytes } from "../bytes.js";
import { checkName, constant, entriesOf, type OnWarning, warningsTo } from "../layers.js";
import { serialize } from "../safetensors.js";
import { keyOf, parameterKey } from "./names.js";
import { put, stateOf } from "./put.js";
import { inFile, type Source, sourceOf } from "./source.js";

/** Options of {@link writeTorch}. */
export interface TorchWriteOptions {
  /**
   * A file that `readTorch` reads, to write the layers into: its other tensors stay as they are. The
   * result is a safetensors file even if this one is from `torch.save`.
   */
  into?: Bytes;
  /** The key that leads to the model in the file `into`, as for `readTorch`. */
  key?: string;
  /** Is called with what you should know about the numbers that are written. Default: `console.warn`. */
  onWarning?: OnWarning;
}

/**
 * Writes layers as a PyTorch `state_dict` in safetensors, for `safetensors.torch.load_file` and
 * `model.load_state_dict`. Tensors are F32. If the layers are written `into` a file, its tensors keep
 * their types, and gamma, beta and the averages are rounded to these; a warning tells of a variance that
 * becomes 0 by that. `running_var` is an average of the kind of variance that the layer's
 * `runningVarianceOf` names. PyTorch's own kind is `"sample"`; `eval` computes the same with either.
 *
 * PyTorch's modules have both parameters or neither (`affine`). So if a layer leaves out only one of them,
 * it is written as ones (gamma) or zeros (beta). For a layer whose age is unknown, no
 * `num_batches_tracked` is written, and PyTorch then counts from 0. A state_dict does not contain `eps` and
 * `momentum` (which is 1 - decay): set them on the module yourself. Nor does it contain an activation, which is a module
 * of its own in PyTorch, or `debias` and `renorm`, which PyTorch does not have. No warning tells of these.
 *
 * @param layers the layers by the names of their modules, `"layer1.0.bn1"` for instance.
 * @returns the bytes of the file.
 * @throws OptionError for a value that is no layer, for a name that the file `into` does not have or that has half
 * a character in it, for an unknown option, and for a `key` that `readTorch` would refuse; ShapeError if `into` is not bytes;
 * StateError for a file `into` that is malformed, of another format, or has tensors with other numbers of
 * channels under these names or tensors that are not of plain values, for a name that no file can have, and for a value that the type of its
 * tensor, or the mask of a pruned module, cannot hold.
 *
 * @example
 * const file = writeTorch({ bn1, bn2 }, { into: original }); // the model with new statistics
 */
export function writeTorch(
  layers: Readonly<Record<string, BatchNorm>>,
  options: TorchWriteOptions = NO_OPTIONS,
): Uint8Array {
  const entries = entriesOf(layers);
  checkKeys("options", options, ["into", "key", "onWarning"]);
  const { into, key } = options;
  const warn = warningsTo(options.onWarning);
  const source = into === undefined ? NO_FILE : sourceOf("into", into, key, true);
  const written = new Map(source.tensors);
  for (const [name, layer] of entries) {
    if (into !== undefined) checkName(source.layers, name);
    const full = inFile(source, name);
    const affine = layer.gamma !== null || layer.beta !== null;
    const or = (values: Float32Array | null, tensor: "weight" | "bias", value: number) => {
      const needed = affine || parameterKey(written, full, tensor) !== null;
      return values ?? (needed ? constant(layer.channels, value) : null);
    };
    const [gamma, beta] = [or(layer.gamma, "weight", 1), or(layer.beta, "bias", 0)];
    put(written, full, { ...stateOf(layer), gamma, beta }, "F32", warn);
    if (!layer.ageKnown) written.delete(keyOf(full, "num_batches_tracked"));
  }
  return serialize({ tensors: written, metadata: source.metadata });
}

/** Stands for the file to write into if none is given: no tensors, and the metadata of PyTorch's files. */
const NO_FILE: Source = {
  tensors: new Map(),
  modules: new Map(),
  file: new Uint8Array(0),
  metadata: { format: "pt" },
  wrapper: "",
  layers: [],
};
