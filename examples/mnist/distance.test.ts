import { expect, it } from "vitest";
import { distance } from "./distance.js";

const exact = [
  { mean: Float64Array.of(1, 2), variance: Float64Array.of(3, 0) },
  { mean: Float64Array.of(0), variance: Float64Array.of(8) },
];

it("root mean square of the drift, epsilon counted in, over all channels of all layers", () => {
  const averages = [
    { mean: Float64Array.of(5, 2), variance: Float64Array.of(7, 1) },
    { mean: Float64Array.of(-3), variance: Float64Array.of(8) },
  ];
  const { mean, variance } = distance(averages, exact, 1);
  expect(mean).toBeCloseTo(Math.sqrt((2 ** 2 + 0 + 1 ** 2) / 3), 12);
  expect(variance).toBeCloseTo(Math.sqrt((Math.LN2 ** 2 + Math.LN2 ** 2 + 0) / 3), 12);
});

it("0 where nothing is off", () => {
  expect(distance(exact, exact, 1e-5)).toEqual({ mean: 0, variance: 0 });
});
