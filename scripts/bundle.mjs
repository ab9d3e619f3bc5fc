// Bundles the package: build/kernels.wasm -> src/wasm/kernels.ts -> dist/*.js.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/** Bytes as text, for `decode` in src/wasm/compile.ts: see there. */
function encode(bytes) {
  const character = (code) => String.fromCharCode(35 + code);
  const text = (rank) =>
    rank < 90
      ? character(rank)
      : character(90 + Math.floor((rank - 90) / 92)) + character((rank - 90) % 92);
  return Array.from(bytes, (byte) => text((byte + 16) & 255)).join("");
}

writeFileSync(
  "src/wasm/kernels.ts",
  `// Made by scripts/bundle.mjs from assembly/: the binary as text.\n` +
    `export const TEXT = ${JSON.stringify(encode(readFileSync("build/kernels.wasm")))};\n`,
);

rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ["src/index.ts", "src/state.ts", "src/tfjs.ts"],
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["chrome114", "firefox90", "safari16.4", "node20"],
  platform: "neutral",
  external: ["@assemblyscript/loader", "@tensorflow/*"],
  sourcemap: true,
  sourcesContent: false,
  chunkNames: "shared-[hash]",
});
copyFileSync("build/kernels.wasm", "dist/kernels.wasm");
