// Random calls with hostile arrays:
//
//   node --import tsx tests/hostile/fuzz.ts [cases] [seed]
//
// Each is a method of methods.ts with every array in some disguise of arrays.ts, one of them wrong now and then, after
// kernel memory was filled with a marker. It gives the bits that plain arrays give, or an error of ours after which
// nothing has changed. Prints what happened as JSON; a case that does neither ends the process, with its number and seed.

import { random } from "../support/data.js";
import { RIGHT, WRONG } from "./arrays.js";
import { METHODS } from "./methods.js";
import { trial } from "./trial.js";

const [count = "600", from = "20150211"] = process.argv.slice(2);
const [cases, seed] = [Number(count), Number(from)];
const next = random(seed);
const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)]!;
const [right, wrong] = [Object.keys(RIGHT), Object.keys(WRONG)];

const results: Record<string, number> = {};
for (let i = 0; i < cases; i++) {
  const method = pick(METHODS);
  const rows = pick([2, 3, 4, 5, 11, 12, 64, 130]);
  const ways: Record<string, string> = {};
  for (const slot of Object.keys(method.slots)) ways[slot] = pick(right);
  if (next() < 0.4) ways[pick(Object.keys(method.slots))] = pick(wrong);
  try {
    const result = await trial(method, rows, ways);
    results[result] = (results[result] ?? 0) + 1;
  } catch (error) {
    console.error(
      `case ${i} of seed ${seed}: ${method.name}, ${rows} rows, ${JSON.stringify(ways)}`,
    );
    throw error;
  }
}
console.log(JSON.stringify({ cases, seed, results }));
