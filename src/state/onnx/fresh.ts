// Makes a new model that consists of batch-norm layers alone. Each layer becomes a BatchNormalization node with
// an input and an output of its own, so that the nodes are not connected.

import { OptionError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { CHANNELS_FIRST, ofRank } from "../../values/layout.js";
import { encode, FLOATS } from "../bytes.js";
import { constant, momentumOf } from "../layers.js";
import { BinaryWriter } from "../protobuf.js";
import { writeTensor, writeValue } from "./edit.js";
import { ATTRIBUTE, FLOAT, GRAPH, MODEL, NODE, OPSET } from "./schema.js";

/** The names that PyTorch gives to the tensors of a layer, in the order in which a node takes them. */
const TENSORS = ["weight", "bias", "running_mean", "running_var"] as const;

/** The values of the four tensors of a layer, in the order in which a node takes them; each [channels]. */
export const numbersOf = (layer: BatchNorm): readonly ArrayLike<number>[] => [
  layer.gamma ?? constant(layer.channels, 1),
  layer.beta ?? constant(layer.channels, 0),
  layer.runningMean,
  layer.runningVariance,
];

/** The bytes of a model of opset 15. */
export function modelOfLayers(
  layers: readonly [string, BatchNorm][],
  momentum: number | undefined,
): Uint8Array {
  for (const [name] of layers) {
    if (name === "") throw new OptionError("layers", "names for nodes", '""');
  }
  const writer = new BinaryWriter();
  writer.integer(MODEL.version, 8);
  writer.text(MODEL.producer, "batchnorm-wasm");
  writer.message(MODEL.graph, () => {
    for (const [name, layer] of layers) {
      writer.message(GRAPH.node, () => writeNode(writer, name, layer, momentum));
    }
    writer.text(GRAPH.name, "batchnorm");
    for (const [name, layer] of layers) {
      for (const [i, values] of numbersOf(layer).entries()) {
        const tensor = `${name}.${TENSORS[i]}`;
        const bytes = encode(tensor, FLOATS.F32!, values);
        writer.message(GRAPH.initializer, () =>
          writeTensor(writer, tensor, FLOAT, [layer.channels], bytes),
        );
      }
    }
    for (const [number, end] of [
      [GRAPH.input, "x"],
      [GRAPH.output, "y"],
    ] as const) {
      for (const [name, layer] of layers) {
        writer.message(number, () =>
          writeValue(writer, `${name}.${end}`, FLOAT, sizesOf(name, layer)),
        );
      }
    }
  });
  writer.message(MODEL.opsets, () => {
    writer.text(OPSET.domain, "");
    writer.integer(OPSET.version, 15);
  });
  return writer.finish();
}

function writeNode(
  writer: BinaryWriter,
  name: string,
  layer: BatchNorm,
  momentum: number | undefined,
): void {
  writer.text(NODE.input, `${name}.x`);
  for (const tensor of TENSORS) writer.text(NODE.input, `${name}.${tensor}`);
  writer.text(NODE.output, `${name}.y`);
  writer.text(NODE.name, name);
  writer.text(NODE.type, "BatchNormalization");
  for (const [attribute, value] of [
    ["epsilon", layer.epsilon],
    ["momentum", momentumOf("ONNX", name, layer, momentum)],
  ] as const) {
    writer.message(NODE.attribute, () => {
      writer.text(ATTRIBUTE.name, attribute);
      writer.float(ATTRIBUTE.float, value);
      writer.integer(ATTRIBUTE.type, 1);
    });
  }
}

/**
 * The sizes of the axes of a layer's input and output, channels first. Only the channels have a known size; the
 * other axes get names. `null` if the layout of the layer does not say how many axes there are.
 */
const sizesOf = (name: string, { channels, layout }: BatchNorm): (number | string)[] | null => {
  const axes = ofRank(CHANNELS_FIRST, layout.length);
  return axes === undefined
    ? null
    : [...axes].map((axis) => (axis === "C" ? channels : `${name}.${axis}`));
};
