// Several threads in every runtime that has them: the bits of one thread, and what is said where there are none. Pages are
// isolated by the headers of site.ts, unless a trial takes them away.

import { join } from "node:path";
import { EdgeRuntime } from "edge-runtime";
import { build } from "esbuild";
import { BROWSERS, type BrowserKind, chromium, webkit } from "./browsers.js";
import { run as execute, filesIn, project, versionOf } from "./project.js";
import { bunBinary, DENO_ARGS, denoBinary, nodeBinary } from "./runtimes.js";
import { ask, expect, html, REPORT, type Run, type Trial } from "./trial.js";
import { startWorker } from "./workerd.js";

/** How many threads compute. */
const THREADS_TRIED = [1, 2, 3, 4, 7];

/** What a probe answers. */
interface Answer {
  /** How many threads there were, each time. */
  readonly threads?: readonly number[];
  /** How many arrays were compared, bit by bit, and a hash over the bits of all. */
  readonly compared?: number;
  readonly hash?: string;
  readonly error?: { name: string; code?: string; message: string };
}

/** Trains on tensors of one thread without shared memory, and of all numbers of threads, and compares all results. */
const COMPARE = `
const SHAPES = [["NC", [4096, 64]], ["NC", [700, 1024]], ["NHWC", [8, 28, 28, 20]], ["NCHW", [8, 64, 28, 28]]];

function results(kernels, layout, shape) {
  const size = shape.reduce((product, n) => product * n, 1);
  const channels = layout === "NCHW" ? shape[1] : shape.at(-1);
  const [x, y, dy, dx] = [0, 0, 0, 0].map(() => kernels.alloc(size));
  for (let i = 0; i < size; i++) {
    x[i] = ((i * 7919) % 10007) / 1000;
    dy[i] = ((i * 104729) % 9973) / 10000;
  }
  const bn = new BatchNorm(channels, { layout, kernels });
  // Often enough that workers are awake for most of them.
  for (let i = 0; i < 50; i++) bn.train(x, { shape, out: y });
  const { dgamma, dbeta } = bn.backward(dy, { out: { dx } });
  const all = [y, dx, dgamma, dbeta, bn.infer(x, { shape }), Float32Array.from(bn.runningMean)];
  const words = all.map((array) => new Uint32Array(array.slice().buffer));
  for (const tensor of [x, y, dy, dx]) kernels.free(tensor);
  return words;
}

async function compare(options) {
  const alone = new Kernels({ memory: 32 << 20 });
  const expected = SHAPES.map(([layout, shape]) => results(alone, layout, shape));
  let hash = 0;
  for (const word of expected.flat().flatMap((words) => [...words])) {
    hash = Math.imul(hash ^ word, 16777619) >>> 0;
  }
  const threads = [];
  let compared = 0;
  for (const count of [${THREADS_TRIED}]) {
    const kernels = await startKernels({ threads: count, memory: 32 << 20, ...options });
    threads.push(kernels.threads);
    SHAPES.forEach(([layout, shape], s) => {
      results(kernels, layout, shape).forEach((words, i) => {
        const at = words.findIndex((word, j) => word !== expected[s][i][j]);
        if (at >= 0) {
          throw new Error(\`\${count} threads, \${layout} [\${shape}], array \${i}: differs at \${at}\`);
        }
        compared++;
      });
    });
    kernels.close();
  }
  return { threads, compared, hash: hash.toString(16) };
}
`;

const DIST = "./node_modules/batchnorm-wasm/dist";

const FILES = {
  "main.js": `import { BatchNorm, Kernels } from "batchnorm-wasm";
import { startKernels } from "batchnorm-wasm/threads";
${COMPARE}
try {
  console.log(JSON.stringify(await compare({})));
  // Nobody closes these, and the process ends all the same.
  const kernels = await startKernels({ threads: 3 });
  new BatchNorm(64, { kernels }).train(kernels.alloc(4096 * 64).fill(1), { statistics: "running" });
} catch ({ name, code, message }) {
  console.log(JSON.stringify({ error: { name, code, message } }));
}
`,
  "ask.js": `import { startKernels } from "batchnorm-wasm/threads";

export const ask = () =>
  startKernels({ threads: 2 }).then(
    () => ({}),
    ({ name, code, message }) => ({ error: { name, code, message } }),
  );
`,
  "worker.js": `import { ask } from "./ask.js";

export default { fetch: async () => Response.json(await ask()) };
`,
  "probe.js": `import { BatchNorm, Kernels } from "${DIST}/index.js";
import { startKernels } from "${DIST}/threads.js";
${COMPARE}
${REPORT}
report(() => compare({}));
`,
  "probe-url.js": `import { BatchNorm, Kernels } from "${DIST}/index.js";
import { startKernels } from "${DIST}/threads.js";
${COMPARE}
${REPORT}
report(() => compare({ worker: new URL("${DIST}/worker.js", import.meta.url) }));
`,
  "index.html": html("probe.js"),
  "url.html": html("probe-url.js"),
};

/** The hash of the first runtime that was tried. */
let first: string | undefined;

