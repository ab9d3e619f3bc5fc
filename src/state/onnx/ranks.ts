// Works out the rank of the values of a graph: how many axes each has. Exporters seldom write ranks into
// the file. The ranks of weights and of declared inputs and outputs are known, and the others follow from
// what each operation does to the axes of its inputs (https://onnx.ai/onnx/operators/).

import { StateError } from "../../errors.js";
import {
  attributesOf,
  type Graph,
  integerOf,
  integersOf,
  type Operation,
  rankOf,
} from "./graph.js";
import { constantOf, type Tensor } from "./tensor.js";

/** Operations whose first output has as many axes as their first input. */
const KEEPING = new Set(
  (
    "Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization Cast CastLike Ceil Celu Clip Cos Cosh " +
    "CumSum DepthToSpace DequantizeLinear Dropout Elu Erf Exp Floor GatherElements Gelu " +
    "GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample GroupNormalization HardSigmoid HardSwish " +
    "Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Log " +
    "LogSoftmax LpNormalization MaxUnpool MeanVarianceNormalization Mish Neg Not PRelu Pad " +
    "QuantizeLinear RMSNormalization Reciprocal Relu Resize ReverseSequence RoiAlign Round Scatter " +
    "ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign " +
    "SpaceToDepth Sqrt Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Upsample"
  ).split(" "),
);
/** Operations with a window. Their input and output have two axes more than the window: N and C. */
const WINDOWED = new Set("AveragePool Conv ConvTranspose DeformConv LpPool MaxPool".split(" "));
/** Operations that broadcast: the output has as many axes as the input with the most axes. */
const BROADCASTING = new Set(
  (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum " +
    "Where Xor"
  ).split(" "),
);

/** True for an operation of these three kinds. */
export const isListed = (type: string): boolean =>
  [KEEPING, WINDOWED, BROADCASTING].some((kind) => kind.has(type));

/** The number of axes of each value, by name, for all values for which it can be worked out. */
export function ranksOf(graph: Graph): ReadonlyMap<string, number> {
  const axes = new Axes(graph);
  const { operations } = graph;
  // The first pass carries what is known from inputs to outputs, and the second pass, backwards, from outputs to
  // inputs. The third pass carries to later operations what the second one found.
  for (const operation of operations) axes.learn(operation);
  for (let i = operations.length - 1; i >= 0; i--) axes.learn(operations[i]!);
  for (const operation of operations) axes.learn(operation);
  return axes.ranks;
}

/** The ranks that are known so far. Unknown numbers are NaN, so that whatever is computed from them is NaN too. */
class Axes {
  readonly ranks = new Map<string, number>();
  /** How many numbers a tensor with one axis holds, by name. Such a tensor may be a list of sizes or of axes. */
  readonly #lengths = new Map<string, number>();
  readonly #graph: Graph;

  constructor(graph: Graph) {
    this.#graph = graph;
    for (const [name, field] of graph.declared) this.#set(name, rankOf(graph.wire, field));
    for (const name of graph.initializers.keys()) this.#constant(name);
  }

  /** Derives from an operation what it tells about the ranks of its inputs and outputs. */
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
    else if (type === "OneHot") this.#differ(x, y, 1);
    // All steps of a sequence, by direction; then its last step alone.
    else if (/^(GRU|LSTM|RNN)$/.test(type))
      for (const [i, name] of [y, x, ...outputs.slice(1)].entries()) this.#set(name, i ? 3 : 4);
    else if (type === "Gather") this.#set(y, this.#get(x) + this.#get(second) - 1);
    else if (type === "Split") for (const part of outputs) this.#differ(x, part, 0);
    else if (type === "Concat") for (const part of inputs) this.#differ(part, y, 0);
    else if (/^Constant(OfShape)?$/.test(type)) {
      this.#constant(y);
      this.#set(y, this.#lengths.get(x) ?? NaN); // ConstantOfShape of sizes that are computed
    }
    this.#measure(type, inputs, y);
  }

  #get(name: string): number {
    return this.ranks.get(name) ?? NaN;
  }

  /** Notes a rank, unless it is NaN, or the file or an earlier operation has already told the rank of this value. */
  #set(name: string, rank: number): void {
    if (name !== "" && rank >= 0 && !this.ranks.has(name)) this.ranks.set(name, rank);
  }

  /** Notes that `y` has `more` axes more than `x`, whichever of the two is known. */
  #differ(x: string, y: string, more: number): void {
    this.#set(y, this.#get(x) + more);
    this.#set(x, this.#get(y) - more);
  }

  #constant(name: string): void {
    let tensor: Tensor | null = null;
    try {
      tensor = constantOf(this.#graph, name);
    } catch (error) {
      // The sizes of a ConstantOfShape may be in a file that is not at hand. Then nothing is known of it.
      if (!(error instanceof StateError)) throw error;
    }
    if (tensor === null) return;
    this.#set(name, tensor.dimensions.length);
    if (tensor.dimensions.length === 1) this.#lengths.set(name, tensor.dimensions[0]!);
  }

  /**
   * How many sizes or axes an operation is given. They are its second input or, in older opsets, the attribute of
   * this name.
   */
  #sizes(operation: Operation, attribute: string): number {
    const name = operation.inputs[1];
    return name ? (this.#lengths.get(name) ?? NaN) : this.#listed(operation, attribute);
  }

  #listed(operation: Operation, attribute: string): number {
    const { wire } = this.#graph;
    return integersOf(wire, attributesOf(wire, operation).get(attribute))?.length ?? NaN;
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
    // The output has as many axes as one of the inputs. If all inputs but one have fewer axes than the output, the
    // remaining input has as many as the output.
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
    // A product with a matrix on the right has as many axes as the left side.
    if (this.#get(b) === 2) this.#differ(a, y, 0);
    else if (Math.min(this.#get(a), this.#get(b)) >= 2) {
      this.#set(y, Math.max(this.#get(a), this.#get(b)));
    }
  }

  /**
   * Notes the length of a list of sizes that an operation makes. Networks compute the list that they give to
   * Reshape by such operations, and its length is the rank of Reshape's output.
   */
  #measure(type: string, inputs: readonly string[], y: string): void {
    const lengths = inputs.map((name) => this.#lengths.get(name) ?? NaN);
    let length = NaN;
    if (type === "Shape") length = this.#get(inputs[0] ?? "");
    // Exporters use Unsqueeze to turn a single size into a list, which then has one entry.
    else if (type === "Unsqueeze") length = 1;
    else if (type === "Gather") length = lengths[1] ?? length;
    else if (type === "Cast" || type === "Identity") length = lengths[0]!;
    else if (type === "Concat") length = lengths.reduce((a, b) => a + b, 0);
    // Expand is given a list in which sizes stand in place of those that are to stay, which are -1 before.
    else if (BROADCASTING.has(type))
      length = Math.max(...lengths.map((n, i) => (this.#get(inputs[i]!) === 0 ? 1 : n)));
    if (length >= 0) this.#lengths.set(y, length);
  }
}
