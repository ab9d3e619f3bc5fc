// Reads batch-norm layers from ONNX models.

import type { Kernels } from "../../engine/kernels.js";
import { checkKeys, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { keeping, onnxOptions } from "../../layer/frameworks.js";
import { flag, NO_OPTIONS, readOptions } from "../../values/check.js";
import { CHANNELS_FIRST, checkLayout, LAYOUTS, type Layout, ofRank } from "../../values/layout.js";
import { type Bytes, decode } from "../bytes.js";
import {
  fileOf,
  fromFile,
  type Given,
  inOrder,
  LOAD_KEYS,
  layerOf,
  NO_COUNTER,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "../layers.js";
import { externalOf } from "./external.js";
import type { Graph, Operation } from "./graph.js";
import { type Model, modelOf, parameterOf, SLOTS } from "./norms.js";
import { ranksOf } from "./ranks.js";
import { formatOf } from "./tensor.js";
import { usesOf } from "./uses.js";

/** Options of {@link readOnnx}. */
export interface OnnxReadOptions {
  /** The bytes of the files beside the model that hold some of its tensors, by the location that the model names. */
  external?: Readonly<Record<string, Bytes>>;
}

/** Options of `load` and `loadAll` of {@link readOnnx}. Epsilon is no option, since it is in the file. */
export interface OnnxLoadOptions {
  /** The weight of the OLD value in the running averages. Default: the momentum in the file. */
  momentum?: number;
  /**
   * The order of the axes of the data. Default: the layout with the channels first that has as many axes as the
   * node's input. It is `"channelsFirst"` if no layout has this number of axes, or the number cannot be known.
   */
  layout?: Layout;
  /**
   * Is called with a sentence about something that the user should know about the node, for instance that it has
   * `training_mode=1`. Default: `console.warn`.
   */
  onWarning?: OnWarning;
  /**
   * True gives the layer the `activation` "relu" if a Relu node takes the output of its node, and nothing else does.
   * Leave that node out of what you run after the layer. Default false: layers have no activation.
   */
  withActivation?: boolean;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/** The place of a batch-norm layer in an ONNX model. */
export interface OnnxNode {
  /** The name of the value that the node normalizes. `tapOnnx` makes this value an output under the same name. */
  readonly input: string;
  /** The name of the value that the node makes. */
  readonly output: string;
  /** The name of the module in PyTorch's `state_dict`, if the names of the averages tell it of this node alone; else `null`. */
  readonly module: string | null;
}

/** The batch-norm layers of an ONNX model. */
export interface OnnxFile extends StateFile<OnnxLoadOptions> {
  /** The node of each layer, by the name of the layer in `layers`. */
  readonly nodes: Readonly<Record<string, OnnxNode>>;
}

/**
 * Reads the batch-norm layers of an ONNX model: the BatchNormalization nodes of its main graph, of any
 * opset. A layer has the name of its node. If the node has no name, or shares it with another node, the
 * layer has the name of the node's output. `load` also takes the name of the module in PyTorch, which
 * `nodes` tells.
 *
 * Scale, B, mean and variance may be initializers, in the file or in a file beside it, or come from
 * Constant, ConstantOfShape and Identity nodes. They may be FLOAT, FLOAT16, BFLOAT16 or DOUBLE.
 *
 * Exporters fold batch norms into convolutions unless they are told not to, and then the model has no
 * batch norms to read. PyTorch keeps them with
 * `training=TrainingMode.PRESERVE, do_constant_folding=False`.
 *
 * A file seldom says how many axes the input of a node has. The number is worked out from the weights, and
 * from the operations before and after the node.
 *
 * Epsilon and momentum are float32 in the file, so that 1e-5 is read as 0.00000999999974. The file does not
 * count mini-batches: `batchesSeen` is 1, and `ageKnown` is false. `onWarning` is told of a node in training
 * mode (`training_mode` 1 from opset 14 on, several outputs from opset 7 on, `is_test` 0 before), and of
 * `spatial` 0. A momentum of 1, under which no average moves, is kept: then `train` needs another, or
 * `updateRunning: false`.
 *
 * @param bytes the model. Neither it nor the files in `external` are copied, so leave them unchanged until
 * the layers are loaded.
 * @throws ShapeError if `bytes` or a file in `external` is not a Uint8Array or ArrayBuffer; OptionError for an
 * unknown option; StateError for a file that is truncated, malformed or of another format, or that does not
 * say the opset of its batch norms. Loading a layer throws StateError if one of its tensors is computed or fed when the network runs, is in a
 * file that `external` does not have, or has several axes.
 *
 * @example
 * const file = readOnnx(await (await fetch("model.onnx")).arrayBuffer());
 * const layers = file.loadAll();
 */
export function readOnnx(bytes: Bytes, options: OnnxReadOptions = NO_OPTIONS): OnnxFile {
  checkKeys("options", options, ["external"]);
  const model = modelOf("bytes", bytes, externalOf(options.external));
  let ranks: ReadonlyMap<string, number> | undefined;
  const files = [model.graph.wire.bytes, ...(model.external?.files.values() ?? [])];
  const file = fileOf([...model.norms.keys()], files, (name, given: OnnxLoadOptions) => {
    ranks ??= ranksOf(model.graph);
    return layerAt(model, name, ranks, given);
  });
  const nodes = inOrder(
    [...model.norms].map(([name, { operation, module }]): [string, OnnxNode] => {
      const { inputs, outputs } = operation;
      return [name, Object.freeze({ input: inputs[0] ?? "", output: outputs[0] ?? "", module })];
    }),
  );
  const load = (name: string, ...of: Given<OnnxLoadOptions>): BatchNorm =>
    file.load(nameIn(model, name), ...of);
  return { ...file, nodes: Object.freeze(nodes), load };
}

/**
 * The name of the node that `name` stands for, which may be the node's own name or the name of its module in
 * PyTorch. A name that is neither is returned as it is.
 */
export function nameIn({ norms }: Model, name: string): string {
  if (norms.has(name)) return name;
  for (const [node, { module }] of norms) if (module !== null && module === name) return node;
  return name;
}

/** "relu" if a Relu node takes the output of an operation, and nothing else does; else `null`. */
function activationBehind(graph: Graph, { outputs }: Operation): "relu" | null {
  const [output = ""] = outputs;
  const alone = usesOf(graph).counts.get(output) === 1;
  const isRelu = ({ type, inputs }: Operation): boolean => type === "Relu" && inputs[0] === output;
  return alone && graph.operations.some(isRelu) ? "relu" : null;
}

/** Makes the layer for the node of this name. */
export function layerAt(
  model: Model,
  name: string,
  ranks: ReadonlyMap<string, number>,
  options: OnnxLoadOptions,
): BatchNorm {
  const { onWarning, layout, withActivation, ...given } = readOptions(options, [
    ...LOAD_KEYS,
    "withActivation",
  ]);
  const warn = warningsTo(onWarning);
  onnxOptions(given);
  const { operation, epsilon, momentum, trains, spatial } = model.norms.get(name)!;
  const rank = ranks.get(operation.inputs[0] ?? "") ?? null;
  const named = ofRank(CHANNELS_FIRST, rank) ?? "channelsFirst";
  // PyTorch exports a cumulative average, for which ONNX has no attribute, as momentum 1.
  const own = { ...given, epsilon, momentum: given.momentum ?? momentum };
  const settings = {
    ...fromFile(`node "${name}"`, () => keeping(onnxOptions, own as OnnxLoadOptions)),
    layout: layout === undefined ? named : checkLayout(layout, LAYOUTS),
    activation: flag("withActivation", withActivation, false)
      ? activationBehind(model.graph, operation)
      : null,
  };
  const [gamma, beta, runningMean, runningVariance] = SLOTS.map((_, slot) => {
    const tensor = parameterOf(model, name, slot);
    return decode(formatOf(tensor), tensor.data());
  }) as [Float64Array, Float64Array, Float64Array, Float64Array];
  for (const [slot, { length }] of [gamma, beta, runningMean, runningVariance].entries()) {
    const { length: channels } = runningMean;
    if (length !== channels || channels === 0) {
      throw new StateError(
        `node "${name}"`,
        `${channels || "some"} values of ${SLOTS[slot]}`,
        length,
      );
    }
  }
  if (trains) {
    warn(
      `node "${name}": is in training mode, where ONNX normalizes by the mini-batch; here train does, and infer ` +
        "uses the running averages",
    );
  }
  if (!spatial) {
    warn(
      `node "${name}": has spatial 0, statistics for each position, but its numbers are for each channel: they ` +
        "are used so",
    );
  }
  return layerOf(settings, { gamma, beta, runningMean, runningVariance, ...NO_COUNTER });
}
