// Makes an ONNX model of one BatchNormalization node and what follows it in a block. It is written as protocol buffers by hand, with the field
// numbers of onnx.proto3 of ONNX 1.10 (IR version 8, opset 15).

import { type Case, type Data, EPSILON } from "../cases.js";

type Bytes = number[];

const varint = (value: number): Bytes => {
  const bytes: Bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  bytes.push(value);
  return bytes;
};
const whole = (field: number, value: number): Bytes => [...varint(field * 8), ...varint(value)];
const message = (field: number, ...parts: ArrayLike<number>[]): Bytes => {
  const body = parts.flatMap((part) => Array.from(part));
  return [...varint(field * 8 + 2), ...varint(body.length), ...body];
};
const text = (field: number, value: string): Bytes =>
  message(field, new TextEncoder().encode(value));
const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
const float = (field: number, value: number): Bytes => [
  ...varint(field * 8 + 5),
  ...bytesOf(Float32Array.of(value)),
];

const FLOAT = 1;

const initializer = (name: string, values: Float32Array): Bytes =>
  message(5, whole(1, values.length), whole(2, FLOAT), text(8, name), message(9, bytesOf(values)));

const valueInfo = (field: number, name: string, dims: readonly number[]): Bytes => {
  const shape = message(2, ...dims.map((size) => message(1, whole(1, size))));
  return message(field, text(1, name), message(2, message(1, whole(1, FLOAT), shape)));
};

const node = (
  kind: string,
  inputs: readonly string[],
  outputs: readonly string[],
  ...attributes: Bytes[]
): Bytes =>
  message(
    1,
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, kind),
    ...attributes,
  );

export function batchNormalizationModel(c: Case, data: Data, training: boolean): Uint8Array {
  const outputs = training ? ["Y", "running_mean", "running_var"] : ["Y"];
  const added = c.after === "add, relu";
  const normalized = c.after ? "normalized" : "Y";
  const following = [
    ...(added ? [node("Add", ["normalized", "Z"], ["sum"])] : []),
    ...(c.after ? [node("Relu", [added ? "sum" : normalized], ["Y"])] : []),
  ];
  const norm = node(
    "BatchNormalization",
    ["X", "scale", "B", "input_mean", "input_var"],
    [normalized, ...outputs.slice(1)],
    message(5, text(1, "epsilon"), float(2, EPSILON), whole(20, 1)),
    message(5, text(1, "momentum"), float(2, 0.9), whole(20, 1)),
    message(5, text(1, "training_mode"), whole(3, training ? 1 : 0), whole(20, 2)),
  );
  const graph = message(
    7,
    norm,
    ...following,
    text(2, "batch_normalization"),
    initializer("scale", data.gamma),
    initializer("B", data.beta),
    initializer("input_mean", data.mean),
    initializer("input_var", data.variance),
    valueInfo(11, "X", c.shape),
    ...(added ? [valueInfo(11, "Z", c.shape)] : []),
    ...outputs.map((name) => valueInfo(12, name, name === "Y" ? c.shape : [c.channels])),
  );
  return Uint8Array.from([...whole(1, 8), ...graph, ...message(8, text(1, ""), whole(2, 15))]);
}
