// The messages of an ONNX file that this folder reads and writes: the numbers of their fields and of
// the types of tensors (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).

import { FLOATS, type FloatFormat } from "../bytes.js";

export const MODEL = { irVersion: 1, producer: 2, graph: 7, opset: 8, training: 20 } as const;
export const OPSET = { domain: 1, version: 2 } as const;
export const GRAPH = {
  node: 1,
  name: 2,
  initializer: 5,
  input: 11,
  output: 12,
  valueInfo: 13,
} as const;
export const NODE = { input: 1, output: 2, name: 3, type: 4, attribute: 5, domain: 7 } as const;
export const ATTRIBUTE = {
  name: 1,
  float: 2,
  integer: 3,
  text: 4,
  tensor: 5,
  graph: 6,
  floats: 7,
  integers: 8,
  graphs: 11,
  type: 20,
} as const;
export const VALUE_INFO = { name: 1, type: 2 } as const;
export const TYPE = { tensor: 1 } as const;
export const TENSOR_TYPE = { element: 1, shape: 2 } as const;
export const SHAPE = { dimension: 1 } as const;
export const DIMENSION = { value: 1, parameter: 2 } as const;
export const TENSOR = {
  dimensions: 1,
  type: 2,
  floats: 4,
  integers: 5,
  longs: 7,
  name: 8,
  raw: 9,
  doubles: 10,
  external: 13,
  location: 14,
} as const;
/** An entry that says where a tensor's values are, in another file. */
export const ENTRY = { key: 1, value: 2 } as const;
/** All fields of a tensor that may hold its values or say where they are. */
export const VALUES: readonly number[] = [4, 5, 6, 7, 9, 10, 11, 13, 14];

/** Floating-point types by their numbers, and the field beside raw_data that may hold their values. */
export const TYPES: Readonly<Record<number, { format: FloatFormat; field: number }>> = {
  1: { format: FLOATS.F32!, field: TENSOR.floats },
  10: { format: FLOATS.F16!, field: TENSOR.integers },
  11: { format: FLOATS.F64!, field: TENSOR.doubles },
  16: { format: FLOATS.BF16!, field: TENSOR.integers },
};
/** The numbers of two types of tensors. */
export const FLOAT = 1;
export const INT64 = 7;
