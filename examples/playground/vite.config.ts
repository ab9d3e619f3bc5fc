import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  // Static files for any folder of any host.
  base: "./",
  build: { outDir: "out", target: ["chrome114", "firefox114", "safari16.4"], modulePreload: false },
  worker: { format: "es" },
  resolve: { alias: { "batchnorm-wasm": here("../../dist/index.js") } },
  // What is shared with the demo, and the package, lie outside of this folder.
  server: { fs: { allow: ["../.."] } },
});
