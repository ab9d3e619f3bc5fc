/** TensorFlow.js on its wasm backend, with the gradients that it lacks. */

import { createRequire } from "node:module";
import path from "node:path";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { registerGradients } from "./kernels.js";

export async function startBackend(): Promise<void> {
  tf.enableProdMode();
  const binary = "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm";
  const folder = path.dirname(createRequire(import.meta.url).resolve(binary));
  setWasmPaths(`${folder}${path.sep}`);
  if (!(await tf.setBackend("wasm"))) throw new Error("tfjs' wasm backend did not start.");
  registerGradients();
}
