#!/usr/bin/env node
// What `npx batchnorm-wasm` starts.

import { readFileSync } from "node:fs";
import { EXIT, sentenceOf } from "./failure.js";
import { run } from "./main.js";

const { stdout, stderr, env, argv } = process;
// Whoever reads the output may have seen enough: `batchnorm-wasm inspect model.onnx | head`.
stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(EXIT.done);
  throw error;
});
try {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  const { version } = JSON.parse(manifest) as { version: string };
  process.exitCode = run(argv.slice(2), { stdout, stderr, env, version });
} catch (error) {
  stderr.write(`batchnorm-wasm: ${sentenceOf(error)}\n`);
  process.exitCode = EXIT.failed;
}
