// Works out the type of the elements of a value, for values that the file does not declare. Most operations give
// their output the type of their first input (https://onnx.ai/onnx/operators/), so the type is that of a declared
// value, or of a constant, somewhere before it.

import { attributesOf, type Graph, integerOf, numberOf, tensorTypeOf } from "./graph.js";
import { isListed } from "./ranks.js";
import { TENSOR_TYPE } from "./schema.js";
import { constantOf } from "./tensor.js";

/** Among the operations that ranks.ts lists, those whose output may be of another type than their first input. */
const CHANGING = /^(Cast|Dequant|Equal|Greater|Is|Less|Quant)/;
/** Operations that it does not list, whose output has the type of their first input. */
const KEEPING =
  /^(Concat|Einsum|Expand|Flatten|Gather|Gemm|GRU|LSTM|MatMul|RNN|Re(duce\w+|shape)|Split|(Uns|S)queeze)$/;

/** The number of the type of a value's elements; 0 if it is not known. */
export function typeOf(graph: Graph, value: string): number {
  const { wire, declared, makers } = graph;
  // In a malformed file, operations may form a circle.
  const seen = new Set<string>();
  for (let name = value; !seen.has(name); ) {
    seen.add(name);
    const tensor = tensorTypeOf(wire, declared.get(name));
    const found = tensor
      ? numberOf(wire, tensor, TENSOR_TYPE.element, 0)
      : constantOf(graph, name)?.type;
    if (found) return found;
    const maker = makers.get(name);
    if (maker?.outputs[0] !== name) break;
    if (maker.type === "Cast") return integerOf(wire, attributesOf(wire, maker).get("to"), 0);
    if (isListed(maker.type) ? CHANGING.test(maker.type) : !KEEPING.test(maker.type)) break;
    name = maker.inputs[maker.type === "Where" ? 1 : 0] ?? ""; // The first input of Where is a condition.
  }
  return 0;
}
