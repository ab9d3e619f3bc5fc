// What the built package writes, loaded by the programs it is for: see tests/golden/check.mjs.

import { execFile, execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";

const script = fileURLToPath(new URL("../golden/check.mjs", import.meta.url));

/** A line for every file that a program found to hold what was written. */
async function loaded(program: "python" | "tfjs"): Promise<string[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [script, program]);
  return stdout.split("\n").filter((line) => / loads it, \d (layers|nodes) equal$/.test(line));
}

function hasPython(): boolean {
  try {
    execFileSync("/usr/bin/python3", ["-c", "import torch, onnx"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

describe("what is written", () => {
  test("TensorFlow.js loads it", async () => {
    expect((await loaded("tfjs")).length).toBe(3);
  });

  test.skipIf(!hasPython())("PyTorch and onnx load it", async () => {
    expect((await loaded("python")).length).toBe(9);
  });
});
