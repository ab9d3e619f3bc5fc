// The small examples, run as their users would, and their answers.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { build as vite } from "vite";
import { BROWSERS, chromium } from "./browsers.js";
import { startWrangled, wrangle } from "./bundlers.js";
import { run as execute, project, ROOT, versionOf } from "./project.js";
import { DENO_ARGS, denoBinary } from "./runtimes.js";
import { expect, type Trial } from "./trial.js";

const EXAMPLES = join(ROOT, "examples");
const NOON = [27, 1006, 50];

interface Layer {
  readonly center: number[];
  readonly scale: number[];
  readonly shift: number[];
}

/** The layer that examples/deno trains and the others serve. */
async function layer(folder: string): Promise<Layer> {
  return JSON.parse(await readFile(join(folder, "layer.json"), "utf8"));
}

/** y = (x - center)·scale + shift in float32, as the package rounds it. */
function normalized({ center, scale, shift }: Layer, x: readonly number[]): number[] {
  const { fround } = Math;
  return x.map((v, c) => fround(fround(fround(fround(v) - center[c]!) * scale[c]!) + shift[c]!));
}

const deno: Trial = {
  name: "Example: a Deno script",
  tags: ["examples", "deno"],
  missing: () => (denoBinary() ? undefined : "npm ci --prefix tests/runtimes --ignore-scripts"),
  async run() {
    const folder = await project("example-deno", {}, join(EXAMPLES, "deno"));
    const [, ...flags] = DENO_ARGS;
    const check = ["check", "--node-modules-dir=manual", "main.ts"];
    await execute(denoBinary()!, check, { cwd: folder });
    const args = ["run", ...flags, "--allow-write=layer.json", "main.ts"];
    const output = await execute(denoBinary()!, args, { cwd: folder });
    const made = await layer(folder);
    const text = JSON.stringify(made);
    for (const other of ["worker", "browser"]) {
      const kept = JSON.stringify(await layer(join(EXAMPLES, other)));
      expect(text === kept, `the layer of examples/${other}, ${kept}`, text);
    }
    const z = normalized(made, NOON);
    const printed = [...output.matchAll(/ is (\S+) standard/g)].map((match) => match[1]);
    const expected = z.map((v) => v.toFixed(3));
    expect(String(printed) === String(expected), expected, printed);
    return { version: await versionOf("deno"), found: `the layer, and z = ${printed.join(", ")}` };
  },
};

const worker: Trial = {
  name: "Example: a Cloudflare Worker",
  tags: ["examples", "workerd", "wrangler"],
  async run() {
    const folder = await project("example-worker", {}, join(EXAMPLES, "worker"));
    await wrangle(folder, "worker.js");
    const started = await startWrangled(folder, "worker.js");
    try {
      const post = (body: unknown) =>
        started.fetch("/", { method: "POST", body: JSON.stringify(body) });
      const answer = (await (await post(NOON)).json()) as number[];
      const expected = normalized(await layer(folder), NOON);
      expect(String(answer) === String(expected), expected, answer);
      const refused = await post([1, 2]);
      const { error } = (await refused.json()) as { error: string };
      expect(refused.status === 400 && error.includes("3 channels"), "status 400", error);
      return { version: await versionOf("workerd"), found: `answers ${JSON.stringify(answer)}` };
    } finally {
      started.close();
    }
  },
};

/** What the outputs of a page show, once they show something. */
const OUTPUTS = `[...document.querySelectorAll("output")].map((output) => output.value).join("; ")`;

async function shown(page: { read(expression: string): Promise<unknown> }): Promise<string> {
  for (let tries = 0; ; tries++) {
    const text = String(await page.read(OUTPUTS));
    if (/\d/.test(text)) return text;
    if (tries === 50) throw new Error(`expected numbers on the page, got ${JSON.stringify(text)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const plainPages = BROWSERS.map(
  (kind): Trial => ({
    name: `Example: a page, ${kind.name}`,
    tags: ["examples", kind.name.toLowerCase()],
    missing: kind.missing,
    async run(run) {
      const folder = await project("example-browser", {}, join(EXAMPLES, "browser"));
      const browser = await run.browser(kind);
      const page = await browser.open(run.site.serve(folder));
      try {
        const text = await shown(page);
        const expected = normalized(await layer(folder), NOON)
          .map((v) => v.toFixed(3))
          .join("; ");
        expect(text === expected, expected, text);
        // WebKit paints a little later.
        await new Promise((resolve) => setTimeout(resolve, 300));
        await run.keep(`example-browser-${kind.name.toLowerCase()}.png`, await page.picture());
        return { version: browser.version, found: `shows ${text}` };
      } finally {
        await page.close();
      }
    },
  }),
);

const vitePage: Trial = {
  name: "Example: a Vite page",
  tags: ["examples", "vite", "chromium"],
  missing: chromium.missing,
  async run(run) {
    const folder = await project("example-vite", {}, join(EXAMPLES, "vite"));
    await vite({ root: folder, configFile: false, logLevel: "error", base: "./" });
    const browser = await run.browser(chromium);
    const page = await browser.open(run.site.serve(join(folder, "dist")));
    try {
      const expected = Array(3).fill("mean 0.000, σ 1.000").join("; ");
      const text = await shown(page);
      expect(text === expected, expected, text);
      await page.read(
        `(mean.value = -5, sigma.value = 0.5, mean.dispatchEvent(new Event("input")))`,
      );
      const moved = await shown(page);
      expect(moved === expected, expected, moved);
      await run.keep("example-vite.png", await page.picture());
      return { version: await versionOf("vite"), found: `shows ${text}` };
    } finally {
      await page.close();
    }
  },
};

export const EXAMPLE_TRIALS: readonly Trial[] = [deno, worker, ...plainPages, vitePage];
