// Builds the site: `npm run site` in the root.
//
//   tsx tools/build.ts [--base /folder/] [--out ../build/site]
//
// `--base` is the folder of the host in which the site will lie; without it, the root.

import { spawnSync } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "vitepress";
import { writePages } from "./pages.js";
import { ROOT, SITE } from "./paths.js";
import { writeReference } from "./reference.js";

const { values } = parseArgs({
  options: {
    base: { type: "string", default: "/" },
    out: { type: "string", default: join(ROOT, "build/site") },
  },
});
const out = resolve(values.out);
process.env.SITE_BASE = values.base;
process.env.SITE_OUT = out;

/** Runs a script of the playground's package. */
function playground(...args: string[]): void {
  const folder = join(ROOT, "examples/playground");
  const { status } = spawnSync("npm", ["--prefix", folder, ...args], { stdio: "inherit" });
  if (status !== 0) throw new Error(`The playground: npm ${args.join(" ")} failed.`);
}

const began = performance.now();
writePages();
await writeReference();
rmSync(out, { recursive: true, force: true });
await build(SITE);
playground("--silent", "run", "build", "--", "--logLevel", "warn");
cpSync(join(ROOT, "examples/playground/out"), join(out, "playground-app"), { recursive: true });
console.log(`The site is in ${out}, after ${((performance.now() - began) / 1000).toFixed(0)} s.`);
