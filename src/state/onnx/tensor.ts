// The four tensors of a BatchNormalization node: where their numbers lie, and the numbers.

import { StateError } from "../../errors.js";
import { decode } from "../bytes.js";
import type { Range, Wire } from "../protobuf.js";
import { follow, type Model } from "./model.js";
import { TENSOR, TYPES } from "./schema.js";

/** The inputs of a node after its data, in order. */
export const SLOTS = ["scale", "B", "input_mean", "input_var"] as const;

/** The name of the tensor that a node takes as scale, B, mean or variance. */
export function sourceOf({ nodes, tensors, aliases }: Model, name: string, slot: number): string {
  const input = nodes.get(name)!.inputs[slot + 1];
  const source = input === undefined ? undefined : follow(aliases, input);
  if (source === undefined || !tensors.has(source)) {
    throw new StateError(
      `node "${name}": expected an initializer or a constant for ${SLOTS[slot]}, got ` +
        `${input === undefined ? "no input" : `"${input}", which is computed or fed`}`,
    );
  }
  return source;
}

/** The numbers of a tensor of one axis, as they lie in the file, and their type. */
export function contentOf(
  { wire, tensors }: Model,
  name: string,
): { type: number; data: Uint8Array } {
  const range = tensors.get(name)!;
  const dimensions: number[] = [];
  let type = 0;
  let raw: Uint8Array | null = null;
  for (const field of wire.fields(range)) {
    const { number } = field;
    if (number === TENSOR.dimensions) {
      for (const size of wire.integers(field)) {
        if (dimensions.push(size) > 8) break;
      }
    }
    if (number === TENSOR.type) type = wire.integer(field);
    if (number === TENSOR.raw) raw = wire.data(field);
    if (number === TENSOR.external || (number === TENSOR.location && wire.integer(field) !== 0)) {
      throw new StateError(
        `tensor "${name}": expected values in the model, got external data, in a file beside it; ` +
          "save the model in one file: onnx.save(onnx.load(path), one)",
      );
    }
  }
  if (!Object.hasOwn(TYPES, type) || dimensions.length !== 1) {
    throw new StateError(
      `tensor "${name}": expected FLOAT, FLOAT16, BFLOAT16 or DOUBLE of one axis, got type ${type} ` +
        `of ${dimensions.length > 8 ? "many" : dimensions.length}`,
    );
  }
  const { format, field: number } = TYPES[type]!;
  const data = raw ?? gathered(wire, range, number, format.size);
  if (data.length !== dimensions[0]! * format.size) {
    throw new StateError(
      `tensor "${name}": expected ${dimensions[0]} values of ${format.size} bytes, got ${data.length} bytes`,
    );
  }
  return { type, data };
}

/** The bytes of values that lie in a field of their type, in one row or one by one. */
function gathered(wire: Wire, range: Range, number: number, size: number): Uint8Array {
  const fields = [...wire.fields(range)].filter((field) => field.number === number);
  if (number === TENSOR.integers) {
    // Bits of 16, each in a whole number.
    const bits = fields.flatMap((field) => [...wire.integers(field)]);
    return Uint8Array.from(
      { length: size * bits.length },
      (_, i) => bits[i >> 1]! >> (8 * (i & 1)),
    );
  }
  const bytes = new Uint8Array(fields.reduce((sum, { begin, end }) => sum + end - begin, 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(wire.data(field), at);
    at += field.end - field.begin;
  }
  return bytes;
}

export function valuesOf(model: Model, name: string): Float64Array {
  const { type, data } = contentOf(model, name);
  return decode(TYPES[type]!.format, data);
}
