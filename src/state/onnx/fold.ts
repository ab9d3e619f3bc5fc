// Folds the batch norms of an ONNX model into the convolutions and linear layers beside them (Jacob et
// al. 2018, section 3.2). Runtimes do the same in memory when they load a model, for the norms that they
// can fold; here the file itself is changed, and a reason is given for each norm that stays.

import { checkKeys, StateError } from "../../errors.js";
import { fold } from "../../testtime/fold.js";
import { NO_OPTIONS } from "../../values/check.js";
import type { Bytes } from "../bytes.js";
import { encodeFolded, foldAll, foldBeside, type Into } from "../folding.js";
import type { KeptNorm } from "../layers.js";
import { externalOf } from "./external.js";
import { LINEAR, type Linear, linearOf, perChannel } from "./linear.js";
import { Network, type Step } from "./network.js";
import { type Model, modelOf, type Norm } from "./norms.js";
import { ranksOf } from "./ranks.js";
import { layerAt, type OnnxReadOptions } from "./read.js";
import { TYPES } from "./schema.js";

/** What {@link foldOnnx} returns. */
export interface FoldedOnnx {
  /** The model with fewer nodes. */
  readonly bytes: Uint8Array;
  /** The names of the batch norms that were folded, as `readOnnx` lists them. */
  readonly folded: readonly string[];
  /** The batch norms that were not folded, each with the reason. */
  readonly kept: readonly KeptNorm[];
}

/**
 * Folds every batch norm of an ONNX model into the convolution or linear layer beside it, where the result
 * is exact. Such a layer is a Conv or ConvTranspose, also a grouped or depthwise one, a Gemm or a MatMul.
 * Between the layer and a norm after it there may be an Add of a constant. Identity and Dropout nodes between the two
 * do not matter, as they change nothing at test time; a Dropout that has an input for its training mode does.
 *
 * A norm is folded into the layer before it, if nothing else uses the output of that layer. Otherwise it is
 * folded into the layer after it, unless that layer pads its input with zeros: the folded layer would then
 * normalize the zeros too, which the network does not. For the same reason a ConvTranspose after the norm must have a single
 * tap and strides of 1. Neither matters if the norm maps 0 to 0. A layer without a bias gets one, and a MatMul becomes
 * a Gemm. If other nodes use the weight of the layer too, the layer gets a weight of its own. Everything else
 * in the file stays as it is, byte for byte.
 *
 * The new weights and biases are computed in float64 and rounded once, to float32 or to the type of the
 * weight. The network's outputs keep their names, and their values change by rounding alone. Old files list
 * initializers among the inputs as well: this holds as long as no other values are fed for them. Batch norms
 * inside the bodies of If, Loop and Scan are not folded, nor are they among `kept`.
 *
 * @param bytes the model, of opset 7 or later. It is not changed.
 * @param options the same as for `readOnnx`. A tensor that is in another file, and that folding changes, is
 * written into the new model itself.
 * @returns the bytes of the new model, the names of the norms that were folded, and the norms that were kept,
 * each with the reason: that it is in training mode, for instance, or that its input comes from a Concat.
 * @throws ShapeError if `bytes` or a file in `external` is not a Uint8Array or ArrayBuffer; OptionError for an
 * unknown option; StateError for a file that is truncated, malformed or of another format, that has an opset
 * before 7, or that says how to train the network.
 *
 * @example
 * const { bytes, folded, kept } = foldOnnx(original);
 * console.log(folded.length, "folded", kept);
 */
export function foldOnnx(bytes: Bytes, options: OnnxReadOptions = NO_OPTIONS): FoldedOnnx {
  checkKeys("options", options, ["external"]);
  const model = modelOf("bytes", bytes, externalOf(options.external));
  const { opset, trains } = model.graph;
  if (opset !== null && opset < 7) {
    throw new StateError(
      "opset",
      "7 or later",
      `${opset}; onnx.version_converter converts older models`,
    );
  }
  if (trains) {
    throw new StateError("bytes", "a model for test time", "one with training_info");
  }
  const folding = new Folding(model);
  // ONNX has operations in an order in which they can run.
  const names = [...model.norms.keys()];
  const { folded, kept } = foldAll(names, names, (name) => folding.fold(name));
  return { bytes: folding.network.finish(), folded, kept };
}

/** The layer beside a norm and, if there is one, the Add of a constant between the two. */
type Beside = [layer: Step, sum?: Step];

/** The most nodes between a norm and the layer after it. */
const MOST_PASSED = 100;

/** Folds the norms of one model, one at a time. */
class Folding {
  readonly network: Network;
  readonly #model: Model;
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(model: Model) {
    this.#model = model;
    this.network = new Network(model);
    this.#ranks = ranksOf(model.graph);
  }

