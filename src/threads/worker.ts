// What a worker runs: it is told of the kernels and their memory, makes an instance on it, says that it is ready, and
// then takes pieces until it is stopped. This file becomes a script without imports, which scripts/bundle.mjs embeds in
// `batchnorm-wasm/threads` as text, and which lies in dist/ for pages that may not start such a text.

import type { ThreadExports } from "../engine/machine.js";
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

const scope = globalThis as unknown as Scope;
const port = scope.process?.getBuiltinModule?.("node:worker_threads")?.parentPort ?? scope;

port.onmessage = ({ data: { frozen, kernels, pieces, memory, told } }) => {
  port.onmessage = null;
  try {
    const instance = (bytes: Uint8Array<ArrayBuffer>, imports: WebAssembly.Imports) =>
      new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports;
    const now = () => performance.now();
    // Only a caller gives workers up.
    const env = { memory, now, over: now };
    const own = { ...instance(frozen, { env }), ...instance(kernels, { env }) };
    const exports = instance(pieces, { env, kernels: own });
    const shared = exports as unknown as ThreadExports;
    shared.tell(...told);
    port.postMessage(null);
    shared.work();
  } catch (error) {
    port.postMessage(String(error));
  }
  // A worker of Node ends when nothing listens, one of a browser when it is closed.
  port.close?.();
};
