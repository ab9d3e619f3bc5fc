// Where the values of tensors are. The cpu backend has a JavaScript array behind each tensor, the wasm
// backend a piece of its memory: both are read, and the latter filled, in place, since copies would take
// longer than the computing (docs/tuning.md).

import * as tf from "@tensorflow/tfjs-core";
import { MemoryError } from "../errors.js";

/** What is used of the class BackendWasm of @tensorflow/tfjs-backend-wasm. */
interface HeapBackend {
  readonly dataIdMap: { has(dataId: object): boolean };
  makeOutput(shape: readonly number[], dtype: "float32"): tf.TensorInfo;
  typedArrayFromHeap(tensor: tf.TensorInfo): Float32Array;
}

/** The wasm backend, if it is the one in use and has what is needed of it. */
function heapBackend(): HeapBackend | null {
  const backend = tf.backend() as Partial<HeapBackend>;
  const { dataIdMap, makeOutput, typedArrayFromHeap } = backend;
  const usable = tf.getBackend() === "wasm" && dataIdMap && makeOutput && typedArrayFromHeap;
  return usable ? (backend as HeapBackend) : null;
}

/**
 * The values of a float32 tensor: not to be written, and, since the wasm backend's memory grows and is
 * used again, to be read before tfjs allocates or frees next.
 */
export function valuesOf(tensor: tf.Tensor): Float32Array {
  const backend = heapBackend();
  return backend?.dataIdMap.has(tensor.dataId)
    ? backend.typedArrayFromHeap(tensor)
    : tensor.dataSync<"float32">();
}

/**
 * A new float32 tensor with the values that `fill` returns. Given an `out`, it writes them there. If it
 * throws, there is no tensor.
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

/** True if both are the same in float32, bit for bit. A loop: `every` took a third of a small step. */
export function same(a: Float32Array | Float64Array, b: Float32Array): boolean {
  for (let i = 0; i < b.length; i++) {
    if (!Object.is(Math.fround(a[i]!), b[i])) return false;
  }
  return true;
}
