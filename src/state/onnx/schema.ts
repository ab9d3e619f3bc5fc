// The numbers of the fields of ONNX messages, and of the types of tensors, as far as this folder reads and
// writes them (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). They are enums, not objects, because the
// build puts the numbers in place of an enum's members; that saves half a KB.

import { FLOATS, type FloatFormat } from "../bytes.js";

export enum MODEL {
  version = 1,
  producer = 2,
  graph = 7,
  opsets = 8,
  training = 20,
}
export enum OPSET {
  domain = 1,
  version = 2,
}
export enum GRAPH {
  node = 1,
  name = 2,
  initializer = 5,
  input = 11,
  output = 12,
  valueInfo = 13,
}
export enum NODE {
  input = 1,
  output = 2,
  name = 3,
  type = 4,
  attribute = 5,
  domain = 7,
}
export enum ATTRIBUTE {
  name = 1,
  float = 2,
  integer = 3,
  text = 4,
  tensor = 5,
  graph = 6,
  floats = 7,
  integers = 8,
  graphs = 11,
  type = 20,
}
export enum VALUE_INFO {
  name = 1,
  type = 2,
}
export enum TYPE {
  tensor = 1,
}
export enum TENSOR_TYPE {
  element = 1,
  shape = 2,
}
export enum SHAPE {
  dimension = 1,
}
export enum DIMENSION {
  value = 1,
  parameter = 2,
}
export enum TENSOR {
  dims = 1,
  type = 2,
  floats = 4,
  integers = 5,
  longs = 7,
  name = 8,
  raw = 9,
  doubles = 10,
  external = 13,
  location = 14,
}
/** An entry of `external_data`. The entries of a tensor say where in another file its values are. */
export enum ENTRY {
  key = 1,
  value = 2,
}
/** All fields of a tensor that may hold its values, or say where its values are. */
export const VALUES: readonly number[] = [4, 5, 6, 7, 9, 10, 11, 13, 14];

/** The floating-point types by their numbers, each with the field that may hold its values instead of `raw_data`. */
export const TYPES: Readonly<Record<number, { format: FloatFormat; field: number }>> = {
  1: { format: FLOATS.F32!, field: TENSOR.floats },
  10: { format: FLOATS.F16!, field: TENSOR.integers },
  11: { format: FLOATS.F64!, field: TENSOR.doubles },
  16: { format: FLOATS.BF16!, field: TENSOR.integers },
};
/** The number of the type for float32 values. */
export const FLOAT = 1;
/** The number of the type for signed 64-bit whole numbers. */
export const INT64 = 7;
