/**
 * The layer, its statistics as values, test time alone, errors: the public surface on one screen.
 *
 * @module
 */

export type { Adapter, AdapterOptions, AdaptOptions } from "./adapt.js";
export type { Batch, StatisticsKind } from "./batch.js";
export {
  type BackwardOptions,
  type BackwardSumsOptions,
  BatchNorm,
  type MomentsOptions,
  type TrainOptions,
} from "./batch-norm.js";
export {
  type CalibrationOptions,
  type CalibrationProgress,
  type CalibrationReport,
  calibrate,
  type LayerCalibration,
} from "./calibrate.js";
export type { Diagnosis, Drift, Verdict } from "./diagnose.js";
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
export type { Folded, FoldOptions } from "./fold.js";
export type { FlaxOptions, KerasOptions, OnnxOptions, TorchOptions } from "./frameworks.js";
export type { FrozenJSON, InferOptions } from "./frozen.js";
export { FrozenBatchNorm } from "./frozen-batch-norm.js";
export type { JsonNumber, Widened } from "./json.js";
export { Kernels, type KernelsOptions } from "./kernels.js";
export type { Layout } from "./layout.js";
export {
  GradientSums,
  type GradientSumsJSON,
  type GradientSumsLike,
  Moments,
  type MomentsJSON,
  type MomentsLike,
} from "./moments.js";
export type { BatchNormOptions, VarianceKind } from "./options.js";
export type { Gradients, Statistics } from "./run.js";
export type { Snapshot } from "./snapshot.js";
