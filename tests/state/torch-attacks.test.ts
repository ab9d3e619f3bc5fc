// Files that are made to take all memory or time: an error of ours or a right load, soon, in a process
// whose heap is small.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, describe, expect, test } from "vitest";
import { ATTACKS } from "./torch-attacks.js";

/** What the process may grow by beyond the file that it reads. */
const MEBIBYTES = 64;

const folder = mkdtempSync(join(tmpdir(), "batchnorm-wasm-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("files that are made to take all memory or time", async () => {
  for (const [name, [, make]] of Object.entries(ATTACKS)) writeFileSync(join(folder, name), make());
  const script = fileURLToPath(new URL("torch-attacked.ts", import.meta.url));
  const flags = [
    `--max-old-space-size=${MEBIBYTES}`,
    "--max-semi-space-size=1",
    "--single-threaded-gc",
  ];
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...flags, "--import", "tsx", script, folder],
    { cwd: fileURLToPath(new URL("../..", import.meta.url)) },
  );
  const results = JSON.parse(stdout);

  test.each(Object.keys(ATTACKS))("%s", (name) => {
    const { message, milliseconds, mebibytes } = results[name];
    expect(message).toMatch(ATTACKS[name]![0]);
    expect(mebibytes).toBeLessThan(MEBIBYTES);
    expect(milliseconds).toBeLessThan(10_000); // 1,400 at most on a machine shared by six
  });
});
