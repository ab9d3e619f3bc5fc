/**
 * Kernels on several cores: `startKernels`. Needs a runtime in which threads share memory: Node, Deno, Bun, or a page
 * that is served with the headers that isolate it.
 *
 * @module
 */

export {
  BatchNormError,
  MemoryError,
  OptionError,
  StateError,
  UnsupportedError,
} from "./errors.js";
export {
  type Address,
  type InSharedMemory,
  type StartOptions,
  startKernels,
  type ThreadedKernels,
} from "./threads/start.js";
