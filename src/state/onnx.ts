// ONNX models: BatchNormalization nodes, their initializers and attributes
// (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, versions 7, 9, 14, 15; the messages
// and their numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).

import type { Kernels } from "../engine/kernels.js";
import { checkKeys, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { onnxOptions } from "../layer/frameworks.js";
import { NO_OPTIONS } from "../values/check.js";
import { CHANNELS_FIRST, type Layout, ofRank } from "../values/layout.js";
import { type Bytes, bytesOf, decode, encode, FLOATS, type FloatFormat, holds } from "./bytes.js";
import {
  checkName,
  constant,
  entriesOf,
  fileOf,
  fromFile,
  layerOf,
  momentumOf,
  NO_COUNTER,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "./layers.js";
import { BinaryWriter, type Field, type Range, Wire, WireType } from "./protobuf.js";

/** Options of `load` and `loadAll` of {@link readOnnx}; epsilon is in the file. */
export interface OnnxLoadOptions {
  /** Weight of the OLD value. Default: that in the file. */
  momentum?: number;
  /** Default: of as many axes as the file says that the node's input has; `"NC"` where it does not. */
  layout?: Layout;
  /** Takes what one should know about the node, `training_mode=1` for instance. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

const LOAD_KEYS = ["momentum", "layout", "onWarning", "kernels"];

/** Options of {@link writeOnnx}. */
export interface OnnxWriteOptions {
  /** A model to write the layers into: all that is not theirs stays as it is, byte for byte. */
  into?: Bytes;
  /** For layers whose decay is `"cumulative"`, which ONNX has not: the momentum to write. */
  momentum?: number;
}

// Numbers of fields, by message.
const MODEL = { irVersion: 1, producer: 2, graph: 7, opset: 8 } as const;
const OPSET = { domain: 1, version: 2 } as const;
const GRAPH = { node: 1, name: 2, initializer: 5, input: 11, output: 12, valueInfo: 13 } as const;
const NODE = { input: 1, output: 2, name: 3, type: 4, attribute: 5, domain: 7 } as const;
const ATTRIBUTE = { name: 1, float: 2, integer: 3, tensor: 5, type: 20 } as const;
const VALUE_INFO = { name: 1, type: 2 } as const;
const TYPE = { tensor: 1 } as const;
const TENSOR_TYPE = { element: 1, shape: 2 } as const;
const SHAPE = { dimension: 1 } as const;
const DIMENSION = { value: 1, parameter: 2 } as const;
const TENSOR = {
  dimensions: 1,
  type: 2,
  floats: 4,
  integers: 5,
  name: 8,
  raw: 9,
  doubles: 10,
  external: 13,
  location: 14,
} as const;
/** All fields of a tensor that may hold its values or say where they are. */
const VALUES: readonly number[] = [4, 5, 6, 7, 9, 10, 11, 13, 14];

/** Floating-point types by their numbers, and the field beside raw_data that may hold their values. */
const TYPES: Readonly<Record<number, { format: FloatFormat; field: number }>> = {
  1: { format: FLOATS.F32!, field: TENSOR.floats },
  10: { format: FLOATS.F16!, field: TENSOR.integers },
  11: { format: FLOATS.F64!, field: TENSOR.doubles },
  16: { format: FLOATS.BF16!, field: TENSOR.integers },
};

/** The inputs of a node after its data, in order. */
const SLOTS = ["scale", "B", "input_mean", "input_var"] as const;

interface Node {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly epsilon: number;
  readonly momentum: number;
  readonly trains: boolean;
  readonly spatial: boolean;
}

interface Model {
  readonly wire: Wire;
  readonly graph: Range;
  readonly nodes: ReadonlyMap<string, Node>;
  /** Initializers and constants that nodes may take, by name. */
  readonly tensors: ReadonlyMap<string, Field>;
  /** What Identity nodes pass on, by the name that they give it. */
  readonly aliases: ReadonlyMap<string, string>;
  /** How many axes tensors have, where the file says so. */
  readonly ranks: ReadonlyMap<string, number>;
}

/**
 * The batch-norm layers of an ONNX model: the BatchNormalization nodes of its main graph, opset 7 or
 * later. They go by the names of the nodes, or, where a node has none of its own, of its output.
 * Scale, B, mean and variance may be initializers or Constant nodes, FLOAT, FLOAT16, BFLOAT16 or
 * DOUBLE. `training_mode` 1 is warned about. Exporters fold batch norms into convolutions unless told
 * not to (PyTorch: `training=TrainingMode.PRESERVE, do_constant_folding=False`): such a model has none.
 *
 * Epsilon and momentum are float32 in the file: 1e-5 comes as 0.00000999999974. The file has no
 * counter: `batchesSeen` is 1, and `ageKnown` false.
 *
 * @param bytes the model; not copied, so leave it unchanged until the layers are loaded.
 * @throws ShapeError for what is no bytes; StateError for a file that is truncated, malformed, or of
 * an opset before 7. On loading: StateError for weights that are computed or in another file, and
 * for `spatial` 0 of opset 7.
 *
 * @example
 * const file = readOnnx(await (await fetch("model.onnx")).arrayBuffer());
 * const layers = file.loadAll({ layout: "NCHW" });
 */
export function readOnnx(bytes: Bytes): StateFile<OnnxLoadOptions> {
  const model = parse(bytesOf("bytes", bytes));
  return fileOf([...model.nodes.keys()], (name, options: OnnxLoadOptions) => {
    checkKeys("options", options, LOAD_KEYS);
    const { onWarning, ...given } = options;
    const warn = warningsTo(onWarning);
    const { kernels } = onnxOptions(given);
    const node = model.nodes.get(name)!;
    const rank = model.ranks.get(node.inputs[0] ?? "") ?? null;
    const layout = options.layout ?? ofRank(CHANNELS_FIRST, rank) ?? "NC";
    const settings = fromFile(`node "${name}"`, () => {
      const { epsilon, momentum } = node;
      return onnxOptions({ epsilon, momentum: options.momentum ?? momentum, layout });
    });
    if (!node.spatial) {
      throw new StateError(
        `node "${name}": expected spatial 1, statistics by channel, got 0, statistics by position`,
      );
    }
    const [gamma, beta, runningMean, runningVariance] = SLOTS.map((_, slot) =>
      valuesOf(model, sourceOf(model, name, slot)),
    ) as [Float64Array, Float64Array, Float64Array, Float64Array];
    for (const [slot, values] of [gamma, beta, runningMean, runningVariance].entries()) {
      if (values.length !== runningMean.length || values.length === 0) {
        throw new StateError(
          `node "${name}": expected ${runningMean.length || "some"} values of ${SLOTS[slot]}, got ${values.length}`,
        );
      }
    }
    if (node.trains) {
      warn(
        `node "${name}": is in training mode, where ONNX normalizes by the mini-batch; here train does, ` +
          "and infer uses the running averages",
      );
    }
    return layerOf(kernels ? { ...settings, kernels } : settings, {
      gamma,
      beta,
      runningMean,
      runningVariance,
      ...NO_COUNTER,
    });
  });
}

function parse(bytes: Uint8Array): Model {
  const wire = new Wire(bytes);
  let graph: Range | null = null;
  let opset = 1;
  for (const field of wire.fields(wire.all)) {
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === MODEL.graph) {
      if (graph !== null) throw new StateError("bytes: expected one graph, got several");
      graph = field;
    }
    if (field.number === MODEL.opset) opset = opsetOf(wire, field) ?? opset;
  }
  if (graph === null) throw new StateError("bytes: expected an ONNX model with a graph, got none");

  const found: Node[] = [];
  const aliases = new Map<string, string>();
  const tensors = new Map<string, Field>();
  for (const field of wire.parts(graph, GRAPH.node)) {
    const type = typeOf(wire, field);
    if (type === "BatchNormalization") found.push(nodeOf(wire, field, opset));
    else if (type === "Identity") {
      const [input] = textsOf(wire, field, NODE.input);
      const [output] = textsOf(wire, field, NODE.output);
      if (input !== undefined && output !== undefined) aliases.set(output, input);
    } else if (type === "Constant") {
      const [output] = textsOf(wire, field, NODE.output);
      for (const attribute of wire.parts(field, NODE.attribute)) {
        const [tensor] = wire.parts(attribute, ATTRIBUTE.tensor);
        if (tensor !== undefined && output !== undefined) tensors.set(output, tensor);
      }
    }
  }
  if (found.length > 0 && opset < 7) {
    throw new StateError(
      `opset: expected 7 or later, got ${opset}; onnx.version_converter converts older models`,
    );
  }
  const times = new Map<string, number>();
  for (const { name } of found) times.set(name, (times.get(name) ?? 0) + 1);
  const nodes = new Map<string, Node>();
  for (const node of found) {
    const own = node.name !== "" && times.get(node.name) === 1;
    const name = own ? node.name : (node.outputs[0] ?? "");
    if (nodes.has(name)) {
      throw new StateError(`bytes: expected nodes of different names, got "${name}" twice`);
    }
    nodes.set(name, node);
  }

  // Only what those nodes take is kept: a file may have any number of others.
  const inputs = new Set(found.map((node) => node.inputs[0]));
  const wanted = new Set(found.flatMap((node) => node.inputs.map((name) => follow(aliases, name))));
  const ranks = new Map<string, number>();
  for (const field of wire.fields(graph)) {
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === GRAPH.initializer) {
      const [name] = textsOf(wire, field, TENSOR.name);
      if (name === undefined || !wanted.has(name)) continue;
      if (tensors.has(name)) {
        throw new StateError(
          `bytes: expected initializers of different names, got "${name}" twice`,
        );
      }
      tensors.set(name, field);
    }
    if (field.number === GRAPH.input || field.number === GRAPH.valueInfo) {
      const [name] = textsOf(wire, field, VALUE_INFO.name);
      if (name !== undefined && inputs.has(name)) {
        const rank = rankOf(wire, field);
        if (rank !== null) ranks.set(name, rank);
      }
    }
  }
  return { wire, graph, nodes, tensors, aliases, ranks };
}

/** All texts of a field. */
const textsOf = (wire: Wire, range: Range, number: number): string[] =>
  Array.from(wire.parts(range, number), (field) => wire.text(field));

/** The version of ONNX' own operators, if that is what an import is of. */
function opsetOf(wire: Wire, range: Range): number | null {
  let domain = "";
  let version = 1;
  for (const field of wire.fields(range)) {
    if (field.number === OPSET.domain) domain = wire.text(field);
    if (field.number === OPSET.version) version = wire.integer(field);
  }
  return domain === "" || domain === "ai.onnx" ? version : null;
}

/** The type of a node, if it is one of ONNX' own. */
function typeOf(wire: Wire, range: Range): string | null {
  let type: string | null = null;
  for (const field of wire.fields(range)) {
    if (field.type !== WireType.LengthDelimited) continue;
    if (field.number === NODE.type) type = wire.text(field);
    if (field.number === NODE.domain && field.end > field.begin) {
      if (wire.text(field) !== "ai.onnx") return null;
    }
  }
  return type;
}

function nodeOf(wire: Wire, range: Range, opset: number): Node {
  const outputs = textsOf(wire, range, NODE.output);
  let [epsilon, momentum, training, spatial] = [1e-5, 0.9, 0, 1].map(Math.fround) as [
    number,
    number,
    number,
    number,
  ];
  for (const attribute of wire.parts(range, NODE.attribute)) {
    const [name] = textsOf(wire, attribute, ATTRIBUTE.name);
    let value: number | undefined;
    for (const field of wire.fields(attribute)) {
      if (field.number === ATTRIBUTE.float && field.type === WireType.Bit32) {
        if (name === "epsilon") epsilon = wire.float(field);
        if (name === "momentum") momentum = wire.float(field);
      }
      if (field.number === ATTRIBUTE.integer && field.type === WireType.Varint) {
        value = wire.integer(field);
      }
    }
    if (name === "training_mode" && value !== undefined) training = value;
    if (name === "spatial" && value !== undefined) spatial = value;
  }
  // Until opset 13 a node that is asked for more than its first output is in training mode.
  const several = outputs.filter((output) => output !== "").length > 1;
  return {
    name: textsOf(wire, range, NODE.name).at(-1) ?? "",
    inputs: textsOf(wire, range, NODE.input),
    outputs,
    epsilon,
    momentum,
    trains: opset < 14 ? several : training !== 0,
    spatial: opset > 8 || spatial !== 0,
  };
}

/** How many axes a tensor has, if that is said. */
function rankOf(wire: Wire, range: Range): number | null {
  for (const type of wire.parts(range, VALUE_INFO.type)) {
    for (const tensor of wire.parts(type, TYPE.tensor)) {
      for (const shape of wire.parts(tensor, TENSOR_TYPE.shape)) {
        let rank = 0;
        for (const _ of wire.parts(shape, SHAPE.dimension)) rank++;
        return rank;
      }
    }
  }
  return null;
}

/** What a name stands for after any Identity nodes; circles end after as many steps as there are. */
function follow(aliases: ReadonlyMap<string, string>, name: string): string {
  let source = name;
  for (let step = 0; step < 100 && aliases.has(source); step++) source = aliases.get(source)!;
  return source;
}

/** The name of the tensor that a node takes as scale, B, mean or variance. */
function sourceOf({ nodes, tensors, aliases }: Model, name: string, slot: number): string {
  const input = nodes.get(name)!.inputs[slot + 1];
  const source = input === undefined ? undefined : follow(aliases, input);
  if (source === undefined || !tensors.has(source)) {
    throw new StateError(
      `node "${name}": expected an initializer or a constant for ${SLOTS[slot]}, got ` +
        `${input === undefined ? "no input" : `"${input}", which is computed or fed`}`,
    );
  }
  return source;
}

/** The numbers of a tensor of one axis, as they lie in the file, and their type. */
function contentOf({ wire, tensors }: Model, name: string): { type: number; data: Uint8Array } {
  const range = tensors.get(name)!;
  const dimensions: number[] = [];
  let type = 0;
  let raw: Uint8Array | null = null;
  for (const field of wire.fields(range)) {
    const { number } = field;
    if (number === TENSOR.dimensions) {
      for (const size of wire.integers(field)) {
        if (dimensions.push(size) > 8) break;
      }
    }
    if (number === TENSOR.type) type = wire.integer(field);
    if (number === TENSOR.raw) raw = wire.data(field);
    if (number === TENSOR.external || (number === TENSOR.location && wire.integer(field) !== 0)) {
      throw new StateError(
        `tensor "${name}": expected values in the model, got external data, in a file beside it; ` +
          "save the model in one file: onnx.save(onnx.load(path), one)",
      );
    }
  }
  if (!Object.hasOwn(TYPES, type) || dimensions.length !== 1) {
    throw new StateError(
      `tensor "${name}": expected FLOAT, FLOAT16, BFLOAT16 or DOUBLE of one axis, got type ${type} ` +
        `of ${dimensions.length > 8 ? "many" : dimensions.length}`,
    );
  }
  const { format, field: number } = TYPES[type]!;
  const data = raw ?? gathered(wire, range, number, format.size);
  if (data.length !== dimensions[0]! * format.size) {
    throw new StateError(
      `tensor "${name}": expected ${dimensions[0]} values of ${format.size} bytes, got ${data.length} bytes`,
    );
  }
  return { type, data };
}

/** The bytes of values that lie in a field of their type, in one row or one by one. */
function gathered(wire: Wire, range: Range, number: number, size: number): Uint8Array {
  const fields = [...wire.fields(range)].filter((field) => field.number === number);
  if (number === TENSOR.integers) {
    // Bits of 16, each in a whole number.
    const bits = fields.flatMap((field) => [...wire.integers(field)]);
    return Uint8Array.from(
      { length: size * bits.length },
      (_, i) => bits[i >> 1]! >> (8 * (i & 1)),
    );
  }
  const bytes = new Uint8Array(fields.reduce((sum, { begin, end }) => sum + end - begin, 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(wire.data(field), at);
    at += field.end - field.begin;
  }
  return bytes;
}

function valuesOf(model: Model, name: string): Float64Array {
  const { type, data } = contentOf(model, name);
  return decode(TYPES[type]!.format, data);
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
