import { expect, test } from "vitest";
import { duration, estimator } from "./remaining.js";

test("the time left is said once it is known, without the first second", () => {
  const left = estimator(1000);
  expect(left(1, 0.6)).toBe("?"); // as if all of it took ten minutes
  expect(left(2, 1.1)).toBe("?");
  expect(left(90, 2)).toBe("?");
  expect(left(202, 3.1)).toBe("8s"); // 100 a second
  expect(left(602, 7.1)).toBe("4s");
  expect(left(1000, 11)).toBe("0s");
});

test("nothing is said while nothing is done", () => {
  const left = estimator(10);
  expect(left(0, 5)).toBe("?");
  expect(left(0, 50)).toBe("?");
});

test("minutes", () => {
  expect([42, 65, 3600].map(duration)).toEqual(["42s", "1m05s", "60m00s"]);
});
