// TensorFlow.js on its cpu and wasm backends, on one thread.

import { createRequire } from "node:module";
import { dirname } from "node:path";
import type * as Tf from "@tensorflow/tfjs-core";
import { type Peer, peerModule } from "./peer.js";
import { type Backend, openTfjs } from "./tfjs-session.js";

export async function tfjs(backend: Backend): Promise<Peer> {
  // The package that holds all of tfjs, because only it registers the gradients of the operations.
  const union = await peerModule(() => import("@tensorflow/tfjs"));
  const tf = ((union as { default?: unknown }).default ?? union) as typeof Tf;
  if (backend === "wasm") {
    const wasm = await peerModule(() => import("@tensorflow/tfjs-backend-wasm"));
    const resolved = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
    wasm.setThreadsCount(1);
    wasm.setWasmPaths(`${dirname(resolved)}/`);
  }
  tf.env().set("IS_TEST", true); // no advertisement on standard output
  await tf.setBackend(backend);
  return {
    name: `tfjs-${backend}`,
    version: tf.version_core,
    kind: "javascript",
    layouts: ["NC", "NHWC"],
    ops: ["infer", "train", "step"],
    // A step of the cpu backend takes a microsecond per value: ten seconds for [32,64,56,56].
    ...(backend === "cpu" && { most: { step: 2 ** 20 } }),
    open: (c, op, data) => openTfjs(tf, backend, c, op, data),
  };
}
