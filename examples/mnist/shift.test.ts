import { expect, it } from "vitest";
import { SHIFT, shift } from "./shift.js";

const digits = (grey: number) => ({
  count: 40,
  images: new Uint8Array(40 * 784).fill(grey),
  labels: new Uint8Array(40),
});

it.each([0, 128, 255])(
  "grey %i: less contrast, a ground, noise of the deviation that it says",
  (grey) => {
    const given = digits(grey);
    const { images, labels, count } = shift(given, 1);
    expect([labels, count]).toEqual([given.labels, 40]);
    expect(given.images.every((value) => value === grey)).toBe(true);
    const mean = images.reduce((sum, value) => sum + value, 0) / images.length;
    const squares = images.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    // Cut off at 0: at grey 0 the ground lies 2.4 deviations above it.
    expect(Math.abs(mean - (SHIFT.contrast * grey + SHIFT.ground))).toBeLessThan(0.5);
    expect(Math.sqrt(squares / images.length) / SHIFT.noise).toBeCloseTo(1, 1);
  },
);

it("the same for the same seed", () => {
  expect(shift(digits(9), 3)).toEqual(shift(digits(9), 3));
  expect(shift(digits(9), 3)).not.toEqual(shift(digits(9), 4));
});
