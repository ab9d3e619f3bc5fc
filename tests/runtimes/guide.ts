// What docs/guides/places.md says, as the suite uses it: its blocks of configuration, and its table, each row of which that
// says "suite" names the trials that it means.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./project.js";
import type { Trial } from "./trial.js";

const GUIDE = "docs/guides/places.md";
const text = readFileSync(join(ROOT, GUIDE), "utf8");

/** The block of code in the guide that has `part` in it: what a user copies is what the suite runs with. */
export function blockWith(part: string): string {
  const blocks = [...text.matchAll(/^```\w+.*\n([\s\S]*?)^```$/gm)].map(([, code]) => code!);
  const found = blocks.filter((code) => code.includes(part));
  if (found.length !== 1) {
    throw new Error(`${GUIDE}: expected one block with ${part}, got ${found.length}`);
  }
  return found[0]!;
}

/** The names of trials in the rows of the guide's table. */
function named(): string[] {
  const rows = text.split("\n").filter((line) => line.startsWith("| "));
  return rows.flatMap((row) => {
    const tried = row.split("|").at(-2)!;
    const names = [...tried.matchAll(/"([^"]+)"/g)].map(([, name]) => name!);
    const holds = /\bsuite\b/.test(tried) ? names.length > 0 : names.length === 0;
    if (!holds)
      throw new Error(`${GUIDE}: expected the names of trials where "suite" is, got ${row}`);
    return names;
  });
}

/** Holds the table against the trials: those that it names exist, and it names each that is one of a place. */
export const guideTrial = (trials: readonly Trial[]): Trial => ({
  name: "The table of places",
  tags: ["places", "guide"],
  async run() {
    const names = new Set(named());
    const all = new Set(trials.map(({ name }) => name));
    const places = trials.filter(
      ({ tags }) => tags.includes("places") || tags.includes("runtimes"),
    );
    const unknown = [...names].filter((name) => !all.has(name));
    const left = places.map(({ name }) => name).filter((name) => !names.has(name));
    if (unknown.length + left.length > 0) {
      const lists = [unknown, left].map((list) => list.join("; ") || "none");
      throw new Error(`${GUIDE}: named without a trial: ${lists[0]}; not named: ${lists[1]}`);
    }
    return { version: "", found: `${names.size} trials, named as they are` };
  },
});
