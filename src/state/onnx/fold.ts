// Folds the batch norms of an ONNX model into the convolutions and linear layers beside them, as
// runtimes do on loading where they can (Jacob et al. 2018, section 3.2), but into the file, and with a
// reason for each that stays.

import { BatchNormError, checkKeys, StateError } from "../../errors.js";
import { fold } from "../../testtime/fold.js";
import { NO_OPTIONS } from "../../values/check.js";
import { type Bytes, bytesOf, encode } from "../bytes.js";
import type { KeptNorm } from "../layers.js";
import { LINEAR, type Linear, linearOf, perChannel } from "./linear.js";
import { Network, type Step } from "./network.js";
import { type Model, modelOf, type Norm } from "./norms.js";
import { ranksOf } from "./ranks.js";
import { externalOf, layerAt, type OnnxReadOptions } from "./read.js";
import { TYPES } from "./schema.js";

/** What {@link foldOnnx} gives. */
export interface FoldedOnnx {
  /** The model with fewer nodes. */
  readonly bytes: Uint8Array;
  /** The nodes that were folded, by the names that `readOnnx` lists. */
  readonly folded: readonly string[];
  /** Those that were not, and why. */
  readonly kept: readonly KeptNorm[];
}

/**
 * An ONNX model with every batch norm folded into the convolution or linear layer beside it, where that
 * is exact: Conv and ConvTranspose, grouped and depthwise too, Gemm and MatMul, each with or without an
 * Add of a constant between it and the norm. A norm goes into the layer before it, if nothing else takes
 * that layer's output, else into the one after it, unless that pads with zeros, which would have to be
 * normalized as well. A bias is made where there is none; a MatMul becomes a Gemm. A weight that others
 * take too is copied for this layer. All else in the file stays as it is, byte for byte.
 *
 * Worked out in float64 and rounded once, to float32 or the type of the weight. What the network gives is
 * the same but for rounding, under the same names, if initializers that old files have among the inputs
 * as well are not fed. Norms inside the bodies of If, Loop and Scan are left alone.
 *
 * @param bytes the model, of opset 7 or later; unchanged.
 * @param options as for `readOnnx`: tensors in other files are in the model from then on, if they change.
 * @returns the bytes of the new model, the names of the norms that were folded, and those that were kept
 * with the reason: in training mode, behind a Concat, …
 * @throws ShapeError for what is no bytes; OptionError for an unknown option; StateError for a file that
 * is truncated or malformed, of an opset before 7, or that says how the network is trained.
 *
 * @example
 * const { bytes, folded, kept } = foldOnnx(original);
 * console.log(folded.length, "folded", kept);
 */
export function foldOnnx(bytes: Bytes, options: OnnxReadOptions = NO_OPTIONS): FoldedOnnx {
  checkKeys("options", options, ["external"]);
  const model = modelOf(bytesOf("bytes", bytes), externalOf(options.external));
  const { opset, trains } = model.graph;
  if (opset !== null && opset < 7) {
    throw new StateError(
      `opset: expected 7 or later, got ${opset}; onnx.version_converter converts older models`,
    );
  }
  if (trains) {
    throw new StateError("bytes: expected a model for test time, got one with training_info");
  }
  const folding = new Folding(model);
  // First into what comes before, in order; then, backwards, what waits for one behind it.
  const names = [...model.norms.keys()];
  const reasons = new Map<string, string>();
  for (const name of [...names, ...[...names].reverse()]) {
    if (folding.done.has(name)) continue;
    const reason = folding.fold(name);
    if (reason !== null) reasons.set(name, reason);
  }
  return {
    bytes: folding.network.finish(),
    folded: names.filter((name) => folding.done.has(name)),
    kept: names
      .filter((name) => !folding.done.has(name))
      .map((name) => ({ name, reason: reasons.get(name)! })),
  };
}

class Folding {
  readonly network: Network;
  readonly done = new Set<string>();
  readonly #model: Model;
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(model: Model) {
    this.#model = model;
    this.network = new Network(model);
    this.#ranks = ranksOf(model.graph);
  }

  /** Folds a norm, or says why not. */
  fold(name: string): string | null {
    const norm = this.#model.norms.get(name)!;
    const others = norm.operation.outputs.slice(1).some((value) => this.network.usesOf(value) > 0);
    if (norm.trains || others) return "it is in training mode: it normalizes by the mini-batch";
    if (!norm.spatial) return "it has spatial 0, statistics by position";
    const reasons: string[] = [];
    for (const into of ["before", "after"] as const) {
      try {
        this.#into(into, name, norm);
        this.done.add(name);
        return null;
      } catch (error) {
        if (!(error instanceof BatchNormError)) throw error;
        reasons.push(error.message);
      }
    }
    return reasons.join("; ");
  }

  /** Folds a norm into its neighbour. Nothing has changed if it throws. */
  #into(into: "before" | "after", name: string, norm: Norm): void {
    const { network } = this;
    const own = network.stepOf(norm.operation);
    const [layer, sum] = into === "before" ? this.#before(own) : [this.#after(own)];
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
    const encoded = (what: string, values: Float32Array): Uint8Array => {
      if (!values.every(Number.isFinite)) {
        throw new StateError(`its ${what} would be too large for float32, or is not finite`);
      }
      return encode(what, format, values);
    };
    const [weightBytes, biasBytes] = [encoded("weight", weight), encoded("bias", bias)];

    // From here on nothing throws.
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
      network.giveInstead(layer, sum);
    }
    if (into === "before") network.giveInstead(layer, own);
    else network.takeInstead(layer, own);
    for (const input of own.inputs.slice(1)) network.release(input);
  }

  /** The layer that makes what a norm takes, and the Add of a constant between them. */
  #before({ inputs }: Step): [layer: Step, sum?: Step] {
    const maker = this.#makerOf(inputs[0] ?? "");
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

  /** The operation that makes a value which nothing else takes. */
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

  /** The layer that takes what a norm gives. */
  #after({ outputs }: Step): Step {
    const [value = ""] = outputs;
    const taker = this.network.takerOf(value);
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

  /** Throws unless a norm's channels are those that the layer beside it gives or takes. */
  #checkAxes(into: "before" | "after", { type }: Step, { flips }: Linear, own: Step): void {
    if (into === "after" && flips) {
      throw new StateError(`its output goes to ${type} with rows and columns exchanged`);
    }
    const rank = this.#ranks.get(own.inputs[0] ?? "");
    // Only of a matrix are the channels, its second axis, those that MatMul sums over.
    if (type === "MatMul" && rank !== 2) {
      throw new StateError(
        `${type} beside it works on the last of ${rank ?? "an unknown number of"} axes`,
      );
    }
  }

  /** The bias of a layer together with what an Add behind it adds. */
  #added({ outputs }: Step, { inputs }: Step, { options, rank, outs }: Linear): Float32Array {
    const other = inputs[0] === outputs[0] ? inputs[1] : inputs[0];
    const added = perChannel(this.network.tensorOf(other ?? "")!, rank, outs);
    const { bias } = options;
    return bias ? added.map((value, c) => value + bias[c]!) : added;
  }
}
