// An instance of the binary with a memory: what run.ts works with.

import type { Buffers, Memory } from "./memory.js";
import { instantiate } from "./wasm/compile.js";
import { kernelsModule } from "./wasm/embedded.js";

/** A kernel: addresses, numbers and dimensions in, as assembly/ documents them. */
type Kernel<Result = void> = (...args: number[]) => Result;

/** The surface of the small binary: see assembly/infer.ts. */
export interface AffineExports {
  affineStrips: Kernel;
  /** Not in the small one, which never meets what is cold. */
  affineSweep?: Kernel;
  affinePlanes: Kernel;
  spread: Kernel;
}

/** The surface of the binary: see assembly/index.ts. */
export interface Exports extends AffineExports {
  affineSweep: Kernel;
  momentsRows: Kernel;
  momentsPlanes: Kernel;
  gradientSumsRows: Kernel;
  gradientSumsPlanes: Kernel;
  gradientStrips: Kernel;
  gradientSweep: Kernel;
  gradientPlanes: Kernel;
  merge: Kernel;
  mergeSums: Kernel;
  finishMoments: Kernel<number>;
  updateRunning: Kernel;
  center: Kernel;
  scaleShift: Kernel<number>;
  gradientTerms: Kernel;
}

/** What a frozen layer needs. */
export interface AffineMachine {
  readonly run: AffineExports;
  readonly memory: Buffers;
}

/** What a layer needs. */
export interface Machine {
  readonly run: Exports;
  readonly memory: Memory;
}

/** The kernels on a memory, which is asked for once there are any. */
export function start<E extends AffineExports, M extends Buffers>(
  place: () => M,
): { run: E; memory: M } {
  const module = kernelsModule();
  const memory = place();
  const exports = instantiate(module, { env: { memory: memory.wasm } });
  return { run: exports as unknown as E, memory };
}
