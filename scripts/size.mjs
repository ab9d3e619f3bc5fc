// Bytes of the binaries, of each entry, and of what pages take of one, minified and gzipped, against
// their budgets. An entry is measured as its file lies in dist/, whole, with its binary. With `--parts`, the files of src/ that
// `BatchNorm` alone is made of instead, and what would be left without any messages and without any checks; with
// `--parts NAME`, those of another entry or of another export of the main one. With `--beyond`, the files that `threads`
// adds to the main entry.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { withoutChecks, withShortNames } from "./ablation.mjs";
import { BINARIES, ENTRIES } from "./entries.mjs";
import { partsOf, withoutMessages } from "./parts.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const KB = 1024;
/** Budgets in KB, as the README has them. Every file of the package is to have one: without it nothing fits. */
const BUDGETS = {
  "frozen.wasm": 1.2,
  "kernels.wasm": 5,
  "infer.wasm": 1,
  "threads.wasm": 3,
  "index.js": 30.25,
  "infer.js": 6.35,
  // These make layers themselves: the layer and the binary, which their users have but once.
  "state.js": 57.25,
  "hdf5.js": 35.9,
  "tfjs.js": 28.75,
  "tfjs-layers.js": 32.3,
  // Kernels and their memory, which users have but once; the row below is what it adds to the main entry.
  "threads.js": 15.4,
  'threads beyond "."': 6,
  'BatchNorm of "."': 25.3,
  'FrozenBatchNorm of "."': 8.9,
};

const gzipped = (bytes) => gzipSync(bytes, { level: 9 }).length;

async function bundled(contents, minify = true) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: process.cwd() },
    bundle: true,
    minify,
    format: "esm",
    target: "es2022",
    external: ["@tensorflow/*"],
    write: false,
    outfile: "bundle.js",
    sourcemap: "external",
    // "Ignoring this import": entries import what they share for nothing but its own imports.
    logLevel: "error",
  });
  const [map, code] = outputFiles;
  return { bytes: code.contents, text: code.text, map: map.text };
}

const MAIN = 'export * from "./dist/index.js"';
const WITH_THREADS = `${MAIN}; export { startKernels } from "./dist/threads.js"`;

const [option, name = "BatchNorm"] = process.argv.slice(2);
if (option === "--parts") {
  const [names, entry] = ENTRIES.includes(name) ? ["*", name] : [`{ ${name} }`, "index"];
  const contents = `export ${names} from "./dist/${entry}.js"`;
  const { text, map } = await bundled(contents);
  for (const { name: file, bytes, share } of partsOf(text, map, gzipped)) {
    console.log(
      `${file.padEnd(32)}${String(bytes).padStart(7)} bytes  gzipped${String(share).padStart(6)}`,
    );
  }
  const unchecked = (await bundled(withoutChecks((await bundled(contents, false)).text))).text;
  const short = await withShortNames(unchecked);
  console.log(
    `all: ${gzipped(text)}; without a word of any message: ${gzipped(withoutMessages(text))}; ` +
      `without any check: ${gzipped(unchecked)}, and with short names for all properties: ${gzipped(short)}`,
  );
  process.exit();
}

if (option === "--beyond") {
  const [alone, together] = await Promise.all([bundled(MAIN), bundled(WITH_THREADS)]);
  const before = new Map(partsOf(alone.text, alone.map, gzipped).map((part) => [part.name, part]));
  for (const { name, bytes, share } of partsOf(together.text, together.map, gzipped)) {
    // What is in both differs a little by its place and by the letters that variables have.
    if (before.has(name)) continue;
    console.log(
      `${name.padEnd(32)}${String(bytes).padStart(7)} bytes  gzipped${String(share).padStart(6)}`,
    );
  }
  const beyond = (of) => gzipped(of(together.text)) - gzipped(of(alone.text));
  console.log(
    `all: ${beyond((text) => text)}; without a word of any message: ${beyond(withoutMessages)}`,
  );
  process.exit();
}

let exceeded = false;
const report = (name, bytes) => reportSize(name, bytes.length, gzipped(bytes));

function reportSize(name, whole, size) {
  const budget = (BUDGETS[name] ?? 0) * KB;
  exceeded ||= size > budget;
  const kilobytes = (n) => `${(n / KB).toFixed(2).padStart(6)} KB`;
  console.log(
    `${name.padEnd(24)}${kilobytes(whole)}  gzipped${kilobytes(size)} of ${kilobytes(budget)}` +
      `${size > budget ? "  EXCEEDED" : ""}`,
  );
}

for (const binary of BINARIES) report(`${binary}.wasm`, readFileSync(`dist/${binary}.wasm`));
for (const entry of ENTRIES) {
  report(`${entry}.js`, (await bundled(`export * from "./dist/${entry}.js"`)).bytes);
}
for (const name of ["BatchNorm", "FrozenBatchNorm"]) {
  report(`${name} of "."`, (await bundled(`export { ${name} } from "./dist/index.js"`)).bytes);
}
const [alone, together] = await Promise.all([bundled(MAIN), bundled(WITH_THREADS)]);
reportSize(
  'threads beyond "."',
  together.bytes.length - alone.bytes.length,
  gzipped(together.bytes) - gzipped(alone.bytes),
);
process.exitCode = exceeded ? 1 : 0;
