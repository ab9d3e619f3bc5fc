// Tensors whose values can be known without running the network: initializers, and what Constant,
// ConstantOfShape and Identity make of them
// (https://github.com/onnx/onnx/blob/main/docs/ExternalData.md for those in other files).

import { StateError } from "../../errors.js";
import { type Bytes, bytesOf, viewOfBytes } from "../bytes.js";
import type { Range, Wire } from "../protobuf.js";
import { attributesOf, type Graph, textOf } from "./graph.js";
import { ATTRIBUTE, ENTRY, FLOAT, INT64, TENSOR, TYPES } from "./schema.js";

/** Files beside a model, by the location that it has for them. */
export type External = Readonly<Record<string, Bytes>>;

/** A tensor whose values are in the file. */
export interface Tensor {
  /** The initializer, or the value that an operation makes. */
  readonly name: string;
  readonly type: number;
  readonly dimensions: readonly number[];
  /** Where the tensor is in the file, if it is there as such. */
  readonly range: Range | null;
  /**
   * Its values as they lie in memory, little-endian.
   *
   * @throws StateError where there are fewer or more than the dimensions say.
   */
  readonly data: () => Uint8Array;
}

/** Axes that are counted: no tensor has more. */
const MOST_AXES = 8;
/** Values of a tensor that an operation fills: channels, of which no network has more. */
const MOST_FILLED = 65_536;

/** What a name stands for after any Identity nodes; circles end after as many steps as there are. */
export function follow({ makers }: Graph, name: string): string {
  let source = name;
  for (let step = 0; step < 100; step++) {
    const maker = makers.get(source);
    if (maker?.type !== "Identity" || maker.inputs[0] === undefined) break;
    source = maker.inputs[0];
  }
  return source;
}

/** The tensor that a name stands for, or `null` where it is computed or fed. */
export function constantOf(graph: Graph, name: string, external?: External): Tensor | null {
  const { wire, initializers, makers } = graph;
  const source = follow(graph, name);
  const initializer = initializers.get(source);
  if (initializer !== undefined) return tensorOf(wire, source, initializer, external);
  const maker = makers.get(source);
  if (maker?.type !== "Constant" && maker?.type !== "ConstantOfShape") return null;
  const attributes = attributesOf(wire, maker);
  const value = attributes.get("value");
  const [tensor] = value === undefined ? [] : wire.parts(value, ATTRIBUTE.tensor);
  const held = tensor === undefined ? null : tensorOf(wire, source, tensor, external);
  if (maker.type === "ConstantOfShape") {
    // One whose shape is filled as well might be its own.
    const size = follow(graph, maker.inputs[0] ?? "");
    const shape = makers.get(size)?.type === maker.type ? null : constantOf(graph, size, external);
    return shape && filled(source, shape, held);
  }
  return (
    held ??
    listOf(wire, source, FLOAT, attributes.get("value_floats")) ??
    listOf(wire, source, INT64, attributes.get("value_ints"))
  );
}

/** A tensor as a message. */
function tensorOf(wire: Wire, name: string, range: Range, external?: External): Tensor {
  const dimensions: number[] = [];
  let [type, elsewhere] = [0, false];
  for (const field of wire.fields(range)) {
    const { number } = field;
    if (number === TENSOR.dimensions && dimensions.length <= MOST_AXES) {
      for (const size of wire.integers(field)) {
        if (dimensions.push(size) > MOST_AXES) break;
      }
    }
    if (number === TENSOR.type) type = wire.integer(field);
    elsewhere ||=
      number === TENSOR.external || (number === TENSOR.location && wire.integer(field) !== 0);
  }
  const data = (): Uint8Array => {
    const { size, field } = layoutOf(name, type);
    const found = elsewhere
      ? fetched(wire, name, range, external)
      : (rawOf(wire, range) ?? gathered(wire, range, field, type));
    const values = dimensions.reduce((a, b) => a * b, 1);
    if (found.length !== values * size) {
      throw new StateError(
        `tensor "${name}": expected ${values} values of ${size} bytes, got ${found.length} bytes`,
      );
    }
    return found;
  };
  return { name, type, dimensions, range, data };
}

/** How many bytes a value of a type has, and in which field it may be instead of as raw bytes. */
function layoutOf(name: string, type: number): { size: number; field: number } {
  if (type === INT64) return { size: 8, field: TENSOR.longs };
  if (!Object.hasOwn(TYPES, type)) {
    throw new StateError(
      `tensor "${name}": expected FLOAT, FLOAT16, BFLOAT16 or DOUBLE, got type ${type}`,
    );
  }
  const { format, field } = TYPES[type]!;
  return { size: format.size, field };
}

