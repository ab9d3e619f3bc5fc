// Runs every TypeScript example of the README, each by itself, against the built package, and
// compares what it prints with the text block behind it.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { blocksOf, compile, programOf, run, write } from "./support/examples.js";

const blocks = blocksOf(readFileSync(new URL("../README.md", import.meta.url), "utf8"));
const programs = blocks.flatMap((block, i) => {
  if (block.language !== "ts") return [];
  const printed = blocks.slice(i + 1, i + 2).filter(({ language }) => language === "text");
  return [programOf(`readme-${i + 1}`, [block, ...printed])];
});

describe("README", () => {
  it("has examples that compile", () => {
    expect(programs.length).toBeGreaterThanOrEqual(4);
    programs.forEach(write);
    expect(compile(programs)).toEqual([]);
  });

  it.each(programs)("$name runs", async (program) => {
    write(program);
    expect(await run(program)).toEqual(program.steps.map(({ prints }) => prints));
  });
});
