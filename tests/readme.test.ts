// Runs every TypeScript and JavaScript example of the README, each by itself, against the built package, and compares
// what it prints with the text block behind it. The tables of speed and size are compared with the record and the budgets.

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

  it("has the sizes that scripts/size.mjs allows", () => {
    const budgets = readFileSync(new URL("../scripts/size.mjs", import.meta.url), "utf8");
    const allowed = Object.fromEntries(
      [...budgets.matchAll(/^ {2}(["'])(.*)\1: ([\d.]+),$/gm)].map(([, , name, size]) => [
        name,
        size,
      ]),
    );
    const stated = [...readme.matchAll(/^\| .* \| ([\d.]+) KB \|$/gm)].map(([, size]) => size);
    const rows = ["index.js", 'BatchNorm of "."', 'FrozenBatchNorm of "."', "infer.js"];
    rows.push('threads beyond "."', "state.js", "hdf5.js", "tfjs.js", "tfjs-layers.js");
    expect(stated).toEqual(rows.map((name) => allowed[name]));
  });

  it("has the speed of the latest record, as npm run bench -- --report writes it", () => {
    expect(readme).toBe(withSpeed(readme));
  });
});
