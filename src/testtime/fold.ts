// Folds a frozen layer into the linear or convolution layer beside it: at test time both are affine
// (Ioffe & Szegedy 2015, section 3.1; Jacob et al. 2018, section 3.2).
//
//   into "before"  y = BN(W·u + b)   W' = scale·W along the out channels, b' = (b - center)·scale + shift
//   into "after"   z = W·BN(x) + b   W' = W·scale along the in channels,  b' = b + ΣW·(shift - center·scale)

import { describe, OptionError, ShapeError } from "../errors.js";
import type { Frozen, FrozenJSON } from "../frozen/frozen.js";
import { tinyAffine } from "../frozen/tiny.js";
import { type Activation, activationOf } from "../values/activation.js";
import { arrayOf, copyOf, float32Of } from "../values/arrays.js";
import { choice, isWhole, number, readOptions } from "../values/check.js";
import { type Layout, product, show, sizesOf } from "../values/layout.js";
import type { AffineTerms } from "../values/terms.js";

/** A frozen layer: the `FrozenBatchNorm` of `batchnorm-wasm` or that of `batchnorm-wasm/infer`. */
export interface FrozenLayer {
  /** How many features are normalized. */
  readonly channels: number;
  /** Order of the axes of the data. */
  readonly layout: Layout;
  /** The layer as an object for JSON. */
  toJSON(): FrozenJSON;
}

/** Options of `fold`. */
export interface FoldOptions {
  /** The weight of the linear or convolution layer, float32 in `shape`. It is not changed. */
  weight: Float32Array;
  /** The bias of the same layer, [out]. It is not changed. Default: no bias. */
  bias?: Float32Array | null;
  /** Sizes of the axes of `weight`, each >= 1. */
  shape: readonly number[];
  /** What the layer is. A depthwise convolution is a `"conv"` with as many `groups` as it has in channels. */
  kind: "linear" | "conv" | "convTranspose";
  /**
   * A letter for each axis of `shape`, in any order: O for out channels, I for in channels and, for
   * convolutions, one to three of D, H, W, L.
   *
   *   PyTorch, ONNX     linear "OI", conv "OIL", "OIHW", "OIDHW", convTranspose "IOHW"
   *   Keras, TensorFlow linear "IO", conv "LIO", "HWIO", "DHWIO", convTranspose "HWOI"
   *
   * With groups, axis I of a conv has in/groups channels, and axis O of a convTranspose has out/groups.
   * TensorFlow's depthwise kernel [kH, kW, in, multiplier] lies in memory as "HWIO"
   * [kH, kW, 1, in·multiplier].
   */
  order: string;
  /** The number of groups into which the channels are divided, each of neighbouring channels. Default 1. */
  groups?: number;
  /**
   * Which layer takes the norm in: the one `"before"` the norm, whose output it normalizes, or the one
   * `"after"` the norm, which it gives its input.
   */
  into: "before" | "after";
  /**
   * How many zeros a `"conv"` puts around its input: one number, one for each axis or end, `"valid"` or
   * `"same"`. It is needed, and read, only for a `"conv"` after a norm that does not map 0 to 0. There it must
   * say that there are no zeros: 0, several 0, `"valid"`, or `"same"` for a kernel with a single tap. Say 0 if
   * the padding repeats values of the input (reflected, repeated, circular), since it adds no zeros.
   */
  padding?: number | readonly number[] | "valid" | "same";
  /**
   * The strides of a `"convTranspose"`: one number, or one for each axis. They are needed, and read, only for a
   * `"convTranspose"` with a single tap after a norm that does not map 0 to 0. There each of them must be 1, so that
   * every output sees an input. Leave them out if the layer has an output padding, since it adds outputs that see none.
   */
  strides?: number | readonly number[];
}

/** What `fold` gives: one layer in place of two. */
export interface Folded {
  /** The new weight, in the shape of the weight given and in its order; a fresh array. */
  weight: Float32Array;
  /** The new bias, [out]; a fresh array. */
  bias: Float32Array;
  /** What has to follow the folded layer, because it follows the norm: the activation; `null` if there is none. */
  activation: Activation | null;
  /**
   * The largest difference, over all out channels, between the output of the two layers and that of the folded
   * one. It is measured on a few fixed inputs, each as large as the kernel of the convolution: values between -1
   * and 1 or, if the norm comes first, values that it maps to about -1 to 1. Each layer adds up in float64 and
   * rounds its output to float32.
   */
  maxDifference: number;
}

/** A linear or convolution layer: its channels, and where each weight lies. */
interface Linear {
  readonly weight: Float32Array;
  readonly ins: number;
  readonly outs: number;
  readonly taps: number;
  /** Calls `visit` with the index of every weight, its in channel, its out channel and its tap. */
  readonly each: (visit: (at: number, i: number, o: number, tap: number) => void) => void;
}

