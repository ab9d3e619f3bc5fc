// How many axes the values of a graph have. Exporters seldom write it down, so it is worked out from
// what is sure (weights, declared inputs and outputs) and from what each operation does to the axes
// of its inputs (https://onnx.ai/onnx/operators/).

import { attributesOf, type Graph, integerOf, integersOf, type Operation } from "./graph.js";
import { constantOf } from "./tensor.js";

/** Operations whose first output has as many axes as their first input. */
const KEEPING = new Set(
  (
    "Abs BatchNormalization Cast CastLike Ceil Celu Clip Cos CumSum DepthToSpace DequantizeLinear " +
    "Dropout Elu Erf Exp Floor GatherElements Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool " +
    "GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization LRN " +
    "LayerNormalization LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg " +
    "Not PRelu Pad QuantizeLinear RMSNormalization Reciprocal Relu Resize ReverseSequence Round " +
    "ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Slice Softmax Softplus Softsign " +
    "SpaceToDepth Sqrt Swish Tanh ThresholdedRelu Tile TopK Transpose Trilu Upsample"
  ).split(" "),
);
/** Those with a window, which has two axes less than their input and their output. */
const WINDOWED = new Set("AveragePool Conv ConvTranspose LpPool MaxPool".split(" "));
/** Those whose output has as many axes as that input which has the most. */
const BROADCASTING = new Set(
  "Add And Div Equal Greater Less Max Mean Min Mod Mul Or Pow Sub Sum Where Xor".split(" "),
);

/** The number of axes of each value of which it can be known, by name. */
export function ranksOf(graph: Graph): ReadonlyMap<string, number> {
  const axes = new Axes(graph);
  const { operations } = graph;
  // Forwards, then backwards for what only later operations tell, then what follows from that.
  for (const operation of operations) axes.learn(operation);
  for (let i = operations.length - 1; i >= 0; i--) axes.learn(operations[i]!);
  for (const operation of operations) axes.learn(operation);
  return axes.ranks;
}

/** What is not known is NaN, and so is what is worked out of it. */
class Axes {
  readonly ranks: Map<string, number>;
  /** How many numbers a list of sizes or of axes holds, by its name. */
  readonly #lengths = new Map<string, number>();
  readonly #graph: Graph;

  constructor(graph: Graph) {
    this.#graph = graph;
    this.ranks = new Map(graph.ranks);
    for (const name of graph.initializers.keys()) this.#constant(name);
  }

  /** Learns what an operation tells of its inputs and outputs. */
  learn(operation: Operation): void {
    const { type, inputs, outputs } = operation;
    const [x = "", second = ""] = inputs;
    const [y = ""] = outputs;
    if (KEEPING.has(type)) this.#differ(x, y, 0);
    else if (WINDOWED.has(type)) this.#window(operation);
    else if (BROADCASTING.has(type)) this.#broadcast(inputs, y);
    else if (/^Reduce|^Arg(Max|Min)$/.test(type)) this.#reduce(operation);
    else if (type === "Gemm") for (const name of [x, second, y]) this.#set(name, 2);
    else if (type === "Flatten") this.#set(y, 2);
    else if (type === "MatMul") this.#product(x, second, y);
    else if (type === "Reshape") this.#set(y, this.#sizes(operation, "shape"));
    else if (type === "Expand")
      this.#set(y, Math.max(this.#get(x), this.#sizes(operation, "shape")));
    else if (type === "Squeeze") this.#differ(x, y, -this.#sizes(operation, "axes"));
    else if (type === "Unsqueeze") this.#differ(x, y, this.#sizes(operation, "axes"));
    else if (type === "Gather") this.#set(y, this.#get(x) + this.#get(second) - 1);
    else if (type === "Split") for (const part of outputs) this.#differ(x, part, 0);
    else if (type === "Concat") for (const part of inputs) this.#differ(part, y, 0);
    else if (/^Constant(OfShape)?$/.test(type)) this.#constant(y);
    this.#measure(type, inputs, y);
  }

  #get(name: string): number {
    return this.ranks.get(name) ?? Number.NaN;
  }

  /** What is known stays: the file says so, or an operation before. */
  #set(name: string, rank: number): void {
    if (name !== "" && rank >= 0 && !this.ranks.has(name)) this.ranks.set(name, rank);
  }

  /** `y` has so many axes more than `x`. */
  #differ(x: string, y: string, more: number): void {
    this.#set(y, this.#get(x) + more);
    this.#set(x, this.#get(y) - more);
  }

  #constant(name: string): void {
    const tensor = constantOf(this.#graph, name);
    if (tensor === null) return;
    this.#set(name, tensor.dimensions.length);
    if (tensor.dimensions.length === 1) this.#lengths.set(name, tensor.dimensions[0]!);
  }

  /** How many sizes or axes an operation is given: in its second input, or, in older opsets, an attribute. */
  #sizes(operation: Operation, attribute: string): number {
    const name = operation.inputs[1];
    return name ? (this.#lengths.get(name) ?? Number.NaN) : this.#listed(operation, attribute);
  }

  #listed(operation: Operation, attribute: string): number {
    const { wire } = this.#graph;
    return integersOf(wire, attributesOf(wire, operation).get(attribute))?.length ?? Number.NaN;
  }

  #window(operation: Operation): void {
    const [x = "", weight = ""] = operation.inputs;
    this.#set(x, this.#get(weight));
    this.#set(x, this.#listed(operation, "kernel_shape") + 2);
    this.#differ(x, operation.outputs[0] ?? "", 0);
  }

  #broadcast(inputs: readonly string[], y: string): void {
    const ranks = inputs.map((name) => this.#get(name));
    this.#set(y, Math.max(...ranks));
    // If all but one have fewer axes than the output, that one has as many.
    const rank = this.#get(y);
    const [unknown, ...others] = inputs.filter((_, i) => !(ranks[i]! < rank));
    if (unknown !== undefined && others.length === 0) this.#set(unknown, rank);
  }

  #reduce(operation: Operation): void {
    const { wire } = this.#graph;
    const { inputs, outputs, type } = operation;
    const keeps = integerOf(wire, attributesOf(wire, operation).get("keepdims"), 1) !== 0;
    const axes = type.startsWith("Arg") ? 1 : this.#sizes(operation, "axes");
    this.#differ(inputs[0] ?? "", outputs[0] ?? "", keeps ? 0 : -axes);
  }

  #product(a: string, b: string, y: string): void {
    // By a matrix, whatever comes keeps its axes.
    if (this.#get(b) === 2) this.#differ(a, y, 0);
    else if (Math.min(this.#get(a), this.#get(b)) >= 2) {
      this.#set(y, Math.max(this.#get(a), this.#get(b)));
    }
  }

  /** Follows lists of sizes as networks put them together for Reshape. */
  #measure(type: string, inputs: readonly string[], y: string): void {
    const lengths = inputs.map((name) => this.#lengths.get(name) ?? Number.NaN);
    let length = Number.NaN;
    if (type === "Shape") length = this.#get(inputs[0] ?? "");
    // A list that Unsqueeze makes of a number has that one.
    else if (type === "Unsqueeze") length = 1;
    else if (type === "Gather") length = lengths[1] ?? length;
    else if (type === "Cast" || type === "Identity") length = lengths[0]!;
    else if (type === "Concat") length = lengths.reduce((a, b) => a + b, 0);
    if (length >= 0) this.#lengths.set(y, length);
  }
}
