// The suite in each runtime, on the package as npm lays it out: no bundler but where the runtime
// itself takes no modules.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { EdgeRuntime } from "edge-runtime";
import { build } from "esbuild";
import { BROWSERS } from "./browsers.js";
import {
  binaryOf,
  run as execute,
  filesIn,
  MODULES,
  project,
  suite as suiteFor,
  versionOf,
  write,
} from "./project.js";
import { ask, outcomeOf, type Run, suiteFiles, type Trial } from "./trial.js";
import { startWorker } from "./workerd.js";

const INSTALL = "npm ci --prefix tests/runtimes --ignore-scripts";

/** A runtime that is a program: its binary, and how it runs a module. */
function program(
  name: string,
  tag: string,
  binary: () => string | undefined,
  args: readonly string[] = [],
): Trial {
  return {
    name,
    tags: ["runtimes", tag],
    missing: () => (binary() ? undefined : INSTALL),
    async run(run) {
      const path = binary()!;
      const folder = await project(
        `run-${name.replace(/\W+/g, "-").toLowerCase()}`,
        suiteFiles(run),
      );
      const output = await execute(path, [...args, "main.js"], { cwd: folder });
      const version = /\d+\.\d+\.\d+/.exec(await execute(path, ["--version"]))![0];
      return { version, outcome: outcomeOf(JSON.parse(output)) };
    },
  };
}

/** The binary of a Node version, from npm's node-linux-*. */
export function nodeBinary(major: number): string | undefined {
  return ["x64", "arm64"]
    .map((machine) => join(MODULES, `node${major}-linux-${machine}/bin/node`))
    .find(existsSync);
}

/** The package required, as a CommonJS program does; from Node 20.19 and 22.12 on that takes ES modules. */
const required = (major: number): Trial => ({
  name: `Node ${major}, require`,
  tags: ["runtimes", "node", "require"],
  missing: () => (nodeBinary(major) ? undefined : INSTALL),
  async run() {
    const path = nodeBinary(major)!;
    const folder = await project(`run-node-${major}-require`, {
      "package.json": JSON.stringify({ name: "app", private: true }),
      "suite.js": await suiteFor("cjs"),
      "main.js": `const library = require("batchnorm-wasm");
const testTime = require("batchnorm-wasm/infer");
const { conformance } = require("./suite.js");

for (const entry of ["state", "hdf5", "threads"]) require("batchnorm-wasm/" + entry);
conformance(library, testTime).then((outcome) => console.log(JSON.stringify(outcome)));
`,
    });
    const output = await execute(path, ["main.js"], { cwd: folder });
    const version = (await execute(path, ["--version"])).trim().slice(1);
    return { version, outcome: outcomeOf(JSON.parse(output)) };
  },
});

export const denoBinary = (): string | undefined => binaryOf("@deno", "deno");
export const bunBinary = (): string | undefined => binaryOf("@oven", "bin/bun");
/** Deno takes node_modules as npm left it, and asks the network for nothing. */
export const DENO_ARGS = ["run", "--node-modules-dir=manual", "--cached-only"];

const workerd: Trial = {
  name: "Cloudflare workerd",
  tags: ["runtimes", "workerd"],
  async run(run) {
    const folder = await project("run-workerd", suiteFiles(run));
    // No bundler: modules under the names that they import each other by.
    const dist = (await filesIn(join(folder, "node_modules/batchnorm-wasm/dist"))).filter((file) =>
      /\.(js|wasm)$/.test(file),
    );
    const files = await workerdEntries(folder);
    const modules = Object.fromEntries([
      ["worker.js", "worker.js"],
      ["run.js", "run.js"],
      ["suite.js", "suite.js"],
      ...Object.entries(files),
      ...dist.map((file) => [
        `batchnorm-wasm/dist/${file}`,
        `node_modules/batchnorm-wasm/dist/${file}`,
      ]),
    ]);
    const worker = await startWorker(folder, modules);
    try {
      const outcome = outcomeOf(await worker.json("/"));
      return { version: await versionOf("workerd"), outcome };
    } finally {
      worker.close();
    }
  },
};

/** Modules of the package's names that lead where its condition `workerd` leads. */
export async function workerdEntries(folder: string): Promise<Record<string, string>> {
  await write(folder, {
    "names/main.js": `export * from "./batchnorm-wasm/dist/index.workerd.js";\n`,
    "names/infer.js": `export * from "./dist/infer.workerd.js";\n`,
  });
  return { "batchnorm-wasm": "names/main.js", "batchnorm-wasm/infer": "names/infer.js" };
}

const edgeRuntime: Trial = {
  name: "Vercel edge-runtime",
  tags: ["runtimes", "edge-runtime"],
  async run(run) {
    const folder = await project("run-edge-runtime", suiteFiles(run));
    // It takes scripts, not modules.
    const { outputFiles } = await build({
      entryPoints: [join(folder, "run.js")],
      bundle: true,
      format: "iife",
      globalName: "conformance",
      target: "es2022",
      write: false,
    });
    const runtime = new EdgeRuntime({ initialCode: outputFiles[0]!.text });
    const outcome = outcomeOf(
      JSON.parse(await runtime.evaluate("conformance.run().then(JSON.stringify)")),
    );
    return { version: await versionOf("edge-runtime"), outcome };
  },
};

/** A project whose pages import the package's files by their paths, without an import map. */
export async function page(run: Run): Promise<string> {
  const dist = "./node_modules/batchnorm-wasm/dist";
  const folder = join(
    await project("run-page", suiteFiles(run, `${dist}/index.js`, `${dist}/infer.js`)),
  );
  return run.site.serve(folder);
}

const browsers = BROWSERS.map(
  (kind): Trial => ({
    name: kind.name,
    tags: ["runtimes", "browsers", kind.name.toLowerCase()],
    missing: kind.missing,
    async run(run) {
      const browser = await run.browser(kind);
      return {
        version: browser.version,
        outcome: outcomeOf(await ask(run, browser, await page(run))),
      };
    },
  }),
);

const workers = BROWSERS.map(
  (kind): Trial => ({
    name: `${kind.name}, web worker`,
    tags: ["runtimes", "browsers", kind.name.toLowerCase(), "worker"],
    missing: kind.missing,
    async run(run) {
      const browser = await run.browser(kind);
      const address = `${await page(run)}worker.html`;
      return { version: browser.version, outcome: outcomeOf(await ask(run, browser, address)) };
    },
  }),
);

export const RUNTIMES: readonly Trial[] = [
  ...[20, 22, 24, 26].map((major) => program(`Node ${major}`, "node", () => nodeBinary(major))),
  ...[20, 22, 24, 26].map(required),
  program("Deno", "deno", denoBinary, DENO_ARGS),
  program("Bun", "bun", bunBinary),
  workerd,
  edgeRuntime,
  ...browsers,
  ...workers,
];
