// Folds a frozen layer into the linear or convolution layer beside it: at test time both are affine
// (Ioffe & Szegedy 2015, section 3.1; Jacob et al. 2018, section 3.2).
//
//   before  y = BN(W·u + b)    W' = scale·W along the out channels, b' = (b - hi)·scale + shift
//   after   z = W·BN(x) + b    W' = W·scale along the in channels,  b' = b + ΣW·(shift - hi·scale)

import { arrayOf, float32Of } from "./arrays.js";
import { checkKeys, describe, OptionError, ShapeError } from "./errors.js";
import { show } from "./layout.js";
import type { Memory } from "./memory.js";
import { choice, number } from "./options.js";
import type { Affine } from "./run.js";
import { tinyAffine } from "./tiny.js";

/** Options of `fold`. */
export interface FoldOptions {
  /** Of the linear or convolution layer, float32 in `shape`; unchanged. */
  weight: Float32Array;
  /** Of the same layer, [out]; unchanged. Default: none. */
  bias?: Float32Array | null;
  /** Sizes of the axes of `weight`, each >= 1. */
  shape: readonly number[];
  /** A depthwise convolution is a `"conv"` whose `groups` are its in channels. */
  kind: "linear" | "conv" | "convTranspose";
  /**
   * A letter for each axis of `shape`: O out channels, I in channels and, for convolutions, one to
   * three of D, H, W, L, in any order.
   *
   *   PyTorch, ONNX     linear "OI", conv "OIL", "OIHW", "OIDHW", convTranspose "IOHW"
   *   Keras, TensorFlow linear "IO", conv "LIO", "HWIO", "DHWIO", convTranspose "HWOI"
   *
   * Axis I of a grouped conv has in/groups channels, axis O of a grouped convTranspose out/groups.
   * TensorFlow's depthwise kernel [kH, kW, in, multiplier] lies in memory as "HWIO"
   * [kH, kW, 1, in·multiplier].
   */
  order: string;
  /** Into how many groups, one after another, the channels are divided. Default 1. */
  groups?: number;
  /** Where that layer stands: its output is normalized (`"before"`), or its input (`"after"`). */
  position: "before" | "after";
  /**
   * How many zeros a `"conv"` has around its input: one number, one for each axis or end, `"valid"`
   * or `"same"`. Read only for a `"conv"` after a layer that moves 0, where it must be given and be
   * none: 0, zeros, `"valid"`, or `"same"` with a single tap. Padding with values of the input
   * (reflected, repeated, circular) adds no zeros: 0.
   */
  padding?: number | readonly number[] | "valid" | "same";
}

/** What `fold` gives: one layer in place of two. */
export interface Folded {
  /** In the shape of the one given, and its order; a fresh array. */
  weight: Float32Array;
  /** [out]; a fresh array. */
  bias: Float32Array;
  /**
   * The largest |both layers - the folded one| over all out channels, met on a fixed probe of a few
   * inputs, one whole window of taps each: within ±1, or, where the layer comes first, what it
   * normalizes to about ±1. Every layer sums in float64 and rounds to float32.
   */
  maxDifference: number;
}

/** A linear or convolution layer: its channels, and where each weight lies. */
interface Kernel {
  readonly weight: Float32Array;
  readonly ins: number;
  readonly outs: number;
  readonly taps: number;
  /** Visits every weight: its index, its channels, its tap. */
  readonly each: (visit: (at: number, i: number, o: number, tap: number) => void) => void;
}

const KEYS = ["weight", "bias", "shape", "kind", "order", "groups", "position", "padding"];

/** How many inputs the probe has. */
const PROBES = 4;

