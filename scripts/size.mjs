// Bytes of the binaries, of each entry, and of what pages take of one, minified and gzipped, against
// their budgets. An entry is measured as its file lies in dist/, whole, with its binary.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const KB = 1024;
const entry = (name, budget) => [`dist/${name}.js`, `export * from "./dist/${name}.js"`, budget];
const BUNDLES = [
  entry("index", 20.25 * KB),
  ['FrozenBatchNorm of "."', 'export { FrozenBatchNorm } from "./dist/index.js"', 11 * KB],
  entry("infer", 5 * KB),
  // These make layers themselves: the layer and the binary, which their users have but once.
  entry("state", 34 * KB),
  entry("tfjs", 22 * KB),
  entry("tfjs-layers", 22.5 * KB),
];
const BINARIES = [
  ["kernels", 4 * KB],
  ["infer", 0.75 * KB],
];

const gzipped = (bytes) => gzipSync(bytes, { level: 9 }).length;

async function bundled(contents) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: process.cwd() },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external: ["@tensorflow/*"],
    write: false,
    // "Ignoring this import": entries import what they share for nothing but its own imports.
    logLevel: "error",
  });
  return outputFiles[0].contents;
}

let exceeded = false;
function report(name, bytes, budget) {
  const size = gzipped(bytes);
  exceeded ||= size > budget;
  const kilobytes = (n) => `${(n / KB).toFixed(2).padStart(6)} KB`;
  console.log(
    `${name.padEnd(24)}${kilobytes(bytes.length)}  gzipped${kilobytes(size)} of ${kilobytes(budget)}` +
      `${size > budget ? "  EXCEEDED" : ""}`,
  );
}

for (const [name, budget] of BINARIES) {
  const file = `dist/${name}.wasm`;
  report(file, readFileSync(file), budget);
}
for (const [name, contents, budget] of BUNDLES) report(name, await bundled(contents), budget);
process.exitCode = exceeded ? 1 : 0;
