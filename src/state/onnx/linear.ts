// Reads the convolutions and linear layers of an ONNX graph as options of the function `fold`
// (https://onnx.ai/onnx/operators/: Conv, ConvTranspose, Gemm, MatMul).

import { StateError } from "../../errors.js";
import type { FoldOptions } from "../../testtime/fold.js";
import { decode } from "../bytes.js";
import { SPATIAL } from "../folding.js";
import { attributesOf, floatOf, type Graph, integerOf, integersOf, textOf } from "./graph.js";
import type { Network, Step } from "./network.js";
import { ATTRIBUTE } from "./schema.js";
import { formatOf, type Tensor } from "./tensor.js";

/** The operations into which a norm may be folded. */
export const LINEAR: readonly string[] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/**
 * The number of the type DOUBLE. Weights of this type are refused, since folding rounds to float32 and would lose
 * digits that they have.
 */
const DOUBLE = 11;

/** A convolution or linear layer whose weight and bias are known. */
export interface Linear {
  readonly options: Omit<FoldOptions, "into">;
  /** The name of the weight. */
  readonly name: string;
  /** The number of the weight's type, to which the folded values are rounded. */
  readonly type: number;
  /** How many out channels the layer has. */
  readonly outs: number;
  /** How many axes the input and the output of the layer have. */
  readonly rank: number;
  /** True if the layer is a Gemm that exchanges the rows and columns of its input (`transA`). */
  readonly flips: boolean;
}

/**
 * Reads the layer that a step is.
 *
 * @throws StateError if its weight or bias is computed or fed when the network runs, or has a type or shape that
 * cannot be folded.
 */
export function linearOf(graph: Graph, network: Network, step: Step): Linear {
  const { wire } = graph;
  const attributes = attributesOf(wire, step.operation);
  // An earlier fold into this layer has multiplied its weight by `alpha` and its bias by `beta` and dropped both
  // attributes. They must not be applied a second time.
  const get = (name: string) => (step.dropped.includes(name) ? undefined : attributes.get(name));
  const { name, type, dimensions, values } = weightOf(graph, network, step);
  const [first = 0, second = 0] = dimensions;
  const convolves = step.type.startsWith("Conv");
  if (convolves ? dimensions.length < 3 || dimensions.length > 5 : dimensions.length !== 2) {
    throw new StateError(`its weight "${name}" has ${dimensions.length} axes`);
  }
  const groups = convolves ? integerOf(wire, get("group"), 1) : 1;
  if (!dimensions.every((size) => size >= 1) || !(groups >= 1 && first % groups === 0)) {
    throw new StateError(`its weight is [${dimensions}], in ${groups} groups`);
  }
  const transposed = step.type === "ConvTranspose";
  const alpha = floatOf(wire, get("alpha"), 1);
  const beta = floatOf(wire, get("beta"), 1);
  const outFirst = convolves ? !transposed : integerOf(wire, get("transB"), 0) !== 0;
  const outs = outFirst ? first : second * groups;
  const rank = dimensions.length;
  const bias = step.inputs[2]
    ? perChannel(knownTensor(network, step, 2), convolves ? 1 : 2, outs)
    : null;
  const pad = get("auto_pad");
  const padded = pad === undefined ? "NOTSET" : textOf(wire, pad, ATTRIBUTE.text);
  const padding = padded.startsWith("SAME") ? "same" : (integersOf(wire, get("pads")) ?? 0);
  // These attributes, and pads below 0, may give a ConvTranspose outputs that see no input. Then its strides are not
  // stated, and `fold` refuses.
  const adds =
    get("output_shape") ||
    integersOf(wire, get("output_padding"))?.some(Boolean) ||
    [padding].flat().some((size) => Number(size) < 0);
  return {
    options: {
      weight: values.map((value) => value * alpha),
      bias: bias?.map((value) => value * beta) ?? null,
      shape: dimensions,
      kind: convolves ? (transposed ? "convTranspose" : "conv") : "linear",
      order: (outFirst ? "OI" : "IO") + (convolves ? SPATIAL[rank - 2] : ""),
      groups,
      padding: padded === "VALID" ? "valid" : padding,
      strides: adds ? [] : (integersOf(wire, get("strides")) ?? 1),
    },
    name,
    type,
    outs,
    rank,
    flips: integerOf(wire, get("transA"), 0) !== 0,
  };
}

/**
 * The weight of a layer. The weight of a linear layer may also come from a Transpose node that exchanges rows and
 * columns of a known tensor; then the exchanged values are returned.
 */
function weightOf(graph: Graph, network: Network, step: Step) {
  const maker = network.makerOf(step.inputs[1] ?? "");
  const order =
    maker && integersOf(graph.wire, attributesOf(graph.wire, maker.operation).get("perm"));
  const turns = maker?.type === "Transpose" && (order ?? [1, 0]).join() === "1,0";
  if (!turns || step.type.startsWith("Conv")) {
    const tensor = knownTensor(network, step, 1);
    return { ...tensor, values: floatsOf(tensor) };
  }
  const tensor = knownTensor(network, maker, 0);
  const values = floatsOf(tensor);
  const [columns = 1, rows = 1] = tensor.dimensions;
  const turned = values.map((_, i) => values[(i % columns) * rows + Math.floor(i / columns)]!);
  return { ...tensor, dimensions: [...tensor.dimensions].reverse(), values: turned };
}

/** The tensor that a step takes as the input numbered `slot`. Throws if it is computed or fed. */
function knownTensor(network: Network, { type, inputs }: Step, slot: number): Tensor {
  const name = inputs[slot] ?? "";
  const tensor = network.tensorOf(name);
  if (tensor === null) {
    throw new StateError(`"${name}", which ${type} takes, is computed or fed`);
  }
  return tensor;
}

/** The values of a tensor as float32. Throws for all types but FLOAT, FLOAT16 and BFLOAT16. */
function floatsOf(tensor: Tensor): Float32Array {
  const format = formatOf(tensor);
  if (tensor.type === DOUBLE) {
    throw new StateError(`tensor "${tensor.name}" is DOUBLE, which folding would round to FLOAT`);
  }
  return Float32Array.from(decode(format, tensor.data()));
}

/**
 * Reads a tensor that is added to values with `rank` axes as one number for each channel, [channels]. The
 * channels are the second of these axes, or the only one.
 *
 * @throws StateError if the tensor has different numbers along any other axis, or is of a type that is not folded.
 */
export function perChannel(tensor: Tensor, rank: number, channels: number): Float32Array {
  const { name, dimensions } = tensor;
  const axis = dimensions.length - (rank === 1 ? 1 : rank - 1);
  const size = dimensions[axis] ?? 1;
  const alone = dimensions.every((other, i) => i === axis || other === 1);
  if (!alone || dimensions.length > rank || !(size === 1 || size === channels)) {
    throw new StateError(
      `what is added to it, "${name}", is [${dimensions}], not one value for each of ${channels} channels`,
    );
  }
  const values = floatsOf(tensor);
  return size === channels ? values : new Float32Array(channels).fill(values[0]!);
}
