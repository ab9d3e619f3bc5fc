import type { BatchNorm } from "batchnorm-wasm";
import { expect, test } from "vitest";
import { accuracy, inOrder, pixels } from "../../mnist/digits.js";
import { initialWeights, untrained } from "../../mnist/layers.js";
import { Random } from "../../mnist/random.js";
import { byRunningAverages, logits } from "../src/network.js";
import {
  fromBfloat16,
  packDigits,
  packNetwork,
  toBfloat16,
  unpackDigits,
  unpackNetwork,
} from "../src/packed.js";
import { file } from "./files.js";

const ABOUT = { steps: 3, seed: 5, learningRate: 0.5, batchSize: 60, testAccuracy: 0.25 };

test("digits come back at sixteen grey levels", () => {
  const random = new Random(1);
  const images = Uint8Array.from({ length: 3 * 784 }, () => random.bits() & 255);
  const labels = Uint8Array.of(7, 0, 9);
  const packed = packDigits({ count: 3, images, labels });
  expect(packed.length).toBe(3 * 393);
  const back = unpackDigits(packed);
  expect(back.count).toBe(3);
  expect(back.labels).toEqual(labels);
  const off = back.images.map((grey, i) => Math.abs(grey - images[i]));
  expect(Math.max(...off)).toBe(8); // half a level of 17
  expect(unpackDigits(packDigits(back))).toEqual(back);
});

test.each([
  { what: "half a digit", bytes: new Uint8Array(500), message: "multiple of 393 bytes, got 500" },
  { what: "a wrong label", bytes: new Uint8Array(393).fill(10, 0, 1), message: "0 to 9, got 10" },
])("refuses $what", ({ bytes, message }) => {
  expect(() => unpackDigits(bytes)).toThrow(message);
});

const rounded = (values: Float32Array): Float32Array => {
  const { high, low } = toBfloat16(values);
  return fromBfloat16(high, low);
};

test("bfloat16: rounded to nearest, ties to even", () => {
  const step = 2 ** -7; // between the numbers from 1 to 2
  const round = (value: number) => rounded(Float32Array.of(value))[0];
  for (const exact of [0, -0, 1, -1, 0.5, 1 + step]) expect(round(exact)).toBe(exact);
  expect(round(1 + 0.4 * step)).toBe(1);
  expect(round(1 + 0.6 * step)).toBe(1 + step);
  expect(round(1 + 0.5 * step)).toBe(1);
  expect(round(1 + 1.5 * step)).toBe(1 + 2 * step);
  expect(round(-(1 + 1.5 * step))).toBe(-(1 + 2 * step));
  const random = new Random(2);
  for (let i = 0; i < 1000; i++) {
    const value = random.normal() * 2 ** (random.bits() % 40);
    expect(Math.abs(round(value) - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -8);
  }
});

test("a network comes back: norms exactly, weights to bfloat16", () => {
  const layers = untrained(initialWeights(new Random(5), 0.1), { decay: 0.75 });
  (layers[1].norm as BatchNorm).train(Float32Array.from({ length: 300 }, (_, i) => Math.sin(i)));
  layers[3].bias?.fill(0.5);
  const back = unpackNetwork(packNetwork(layers, ABOUT));
  expect(back.about).toEqual(ABOUT);
  expect(back.layers.map(({ norm }) => norm?.snapshot())).toEqual(
    layers.map(({ norm }) => norm?.snapshot()),
  );
  expect(back.layers.map(({ weight }) => weight)).toEqual(
    layers.map(({ weight }) => rounded(weight)),
  );
  expect(back.layers[3].bias).toEqual(layers[3].bias);
});

test("refuses a network cut short", () => {
  const layers = untrained(initialWeights(new Random(5), 0.1), {});
  const packed = packNetwork(layers, ABOUT);
  expect(() => unpackNetwork(packed.subarray(0, packed.length - 2))).toThrow(
    "network: expected 99410 weights, got 99409",
  );
});

test("the files of the page: as many digits as it says, answered as well as the demo does", async () => {
  const { layers, about } = unpackNetwork(await file("network"));
  const heldOut = unpackDigits(await file("held-out"));
  expect(heldOut.count).toBe(1000);
  expect(unpackDigits(await file("training")).count).toBe(4000);
  expect(new Set(heldOut.labels).size).toBe(10);
  const [all] = inOrder(heldOut, heldOut.count);
  const share = accuracy(logits(layers, pixels(heldOut, all), byRunningAverages), heldOut);
  // A thousand of the ten thousand digits: three standard errors are 1.5 %.
  expect(Math.abs(share - about.testAccuracy)).toBeLessThan(0.015);
});
