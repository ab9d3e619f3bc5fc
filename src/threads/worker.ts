// What a worker runs: it is told of the kernels and their memory, makes an instance on it, says that it is ready, and
// then takes pieces until it is stopped. This file becomes a script without imports, which scripts/bundle.mjs embeds in
// `batchnorm-wasm/threads` as text, and which lies in dist/ for pages that may not start such a text.

import { EPOCH, FAILED, type Worker, wordsOf, workerStep } from "./protocol.js";
import type { Start, Started } from "./spawn.js";

/** The side of a channel to whoever started this worker, as browsers and Node have it. */
interface Port {
  onmessage: ((event: { data: Start }) => void) | null;
  postMessage(message: Started): void;
  close?(): void;
}

interface Scope extends Port {
  process?: {
    getBuiltinModule?(name: string): { parentPort: Port | null } | undefined;
  };
}

/** Milliseconds that a worker looks for the next call before it sleeps (docs/tuning.md). */
const SPIN = 2;
/** It asks for the time once in so many looks, which is a power of two. */
const LOOKS = 512;

const scope = globalThis as unknown as Scope;
const port = scope.process?.getBuiltinModule?.("node:worker_threads")?.parentPort ?? scope;

port.onmessage = ({ data }) => {
  port.onmessage = null;
  try {
    const piece = pieceOf(data);
    port.postMessage({ error: null });
    work(data, piece);
  } catch (error) {
    port.postMessage({ error: String(error) });
  }
  // A worker of Node ends when nothing listens, one of a browser when it is closed.
  port.close?.();
};

function pieceOf({
  kernels,
  pieces,
  memory,
}: Start): (job: number, piece: number, scratch: number) => void {
  const instance = (bytes: Uint8Array<ArrayBuffer>, imports: WebAssembly.Imports) =>
    new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports;
  const env = { memory };
  const { piece } = instance(pieces, { env, kernels: instance(kernels, { env }) });
  return piece as ReturnType<typeof pieceOf>;
}

function work(
  { memory, words: at, thread, threads, job, own }: Start,
  piece: ReturnType<typeof pieceOf>,
): void {
  const words = new Int32Array(memory.buffer, at, wordsOf(threads));
  let since = 0;
  const me: Worker = {
    at: "begin",
    words,
    thread,
    threads,
    queue: thread,
    piece: 0,
    finished: 0,
    looks: 0,
    epoch: 0,
    run(p) {
      // The piece counts as finished all the same, so that nobody waits for it; the caller looks at FAILED.
      try {
        piece(job, p, own);
      } catch {
        Atomics.store(words, FAILED, 1);
      }
    },
    isTired(looks) {
      if (looks % LOOKS !== 0) return false;
      const now = performance.now();
      if (looks === 0) since = now;
      return now - since > SPIN;
    },
    sleep(epoch) {
      Atomics.wait(words, EPOCH, epoch);
    },
  };
  while (workerStep(me)) {}
}
