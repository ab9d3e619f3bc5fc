// Reads the batch norms of a model file without being told its format.

import { checkKeys, describe, OptionError, StateError } from "../errors.js";
import { NO_OPTIONS } from "../values/check.js";
import type { Bytes } from "./bytes.js";
import { checkFormat } from "./format.js";
import { fileOf, type StateFile } from "./layers.js";
import { type OnnxFile, readOnnx } from "./onnx/read.js";
import { isOwn, loadFrom } from "./own.js";
import { layersIn, type TorchLoadOptions } from "./torch/read.js";
import { FORMATS, sourceOf } from "./torch/source.js";

/** Options of {@link readModel}. */
export interface ModelOptions {
  /** The key that leads to the model, for a checkpoint of PyTorch that holds several: see `readTorch`. */
  key?: string;
  /** The bytes of the files that hold some tensors of an ONNX model, by their locations: see `readOnnx`. */
  external?: Readonly<Record<string, Bytes>>;
}

/** What {@link readModel} returns: the layers, and the format, which decides the options that `load` takes. */
export type ModelFile =
  | ({
      /** The file was read by `readTorch`. */
      readonly format: "torch";
    } & StateFile<TorchLoadOptions>)
  | ({
      /** The file was read by `readOnnx`. */
      readonly format: "onnx";
    } & OnnxFile)
  | ({
      /** The file was written by `save`. Its layers need no options. */
      readonly format: "batchnorm-wasm";
    } & StateFile<object>);

/**
 * Reads the batch-norm layers of a model file whose format you need not know. The bytes of the file decide
 * which reader is used, not its name. It reads PyTorch's files (`.pt`, `.pth`, `.safetensors`), ONNX models,
 * and files of `save`. `format` in the result says which options `load` takes. Note that `momentum` is the
 * weight of the NEW value in PyTorch, and that of the OLD value in ONNX.
 *
 * For Keras' `.keras` and `.h5` files, call `readKerasFile` of `batchnorm-wasm/hdf5`. A model of
 * TensorFlow.js consists of several files, which `readKeras` reads. For a file of another known format, the
 * error says what the file is and what you can do with it.
 *
 * @param bytes the file; not copied, so leave it unchanged until the layers are loaded.
 * @throws ShapeError if `bytes` or a file in `external` is not bytes; OptionError for an unknown option, for one that
 * the format does not have, for a `key` that leads to no model, and if the file holds several models and there is no
 * `key`; StateError for a file of another
 * format, and for a file that the reader of its format refuses.
 *
 * @example
 * const file = readModel(await (await fetch("model.pth")).arrayBuffer());
 * console.log(file.format, file.layers);
 * const layers = file.format === "torch" ? file.loadAll({ eps: 1e-5 }) : file.loadAll();
 */
export function readModel(bytes: Bytes, options: ModelOptions = NO_OPTIONS): ModelFile {
  checkKeys("options", options, ["key", "external"]);
  const { key, external } = options;
  const { file, format } = checkFormat("bytes", bytes, "a model file", ["onnx", ...FORMATS]);
  const [unused, value] = format === "onnx" ? ["key", key] : ["external", external];
  if (format !== null && value !== undefined) {
    throw new OptionError(unused!, "none for this format", describe(value));
  }
  if (format === "onnx") return { format, ...readOnnx(file, external && { external }) };
  if (format !== null) {
    const source = sourceOf("bytes", file, key, false);
    if (!isOwn(source)) return { format: "torch", ...layersIn(source) };
    const layers = loadFrom(source, undefined);
    const one = (name: string, given: object) => {
      checkKeys("options", given, [], () => "no options for a file of save");
      return layers[name]!.clone();
    };
    return { format: "batchnorm-wasm", ...fileOf(Object.keys(layers), [], one) };
  }
  const first = Array.from(file.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0"));
  throw new StateError(
    "bytes",
    "a model of PyTorch, ONNX, Keras or TensorFlow.js",
    `${file.length} bytes that begin with ${first.join(" ")}`,
  );
}
