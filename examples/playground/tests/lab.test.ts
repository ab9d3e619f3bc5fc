import type { BatchNorm } from "batchnorm-wasm";
import { beforeEach, expect, test } from "vitest";
import { answer, inputOf, inputsOf, modelOf, type NetworkState } from "../src/answer.js";
import { Lab } from "../src/lab.js";
import { unpackDigits } from "../src/packed.js";
import { file } from "./files.js";

const [network, heldOut, training] = await Promise.all([
  file("network"),
  file("held-out"),
  file("training"),
]);
let lab: Lab;
beforeEach(() => {
  lab = new Lab({ network, heldOut, training });
});

const norms = ({ layers }: NetworkState) => layers.flatMap(({ norm }) => norm ?? []);

test("running averages answer well, small mini-batches badly, large ones well again", () => {
  const shares = [1, 2, 16, 256].map((size) => lab.examine(0, size));
  for (const { running } of shares) expect(running).toBe(shares[0].running);
  expect(shares[0].running).toBeGreaterThan(0.96);
  const [one, two, sixteen, many] = shares.map(({ miniBatch }) => miniBatch);
  expect(one).toBeLessThan(0.15); // one class for all digits
  expect(two).toBeLessThan(0.6);
  expect(sixteen).toBeGreaterThan(two);
  expect(many).toBeGreaterThan(0.96);
});

test("the page's answer to a held-out digit is the one counted", () => {
  const digits = unpackDigits(heldOut);
  const opened = modelOf(lab.state());
  const right = Array.from({ length: 200 }, (_, i) => {
    const image = digits.images.subarray(784 * i, 784 * (i + 1));
    const { running, miniBatch, refusal } = answer(opened, inputOf(image, 0), new Float32Array(0));
    expect(miniBatch.passages[0].after).toEqual(opened.layers[0].norm?.beta);
    expect(refusal).toMatch(/^SingleValueError: x: expected at least two values/);
    return running.digit === digits.labels[i];
  });
  expect(right.filter(Boolean).length / 200).toBeGreaterThan(0.93);
});

test("a passage names what its values were normalized by", () => {
  const digits = unpackDigits(heldOut);
  lab.adapt(1);
  for (const opened of [
    modelOf(new Lab({ network, heldOut, training }).state()),
    modelOf(lab.state()),
  ]) {
    const image = digits.images.subarray(0, 784);
    const { running, miniBatch } = answer(opened, inputOf(image, 1), inputsOf(digits, 1, 15));
    for (const { passages } of [running, miniBatch]) {
      passages.forEach(({ before, after, mean, deviation }, index) => {
        const { gamma, beta } = opened.layers[index].norm as BatchNorm;
        after.forEach((y, c) => {
          const x = (before[c] - mean[c]) / deviation[c];
          const expected = (gamma as Float32Array)[c] * x + (beta as Float32Array)[c];
          expect(Math.abs(y - expected)).toBeLessThan(1e-5);
        });
      });
    }
  }
});

test("a shift is diagnosed, adapt repairs it, undo takes it back", () => {
  const before = lab.state();
  const shifted = lab.examine(1, 16);
  expect(shifted.running).toBeLessThan(0.6);
  expect(shifted.layers.map(({ verdict }) => verdict)).toEqual(["drifted", "drifted", "drifted"]);
  lab.adapt(1);
  const adapted = lab.examine(1, 16);
  expect(adapted.running).toBe(shifted.running);
  expect(adapted.adapted).toBeGreaterThan(0.85);
  for (const { verdict, meanDrift } of adapted.layers) {
    expect(verdict).toBe("fit");
    expect(Math.max(...meanDrift.map(Math.abs))).toBeLessThan(0.5);
  }
  expect(norms(lab.state())).toEqual(norms(before));
  lab.undo();
  expect(lab.state()).toEqual(before);
  expect(lab.examine(1, 16)).toEqual(shifted);
});

test("a network trained here for 60 steps with decay 0.99 needs calibrate", async () => {
  lab.setDecay(0.99);
  lab.restart(7);
  expect(lab.examine(0, 60).layers[0].verdict).toBe("untrained");
  const loss = lab.advance(60);
  expect(loss).toBeLessThan(2.3); // that of guessing
  const young = lab.examine(0, 60);
  expect(young.layers[0].verdict).toBe("undertrained");
  expect(young.miniBatch).toBeGreaterThan(0.6);
  const before = lab.state();
  const progress: number[] = [];
  await lab.calibrate((share) => progress.push(share));
  expect(progress).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => n / 8));
  const exact = lab.examine(0, 60);
  expect(exact.running).toBeGreaterThan(young.running + 0.1);
  expect(exact.layers.map(({ verdict }) => verdict)).toEqual(["fit", "fit", "fit"]);
  lab.undo();
  expect(lab.state()).toEqual(before);
});

test("another decay afterwards is as if it had been so from the start", async () => {
  lab.setDecay(0.5);
  lab.restart(3);
  lab.advance(5);
  await lab.calibrate();
  lab.advance(5);
  const expected = norms(lab.state());
  lab.setDecay(0.99);
  lab.restart(3);
  lab.advance(5);
  await lab.calibrate();
  lab.advance(5);
  const later = norms(lab.state());
  expect(later[0].runningMean).not.toEqual(expected[0].runningMean);
  lab.setDecay(0.5);
  norms(lab.state()).forEach(({ runningMean, runningVariance, batchesSeen, gamma }, i) => {
    expect(batchesSeen).toBe(expected[i].batchesSeen);
    expect(gamma).toEqual(expected[i].gamma);
    const compare = (values: readonly unknown[], others: readonly unknown[]) =>
      values.forEach((value, c) => {
        expect(Number(value)).toBeCloseTo(Number(others[c]), 12);
      });
    compare(runningMean, expected[i].runningMean);
    compare(runningVariance, expected[i].runningVariance);
  });
});

test("the history of a unit ends where its averages are", async () => {
  lab.restart(3);
  lab.advance(4);
  const first = lab.history(1, 7);
  expect(first.step).toEqual([0, 1, 2, 3, 4]);
  expect([first.runningMean[0], first.runningVariance[0]]).toEqual([0, 1]);
  expect(first.mean[0]).toBeNull();
  await lab.calibrate();
  lab.advance(2);
  const { step, mean, variance, runningMean, runningVariance } = lab.history(1, 7);
  expect(step).toEqual([0, 1, 2, 3, 4, 4, 5, 6]);
  expect(mean[5]).toBeNull(); // calibrate is no mini-batch
  const norm = norms(lab.state())[1];
  expect(runningMean.at(-1)).toBeCloseTo(Number(norm.runningMean[7]), 12);
  expect(runningVariance.at(-1)).toBeCloseTo(Number(norm.runningVariance[7]), 12);
  for (const k of [1, 2, 3, 4, 6, 7]) {
    const expected = 0.9 * runningMean[k - 1] + 0.1 * (mean[k] as number);
    expect(runningMean[k]).toBeCloseTo(expected, 12);
    const v = 0.9 * runningVariance[k - 1] + 0.1 * (variance[k] as number);
    expect(runningVariance[k]).toBeCloseTo(v, 12);
  }
});

test("restore is where it began", () => {
  const start = lab.state();
  lab.advance(3);
  expect(lab.state().step).toBe(3);
  lab.restore();
  expect(lab.state()).toEqual(start);
});