function rawOf(wire: Wire, range: Range): Uint8Array | null {
  let raw: Uint8Array | null = null;
  for (const part of wire.fields(range)) if (part.number === TENSOR.raw) raw = wire.data(part);
  return raw;
}

/** The bytes of values that lie in a field of their type, in one row or one by one. */
function gathered(wire: Wire, range: Range, number: number, type: number): Uint8Array {
  const fields = [...wire.fields(range)].filter((field) => field.number === number);
  if (type === INT64) {
    const values = fields.flatMap((field) => [...wire.integers(field)]);
    return new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  }
  if (TYPES[type]?.field === TENSOR.integers) {
    // Bits of 16, each in a whole number.
    const bits = fields.flatMap((field) => [...wire.integers(field)]);
    return Uint8Array.from({ length: 2 * bits.length }, (_, i) => bits[i >> 1]! >> (8 * (i & 1)));
  }
  const bytes = new Uint8Array(fields.reduce((sum, { begin, end }) => sum + end - begin, 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(wire.data(field), at);
    at += field.end - field.begin;
  }
  return bytes;
}

/** The bytes of a tensor that are in another file. */
function fetched(wire: Wire, name: string, range: Range, external?: External): Uint8Array {
  const entries = Object.fromEntries(
    Array.from(wire.parts(range, TENSOR.external), (entry) => [
      textOf(wire, entry, ENTRY.key),
      textOf(wire, entry, ENTRY.value),
    ]),
  );
  const { location = "", offset = "0", length } = entries;
  if (external === undefined || !Object.hasOwn(external, location)) {
    const given = Object.keys(external ?? {}).slice(0, 8);
    throw new StateError(
      `tensor "${name}": expected the bytes of ${JSON.stringify(location)}, a file beside the model, in ` +
        `external, got ${given.length > 0 ? `only ${given.join(", ")}` : "none"}; or save the model in ` +
        "one file: onnx.save(onnx.load(path), one)",
    );
  }
  const bytes = bytesOf(`external[${JSON.stringify(location)}]`, external[location]);
  const begin = Number(offset);
  const end = length === undefined ? bytes.length : begin + Number(length);
  if (!(begin >= 0 && begin <= end && end <= bytes.length && Number.isSafeInteger(begin))) {
    throw new StateError(
      `tensor "${name}": expected bytes ${begin} to ${end} of ${JSON.stringify(location)}, got ` +
        `${bytes.length} bytes`,
    );
  }
  return bytes.subarray(begin, end);
}

/** What ConstantOfShape makes: one value, FLOAT 0 unless it is given, in every place. */
function filled(name: string, shape: Tensor, value: Tensor | null): Tensor {
  const dimensions = integersIn(shape);
  const data = (): Uint8Array => {
    const one = value === null ? new Uint8Array(4) : value.data();
    const count = dimensions.reduce((a, b) => a * b, 1);
    if (!(count >= 0 && count <= MOST_FILLED)) {
      throw new StateError(
        `tensor "${name}": expected at most ${MOST_FILLED} values, got ${count}`,
      );
    }
    const bytes = new Uint8Array(count * one.length);
    for (let at = 0; at < bytes.length; at += one.length) bytes.set(one, at);
    return bytes;
  };
  return { name, type: value === null ? FLOAT : value.type, dimensions, range: null, data };
}

/** The values of a tensor of whole numbers with at most one axis. */
export function integersIn({ name, type, dimensions, data }: Tensor): number[] {
  if (type !== INT64 || dimensions.length > 1) {
    throw new StateError(
      `tensor "${name}": expected INT64 of one axis, got type ${type} of ${dimensions.length}`,
    );
  }
  const bytes = data();
  const view = viewOfBytes(bytes);
  return Array.from({ length: bytes.length / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
}

/** A Constant whose values are a list in an attribute. */
function listOf(wire: Wire, name: string, type: number, attribute?: Range): Tensor | null {
  if (attribute === undefined) return null;
  const [field, size] = type === INT64 ? [ATTRIBUTE.integers, 8] : [ATTRIBUTE.floats, 4];
  const bytes = gathered(wire, attribute, field, type);
  return { name, type, dimensions: [bytes.length / size], range: null, data: () => bytes };
}
