// PyTorch's weights written: a state_dict in safetensors, whole or with other batch norms than before.

import { checkKeys } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { NO_OPTIONS } from "../../values/check.js";
import { type Bytes, bytesOf } from "../bytes.js";
import { checkName, constant, entriesOf, type OnWarning, warningsTo } from "../layers.js";
import { serialize } from "../safetensors.js";
import { keyOf, parameterKey } from "./names.js";
import { put, stateOf } from "./put.js";
import { inFile, type Source, sourceOf } from "./source.js";

/** Options of {@link writeTorch}. */
export interface TorchWriteOptions {
  /**
   * A file that `readTorch` reads, whose other tensors are kept as they are. One of `torch.save`
   * becomes safetensors.
   */
  into?: Bytes;
  /** Which model of that file, as for `readTorch`. */
  key?: string;
  /** Takes what one should know about numbers that are written. Default: `console.warn`. */
  onWarning?: OnWarning;
}

/**
 * A PyTorch `state_dict` in safetensors, for `safetensors.torch.load_file` and
 * `model.load_state_dict`. Tensors are F32, or, written `into` a file, of the types that they have
 * there: gamma, beta and averages are rounded to them. `running_var` is an average of the variance
 * that `runningVarianceOf` names; PyTorch's own is `"sample"`, and `eval` is the same for either.
 *
 * PyTorch's modules have both parameters or neither (`affine`): one that is left out beside the other
 * is written as ones or zeros. Of a layer whose age is unknown no `num_batches_tracked` is written;
 * PyTorch then counts from 0. Not in the file, and for you to set on the module: `eps` and `momentum`
 * (1 - decay). A variance that its type in the file rounds to 0 is warned about.
 *
 * @param layers by the names of their modules, `"layer1.0.bn1"` for instance.
 * @returns the bytes of the file.
 * @throws OptionError for what is no layer, a name that the file `into` has not, an unknown option, or a
 * `key` as in `readTorch`; ShapeError for an `into` that is no bytes; StateError for a file `into` that is
 * malformed, of another format, or has tensors of other channels under these names, for a name that no
 * file can have, and for a value that its type there, or the mask of a pruned module, cannot hold.
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
  const source = into === undefined ? NO_FILE : sourceOf(bytesOf("into", into), key, true);
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

/** Without a file to write into: nothing, marked as files of PyTorch are. */
const NO_FILE: Source = {
  tensors: new Map(),
  modules: new Map(),
  metadata: { format: "pt" },
  wrapper: "",
  layers: [],
};
