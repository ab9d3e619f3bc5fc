// Bundles the package: build/*.wasm and src/ -> dist/, with short names for what only the engine uses. For the
// tests, which run src/ and build/*.wasm, src/wasm/*-text.ts holds the binaries as they are.

import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import binaryen from "binaryen";
import { build } from "esbuild";
import { BINARIES, ENTRIES } from "./entries.mjs";
import { shortNames } from "./internal-names.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/** Entries whose frozen layers have the smallest binary, and which have no others. The rest share what they have in common. */
const SMALL = ["infer"];

/** The conditions of package.json that get a build of their own, and their src/wasm/ file. */
const CONDITIONS = ["embedded", "workerd", "edge-light"];

/** Bytes as text, for `decode` in src/wasm/compile.ts: see there. */
function encode(bytes) {
  const character = (code) => String.fromCharCode(35 + ((code + 64) % 92));
  const text = (code) =>
    code < 90
      ? character(code)
      : character(90 + Math.floor((code - 90) / 92)) + character((code - 90) % 92);
  return Array.from(bytes, (byte) => text((byte + 5) & 255)).join("");
}

/** The module that holds a binary as text. */
const textModule = (bytes) =>
  "// Made by scripts/bundle.mjs from assembly/: a binary as text.\n" +
  `export const TEXT = ${JSON.stringify(encode(bytes))};\n`;

// As asc does it (asconfig.json): for speed first.
binaryen.setOptimizeLevel(3);
binaryen.setShrinkLevel(0);

const built = (binary) => readFileSync(`build/${binary}.wasm`);
const kernels = ["frozen", "kernels"].flatMap((binary) =>
  WebAssembly.Module.exports(new WebAssembly.Module(built(binary))),
);
const SHORT = shortNames(kernels.map(({ name }) => name));

/** A binary whose exports, and whose imports of kernels, have their short names. */
function shortened(bytes) {
  const long = binaryen.readBinary(bytes);
  long.setFeatures(binaryen.Features.All);
  const text = long.emitText();
  const module = binaryen.parseText(
    text.replace(/(\(import "kernels" )"(\w+)"/g, (_, start, name) => `${start}"${SHORT[name]}"`),
  );
  module.setFeatures(binaryen.Features.All);
  const exports = Array.from({ length: module.getNumExports() }, (_, i) =>
    binaryen.getExportInfo(module.getExportByIndex(i)),
  );
  for (const { name, value, kind } of exports) {
    if (kind !== binaryen.ExternalFunction) throw new Error(`${name}: expected a kernel`);
    module.removeExport(name);
    module.addFunctionExport(value, SHORT[name] ?? name);
  }
  // Twice more than asc has: functions that are called in one place go there, which takes fewer bytes.
  module.optimize();
  module.optimize();
  return module.emitBinary();
}

const TARGET = ["chrome114", "firefox90", "safari16.4", "node20"];

rmSync("dist", { recursive: true, force: true });

/** Resolves src/wasm/ to a way to get modules, of this binary for frozen layers, and has all entries share the errors. */
const wasm = (condition, frozen) => ({
  name: "wasm",
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /\/wasm\/embedded\.js$/ }, () => ({
      path: fileURLToPath(new URL(`../src/wasm/${condition}.ts`, import.meta.url)),
    }));
    const named = (binary) => (binary === "frozen" ? frozen : binary);
    onLoad({ filter: /\/(frozen|kernels|threads)-text\.ts$/ }, ({ path }) => {
      const [, binary] = /(\w+)-text\.ts$/.exec(path);
      return { contents: textModule(readFileSync(`dist/${named(binary)}.wasm`)), loader: "ts" };
    });
    onResolve({ filter: /^\.\/\w+\.wasm/ }, ({ path }) => ({
      path: path.replace(/\w+/, named),
      external: true,
      sideEffects: false,
    }));
    // A user who has two entries catches the errors of both by one class.
    onResolve({ filter: /\/errors\.js$/ }, () => ({ path: "./errors.js", external: true }));
  },
});

const bundle = (entries, suffix, plugins) =>
  build({
    entryPoints: entries.map((entry) => ({ in: `src/${entry}.ts`, out: `${entry}${suffix}` })),
    outdir: "dist",
    bundle: true,
    splitting: true,
    format: "esm",
    target: TARGET,
    platform: "neutral",
    external: ["@tensorflow/*"],
    plugins,
    sourcemap: true,
    sourcesContent: false,
    mangleProps: new RegExp(`^(${Object.keys(SHORT).join("|")})$`),
    mangleCache: { ...SHORT },
    chunkNames: "shared-[hash]",
  });

mkdirSync("dist");
for (const binary of BINARIES) {
  const bytes = built(binary);
  writeFileSync(`src/wasm/${binary}-text.ts`, textModule(bytes));
  writeFileSync(`dist/${binary}.wasm`, shortened(bytes));
}

// A tool that does not read `exports` looks for batchnorm-wasm/infer in a folder of that name (package.json names
// these folders in `files`). The main entry has `main` and `types` for it.
for (const entry of ENTRIES) {
  if (entry === "index") continue;
  mkdirSync(entry, { recursive: true });
  const lead = { main: `../dist/${entry}.js`, types: `../dist/${entry}.d.ts` };
  writeFileSync(`${entry}/package.json`, `${JSON.stringify(lead, null, 2)}\n`);
}

// The worker of `batchnorm-wasm/threads`: a script without imports, as a file and as text.
await build({
  entryPoints: ["src/threads/worker.ts"],
  outfile: "dist/worker.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: TARGET,
  legalComments: "none",
});
writeFileSync(
  "src/wasm/worker-text.ts",
  "// Made by scripts/bundle.mjs from src/threads/worker.ts: the script of a worker as text.\n" +
    `export const TEXT = ${JSON.stringify(readFileSync("dist/worker.js", "utf8").trim())};\n`,
);

await bundle(["errors"], "", []);
for (const condition of CONDITIONS) {
  const suffix = condition === "embedded" ? "" : `.${condition}`;
  const large = ENTRIES.filter((entry) => !SMALL.includes(entry));
  await bundle(large, suffix, [wasm(condition, "frozen")]);
  await bundle(SMALL, suffix, [wasm(condition, "infer")]);
}

// The command imports the entries as they lie in dist/, as a user's program would. Of what is in them it carries nothing but
// the function that tells the formats of files apart (src/state/format.ts), which is no part of their surface.
await build({
  entryPoints: [{ in: "src/command/bin.ts", out: "command" }],
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "node20",
  platform: "node",
  plugins: [
    {
      name: "doors",
      setup({ onResolve }) {
        onResolve({ filter: /^\.\.\/\w+\.js$/ }, ({ path }) => ({
          path: path.slice(1),
          external: true,
        }));
      },
    },
  ],
  sourcemap: true,
  sourcesContent: false,
});
chmodSync("dist/command.js", 0o755);
