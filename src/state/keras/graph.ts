// The batch norms of a TensorFlow.js graph model: operations FusedBatchNorm, which the converter leaves
// where they stand behind something else than a convolution, in nets of pre-activation for instance
// (tfjs-converter/src/operations/executors/normalization_executor.ts; TensorFlow's fold_batch_norms
// takes the others into the convolutions). Batch norms that were written as products and sums cannot be
// told from other arithmetic.

import type { Layout } from "../../values/layout.js";
import { isObject } from "../bytes.js";
import type { Json, KerasLayer } from "./topology.js";

const FUSED = /^FusedBatchNorm(V[23])?$/;

/** The weights of an operation in the order of its inputs, the first of which are the data. */
const INPUTS = ["gamma", "beta", "moving_mean", "moving_variance"];

/** How many nodes that hand on their input may follow each other. */
const LONGEST = 100;

/** True for a topology of operations, not of layers. */
export const isGraph = ({ node }: Json): boolean => Array.isArray(node);

/**
 * The batch norms of a graph by the names of their nodes, and the names of constants that no other node
 * has as an input.
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
  const uses = new Map<string, number>();
  for (const [name, node] of nodes) {
    if (passesOn(node)) continue;
    const inputs = inputsOf(node).map((input) => sourceOf(nodes, input));
    for (const input of inputs) uses.set(input, (uses.get(input) ?? 0) + 1);
    const attributes = isObject(node.attr) ? node.attr : {};
    if (typeof node.op !== "string" || !FUSED.test(node.op)) continue;
    if (attributeIn(attributes, "is_training", "b") === true) continue;
    const constants = Object.fromEntries(INPUTS.map((weight, i) => [weight, inputs[i + 1]]));
    // TensorFlow's default, for a file that leaves the attribute out.
    const epsilon = attributeIn(attributes, "epsilon", "f") ?? 1e-4;
    const layout = layoutOf(attributeIn(attributes, "data_format", "s"));
    const config = { name, epsilon };
    layers.set(name, {
      item: node,
      config,
      leaf: name,
      inside: [],
      wrapped: false,
      constants,
      layout,
    });
  }
  return {
    layers,
    own: new Set([...uses].filter(([, count]) => count === 1).map(([name]) => name)),
  };
}

const attributeIn = (attributes: Json, name: string, kind: string): unknown => {
  const attribute = attributes[name];
  return isObject(attribute) ? attribute[kind] : undefined;
};

/** The names of the nodes that a node has as inputs, without the numbers of their outputs. */
const inputsOf = ({ input }: Json): string[] =>
  Array.isArray(input) ? input.map((each) => String(each).replace(/^\^|:\d+$/g, "")) : [];

const passesOn = ({ op }: Json): boolean => op === "Identity" || op === "ReadVariableOp";

/** The node that a name stands for, behind those that hand on their input. */
function sourceOf(nodes: ReadonlyMap<string, Json>, name: string): string {
  for (let i = 0; i < LONGEST; i++) {
    const node = nodes.get(name);
    const [next] = node !== undefined && passesOn(node) ? inputsOf(node) : [];
    if (next === undefined) break;
    name = next;
  }
  return name;
}

/** Data formats in base 64, as the files have them, without the signs that fill up. */
const FORMATS: Readonly<Record<string, Layout>> = {
  TkhXQw: "NHWC",
  TkNIVw: "NCHW",
  TkRIV0M: "NDHWC",
  TkNESFc: "NCDHW",
};

/** The layout of a data format, `null` of one unknown; older files have the codes of its letters. */
function layoutOf(format: unknown): Layout | null {
  if (format === undefined) return "NHWC"; // TensorFlow's default
  if (Array.isArray(format)) {
    const name = String.fromCharCode(...format.slice(0, 9).map(Number));
    return Object.values(FORMATS).find((layout) => layout === name) ?? null;
  }
  const key = String(format).replace(/=+$/, "");
  return Object.hasOwn(FORMATS, key) ? FORMATS[key]! : null;
}
