// What bundle.mjs builds and size.mjs weighs.

import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));

/** The entries of package.json: src/{entry}.ts, dist/{entry}.js. */
export const ENTRIES = Object.values(manifest.exports).flatMap(({ types }) =>
  types ? [types.replace(/^\.\/dist\/|\.d\.ts$/g, "")] : [],
);

/** The binaries: build/{binary}.wasm, dist/{binary}.wasm. */
export const BINARIES = ["kernels", "infer"];
