import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  // Static files for any folder of any host.
  base: "./",
  build: {
    outDir: "../out/page",
    emptyOutDir: true,
    target: ["chrome114", "firefox114", "safari16.4"],
    modulePreload: false,
    chunkSizeWarningLimit: 2000, // TensorFlow.js
  },
  worker: { format: "es" },
  resolve: {
    alias: [
      { find: /^batchnorm-wasm$/, replacement: here("../../../dist/index.js") },
      { find: /^batchnorm-wasm\/tfjs$/, replacement: here("../../../dist/tfjs.js") },
    ],
  },
  // What is shared with the other examples, and the package, lie outside of this folder.
  server: { fs: { allow: ["../../.."] } },
});
