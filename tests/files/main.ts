// npm run test:files: model files that nobody here made, read, folded, written back, and run before and
// after in the runtimes that people use.
//
//   --only onnx,keras,command,…   trials whose name begins with one of these; without it, all

import { parseArgs } from "node:util";
import { COMMANDS } from "./command.js";
import { KERAS } from "./keras.js";
import { ONNX } from "./onnx.js";
import { REPAIRS } from "./repair.js";
import type { Trial } from "./trial.js";

const TRIALS: readonly Trial[] = [...ONNX, ...REPAIRS, ...KERAS, ...COMMANDS];

const { values } = parseArgs({ options: { only: { type: "string" } } });
const only = values.only?.split(",").map((name) => name.trim());
const trials = TRIALS.filter(({ name }) => !only || only.some((each) => name.startsWith(each)));

let failed = 0;
for (const { name, run } of trials) {
  const start = performance.now();
  const seconds = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  try {
    const found = await run();
    console.log(`${name}: ${found} (${seconds()})`);
  } catch (error) {
    failed++;
    console.error(`${name}: FAILED (${seconds()})\n${(error as Error).stack}`);
  }
}
console.log(`${trials.length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 || trials.length === 0 ? 1 : 0;