  /** Folds a norm and returns `null`, or leaves the norm as it is and returns the reason. */
  fold(name: string): string | null {
    const norm = this.#model.norms.get(name)!;
    const others = norm.operation.outputs.slice(1).some((value) => this.network.usesOf(value) > 0);
    if (norm.trains || others) return "it is in training mode: it normalizes by the mini-batch";
    if (!norm.spatial) return "it has spatial 0, statistics by position";
    return foldBeside((into) => this.#into(into, name, norm));
  }

  /**
   * Folds a norm into the layer before or after it.
   *
   * @throws BatchNormError if that is not possible; then nothing has changed.
   */
  #into(into: Into, name: string, norm: Norm): void {
    const { network } = this;
    const own = network.stepOf(norm.operation);
    const [layer, sum]: Beside = into === "before" ? this.#before(own) : [this.#after(own)];
    const linear = linearOf(this.#model.graph, network, layer);
    this.#checkAxes(into, layer, linear, own);
    const options = { ...linear.options, into };
    if (sum !== undefined) options.bias = this.#added(layer, sum, linear);
    const frozen = layerAt(this.#model, name, this.#ranks, {
      momentum: 0.9,
      onWarning() {},
    }).freeze();
    const { weight, bias } = fold(frozen, options);
    const { type, name: weightName } = linear;
    const { format } = TYPES[type]!;
    const weightBytes = encodeFolded("weight", format, weight);
    const biasBytes = encodeFolded("bias", format, bias);

    // Nothing throws from here on, so that an error never leaves the network half changed.
    const { shape: dimensions } = options;
    network.put(layer, 1, weightName, { type, dimensions, data: () => weightBytes });
    const biasName = /weight$/.test(weightName)
      ? weightName.replace(/weight$/, "bias")
      : `${weightName}.bias`;
    network.put(layer, 2, biasName, { type, dimensions: [bias.length], data: () => biasBytes });
    layer.dropped.push("alpha", "beta");
    if (layer.type === "MatMul") layer.type = "Gemm";
    if (sum !== undefined) {
      for (const input of sum.inputs) if (input !== layer.outputs[0]) network.release(input);
      network.takeOver(layer, sum, "outputs");
    }
    // This is the layer itself, or a node between it and the norm, which stays.
    const beside =
      into === "before" ? network.makerOf(own.inputs[0]!) : network.takerOf(own.outputs[0]!);
    network.takeOver(beside!, own, into === "before" ? "outputs" : "inputs");
    for (const input of own.inputs.slice(1)) network.release(input);
  }

  /** The layer that makes the input of a norm, and the Add of a constant between the two, if there is one. */
  #before({ inputs }: Step): Beside {
    let maker = this.#makerOf(inputs[0] ?? "");
    while (this.#passesOn(maker)) maker = this.#makerOf(maker.inputs[0] ?? "");
    if (LINEAR.includes(maker.type)) return [maker];
    if (maker.type === "Add") {
      for (const [i, value] of maker.inputs.entries()) {
        const layer = this.network.makerOf(value);
        const known = this.network.tensorOf(maker.inputs[1 - i] ?? "") !== null;
        if (layer && LINEAR.includes(layer.type) && known) return [this.#makerOf(value), maker];
      }
    }
    throw new StateError(`its input comes from ${maker.type}`);
  }

  /** True for a node whose only output that is taken is its input, at test time. */
  #passesOn({ type, inputs, outputs }: Step): boolean {
    if (outputs.slice(1).some((value) => this.network.usesOf(value) > 0)) return false;
    return type === "Identity" || (type === "Dropout" && !inputs[2]);
  }

  /** The operation that makes the input of a norm or Add. Throws if anything else uses this value too. */
  #makerOf(value: string): Step {
    const maker = this.network.makerOf(value);
    if (maker === undefined) throw new StateError(`its input "${value}" is fed`);
    if (this.network.usesOf(value) > 1) {
      throw new StateError(
        `its input comes from ${maker.type}, but "${value}" is taken elsewhere too`,
      );
    }
    return maker;
  }

  /** The layer that takes the output of a norm. Throws if anything else uses this output too. */
  #after({ outputs }: Step): Step {
    let [value = ""] = outputs;
    let taker = this.network.takerOf(value);
    // In a malformed file, nodes that pass on their inputs may form a circle.
    for (let i = 0; i < MOST_PASSED && taker !== undefined && this.#passesOn(taker); i++) {
      [value = ""] = taker.outputs;
      taker = this.network.takerOf(value);
    }
    if (taker === undefined) {
      const uses = this.network.usesOf(value);
      throw new StateError(
        uses === 1
          ? "its output is the network's, or a body's"
          : `its output is taken ${uses} times`,
      );
    }
    if (!LINEAR.includes(taker.type) || taker.inputs[0] !== value) {
      throw new StateError(`its output goes to ${taker.type}`);
    }
    return taker;
  }

  /** Throws unless the channel axis of a norm is the axis of its input on which the layer beside it works. */
  #checkAxes(into: Into, { type }: Step, { flips }: Linear, own: Step): void {
    if (into === "after" && flips) {
      throw new StateError(`its output goes to ${type} with rows and columns exchanged`);
    }
    const rank = this.#ranks.get(own.inputs[0] ?? "");
    // The channels of a norm are the second axis, whereas a MatMul works on the last axis. The two are the same
    // only if there are exactly two axes.
    if (type === "MatMul" && rank !== 2) {
      throw new StateError(
        `${type} beside it works on the last of ${rank ?? "an unknown number of"} axes`,
      );
    }
  }

  /** The sum of a layer's bias and the constant that the Add behind the layer adds: a value for each out channel. */
  #added({ outputs }: Step, { inputs }: Step, { options, rank, outs }: Linear): Float32Array {
    const other = inputs[0] === outputs[0] ? inputs[1] : inputs[0];
    const added = perChannel(this.network.tensorOf(other ?? "")!, rank, outs);
    const { bias } = options;
    return bias ? added.map((value, c) => value + bias[c]!) : added;
  }
}
