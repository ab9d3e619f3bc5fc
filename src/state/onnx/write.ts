// Writes batch-norm layers into ONNX models.

import { checkKeys, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { onnxOptions } from "../../layer/frameworks.js";
import { NO_OPTIONS } from "../../values/check.js";
import { type Bytes, decode, encode, holds } from "../bytes.js";
import { checkName, entriesOf } from "../layers.js";
import { isSame } from "../protobuf.js";
import { Edit } from "./edit.js";
import { externalOf } from "./external.js";
import { modelOfLayers, numbersOf } from "./fresh.js";
import type { Graph } from "./graph.js";
import { type Model, modelOf, parameterOf } from "./norms.js";
import { nameIn } from "./read.js";
import { follow, formatOf, type Tensor } from "./tensor.js";
import { usesOf } from "./uses.js";

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
 * node with an input and an output of its own, with the channels first, whatever the layout of the layer.
 *
 * `input_var` is written as the layer has it: as an average of the variance that `runningVarianceOf` names.
 * ONNX itself averages the `"population"` variance in training; at test time, a node uses `input_var` in the
 * same way for either. A gamma that the layer does not have is written as ones, and such a beta as zeros.
 * A BatchNormalization node has no place for `debias`, the activation and the counter of mini-batches.
 *
 * In a model `into`, the momentum of the nodes stays as it is. A tensor that changes is written into the model
 * itself, also if it was in another file.
 *
 * @param layers the layers by the names of their nodes, as `readOnnx` lists them, or by the names of their
 * modules in PyTorch.
 * @returns the bytes of the model.
 * @throws OptionError for a value that is no layer, a name that is empty, is not in the model `into` or has half a
 * character in it, or a decay `"cumulative"` without `momentum`; ShapeError if `into` or a file in `external` is
 * not a Uint8Array or ArrayBuffer; StateError if the model `into` is malformed or of another format, has another
 * epsilon or number of channels, or lacks a file that `external` should give, if a tensor that would change is also
 * used by other nodes or by layers with different values, or if the type of a tensor cannot hold a value.
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

/** A tensor that gets other values. */
interface Change {
  readonly tensor: Tensor;
  /** The new values as bytes. */
  readonly data: Uint8Array;
  /** How many times the layers that are written use the tensor. */
  readonly uses: number;
}

function writeInto(model: Model, entries: readonly [string, BatchNorm][]): Uint8Array {
  const names = [...model.norms.keys()];
  const changes = new Map<string, Change>();
  for (const [given, layer] of entries) {
    const name = nameIn(model, given);
    checkName(names, name);
    const { epsilon } = model.norms.get(name)!;
    if (Math.fround(layer.epsilon) !== epsilon) {
      throw new StateError(
        `node "${name}": expected the epsilon of the model, ${epsilon}, got ${layer.epsilon}`,
      );
    }
    for (const [slot, values] of numbersOf(layer).entries()) {
      change(changes, parameterOf(model, name, slot), values);
    }
  }
  checkUses(model.graph, changes);
  const edit = new Edit(model.graph);
  for (const { tensor, data } of changes.values()) edit.setTensor(tensor, data);
  return edit.finish();
}

/** Notes the values that a tensor is to get, unless it has them already. */
function change(changes: Map<string, Change>, tensor: Tensor, values: ArrayLike<number>): void {
  const { name } = tensor;
  const format = formatOf(tensor);
  const before = tensor.data();
  const data = holds(values, decode(format, before)) ? before : encode(name, format, values);
  if (data.length !== before.length) {
    throw new StateError(
      `tensor "${name}": expected its ${before.length / format.size} channels, got ${values.length}`,
    );
  }
  const other = changes.get(name);
  if (other === undefined && isSame(data, before)) return;
  if (other !== undefined && !isSame(data, other.data)) refuseSharing(name);
  changes.set(name, { tensor, data, uses: (other?.uses ?? 0) + 1 });
}

/** Throws if anything but the layers that are written uses a tensor that is to change. */
function checkUses(graph: Graph, changes: ReadonlyMap<string, Change>): void {
  if (changes.size === 0) return;
  const uses = new Map<string, number>();
  const count = (name: string, times: number): void => {
    const source = follow(graph, name);
    uses.set(source, (uses.get(source) ?? 0) + times);
  };
  for (const [name, times] of usesOf(graph).counts) count(name, times);
  // An Identity only passes its input on. The uses of its output are counted for the input, so that its own use is
  // taken off again.
  for (const { type, inputs } of graph.operations)
    if (type === "Identity") count(inputs[0] ?? "", -1);
  for (const [name, own] of changes) if (uses.get(name) !== own.uses) refuseSharing(name);
}

function refuseSharing(source: string): never {
  throw new StateError(
    `tensor "${source}": expected one that only the layers written use, all with the same values, got ` +
      "one that is shared: other nodes would change with it",
  );
}
