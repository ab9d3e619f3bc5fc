// Reads the tensors whose values can be known without running the network: initializers, and the outputs
// of Constant, ConstantOfShape and Identity nodes. The values may be in another file
// (https://github.com/onnx/onnx/blob/main/docs/ExternalData.md).

import { StateError } from "../../errors.js";
import { product } from "../../values/layout.js";
import { type FloatFormat, isCount, joined, viewOfBytes } from "../bytes.js";
import { lookUp } from "../keys.js";
import type { Range, Wire } from "../protobuf.js";
import type { External } from "./external.js";
import { attributesOf, type Graph, integersAt, numberOf, textOf } from "./graph.js";
import { ATTRIBUTE, ENTRY, FLOAT, INT64, TENSOR, TYPES } from "./schema.js";

/** A tensor whose values are known without running the network. */
export interface Tensor {
  /** The name of the initializer, or of the value that an operation makes. */
  readonly name: string;
  readonly type: number;
  readonly dimensions: readonly number[];
  /**
   * Reads the values as bytes, one value after the other, little-endian.
   *
   * @throws StateError if there are fewer or more values than the dimensions say, if their type is not supported,
   * or if they are in a file that was not given.
   */
  readonly data: () => Uint8Array;
}

/** Reading stops after one axis more than this. No tensor that is used has more; a malformed file may list millions. */
const MOST_AXES = 8;
/**
 * How many values a ConstantOfShape node may fill. The tensor holds a value for each channel, and no network has
 * more channels; a malformed file could ask for more than fits in memory.
 */
const MOST_FILLED = 65_536;

/**
 * Follows a name back through Identity nodes to the value that they pass on. It stops after 100 nodes, since the
 * Identity nodes of a malformed file may form a circle.
 */
export function follow({ makers }: Graph, name: string): string {
  let source = name;
  for (let step = 0; step < 100; step++) {
    const maker = makers.get(source);
    if (maker?.type !== "Identity" || maker.inputs[0] === undefined) break;
    source = maker.inputs[0];
  }
  return source;
}

/** The tensor that a name stands for, or `null` if its values are computed or fed when the network runs. */
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
    // The shape must not come from another ConstantOfShape. In a malformed file the node could be its own shape, and
    // the calls would never end.
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

/** Reads the tensor in a message. */
function tensorOf(wire: Wire, name: string, range: Range, external?: External): Tensor {
  const dimensions: number[] = [];
  for (const size of integersAt(wire, range, TENSOR.dims)) {
    if (dimensions.push(size) > MOST_AXES) break;
  }
  const type = numberOf(wire, range, TENSOR.type, 0);
  const data = (): Uint8Array => {
    const size = type === INT64 ? 8 : formatOf({ name, type }).size;
    const raw = wire.last(range, TENSOR.raw);
    const found = isElsewhere(wire, range)
      ? fetched(wire, name, range, external)
      : raw
        ? wire.data(raw)
        : gathered(wire, range, type);
    const values = product(dimensions);
    if (found.length !== values * size) {
      throw new StateError(
        `tensor "${name}"`,
        `${values} values of ${size} bytes`,
        `${found.length} bytes`,
      );
    }
    return found;
  };
  return { name, type, dimensions, data };
}

/** The floating-point format of a tensor's values. Throws StateError if they are of another type. */
export function formatOf({ name, type }: Pick<Tensor, "name" | "type">): FloatFormat {
  const known = lookUp(TYPES, type);
  if (known !== undefined) return known.format;
  throw new StateError(`tensor "${name}"`, "FLOAT, FLOAT16, BFLOAT16 or DOUBLE", `type ${type}`);
}

/** True if the values of a tensor are in another file. */
const isElsewhere = (wire: Wire, range: Range): boolean =>
  wire.last(range, TENSOR.external) !== undefined ||
  numberOf(wire, range, TENSOR.location, 0) !== 0;

/**
 * The bytes of the values that are in the field for their type, not in `raw_data`. One field may hold all values
 * packed in a row, or each value may have a field to itself.
 */
