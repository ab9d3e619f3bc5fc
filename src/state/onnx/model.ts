// An ONNX file as a graph: its BatchNormalization nodes, and what their inputs stand for
// (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, versions 7, 9, 14, 15).

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

export interface Node {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly epsilon: number;
  readonly momentum: number;
  readonly trains: boolean;
  readonly spatial: boolean;
}

export interface Model {
  readonly wire: Wire;
  readonly graph: Range;
  readonly nodes: ReadonlyMap<string, Node>;
  /** Initializers and constants that nodes may take, by name. */
  readonly tensors: ReadonlyMap<string, Field>;
  /** What Identity nodes pass on, by the name that they give it. */
  readonly aliases: ReadonlyMap<string, string>;
  /** How many axes tensors have, where the file says so. */
  readonly ranks: ReadonlyMap<string, number>;
}

export function parse(bytes: Uint8Array): Model {
  const wire = new Wire(bytes);
  let graph: Range | null = null;
  let opset = 1;
  for (const field of wire.fields(wire.all)) {
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === MODEL.graph) {
      if (graph !== null) throw new StateError("bytes: expected one graph, got several");
      graph = field;
    }
    if (field.number === MODEL.opset) opset = opsetOf(wire, field) ?? opset;
  }
  if (graph === null) throw new StateError("bytes: expected an ONNX model with a graph, got none");

  const found: Node[] = [];
  const aliases = new Map<string, string>();
  const tensors = new Map<string, Field>();
  for (const field of wire.parts(graph, GRAPH.node)) {
    const type = typeOf(wire, field);
    if (type === "BatchNormalization") found.push(nodeOf(wire, field, opset));
    else if (type === "Identity") {
      const [input] = textsOf(wire, field, NODE.input);
      const [output] = textsOf(wire, field, NODE.output);
      if (input !== undefined && output !== undefined) aliases.set(output, input);
    } else if (type === "Constant") {
      const [output] = textsOf(wire, field, NODE.output);
      for (const attribute of wire.parts(field, NODE.attribute)) {
        const [tensor] = wire.parts(attribute, ATTRIBUTE.tensor);
        if (tensor !== undefined && output !== undefined) tensors.set(output, tensor);
      }
    }
  }
  if (found.length > 0 && opset < 7) {
    throw new StateError(
      `opset: expected 7 or later, got ${opset}; onnx.version_converter converts older models`,
    );
  }
  const times = new Map<string, number>();
  for (const { name } of found) times.set(name, (times.get(name) ?? 0) + 1);
  const nodes = new Map<string, Node>();
  for (const node of found) {
    const own = node.name !== "" && times.get(node.name) === 1;
    const name = own ? node.name : (node.outputs[0] ?? "");
    if (nodes.has(name)) {
      throw new StateError(`bytes: expected nodes of different names, got "${name}" twice`);
    }
    nodes.set(name, node);
  }

  // Only what those nodes take is kept: a file may have any number of others.
  const inputs = new Set(found.map((node) => node.inputs[0]));
  const wanted = new Set(found.flatMap((node) => node.inputs.map((name) => follow(aliases, name))));
  const ranks = new Map<string, number>();
  for (const field of wire.fields(graph)) {
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === GRAPH.initializer) {
      const [name] = textsOf(wire, field, TENSOR.name);
      if (name === undefined || !wanted.has(name)) continue;
      if (tensors.has(name)) {
        throw new StateError(
          `bytes: expected initializers of different names, got "${name}" twice`,
        );
      }
      tensors.set(name, field);
    }
    if (field.number === GRAPH.input || field.number === GRAPH.valueInfo) {
      const [name] = textsOf(wire, field, VALUE_INFO.name);
      if (name !== undefined && inputs.has(name)) {
        const rank = rankOf(wire, field);
        if (rank !== null) ranks.set(name, rank);
      }
    }
  }
  return { wire, graph, nodes, tensors, aliases, ranks };
}

/** All texts of a field. */
export const textsOf = (wire: Wire, range: Range, number: number): string[] =>
  Array.from(wire.parts(range, number), (field) => wire.text(field));

/** The version of ONNX' own operators, if that is what an import is of. */
function opsetOf(wire: Wire, range: Range): number | null {
  let domain = "";
  let version = 1;
  for (const field of wire.fields(range)) {
    if (field.number === OPSET.domain) domain = wire.text(field);
    if (field.number === OPSET.version) version = wire.integer(field);
  }
  return domain === "" || domain === "ai.onnx" ? version : null;
}

/** The type of a node, if it is one of ONNX' own. */
export function typeOf(wire: Wire, range: Range): string | null {
  let type: string | null = null;
  for (const field of wire.fields(range)) {
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === NODE.type) type = wire.text(field);
    if (field.number === NODE.domain && field.end > field.begin) {
      if (wire.text(field) !== "ai.onnx") return null;
    }
  }
  return type;
}

function nodeOf(wire: Wire, range: Range, opset: number): Node {
  const outputs = textsOf(wire, range, NODE.output);
  let [epsilon, momentum, training, spatial] = [1e-5, 0.9, 0, 1].map(Math.fround) as [
    number,
    number,
    number,
    number,
  ];
  for (const attribute of wire.parts(range, NODE.attribute)) {
    const [name] = textsOf(wire, attribute, ATTRIBUTE.name);
    let value: number | undefined;
    for (const field of wire.fields(attribute)) {
      if (field.number === ATTRIBUTE.float && field.type === WireType.Bit32) {
        if (name === "epsilon") epsilon = wire.float(field);
        if (name === "momentum") momentum = wire.float(field);
      }
      if (field.number === ATTRIBUTE.integer && field.type === WireType.Varint) {
        value = wire.integer(field);
      }
    }
    if (name === "training_mode" && value !== undefined) training = value;
    if (name === "spatial" && value !== undefined) spatial = value;
  }
  // Until opset 13 a node that is asked for more than its first output is in training mode.
  const several = outputs.filter((output) => output !== "").length > 1;
  return {
    name: textsOf(wire, range, NODE.name).at(-1) ?? "",
    inputs: textsOf(wire, range, NODE.input),
    outputs,
    epsilon,
    momentum,
    trains: opset < 14 ? several : training !== 0,
    spatial: opset > 8 || spatial !== 0,
  };
}

/** How many axes a tensor has, if that is said. */
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

/** What a name stands for after any Identity nodes; circles end after as many steps as there are. */
export function follow(aliases: ReadonlyMap<string, string>, name: string): string {
  let source = name;
  for (let step = 0; step < 100 && aliases.has(source); step++) source = aliases.get(source)!;
  return source;
}
