// Finds the values of tensors. The cpu backend keeps them in a JavaScript array, the wasm backend in its own
// memory. Both are read in place, and the memory of the wasm backend is also written in place, since copies
// would take longer than the computation (docs/tuning.md).

import * as tf from "@tensorflow/tfjs-core";
import { MemoryError } from "../errors.js";
import { float32Of } from "../values/arrays.js";

/** The members of the class BackendWasm of @tensorflow/tfjs-backend-wasm that this file uses. */
interface HeapBackend {
  readonly dataIdMap: { has(dataId: object): boolean };
  makeOutput(shape: readonly number[], dtype: "float32"): tf.TensorInfo;
  typedArrayFromHeap(tensor: tf.TensorInfo): Float32Array;
}

/** The wasm backend; `null` if another one is in use, or if it lacks a member that this file uses. */
function heapBackend(): HeapBackend | null {
  const backend = tf.backend() as Partial<HeapBackend>;
  const { dataIdMap, makeOutput, typedArrayFromHeap } = backend;
  const usable = tf.getBackend() === "wasm" && dataIdMap && makeOutput && typedArrayFromHeap;
  return usable ? (backend as HeapBackend) : null;
}

/**
 * The values of a float32 tensor. Callers must not write them, and must read them before tfjs next allocates
 * or frees a tensor, because the wasm backend may then move its memory or give it to another tensor. Throws ShapeError
 * if they are gone.
 */
export function valuesOf(tensor: tf.Tensor): Float32Array {
  const backend = heapBackend();
  const values = backend?.dataIdMap.has(tensor.dataId)
    ? backend.typedArrayFromHeap(tensor)
    : tensor.dataSync<"float32">();
  // The cpu backend keeps the very array that the tensor was made of: after `tf.cast` one of integers, and one whose
  // buffer may have been transferred since.
  const stored: unknown = values;
  const whole = stored instanceof Int32Array || stored instanceof Uint8Array;
  return float32Of("tensor", whole ? Float32Array.from(stored) : values, tensor.size);
}

/**
 * A new float32 tensor with the values that `fill` returns. If `fill` is given an `out`, it writes them there.
 * If it throws, no tensor is left behind.
 */
export function filled<T extends tf.Tensor>(
  shape: readonly number[],
  fill: (place: { out?: Float32Array }) => Float32Array,
): T {
  const backend = heapBackend();
  if (backend === null) return tf.tensor(fill({}), shape as number[]) as T;
  const { dataId } = backend.makeOutput(shape, "float32");
  const tensor = tf.engine().makeTensorFromDataId(dataId, shape as number[], "float32") as T;
  try {
    const out = backend.typedArrayFromHeap(tensor);
    if (out.byteOffset === 0 && out.length > 0) {
      throw new MemoryError("x", `room for ${out.length} more values in tfjs`, "none");
    }
    fill({ out });
  } catch (error) {
    tensor.dispose();
    throw error;
  }
  return tensor;
}

/** True if both have the same float32 values. It is a loop, because `every` would slow small steps down. */
export function same(a: Float32Array | Float64Array, b: Float32Array): boolean {
  for (let i = 0; i < b.length; i++) {
    if (!Object.is(Math.fround(a[i]!), b[i])) return false;
  }
  return true;
}
