// One thing to try in one runtime, and what it needs from the run.

import type { Outcome } from "../conformance/suite.js";
import type { Browser, BrowserKind } from "./browsers.js";
import type { Site } from "./site.js";

/** What a trial came to; it throws if it failed. */
export interface Result {
  /** Of the runtime, and of the bundler where there is one. */
  readonly version: string;
  /** Of the conformance suite. */
  readonly outcome?: Outcome;
  /** What else was found, for people. */
  readonly found?: string;
}

export interface Trial {
  /** For `--only`. */
  readonly tags: readonly string[];
  /** As in the table. */
  readonly name: string;
  /** The command that installs what is missing here, if something is. */
  readonly missing?: () => string | undefined;
  readonly run: (run: Run) => Promise<Result>;
}

/** What trials share. */
export interface Run {
  readonly site: Site;
  /** A running browser of this kind. */
  browser(kind: BrowserKind): Promise<Browser>;
  /** Writes a file that people may look at, into build/runtimes. */
  keep(name: string, content: Uint8Array | string): Promise<void>;
  /** The suite as a module. */
  readonly suite: string;
}

/** The modules of a project that runs the suite on the package under these names. */
export const suiteFiles = (
  { suite }: Run,
  main = "batchnorm-wasm",
  infer = "batchnorm-wasm/infer",
): Record<string, string> => ({
  "suite.js": suite,
  "run.js": `import * as library from "${main}";
import * as testTime from "${infer}";
import { conformance } from "./suite.js";

export const run = () => conformance(library, testTime);
`,
  "main.js": `import { run } from "./run.js";

console.log(JSON.stringify(await run()));
`,
  "page.js": `import { run } from "./run.js";
${REPORT}
report(run);
`,
  "page-worker.js": `${REPORT}
const worker = new Worker(new URL("./worker-thread.js", import.meta.url), { type: "module" });
report(() => new Promise((resolve, reject) => {
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message }) => reject(new Error(message));
}));
`,
  "worker-thread.js": `import { run } from "./run.js";

run().then(postMessage);
`,
  "worker.js": `import { run } from "./run.js";

export default {
  async fetch() {
    return Response.json(await run());
  },
};
`,
  "index.html": html("page.js"),
  "worker.html": html("page-worker.js"),
});

/** What a page does with what `work` gives, or throws. */
export const REPORT = `
async function report(work) {
  let result;
  try {
    result = await work();
  } catch (error) {
    const { name, code, message, stack } = error;
    result = { error: { name, code, message, stack } };
  }
  const address = new URL(location.href).searchParams.get("report");
  await fetch(address, { method: "POST", mode: "no-cors", body: JSON.stringify(result) });
}
`;

export const html = (script: string, type = "module"): string => `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>batchnorm-wasm</title>
<script type="${type}" src="./${script}"></script>
`;

/** What a page reported that threw. */
interface Failed {
  readonly error: { name: string; code?: string; message: string; stack?: string };
}

/** Opens a page and waits for what it posts. */
export async function ask<T>(
  { site }: Run,
  browser: Browser,
  address: string,
  seconds = 90,
): Promise<T | Failed> {
  const { address: to, posted } = site.report();
  const page = await browser.open(`${address}?report=${encodeURIComponent(to)}`);
  try {
    return (await Promise.race([posted, page.problem, late(seconds, "the page")])) as T | Failed;
  } finally {
    await page.close();
  }
}

/** Rejects after a time, unless the process ends before. */
export const late = (seconds: number, who: string): Promise<never> =>
  new Promise((_, reject) => {
    setTimeout(
      () => reject(new Error(`${who} said nothing in ${seconds} s`)),
      1000 * seconds,
    ).unref();
  });

/** What a page, a process or a worker reported, if it is what the suite gives. */
export function outcomeOf(value: unknown): Outcome {
  const { error, ...outcome } = value as Outcome & Partial<Failed>;
  if (error) throw new Error(error.stack ?? `${error.name}: ${error.message}`);
  if (typeof outcome.hash !== "string" || !(outcome.checks > 0)) {
    throw new Error(`expected an outcome of the suite, got ${JSON.stringify(value)}`);
  }
  if (outcome.failures.length > 0) {
    const more = outcome.failures.length > 5 ? [`and ${outcome.failures.length - 5} more`] : [];
    throw new Error(["checks failed:", ...outcome.failures.slice(0, 5), ...more].join("\n  "));
  }
  return outcome;
}

/** Throws unless `holds`. */
export function expect(holds: boolean, expected: unknown, got: unknown): void {
  if (!holds) throw new Error(`expected ${expected}, got ${got}`);
}
