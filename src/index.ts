// The public surface of `batchnorm-wasm`, on one screen.

export type { Batch, StatisticsKind } from "./batch.js";
export {
  type BackwardOptions,
  BatchNorm,
  type TrainOptions,
} from "./batch-norm.js";
export {
  BatchNormError,
  MemoryError,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
  UnsupportedError,
} from "./errors.js";
export type { FlaxOptions, KerasOptions, OnnxOptions, TorchOptions } from "./frameworks.js";
export { FrozenBatchNorm, type FrozenJSON, type InferOptions } from "./frozen.js";
export type { JsonNumber } from "./json.js";
export { Kernels, type KernelsOptions } from "./kernels.js";
export type { Layout } from "./layout.js";
export type { BatchNormOptions, VarianceKind } from "./options.js";
export type { Gradients } from "./run.js";
export type { Snapshot } from "./snapshot.js";
