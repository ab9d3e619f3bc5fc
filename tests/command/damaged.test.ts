// Damaged files: whatever is in them, the command ends with a line and an exit code, and prints no stack.

import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { BYTES, pick } from "../state/mutations.js";
import { random } from "../support/data.js";
import { bytesAt, command, folder, golden } from "./command.js";

const { at } = folder();

const FILES = [
  "network.safetensors",
  "torch/module.pt",
  "networks/residual.onnx",
  "keras-files/sequential.keras",
  "keras-files/functional.h5",
  "keras/model.json",
];

test.each(FILES)("%s", (name) => {
  const bytes = bytesAt(golden(name));
  const path = at(name.split("/").at(-1)!);
  const next = random(bytes.length);
  const codes = new Set<number>();
  for (let i = 0; i < 150; i++) {
    writeFileSync(path, pick(next, BYTES)(bytes, next));
    for (const args of [
      ["inspect", path],
      ["convert", path, "-o", at("norms.onnx"), "--force"],
      ["fold", path, "-o", at("folded"), "--force"],
    ]) {
      const { code, stdout, stderr } = command(args);
      codes.add(code);
      expect([0, 1, 2]).toContain(code);
      expect(stderr).toMatch(/^(batchnorm-wasm: .*\n)?$/);
      expect(code === 0 || stderr !== "" || stdout.includes("not read")).toBe(true);
      expect(stdout + stderr).not.toMatch(
        /\n {4}at |Cannot read|is not a function|is not iterable/,
      );
    }
  }
  expect(codes).toContain(1);
});
