// Bundles of a project that has the packed package installed, by each bundler's own API and defaults.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nodeResolve } from "@rollup/plugin-node-resolve";
import { build as esbuild, transform } from "esbuild";
import { rolldown } from "rolldown";
import { rollup } from "rollup";
import { createServer, build as vite } from "vite";
import webpack from "webpack";
import { chromium } from "./browsers.js";
import { run as execute, filesIn, MODULES, project, versionOf, write } from "./project.js";
import { nodeBinary } from "./runtimes.js";
import { ask, html, outcomeOf, suiteFiles, type Trial } from "./trial.js";
import { startWorker, type Worker } from "./workerd.js";

export interface Bundler {
  readonly name: string;
  readonly packageName: string;
  /** Writes the bundle of `entry`, minified, into `folder`/out; main.js is where it begins. */
  bundle(folder: string, entry: string): Promise<void>;
  /** How a page loads main.js. */
  readonly script?: "module" | "text/javascript";
}

const viteBundler: Bundler = {
  name: "Vite",
  packageName: "vite",
  async bundle(folder, entry) {
    await vite({
      ...VITE,
      root: folder,
      base: "./",
      build: {
        outDir: "out",
        rollupOptions: { input: join(folder, entry), output: { entryFileNames: "main.js" } },
        modulePreload: false,
      },
    });
  },
};
export const VITE = { configFile: false, logLevel: "error" } as const;

export const BUNDLERS: readonly Bundler[] = [
  viteBundler,
  {
    name: "esbuild",
    packageName: "esbuild",
    async bundle(folder, entry) {
      await esbuild({
        absWorkingDir: folder,
        entryPoints: [entry],
        outfile: "out/main.js",
        bundle: true,
        minify: true,
        format: "esm",
      });
    },
  },
  {
    name: "Rollup",
    packageName: "rollup",
    async bundle(folder, entry) {
      const bundle = await rollup({
        input: join(folder, entry),
        plugins: [nodeResolve({ browser: true })],
      });
      const { output } = await bundle.generate({ format: "es" });
      await bundle.close();
      if (output.length !== 1) throw new Error(`expected one chunk, got ${output.length}`);
      // Rollup itself does not minify.
      const { code } = await transform(output[0].code, { minify: true, format: "esm" });
      await write(join(folder, "out"), { "main.js": code });
    },
  },
  {
    name: "Rolldown",
    packageName: "rolldown",
    async bundle(folder, entry) {
      const bundle = await rolldown({ input: join(folder, entry), platform: "browser" });
      await bundle.write({ dir: join(folder, "out"), entryFileNames: "main.js", minify: true });
      await bundle.close();
    },
  },
  {
    name: "webpack",
    packageName: "webpack",
    script: "text/javascript",
    bundle: (folder, entry) =>
      new Promise((resolve, reject) => {
        const compiler = webpack({
          mode: "production",
          context: folder,
          entry: `./${entry}`,
          output: { path: join(folder, "out"), filename: "main.js" },
          performance: false,
        });
        compiler!.run((error, stats) => {
          compiler!.close(() => {
            if (error || stats?.hasErrors())
              reject(error ?? new Error(stats!.toString("errors-only")));
            else resolve();
          });
        });
      }),
  },
];

/** A worker bundled as `wrangler deploy` does it, into out/. */
export async function wrangle(folder: string, entry: string, minify = false): Promise<void> {
  await write(folder, {
    "wrangler.json": JSON.stringify({ name: "app", main: entry, compatibility_date: "2026-01-01" }),
  });
  const wrangler = join(MODULES, "wrangler/bin/wrangler.js");
  const args = [
    wrangler,
    "deploy",
    "--dry-run",
    "--outdir",
    "out",
    ...(minify ? ["--minify"] : []),
  ];
  await execute(nodeBinary(22)!, args, {
    cwd: folder,
    env: { CI: "1", WRANGLER_SEND_METRICS: "false", NO_COLOR: "1" },
  });
}

/** Runs what `wrangle` made. */
export const startWrangled = (
  folder: string,
  entry: string,
  options: { measured?: boolean } = {},
): Promise<Worker> => startBundled(join(folder, "out"), entry.replace(/\.ts$/, ".js"), options);

/** A Worker that is all modules of a folder; `main` is where it begins. */
export async function startBundled(
  out: string,
  main: string,
  options: { measured?: boolean } = {},
): Promise<Worker> {
  const others = (await filesIn(out)).filter(
    (file) => file !== main && /\.(m?js|wasm)$/.test(file),
  );
  return startWorker(
    out,
    Object.fromEntries([main, ...others].map((file) => [file, file])),
    options,
  );
}

const bundles = BUNDLERS.map((bundler): Trial => {
  const { name, packageName, script = "module" } = bundler;
  return {
    name: `${name} bundle, Chromium`,
    tags: ["bundlers", packageName, "chromium"],
    missing: chromium.missing,
    async run(run) {
      const folder = await project(`bundle-${packageName}`, suiteFiles(run));
      await bundler.bundle(folder, "page.js");
      const out = join(folder, "out");
      await writeFile(
        join(out, "index.html"),
        html("main.js", script).replace("<script", "<script defer"),
      );
      const outcome = outcomeOf(await ask(run, await run.browser(chromium), run.site.serve(out)));
      return { version: await versionOf(packageName), outcome };
    },
  };
});

const viteDev: Trial = {
  name: "Vite dev server, Chromium",
  tags: ["bundlers", "vite", "chromium"],
  missing: chromium.missing,
  async run(run) {
    const folder = await project("bundle-vite-dev", suiteFiles(run));
    const server = await createServer({
      ...VITE,
      root: folder,
      server: { host: "127.0.0.1", port: 0 },
    });
    try {
      await server.listen();
      const address = server.resolvedUrls!.local[0]!;
      const outcome = outcomeOf(await ask(run, await run.browser(chromium), address));
      return { version: await versionOf("vite"), outcome };
    } finally {
      await server.close();
    }
  },
};

const viteWorker: Trial = {
  name: "Vite bundle, web worker",
  tags: ["bundlers", "vite", "chromium", "worker"],
  missing: chromium.missing,
  async run(run) {
    const folder = await project("bundle-vite-worker", suiteFiles(run));
    await vite({
      ...VITE,
      root: folder,
      base: "./",
      worker: { format: "es" },
      build: { outDir: "out", rollupOptions: { input: join(folder, "worker.html") } },
    });
    const address = `${run.site.serve(join(folder, "out"))}worker.html`;
    const outcome = outcomeOf(await ask(run, await run.browser(chromium), address));
    return { version: await versionOf("vite"), outcome };
  },
};

const wrangler: Trial = {
  name: "wrangler bundle, workerd",
  tags: ["bundlers", "wrangler", "workerd"],
  async run(run) {
    const folder = await project("bundle-wrangler", suiteFiles(run));
    await wrangle(folder, "worker.js");
    const worker = await startWrangled(folder, "worker.js");
    try {
      const outcome = outcomeOf(await worker.json("/"));
      return { version: await versionOf("wrangler"), outcome };
    } finally {
      worker.close();
    }
  },
};

export const BUNDLES: readonly Trial[] = [...bundles, viteDev, viteWorker, wrangler];
