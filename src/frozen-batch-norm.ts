// The frozen layer of the main entry: on kernels that layers share, and folds.

import { checkKeys } from "./errors.js";
import { type Folded, type FoldOptions, fold } from "./fold.js";
import { Frozen, type FrozenJSON, type Place, readFrozen } from "./frozen.js";
import type { Widened } from "./json.js";
import { checkKernels, type Kernels, memoryOf, sharedKernels } from "./kernels.js";
import type { Layout } from "./layout.js";
import { NO_OPTIONS } from "./options.js";
import type { Affine } from "./run.js";

/**
 * An immutable test-time copy of a layer: made by `bn.freeze()` or from JSON. Gives the same bits
 * as `bn.infer` gave when it was made.
 *
 * @example
 * const text = JSON.stringify(bn.freeze()); // train in Node …
 * const frozen = FrozenBatchNorm.fromJSON(text); // … serve at the edge
 * const y = frozen.infer(x); // x: one example [1, 64]
 */
export class FrozenBatchNorm extends Frozen {
  readonly #affine: Affine;
  readonly #kernels: Kernels | undefined;

  /** @internal Use `bn.freeze()` or `FrozenBatchNorm.fromJSON`. */
  constructor(channels: number, layout: Layout, affine: Affine, kernels: Kernels | undefined) {
    super(channels, layout, affine, placeOf(kernels));
    this.#affine = affine;
    this.#kernels = kernels;
  }

  /**
   * The kernels whose tensors `infer` takes without copying.
   *
   * @throws UnsupportedError or MemoryError at their first use, as `new Kernels`.
   */
  get kernels(): Kernels {
    return this.#kernels ?? sharedKernels();
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

  /**
   * The layer that `toJSON` wrote.
   *
   * @param json the object, or its JSON text.
   * @throws StateError where it is not what `toJSON` writes; OptionError for an unknown option.
   */
  static fromJSON(
    json: Widened<FrozenJSON> | string,
    options: { kernels?: Kernels } = NO_OPTIONS,
  ): FrozenBatchNorm {
    checkKeys("options", options, ["kernels"]);
    const kernels = options.kernels === undefined ? undefined : checkKernels(options.kernels);
    return create(...readFrozen(json), kernels);
  }
}

const placeOf = (kernels: Kernels | undefined): Place => ({
  memory: () => memoryOf(kernels),
  machine: () => (kernels ?? sharedKernels()).machine,
});

// As in batch-norm.ts: a class that names itself loses its name.
const create = (...of: ConstructorParameters<typeof FrozenBatchNorm>): FrozenBatchNorm =>
  new FrozenBatchNorm(...of);
