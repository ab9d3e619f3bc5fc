// The BatchNormalization nodes of an ONNX model
// (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, versions 1, 6, 7, 9, 14, 15).

import { StateError } from "../../errors.js";
import {
  attributesOf,
  floatOf,
  type Graph,
  graphOf,
  integerOf,
  type Operation,
  refuseTwice,
  textOf,
} from "./graph.js";
import { NODE, TYPES } from "./schema.js";
import { constantOf, type External, follow, type Tensor } from "./tensor.js";

/** The inputs of a node after its data, in order. */
export const SLOTS = ["scale", "B", "input_mean", "input_var"] as const;

/** A BatchNormalization node. */
export interface Norm {
  readonly operation: Operation;
  readonly epsilon: number;
  readonly momentum: number;
  /** True if it normalizes by the mini-batch. */
  readonly trains: boolean;
  /** False if it asks for statistics by position. */
  readonly spatial: boolean;
  /** What PyTorch calls the module, if the names of its averages say so. */
  readonly module: string | null;
}

/** A file, and its nodes by name. */
export interface Model {
  readonly graph: Graph;
  readonly norms: ReadonlyMap<string, Norm>;
  readonly external: External | undefined;
}

/** The model that bytes are. */
export function modelOf(bytes: Uint8Array, external?: External): Model {
  const graph = graphOf(bytes);
  const found = graph.operations.filter(({ type }) => type === "BatchNormalization");
  const { opset, wire } = graph;
  if (found.length > 0 && opset === null) {
    throw new StateError(
      "opset_import: expected the version of the operators, got a model without, though what a " +
        "BatchNormalization means depends on it",
    );
  }
  const own = found.map(({ field }) => textOf(wire, field, NODE.name));
  const times = new Map<string, number>();
  for (const name of own) times.set(name, (times.get(name) ?? 0) + 1);
  const norms = new Map<string, Norm>();
  for (const [i, operation] of found.entries()) {
    const named = own[i] !== "" && times.get(own[i]!) === 1;
    const name = named ? own[i]! : (operation.outputs[0] ?? "");
    if (norms.has(name)) refuseTwice("nodes", name);
    norms.set(name, normOf(graph, operation, opset!));
  }
  return { graph, norms, external };
}

function normOf(graph: Graph, operation: Operation, opset: number): Norm {
  const { wire } = graph;
  const attributes = attributesOf(wire, operation);
  const integer = (name: string, fallback: number) =>
    integerOf(wire, attributes.get(name), fallback) !== 0;
  // Which attribute asks for training has changed; in between, more outputs than one do.
  let trains = integer("training_mode", 0);
  if (opset < 14) trains = operation.outputs.filter((output) => output !== "").length > 1;
  if (opset < 7) trains = !integer("is_test", 0);
  return {
    operation,
    epsilon: floatOf(wire, attributes.get("epsilon"), 1e-5),
    momentum: floatOf(wire, attributes.get("momentum"), 0.9),
    trains,
    spatial: opset > 8 || integer("spatial", 1),
    module: moduleOf(graph, operation),
  };
}

/** The name that both averages begin with, where they are called as PyTorch calls them. */
function moduleOf(graph: Graph, { inputs }: Operation): string | null {
  const [mean, variance] = [inputs[3] ?? "", inputs[4] ?? ""].map((name) => follow(graph, name));
  const name = mean?.match(/^(.+)\.running_mean$/)?.[1] ?? null;
  return `${name}.running_var` === variance ? name : null;
}

/** The tensor of one axis that a node takes as scale, B, mean or variance. */
export function parameterOf({ graph, norms, external }: Model, name: string, slot: number): Tensor {
  const input = norms.get(name)!.operation.inputs[slot + 1];
  const tensor = input === undefined ? null : constantOf(graph, input, external);
  if (tensor === null) {
    throw new StateError(
      `node "${name}": expected an initializer or a constant for ${SLOTS[slot]}, got ` +
        `${input === undefined ? "no input" : `"${input}", which is computed or fed`}`,
    );
  }
  const { type, dimensions } = tensor;
  if (!Object.hasOwn(TYPES, type) || dimensions.length !== 1) {
    const axes = dimensions.length > 8 ? "many" : dimensions.length;
    throw new StateError(
      `tensor "${tensor.name}": expected FLOAT, FLOAT16, BFLOAT16 or DOUBLE of one axis, got type ` +
        `${type} of ${axes}`,
    );
  }
  return tensor;
}
