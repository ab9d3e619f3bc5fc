import { expect, test } from "vitest";
import { Random } from "./random.js";

test("the same seed gives the same numbers, another seed others", () => {
  const draw = (seed: number) => {
    const random = new Random(seed);
    return Array.from({ length: 5 }, () => random.bits());
  };
  expect(draw(1)).toEqual(draw(1));
  expect(draw(1)).not.toEqual(draw(2));
});

test("normal deviates have mean 0 and variance 1", () => {
  const random = new Random(1);
  const count = 100_000;
  const values = Array.from({ length: count }, () => random.normal());
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  // Five standard errors: 1 / √count of the mean, √(2 / count) of the variance.
  expect(Math.abs(mean)).toBeLessThan(5 / Math.sqrt(count));
  expect(Math.abs(variance - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
});

test("a shuffle keeps every value and moves most", () => {
  const order = new Random(1).shuffle(Uint32Array.from({ length: 1000 }, (_, i) => i));
  expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  expect(order.filter((value, i) => value === i).length).toBeLessThan(10);
});
