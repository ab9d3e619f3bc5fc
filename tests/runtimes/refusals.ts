// Where the kernels cannot be compiled: a page under a Content-Security-Policy, an engine without
// SIMD. The error has to say what to do.

import { BROWSERS, type BrowserKind, chromium, webkit } from "./browsers.js";
import { run as execute, project } from "./project.js";
import { bunBinary, DENO_ARGS, denoBinary, nodeBinary } from "./runtimes.js";
import { ask, expect, html, REPORT, type Run, type Trial } from "./trial.js";

/** What a probe answers: numbers, or the error it met. */
interface Answer {
  readonly y?: readonly number[];
  readonly error?: { name: string; code?: string; message: string };
}

const TRAIN = `const train = () => ({ y: [...new BatchNorm(2).train(Float32Array.of(1, 2, 3, 5))] });`;

const FILES = {
  "probe.js": `import { BatchNorm } from "./node_modules/batchnorm-wasm/dist/index.js";
${TRAIN}
${REPORT}
report(train);
`,
  "index.html": html("probe.js"),
  "main.js": `import { BatchNorm } from "batchnorm-wasm";
${TRAIN}
try {
  console.log(JSON.stringify(train()));
} catch ({ name, code, message }) {
  console.log(JSON.stringify({ error: { name, code, message } }));
}
`,
};

/** Throws unless an answer is an `UnsupportedError` whose text has all of these words. */
function expectRefused({ y, error }: Answer, ...words: readonly string[]): string {
  if (!error) throw new Error(`expected an UnsupportedError, got ${y}`);
  expect(error.name === "UnsupportedError", "UnsupportedError", `${error.name}: ${error.message}`);
  expect(error.code === "UNSUPPORTED", "UNSUPPORTED", error.code);
  for (const word of words) expect(error.message.includes(word), word, error.message);
  return error.message;
}

async function probe(run: Run, kind: BrowserKind, policy: string): Promise<Answer> {
  const folder = await project("csp", FILES);
  const address = run.site.serve(folder, { "content-security-policy": policy });
  return ask<Answer>(run, await run.browser(kind), address);
}

const policies = BROWSERS.map(
  (kind): Trial => ({
    name: `${kind.name}, Content-Security-Policy`,
    tags: ["csp", kind.name.toLowerCase()],
    missing: kind.missing,
    async run(run) {
      const { version } = await run.browser(kind);
      const allowed = await probe(run, kind, "script-src 'self' 'wasm-unsafe-eval'");
      expect(allowed.y?.length === 4, "4 values", JSON.stringify(allowed));
      const refused = await probe(run, kind, "script-src 'self'");
      const message = expectRefused(refused, "'wasm-unsafe-eval'", "script-src");
      return { version, found: `works with 'wasm-unsafe-eval'; without: ${message}` };
    },
  }),
);

/** V8's switch for it, on x86: SIMD needs these instructions there. */
const V8 = "--no-enable-sse4-1";

function program(
  name: string,
  tag: string,
  binary: () => string | undefined,
  args: readonly string[],
  env: Record<string, string> = {},
  said: readonly [missing: string, cure: string] = ["SIMD", "update"],
): Trial {
  return {
    name: name.includes(",") ? name : `${name}, without SIMD`,
    tags: ["simd", tag],
    async run() {
      const folder = await project("simd", FILES);
      const output = await execute(binary()!, [...args, "main.js"], { cwd: folder, env });
      const message = expectRefused(JSON.parse(output), ...said);
      const version = /\d+\.\d+\.\d+/.exec(await execute(binary()!, ["--version"]))![0];
      return { version, found: message };
    },
  };
}

const pageWithoutSimd = (kind: BrowserKind): Trial => ({
  name: `${kind.name}, without SIMD`,
  tags: ["simd", kind.name.toLowerCase()],
  missing: kind.missing,
  async run(run) {
    const browser = await kind.launch({ withoutSimd: true });
    try {
      const address = run.site.serve(await project("simd", FILES));
      const message = expectRefused(await ask<Answer>(run, browser, address), "SIMD", "update");
      return { version: browser.version, found: message };
    } finally {
      await browser.close();
    }
  },
});

export const REFUSALS: readonly Trial[] = [
  ...policies,
  ...(process.arch === "x64"
    ? [
        program("Node 26", "node", () => nodeBinary(26), [V8]),
        program("Deno", "deno", denoBinary, [...DENO_ARGS, `--v8-flags=${V8}`]),
        pageWithoutSimd(chromium),
      ]
    : []),
  program("Bun", "bun", bunBinary, [], { BUN_JSC_useWasmSIMD: "0" }),
  pageWithoutSimd(webkit),
  program("Node 26, --jitless", "node", () => nodeBinary(26), ["--jitless"], {}, [
    "a runtime that has it",
    "no --jitless",
  ]),
];
