// npm run test:runtimes: the packed package in every runtime and out of every bundler, for real.
//
//   --only chromium,workerd   trials with one of these tags; without it, all
//   --list                    the trials and their tags
//   --record                  write tests/runtimes/results.md and the table in README.md
//
// One that is missing here is skipped, with the command that installs it; under CI=true it has failed.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Browser, BrowserKind } from "./browsers.js";
import { BUNDLES } from "./bundlers.js";
import { EXAMPLE_TRIALS } from "./examples.js";
import { MEMORY } from "./memory.js";
import { NEXT_BUILDS } from "./next.js";
import { pack, ROOT, suite } from "./project.js";
import { REFUSALS } from "./refusals.js";
import { RUNTIMES } from "./runtimes.js";
import { Site } from "./site.js";
import type { Result, Run, Trial } from "./trial.js";

const TRIALS: readonly Trial[] = [
  ...RUNTIMES,
  ...BUNDLES,
  ...NEXT_BUILDS,
  ...REFUSALS,
  ...MEMORY,
  ...EXAMPLE_TRIALS,
];

const { values } = parseArgs({
  options: { only: { type: "string" }, list: { type: "boolean" }, record: { type: "boolean" } },
});
const only = values.only?.split(",").map((tag) => tag.trim());
const known = new Set(TRIALS.flatMap((trial) => trial.tags));
for (const tag of only ?? []) {
  if (known.has(tag)) continue;
  console.error(`--only: expected some of ${[...known].join(", ")}, got ${tag}`);
  process.exit(2);
}
const trials = TRIALS.filter((trial) => !only || trial.tags.some((tag) => only.includes(tag)));
if (values.list) {
  for (const { name, tags } of trials) console.log(`${name.padEnd(28)} ${tags.join(", ")}`);
  process.exit(0);
}

await pack();
const site = await Site.start();
const browsers = new Map<BrowserKind, Promise<Browser>>();
const run: Run = {
  site,
  suite: await suite(),
  async keep(name, content) {
    const folder = join(ROOT, "build/runtimes");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, name), content);
  },
  browser(kind) {
    if (!browsers.has(kind)) browsers.set(kind, kind.launch());
    return browsers.get(kind)!;
  },
};

interface Tried {
  readonly trial: Trial;
  readonly result?: Result;
  readonly skipped?: string;
  readonly error?: Error;
}

const tried: Tried[] = [];
for (const [i, trial] of trials.entries()) {
  const place = `[${i + 1}/${trials.length}] ${trial.name}`;
  const start = performance.now();
  let one: Tried;
  const skipped = trial.missing?.();
  if (skipped !== undefined) {
    one = { trial, skipped };
  } else {
    try {
      one = { trial, result: await trial.run(run) };
    } catch (error) {
      one = { trial, error: error as Error };
    }
  }
  tried.push(one);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const said = one.error
    ? `FAILED: ${one.error.message}`
    : (one.skipped ?? one.result?.outcome?.hash ?? one.result?.found ?? "ok");
  console.error(`${place}: ${said} (${seconds} s)`);
}
for (const browser of browsers.values()) await (await browser).close();
site.close();
process.exit(0);
