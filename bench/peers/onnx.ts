// ONNX Runtime on one thread (in threads.ts the former on more), in WebAssembly (onnxruntime-web) and native (onnxruntime-node). It takes a
// Float32Array and returns one. The model is one BatchNormalization node of opset 15, which knows only layouts with
// the channels first and has no gradient, and the nodes of what follows it in a block.

import type { InferenceSession, Tensor } from "onnxruntime-common";
import type { Case, Data, PeerOp } from "../cases.js";
import { batchNormalizationModel } from "./onnx-model.js";
import { keep, type Peer, peerModule, type Session } from "./peer.js";
import { packageVersion } from "./version.js";

interface Runtime {
  InferenceSession: {
    create(model: Uint8Array, options: InferenceSession.SessionOptions): Promise<InferenceSession>;
  };
  Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => Tensor;
}

/** Threads are set once, for all sessions. In Node they are those of node:worker_threads. */
export async function onnxruntimeWeb(threads = 1): Promise<Peer> {
  const ort = await peerModule(() => import("onnxruntime-web"));
  ort.env.wasm.numThreads = threads;
  return peer("onnxruntime-web", ort as unknown as Runtime, "javascript", "wasm", threads);
}

export async function onnxruntimeNode(): Promise<Peer> {
  const ort = await peerModule(() => import("onnxruntime-node"));
  return peer("onnxruntime-node", ort as unknown as Runtime, "native", "cpu");
}

const peer = (
  name: "onnxruntime-web" | "onnxruntime-node",
  runtime: Runtime,
  kind: "javascript" | "native",
  provider: "wasm" | "cpu",
  threads = 1,
): Peer => ({
  name,
  version: packageVersion(name),
  kind,
  layouts: ["NC", "NCHW"],
  ops: ["infer", "train"],
  open: (c, op, data) => open(runtime, provider, threads, c, op, data),
});

async function open(
  runtime: Runtime,
  provider: string,
  threads: number,
  c: Case,
  op: PeerOp,
  data: Data,
): Promise<Session> {
  // In Node the wasm build defines a global Worker, by which jax-js believes that it is in a browser. Only several
  // threads need it.
  const hadWorker = "Worker" in globalThis;
  const session = await runtime.InferenceSession.create(
    batchNormalizationModel(c, data, op === "train"),
    {
      executionProviders: [provider],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionMode: "sequential",
      logSeverityLevel: 3,
    },
  );
  if (!hadWorker && threads === 1) Reflect.deleteProperty(globalThis, "Worker");
  const call = async () => {
    const tensor = (values: Float32Array) => new runtime.Tensor("float32", values, c.shape);
    const results = await session.run({
      X: tensor(data.x),
      ...(data.z && { Z: tensor(data.z) }),
    });
    return results.Y.data as Float32Array;
  };
  return {
    answer: async () => ({ y: await call() }),
    async sample(calls) {
      const start = performance.now();
      let last: Float32Array = data.x;
      for (let i = 0; i < calls; i++) last = await call();
      const spent = performance.now() - start;
      keep(last);
      return spent;
    },
    close() {
      void session.release();
    },
  };
}
