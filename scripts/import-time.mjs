// How long a new process takes from the import of an entry to the first answer of a layer, against a
// budget. The budget is a share of the time in which an empty process of the same machine starts and ends,
// so that it is fair to slow machines. Each figure is the least of many rounds, so that other programs do
// not disturb it.

import { execFileSync } from "node:child_process";

const ROUNDS = 15;
/** More than twice what a busy machine took, so that only a real slowdown exceeds it (docs/tuning.md). */
const BUDGET = 0.5;

const node = (script) =>
  execFileSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" });

/** A script that prints how long it takes to import an entry and use it, kernels included. */
const use = (entry, code) => `
  const start = performance.now();
  const { BatchNorm, FrozenBatchNorm } = await import(${JSON.stringify(
    new URL(`../dist/${entry}.js`, import.meta.url).href,
  )});
  (${code}).infer(new Float32Array(300).fill(1));
  console.log(performance.now() - start);
`;

const JSON_OF_THREE = JSON.stringify({
  format: "batchnorm-wasm/frozen",
  version: 1,
  channels: 3,
  layout: "NC",
  center: [0, 1, 2],
  scale: [1, 1, 1],
  shift: [0, 0, 0],
});
const scripts = {
  index: use("index", "new BatchNorm(3)"),
  infer: use("infer", `FrozenBatchNorm.fromJSON(${JSON.stringify(JSON_OF_THREE)})`),
};

const starts = [];
const times = { index: [], infer: [] };
for (let round = 0; round < ROUNDS; round++) {
  const start = performance.now();
  node("");
  starts.push(performance.now() - start);
  for (const [entry, script] of Object.entries(scripts)) times[entry].push(Number(node(script)));
}

const least = Math.min(...starts);
for (const [entry, all] of Object.entries(times)) {
  const time = Math.min(...all);
  const over = time / least > BUDGET;
  console.log(
    `${entry}: ${time.toFixed(1)} ms from a cold import to the first infer, ${(time / least).toFixed(2)} of ` +
      `${BUDGET} of the ${least.toFixed(1)} ms in which a process starts${over ? "  EXCEEDED" : ""}`,
  );
  if (over) process.exitCode = 1;
}
