import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { ENTRIES, specifierOf } from "./scripts/entries.mjs";

const { FC_RUNS, STRESS } = process.env;

export default defineConfig({
  resolve: {
    alias: ENTRIES.map((entry) => ({
      find: new RegExp(`^${specifierOf(entry)}$`),
      replacement: fileURLToPath(new URL(`./src/${entry}.ts`, import.meta.url)),
    })),
  },
  test: {
    include: [
      "tests/**/*.test.ts",
      "examples/mnist/**/*.test.ts",
      "examples/beam/*.test.ts",
      "examples/convnet/tests/*.test.ts",
      "examples/playground/tests/*.test.ts",
    ],
    // Most tests take milliseconds, some 20 seconds on two quiet cores; on a machine that has other work they only wait.
    // Those that FC_RUNS (tests/support/property.ts) or STRESS (tests/threads/stress.test.ts) make longer get as much more.
    testTimeout: 240_000 * Math.max(1, Number(FC_RUNS ?? 1), Number(STRESS ?? 0) / 150),
    maxWorkers: 2,
  },
});
