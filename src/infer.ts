/**
 * Test time only, on a binary of the affine kernels and 1 MiB of memory. No tensors in kernel memory,
 * and no folding: those are in `batchnorm-wasm`.
 *
 * @module
 */

import { Frozen, type FrozenJSON, type Place, readFrozen } from "./frozen.js";
import type { Widened } from "./json.js";
import { type AffineMachine, start } from "./machine.js";
import { Buffers, MIN_BYTES } from "./memory.js";

export {
  BatchNormError,
  MemoryError,
  OptionError,
  ShapeError,
  StateError,
  UnsupportedError,
} from "./errors.js";
export type { FrozenJSON, InferOptions } from "./frozen.js";
export type { JsonNumber, Widened } from "./json.js";
export type { Layout } from "./layout.js";

/**
 * A layer for test time, read from the JSON of `bn.freeze()`. Gives the same bits as `bn.infer` gave
 * when that was made.
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
   * @throws StateError where it is not what `toJSON` writes.
   */
  static fromJSON(json: Widened<FrozenJSON> | string): FrozenBatchNorm {
    return create(json);
  }
}

let machine: AffineMachine | undefined;

const PLACE: Place = {
  memory: () => undefined,
  machine: () => (machine ??= start(() => new Buffers(MIN_BYTES))),
};

// As in batch-norm.ts: a class that names itself loses its name.
const create = (json: unknown): FrozenBatchNorm => new FrozenBatchNorm(...readFrozen(json), PLACE);
