// Starts kernels on several threads: a shared memory, an instance of the kernels on it for this thread and for each
// worker, and the words by which they agree on who does what.

import { instancesOn, start } from "../engine/instances.js";
import { Kernels } from "../engine/kernels.js";
import type { Exports, Machine, ThreadExports } from "../engine/machine.js";
import {
  type At,
  checkBytes,
  DEFAULT_BYTES,
  MAX_BYTES,
  Memory,
  MIN_BYTES,
} from "../engine/memory.js";
import { checkKeys, describe, OptionError } from "../errors.js";
import { lengthOf, offsetOf } from "../values/arrays.js";
import { isWhole, NO_OPTIONS, number } from "../values/check.js";
import { Raw } from "../values/raw.js";
import { compile, decode } from "../wasm/compile.js";
import { TEXT as FROZEN } from "../wasm/frozen-text.js";
import { TEXT as KERNELS } from "../wasm/kernels-text.js";
import { TEXT as PIECES } from "../wasm/threads-text.js";
import { TEXT as WORKER } from "../wasm/worker-text.js";
import { onSharedMemory } from "./binary.js";
import { type Crew, canWait, crewOf } from "./crew.js";
import { Habits, SharedMemory } from "./held.js";
import { nearOn } from "./near.js";
import { PATIENCE } from "./patience.js";
import { COLUMNS, roomOf, SETTINGS } from "./room.js";
import { ALONE, CACHED, HELD, MOST, PIECE, RUN, SMALL, WAKE } from "./sizes.js";
import { checkThreads, coresOf, spawn } from "./spawn.js";

declare global {
  // As TypeScript's own "esnext.disposable" has it, for those who compile without.
  interface SymbolConstructor {
    readonly dispose: unique symbol;
  }
  interface Disposable {
    [Symbol.dispose](): void;
  }
}

/** What a `URL` is to `startKernels`. */
export interface Address {
  /** The whole address as text. */
  readonly href: string;
}

/** Options of `startKernels`. */
export interface StartOptions {
  /**
   * Bytes for tensors and for what every kernel needs, 1 MiB to 4 GiB. `kernels.memory` is larger by what the threads need.
   * Default 16 MiB.
   */
  memory?: number;
  /** How many threads compute, the caller's among them: 1 to 64. Default: as many as the machine says it has, at most 8. */
  threads?: number;
  /**
   * The address of the file `batchnorm-wasm/worker.js` as your site serves it. Only needed where a page's
   * Content-Security-Policy has no `worker-src blob:`; else the script is part of the bundle.
   */
  worker?: string | Address;
}

/** What `startKernels` gives: a `Kernels` whose tensors lie in shared memory. */
export type ThreadedKernels = Kernels & InSharedMemory;

/** What kernels on several threads have besides. */
export interface InSharedMemory extends Disposable {
  /** Says that the tensors of `alloc` lie in a SharedArrayBuffer. */
  readonly shared: true;
  /** Does what `close` does, at the end of a block that begins with `using`. */
  [Symbol.dispose](): void;
}

const MAX_THREADS = 64;
const DEFAULT_THREADS = 8;

/** A memory of one thread beside a shared one: tensors of that are ordinary arrays here, unless they are freed. */
class OwnMemory extends Memory {
  readonly #shared: Memory;

  constructor(shared: Memory) {
    super(MIN_BYTES);
    this.#shared = shared;
  }

  override addressOf(name: string, array: Float32Array): number {
    this.#shared.addressOf(name, array);
    return -1;
  }
}

/**
 * Starts kernels on several threads: the same class, the same methods and the same bits as `new Kernels`. Tensors that
 * its `alloc` returns lie in shared memory, and calls with such tensors are computed by all threads together. So are `backward`, and
 * `train` by the statistics of the mini-batch, of large ordinary arrays where there is free memory to copy them to, if that is
 * faster.
 * Everything stays synchronous.
 *
 * If a worker stops within what nobody can do again, a call throws a StateError (the guide on several cores
 * says when). Its results may then be written in part. Later calls go on with one thread.
 *
 * @example
 * import { startKernels } from "batchnorm-wasm/threads";
 *
 * const kernels = await startKernels({ threads: 2 });
 * const bn = new BatchNorm(64, { kernels });
 * const x = kernels.alloc(4096 * 64); // [4096, 64]
 * const y = bn.train(x, { out: kernels.alloc(4096 * 64) });
 * kernels.close();
 *
 * @returns kernels whose workers run. They do not keep a process of Node alive.
 * @throws OptionError for an option unknown or out of range; UnsupportedError where threads cannot share memory (the
 * message names the headers that a page has to be served with), where no worker starts, or without WebAssembly SIMD;
 * MemoryError where the runtime does not give that much memory.
 */
