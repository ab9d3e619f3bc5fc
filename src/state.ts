/**
 * Reads and writes the batch-norm layers of PyTorch, Keras (TensorFlow.js) and ONNX files, and files of our own,
 * after which training goes on with the same bits. All functions are synchronous, and take and return bytes; how
 * you fetch and keep files is up to you.
 *
 * ```ts
 * import { BatchNorm } from "batchnorm-wasm";
 * import { readOnnx, readTorch, writeOnnx, writeTorch } from "batchnorm-wasm/state";
 *
 * const bn = BatchNorm.torch(2, { layout: "NCHW" });
 * bn.train(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 9), { shape: [2, 2, 1, 2] });
 *
 * // From PyTorch to ONNX. A state_dict does not hold eps, so it is given here; an ONNX model holds it in float32.
 * const torch = readTorch(writeTorch({ "layer1.bn": bn })).load("layer1.bn", { eps: 1e-5, layout: "NCHW" });
 * const onnx = readOnnx(writeOnnx({ bn: torch })).load("bn");
 * console.log(onnx.layout === "NCHW" && onnx.runningMean.every((v, c) => v === torch.runningMean[c]));
 * ```
 *
 * @module
 */

// In this order, a format after another, a bundle compresses better than in that of the alphabet (by 0.15 KB).

// Our own file.

export type { Bytes } from "./state/bytes.js";
export type { Given, KeptNorm, OnWarning, StateFile } from "./state/layers.js";
export { load, save, type WriteOptions } from "./state/own.js";

// PyTorch.

export { readTorch, type TorchLoadOptions, type TorchReadOptions } from "./state/torch/read.js";
export { type TorchWriteOptions, writeTorch } from "./state/torch/write.js";

// Keras, in the files of TensorFlow.js.

export type { WrittenKeras } from "./state/keras/files.js";
export { type FoldedKeras, foldKeras } from "./state/keras/fold.js";
export type { KerasLoadOptions } from "./state/keras/load.js";
export type { KerasFiles } from "./state/keras/model.js";
export { type KerasReadOptions, readKeras } from "./state/keras/read.js";
export { type KerasWriteOptions, writeKeras } from "./state/keras/write.js";

// ONNX.

export { type FoldedOnnx, foldOnnx } from "./state/onnx/fold.js";
export {
  type OnnxFile,
  type OnnxLoadOptions,
  type OnnxNode,
  type OnnxReadOptions,
  readOnnx,
} from "./state/onnx/read.js";
export { tapOnnx } from "./state/onnx/tap.js";
export { type OnnxWriteOptions, writeOnnx } from "./state/onnx/write.js";

// A file of any of these formats.

export { type ModelFile, type ModelOptions, readModel } from "./state/model.js";
