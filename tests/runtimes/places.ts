// The suite in what people build with, beside the bundlers of bundlers.ts: Parcel, TypeScript for CommonJS, bundles
// for Workers by tools that do not import .wasm files, an extension's page, Vue.

import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { defaultClientConditions, type SSROptions, build as vite } from "vite";
import type { Outcome } from "../conformance/suite.js";
import { chromium, launchExtension } from "./browsers.js";
import { startBundled, VITE } from "./bundlers.js";
import { blockWith } from "./guide.js";
import { NODE10, SUITE_TYPES } from "./jest.js";
import {
  run as execute,
  MODULES,
  project,
  suite as suiteFor,
  versionOf,
  write,
} from "./project.js";
import { DENO_ARGS, denoBinary } from "./runtimes.js";
import { ask, expect, outcomeOf, suiteFiles, type Trial } from "./trial.js";

/** Links a package that is installed here into a project, which is outside of this folder. */
const link = (folder: string, name: string): Promise<void> =>
  symlink(join(MODULES, name), join(folder, "node_modules", name));

/** Parcel reads `main`, and the folders of the entries: `exports` only where a project asks for that. */
const parcel: Trial = {
  name: "Parcel bundle, Chromium",
  tags: ["places", "parcel", "chromium"],
  missing: chromium.missing,
  async run(run) {
    const folder = await project("places-parcel", suiteFiles(run));
    const args = ["build", "index.html", "--dist-dir", "out", "--public-url", "./", "--no-cache"];
    await execute(process.execPath, [join(MODULES, "parcel/lib/bin.js"), ...args], { cwd: folder });
    const address = run.site.serve(join(folder, "out"));
    const outcome = outcomeOf(await ask(run, await run.browser(chromium), address));
    return { version: await versionOf("parcel"), outcome };
  },
};

/**
 * A program in TypeScript, compiled to CommonJS; Node then requires the package's modules. `compiler` is the name under
 * which the version of TypeScript is installed here.
 */
const commonJs = (name: string, compiler: string, compilerOptions: object): Trial => ({
  name,
  tags: ["places", "typescript"],
  async run() {
    const suite = await suiteFor("cjs");
    const folder = await project(`places-${compiler}`, {
      "package.json": JSON.stringify({ name: "app", private: true }),
      "tsconfig.json": JSON.stringify({
        compilerOptions: { ...compilerOptions, outDir: "out" },
        files: ["main.ts"],
      }),
      "suite.d.ts": SUITE_TYPES,
      "out/suite.js": suite,
      "main.ts": `import * as library from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import * as testTime from "batchnorm-wasm/infer";
import { type OnWarning, readTorch } from "batchnorm-wasm/state";
import { conformance } from "./suite";

export const warn: OnWarning = console.warn;
export const readers = [readTorch, readKerasFile];
export const y: Float32Array = new library.BatchNorm(2).train(Float32Array.of(1, 2, 3, 5));
conformance(library, testTime).then((outcome) => console.log(JSON.stringify(outcome)));
`,
    });
    await execute(process.execPath, [join(MODULES, compiler, "bin/tsc")], { cwd: folder });
    const output = await execute(process.execPath, ["out/main.js"], { cwd: folder });
    return { version: await versionOf(compiler), outcome: outcomeOf(JSON.parse(output)) };
  },
});

/** The same without a `moduleResolution`: TypeScript 6 calls `node10` an error unless it is told not to, 7 has none. */
const { moduleResolution: _, ...COMMONJS } = NODE10;

/** A server by Nitro, whose only route, loaded at the first request, is the suite: where its output is. */
async function nitro(name: string, files: Record<string, string>, preset: string, config: string) {
  const folder = await project(name, {
    ...files,
    "routes/index.js": `import { run } from "../run.js";

export default defineEventHandler(() => run());
`,
    "guide.js": config,
    "nitro.config.js": `import config from "./guide.js";

export default { ...config, preset: "${preset}", compatibilityDate: "2026-01-01" };
`,
  });
  await link(folder, "nitropack");
  await execute(process.execPath, [join(MODULES, "nitropack/dist/cli/index.mjs"), "build"], {
    cwd: folder,
    env: { CI: "1" },
  });
  return folder;
}

const CONFIG = blockWith("experimental: { wasm: true } }");

const nitroCloudflare: Trial = {
  name: "Nitro 2, Cloudflare",
  tags: ["places", "nitro", "workerd"],
  async run(run) {
    const folder = await nitro("places-nitro", suiteFiles(run), "cloudflare-module", CONFIG);
    return {
      version: await versionOf("nitropack"),
      outcome: await served(join(folder, ".output/server"), "index.mjs"),
    };
  },
};

