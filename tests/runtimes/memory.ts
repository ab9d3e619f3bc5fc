// Memory over 1,000,000 calls of `infer` and 10,000 of `train` and `backward`: flat.

import { chromium, launchChromium } from "./browsers.js";
import { startWrangled, wrangle } from "./bundlers.js";
import { project, versionOf } from "./project.js";
import { expect, html, type Run, type Trial } from "./trial.js";
import { residentOf } from "./workerd.js";

const ROUNDS = 20;
/** Calls in a round. */
const INFERS = 50_000;
const TRAINS = 500;
const MIB = 2 ** 20;

/**
 * What may still grow: code that is compiled late, and pages that the engine has not given back. One
 * float32 kept of each call, the least that a leak could be, would be 4 MB.
 */
const HEAP_GROWTH = 0.5 * MIB;
const RESIDENT_GROWTH = 32 * MIB;

/** A round: small inputs, which stay in JavaScript, larger ones, which go to the kernels, both entries. */
const workOf = (main: string, infer: string): string => `import { BatchNorm } from "${main}";
import { FrozenBatchNorm } from "${infer}";

const bn = new BatchNorm(64);
const one = new Float32Array(64).fill(0.5);
const some = Float32Array.from({ length: 16 * 64 }, (_, i) => i % 13);
const batch = Float32Array.from({ length: 64 * 64 }, (_, i) => (i * i) % 17);
bn.train(batch);
const frozen = FrozenBatchNorm.fromJSON(JSON.stringify(bn.freeze()));

export function work() {
  let sum = 0;
  for (let i = 0; i < ${INFERS / 5}; i++) {
    sum += bn.infer(one)[0];
    sum += bn.infer(some)[0];
    sum += frozen.infer(one)[0];
    sum += frozen.infer(some)[0];
    sum += bn.infer(some, { out: some })[0] * 0;
  }
  for (let i = 0; i < ${TRAINS}; i++) {
    sum += bn.train(batch)[0];
    sum += bn.backward(batch).dx[0] + bn.lastBatch.mean[0];
  }
  return sum;
}
`;

/** What grew from the first quarter of the rounds, in which code is compiled, to the last. */
function growth(samples: readonly number[]): number {
  const most = (part: readonly number[]): number => Math.max(...part);
  return most(samples.slice(-5)) - most(samples.slice(0, 5));
}

const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

function flat(name: string, samples: readonly number[], limit: number): string {
  const grown = growth(samples);
  const trace = samples.map((bytes) => (bytes / MIB).toFixed(1)).join(" ");
  expect(grown <= limit, `${name} to grow by at most ${mib(limit)}`, `${mib(grown)}: ${trace}`);
  return `${name} ${mib(samples[4]!)} after a quarter, ${mib(samples.at(-1)!)} at the end`;
}

const inChromium: Trial = {
  name: "Memory, Chromium",
  tags: ["memory", "chromium"],
  missing: chromium.missing,
  async run(run: Run) {
    const dist = "./node_modules/batchnorm-wasm/dist";
    const folder = await project("memory-chromium", {
      "work.js": workOf(`${dist}/index.js`, `${dist}/infer.js`),
      "page.js": `import { work } from "./work.js";\nglobalThis.work = work;\n`,
      "index.html": html("page.js"),
    });
    // A browser of its own: nothing else in its processes.
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(run.site.serve(folder));
      await page.waitForFunction("globalThis.work !== undefined");
      const tools = await page.context().newCDPSession(page);
      const system = await browser.newBrowserCDPSession();
      const heap: number[] = [];
      const resident: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        await page.evaluate("work()");
        await tools.send("HeapProfiler.collectGarbage");
        const used = await tools.send("Runtime.getHeapUsage");
        heap.push(used.usedSize + (used.backingStorageSize ?? 0));
        const { processInfo } = await system.send("SystemInfo.getProcessInfo");
        const renderers = processInfo.filter(({ type }) => type === "renderer");
        const sizes = await Promise.all(renderers.map(({ id }) => residentOf(id)));
        resident.push(sizes.reduce((sum, size) => sum + size, 0));
      }
      const found = [
        flat("heap and array buffers", heap, HEAP_GROWTH),
        flat("resident memory of the renderers", resident, RESIDENT_GROWTH),
      ];
      return { version: browser.version(), found: found.join("; ") };
    } finally {
      await browser.close();
    }
  },
};

const inWorkerd: Trial = {
  name: "Memory, workerd",
  tags: ["memory", "workerd"],
  async run() {
    const folder = await project("memory-workerd", {
      "work.js": workOf("batchnorm-wasm", "batchnorm-wasm/infer"),
      "worker.js": `import { work } from "./work.js";

export default {
  fetch(request) {
    if (!request.url.endsWith("/gc")) return new Response(String(work()));
    gc();
    return new Response();
  },
};
`,
    });
    await wrangle(folder, "worker.js");
    const worker = await startWrangled(folder, "worker.js", { measured: true });
    try {
      const heap: number[] = [];
      const resident: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const answer = await (await worker.fetch("/")).text();
        expect(Number.isFinite(Number(answer)), "a number", answer);
        // In a request of its own: what the work's call left on the stack would be kept.
        await worker.fetch("/gc");
        await worker.fetch("/gc");
        heap.push(await worker.heap());
        resident.push(await worker.resident());
      }
      const found = [
        flat("heap and array buffers", heap, HEAP_GROWTH),
        flat("resident memory of the process", resident, RESIDENT_GROWTH),
      ];
      return { version: await versionOf("workerd"), found: found.join("; ") };
    } finally {
      worker.close();
    }
  },
};

export const MEMORY: readonly Trial[] = [inChromium, inWorkerd];
