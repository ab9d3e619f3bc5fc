/**
 * Batch normalization as a layer of a TensorFlow.js layers model. It is used as `tf.layers.batchNormalization`
 * is, and computed by a `BatchNorm` of this package.
 *
 * Configuration, weights, initializers, constraints, regularizers and serialization are those of tfjs' own class,
 * which this one extends. tfjs does not export that class, so it is taken from an instance.
 *
 * `Normalization` is Keras' layer of that name for features, which tfjs lacks.
 *
 * @module
 */

export {
  BatchNormalization,
  type BatchNormalizationArgs,
  batchNormalization,
} from "./tfjs/keras-layer.js";
export { Normalization, type NormalizationArgs, normalization } from "./tfjs/normalization.js";
export { type RegisterOptions, register } from "./tfjs/register.js";
