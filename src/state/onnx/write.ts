// Batch-norm layers into ONNX models, or as a model of their own.

import { checkKeys, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { onnxOptions } from "../../layer/frameworks.js";
import { NO_OPTIONS } from "../../values/check.js";
import { CHANNELS_FIRST, ofRank } from "../../values/layout.js";
import { type Bytes, bytesOf, decode, encode, FLOATS, holds } from "../bytes.js";
import { checkName, constant, entriesOf, momentumOf } from "../layers.js";
import { BinaryWriter, WireType } from "../protobuf.js";
import { follow, type Model, parse, textsOf, typeOf } from "./model.js";
import {
  ATTRIBUTE,
  DIMENSION,
  GRAPH,
  MODEL,
  NODE,
  OPSET,
  SHAPE,
  TENSOR,
  TENSOR_TYPE,
  TYPE,
  TYPES,
  VALUE_INFO,
  VALUES,
} from "./schema.js";
import { contentOf, sourceOf } from "./tensor.js";

/** Options of {@link writeOnnx}. */
export interface OnnxWriteOptions {
  /** A model to write the layers into: all that is not theirs stays as it is, byte for byte. */
  into?: Bytes;
  /** For layers whose decay is `"cumulative"`, which ONNX has not: the momentum to write. */
  momentum?: number;
}

/**
 * An ONNX model: with `into`, that model with new values of these layers; else a model of opset 15 of
 * these layers alone, each a node with an input and an output of its own, channels first whatever
 * the layer's layout. `input_var` is an average of the variance that `runningVarianceOf` names;
 * ONNX' own is `"population"`, and at test time the same for either. A parameter that is left out is
 * written as ones or zeros. `debias` and the counter have no place in ONNX.
 *
 * @param layers by the names of the nodes, as `readOnnx` lists them.
 * @returns the bytes of the model.
 * @throws OptionError for what is no layer, a name that the model `into` has not, or a decay
 * `"cumulative"` without `momentum`; ShapeError for an `into` that is no bytes;
 * StateError where the model `into` is malformed, has another
 * epsilon or other channels, or shares a tensor with other nodes whose values would change too; or
 * for a value that a tensor's type cannot hold.
 *
 * @example
 * const model = writeOnnx({ "/bn1/BatchNormalization": bn1 }, { into: original });
 */
export function writeOnnx(
  layers: Readonly<Record<string, BatchNorm>>,
  options: OnnxWriteOptions = NO_OPTIONS,
): Uint8Array {
  checkKeys("options", options, ["into", "momentum"]);
  onnxOptions(options.momentum === undefined ? {} : { momentum: options.momentum });
  const entries = entriesOf(layers);
  return options.into === undefined
    ? fresh(entries, options.momentum)
    : writeInto(parse(bytesOf("into", options.into)), entries);
}

/** What a layer's four tensors hold. */
const numbersOf = (layer: BatchNorm): readonly ArrayLike<number>[] => [
  layer.gamma ?? constant(layer.channels, 1),
  layer.beta ?? constant(layer.channels, 0),
  layer.runningMean,
  layer.runningVariance,
];

function writeInto(model: Model, entries: readonly [string, BatchNorm][]): Uint8Array {
  const names = [...model.nodes.keys()];
  const changed = new Map<string, { data: Uint8Array; uses: number }>();
  for (const [name, layer] of entries) {
    checkName(names, name);
    const { epsilon } = model.nodes.get(name)!;
    if (Math.fround(layer.epsilon) !== epsilon) {
      throw new StateError(
        `node "${name}": expected the epsilon of the model, ${epsilon}, got ${layer.epsilon}`,
      );
    }
    for (const [slot, values] of numbersOf(layer).entries()) {
      const source = sourceOf(model, name, slot);
      const { type, data: before } = contentOf(model, source);
      const { format } = TYPES[type]!;
      const same = holds(values, decode(format, before));
      const data = same ? before : encode(source, format, values);
      if (data.length !== before.length) {
        throw new StateError(
          `tensor "${source}": expected its ${before.length / format.size} channels, got ${values.length}`,
        );
      }
      const other = changed.get(source);
      if (other === undefined && equal(data, before)) continue;
      if (other !== undefined && !equal(data, other.data)) refuseSharing(source);
      changed.set(source, { data, uses: (other?.uses ?? 0) + 1 });
    }
  }
  checkUses(model, changed);
  const values = new Map<number, Uint8Array>();
  for (const [source, { data }] of changed) {
    const range = model.tensors.get(source)!;
    const writer = new BinaryWriter();
    for (const field of model.wire.fields(range)) {
      if (VALUES.includes(field.number)) continue;
      writer.raw(model.wire.data({ begin: field.start, end: field.end }));
    }
    writer.tag(TENSOR.raw, WireType.LengthDelimited).bytes(data);
    values.set(range.begin, writer.finish());
  }
  return model.wire.replace(values);
}

/** Throws if a tensor that is to change has other uses than those it changes for. */
function checkUses(
  { wire, graph, aliases }: Model,
  changed: ReadonlyMap<string, { uses: number }>,
): void {
  if (changed.size === 0) return;
  const uses = new Map<string, number>();
  for (const node of wire.parts(graph, GRAPH.node)) {
    if (typeOf(wire, node) === "Identity") continue;
    for (const input of textsOf(wire, node, NODE.input)) {
      const source = follow(aliases, input);
      uses.set(source, (uses.get(source) ?? 0) + 1);
    }
  }
  for (const [source, own] of changed) {
    if (uses.get(source) !== own.uses) refuseSharing(source);
  }
}

function refuseSharing(source: string): never {
  throw new StateError(
    `tensor "${source}": expected one that only the layers written use, all with the same values, got ` +
      "one that is shared: other nodes would change with it",
  );
}

const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);

