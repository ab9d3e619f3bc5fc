// The package's entries and binaries, for all that build, weigh, document and test each of them.

import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));

/** The entries of package.json, those of its exports that have types: src/{entry}.ts, dist/{entry}.js. */
export const ENTRIES = Object.values(manifest.exports).flatMap(({ types }) =>
  types ? [types.replace(/^\.\/dist\/|\.d\.ts$/g, "")] : [],
);

/** What users import an entry by. */
export const specifierOf = (entry) =>
  entry === "index" ? manifest.name : `${manifest.name}/${entry}`;

/** What typedoc shows of the entries: `npm run docs` and the site call it, which has a copy of its own. */
export const SHOWN = {
  excludeInternal: true,
  excludePrivate: true,
  excludeExternals: true, // Else the classes for tfjs would show all of its Layer.
  // Addresses of source files depend on where a clone came from; the reference should not.
  disableSources: true,
};

/** Has typedoc's modules, which have the names of entries, go by what users import. */
export function nameModules(modules) {
  for (const module of modules) module.name = specifierOf(module.name);
}

/** The binaries: build/{binary}.wasm, dist/{binary}.wasm. */
export const BINARIES = ["frozen", "kernels", "infer", "threads"];
