// Bundles the package: build/kernels.wasm -> src/wasm/kernels.ts -> dist/*.js.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const text = readFileSync("build/kernels.wasm").toString("hex");
writeFileSync(
  "src/wasm/kernels.ts",
  `// Made by scripts/bundle.mjs from assembly/: the binary in hexadecimal.\nexport const KERNELS =\n  "${text}";\n`,
);

rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ["src/index.ts", "src/tfjs.ts"],
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  platform: "neutral",
  external: ["@assemblyscript/loader", "@tensorflow/*"],
  sourcemap: true,
  chunkNames: "shared-[hash]",
});
copyFileSync("build/kernels.wasm", "dist/kernels.wasm");
