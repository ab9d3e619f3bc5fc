// 10,000 mutated files of each format: an error of ours or a correct load each time, soon, in little
// memory. See fuzz.ts for what is done to them, and what counts as correct.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const FILES = 10_000;
/** Beyond the files, which are of a few KB, up to 1 MB where they grow. */
const MEBIBYTES = 64;

const script = fileURLToPath(new URL("fuzz.ts", import.meta.url));

const FORMATS = [
  "torch",
  "own",
  "keras",
  "fold",
  "onnx",
  "networks",
  "pt",
  "model",
  "h5",
  "keras-file",
];
// 10 to 60 seconds each on two quiet cores; on a machine that has other work they only wait.
test.concurrent.each(FORMATS)("%s", { timeout: 300_000 }, async (format) => {
  // Garbage is collected before it counts: the heap holds no more than this. Threads that collect would be late on a
  // machine that has other work.
  const flags = [
    `--max-old-space-size=${MEBIBYTES}`,
    "--max-semi-space-size=1",
    "--single-threaded-gc",
  ];
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...flags, "--import", "tsx", script, format, String(FILES)],
    { cwd: fileURLToPath(new URL("../..", import.meta.url)) },
  );
  const { files, results, slowest, mebibytes } = JSON.parse(stdout);
  const { loaded, ...errors } = results;
  const refused = Object.values<number>(errors).reduce((a, b) => a + b, 0);
  expect(loaded + refused).toBe(files);
  expect(files).toBe(FILES);
  expect(loaded).toBeGreaterThan(500);
  expect(refused).toBeGreaterThan(1000);
  expect(mebibytes).toBeLessThan(MEBIBYTES);
  expect(slowest).toBeLessThan(2500); // milliseconds; 444 at most on a machine that had other work
});
