// What @assemblyscript/loader would cost the package, which instantiates its binaries by itself: the bytes
// that it adds to the main entry, and the time that its wrapped exports take for a call. The kernel tests
// use it (tests/support/binary.ts), where neither matters.
//
//   npm run build && node scripts/loader-cost.mjs

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { instantiateSync } from "@assemblyscript/loader";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const OWN = "new WebAssembly.Instance(module, imports).exports";

/** Has src/wasm/compile.ts instantiate by the loader. */
const byLoader = {
  name: "loader",
  setup({ onLoad }) {
    onLoad({ filter: /\/wasm\/compile\.ts$/ }, ({ path }) => {
      const source = readFileSync(path, "utf8");
      if (!source.includes(OWN)) throw new Error(`${path}: expected ${OWN}, found none`);
      const contents =
        'import { instantiateSync } from "@assemblyscript/loader";\n' +
        source.replace(OWN, "instantiateSync(module, imports).exports");
      return { contents, loader: "ts" };
    });
  },
};

/** The main entry in one file, minified and gzipped, in bytes. */
async function bytesOf(plugins) {
  const { outputFiles } = await build({
    entryPoints: ["src/index.ts"],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    platform: "neutral",
    mainFields: ["module", "main"],
    write: false,
    plugins,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const bare = await bytesOf([]);
const wrapped = await bytesOf([byLoader]);
console.log(
  `bytes of the main entry, minified and gzipped: ${bare} without the loader, ${wrapped} with it ` +
    `(+${wrapped - bare})`,
);

const CALLS = 200_000;
const ROUNDS = 40;
const module = new WebAssembly.Module(readFileSync("build/kernels.wasm"));
const imports = () => ({ env: { memory: new WebAssembly.Memory({ initial: 16, maximum: 16 }) } });
const ways = {
  raw: new WebAssembly.Instance(module, imports()).exports,
  "through the loader": instantiateSync(module, imports()).exports,
};

/** Nanoseconds of a call of the smallest kernel, `roundMeans` of two channels. */
const timerOf = (exports) =>
  // A function of its own for each way, so that neither learns from the other's calls.
  new Function(
    "exports",
    "calls",
    `const start = performance.now();
     for (let i = 0; i < calls; i++) exports.roundMeans(4096, 8192, 2);
     return ((performance.now() - start) * 1e6) / calls;`,
  ).bind(null, exports, CALLS);

const timers = Object.entries(ways).map(([way, exports]) => [way, timerOf(exports), []]);
for (let round = 0; round < ROUNDS; round++) {
  for (const [, timer, times] of timers) times.push(timer());
}
console.log("nanoseconds for a call of roundMeans, two channels, least and median:");
for (const [way, , times] of timers) {
  times.sort((a, b) => a - b);
  const median = times[times.length >> 1];
  console.log(
    `  ${way.padEnd(20)}${times[0].toFixed(1).padStart(6)}${median.toFixed(1).padStart(6)}`,
  );
}
