// Arrays are the values that they view: each argument of each method, in every disguise, gives the bits of the plain
// array, and no code of it runs; what is no such array is refused, and nothing has changed.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { RIGHT, WRONG } from "./arrays.js";
import { METHODS } from "./methods.js";
import { trial } from "./trial.js";

const ROWS = 12; // More values than a frozen layer computes in JavaScript.

for (const method of METHODS) {
  describe(method.name, () => {
    for (const slot of Object.keys(method.slots)) {
      test.each(Object.keys(RIGHT))(`${slot}: %s`, async (way) => {
        expect(await trial(method, ROWS, { [slot]: way })).toBe("right");
      });

      test.each(Object.keys(WRONG))(`${slot}: %s is refused`, async (way) => {
        expect(await trial(method, ROWS, { [slot]: way })).toMatch(/^(Shape|Option)Error$/);
      });
    }
  });
}

test("all arrays at once in every disguise, and of every size", async () => {
  for (const method of METHODS) {
    for (const way of Object.keys(RIGHT)) {
      const ways = Object.fromEntries(Object.keys(method.slots).map((slot) => [slot, way]));
      for (const rows of [2, 4, 300]) expect(await trial(method, rows, ways)).toBe("right");
    }
  }
});

test("arrays that go through the kernels in parts", async () => {
  const many = 22_000; // 66,000 values, more than a stream buffer holds.
  for (const method of METHODS.filter(({ slots }) => "x" in slots)) {
    const way = {
      x: "a throwing subclass",
      out: "a throwing subclass",
      dx: "with lying members",
      add: "a throwing subclass",
    };
    const ways = Object.fromEntries(Object.entries(way).filter(([slot]) => slot in method.slots));
    expect(await trial(method, many, ways)).toBe("right");
  }
});

test("random cases", async () => {
  const script = fileURLToPath(new URL("fuzz.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--import", "tsx", script, process.env.HOSTILE_CASES ?? "600"],
    { cwd: fileURLToPath(new URL("../..", import.meta.url)) },
  );
  const { cases, results } = JSON.parse(stdout);
  const { right, ...errors } = results;
  expect(right).toBeGreaterThan(0.4 * cases);
  expect(right + Object.values<number>(errors).reduce((a, b) => a + b, 0)).toBe(cases);
});