function fresh(entries: readonly [string, BatchNorm][], momentum: number | undefined): Uint8Array {
  const model = new BinaryWriter();
  const text = (number: number, value: string): void => {
    model.tag(number, WireType.LengthDelimited).string(value);
  };
  const integer = (number: number, value: number): void => {
    model.tag(number, WireType.Varint).int64(value);
  };
  const message = (number: number, fill: () => void): void => {
    model.tag(number, WireType.LengthDelimited).fork();
    fill();
    model.join();
  };
  const float = (name: string, value: number): void =>
    message(NODE.attribute, () => {
      text(ATTRIBUTE.name, name);
      model.tag(ATTRIBUTE.float, WireType.Bit32).float(Math.fround(value));
      integer(ATTRIBUTE.type, 1);
    });
  const port = (
    number: number,
    name: string,
    end: "x" | "y",
    { channels, layout }: BatchNorm,
  ): void =>
    message(number, () => {
      text(VALUE_INFO.name, `${name}.${end}`);
      message(VALUE_INFO.type, () =>
        message(TYPE.tensor, () => {
          integer(TENSOR_TYPE.element, 1);
          message(TENSOR_TYPE.shape, () => {
            for (const axis of ofRank(CHANNELS_FIRST, layout.length)!) {
              message(SHAPE.dimension, () => {
                if (axis === "C") integer(DIMENSION.value, channels);
                else text(DIMENSION.parameter, `${name}.${axis}`);
              });
            }
          });
        }),
      );
    });
  const tensorNames = (name: string): string[] =>
    ["weight", "bias", "running_mean", "running_var"].map((tensor) => `${name}.${tensor}`);

  integer(MODEL.irVersion, 8);
  text(MODEL.producer, "batchnorm-wasm");
  message(MODEL.graph, () => {
    for (const [name, layer] of entries) {
      message(GRAPH.node, () => {
        for (const input of [`${name}.x`, ...tensorNames(name)]) text(NODE.input, input);
        text(NODE.output, `${name}.y`);
        text(NODE.name, name);
        text(NODE.type, "BatchNormalization");
        float("epsilon", layer.epsilon);
        float("momentum", momentumOf("ONNX", name, layer, momentum));
      });
    }
    text(GRAPH.name, "batchnorm");
    for (const [name, layer] of entries) {
      for (const [i, tensor] of tensorNames(name).entries()) {
        message(GRAPH.initializer, () => {
          integer(TENSOR.dimensions, layer.channels);
          integer(TENSOR.type, 1);
          text(TENSOR.name, tensor);
          model
            .tag(TENSOR.raw, WireType.LengthDelimited)
            .bytes(encode(tensor, FLOATS.F32!, numbersOf(layer)[i]!));
        });
      }
    }
    for (const [name, layer] of entries) port(GRAPH.input, name, "x", layer);
    for (const [name, layer] of entries) port(GRAPH.output, name, "y", layer);
  });
  message(MODEL.opset, () => {
    text(OPSET.domain, "");
    integer(OPSET.version, 15);
  });
  return model.finish();
}
