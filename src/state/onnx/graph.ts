// Reads an ONNX file as a graph: its operations, the names of its tensors, and what it declares about values
// (https://github.com/onnx/onnx/blob/main/docs/IR.md).

import { StateError } from "../../errors.js";
import { type Field, type Range, Wire, WireType } from "../protobuf.js";
import {
  ATTRIBUTE,
  GRAPH,
  MODEL,
  NODE,
  OPSET,
  SHAPE,
  TENSOR,
  TENSOR_TYPE,
  TYPE,
  VALUE_INFO,
} from "./schema.js";

/** A node of a graph. */
export interface Operation {
  /**
   * The name of the operator. ONNX' own operators have no prefix (`"Conv"`), all others that of their domain
   * (`"com.microsoft.FusedConv"`).
   */
  readonly type: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly field: Field;
}

/** The main graph of a file. */
export interface Graph {
  readonly wire: Wire;
  readonly field: Field;
  readonly irVersion: number;
  /** The version of ONNX' own operators, or `null` if the file does not say it. */
  readonly opset: number | null;
  /** True if the file has instructions for training the network (`training_info`). */
  readonly trains: boolean;
  readonly operations: readonly Operation[];
  /** The operation that makes each value, by the name of the value. */
  readonly makers: ReadonlyMap<string, Operation>;
  readonly initializers: ReadonlyMap<string, Field>;
  /** The names of the network's outputs. */
  readonly outputs: readonly string[];
  /** How many axes each value has, by name, for the values whose shape the file declares. */
  readonly ranks: ReadonlyMap<string, number>;
}

/** Reads the main graph of a file. */
export function graphOf(bytes: Uint8Array): Graph {
  const wire = new Wire(bytes);
  let graph: Field | null = null;
  let [irVersion, opset, trains]: [number, number | null, boolean] = [0, null, false];
  for (const field of wire.fields(wire.all)) {
    if (field.type === WireType.Varint && field.number === MODEL.irVersion) {
      irVersion = wire.integer(field);
    }
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === MODEL.graph) {
      if (graph !== null) throw new StateError("bytes: expected one graph, got several");
      graph = field;
    }
    if (field.number === MODEL.opset) opset = opsetOf(wire, field) ?? opset;
    if (field.number === MODEL.training) trains = true;
  }
  if (graph === null) throw new StateError("bytes: expected an ONNX model with a graph, got none");
  return { wire, field: graph, irVersion, opset, trains, ...contentsOf(wire, graph) };
}

function contentsOf(wire: Wire, graph: Range) {
  const operations: Operation[] = [];
  const makers = new Map<string, Operation>();
  const initializers = new Map<string, Field>();
  const outputs: string[] = [];
  const ranks = new Map<string, number>();
  for (const field of wire.fields(graph)) {
    if (field.type !== WireType.LengthDelimited) continue;
    const { number } = field;
    if (number === GRAPH.node) {
      const operation = operationOf(wire, field);
      operations.push(operation);
      for (const output of operation.outputs) if (output !== "") makers.set(output, operation);
    } else if (number === GRAPH.initializer) {
      const name = textOf(wire, field, TENSOR.name);
      if (initializers.has(name)) refuseTwice("initializers", name);
      initializers.set(name, field);
    } else if (number === GRAPH.input || number === GRAPH.output || number === GRAPH.valueInfo) {
      const name = textOf(wire, field, VALUE_INFO.name);
      if (number === GRAPH.output) outputs.push(name);
      const rank = rankOf(wire, field);
      if (rank !== null) ranks.set(name, rank);
    }
  }
  for (const name of initializers.keys()) if (makers.has(name)) refuseTwice("values", name);
  return { operations, makers, initializers, outputs, ranks };
}

/** Throws an error which says that two things in a file have the same name. */
export function refuseTwice(what: string, name: string): never {
  throw new StateError(`bytes: expected ${what} of different names, got "${name}" twice`);
}

/** The texts of all fields with this number, in the order of the message. */
const textsOf = (wire: Wire, range: Range, number: number): string[] =>
  Array.from(wire.parts(range, number), (field) => wire.text(field));

/**
 * The text of a field that a message should have once, or `""` if it is missing. If the field occurs several times,
 * the last one counts, as the specification of Protocol Buffers says.
 */
export const textOf = (wire: Wire, range: Range, number: number): string =>
  textsOf(wire, range, number).at(-1) ?? "";

/** The version that an entry of `opset_import` has for ONNX' own operators; `null` if it is for other operators. */
function opsetOf(wire: Wire, range: Range): number | null {
  let domain = "";
  let version = 1;
  for (const field of wire.fields(range)) {
    if (field.number === OPSET.domain) domain = wire.text(field);
    if (field.number === OPSET.version) version = wire.integer(field);
  }
  return domain === "" || domain === "ai.onnx" ? version : null;
}

function operationOf(wire: Wire, field: Field): Operation {
  const [inputs, outputs]: [string[], string[]] = [[], []];
  let [type, domain] = ["", ""];
  for (const part of wire.fields(field)) {
    if (part.type !== WireType.LengthDelimited) continue;
    if (part.number === NODE.input) inputs.push(wire.text(part));
    if (part.number === NODE.output) outputs.push(wire.text(part));
    if (part.number === NODE.type) type = wire.text(part);
    if (part.number === NODE.domain) domain = wire.text(part);
  }
  if (domain !== "" && domain !== "ai.onnx") type = `${domain}.${type}`;
  return { type, inputs, outputs, field };
}

/** The attributes of an operation, by name. */
export const attributesOf = (wire: Wire, { field }: Operation): ReadonlyMap<string, Field> =>
  new Map(
    Array.from(wire.parts(field, NODE.attribute), (part) => [
      textOf(wire, part, ATTRIBUTE.name),
      part,
    ]),
  );

/** The whole number that an attribute holds, or `fallback` if there is none. */
export function integerOf(wire: Wire, attribute: Field | undefined, fallback: number): number {
  let value = fallback;
  for (const field of attribute ? wire.fields(attribute) : []) {
    if (field.number === ATTRIBUTE.integer && field.type === WireType.Varint) {
      value = wire.integer(field);
    }
  }
  return value;
}

/** The whole numbers that an attribute holds, or `null` if there is no such attribute. */
export function integersOf(wire: Wire, attribute: Field | undefined): number[] | null {
  if (attribute === undefined) return null;
  const fields = [...wire.fields(attribute)].filter(({ number }) => number === ATTRIBUTE.integers);
  return fields.flatMap((field) => [...wire.integers(field)]);
}

/** The float32 that an attribute holds, or `fallback`, rounded to float32, if there is none. */
export function floatOf(wire: Wire, attribute: Field | undefined, fallback: number): number {
  let value = Math.fround(fallback);
  for (const field of attribute ? wire.fields(attribute) : []) {
    if (field.number === ATTRIBUTE.float && field.type === WireType.Bit32)
      value = wire.float(field);
  }
  return value;
}

/** How many axes a value has, or `null` if the file does not declare its shape. */
function rankOf(wire: Wire, range: Range): number | null {
  for (const type of wire.parts(range, VALUE_INFO.type)) {
    for (const tensor of wire.parts(type, TYPE.tensor)) {
      for (const shape of wire.parts(tensor, TENSOR_TYPE.shape)) {
        let rank = 0;
        for (const _ of wire.parts(shape, SHAPE.dimension)) rank++;
        return rank;
      }
    }
  }
  return null;
}
