/**
 * Batch normalization inside a TensorFlow.js network: a `BatchNorm` of this package as one
 * differentiable operation (`tf.customGrad`), its gamma and beta as `tf.Variable`s.
 *
 * Formulas: Ioffe & Szegedy 2015, "Batch Normalization", Algorithm 1 (training), section 3 (the
 * gradient) and Algorithm 2 (test time). The layer computes them; this entry passes data and gradients between
 * it and tfjs.
 *
 * `batchNorm` is the operation alone, with the statistics as inputs: `tf.batchNorm` on our kernels.
 *
 * @module
 */

export { batchNorm } from "./tfjs/given.js";
export { TfBatchNorm, type TfBatchNormOptions, type TfBatchNormVariables } from "./tfjs/layer.js";
export type { ApplyOptions, Pool } from "./tfjs/operation.js";
