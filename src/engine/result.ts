// Fresh arrays for results.

import { outputOf } from "../values/arrays.js";
import { UNZEROED, ZEROED_BY_SYSTEM } from "./plan.js";

/** The part of Node, and of runtimes like it, that allocates memory without zeroing it; some of them zero it anyway. */
interface NodeGlobal {
  readonly Buffer?: { allocUnsafeSlow?(bytes: number): Uint8Array<ArrayBuffer> };
}

/** A fresh array that may hold anything, since zeroing is left out where possible: the caller must write all of it. */
export function resultOf(length: number): Float32Array<ArrayBuffer> {
  const pays = length >= UNZEROED && length < ZEROED_BY_SYSTEM;
  const bytes = pays && (globalThis as NodeGlobal).Buffer?.allocUnsafeSlow?.(4 * length);
  return bytes
    ? new Float32Array(bytes.buffer, bytes.byteOffset, length)
    : new Float32Array(length);
}

/** The array for a result of x's `length`: `out`, which may be x or add itself, or a fresh one as `resultOf`. */
export const resultLike = (
  out: unknown,
  x: Float32Array,
  add: Float32Array | null,
  length: number,
): Float32Array => (out === undefined ? resultOf(length) : outputOf(out, x, add, length));
