// `Normalization` of Keras, which tfjs lacks: features normalized by the mean and variance of a data set. Source of the
// formulas, of the weights and of the configuration: keras/src/layers/preprocessing/normalization.py.

import {
  add,
  div,
  keep,
  maximum,
  mul,
  reshape,
  type serialization as Serialization,
  scalar,
  sqrt,
  sub,
  type Tensor,
  type Tensor3D,
  type TensorLike,
  tensor,
  tensor1d,
  tidy,
  transpose,
} from "@tensorflow/tfjs-core";
import { InputSpec, initializers, type LayerVariable, layers } from "@tensorflow/tfjs-layers";
import { checkKeys, OptionError, ShapeError, SingleValueError, StateError } from "../errors.js";
import { BatchNorm } from "../layer/batch-norm.js";
import { copy } from "../values/arrays.js";
import { flag } from "../values/check.js";
import { product } from "../values/layout.js";
import type { Moments } from "../values/moments.js";
import { itselfOf, onHost, requireVariances, tensorOf } from "./check.js";
import { valuesOf } from "./data.js";
import {
  type Arrangement,
  arrange,
  eachBatch,
  floats,
  perChannel,
  requireFit,
} from "./features.js";
import { normalize } from "./operation.js";
import { knownOnly, LAYER_KEYS } from "./rules.js";

type LayerArgs = NonNullable<ConstructorParameters<typeof layers.Layer>[0]>;

/** The configuration of `keras.layers.Normalization`, and of every layer. */
export interface NormalizationArgs extends LayerArgs {
  /** The axes each of whose indices has its own mean and variance; `null` or `[]`: one of each for all. Default -1. */
  axis?: number | number[] | null;
  /** Given means, in the shape of the kept axes or one that broadcasts to it; then there is nothing to `adapt`. */
  mean?: number | TensorLike | null;
  /** Given variances, in the same. */
  variance?: number | TensorLike | null;
  /** `true`: from normalized values back to those of the data. Default false. */
  invert?: boolean;
}

const KNOWN: readonly string[] = ["axis", "mean", "variance", "invert", ...LAYER_KEYS];

/** A given mean or variance as numbers in arrays, which a file can hold, and which nobody else can free. */
function plain(name: string, value: TensorLike | null): number | number[] | null {
  if (value === null || typeof value === "number") return value;
  // Arrays may be nested more deeply than the type says.
  return tidy(() => tensorOf(name, value).arraySync() as number | number[]);
}

/** Keras' `backend.epsilon()`: the least standard deviation that is divided by. */
const LEAST = 1e-7;

/**
 * Keras' layer for features: y = (x − mean) / max(√variance, 1e-7), or, with `invert`, y = mean + x·max(√variance,
 * 1e-7). Mean and population variance are given, come with the weights of a model, or are taken of data by `adapt`.
 * Training does not move them.
 *
 * ```ts
 * import * as tf from "@tensorflow/tfjs";
 * import { Normalization } from "batchnorm-wasm/tfjs-layers";
 *
 * const norm = new Normalization({ inputShape: [2] });
 * await norm.adapt(tf.tensor2d([[20, 1e5], [30, 3e5], [60, 8e5]])); // or a tf.data.Dataset, or batches
 * const model = tf.sequential({ layers: [norm, tf.layers.dense({ units: 1 })] });
 * ```
 *
 * Input: any rank; integers and booleans become float32. Weights, as Keras saves them: mean, variance and count, none
 * if mean and variance are given. It can be differentiated once, with respect to x. On the backends `cpu`, `wasm` and
 * `tensorflow` this package's kernels compute; on others, operations of tfjs.
 */
export class Normalization extends layers.Layer {
  /** The name that Keras saves this layer under. */
  static readonly className = "Normalization";

  /** Reads a configuration in a model file, where Keras may have written more than tfjs knows. */
  static override fromConfig<T extends Serialization.Serializable>(
    cls: Serialization.SerializableConstructor<T>,
    config: Serialization.ConfigDict,
  ): T {
    return new cls(knownOnly(config, KNOWN));
  }

