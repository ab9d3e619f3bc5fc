// Runs every TypeScript and JavaScript example of the README, each by itself, against the built package, and compares
// what it prints with the text block behind it. The README's table of speed is compared with the record.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { withSpeed } from "../bench/readme.js";
import { blocksOf, compile, programOf, run, write } from "./support/examples.js";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const blocks = blocksOf(readme);
const programs = blocks.flatMap((block, i) => {
  if (block.language !== "ts" && block.language !== "js") return [];
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

  it("has the speed of the latest record, as npm run bench -- --report writes it", () => {
    expect(readme).toBe(withSpeed(readme));
  });
});
