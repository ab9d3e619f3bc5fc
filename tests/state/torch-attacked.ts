// Reads the files of a folder, each as PyTorch's, in this process, whose heap is small:
//
//   node --max-old-space-size=64 --import tsx tests/state/torch-attacked.ts FOLDER
//
// Prints as JSON what came of each: the message of the error or "loaded", the milliseconds, and how many
// MiB the process grew beyond the file.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BatchNormError } from "batchnorm-wasm";
import { readTorch } from "batchnorm-wasm/state";

const folder = process.argv[2]!;
const results: Record<string, { message: string; milliseconds: number; mebibytes: number }> = {};
for (const name of readdirSync(folder)) {
  const file = readFileSync(join(folder, name));
  const before = process.resourceUsage().maxRSS;
  const start = performance.now();
  let message = "loaded";
  try {
    readTorch(file).loadAll({ eps: 1, layout: "NC", onWarning: () => {} });
  } catch (error) {
    if (!(error instanceof BatchNormError)) throw new Error(name, { cause: error });
    message = error.message;
  }
  const milliseconds = Math.round(performance.now() - start);
  const mebibytes = Math.round((process.resourceUsage().maxRSS - before) / 1024);
  results[name] = { message, milliseconds, mebibytes };
}
console.log(JSON.stringify(results, null, 1));
