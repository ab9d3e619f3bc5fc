/** TensorFlow.js on its WebAssembly backend, the binary from its own package. Import it first. */

import { createRequire } from "node:module";
import path from "node:path";
import * as tf from "@tensorflow/tfjs";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";

// Here `batchnorm-wasm/tfjs` finds the repository's tfjs-core, and this folder has its own. The two
// share one engine, as tfjs intends; without this line the second warns that it is not the first.
tf.enableProdMode();

export async function startBackend(): Promise<void> {
  const binary = "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm";
  const folder = path.dirname(createRequire(import.meta.url).resolve(binary));
  setWasmPaths(`${folder}${path.sep}`);
  if (!(await tf.setBackend("wasm"))) throw new Error("tfjs' wasm backend did not start.");
  await tf.ready();
}