/** The same without support for .wasm files, for a runtime that compiles bytes: Netlify's edge functions are Deno. */
const nitroNetlify: Trial = {
  name: "Nitro 2, Netlify, Deno",
  tags: ["places", "nitro", "deno"],
  missing: () => (denoBinary() ? undefined : "npm ci --prefix tests/runtimes --ignore-scripts"),
  async run(run) {
    const folder = await nitro(
      "places-netlify",
      suiteFiles(run),
      "netlify-edge",
      "export default {};",
    );
    await write(folder, {
      "ask.mjs": `import serve from "./.netlify/edge-functions/server/server.js";

console.log(await (await serve(new Request("http://localhost/"), {})).text());
`,
    });
    const output = await execute(denoBinary()!, [...DENO_ARGS, "--allow-env", "ask.mjs"], {
      cwd: folder,
    });
    return { version: await versionOf("nitropack"), outcome: outcomeOf(JSON.parse(output)) };
  },
};

/** What a Worker answers that is all modules of a folder. */
async function served(folder: string, main: string): Promise<Outcome> {
  const worker = await startBundled(folder, main);
  try {
    return outcomeOf(await worker.json("/"));
  } finally {
    worker.close();
  }
}

/** A Worker by plain Vite, which takes no import of a .wasm file. */
const viteWorker = (name: string, ssr: SSROptions, config?: string): Trial => ({
  name,
  tags: ["places", "vite", "workerd"],
  async run(run) {
    const folder = await project(`places-${name.replace(/\W+/g, "-").toLowerCase()}`, {
      ...suiteFiles(run),
      ...(config === undefined ? {} : { "vite.config.js": config }),
    });
    await vite({
      ...VITE,
      configFile: config === undefined ? false : join(folder, "vite.config.js"),
      root: folder,
      build: { ssr: "worker.js", outDir: "out" },
      ssr: { target: "webworker", noExternal: true, ...ssr },
    });
    const outcome = await served(join(folder, "out"), "worker.js");
    return { version: await versionOf("vite"), outcome };
  },
});

/** The conditions that Shopify's mini-oxygen sets, of which `workerd` needs what docs/guides/places.md says. */
const HYDROGEN = { resolve: { conditions: ["worker", "workerd", ...defaultClientConditions] } };

/** A page of an extension, whose policy has to allow WebAssembly. */
const extension: Trial = {
  name: "Extension page (MV3), Chromium",
  tags: ["places", "chromium", "extension"],
  missing: chromium.missing,
  async run(run) {
    const dist = "./node_modules/batchnorm-wasm/dist";
    const folder = await project("places-extension", {
      ...suiteFiles(run, `${dist}/index.js`, `${dist}/infer.js`),
      "manifest.json": JSON.stringify({
        manifest_version: 3,
        name: "batchnorm-wasm",
        version: "1",
        ...JSON.parse(blockWith("extension_pages")),
      }),
    });
    const { browser, address } = await launchExtension(folder);
    try {
      const outcome = outcomeOf(await ask(run, browser, `${address}index.html`));
      return { version: browser.version, outcome };
    } finally {
      await browser.close();
    }
  },
};

/** Layers that Vue's `ref` and `reactive` hold train as they do without them. */
const vue: Trial = {
  name: "Vue, layers in ref and reactive",
  tags: ["places", "vue"],
  async run() {
    const folder = await project("places-vue", {
      "main.js": `import { BatchNorm } from "batchnorm-wasm";
import { reactive, ref } from "vue";

const x = Float32Array.of(1, 2, 3, 5);
const steps = (bn) => {
  const y = bn.train(x);
  return [...y, ...bn.backward(y).dx, ...bn.infer(x), ...bn.freeze().infer(x), ...bn.runningMean];
};
const found = [
  steps(new BatchNorm(2)),
  steps(ref(new BatchNorm(2)).value),
  steps(reactive({ bn: new BatchNorm(2) }).bn),
];
console.log(JSON.stringify(found));
`,
    });
    await link(folder, "vue");
    const output = await execute(process.execPath, ["main.js"], { cwd: folder });
    const [plain, ...held] = (JSON.parse(output) as number[][]).map((values) => values.join());
    for (const values of held) expect(values === plain, plain, values);
    return { version: await versionOf("vue"), found: "the results of a layer by itself" };
  },
};

export const PLACES: readonly Trial[] = [
  parcel,
  commonJs("TypeScript, node10, CommonJS", "typescript", NODE10),
  commonJs("TypeScript 6, CommonJS", "typescript6", COMMONJS),
  commonJs("TypeScript 7, CommonJS", "typescript7", COMMONJS),
  nitroCloudflare,
  nitroNetlify,
  viteWorker("Vite SSR bundle, workerd", {}),
  viteWorker("Vite, Hydrogen's conditions", HYDROGEN, blockWith("resolve: {\n    alias")),
  extension,
  vue,
];
