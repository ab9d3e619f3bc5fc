// Test time only: the running averages and γ, β of a layer worked out to a scale and a shift per
// channel (Ioffe & Szegedy 2015, algorithm 2, lines 8 to 12), once.

import { float32, outputOf } from "./arrays.js";
import { checkKeys, OptionError, StateError } from "./errors.js";
import { type Folded, type FoldOptions, fold } from "./fold.js";
import { fromNumbers, type JsonNumber, parse, toNumbers } from "./json.js";
import { checkKernels, type Kernels, machineOf, memoryOf, sharedKernels } from "./kernels.js";
import { checkLayout, LAYOUTS, type Layout, viewOf } from "./layout.js";
import { checkChannels, INFER_KEYS, NO_OPTIONS } from "./options.js";
import { type Affine, normalize } from "./run.js";
import { isTiny, TINY, tinyAffine } from "./tiny.js";

/** Options of `infer`. */
export interface InferOptions {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Where the result goes, of x's length; may be x itself. Default: a fresh array. */
  out?: Float32Array;
}

/** What `FrozenBatchNorm.toJSON` gives; numbers are exact. */
export interface FrozenJSON {
  readonly format: "batchnorm-wasm/frozen";
  readonly version: 1;
  readonly channels: number;
  readonly layout: Layout;
  /** y = (x - center)·scale + shift, [channels] each, float32. */
  readonly center: readonly JsonNumber[];
  readonly scale: readonly JsonNumber[];
  readonly shift: readonly JsonNumber[];
}

/**
 * An immutable test-time copy of a layer: made by `bn.freeze()` or from JSON. Gives the same bits
 * as `bn.infer` gave when it was made.
 *
 * @example
 * const text = JSON.stringify(bn.freeze()); // train in Node …
 * const frozen = FrozenBatchNorm.fromJSON(text); // … serve at the edge
 * const y = frozen.infer(x); // x: one example [1, 64]
 */
export class FrozenBatchNorm {
  readonly #channels: number;
  readonly #layout: Layout;
  readonly #affine: Affine;
  #kernels: Kernels | undefined;

  /** @internal Use `bn.freeze()` or `FrozenBatchNorm.fromJSON`. */
  constructor(channels: number, layout: Layout, affine: Affine, kernels: Kernels | undefined) {
    this.#channels = channels;
    this.#layout = layout;
    this.#affine = affine;
    this.#kernels = kernels;
  }

  /** How many features are normalized. */
  get channels(): number {
    return this.#channels;
  }

  /** Order of the axes of the data. */
  get layout(): Layout {
    return this.#layout;
  }

  /** The kernels whose tensors `infer` takes without copying. */
  get kernels(): Kernels {
    return (this.#kernels ??= sharedKernels());
  }

  /**
   * y = γ·(x - running mean)/√(running variance + ε) + β (Ioffe & Szegedy 2015, algorithm 2,
   * line 11). Each example by itself: alone or in a batch, the same bits. NaN passes to its own
   * outputs.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]; unchanged.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape or out do not fit; OptionError for an unknown option; StateError
   * for a tensor freed already. Nothing has been written then.
   */
  infer(x: Float32Array, options: InferOptions = NO_OPTIONS): Float32Array {
    if (options !== NO_OPTIONS) checkKeys("options", options, INFER_KEYS);
    const view = viewOf(this.#layout, this.#channels, float32("x", x).length, options.shape);
    const out = outputOf(options.out, x);
    if (isTiny(TINY.affine, memoryOf(this.#kernels), x, out))
      tinyAffine(out, x, view, this.#affine);
    else normalize(machineOf(this.kernels), out, x, view, this.#affine);
    return out;
  }

  /**
   * Folds the layer into the linear or convolution layer beside it, which then does the work of
   * both (Ioffe & Szegedy 2015, section 3.1: at test time the layer is an affine map; Jacob et al.
   * 2018, section 3.2, eq. 14). Worked out in float64 and rounded to float32 once; `maxDifference`
   * says what that changes. This layer and the arrays given are unchanged.
   *
   * Exact in theory or refused: where zeros stand around the input of a convolution or between its
   * values, a layer before it would have to normalize them too, and no bias stands for that, unless
   * the layer maps 0 to 0 in every channel. So with position `"after"`, `"conv"` asks for `padding`
   * and `"convTranspose"` is refused, for any layer that moves 0.
   *
   * @param options see `FoldOptions`: weight in the shape and order of axes of its framework.
   * @returns the weight in the same shape and order, the bias [out], and `maxDifference` in the
   * units of the output.
   * @throws OptionError for an unknown option, `groups` that do not divide the channels, and where
   * folding would not be exact; ShapeError if weight, bias or shape do not fit each other or the
   * layer; StateError for a tensor freed already.
   *
   * @example
   * const { weight, bias } = bn.freeze().fold({
   *   weight: conv, // [64, 3, 7, 7], followed by bn
   *   shape: [64, 3, 7, 7],
   *   kind: "conv",
   *   order: "OIHW",
   *   position: "before",
   * });
   */
  fold(options: FoldOptions): Folded {
    return fold(this.#affine, memoryOf(this.#kernels), options);
  }

  /** What `JSON.stringify` writes and `fromJSON` reads, exactly. */
  toJSON(): FrozenJSON {
    return {
      format: "batchnorm-wasm/frozen",
      version: 1,
      channels: this.#channels,
      layout: this.#layout,
      center: toNumbers(this.#affine.hi),
      scale: toNumbers(this.#affine.scale),
      shift: toNumbers(this.#affine.shift),
    };
  }

  /**
   * The layer that `toJSON` wrote.
   *
   * @param json the object, or its JSON text.
   * @throws StateError where it is not what `toJSON` writes; OptionError for an unknown option.
   */
  static fromJSON(
    json: FrozenJSON | string,
    options: { kernels?: Kernels } = NO_OPTIONS,
  ): FrozenBatchNorm {
    checkKeys("options", options, ["kernels"]);
    const s = parse<FrozenJSON>("json", json, "batchnorm-wasm/frozen");
    const kernels = options.kernels === undefined ? undefined : checkKernels(options.kernels);
    const numbers = (name: "center" | "scale" | "shift"): Float32Array =>
      new Float32Array(fromNumbers(name, s[name], s.channels));
    try {
      checkChannels(s.channels);
      checkLayout(s.layout, LAYOUTS);
    } catch (error) {
      if (error instanceof OptionError) throw new StateError(error.message);
      throw error;
    }
    const affine = { hi: numbers("center"), scale: numbers("scale"), shift: numbers("shift") };
    return create(s.channels, s.layout, affine, kernels);
  }
}

// As in batch-norm.ts: a class that names itself loses its name.
const create = (...of: ConstructorParameters<typeof FrozenBatchNorm>): FrozenBatchNorm =>
  new FrozenBatchNorm(...of);
