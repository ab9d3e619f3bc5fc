// Batch-norm layers from ONNX models.

import type { Kernels } from "../../engine/kernels.js";
import { checkKeys, describe, OptionError, StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { onnxOptions } from "../../layer/frameworks.js";
import { NO_OPTIONS } from "../../values/check.js";
import { CHANNELS_FIRST, checkLayout, LAYOUTS, type Layout, ofRank } from "../../values/layout.js";
import { type Bytes, bytesOf, decode } from "../bytes.js";
import {
  fileOf,
  fromFile,
  type Given,
  inOrder,
  layerOf,
  NO_COUNTER,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "../layers.js";
import { type Model, modelOf, parameterOf, SLOTS } from "./norms.js";
import { ranksOf } from "./ranks.js";
import { TYPES } from "./schema.js";
import type { External } from "./tensor.js";

/** Options of {@link readOnnx}. */
export interface OnnxReadOptions {
  /** The bytes of files beside the model that hold some of its tensors, by the location that it has for them. */
  external?: Readonly<Record<string, Bytes>>;
}

/** Options of `load` and `loadAll` of {@link readOnnx}; epsilon is in the file. */
export interface OnnxLoadOptions {
  /** Weight of the OLD value. Default: that in the file. */
  momentum?: number;
  /**
   * Default: channels first, of as many axes as the node's input has; `"channelsFirst"` where those have
   * no layout of their own or cannot be known.
   */
  layout?: Layout;
  /** Takes what one should know about the node, `training_mode=1` for instance. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/** Where a batch-norm layer stands in an ONNX model. */
export interface OnnxNode {
  /** The name of the value that it normalizes: of the output, too, by which `tapOnnx` gives it. */
  readonly input: string;
  /** The name of the value that it gives. */
  readonly output: string;
  /** What PyTorch calls the module in a `state_dict`, where the names of the averages tell; else `null`. */
  readonly module: string | null;
}

/** The batch-norm layers of an ONNX model. */
export interface OnnxFile extends StateFile<OnnxLoadOptions> {
  /** The node of each of the `layers`, by its name. */
  readonly nodes: Readonly<Record<string, OnnxNode>>;
}

const LOAD_KEYS = ["momentum", "layout", "onWarning", "kernels"];

/**
 * The batch-norm layers of an ONNX model: the BatchNormalization nodes of its main graph, of any opset.
 * They go by the names of the nodes, or, where a node has none of its own, of its output; `load` takes
 * PyTorch's name of the module as well, which `nodes` tells. Scale, B, mean and variance may be
 * initializers, in the file or beside it, or come from Constant, ConstantOfShape and Identity nodes;
 * FLOAT, FLOAT16, BFLOAT16 or DOUBLE. Exporters fold batch norms into convolutions unless told not to
 * (PyTorch: `training=TrainingMode.PRESERVE, do_constant_folding=False`): such a model has none.
 *
 * How many axes a node's input has is seldom written in a file. It is worked out from weights and
 * operations before and after it.
 *
 * Epsilon and momentum are float32 in the file: 1e-5 comes as 0.00000999999974. The file has no
 * counter: `batchesSeen` is 1, and `ageKnown` false. Warned about: a node in training mode
 * (`training_mode` 1, before opset 7 `is_test` 0), `spatial` 0, and a momentum of 1, in place of which
 * the layer has ONNX' default.
 *
 * @param bytes the model; not copied, so leave it and other files unchanged until the layers are loaded.
 * @throws ShapeError for what is no bytes; OptionError for an unknown option; StateError for a file
 * that is truncated or malformed, or does not say the opset of its batch norms. On loading: StateError
 * for weights that are computed, fed or in a file that is not in `external`, or have several axes.
 *
 * @example
 * const file = readOnnx(await (await fetch("model.onnx")).arrayBuffer());
 * const layers = file.loadAll();
 */
export function readOnnx(bytes: Bytes, options: OnnxReadOptions = NO_OPTIONS): OnnxFile {
  checkKeys("options", options, ["external"]);
  const model = modelOf(bytesOf("bytes", bytes), externalOf(options.external));
  let ranks: ReadonlyMap<string, number> | undefined;
  const file = fileOf([...model.norms.keys()], (name, given: OnnxLoadOptions) => {
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

/** The files beside a model that a call was given. */
export function externalOf(external: unknown): External | undefined {
  const plain = Object.prototype.toString.call(external) === "[object Object]";
  if (external === undefined || plain) return external as External | undefined;
  throw new OptionError(`external: expected bytes by location, got ${describe(external)}`);
}

/** The name of the node that a name stands for: its own, or that of its module. */
export function nameIn({ norms }: Model, name: string): string {
  if (norms.has(name)) return name;
  for (const [node, { module }] of norms) if (module !== null && module === name) return node;
  return name;
}

/** The layer that a node is. */
export function layerAt(
  model: Model,
  name: string,
  ranks: ReadonlyMap<string, number>,
  options: OnnxLoadOptions,
): BatchNorm {
  checkKeys("options", options, LOAD_KEYS);
  const { onWarning, layout, ...given } = options;
  const warn = warningsTo(onWarning);
  const { kernels } = onnxOptions(given);
  const { operation, epsilon, momentum, trains, spatial } = model.norms.get(name)!;
  const rank = ranks.get(operation.inputs[0] ?? "") ?? null;
  const named = ofRank(CHANNELS_FIRST, rank) ?? "channelsFirst";
  // PyTorch writes 1 for a cumulative average, which ONNX has not.
  const moving = momentum === 1 ? {} : { momentum };
  const settings = {
    ...fromFile(`node "${name}"`, () => onnxOptions({ epsilon, ...moving, ...given })),
    layout: layout === undefined ? named : checkLayout(layout, LAYOUTS),
  };
  const [gamma, beta, runningMean, runningVariance] = SLOTS.map((_, slot) => {
    const { type, data } = parameterOf(model, name, slot);
    return decode(TYPES[type]!.format, data());
  }) as [Float64Array, Float64Array, Float64Array, Float64Array];
  for (const [slot, { length }] of [gamma, beta, runningMean, runningVariance].entries()) {
    const { length: channels } = runningMean;
    if (length !== channels || channels === 0) {
      throw new StateError(
        `node "${name}": expected ${channels || "some"} values of ${SLOTS[slot]}, got ${length}`,
      );
    }
  }
  const warnings: readonly [boolean, string][] = [
    [
      trains,
      "is in training mode, where ONNX normalizes by the mini-batch; here train does, and infer uses " +
        "the running averages",
    ],
    [
      !spatial,
      "has spatial 0, statistics by position, but one value of each for a channel: read as by channel",
    ],
    [
      momentum === 1 && options.momentum === undefined,
      `has momentum 1, under which its averages never move; in train they move by ${settings.decay}, ` +
        "ONNX' default, unless momentum is given",
    ],
  ];
  for (const [holds, what] of warnings) if (holds) warn(`node "${name}": ${what}`);
  return layerOf(kernels ? { ...settings, kernels } : settings, {
    gamma,
    beta,
    runningMean,
    runningVariance,
    ...NO_COUNTER,
  });
}
