// Batch-norm layers from ONNX models.

import type { Kernels } from "../../engine/kernels.js";
import { checkKeys, StateError } from "../../errors.js";
import { onnxOptions } from "../../layer/frameworks.js";
import { CHANNELS_FIRST, type Layout, ofRank } from "../../values/layout.js";
import { type Bytes, bytesOf } from "../bytes.js";
import {
  fileOf,
  fromFile,
  layerOf,
  NO_COUNTER,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "../layers.js";
import { parse } from "./model.js";
import { SLOTS, sourceOf, valuesOf } from "./tensor.js";

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
