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
  /** What the file declares about inputs, outputs and other values, by their names. */
  readonly declared: ReadonlyMap<string, Field>;
}

/** Reads the main graph of a file. */
export function graphOf(bytes: Uint8Array): Graph {
  const wire = new Wire(bytes);
  const [graph, second] = wire.parts(wire.all, MODEL.graph);
  if (graph === undefined) {
    throw new StateError("bytes", "an ONNX model with a graph", "none");
  }
  if (second !== undefined) throw new StateError("bytes", "one graph", "several");
  let opset: number | null = null;
  for (const field of wire.parts(wire.all, MODEL.opsets)) opset = opsetOf(wire, field) ?? opset;
  return {
    wire,
    field: graph,
    irVersion: numberOf(wire, wire.all, MODEL.version, 0),
    opset,
    trains: wire.last(wire.all, MODEL.training) !== undefined,
    ...contentsOf(wire, graph),
  };
}

function contentsOf(wire: Wire, graph: Range) {
  const operations = Array.from(wire.parts(graph, GRAPH.node), (field) => operationOf(wire, field));
  const makers = new Map<string, Operation>();
  for (const operation of operations) {
    for (const output of operation.outputs) if (output !== "") makers.set(output, operation);
  }
  const initializers = new Map<string, Field>();
  for (const field of wire.parts(graph, GRAPH.initializer)) {
    const name = textOf(wire, field, TENSOR.name);
    if (initializers.has(name)) refuseTwice("initializers", name);
    if (makers.has(name)) refuseTwice("values", name);
    initializers.set(name, field);
  }
  const outputs: string[] = [];
  const declared = new Map<string, Field>();
  for (const number of [GRAPH.input, GRAPH.output, GRAPH.valueInfo]) {
    for (const field of wire.parts(graph, number)) {
      const name = textOf(wire, field, VALUE_INFO.name);
      if (number === GRAPH.output) outputs.push(name);
      declared.set(name, field);
    }
  }
  return { operations, makers, initializers, outputs, declared };
}

/** Throws an error which says that two things in a file have the same name. */
export function refuseTwice(what: string, name: string): never {
  throw new StateError("bytes", `${what} of different names`, `"${name}" twice`);
}

/** The texts of all fields with this number, in the order of the message. */
export const textsOf = (wire: Wire, range: Range, number: number): string[] =>
  Array.from(wire.parts(range, number), (field) => wire.text(field));

/** The text of a field that a message should have once, or `""` if it is missing. */
export function textOf(wire: Wire, range: Range, number: number): string {
  const field = wire.last(range, number);
  return field ? wire.text(field) : "";
}

/** The whole number of a field that a message should have once, or `fallback` if it is missing. */
export function numberOf(wire: Wire, range: Range, number: number, fallback: number): number {
  const field = wire.last(range, number, WireType.Varint);
  return field ? wire.integer(field) : fallback;
}

/** The version that an entry of `opset_import` has for ONNX' own operators; `null` if it is for other operators. */
function opsetOf(wire: Wire, range: Range): number | null {
  return isOwn(textOf(wire, range, OPSET.domain)) ? numberOf(wire, range, OPSET.version, 1) : null;
}

/** True for the domain of ONNX' own operators. */
const isOwn = (domain: string): boolean => domain === "" || domain === "ai.onnx";

function operationOf(wire: Wire, field: Field): Operation {
  const type = textOf(wire, field, NODE.type);
  const domain = textOf(wire, field, NODE.domain);
  return {
    type: isOwn(domain) ? type : `${domain}.${type}`,
    inputs: textsOf(wire, field, NODE.input),
    outputs: textsOf(wire, field, NODE.output),
    field,
  };
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
export const integerOf = (wire: Wire, attribute: Field | undefined, fallback: number): number =>
  attribute ? numberOf(wire, attribute, ATTRIBUTE.integer, fallback) : fallback;

/** The whole numbers of all fields with this number: one in each field, or several packed in a field. */
export function* integersAt(wire: Wire, range: Range, number: number): Generator<number> {
  for (const field of wire.fields(range)) {
    if (field.number === number) yield* wire.integers(field);
  }
}

/** The whole numbers that an attribute holds, or `null` if there is no such attribute. */
export const integersOf = (wire: Wire, attribute: Field | undefined): number[] | null =>
  attribute ? [...integersAt(wire, attribute, ATTRIBUTE.integers)] : null;

/** The float32 that an attribute holds, or `fallback`, rounded to float32, if there is none. */
export function floatOf(wire: Wire, attribute: Field | undefined, fallback: number): number {
  const field = attribute && wire.last(attribute, ATTRIBUTE.float, WireType.Bit32);
  return field ? wire.float(field) : Math.fround(fallback);
}

/** What is declared about a value that is a tensor: its type and shape. */
export function tensorTypeOf(wire: Wire, declared: Range | undefined): Range | undefined {
  const type = declared && wire.last(declared, VALUE_INFO.type);
  return type && wire.last(type, TYPE.tensor);
}

/** How many axes a value has by what is declared about it; NaN if its shape is not. */
export function rankOf(wire: Wire, declared: Range | undefined): number {
  const tensor = tensorTypeOf(wire, declared);
  const shape = tensor && wire.last(tensor, TENSOR_TYPE.shape);
  if (shape === undefined) return NaN;
  let rank = 0;
  for (const _ of wire.parts(shape, SHAPE.dimension)) rank++;
  return rank;
}
