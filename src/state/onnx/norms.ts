// Reads the BatchNormalization nodes of an ONNX model
// (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, versions 1, 6, 7, 9, 14, 15).

import { StateError } from "../../errors.js";
import { checkFormat } from "../format.js";
import { timesOf } from "../keys.js";
import type { External } from "./external.js";
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
import { NODE } from "./schema.js";
import { constantOf, follow, formatOf, type Tensor } from "./tensor.js";

/** The names that ONNX gives to the inputs of a node after its first input, the data, in their order. */
export const SLOTS = ["scale", "B", "input_mean", "input_var"] as const;

/** A BatchNormalization node. */
export interface Norm {
  readonly operation: Operation;
  readonly epsilon: number;
  readonly momentum: number;
  /** True if the node is in training mode, and normalizes by the statistics of the mini-batch. */
  readonly trains: boolean;
  /** False if the node asks for statistics of its own for every position, instead of one set for each channel. */
  readonly spatial: boolean;
  /** The name that PyTorch has for the module, if the names of its averages tell it of this node alone; else `null`. */
  readonly module: string | null;
}

/** A file, its BatchNormalization nodes by name, and the files beside it that hold tensors. */
export interface Model {
  readonly graph: Graph;
  readonly norms: ReadonlyMap<string, Norm>;
  readonly external: External | undefined;
}

/** Reads the model that the caller has as the argument `name`, with the files beside it. */
export function modelOf(name: string, bytes: unknown, external?: External): Model {
  const graph = graphOf(checkFormat(name, bytes, "an ONNX model", ["onnx"]).file);
  const found = graph.operations.filter(({ type }) => type === "BatchNormalization");
  const { opset, wire } = graph;
  if (found.length > 0 && opset === null) {
    throw new StateError(
      "opset_import",
      "the opset, on which the meaning of a BatchNormalization depends",
      "none",
    );
  }
  const own = uniqueOf(found.map(({ field }) => textOf(wire, field, NODE.name)));
  const modules = uniqueOf(found.map((operation) => moduleOf(graph, operation)));
  const norms = new Map<string, Norm>();
  for (const [i, operation] of found.entries()) {
    const name = own[i] ?? operation.outputs[0] ?? "";
    if (norms.has(name)) refuseTwice("nodes", name);
    norms.set(name, normOf(graph, operation, opset!, modules[i] ?? null));
  }
  return { graph, norms, external };
}

/** The names, with `null` in place of empty ones and of those that are there more than once. */
function uniqueOf(names: readonly string[]): (string | null)[] {
  const times = timesOf(names);
  return names.map((name) => (name !== "" && times.get(name) === 1 ? name : null));
}

function normOf(graph: Graph, operation: Operation, opset: number, module: string | null): Norm {
  const { wire } = graph;
  const attributes = attributesOf(wire, operation);
  const integer = (name: string, fallback: number) =>
    integerOf(wire, attributes.get(name), fallback) !== 0;
  // How a node asks for training mode depends on the opset: from 14 on by `training_mode` 1, from 7 to 13 by having
  // more than one output, and before 7 by `is_test` 0, the default there.
  let trains = integer("training_mode", 0);
  if (opset < 14) trains = operation.outputs.filter((output) => output !== "").length > 1;
  if (opset < 7) trains = !integer("is_test", 0);
  return {
    operation,
    epsilon: floatOf(wire, attributes.get("epsilon"), 1e-5),
    momentum: floatOf(wire, attributes.get("momentum"), 0.9),
    trains,
    spatial: opset > 8 || integer("spatial", 1),
    module,
  };
}

/**
 * PyTorch's name for the module of a node: the part before `.running_mean` and `.running_var` in the names of its
 * averages, or where these have other names, of the tensors that Identity operations make them of. `""` if neither
 * have such names, or two different names before these endings.
 */
function moduleOf(graph: Graph, { inputs }: Operation): string {
  const [mean, variance] = ["mean", "var"].map((average, i) => {
    const name = inputs[i + 3] ?? "";
    // writeOnnx puts a number behind the name of a tensor that other nodes share.
    const ending = new RegExp(`\\.running_${average}(_\\d+)?$`);
    const own = [name, follow(graph, name)].find((each) => ending.test(each));
    return own?.replace(ending, "");
  });
  return (mean === variance && mean) || "";
}

/** The tensor, with one axis, that a node takes as its scale, B, mean or variance: `slot` counts them from 0. */
export function parameterOf({ graph, norms, external }: Model, name: string, slot: number): Tensor {
  const input = norms.get(name)!.operation.inputs[slot + 1];
  const tensor = input === undefined ? null : constantOf(graph, input, external);
  if (tensor === null) {
    throw new StateError(
      `node "${name}"`,
      `an initializer or a constant for ${SLOTS[slot]}`,
      input === undefined ? "no input" : `"${input}", which is computed or fed`,
    );
  }
  formatOf(tensor); // Throws if it does not hold floating-point values.
  const { length } = tensor.dimensions;
  if (length !== 1) {
    const axes = length > 8 ? "many" : length;
    throw new StateError(`tensor "${tensor.name}"`, "one axis", axes);
  }
  return tensor;
}
