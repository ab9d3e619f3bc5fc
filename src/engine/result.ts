// Fresh arrays for results.

import { UNZEROED, ZEROED_BY_SYSTEM } from "./plan.js";

/** The part of Node, and of runtimes like it, that allocates memory without zeroing it; some of them zero it anyway. */
interface NodeGlobal {
  readonly Buffer?: { allocUnsafeSlow?(bytes: number): Uint8Array<ArrayBuffer> };
}

/**
 * Whether that memory is of this realm. In the sandboxes of test runners it is not, and whether the buffer of a result
 * is an instance of ArrayBuffer would depend on its length.
 */
let isOurs: boolean | undefined;

/** A fresh array that may hold anything, since zeroing is left out where possible: the caller must write all of it. */
export function resultOf(length: number): Float32Array<ArrayBuffer> {
  const pays = length >= UNZEROED && length < ZEROED_BY_SYSTEM;
  const bytes = pays && (globalThis as NodeGlobal).Buffer?.allocUnsafeSlow?.(4 * length);
  return bytes && (isOurs ??= bytes.buffer.constructor === new Float32Array().buffer.constructor)
    ? new Float32Array(bytes.buffer, bytes.byteOffset, length)
    : new Float32Array(length);
}
