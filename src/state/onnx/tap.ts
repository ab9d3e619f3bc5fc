// Makes the inputs of a model's batch norms outputs of the model, so that any runtime returns them.

import { describe, OptionError } from "../../errors.js";
import type { Bytes } from "../bytes.js";
import { checkName } from "../layers.js";
import { Edit } from "./edit.js";
import { modelOf } from "./norms.js";
import { nameIn } from "./read.js";
import { GRAPH, VALUE_INFO } from "./schema.js";

/**
 * Returns an ONNX model whose outputs, after those that it has already, are the inputs of these batch norms.
 * `readOnnx(bytes).nodes[name].input` tells the name of each of the new outputs. Everything else in the file
 * stays as it is, byte for byte.
 *
 * Run the new model on data, in any runtime, to get what `diagnose` and `adapt` need, or `moments` and
 * `setRunning`. Then write the new averages with `writeOnnx` `into` the original model, which has no such
 * outputs. Tell the runtime not to optimize the graph (onnxruntime: `graphOptimizationLevel: "disabled"`):
 * it may otherwise fold the batch norms into other layers, and then their inputs are no longer computed.
 *
 * The new outputs have names and no types, which runtimes work out; `onnx.checker` would want to see them.
 *
 * @param bytes the model. It is not changed.
 * @param names the names of batch norms, as `readOnnx` lists them, or the names of their modules in PyTorch.
 * A value that is already an output does not become an output twice.
 * @throws ShapeError if `bytes` is not a Uint8Array or ArrayBuffer; OptionError if `names` is not an array,
 * or has a name that is not in the model; StateError for a file that is truncated, malformed or of another format.
 *
 * @example
 * const file = readOnnx(original);
 * const tapped = tapOnnx(original, file.layers);
 * const outputs = file.layers.map((name) => file.nodes[name]!.input);
 */
export function tapOnnx(bytes: Bytes, names: readonly string[]): Uint8Array {
  const model = modelOf("bytes", bytes);
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
