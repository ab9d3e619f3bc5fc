// Outputs at the batch norms of an ONNX model, so that any runtime tells what comes into them.

import { describe, OptionError } from "../../errors.js";
import { type Bytes, bytesOf } from "../bytes.js";
import { checkName } from "../layers.js";
import { Edit } from "./edit.js";
import { modelOf } from "./norms.js";
import { nameIn } from "./read.js";
import { GRAPH, VALUE_INFO } from "./schema.js";

/**
 * An ONNX model that gives, after its own outputs, the inputs of these batch norms too, under the names
 * that `readOnnx(bytes).nodes[name].input` tells. All else stays as it is, byte for byte. Run on data,
 * in any runtime, it gives what `diagnose`, `adapt`, or `moments` and `setRunning` need; `writeOnnx`
 * puts the averages back `into` the model that had no taps. Tell the runtime not to optimize the graph
 * (onnxruntime: `graphOptimizationLevel: "disabled"`), or it may fold the norms away, and the taps.
 *
 * @param bytes the model; unchanged.
 * @param names of batch norms, as `readOnnx` lists them, or of PyTorch's modules; a value that is an
 * output already is not given twice.
 * @throws ShapeError for what is no bytes; OptionError for what are no names, or a name that the model
 * has not; StateError for a file that is truncated or malformed.
 *
 * @example
 * const file = readOnnx(original);
 * const tapped = tapOnnx(original, file.layers);
 * const outputs = file.layers.map((name) => file.nodes[name]!.input);
 */
export function tapOnnx(bytes: Bytes, names: readonly string[]): Uint8Array {
  const model = modelOf(bytesOf("bytes", bytes));
  if (!Array.isArray(names)) {
    throw new OptionError(`names: expected an array of names, got ${describe(names)}`);
  }
  const known = [...model.norms.keys()];
  const edit = new Edit(model.graph);
  const given = new Set(model.graph.outputs);
  for (const each of names) {
    const name = nameIn(model, each);
    checkName(known, name);
    const value = model.norms.get(name)!.operation.inputs[0] ?? "";
    if (given.has(value)) continue;
    given.add(value);
    edit.add(GRAPH.output, (writer) => writer.text(VALUE_INFO.name, value));
  }
  return edit.finish();
}
