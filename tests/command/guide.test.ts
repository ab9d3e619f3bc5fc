// What the guide on moving models says that the command prints.

import { writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { blocksOf } from "../support/examples.js";
import { bytesAt, COMMAND, folder, node } from "./command.js";

const { at } = folder();
const guide = Buffer.from(
  bytesAt(new URL("../../docs/guides/moving-models.md", import.meta.url)),
).toString();
const blocks = blocksOf(guide);
const runs = blocks.flatMap(({ language, code }, i) => {
  const after = blocks[i + 1];
  return language === "sh" && after?.language === "text" ? [[code.trim(), after.code]] : [];
});

describe("the guide on moving models", () => {
  test("has runs of the command", () => expect(runs.length).toBeGreaterThan(0));

  test.each(runs)("%s", async (line, printed) => {
    for (const [, name, path] of guide.matchAll(/^<!-- file: (\S+) (\S+) -->$/gm)) {
      writeFileSync(at(name!), bytesAt(new URL(`../../${path}`, import.meta.url)));
    }
    const [npx, command, ...args] = line!.split(" ");
    expect([npx, command]).toEqual(["npx", "batchnorm-wasm"]);
    expect(await node([COMMAND, ...args], at("."), "80")).toEqual({
      code: 0,
      stdout: printed,
      stderr: "",
    });
  });
});
