// Bytes of the binary and of each entry, minified and gzipped, against their budgets.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/**
 * Budgets in bytes, minified and gzipped, the binary included; the loader is a dependency. All of an
 * entry: what a page takes of it is less.
 */
const BUDGETS = {
  "dist/index.js": 20.5 * 1024,
  // Both make layers themselves: the layer and the binary, which their users have but once.
  "dist/tfjs.js": 22 * 1024,
  "dist/tfjs-layers.js": 22.5 * 1024,
};
const PEERS = ["@tensorflow/*"];

const kilobytes = (bytes) => `${(bytes / 1024).toFixed(2)} KB`;
const gzipped = (bytes) => gzipSync(bytes, { level: 9 }).length;

async function size(entry, external) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external,
    write: false,
  });
  return gzipped(outputFiles[0].contents);
}

const binary = readFileSync("dist/kernels.wasm");
console.log(
  `dist/kernels.wasm  ${kilobytes(binary.length)}, gzipped ${kilobytes(gzipped(binary))}`,
);

let exceeded = false;
for (const [entry, budget] of Object.entries(BUDGETS)) {
  const own = await size(entry, ["@assemblyscript/loader", ...PEERS]);
  const whole = await size(entry, PEERS);
  exceeded ||= own > budget;
  console.log(
    `${entry}  min+gzip ${kilobytes(own)} of ${kilobytes(budget)}` +
      `${own > budget ? " EXCEEDED" : ""}, with the loader ${kilobytes(whole)}`,
  );
}
process.exitCode = exceeded ? 1 : 0;