export async function startKernels(options: StartOptions = NO_OPTIONS): Promise<ThreadedKernels> {
  checkKeys("options", options, ["memory", "threads", "worker"]);
  const { memory: bytes = DEFAULT_BYTES, worker } = options;
  const threads = number(
    "threads",
    options.threads,
    Math.max(1, Math.min(coresOf(), DEFAULT_THREADS)),
    `a whole number from 1 to ${MAX_THREADS}`,
    (n) => isWhole(n, 1, MAX_THREADS),
  );
  const url = Object(worker).href ?? worker;
  if (url !== undefined && typeof url !== "string") {
    throw new OptionError("worker", "a string or a URL", describe(worker));
  }
  checkThreads();
  const frozen = onSharedMemory(decode(FROZEN));
  const kernels = onSharedMemory(decode(KERNELS));
  const pieces = decode(PIECES);
  const modules = [compile(frozen), compile(kernels), compile(pieces)] as const;
  // `allocate` may begin an array some bytes further on.
  const room = roomOf(threads);
  const memory = new SharedMemory(Math.min(checkBytes(bytes) + room + 4096, MAX_BYTES));
  const at = memory.allocate(room / 4).byteOffset as At<"room">;
  const crew = crewOf(() => shared.stop());
  const env = {
    memory: memory.wasm,
    now: () => performance.now(),
    over: crew.over,
  };
  const [wasm, shared] = instancesOn(env, modules);
  memory.settle = shared.settle;
  const words = new Int32Array(memory.wasm.buffer, at + SETTINGS);
  const sleeps = canWait(words);
  words.set([COLUMNS, CACHED, RUN, ALONE, PIECE, MOST, WAKE, PATIENCE, sleeps]);
  shared.tell(threads - 1, threads, at);
  const starting = Array.from({ length: threads - 1 }, async (_, thread) => {
    const start = {
      frozen,
      kernels,
      pieces,
      memory: memory.wasm,
      told: [thread, threads, at],
    } as const;
    crew.hands.push(await spawn(WORKER, url, start));
  });
  // If one does not start, the others are ended.
  const outcomes = await Promise.allSettled(starting);
  const failed = outcomes.find((each) => "reason" in each);
  if (failed) {
    crew.close();
    throw failed.reason;
  }
  return kernelsOn(machineOn(memory, wasm, { ...wasm, ...shared }, shared, crew));
}

/** The machine of several threads on a memory. */
function machineOn(
  memory: SharedMemory,
  raw: Exports,
  wasm: Exports,
  shared: ThreadExports,
  crew: Crew,
): Machine {
  const isShared = (array: Float32Array | null | undefined): boolean => {
    // No tensor lies at the beginning of the memory, as most ordinary arrays do; to ask them for their buffer takes ten
    // times as long. Later on all are looked at again, by their names, and a view of the whole memory is refused.
    if (array == null || offsetOf(array) === 0) return false;
    try {
      return memory.addressOf("", array) >= 0;
    } catch {
      return true;
    }
  };
  const isOrdinary = (array: Float32Array | null | undefined): boolean =>
    array != null && !isShared(array);
  let alone: Machine | undefined;
  // Whether the call before may have handed out pieces. Asking the binary takes 10 ns, of each small call.
  let handed = false;
  const direct: Machine = { wasm: raw, memory };
  const habits = new Habits();
  const leave = (): void => habits.end();
  const machine: Machine = {
    wasm,
    memory,
    get threads() {
      return crew.hands.length + 1;
    },
    close(): void {
      // A worker that is ended in the middle of a piece may still write a few values when it gets a core again.
      shared.settle();
      crew.close();
    },
    leave,
    choose(a, b, c, held = 0, d = null): Machine {
      const parts = isShared(a) || isShared(b) || isShared(c) || isShared(d);
      if (handed) shared.settle();
      handed = false;
      if (memory.most) memory.drop();
      habits.forget();
      // Asking for a length takes 10 ns, so it is not done for arrays that it does not matter for.
      const size = parts || held > 0 ? lengthOf(a) : 0;
      if (held > 0 && size >= HELD && crew.hands.length > 0 && [a, b, c, d].some(isOrdinary)) {
        const count = held + (c ? 1 : 0);
        const kind = 16 * size + 4 * count + 2 * held + (parts ? 1 : 0);
        if (habits.begin(kind)) {
          handed = memory.hold(size, count, held - 1);
          if (handed) return machine;
          habits.forget();
        }
      }
      if (parts) {
        handed = size >= SMALL;
        return handed ? machine : direct;
      }
      return (alone ??= { ...start(() => new OwnMemory(memory)), leave });
    },
    near: nearOn(shared),
  };
  return machine;
}

/** The machines of the kernels below. They have no private member, because their constructor is not called. */
const MACHINES = new WeakMap<SharedKernels, Machine>();

/** `Kernels` on such a machine. */
class SharedKernels extends Kernels implements InSharedMemory {
  /** @internal */
  override get machine(): Machine {
    return MACHINES.get(this.itself)!;
  }

  get shared(): true {
    return true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function kernelsOn(machine: Machine): ThreadedKernels {
  // The constructor of `Kernels` is left out, as it starts a machine of its own; that of `Raw` is called.
  const kernels: SharedKernels = Reflect.construct(Raw, [], SharedKernels);
  MACHINES.set(kernels, machine);
  return kernels as unknown as ThreadedKernels;
}
