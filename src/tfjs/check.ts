// Checks of tensors, backends and options that users of the adapters for tfjs pass in.

import * as tf from "@tensorflow/tfjs-core";
import {
  checkKeys,
  describe,
  OptionError,
  ShapeError,
  StateError,
  UnsupportedError,
} from "../errors.js";
import { copyOf, isFloat32Array } from "../values/arrays.js";
import { show } from "../values/layout.js";
import { notRaw } from "../values/raw.js";

/** Backends whose data `dataSync()` reads without waiting for a graphics processor. */
const HOST_BACKENDS: readonly string[] = ["cpu", "wasm", "tensorflow"];

/** A copy of the options, each of which is read once, since it may be a getter. */
export function requireOptions<T extends object>(
  options: T,
  types: Record<keyof T, "boolean" | "string" | "object">,
): T {
  checkKeys("options", options, Object.keys(types));
  const read = {} as T;
  for (const key of Object.keys(types) as (keyof T & string)[]) {
    const type = types[key];
    const value = options[key];
    if (value === undefined) continue;
    if (typeof value !== type) {
      throw new OptionError(key, `${type === "object" ? "an" : "a"} ${type}`, describe(value));
    }
    read[key] = value;
  }
  return read;
}

/** Whether tensors are in main memory. */
export function onHost(): boolean {
  tf.backend(); // Starts one if none has been used yet.
  return HOST_BACKENDS.includes(tf.getBackend());
}

export function requireHostBackend(method: string): void {
  if (onHost()) return;
  const name = tf.getBackend();
  throw new UnsupportedError(
    method,
    `a tfjs backend with its data in main memory (${HOST_BACKENDS.join(", ")})`,
    `"${name}". Call \`await tf.setBackend("wasm")\` (package @tensorflow/tfjs-backend-wasm) before building ` +
      'the network. That backend has no gradient of conv2d: train convolutions on "cpu", or in Node on "tensorflow" ' +
      "(@tensorflow/tfjs-node). Or use tf.layers.batchNormalization on this backend",
  );
}

/**
 * Returns a layer, of whose private members `look` reads one. Throws StateError if that cannot be done, since the layer is
 * a proxy. (Layers that have a base class of tfjs need this in place of `Raw`, values/raw.ts.)
 */
export function itselfOf<T>(layer: T, look: () => unknown): T {
  try {
    look();
    return layer;
  } catch {
    throw notRaw();
  }
}

/** For who puts a `TfBatchNorm` into a layers model, which takes other classes. */
export const IN_MODELS =
  "; a layers model takes batchNormalization() of batchnorm-wasm/tfjs-layers";

export function requireFloatTensor(name: string, x: tf.Tensor): void {
  if (!(x instanceof tf.Tensor)) {
    const symbolic = typeof x === "object" && x !== null && "sourceLayer" in x;
    throw new ShapeError(name, `a tf.Tensor${symbolic ? IN_MODELS : ""}`, describe(x));
  }
  if (x.dtype !== "float32") {
    throw new ShapeError(name, "a tensor of float32", x.dtype);
  }
}

export function requireShape(
  name: string,
  { shape }: tf.Tensor,
  expected: readonly number[],
): void {
  if (tf.util.arraysEqual(shape, [...expected])) return;
  throw new ShapeError(name, `shape ${show([...expected])}`, show(shape));
}

/** Whether the sizes broadcast to `to`, before which there may be axes of size 1, up to `axes` in all. */
export const broadcasts = (
  sizes: readonly number[],
  to: readonly number[],
  axes = to.length,
): boolean =>
  sizes.length <= axes && sizes.every((n, i) => n === 1 || n === to[to.length - sizes.length + i]);

/** Returns variances if all are finite and >= 0; else throws StateError. */
export function requireVariances(values: Float32Array): Float32Array {
  const at = values.findIndex((v) => !(v >= 0 && v < Infinity));
  if (at < 0) return values;
  throw new StateError("variance", "finite numbers >= 0", `${values[at]} at ${at}`);
}

/** Returns a tensor as it is, and makes one of a number and of the numbers in an array, typed or nested. */
export function tensorOf(name: string, value: unknown): tf.Tensor {
  const isPlain = typeof value === "number" || Array.isArray(value) || ArrayBuffer.isView(value);
  const tensor = isPlain ? tensorFrom(name, value as tf.TensorLike) : (value as tf.Tensor);
  requireFloatTensor(name, tensor);
  return tensor;
}

function tensorFrom(name: string, values: tf.TensorLike): tf.Tensor {
  try {
    // tfjs asks an array for its length, its class and more, which may be code of a user's.
    const made = tf.tensor(isFloat32Array(values) ? copyOf(values) : values);
    return made.dtype === "int32" ? tf.cast(made, "float32") : made;
  } catch (cause) {
    throw new ShapeError(name, "what tf.tensor takes", String(cause), { cause });
  }
}
