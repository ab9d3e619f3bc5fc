// A model of layers alone: each a BatchNormalization node with an input and an output of its own.

import { OptionError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { CHANNELS_FIRST, ofRank } from "../../values/layout.js";
import { encode, FLOATS } from "../bytes.js";
import { constant, momentumOf } from "../layers.js";
import { BinaryWriter, integer, message, text, WireType } from "../protobuf.js";
import { writeTensor, writeValue } from "./edit.js";
import { ATTRIBUTE, FLOAT, GRAPH, MODEL, NODE, OPSET } from "./schema.js";

/** What PyTorch calls the tensors of a layer, in the order of a node's inputs. */
const TENSORS = ["weight", "bias", "running_mean", "running_var"] as const;

/** What a layer's four tensors hold. */
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
    if (/^$|\p{Surrogate}/u.test(name)) {
      throw new OptionError(`layers: expected names of text, got ${JSON.stringify(name)}`);
    }
  }
  const writer = new BinaryWriter();
  integer(writer, MODEL.irVersion, 8);
  text(writer, MODEL.producer, "batchnorm-wasm");
  message(writer, MODEL.graph, () => {
    for (const [name, layer] of layers) {
      message(writer, GRAPH.node, () => writeNode(writer, name, layer, momentum));
    }
    text(writer, GRAPH.name, "batchnorm");
    for (const [name, layer] of layers) {
      for (const [i, values] of numbersOf(layer).entries()) {
        const tensor = `${name}.${TENSORS[i]}`;
        const bytes = encode(tensor, FLOATS.F32!, values);
        message(writer, GRAPH.initializer, () =>
          writeTensor(writer, tensor, FLOAT, [layer.channels], bytes),
        );
      }
    }
    for (const [number, end] of [
      [GRAPH.input, "x"],
      [GRAPH.output, "y"],
    ] as const) {
      for (const [name, layer] of layers) {
        message(writer, number, () =>
          writeValue(writer, `${name}.${end}`, FLOAT, sizesOf(name, layer)),
        );
      }
    }
  });
  message(writer, MODEL.opset, () => {
    text(writer, OPSET.domain, "");
    integer(writer, OPSET.version, 15);
  });
  return writer.finish();
}

function writeNode(
  writer: BinaryWriter,
  name: string,
  layer: BatchNorm,
  momentum: number | undefined,
): void {
  text(writer, NODE.input, `${name}.x`);
  for (const tensor of TENSORS) text(writer, NODE.input, `${name}.${tensor}`);
  text(writer, NODE.output, `${name}.y`);
  text(writer, NODE.name, name);
  text(writer, NODE.type, "BatchNormalization");
  for (const [attribute, value] of [
    ["epsilon", layer.epsilon],
    ["momentum", momentumOf("ONNX", name, layer, momentum)],
  ] as const) {
    message(writer, NODE.attribute, () => {
      text(writer, ATTRIBUTE.name, attribute);
      writer.tag(ATTRIBUTE.float, WireType.Bit32).float(Math.fround(value));
      integer(writer, ATTRIBUTE.type, 1);
    });
  }
}

/** The axes of what a layer takes and gives, channels first; only the channels have a size. */
const sizesOf = (name: string, { channels, layout }: BatchNorm): (number | string)[] | null => {
  const axes = ofRank(CHANNELS_FIRST, layout.length);
  return axes === undefined
    ? null
    : [...axes].map((axis) => (axis === "C" ? channels : `${name}.${axis}`));
};
