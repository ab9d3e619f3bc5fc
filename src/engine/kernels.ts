// What users see of kernel memory, and the instance that layers share.

import { checkKeys, describe, OptionError } from "../errors.js";
import { sizeOfFloat32 } from "../values/arrays.js";
import { Raw } from "../values/raw.js";
import { start } from "./instances.js";
import type { Machine } from "./machine.js";
import { DEFAULT_BYTES, Memory } from "./memory.js";
import { share, sharedSoFar } from "./shared.js";

/** Options of `new Kernels`. */
export interface KernelsOptions {
  /**
   * Size of the memory in bytes, 1 MiB to 4 GiB, rounded up to 64 KiB. Default 16 MiB. Some 950 KB of it are buffers
   * through which ordinary arrays go; tensors have the rest.
   */
  memory?: number;
}

/** What the tensors of a `Kernels` lie in. */
export type BufferOf<K> = K extends { readonly shared: true } ? SharedArrayBuffer : ArrayBuffer;

/**
 * The compiled kernels with a memory of fixed size. It never grows, so no view of it is ever
 * detached. Layers share one by default; give one of your own for tensors that need more room.
 *
 * @throws StateError from every member that is used through a proxy of it (Vue's `reactive`, valtio's `proxy`).
 *
 * @example
 * const kernels = new Kernels({ memory: 64 << 20 });
 * const bn = new BatchNorm(64, { kernels });
 * const x = kernels.alloc(256 * 64); // lives in kernel memory: no copies
 */
export class Kernels extends Raw {
  readonly #machine: Machine;

  /**
   * @throws OptionError for a memory below 1 MiB or above 4 GiB; MemoryError where the runtime does
   * not give that much; UnsupportedError without WebAssembly SIMD or where compiling is forbidden.
   */
  constructor(options: KernelsOptions = {}) {
    super();
    checkKeys("options", options, ["memory"]);
    const { memory: bytes = DEFAULT_BYTES } = options;
    this.#machine = start(() => new Memory(bytes));
  }

  /** @internal It is no symbol, because bundlers keep a class with a computed member name even if nothing uses it. */
  get machine(): Machine {
    return this.itself.#machine;
  }

  /**
   * A tensor of `length` float32 values in kernel memory, 64-byte aligned, zeroed. Methods of
   * layers on these kernels take it, and parts of it (`subarray`), without copying.
   *
   * @returns a view [length] of kernel memory; it is never detached.
   * @throws OptionError unless `length` is a whole number >= 0; MemoryError when there is no room.
   */
  alloc(length: number): Float32Array<BufferOf<this>> {
    return this.machine.memory.allocate(length) as Float32Array<never>;
  }

  /**
   * Takes back a tensor that `alloc` returned. Layers refuse it then, also those on other kernels (StateError). A part of
   * it (`subarray`) is known only by its place: once another tensor lies there, layers take it for a part of that one.
   * Layers on other kernels do not know parts at all, and `batchnorm-wasm/infer` and your own code know neither: they read
   * and write what lies in that place by then.
   *
   * @param view the tensor [length] itself, not a part of it.
   * @throws ShapeError if `view` is no Float32Array; StateError for a view of other memory, a part of a tensor, or a
   * tensor that has been freed already.
   */
  free(view: Float32Array): void {
    sizeOfFloat32("view", view);
    this.machine.memory.release(view);
  }

  /** Size of the memory in bytes. */
  get memory(): number {
    return this.machine.memory.bytes;
  }

  /** The kernels in one line, which Node's `console.log` shows too. */
  override toString(): string {
    return `Kernels({ memory: ${this.memory}, threads: ${this.threads} })`;
  }

  /** How many threads compute: 1, unless the kernels are of `startKernels` (`batchnorm-wasm/threads`). */
  get threads(): number {
    return this.machine.threads ?? 1;
  }

  /** Ends the threads besides the caller's, if there are any. The kernels work on with one thread. */
  close(): void {
    this.machine.close?.();
  }
}

/** The instance that layers use unless they are given one; made at first use, one per realm. */
export function sharedKernels(): Kernels {
  if (sharedSoFar() === undefined) share(new Kernels());
  return sharedSoFar() as Kernels;
}

/**
 * Returns the option `kernels` if it is a Kernels, of this copy of the package or of another, or is left out. A Kernels
 * has the mark of what users hold, and a machine. The class is not named, so that code that only checks does not bundle it.
 */
export function checkKernels(value: unknown): Kernels | undefined {
  const kernels = Object(value) as Kernels;
  if (value === undefined || (kernels.__v_skip && kernels.machine)) return value as Kernels;
  throw new OptionError("kernels", "a Kernels", describe(value));
}