function gathered(wire: Wire, range: Range, type: number): Uint8Array {
  if (type === INT64) return longsAt(wire, range, TENSOR.longs);
  const { field } = TYPES[type]!;
  if (field === TENSOR.integers) {
    // A value of 16 bits is stored as a whole number: its bits, without a sign.
    return new Uint8Array(Uint16Array.from(integersAt(wire, range, field)).buffer);
  }
  return floatsAt(wire, range, field);
}

/** The bytes of the whole numbers in all fields with this number, each of 64 bits. */
const longsAt = (wire: Wire, range: Range, number: number): Uint8Array =>
  new Uint8Array(BigInt64Array.from(integersAt(wire, range, number), BigInt).buffer);

/** The bytes of the floating-point values in all fields with this number. */
function floatsAt(wire: Wire, range: Range, number: number): Uint8Array {
  const fields = [...wire.fields(range)].filter((field) => field.number === number);
  return joined(fields.map((field) => wire.data(field)));
}

/** The bytes of a tensor whose values are in another file. */
function fetched(wire: Wire, name: string, range: Range, external?: External): Uint8Array {
  const entries = Object.fromEntries(
    Array.from(wire.parts(range, TENSOR.external), (entry) => [
      textOf(wire, entry, ENTRY.key),
      textOf(wire, entry, ENTRY.value),
    ]),
  );
  const { location = "", offset = "0", length } = entries;
  const bytes = external?.at(location);
  if (bytes === undefined) {
    const given = [...(external?.files.keys() ?? [])].slice(0, 8);
    throw new StateError(
      `tensor "${name}"`,
      `the bytes of ${JSON.stringify(location)}, a file beside the model, in external`,
      `${given.length > 0 ? `only ${given.join(", ")}` : "none"}; or save the model in one file: ` +
        "onnx.save(onnx.load(path), one)",
    );
  }
  const begin = Number(offset);
  const end = length === undefined ? bytes.length : begin + Number(length);
  if (!(isCount(begin) && begin <= end && end <= bytes.length)) {
    throw new StateError(
      `tensor "${name}"`,
      `bytes ${begin} to ${end} of ${JSON.stringify(location)}`,
      `${bytes.length} bytes`,
    );
  }
  return bytes.subarray(begin, end);
}

/** The tensor that a ConstantOfShape node makes. It has the same value everywhere: FLOAT 0 unless one is given. */
function filled(name: string, shape: Tensor, value: Tensor | null): Tensor {
  const dimensions = integersIn(shape);
  const data = (): Uint8Array => {
    const one = value === null ? new Uint8Array(4) : value.data();
    const count = product(dimensions);
    if (!(count >= 0 && count <= MOST_FILLED)) {
      throw new StateError(`tensor "${name}"`, `at most ${MOST_FILLED} values`, count);
    }
    const bytes = new Uint8Array(count * one.length);
    for (let at = 0; at < bytes.length; at += one.length) bytes.set(one, at);
    return bytes;
  };
  return { name, type: value === null ? FLOAT : value.type, dimensions, data };
}

/** The values of a tensor of type INT64 with at most one axis. */
export function integersIn({ name, type, dimensions, data }: Tensor): number[] {
  if (type !== INT64 || dimensions.length > 1) {
    throw new StateError(
      `tensor "${name}"`,
      "INT64 of one axis",
      `type ${type} of ${dimensions.length}`,
    );
  }
  const bytes = data();
  const view = viewOfBytes(bytes);
  return Array.from({ length: bytes.length / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
}

/** The tensor that a Constant node makes from a list of numbers in an attribute; `null` without the attribute. */
function listOf(wire: Wire, name: string, type: number, attribute?: Range): Tensor | null {
  if (attribute === undefined) return null;
  const bytes =
    type === INT64
      ? longsAt(wire, attribute, ATTRIBUTE.integers)
      : floatsAt(wire, attribute, ATTRIBUTE.floats);
  const length = bytes.length / (type === INT64 ? 8 : 4);
  return { name, type, dimensions: [length], data: () => bytes };
}
