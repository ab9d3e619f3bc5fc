// Starts a worker: in Node, Deno and Bun by node:worker_threads, elsewhere as a web worker. The script travels as text
// inside the bundle, because no form of `new Worker(url)` works in every bundler and without one: esbuild and Rollup
// leave `new URL("./worker.js", import.meta.url)` as it is and emit no file. A page whose policy forbids scripts made of
// text gives the address of a file.

import { UnsupportedError } from "../errors.js";

/** The part of node:worker_threads that is needed. */
interface NodeWorker {
  on(event: string, listener: (value: unknown) => void): void;
  postMessage(message: Start): void;
  terminate(): unknown;
  unref(): void;
}

/** The part of a web worker that is needed. */
interface WebWorker {
  onmessage: ((event: { data: Started }) => void) | null;
  onerror: ((event: { message?: string; preventDefault?(): void }) => void) | null;
  postMessage(message: Start): void;
  terminate(): void;
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
  setTimeout(call: () => void, ms: number): { unref?(): void };
  clearTimeout(timer: unknown): void;
}

/** What a worker is told at its start. */
export interface Start {
  /** The binary with the kernels, and the one with the pieces. */
  readonly kernels: Uint8Array<ArrayBuffer>;
  readonly pieces: Uint8Array<ArrayBuffer>;
  readonly memory: WebAssembly.Memory;
  /** The address of the words of the protocol, which thread this is, and of how many. */
  readonly words: number;
  readonly thread: number;
  readonly threads: number;
  /** The addresses of the job and of the worker's own memory. */
  readonly job: number;
  readonly own: number;
}

/** What a worker answers: an error, if it cannot work. */
export interface Started {
  readonly error: string | null;
}

const scope = globalThis as unknown as Scope;

/** Milliseconds within which a worker has to be ready. */
const READY = 20000;
/** Milliseconds after which a worker that was told to end is terminated. */
const END = 1000;
const NAME = "batchnorm-wasm";

/** A worker that runs. */
export interface Hand {
  /** Ends it in case that it has not ended by itself after a while. */
  end(): void;
  /** Ends it at once, wherever it is. */
  terminate(): void;
}

/** A worker that has been made, but is not ready yet. */
interface Made {
  post(message: Start): void;
  terminate(): void;
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
      "a page or a runtime that does not share memory between threads",
    );
  }
  if (nodeWorker() === undefined && scope.Worker === undefined) {
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
    "to start (a page's Content-Security-Policy: worker-src blob:, or the address of " +
      "batchnorm-wasm/worker.js as startKernels({ worker }); Node's permission model: --allow-worker)",
    got,
    { cause },
  );

/**
 * Starts a worker and waits until it is ready. `text` is its script, `url` where its file lies if the text may not be
 * used. Rejects with UnsupportedError if it does not start.
 */
export function spawn(text: string, url: string | undefined, start: Start): Promise<Hand> {
  return new Promise((resolve, reject) => {
    let made: Made | undefined;
    let blob: string | undefined;
    const settle = (): void => {
      scope.clearTimeout(timer);
      if (blob !== undefined) scope.URL.revokeObjectURL(blob);
    };
    const fail = (got: string, cause?: unknown): void => {
      settle();
      made?.terminate();
      reject(refused(got, cause));
    };
    const timer = scope.setTimeout(
      () => fail(`one that was not ready after ${READY / 1000} s`),
      READY,
    );
    const answer = ({ error }: Started): void => {
      if (error !== null) {
        fail(error);
        return;
      }
      settle();
      resolve(handOf(made!));
    };
    try {
      const Node = nodeWorker();
      if (Node) made = makeNode(Node, text, url, answer, fail);
      else made = makeWeb(url ?? (blob = blobOf(text)), answer, fail);
      made.post(start);
    } catch (cause) {
      fail(String(cause), cause);
    }
  });
}

const handOf = (made: Made): Hand => ({
  end() {
    // By then it has ended by itself, unless something keeps it from looking at its stop flag.
    scope.setTimeout(made.terminate, END).unref?.();
  },
  terminate: made.terminate,
});

type Answer = (started: Started) => void;
type Fail = (got: string, cause?: unknown) => void;

function makeNode(
  Node: NodeWorkerClass,
  text: string,
  url: string | undefined,
  answer: Answer,
  fail: Fail,
): Made {
  const worker =
    url === undefined
      ? new Node(text, { eval: true, name: NAME })
      : new Node(/^[a-z]+:/.test(url) ? new scope.URL(url) : url, { name: NAME });
  worker.on("message", (started) => {
    // The process may end while the worker runs.
    worker.unref();
    answer(started as Started);
  });
  worker.on("error", (cause) => fail(String(cause), cause));
  worker.on("exit", () => fail("one that ended"));
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => void worker.terminate(),
  };
}

const blobOf = (text: string): string =>
  scope.URL.createObjectURL(new scope.Blob([text], { type: "text/javascript" }));

function makeWeb(url: string, answer: Answer, fail: Fail): Made {
  const worker = new scope.Worker!(url, { name: NAME });
  worker.onmessage = ({ data }) => answer(data);
  worker.onerror = (event) => {
    event.preventDefault?.();
    fail(event.message || "one that the page's policy refuses, or whose file is not there");
  };
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => worker.terminate(),
  };
}
