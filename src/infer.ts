/**
 * Test time only, on the smallest binary, which has the kernels for it alone, with 1 MiB of memory. Tensors in kernel
 * memory and `fold` are in `batchnorm-wasm`.
 *
 * @module
 */

import { applyStreamed } from "./engine/streamed.js";
import {
  Frozen,
  type FrozenJSON,
  type KernelSource,
  readFrozen,
  smallMachine,
} from "./frozen/frozen.js";
import type { Widened } from "./values/json.js";

export {
  BatchNormError,
  MemoryError,
  OptionError,
  ShapeError,
  StateError,
  UnsupportedError,
} from "./errors.js";
export type { FrozenJSON, InferOptions, InverseOptions } from "./frozen/frozen.js";
export type { Activation, ActivationJSON } from "./values/activation.js";
export type { JsonNumber, Widened } from "./values/json.js";
export type { Layout } from "./values/layout.js";

/**
 * A layer for test time, read from the JSON of `bn.freeze()`. It gives the same bits as `bn.infer` gave when the
 * layer was frozen.
 *
 * @throws StateError from every member that is used through a proxy of it (Vue's `reactive`, valtio's `proxy`).
 *
 * @example
 * import { FrozenBatchNorm } from "batchnorm-wasm/infer";
 *
 * const frozen = FrozenBatchNorm.fromJSON(text);
 * const y = frozen.infer(x); // x: one example [1, 64]
 */
export class FrozenBatchNorm extends Frozen {
  /**
   * The layer that `toJSON` wrote.
   *
   * @param json the object, or its JSON text.
   * @throws StateError if it is not what `toJSON` writes.
   */
  static fromJSON(json: Widened<FrozenJSON> | string): FrozenBatchNorm {
    return create(json);
  }
}

const KERNELS: KernelSource = {
  memory: () => undefined,
  apply: (out, x, view, terms, add) => applyStreamed(smallMachine(), out, x, view, terms, add),
};

// Not inside the class: bundlers rename a class whose body names it, and it would print as _FrozenBatchNorm.
const create = (json: unknown): FrozenBatchNorm => new FrozenBatchNorm(readFrozen(json), KERNELS);