  readonly #args: {
    readonly axis: NormalizationArgs["axis"];
    readonly mean: ReturnType<typeof plain>;
    readonly variance: ReturnType<typeof plain>;
    readonly invert: boolean;
  };
  #arrangement: Arrangement | null = null;
  /** Computes the layer; its averages are filled in before each use. */
  #norm: BatchNorm | null = null;
  /** The weights mean, variance and count, if there are any. */
  #variables: readonly LayerVariable[] = [];
  /** Mean and variance, if they are given. */
  #given: readonly Float32Array[] = [];

  /**
   * @throws OptionError for an argument that is none, and for a mean without a variance; ShapeError for a given mean or
   *   variance that is no number, no array of numbers and no tensor of float32.
   */
  constructor(args: NormalizationArgs = {}) {
    checkKeys("args", args, KNOWN);
    super(args);
    const { axis = -1, mean = null, variance = null } = args;
    if ((mean === null) !== (variance === null)) {
      const [one, other] = mean === null ? ["mean", "variance"] : ["variance", "mean"];
      throw new OptionError(one!, `a value, as ${other} has one`, "none");
    }
    this.#args = {
      axis,
      mean: plain("mean", mean),
      variance: plain("variance", variance),
      invert: flag("invert", args.invert, false),
    };
    this.supportsMasking = true;
  }

  /** @internal This object, as `Raw` has it (values/raw.ts), whose place tfjs' own class takes here. */
  get itself(): this {
    return itselfOf(this, () => this.#args);
  }

  /** @internal Vue's mark of what stays outside of its proxies: see values/raw.ts. */
  get __v_skip(): boolean {
    return true;
  }

  /**
   * The configuration, as it is saved. For tfjs' own use.
   *
   * @throws StateError if the layer is used through a proxy of it, as every member that reads something private.
   */
  override getConfig(): Serialization.ConfigDict {
    return { ...this.itself.#args, ...super.getConfig() } as Serialization.ConfigDict;
  }

  /**
   * Creates the weights, in the shape of the kept axes. Called by tfjs and by `adapt`.
   *
   * @param inputShape sizes of the axes of the input; `null` where unknown.
   * @throws OptionError for an axis that is none of the input's, or of unknown size; ShapeError if the given mean or
   *   variance does not fit.
   */
  override build(inputShape: Parameters<layers.Layer["build"]>[0]): void {
    const shape = inputShape as (number | null)[];
    const { axis, mean, variance, invert } = this.itself.#args;
    const arrangement = arrange(axis, shape);
    const { kept, sizes } = arrangement;
    if (mean !== null && variance !== null) {
      this.#given = [perChannel("mean", mean, sizes), perChannel("variance", variance, sizes)];
    } else {
      const { zeros, ones } = initializers;
      this.#variables = [
        this.#weight("mean", sizes, "float32", zeros()),
        this.#weight("variance", sizes, "float32", ones()),
        this.#weight("count", [], "int32", zeros()),
      ];
    }
    this.#arrangement = arrangement;
    const options = { layout: "NCL", epsilon: 0, gamma: invert, beta: invert } as const;
    this.#norm = new BatchNorm(product(sizes), options);
    const axes = Object.fromEntries(kept.map((i, k) => [i, sizes[k]!]));
    this.inputSpec = [new InputSpec({ ndim: shape.length, axes })];
    super.build(inputShape);
  }

  #weight(
    name: string,
    sizes: readonly number[],
    dtype: "float32" | "int32",
    initializer: ReturnType<typeof initializers.zeros>,
  ): LayerVariable {
    const made = this.addWeight(name, [...sizes], dtype, initializer, undefined, false);
    // Model files know a weight by this name. tfjs puts the layer's in front where it builds the layer itself.
    (made as { originalName: string }).originalName = `${this.name}/${name}`;
    return made;
  }

  /**
   * Normalizes a tensor. Called by tfjs, and by `apply`.
   *
   * @param inputs a tensor in the shape that the layer was built for, or an array of one such.
   * @throws as `TfBatchNorm.apply`; ShapeError for what is no such tensor; StateError before the layer is
   *   built, or, on a backend in main memory, for a negative variance.
   */
  override call(inputs: Tensor | Tensor[]): Tensor {
    const given = (Array.isArray(inputs) ? inputs[0] : inputs) as Tensor;
    if (Array.isArray(inputs) && inputs.length !== 1) {
      throw new ShapeError("inputs", "one tensor", inputs.length);
    }
    const arrangement = this.itself.#built("call");
    const { order } = arrangement;
    return tidy(() => {
      const x = floats(given);
      requireFit(x, arrangement);
      const seen = arranged(x, arrangement);
      const y = onHost() ? this.#byKernels(seen) : this.#byOperations(seen);
      if (order === null) return reshape(y, x.shape);
      const back = order.map((_, i) => order.indexOf(i));
      return transpose(
        reshape(
          y,
          order.map((i) => x.shape[i]!),
        ),
        back,
      );
    });
  }

  /**
   * Takes mean and variance of data, in float64, instead of those that were there.
   *
   * @param data a tensor or nested array, [N, …] as the input of the layer; or batches of such: a `tf.data.Dataset`,
   *   an iterable, sync or async. Of a batch `{ xs, ys }`, or `[x, y]` of tensors, x counts. Nested arrays in an array
   *   are one nested array. Tensors stay the caller's.
   * @returns a promise. With a tensor or an array, on a backend in main memory, all is done when it is returned.
   * @throws StateError if mean and variance were given; SingleValueError if there are no data; NonFiniteError for NaN or
   *   infinity; ShapeError for what does not fit; OptionError as `build`. When it throws, nothing has changed.
   */
  async adapt(data: unknown): Promise<void> {
    if (this.itself.#args.mean !== null) {
      throw new StateError("adapt", "a layer without mean and variance", "one that was given them");
    }
    let [moments, arrangement] = [undefined as Moments | undefined, this.#arrangement];
    let norm = this.#norm;
    const waiting = eachBatch(data, (x) => {
      const seen = tidy(() => {
        const input = floats(x);
        // The layer is built when all data have been seen and are good.
        arrangement ??= arrange(this.#args.axis, [null, ...input.shape.slice(1)]);
        requireFit(input, arrangement);
        return arranged(input, arrangement);
      });
      const take = (values: Float32Array): void => {
        norm ??= new BatchNorm(seen.shape[1], { layout: "NCL" });
        const these = norm.moments(values, { shape: seen.shape });
        moments = moments ? moments.merge(these) : these;
      };
      if (!onHost()) {
        keep(seen);
        return seen
          .data<"float32">()
          .then(take)
          .finally(() => seen.dispose());
      }
      try {
        take(valuesOf(seen));
      } finally {
        seen.dispose();
      }
      return undefined;
    });
    if (waiting) await waiting;
    if (!moments?.count || !arrangement) {
      throw new SingleValueError("data", "at least one value", "none");
    }
    const { count, mean } = moments;
    const variance = moments.variance("population");
    const { shape, sizes } = arrangement;
    if (!this.built) this.build([...shape]);
    tidy(() => {
      const [means, variances, counted] = this.#variables as LayerVariable[];
      means!.write(reshape(tensor1d(Float32Array.from(mean)), [...sizes]));
      variances!.write(reshape(tensor1d(Float32Array.from(variance)), [...sizes]));
      counted!.write(scalar(Math.min(count, 2 ** 31 - 1), "int32"));
    });
  }

  /** y of an input that is arranged, by this package's kernels. */
  #byKernels(x: Tensor): Tensor {
    const norm = this.#norm as BatchNorm;
    const [mean, variance] = this.#given.length
      ? this.#given
      : this.#variables.slice(0, 2).map((weight) => valuesOf(weight.read()));
    const least = Float64Array.from(requireVariances(variance!), (v) => Math.max(v, LEAST ** 2));
    if (norm.gamma && norm.beta) {
      norm.gamma.set(least.map(Math.sqrt));
      copy(norm.beta, mean!);
    } else {
      copy(norm.runningMean, mean!);
      norm.runningVariance.set(least);
    }
    return normalize(norm, x, { shape: x.shape }, { gamma: null, beta: null }, { training: false });
  }

  /** The same by operations of tfjs, on its other backends. */
  #byOperations(x: Tensor): Tensor {
    const shape = [1, x.shape[1]!, 1];
    const [mean, variance] = this.#given.length
      ? this.#given.map((values) => tensor(values, shape))
      : this.#variables.slice(0, 2).map((weight) => reshape(weight.read(), shape));
    const deviation = maximum(sqrt(variance!), LEAST);
    return this.#args.invert ? add(mean!, mul(x, deviation)) : div(sub(x, mean!), deviation);
  }

  #built(use: string): Arrangement {
    if (this.#arrangement !== null) return this.#arrangement;
    throw new StateError(
      use,
      "a layer that is built, by a model, its first input or adapt",
      `${this.name} before that`,
    );
  }
}

/** An input as [before, channels, after]; always a new tensor. */
function arranged(x: Tensor, { kept, order, sizes }: Arrangement): Tensor3D {
  const channels = product(sizes);
  if (order !== null) {
    return reshape(transpose(x, [...order]), [product(x.shape) / channels, channels, 1]);
  }
  const [first = 0, last = -1] = [kept[0], kept.at(-1)];
  return reshape(x, [product(x.shape.slice(0, first)), channels, product(x.shape.slice(last + 1))]);
}

/**
 * A new {@link Normalization}.
 *
 * @throws OptionError for an argument that is none, and for a mean without a variance; ShapeError for a given mean or
 *   variance that is no number, no array of numbers and no tensor of float32.
 */
export function normalization(args?: NormalizationArgs): Normalization {
  return new Normalization(args);
}
