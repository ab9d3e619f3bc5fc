// The programs of examples/, bench/ and tests/runtimes that no other test starts: each name
// that a file of theirs imports from another is there. (Their own packages need not be installed.)

import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

const PROGRAMS = [
  "bench/main.ts",
  "bench/page.ts",
  "bench/tfjs-layers.ts",
  "bench/growth-child.ts",
  "bench/against-child.ts",
  "examples/beam/pipeline.ts",
  "examples/convnet/main.ts",
  "examples/convnet/page/main.ts",
  "examples/convnet/page/test.ts",
  "examples/deno/main.ts",
  "examples/mnist/demo.ts",
  "examples/mnist/main.ts",
  "examples/mnist/picture.ts",
  "examples/mnist/workers/main.ts",
  "examples/mnist/workers/thread.ts",
  "examples/playground/src/main.tsx",
  "examples/playground/src/worker.ts",
  "examples/playground/tests/browsers.ts",
  ...readdirSync(`${root}examples/playground/tools`).map(
    (file) => `examples/playground/tools/${file}`,
  ),
  "examples/vite/main.ts",
  "site/tests/site.ts",
  "site/tools/build.ts",
  "tests/runtimes/main.ts",
];

test.each(PROGRAMS)("%s", async (program) => {
  const { errors, warnings } = await build({
    entryPoints: [program],
    absWorkingDir: root,
    bundle: true,
    packages: "external",
    write: false,
    outdir: "build",
    format: "esm",
    platform: "node",
    loader: { ".bin": "empty", ".woff2": "empty" },
    tsconfigRaw: { compilerOptions: { jsx: "react-jsx", jsxImportSource: "preact" } },
    logLevel: "silent",
  });
  expect([...errors, ...warnings]).toEqual([]);
});
