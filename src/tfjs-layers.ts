/**
 * Batch normalization as a layer of a TensorFlow.js layers model: what `tf.layers.batchNormalization`
 * is, computed by a `BatchNorm` of this package.
 *
 * Configuration, weights, initializers, constraints, regularizers and serialization are those of
 * tfjs' own class, which this one extends. Its public way to that class is an instance.
 *
 * @module
 */

export {
  BatchNormalization,
  type BatchNormalizationArgs,
  batchNormalization,
  register,
} from "./tfjs/keras-layer.js";
