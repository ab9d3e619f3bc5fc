// npm run test:runtimes: the packed package in every runtime and out of every bundler, for real.
//
//   --only chromium,workerd   trials with one of these tags; without it, all
//   --list                    the trials and their tags
//   --record                  write tests/runtimes/results.md and its sentence in README.md
//
// One that is missing here is skipped, with the command that installs it; under CI=true it has failed.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Browser, BrowserKind } from "./browsers.js";
import { BUNDLES } from "./bundlers.js";
import { EXAMPLE_TRIALS } from "./examples.js";
import { guideTrial } from "./guide.js";
import { JEST_TRIALS } from "./jest.js";
import { MEMORY } from "./memory.js";
import { NEXT_BUILDS } from "./next.js";
import { PLACES } from "./places.js";
import { pack, ROOT, suite } from "./project.js";
import { REFUSALS } from "./refusals.js";
import { record, type Tried, table } from "./report.js";
import { RUNTIMES } from "./runtimes.js";
import { Site } from "./site.js";
import { SIZE_TRIALS } from "./sizes.js";
import { THREADS } from "./threads.js";
import { late, type Run, type Trial } from "./trial.js";

const OTHERS: readonly Trial[] = [
  ...RUNTIMES,
  ...BUNDLES,
  ...NEXT_BUILDS,
  ...PLACES,
  ...JEST_TRIALS,
  ...REFUSALS,
  ...SIZE_TRIALS,
  ...MEMORY,
  ...THREADS,
  ...EXAMPLE_TRIALS,
];
const TRIALS: readonly Trial[] = [...OTHERS, guideTrial(OTHERS)];

/** Seconds that a trial may take: the slowest, a build by Next.js, took 80 on a busy machine. */
const LONGEST = 300;

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

const tried: Tried[] = [];
for (const [i, trial] of trials.entries()) {
  const start = performance.now();
  const one = await attempt(trial);
  const seconds = (performance.now() - start) / 1000;
  tried.push({ trial, seconds, ...one });
  const said = one.error
    ? `FAILED: ${one.error.message}`
    : one.skipped
      ? `skipped: ${one.skipped}`
      : (one.result?.outcome?.hash ?? one.result?.found);
  console.error(`[${i + 1}/${trials.length}] ${trial.name}: ${said} (${seconds.toFixed(1)} s)`);
}
await closeBrowsers();
site.close();

async function attempt(trial: Trial, again = true): Promise<Omit<Tried, "trial" | "seconds">> {
  const skipped = trial.missing?.();
  if (skipped !== undefined) return { skipped };
  try {
    return { result: await Promise.race([trial.run(run), late(LONGEST, "the trial")]) };
  } catch (error) {
    // WebKit's driver, once in forty starts on a busy machine, took a command and never answered.
    if (again && (error as Error).name === "TimeoutError") {
      console.error(`${trial.name}: ${(error as Error).message}; once more, in new browsers`);
      await closeBrowsers();
      return attempt(trial, false);
    }
    return { error: error as Error };
  }
}

async function closeBrowsers(): Promise<void> {
  const all = [...browsers.values()];
  browsers.clear();
  for (const browser of all) await browser.then((one) => one.close()).catch(() => {});
}

const hashes = new Set(tried.flatMap(({ result }) => result?.outcome?.hash ?? []));
const texts = new Set(tried.flatMap(({ result }) => result?.outcome?.texts ?? []));
const failed = tried.filter(({ error }) => error).length;
const skipped = tried.filter((one) => one.skipped).length;
if (hashes.size > 0 || failed + skipped > 0) console.log(`\n${table(tried)}\n`);
if (hashes.size > 1) console.log(`FAILED: ${hashes.size} hashes, expected one`);
if (texts.size > 1)
  console.log(`FAILED: ${texts.size} versions of the texts of errors, expected one`);
const differ = hashes.size > 1 || texts.size > 1;
if (values.record) {
  if (only || failed + skipped > 0 || differ) {
    console.log("--record: expected a whole run that passed; nothing was written");
  } else await record(tried);
}
const missing = process.env.CI === "true" ? skipped : 0;
if (missing > 0) console.log("FAILED: under CI=true nothing may be missing");
console.log(`${tried.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed + missing > 0 || differ ? 1 : 0);
