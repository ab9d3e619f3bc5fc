/**
 * Batch normalization as a layer of a TensorFlow.js layers model. It is used as `tf.layers.batchNormalization`
 * is, and computed by a `BatchNorm` of this package.
 *
 * Configuration, weights, initializers, constraints, regularizers and serialization are those of tfjs' own class,
 * which this one extends. tfjs does not export that class, so it is taken from an instance.
 *
 * @module
 */

export {
  BatchNormalization,
  type BatchNormalizationArgs,
  batchNormalization,
  register,
} from "./tfjs/keras-layer.js";
