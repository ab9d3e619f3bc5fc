// Writes batch-norm layers into ONNX models.

import { checkKeys, OptionError, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { onnxOptions } from "../../layer/frameworks.js";
import { NO_OPTIONS } from "../../values/check.js";
import { type Bytes, decode, encode, holds, isSame } from "../bytes.js";
import { checkName, entriesOf } from "../layers.js";
import { externalOf } from "./external.js";
import { modelOfLayers, numbersOf } from "./fresh.js";
import { Network } from "./network.js";
import { type Model, modelOf, parameterOf } from "./norms.js";
import { nameIn } from "./read.js";
import { formatOf, type Tensor } from "./tensor.js";

/** Options of {@link writeOnnx}. */
export interface OnnxWriteOptions {
  /** A model into which the layers are written. Everything else in it stays as it is, byte for byte. */
  into?: Bytes;
  /** The bytes of the files that hold some tensors of the model `into`, by their locations, as for `readOnnx`. */
  external?: Readonly<Record<string, Bytes>>;
  /** The momentum to write for layers whose decay is `"cumulative"`, since ONNX has no cumulative average. */
  momentum?: number;
}

/**
 * Writes layers into an ONNX model. With `into`, the result is a copy of that model in which the nodes of
 * these layers have new values. Without, it is a new model of opset 15 that has these layers alone: each is a
 * node with an input and an output of its own, with the channels first, whatever the layout of the layer. Where that
 * leaves the number of axes open, as `"channelsLast"` does, the file does not say it either: runtimes take such a model,
 * `onnx.checker` does not.
 *
 * `input_var` is written as the layer has it: as an average of the variance that `runningVarianceOf` names.
 * ONNX itself averages the `"population"` variance in training; at test time, a node uses `input_var` in the
 * same way for either. A gamma that the layer does not have is written as ones, and such a beta as zeros.
 * A BatchNormalization node has no place for `debias`, `renorm`, the activation (a node of its own in ONNX) and the counter
 * of mini-batches: they are left out without a warning.
 *
 * In a model `into`, the momentum of the nodes stays as it is. A tensor that changes is written into the model
 * itself, also if it was in another file. If other nodes use the tensor too, they keep it, and the node of the
 * layer gets one of its own.
 *
 * @param layers the layers by the names of their nodes, as `readOnnx` lists them, or by the names of their
 * modules in PyTorch.
 * @returns the bytes of the model.
 * @throws OptionError for a value that is no layer, a name that is empty, is not in the model `into` or has half a
 * character in it, for two layers of one node, or a decay `"cumulative"` without `momentum`; ShapeError if `into` or a file in `external` is
 * not a Uint8Array or ArrayBuffer; StateError if the model `into` is malformed or of another format, has another
 * epsilon or number of channels, or lacks a file that `external` should give, or if the type of a tensor cannot hold
 * a value.
 *
 * @example
 * const model = writeOnnx({ "/bn1/BatchNormalization": bn1 }, { into: original });
 */
export function writeOnnx(
  layers: Readonly<Record<string, BatchNorm>>,
  options: OnnxWriteOptions = NO_OPTIONS,
): Uint8Array {
  checkKeys("options", options, ["into", "external", "momentum"]);
  const { into, external, momentum } = options;
  onnxOptions(momentum === undefined ? {} : { momentum });
  const entries = entriesOf(layers);
  const files = externalOf(external);
  return into === undefined
    ? modelOfLayers(entries, momentum)
    : writeInto(modelOf("into", into, files), entries);
}

function writeInto(model: Model, entries: readonly [string, BatchNorm][]): Uint8Array {
  const names = [...model.norms.keys()];
  const network = new Network(model);
  const written = new Set<string>();
  for (const [given, layer] of entries) {
    const name = nameIn(model, given);
    checkName(names, name);
    if (written.has(name)) throw new OptionError("layers", "each node once", `"${name}" twice`);
    written.add(name);
    const { epsilon, operation } = model.norms.get(name)!;
    if (Math.fround(layer.epsilon) !== epsilon) {
      throw new StateError(`node "${name}"`, `the epsilon of the model, ${epsilon}`, layer.epsilon);
    }
    for (const [slot, values] of numbersOf(layer).entries()) {
      const tensor = parameterOf(model, name, slot);
      const data = dataFor(tensor, values);
      if (data === null) continue;
      const hint = operation.inputs[slot + 1]!;
      network.put(network.stepOf(operation), slot + 1, hint, { ...tensor, data: () => data });
    }
  }
  return network.finish();
}

/** The bytes of these values in the type of a tensor; `null` if the tensor has them already. */
function dataFor(tensor: Tensor, values: ArrayLike<number>): Uint8Array | null {
  const { name } = tensor;
  const format = formatOf(tensor);
  const before = tensor.data();
  if (holds(values, decode(format, before))) return null;
  const data = encode(name, format, values);
  if (data.length !== before.length) {
    throw new StateError(
      `tensor "${name}"`,
      `its ${before.length / format.size} channels`,
      values.length,
    );
  }
  return isSame(data, before) ? null : data;
}
