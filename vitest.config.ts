import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string) => fileURLToPath(new URL(`./src/${path}`, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^batchnorm-wasm$/, replacement: source("index.ts") },
      { find: /^batchnorm-wasm\/infer$/, replacement: source("infer.ts") },
      { find: /^batchnorm-wasm\/state$/, replacement: source("state.ts") },
      { find: /^batchnorm-wasm\/tfjs$/, replacement: source("tfjs.ts") },
      { find: /^batchnorm-wasm\/tfjs-layers$/, replacement: source("tfjs-layers.ts") },
    ],
  },
  test: {
    include: [
      "tests/**/*.test.ts",
      "examples/mnist/**/*.test.ts",
      "examples/beam/*.test.ts",
      "examples/playground/tests/*.test.ts",
    ],
    testTimeout: 60_000,
    maxWorkers: 2,
  },
});
