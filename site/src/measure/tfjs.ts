// TensorFlow.js on its wasm backend, on one thread, as a side of the benchmark.

import * as backend from "@tensorflow/tfjs-backend-wasm";
import simd from "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import type { Peer } from "../../../bench/peers/peer.js";
import { openTfjs } from "../../../bench/peers/tfjs-session.js";

export async function tfjsOnWasm(): Promise<Peer> {
  // Its binary for threads would start workers of its own.
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  // It wants an address for each of its binaries, and fetches the one with SIMD: this package needs SIMD anyway.
  const address = new URL(simd, location.href).href;
  backend.setWasmPaths({
    "tfjs-backend-wasm.wasm": address,
    "tfjs-backend-wasm-simd.wasm": address,
    "tfjs-backend-wasm-threaded-simd.wasm": address,
  });
  if (!(await tf.setBackend("wasm")))
    throw new Error("TensorFlow.js: its wasm backend does not start here.");
  return {
    name: "tfjs-wasm",
    version: tf.version_core,
    kind: "javascript",
    layouts: ["NC", "NHWC"],
    ops: ["infer", "train"],
    open: (c, op, data) => openTfjs(tf, "wasm", c, op, data),
  };
}
