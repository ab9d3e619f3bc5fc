// The tfjs backends that the adapters run on here, started in Node.

import { createRequire } from "node:module";
import { dirname } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";

export const BACKENDS = ["cpu", "wasm"] as const;
export type Backend = (typeof BACKENDS)[number];

const installed = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
setWasmPaths(`${dirname(installed)}/`);

/** What a test file that is run on several backends runs on: see tfjs-wasm.test.ts. */
export const chosen: { backend: Backend } = { backend: "cpu" };

export async function useBackend(name: Backend = chosen.backend): Promise<void> {
  // Without its advice to install tfjs-node; and each operation is checked for leaks.
  tf.env().set("IS_TEST", true);
  if (!(await tf.setBackend(name))) throw new Error(`expected the backend ${name} to start`);
}