const KEYS = ["weight", "bias", "shape", "kind", "order", "groups", "padding", "strides", "into"];

/** How many inputs the probe has. */
const PROBES = 4;

/**
 * Folds a frozen layer into the linear or convolution layer beside it, which then does the work of both (Ioffe &
 * Szegedy 2015, section 3.1: at test time the layer is an affine map; Jacob et al. 2018, section 3.2, eq. 14).
 * The new weights are worked out in float64 and rounded to float32 once; `maxDifference` says how much the output
 * changes. The norm and the arrays given are not changed.
 *
 * Only folds that would be exact without rounding are made; others are refused. A convolution after the norm may
 * put zeros around its input, or between its values. The norm has not seen these zeros, but the folded weights
 * would treat them as if it had, and no bias makes up for that. So with `into: "after"`, unless the norm maps 0 to
 * 0 in every channel, a `"conv"` has to state its `padding`. A `"convTranspose"` is then refused unless its kernel has a
 * single tap and its `strides`, which it has to state, are 1.
 *
 * @param frozen the norm: the frozen layer of either entry.
 * @param options see `FoldOptions`; weight in the shape and order of axes that its framework has.
 * @returns the weight in the same shape and order, the bias [out], and `maxDifference` in the units of the output.
 * @throws OptionError if `frozen` is no frozen layer, for an unknown option, for `groups` that do not divide the
 * channels, and if folding would not be exact; ShapeError if weight, bias or shape do not fit each other or the
 * norm; StateError for a tensor that has been freed.
 *
 * @example
 * const { weight, bias } = fold(bn.freeze(), {
 *   weight: conv, // [64, 3, 7, 7], followed by bn
 *   shape: [64, 3, 7, 7],
 *   kind: "conv",
 *   order: "OIHW",
 *   into: "before",
 * });
 */
export function fold(frozen: FrozenLayer, options: FoldOptions): Folded {
  const { inside } = Object(frozen) as Partial<Frozen>;
  if (inside === undefined) {
    throw new OptionError("frozen", "a frozen layer, as bn.freeze() gives it", describe(frozen));
  }
  const given = copied(options);
  const before = choice("into", given.into, undefined, ["before", "after"]) === "before";
  const layer = linearOf(given);
  const { outs, each } = layer;
  const { memory, terms } = inside;
  const { center, scale, shift, limits } = terms;
  const channels = before ? outs : layer.ins;
  if (channels !== center.length) {
    throw new ShapeError("shape", `${center.length} ${before ? "out" : "in"} channels`, channels);
  }
  const givenBias = arrayOf("bias", given.bias ?? undefined, outs);
  memory?.addressOf("weight", layer.weight);
  memory?.addressOf("bias", givenBias);
  const w = copyOf(layer.weight);
  const b = copyOf(givenBias);

  // What the norm maps 0 to. Exact up to one rounding, since float64 holds the product of two float32.
  const zero = Float64Array.from(center, (k, c) => shift[c]! - k * scale[c]!);
  if (!before && limits !== null) {
    throw new OptionError("into", '"before", since an activation follows the norm', '"after"');
  }
  if (!before && zero.some((z) => z !== 0)) refuseZeros(given, layer.taps);

  const weight = new Float32Array(w.length);
  const sums = Float64Array.from(b, (v, o) =>
    before ? (v - center[o]!) * scale[o]! + shift[o]! : v,
  );
  each((at, i, o) => {
    weight[at] = w[at]! * scale[before ? o : i]!;
    if (!before) sums[o]! += w[at]! * zero[i]!;
  });
  const bias = new Float32Array(sums);

  const normalized = (values: Float32Array): Float32Array => {
    const view = { outer: 1, channels, inner: values.length / channels };
    // The activation follows the norm and the folded layer alike.
    tinyAffine(values, values, view, { ...terms, limits: null }, null);
    return values;
  };
  const x = probe(layer, before ? null : terms);
  const z = apply(layer, x, weight, bias);
  // This comes last, because the norm may overwrite x.
  const y = before ? normalized(apply(layer, x, w, b)) : apply(layer, normalized(x), w, b);
  const maxDifference = y.reduce((most, v, k) => Math.max(most, Math.abs(v - z[k]!)), 0);
  return { weight, bias, activation: activationOf(limits), maxDifference };
}

/** The options, each of them read once, and sizes copied. */
function copied(options: FoldOptions): FoldOptions {
  const { shape, padding, strides, ...others } = readOptions(options, KEYS);
  return {
    ...others,
    shape: sizesOf(shape),
    padding: sizesOf(padding, "padding"),
    strides: sizesOf(strides, "strides"),
  } as FoldOptions;
}

