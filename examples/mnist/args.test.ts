import { expect, test } from "vitest";
import { DEFAULTS, parseArguments } from "./args.js";

test("defaults", () => {
  expect(parseArguments([])).toEqual({ ...DEFAULTS, help: false });
});

test("every flag", () => {
  const flags = ["--steps", "50000", "--seed=7", "--learning-rate", "1e-1"];
  const expected = { steps: 50_000, seed: 7, learningRate: 0.1, help: false };
  expect(parseArguments(flags)).toEqual(expected);
  expect(parseArguments(["--help"]).help).toBe(true);
  expect(parseArguments(["-h"]).help).toBe(true);
});

test.each([
  {
    flags: ["--steps", "0"],
    message: '--steps: expected a whole number from 1 to 10000000, got "0"',
  },
  { flags: ["--steps", "2.5"], message: 'got "2.5"' },
  { flags: ["--steps", "many"], message: 'got "many"' },
  { flags: ["--steps="], message: 'got ""' },
  {
    flags: ["--seed", "4294967296"],
    message: "--seed: expected a whole number from 0 to 4294967295",
  },
  {
    flags: ["--learning-rate", "0"],
    message: '--learning-rate: expected a number above 0, got "0"',
  },
  { flags: ["--learning-rate", "NaN"], message: 'got "NaN"' },
  { flags: ["--learning-rate", " "], message: 'got " "' },
  { flags: ["--step", "5"], message: "--step" },
  { flags: ["--steps"], message: "--steps" },
  { flags: ["5000"], message: "5000" },
])("refuses $flags", ({ flags, message }) => {
  expect(() => parseArguments(flags)).toThrow(message);
});
