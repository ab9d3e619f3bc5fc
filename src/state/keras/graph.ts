// Finds the batch norms of a TensorFlow.js graph model: its operations FusedBatchNorm
// (tfjs-converter/src/operations/executors/normalization_executor.ts). The converter folds a norm that
// follows a convolution into it (TensorFlow's fold_batch_norms), and leaves the others, as in
// pre-activation networks. A batch norm that was written as products and sums is not found, since it
// cannot be told from other arithmetic.

import type { Activation } from "../../values/activation.js";
import type { Layout } from "../../values/layout.js";
import { isObject } from "../bytes.js";
import { lookUp, timesOf } from "../keys.js";
import type { Json, KerasLayer } from "./topology.js";

const FUSED = /^FusedBatchNorm(V[23])?$/;

/**
 * The weights of a batch norm. An operation takes them as inputs in this order, behind the data, which are its first
 * input.
 */
const WEIGHTS = ["gamma", "beta", "moving_mean", "moving_variance"];

/** The longest chain of nodes that is followed of those that only pass on their input. */
const LONGEST = 100;

/** True for a topology that consists of operations, as a graph model has it, and not of layers. */
export const isGraph = ({ node }: Json): boolean => Array.isArray(node);

/**
 * The batch norms of a graph by the names of their nodes; and in `own` the names of the nodes that are an
 * input of one operation only, so that their values can change without changing another operation.
 */
export function graphOf(topology: Json): {
  readonly layers: ReadonlyMap<string, KerasLayer>;
  readonly own: ReadonlySet<string>;
} {
  const nodes = new Map<string, Json>();
  for (const node of topology.node as unknown[]) {
    if (isObject(node) && typeof node.name === "string") nodes.set(node.name, node);
  }
  const layers = new Map<string, KerasLayer>();
  const used: string[] = [];
  for (const [name, node] of nodes) {
    if (passesOn(node)) continue;
    const inputs = inputsOf(node).map((input) => sourceOf(nodes, input));
    used.push(...inputs);
    const attributes = isObject(node.attr) ? node.attr : {};
    if (typeof node.op !== "string" || !FUSED.test(node.op)) continue;
    if (attributeIn(attributes, "is_training", "b") === true) continue;
    const constant = (weight: string) => inputs[WEIGHTS.indexOf(weight) + 1];
    // A file may leave the attribute out; TensorFlow's default applies then.
    const epsilon = attributeIn(attributes, "epsilon", "f") ?? 1e-4;
    const layout = layoutOf(attributeIn(attributes, "data_format", "s"));
    const config = { name, epsilon };
    layers.set(name, {
      item: node,
      config,
      leaf: name,
      inside: [],
      wrappers: 0,
      constant,
      layout,
    });
  }
  return {
    layers,
    own: new Set([...timesOf(used)].filter(([, count]) => count === 1).map(([name]) => name)),
  };
}

const attributeIn = (attributes: Json, name: string, kind: string): unknown => {
  const attribute = attributes[name];
  return isObject(attribute) ? attribute[kind] : undefined;
};

/** The operations that are an activation of the package. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = { Relu: "relu", Relu6: "relu6" };

/**
 * The activation that alone takes the output of the node of this name; `null` if something else takes it, or if it is also
 * an output of the model.
 */
export function activationAfter(model: Json, name: string): Activation | null {
  const { modelTopology: topology, userDefinedMetadata: metadata, signature } = model;
  const nodes = (topology as Json).node as unknown[];
  const takers = nodes.filter(isObject).filter((node) => inputsOf(node).includes(name));
  // Which of the two has the outputs depends on the version of the converter.
  const { outputs } = Object(Object(metadata).signature ?? signature) as Json;
  const isOutput = Object.values(Object(outputs)).some(
    (output) => withoutNumber(Object(output).name) === name,
  );
  const [taker] = takers;
  // What only waits for the norm, by a control input, comes after another value, which is its first input.
  if (isOutput || takers.length > 1 || taker === undefined || inputsOf(taker)[0] !== name)
    return null;
  return lookUp(ACTIVATIONS, String(taker.op)) ?? null;
}

/** The name of a node, without the number of the output or the sign of a control input. */
const withoutNumber = (value: unknown): string => String(value).replace(/^\^|:\d+$/g, "");

/** The names of a node's input nodes, without the number of the output or the sign of a control input. */
const inputsOf = ({ input }: Json): string[] =>
  Array.isArray(input) ? input.map(withoutNumber) : [];

const passesOn = ({ op }: Json): boolean => op === "Identity" || op === "ReadVariableOp";

/** The node that computes a value: follows the nodes that only pass on their input back to it. */
function sourceOf(nodes: ReadonlyMap<string, Json>, name: string): string {
  for (let i = 0; i < LONGEST; i++) {
    const node = nodes.get(name);
    const [next] = node !== undefined && passesOn(node) ? inputsOf(node) : [];
    if (next === undefined) break;
    name = next;
  }
  return name;
}

/** Data formats in base64, as the files have them, without the `=` signs at the end. */
const FORMATS: Readonly<Record<string, Layout>> = {
  TkhXQw: "NHWC",
  TkNIVw: "NCHW",
  TkRIV0M: "NDHWC",
  TkNESFc: "NCDHW",
};

/** The layout that a data format names, `null` if it is unknown. Older files have an array of character codes. */
function layoutOf(format: unknown): Layout | null {
  if (format === undefined) return "NHWC"; // TensorFlow's default
  if (Array.isArray(format)) {
    const name = String.fromCharCode(...format.slice(0, 9).map(Number));
    return Object.values(FORMATS).find((layout) => layout === name) ?? null;
  }
  const key = String(format).replace(/=+$/, "");
  return lookUp(FORMATS, key) ?? null;
}
