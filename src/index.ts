/**
 * Everything that `batchnorm-wasm` exports: the layer, the functions on it for test time, statistics as values, and
 * the errors.
 *
 * @module
 */

export { Kernels, type KernelsOptions } from "./engine/kernels.js";
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
export type { FrozenJSON, InferOptions, InverseOptions } from "./frozen/frozen.js";
export { type FromMomentsOptions, FrozenBatchNorm } from "./frozen/frozen-batch-norm.js";
export type { Batch, StatisticsKind } from "./layer/batch.js";
export { BatchNorm } from "./layer/batch-norm.js";
export type { FlaxOptions, KerasOptions, OnnxOptions, TorchOptions } from "./layer/frameworks.js";
export type {
  BackwardOptions,
  BackwardSumsOptions,
  BatchNormOptions,
  MomentsOptions,
  TrainOptions,
} from "./layer/options.js";
export type { Renorm, Renormalization, RenormJSON } from "./layer/renorm.js";
export type { Snapshot } from "./layer/snapshot.js";
export { type AdaptOptions, adapt } from "./testtime/adapt.js";
export { Adapter, type AdapterJSON, type AdapterOptions, adapter } from "./testtime/adapter.js";
export {
  type CalibrationOptions,
  type CalibrationProgress,
  type CalibrationReport,
  calibrate,
  type LayerCalibration,
} from "./testtime/calibrate.js";
export { type Diagnosis, diagnose, type Verdict } from "./testtime/diagnose.js";
export type { Drift } from "./testtime/drift.js";
export { type Folded, type FoldOptions, type FrozenLayer, fold } from "./testtime/fold.js";
export type { Activation, ActivationJSON } from "./values/activation.js";
export type { JsonNumber, Widened } from "./values/json.js";
export type { Layout } from "./values/layout.js";
export {
  GradientSums,
  type GradientSumsJSON,
  type GradientSumsLike,
  Moments,
  type MomentsJSON,
  type MomentsLike,
  type VarianceKind,
} from "./values/moments.js";
export type { Gradients, Statistics } from "./values/terms.js";
