// Bundles the package: build/kernels.wasm -> src/wasm/kernels.ts -> dist/*.js.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/** Bytes as text, and what `decode` in src/wasm/compile.ts needs to read it: see there. */
function encode(bytes) {
  const counts = new Map();
  for (const byte of bytes) counts.set(byte, (counts.get(byte) ?? 0) + 1);
  const ranked = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([byte]) => byte);
  const character = (code) => String.fromCharCode(35 + code);
  const code = (rank) =>
    rank < 90
      ? character(rank)
      : character(90 + Math.floor((rank - 90) / 92)) + character((rank - 90) % 92);
  const ranks = new Map(ranked.map((byte, rank) => [byte, code(rank)]));
  return {
    text: Array.from(bytes, (byte) => ranks.get(byte)).join(""),
    ranks: Buffer.from(ranked).toString("hex"),
  };
}

const { text, ranks } = encode(readFileSync("build/kernels.wasm"));
writeFileSync(
  "src/wasm/kernels.ts",
  `// Made by scripts/bundle.mjs from assembly/: the binary as text.\n` +
    `export const RANKS = ${JSON.stringify(ranks)};\nexport const TEXT = ${JSON.stringify(text)};\n`,
);

rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ["src/index.ts", "src/tfjs.ts"],
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