export function fold(affine: Affine, memory: Memory | undefined, options: FoldOptions): Folded {
  checkKeys("options", options, KEYS);
  const before = choice("position", options.position, undefined, ["before", "after"]) === "before";
  const kernel = kernelOf(options);
  const { outs, each } = kernel;
  const { hi, scale, shift } = affine;
  const channels = before ? outs : kernel.ins;
  if (channels !== hi.length) {
    throw new ShapeError(
      `shape: expected ${hi.length} ${before ? "out" : "in"} channels, got ${channels}`,
    );
  }
  const w = kernel.weight;
  const b = arrayOf("bias", options.bias ?? undefined, outs);
  memory?.addressOf("weight", w);
  memory?.addressOf("bias", b);

  // What the layer makes of 0; the product of two float32 is exact.
  const zero = Float64Array.from(hi, (h, c) => shift[c]! - h * scale[c]!);
  if (!before && zero.some((z) => z !== 0)) refuseZeros(options, kernel.taps);

  const weight = new Float32Array(w.length);
  const sums = Float64Array.from(b, (v, o) => (before ? (v - hi[o]!) * scale[o]! + shift[o]! : v));
  each((at, i, o) => {
    weight[at] = w[at]! * scale[before ? o : i]!;
    if (!before) sums[o]! += w[at]! * zero[i]!;
  });
  const bias = new Float32Array(sums);

  const normalized = (values: Float32Array): Float32Array => {
    tinyAffine(values, values, { outer: 1, channels, inner: values.length / channels }, affine);
    return values;
  };
  const x = probe(kernel, before ? null : affine);
  const z = run(kernel, x, weight, bias);
  // Last, as it may overwrite x.
  const y = before ? normalized(run(kernel, x, w, b)) : run(kernel, normalized(x), w, b);
  const maxDifference = y.reduce((most, v, k) => Math.max(most, Math.abs(v - z[k]!)), 0);
  return { weight, bias, maxDifference };
}

function kernelOf(options: FoldOptions): Kernel {
  const { kind, order, shape } = options;
  const linear = choice("kind", kind, undefined, ["linear", "conv", "convTranspose"]) === "linear";
  const sorted = typeof order === "string" ? [...order].sort().join("") : "";
  if (linear ? sorted !== "IO" : !/^(?=.{3,5}$)D?H?IL?OW?$/.test(sorted)) {
    throw new OptionError(
      `order: expected O, I${linear ? "" : " and one to three of D, H, W, L"}, got ${describe(order)}`,
    );
  }
  if (!Array.isArray(shape) || shape.length !== order.length || !shape.every(isSize)) {
    throw new ShapeError(
      `shape: expected ${order.length} sizes >= 1 [${[...order].join(", ")}], got ${show(shape)}`,
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
  // Where the taps of two channels lie, from the first of them.
  let taps = [0];
  for (const [axis, size] of shape.entries()) {
    if (axis === axisO || axis === axisI) continue;
    taps = taps.flatMap((at) => Array.from({ length: size }, (_, k) => at + k * stride(axis)));
  }
  // One axis has the channels of all groups, the other those of one.
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

/** Throws if a convolution after the layer may see zeros that the layer does not. */
function refuseZeros({ kind, padding }: FoldOptions, taps: number): void {
  if (kind === "convTranspose") {
    throw new OptionError(
      'position: expected "before" for a convTranspose, whose outputs see different numbers of taps, ' +
        'got "after"',
    );
  }
  const sizes = [padding].flat();
  const none = (n: unknown): boolean => n === 0 || n === "valid" || (n === "same" && taps === 1);
  if (kind === "conv" && !(sizes.length > 0 && sizes.every(none))) {
    throw new OptionError(
      'padding: expected 0 or "valid" for a conv after the layer, which would have to normalize ' +
        `the zeros too, got ${show(padding)}`,
    );
  }
}

/** Inputs [in, taps, PROBES] between -1 and 1, or what `affine` maps there. */
function probe({ ins, taps }: Kernel, affine: Affine | null): Float32Array {
  const inner = taps * PROBES;
  return Float32Array.from({ length: ins * inner }, (_, k) => {
    // Multiples of the golden ratio modulo 2: spread evenly, the same in every runtime.
    const value = ((k * 1.618033988749895) % 2) - 1;
    if (affine === null) return value;
    const c = Math.floor(k / inner);
    const spread = 1 / affine.scale[c]!;
    return affine.hi[c]! + value * (Math.abs(spread) < 2 ** 127 ? spread : 1);
  });
}

/** The layer's outputs [out, PROBES] for inputs [in, taps, PROBES]. */
function run({ taps, each }: Kernel, x: Float32Array, w: Float32Array, b: Float32Array) {
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

const isSize = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 1;

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