/** Says what was compared; throws unless it was all, and has the bits of the runtimes before. */
function expectSame({ threads, compared, hash, error }: Answer): string {
  if (error) throw new Error(`${error.name}: ${error.message}`);
  expect(`${threads}` === `${THREADS_TRIED}`, `${THREADS_TRIED} threads`, threads);
  expect(compared === 24 * THREADS_TRIED.length, "24 arrays for each", compared);
  first ??= hash;
  expect(hash === first, `the hash ${first} of other runtimes`, hash);
  return `${THREADS_TRIED.join(", ")} threads: one hash, ${hash}`;
}

function expectRefused({ error }: Answer, ...words: readonly string[]): string {
  if (!error) throw new Error("expected an UnsupportedError, got none");
  expect(error.name === "UnsupportedError", "UnsupportedError", `${error.name}: ${error.message}`);
  for (const word of words) expect(error.message.includes(word), word, error.message);
  return error.message;
}

function program(
  name: string,
  tag: string,
  binary: () => string | undefined,
  args: readonly string[] = [],
): Trial {
  return {
    name: `${name}, threads`,
    tags: ["threads", tag],
    missing: () => (binary() ? undefined : "npm ci --prefix tests/runtimes --ignore-scripts"),
    async run() {
      const folder = await project(`threads-${tag}`, FILES);
      const output = await execute(binary()!, [...args, "main.js"], { cwd: folder });
      const version = /\d+\.\d+\.\d+/.exec(await execute(binary()!, ["--version"]))![0];
      return { version, found: expectSame(JSON.parse(output)) };
    },
  };
}

/** What a page of a folder answers under these headers. */
async function probe(
  run: Run,
  kind: BrowserKind,
  headers: Record<string, string>,
  file = "index.html",
): Promise<Answer> {
  const address = run.site.serve(await project("threads-page", FILES), headers);
  return ask<Answer>(run, await run.browser(kind), address + file);
}

const pages = BROWSERS.map(
  (kind): Trial => ({
    name: `${kind.name}, threads`,
    tags: ["threads", "browsers", kind.name.toLowerCase()],
    missing: kind.missing,
    async run(run) {
      const { version } = await run.browser(kind);
      const isolated = await probe(run, kind, {});
      // WebKitGTK's pages are not isolated by these headers when a driver has opened them.
      const found = kind === webkit && isolated.error ? "has no threads" : expectSame(isolated);
      const open = { "cross-origin-opener-policy": "unsafe-none" };
      const refused = await probe(run, kind, open);
      expectRefused(refused, "Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy");
      return { version, found: `${found}; refused without isolation` };
    },
  }),
);

const policy: Trial = {
  name: "Chromium, threads under a Content-Security-Policy",
  tags: ["threads", "csp", "chromium"],
  missing: chromium.missing,
  async run(run) {
    const { version } = await run.browser(chromium);
    const strict = {
      "content-security-policy": "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'",
    };
    const message = expectRefused(await probe(run, chromium, strict), "worker-src", "worker.js");
    const found = expectSame(await probe(run, chromium, strict, "url.html"));
    return { version, found: `${found}, by { worker }; without: ${message}` };
  },
};

/** What the error has to say where no headers help: these runtimes have SharedArrayBuffer, but no workers. */
const ELSEWHERE = ["Worker: expected a runtime with web workers"];

const workerd: Trial = {
  name: "Cloudflare workerd, threads",
  tags: ["threads", "workerd"],
  async run() {
    const folder = await project("threads-workerd", FILES);
    const dist = await filesIn(join(folder, "node_modules/batchnorm-wasm/dist"));
    const own = dist.filter((file) => /\.(js|wasm)$/.test(file));
    const from = "node_modules/batchnorm-wasm/dist/";
    const modules = Object.fromEntries([
      ["worker.js", "worker.js"],
      ["ask.js", "ask.js"],
      ["batchnorm-wasm/threads", `${from}threads.workerd.js`],
      ...own.map((file) => [`batchnorm-wasm/${file}`, from + file]),
    ]);
    const worker = await startWorker(folder, modules);
    try {
      const answer = (await worker.json("/")) as Answer;
      const message = expectRefused(answer, ...ELSEWHERE);
      return { version: await versionOf("workerd"), found: `none: ${message}` };
    } finally {
      worker.close();
    }
  },
};

const edgeRuntime: Trial = {
  name: "Vercel edge-runtime, threads",
  tags: ["threads", "edge-runtime"],
  async run() {
    const folder = await project("threads-edge-runtime", FILES);
    const { outputFiles } = await build({
      entryPoints: [join(folder, "ask.js")],
      bundle: true,
      format: "iife",
      globalName: "threads",
      target: "es2022",
      write: false,
    });
    const runtime = new EdgeRuntime({ initialCode: outputFiles[0]!.text });
    const answer = JSON.parse(await runtime.evaluate("threads.ask().then(JSON.stringify)"));
    const message = expectRefused(answer, ...ELSEWHERE);
    return { version: await versionOf("edge-runtime"), found: `none: ${message}` };
  },
};

export const THREADS: readonly Trial[] = [
  ...[20, 22, 24, 26].map((major) => program(`Node ${major}`, "node", () => nodeBinary(major))),
  program("Deno", "deno", denoBinary, DENO_ARGS),
  program("Bun", "bun", bunBinary),
  workerd,
  edgeRuntime,
  ...pages,
  policy,
];
