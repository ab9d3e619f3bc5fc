// How the benchmark times sides: a call that is slow by chance, while a side is warmed up, decides nothing.

import { expect, test } from "vitest";
import { makeCase, makeData } from "../bench/cases.js";
import { measure, warm } from "../bench/measure.js";
import type { Peer } from "../bench/peers/peer.js";

const EFFORT = { rounds: 7, burst: 5 };
const CASE = makeCase([4, 4], "NC");

/** A side whose calls take these milliseconds one after the other, and `then` after that; `made` has all of them. */
function sideOf(name: string, slow: readonly number[], then: number): Peer & { made: number[] } {
  const made: number[] = [];
  const call = (): number => {
    made.push(slow[made.length] ?? then);
    return made.at(-1)!;
  };
  const sample = (calls: number): number => {
    let all = 0;
    for (let i = 0; i < calls; i++) all += call();
    return all;
  };
  const open = async () => ({ answer: () => ({}), sample });
  return { name, version: "", kind: "copy", layouts: ["NC"], ops: ["infer"], open, made };
}

const timed = async (slow: readonly number[], then: number) => {
  const side = sideOf("slow at first", slow, then);
  const [timing] = await measure(CASE, "infer", makeData(CASE), [side], EFFORT);
  return { ...timing!, calls: side.made.length };
};

test.each([
  ["the first call", [400]],
  ["the first calls", [400, 400, 55]],
  ["the warm-up and all of the first burst", [70, 70, 70]],
])("%s slow by chance: the time is that of the others", async (_, slow) => {
  const { time, noise } = await timed(slow, 3);
  expect(time).toBe(3000);
  expect(noise).toBe(1);
});

test("a side that is slow indeed has fewer rounds", async () => {
  expect((await timed([], 3)).calls).toBeGreaterThan(2 * EFFORT.rounds);
  const { time, calls } = await timed([], 70);
  expect(time).toBe(70_000);
  expect(calls).toBe(4); // two to warm up, and two bursts
});

test("of the last two samples of a warm-up the faster one counts", async () => {
  for (const slow of [[100], [3, 100]]) {
    const side = sideOf("slow once", slow, 3);
    const session = await side.open(CASE, "infer", makeData(CASE));
    expect(await warm(session)).toBe(3);
  }
});
