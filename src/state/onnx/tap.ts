// Makes the inputs of a model's batch norms outputs of the model, so that any runtime returns them.

import { describe, OptionError } from "../../errors.js";
import type { Bytes } from "../bytes.js";
import { checkName } from "../layers.js";
import { Edit, writeValue } from "./edit.js";
import { rankOf } from "./graph.js";
import { modelOf } from "./norms.js";
import { ranksOf } from "./ranks.js";
import { nameIn } from "./read.js";
import { GRAPH, VALUE_INFO } from "./schema.js";
import { typeOf } from "./types.js";

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
 * The new outputs have the type and the shape that the file declares for them or, where it declares none, the type
 * and the number of axes as far as they follow from the operations before them. So `onnx.checker` takes the model,
 * unless it has an operation of which that is not known: runtimes work it out then, and the checker misses it.
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
    throw new OptionError("names", "an array of names", describe(names));
  }
  const { graph, norms } = model;
  const known = [...norms.keys()];
  const edit = new Edit(graph);
  const ranks = ranksOf(graph);
  const given = new Set(graph.outputs);
  for (const each of names) {
    const name = nameIn(model, each);
    checkName(known, name);
    const value = norms.get(name)!.operation.inputs[0] ?? "";
    if (given.has(value)) continue;
    given.add(value);
    edit.add(GRAPH.output, (writer) => {
      const type = typeOf(graph, value);
      const declared = graph.declared.get(value);
      if (rankOf(graph.wire, declared) >= 0) writer.raw(graph.wire.data(declared!));
      else if (type === 0) writer.text(VALUE_INFO.name, value);
      else writeValue(writer, value, type, sizesOf(ranks.get(value)));
    });
  }
  return edit.finish();
}

/** The sizes of as many axes, none of which is known; `null` if not even their number is. */
const sizesOf = (rank: number | undefined): null[] | null =>
  rank === undefined ? null : new Array(rank).fill(null);
