// Batch-norm layers into ONNX models.

import { checkKeys, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { onnxOptions } from "../../layer/frameworks.js";
import { NO_OPTIONS } from "../../values/check.js";
import { type Bytes, bytesOf, decode, encode, holds } from "../bytes.js";
import { checkName, entriesOf } from "../layers.js";
import { Edit } from "./edit.js";
import { modelOfLayers, numbersOf } from "./fresh.js";
import type { Graph } from "./graph.js";
import { type Model, modelOf, parameterOf } from "./norms.js";
import { externalOf, nameIn } from "./read.js";
import { TYPES } from "./schema.js";
import { follow, type Tensor } from "./tensor.js";
import { usesOf } from "./uses.js";

/** Options of {@link writeOnnx}. */
export interface OnnxWriteOptions {
  /** A model to write the layers into: all that is not theirs stays as it is, byte for byte. */
  into?: Bytes;
  /** The bytes of files beside that model which hold some of its tensors, by location, as for `readOnnx`. */
  external?: Readonly<Record<string, Bytes>>;
  /** For layers whose decay is `"cumulative"`, which ONNX has not: the momentum to write. */
  momentum?: number;
}

/**
 * An ONNX model: with `into`, that model with new values of these layers; else a model of opset 15 of
 * these layers alone, each a node with an input and an output of its own, channels first whatever
 * the layer's layout. `input_var` is an average of the variance that `runningVarianceOf` names;
 * ONNX' own is `"population"`, and at test time the same for either. A parameter that is left out is
 * written as ones or zeros. `debias` and the counter have no place in ONNX. In a model `into`, a
 * tensor that changes is afterwards in the model, wherever it was, and momentum stays as it is.
 *
 * @param layers by the names of the nodes, as `readOnnx` lists them, or of PyTorch's modules.
 * @returns the bytes of the model.
 * @throws OptionError for what is no layer, a name that the model `into` has not or that is no text, or
 * a decay `"cumulative"` without `momentum`; ShapeError for an `into` that is no bytes; StateError where
 * the model `into` is malformed, has another epsilon or other channels, lacks a file that `external`
 * should give, or shares a tensor with other nodes whose values would change too; or for a value that a
 * tensor's type cannot hold.
 *
 * @example
 * const model = writeOnnx({ "/bn1/BatchNormalization": bn1 }, { into: original });
 */
export function writeOnnx(
  layers: Readonly<Record<string, BatchNorm>>,
  options: OnnxWriteOptions = NO_OPTIONS,
): Uint8Array {
  checkKeys("options", options, ["into", "external", "momentum"]);
  onnxOptions(options.momentum === undefined ? {} : { momentum: options.momentum });
  const entries = entriesOf(layers);
  const external = externalOf(options.external);
  return options.into === undefined
    ? modelOfLayers(entries, options.momentum)
    : writeInto(modelOf(bytesOf("into", options.into), external), entries);
}

/** A tensor that gets other values, and for how many of the layers it does. */
interface Change {
  readonly tensor: Tensor;
  readonly data: Uint8Array;
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

/** Notes what a tensor is to hold, unless it does. */
function change(changes: Map<string, Change>, tensor: Tensor, values: ArrayLike<number>): void {
  const { name } = tensor;
  const { format } = TYPES[tensor.type]!;
  const before = tensor.data();
  const data = holds(values, decode(format, before)) ? before : encode(name, format, values);
  if (data.length !== before.length) {
    throw new StateError(
      `tensor "${name}": expected its ${before.length / format.size} channels, got ${values.length}`,
    );
  }
  const other = changes.get(name);
  if (other === undefined && equal(data, before)) return;
  if (other !== undefined && !equal(data, other.data)) refuseSharing(name);
  changes.set(name, { tensor, data, uses: (other?.uses ?? 0) + 1 });
}

/** Throws if a tensor that is to change has other uses than those it changes for. */
function checkUses(graph: Graph, changes: ReadonlyMap<string, Change>): void {
  if (changes.size === 0) return;
  const uses = new Map<string, number>();
  const count = (name: string, times: number): void => {
    const source = follow(graph, name);
    uses.set(source, (uses.get(source) ?? 0) + times);
  };
  for (const [name, times] of usesOf(graph).counts) count(name, times);
  // An Identity takes nothing for itself.
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

const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);
