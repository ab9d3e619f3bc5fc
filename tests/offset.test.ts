// y where γ·x̂ and β are about as large as each other: every rounding on the way counts in full then. How often y is
// farther from float64 than what is usual, and how far. The figures of docs/guides/exactness.md are of
//
//   OFFSET_VALUES=6e6 npx vitest run tests/offset.test.ts --testTimeout=0

import { BatchNorm } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { gaussian, random } from "./support/data.js";
import { Y_ERROR, Y_OFFSET_ERROR, Y_OFFSET_SHARE } from "./support/limits.js";

type Draw = (next: () => number) => number;

const DATA: Readonly<Record<string, Draw>> = {
  "pixels k/255": (next) => Math.floor(256 * next()) / 255,
  "uniform numbers": (next) => next(),
  "exponential numbers": (next) => -Math.log(1 - next()),
  "normal numbers": gaussian,
  "normal numbers around 2": (next) => gaussian(next) + 2,
  "normal numbers after a ReLU": (next) => Math.max(0, gaussian(next)),
};

const CHANNELS = 64;

/** Errors of y as shares of max(1, |γ·x̂|, |β|). */
interface Errors {
  readonly values: number;
  readonly beyond: number;
  readonly worst: number;
}

function errorsOf(draw: Draw, m: number, gamma: number, beta: number, values: number): Errors {
  const next = random(m);
  const bn = new BatchNorm(CHANNELS);
  bn.gamma!.fill(gamma);
  bn.beta!.fill(beta);
  const [x, y] = [new Float32Array(m * CHANNELS), new Float32Array(m * CHANNELS)];
  let [count, beyond, worst] = [0, 0, 0];
  while (count < values) {
    for (let i = 0; i < x.length; i++) x[i] = draw(next);
    bn.train(x, { out: y });
    for (let c = 0; c < CHANNELS; c++) {
      let [sum, squares] = [0, 0];
      for (let i = c; i < x.length; i += CHANNELS) sum += x[i]!;
      const mean = sum / m;
      for (let i = c; i < x.length; i += CHANNELS) squares += (x[i]! - mean) ** 2;
      const slope = gamma / Math.sqrt(squares / m + bn.epsilon);
      for (let i = c; i < x.length; i += CHANNELS) {
        const scaled = slope * (x[i]! - mean);
        const most = Math.max(1, Math.abs(scaled), Math.abs(beta));
        const error = Math.abs(y[i]! - scaled - beta) / most;
        if (error > Y_ERROR) beyond++;
        if (error > worst) worst = error;
      }
    }
    count += x.length;
  }
  return { values: count, beyond, worst };
}

/** Examples, and with them the values of a channel. */
const SIZES = [8, 16, 32, 4096];

const VALUES = Number(process.env.OFFSET_VALUES ?? 3e5);

describe.each(Object.entries(DATA))("%s", (name, draw) => {
  const measured = (gamma: number, beta: number): Errors => {
    const all = SIZES.map((m) => errorsOf(draw, m, gamma, beta, VALUES));
    if (process.env.OFFSET_VALUES) console.log(name, { gamma, beta }, all);
    return {
      values: all.reduce((sum, { values }) => sum + values, 0),
      beyond: all.reduce((sum, { beyond }) => sum + beyond, 0),
      worst: Math.max(...all.map(({ worst }) => worst)),
    };
  };

  test("without β no value is beyond what is usual", () => {
    for (const gamma of [1, 5]) expect(measured(gamma, 0).worst).toBeLessThan(Y_ERROR);
  });

  test.each([
    [1, 1],
    [1, -1],
    [5, -4],
  ])("γ = %d, β = %d: few values are, and by little", (gamma, beta) => {
    const { values, beyond, worst } = measured(gamma, beta);
    expect(beyond / values).toBeLessThan(Y_OFFSET_SHARE);
    expect(worst).toBeLessThan(Y_OFFSET_ERROR);
  });
});
