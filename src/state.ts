/**
 * Weights in and out: the batch-norm layers of PyTorch, Keras (TensorFlow.js) and ONNX files, and
 * files of our own from which training goes on bit for bit. Everything is bytes in, bytes out, and
 * synchronous: how files are fetched or kept is up to you.
 *
 * @module
 */

export type { Bytes } from "./state/bytes.js";
export {
  type KerasFiles,
  type KerasLoadOptions,
  type KerasWriteOptions,
  readKeras,
  writeKeras,
} from "./state/keras.js";
export type { OnWarning, StateFile } from "./state/layers.js";
export { type OnnxLoadOptions, type OnnxWriteOptions, readOnnx, writeOnnx } from "./state/onnx.js";
export { load, save } from "./state/own.js";
export { readTorch, type TorchLoadOptions, type WriteOptions, writeTorch } from "./state/torch.js";
