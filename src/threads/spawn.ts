// Starts a worker: in Node, Deno and Bun by node:worker_threads, elsewhere as a web worker. The script travels as text
// inside the bundle, because no form of `new Worker(url)` works in every bundler and without one: esbuild and Rollup
// leave `new URL("./worker.js", import.meta.url)` as it is and emit no file. A page whose policy forbids scripts made of
// text gives the address of a file.

import type { ThreadExports } from "../engine/machine.js";
import { UnsupportedError } from "../errors.js";

/** The part of node:worker_threads that is needed. */
interface NodeWorker extends Hand {
  on(event: string, listener: (value: unknown) => void): void;
  unref(): void;
}

/** The part of a web worker that is needed. */
interface WebWorker extends Hand {
  onmessage: ((event: { data: Started }) => void) | null;
  onerror: ((event: { message?: string; preventDefault?(): void }) => void) | null;
}

interface Scope {
  process?: { getBuiltinModule?(name: string): unknown };
  Worker?: new (url: string, options?: { name: string }) => WebWorker;
  navigator?: { hardwareConcurrency?: number };
  crossOriginIsolated?: boolean;
  URL: {
    new (url: string): URL;
    createObjectURL(blob: unknown): string;
    revokeObjectURL(url: string): void;
  };
  Blob: new (parts: string[], options: { type: string }) => unknown;
  setTimeout(call: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

/** What a worker is told at its start. */
export interface Start {
  /** The binary of frozen layers, the one that other layers have besides, and the one with the pieces. */
  readonly frozen: Uint8Array<ArrayBuffer>;
  readonly kernels: Uint8Array<ArrayBuffer>;
  readonly pieces: Uint8Array<ArrayBuffer>;
  readonly memory: WebAssembly.Memory;
  /** What it gives to `tell`. */
  readonly told: Readonly<Parameters<ThreadExports["tell"]>>;
}

/** What a worker answers: why it cannot work, or null. */
export type Started = string | null;

const scope = globalThis as unknown as Scope;

/** Seconds within which a worker has to be ready. */
const READY = 20;
const NAME = "batchnorm-wasm";

/** A worker, as Node and browsers have it. */
export interface Hand {
  postMessage(message: Start): void;
  /** Ends it at once, wherever it is. */
  terminate(): unknown;
}

const builtin = <M>(name: string): M | undefined =>
  scope.process?.getBuiltinModule?.(name) as M | undefined;

/** How many threads the machine says that it has. */
export function coresOf(): number {
  const os = builtin<{ availableParallelism?(): number }>("node:os");
  return os?.availableParallelism?.() ?? scope.navigator?.hardwareConcurrency ?? 1;
}

/** Throws UnsupportedError where threads cannot share memory, or where there are none. */
export function checkThreads(): void {
  if (typeof SharedArrayBuffer === "undefined" || scope.crossOriginIsolated === false) {
    throw new UnsupportedError(
      "SharedArrayBuffer",
      "a page served with the headers Cross-Origin-Opener-Policy: same-origin and " +
        "Cross-Origin-Embedder-Policy: require-corp, or Node, Deno or Bun",
      "one that shares no memory between threads",
    );
  }
  if (!(nodeWorker() ?? scope.Worker)) {
    throw new UnsupportedError(
      "Worker",
      "a runtime with web workers or process.getBuiltinModule (Node 20.16 or later)",
      "neither",
    );
  }
}

type NodeWorkerClass = new (script: string | URL, options: object) => NodeWorker;

const nodeWorker = (): NodeWorkerClass | undefined =>
  builtin<{ Worker: NodeWorkerClass }>("node:worker_threads")?.Worker;

const refused = (got: string, cause?: unknown): UnsupportedError =>
  new UnsupportedError(
    "worker",
    "to start (Content-Security-Policy: worker-src blob:, or the address of " +
      "batchnorm-wasm/worker.js as startKernels({ worker }); Node's permission model: --allow-worker)",
    got,
    { cause },
  );

/**
 * Starts a worker and waits until it is ready. `text` is its script, `url` where its file lies if the text may not be
 * used. Rejects with UnsupportedError if it does not start.
 */
export const spawn = (text: string, url: string | undefined, start: Start): Promise<Hand> =>
  new Promise((resolve, reject) => {
    let made: Hand | undefined;
    let blob: string | undefined;
    /** Takes what the worker answers, or why it does not. Later answers change nothing. */
    const answer = (error: Started, cause?: unknown): void => {
      scope.clearTimeout(timer);
      if (blob) scope.URL.revokeObjectURL(blob);
      if (error === null) resolve(made!);
      else {
        made?.terminate();
        reject(refused(error, cause));
      }
    };
    const fail = (cause: unknown): void => answer(String(cause), cause);
    const timer = scope.setTimeout(() => answer(`no answer after ${READY} s`), 1000 * READY);
    try {
      const Node = nodeWorker();
      if (Node) {
        const place = url && /^[a-z]+:/.test(url) ? new scope.URL(url) : (url ?? text);
        const worker = (made = new Node(place, { eval: url === undefined, name: NAME }));
        worker.on("message", (started) => {
          // The process may end while the worker runs.
          worker.unref();
          answer(started as Started);
        });
        worker.on("error", fail);
        worker.on("exit", () => answer("one that ended"));
      } else {
        if (url === undefined) {
          blob = scope.URL.createObjectURL(new scope.Blob([text], { type: "text/javascript" }));
        }
        const worker = (made = new scope.Worker!(url ?? blob!, { name: NAME }));
        worker.onmessage = ({ data }) => answer(data);
        worker.onerror = (event) => {
          event.preventDefault?.();
          answer(event.message || "one that the page's policy refuses, or that is not there");
        };
      }
      made.postMessage(start);
    } catch (cause) {
      fail(cause);
    }
  });
