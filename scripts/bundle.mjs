// Bundles the package: build/*.wasm -> src/wasm/*.ts -> dist/.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/** The entries of package.json: src/{entry}.ts. */
const ENTRIES = Object.values(JSON.parse(readFileSync("package.json", "utf8")).exports).flatMap(
  ({ types }) => (types ? [types.replace(/^\.\/dist\/|\.d\.ts$/g, "")] : []),
);
/** Those with the small binary. The others have all kernels, and share what they have in common. */
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

rmSync("dist", { recursive: true, force: true });

/** Resolves src/wasm/ to a way to get a module and a binary, and has all entries share the errors. */
const wasm = (condition, binary) => ({
  name: "wasm",
  setup({ onResolve }) {
    onResolve({ filter: /\/wasm\/embedded\.js$/ }, () => ({
      path: fileURLToPath(new URL(`../src/wasm/${condition}.ts`, import.meta.url)),
    }));
    onResolve({ filter: /^\.\/kernels-text\.js$/ }, () => ({
      path: fileURLToPath(new URL(`../src/wasm/${binary}-text.ts`, import.meta.url)),
    }));
    onResolve({ filter: /^\.\/kernels\.wasm/ }, ({ path }) => ({
      path: path.replace("kernels", binary),
      external: true,
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
    target: ["chrome114", "firefox90", "safari16.4", "node20"],
    platform: "neutral",
    external: ["@tensorflow/*"],
    plugins,
    sourcemap: true,
    sourcesContent: false,
    chunkNames: "shared-[hash]",
  });

for (const binary of ["kernels", "infer"]) {
  const file = `build/${binary}.wasm`;
  writeFileSync(
    `src/wasm/${binary}-text.ts`,
    "// Made by scripts/bundle.mjs from assembly/: the binary as text.\n" +
      `export const TEXT = ${JSON.stringify(encode(readFileSync(file)))};\n`,
  );
}

await bundle(["errors"], "", []);
for (const condition of CONDITIONS) {
  const suffix = condition === "embedded" ? "" : `.${condition}`;
  const large = ENTRIES.filter((entry) => !SMALL.includes(entry));
  await bundle(large, suffix, [wasm(condition, "kernels")]);
  await bundle(SMALL, suffix, [wasm(condition, "infer")]);
}
for (const binary of ["kernels", "infer"])
  copyFileSync(`build/${binary}.wasm`, `dist/${binary}.wasm`);