function linearOf(options: FoldOptions): Linear {
  const { kind, order, shape } = options;
  const linear = choice("kind", kind, undefined, ["linear", "conv", "convTranspose"]) === "linear";
  const sorted = typeof order === "string" ? [...order].sort().join("") : "";
  if (linear ? sorted !== "IO" : !/^(?=.{3,5}$)D?H?IL?OW?$/.test(sorted)) {
    throw new OptionError(
      "order",
      `O and I${linear ? " alone" : ", and one to three of D, H, W, L"}`,
      describe(order),
    );
  }
  if (!Array.isArray(shape) || shape.length !== order.length || !shape.every(isSize)) {
    throw new ShapeError(
      "shape",
      `${order.length} sizes >= 1 [${[...order].join(", ")}]`,
      show(shape),
    );
  }
  const weight = float32Of("weight", options.weight, product(shape));
  const stride = (axis: number): number => product(shape.slice(axis + 1));
  const [axisO, axisI] = [order.indexOf("O"), order.indexOf("I")];
  const [O, I, strideO, strideI]: number[] = [
    shape[axisO],
    shape[axisI],
    stride(axisO),
    stride(axisI),
  ];
  // Where the taps between an in channel and an out channel lie, counted from the first tap.
  let taps = [0];
  for (const [axis, size] of shape.entries()) {
    if (axis === axisO || axis === axisI) continue;
    taps = taps.flatMap((at) => Array.from({ length: size }, (_, k) => at + k * stride(axis)));
  }
  // One of the two axes has the channels of all groups, the other those of a single group.
  const transposed = kind === "convTranspose";
  const all = transposed ? I : O;
  const groups = number(
    "groups",
    options.groups,
    1,
    `a divisor of the ${all} ${transposed ? "in" : "out"} channels`,
    (n) => isSize(n) && all % n === 0,
  );
  const groupOf = (n: number): number => Math.floor((n * groups) / all);
  return {
    weight,
    ins: transposed ? I : I * groups,
    outs: transposed ? O * groups : O,
    taps: taps.length,
    each(visit) {
      for (let o = 0; o < O; o++) {
        for (let i = 0; i < I; i++) {
          const from = o * strideO + i * strideI;
          const input = transposed ? i : groupOf(o) * I + i;
          const output = transposed ? groupOf(i) * O + o : o;
          for (let tap = 0; tap < taps.length; tap++) visit(from + taps[tap]!, input, output, tap);
        }
      }
    },
  };
}

/** Throws if a convolution after the norm may see zeros that the norm does not see. */
function refuseZeros({ kind, padding, strides }: FoldOptions, taps: number): void {
  if (kind === "linear") return;
  const conv = kind === "conv";
  const given = [conv ? padding : strides].flat();
  const exact = (n: unknown): boolean =>
    conv ? n === 0 || n === "valid" || (n === "same" && taps === 1) : n === 1 && taps === 1;
  if (given.length > 0 && given.every(exact)) return;
  if (conv) {
    throw new OptionError(
      "padding",
      '0 or "valid" for a conv after the layer, which would have to normalize the zeros too',
      show(padding),
    );
  }
  throw new OptionError(
    "into",
    '"before" for a convTranspose, unless it has a single tap, strides stated as 1, and no output padding',
    '"after"',
  );
}

/** Inputs [in, taps, PROBES] between -1 and 1 or, given the terms of a norm, inputs that it maps to there. */
function probe({ ins, taps }: Linear, terms: AffineTerms | null): Float32Array {
  const inner = taps * PROBES;
  return Float32Array.from({ length: ins * inner }, (_, k) => {
    // Multiples of the golden ratio modulo 2 spread evenly, and are the same in every runtime.
    const value = ((k * 1.618033988749895) % 2) - 1;
    if (terms === null) return value;
    const c = Math.floor(k / inner);
    const spread = 1 / terms.scale[c]!;
    return terms.center[c]! + value * (Math.abs(spread) < 2 ** 127 ? spread : 1);
  });
}

/** The layer's outputs [out, PROBES] for inputs [in, taps, PROBES]. */
function apply({ taps, each }: Linear, x: Float32Array, w: Float32Array, b: Float32Array) {
  const sums = Float64Array.from(
    { length: b.length * PROBES },
    (_, k) => b[Math.floor(k / PROBES)]!,
  );
  each((at, i, o, tap) => {
    for (let p = 0; p < PROBES; p++)
      sums[o * PROBES + p]! += w[at]! * x[(i * taps + tap) * PROBES + p]!;
  });
  return new Float32Array(sums);
}

const isSize = (n: unknown): boolean => isWhole(n, 1);
