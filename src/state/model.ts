// A model file of any format that can be read here.

import { checkKeys, describe, OptionError, StateError } from "../errors.js";
import { NO_OPTIONS } from "../values/check.js";
import { type Bytes, bytesOf } from "./bytes.js";
import { checkFormat, formatOf } from "./format.js";
import { fileOf, type StateFile } from "./layers.js";
import { type OnnxLoadOptions, readOnnx } from "./onnx/read.js";
import { isOwn, load } from "./own.js";
import { parse } from "./safetensors.js";
import { readTorch, type TorchLoadOptions } from "./torch/read.js";

/** Options of {@link readModel}. */
export interface ModelOptions {
  /** Which model, for a checkpoint of PyTorch that holds several: see `readTorch`. */
  key?: string;
}

/** What {@link readModel} gives: the layers, and which reader they are of, whose options they take. */
export type ModelFile =
  | ({
      /** `readTorch` read it. */
      readonly format: "torch";
    } & StateFile<TorchLoadOptions>)
  | ({
      /** `readOnnx` read it. */
      readonly format: "onnx";
    } & StateFile<OnnxLoadOptions>)
  | ({
      /** It is a file of `save`, whose layers need no options. */
      readonly format: "batchnorm-wasm";
    } & StateFile<object>);

/**
 * The batch-norm layers of a model file, whatever it is: the reader that fits is chosen by what the
 * bytes are, not by a name. PyTorch's files (`.pt`, `.pth`, `.safetensors`), ONNX models, and files of
 * `save` are read. `format` says which options `load` takes; PyTorch's `momentum` is the weight of the
 * NEW value, ONNX' that of the old one.
 *
 * Keras' `.keras` and `.h5` have a reader of their own, `readKerasFile` of `batchnorm-wasm/hdf5`; models of
 * TensorFlow.js are several files, for `readKeras`. The error about any other file says what it is and
 * what to call.
 *
 * @param bytes the file; not copied, so leave it unchanged until the layers are loaded.
 * @throws ShapeError for what is no bytes; OptionError for an unknown option or a `key` that leads to no
 * model; StateError for a file of another format, and as the reader that fits.
 *
 * @example
 * const file = readModel(await (await fetch("model.pth")).arrayBuffer());
 * console.log(file.format, file.layers);
 * const layers = file.format === "torch" ? file.loadAll({ eps: 1e-5 }) : file.loadAll();
 */
export function readModel(bytes: Bytes, options: ModelOptions = NO_OPTIONS): ModelFile {
  checkKeys("options", options, ["key"]);
  const file = bytesOf("bytes", bytes);
  const format = formatOf(file);
  if (format === "onnx") {
    if (options.key === undefined) return { format, ...readOnnx(file) };
    throw new OptionError("key", "none for an ONNX model, which is one", describe(options.key));
  }
  if (format === "safetensors" && isOwn(parse(file))) {
    const layers = load(file);
    const one = (name: string, given: object) => {
      for (const key in given)
        throw new OptionError(key, "no options for a file of save", `"${key}"`);
      return layers[name]!.clone();
    };
    return { format: "batchnorm-wasm", ...fileOf(Object.keys(layers), one) };
  }
  const known = checkFormat(file, "a model file", ["torch", "torch-row", "safetensors"]);
  if (known !== null) return { format: "torch", ...readTorch(file, options) };
  const first = Array.from(file.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0"));
  throw new StateError(
    "bytes",
    "a model of PyTorch (.pt, .pth, .safetensors), ONNX (.onnx) or Keras (.keras, .h5)",
    `${file.length} bytes that begin with ${first.join(" ")}, as none of these does`,
  );
}
