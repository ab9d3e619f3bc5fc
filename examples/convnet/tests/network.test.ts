/** The network on some digits of the playground: it learns, and its folded form answers as it does. */

import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { type Digits, pixels } from "../../mnist/digits.js";
import { unpackDigits } from "../../playground/src/packed.js";
import { file } from "../../playground/tests/files.js";
import { startBackend } from "../backend.js";
import { foldNetwork, Served } from "../served.js";
import { accuracyOf, train } from "../train.js";

let digits: Digits;
let heldOut: Digits;

beforeAll(async () => {
  await startBackend();
  digits = unpackDigits(await file("training"));
  heldOut = unpackDigits(await file("held-out"));
});

const mean = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;

test("learns, and is the same network when it is folded and served", async () => {
  const [{ network, losses }] = await train(digits, { sides: ["ours"], steps: 30, seed: 1 });
  expect(losses[0]).toBeGreaterThan(2);
  expect(mean(losses.slice(-5))).toBeLessThan(0.8);
  expect(accuracyOf(network, { ...heldOut, count: 300 })).toBeGreaterThan(0.7);

  const folded = foldNetwork(network);
  const served = new Served(folded);
  for (let digit = 0; digit < 50; digit++) {
    const scores = served.scores(pixels(heldOut, Uint32Array.of(digit)));
    const wanted = network.predict(heldOut, Uint32Array.of(digit));
    const size = Math.max(1, ...wanted.map(Math.abs));
    // float32 rounds by 6e-8; three layers of up to 784 terms each.
    scores.forEach((score, k) => {
      expect(Math.abs(score - wanted[k])).toBeLessThan(3e-6 * size);
    });
  }
  expect(folded.maxDifference).toBeLessThan(1e-5);
  served.dispose();
  network.dispose();
});

test("tfjs' own layers beside it go the same way, and nothing is left behind", async () => {
  const before = tf.memory().numTensors;
  const sides = await train(digits, { sides: ["ours", "tfjs"], steps: 4, seed: 2 });
  const [ours, tfjs] = sides;
  // The same network, but tfjs adds up 50,176 values for a mean in float32.
  expect(Math.abs(ours.losses[0] - tfjs.losses[0])).toBeLessThan(1e-4 * tfjs.losses[0]);
  ours.losses.forEach((loss, i) => {
    expect(Math.abs(loss - tfjs.losses[i])).toBeLessThan(0.01 * loss);
  });
  const means = sides.map(({ network }) => Array.from(network.norms[0].runningMean));
  means[0].forEach((m, c) => {
    expect(m).toBeCloseTo(means[1][c], 2);
  });
  for (const { network } of sides) network.dispose();
  // The dispose of tfjs' momentum optimizer forgets one number, the momentum.
  expect(tf.memory().numTensors).toBe(before + sides.length);
});
