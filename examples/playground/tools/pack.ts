/**
 * Makes the files that the page loads out of the demo's trained network and the MNIST digits, and
 * says how large they are and what the packing costs.
 *
 *   npm run demo                                  # trains the network, about two minutes
 *   npm run pack --prefix examples/playground
 */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { loadMnist } from "../../mnist/data.js";
import { accuracy, type Digits, inOrder, PIXELS, pixels } from "../../mnist/digits.js";
import type { Layer } from "../../mnist/layers.js";
import { decodeNetwork } from "../../mnist/saved.js";
import { byRunningAverages, logits } from "../src/network.js";
import { packDigits, packNetwork, unpackDigits, unpackNetwork } from "../src/packed.js";

/** Every so many-th digit is taken: 1,000 of the test digits, 4,000 of the training digits. */
const EVERY = { heldOut: 10, training: 15 } as const;

function every(digits: Digits, step: number): Digits {
  const count = Math.floor(digits.count / step);
  const images = new Uint8Array(count * PIXELS);
  const labels = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const from = i * step * PIXELS;
    images.set(digits.images.subarray(from, from + PIXELS), i * PIXELS);
    labels[i] = digits.labels[i * step];
  }
  return { count, images, labels };
}

function write(name: string, bytes: Uint8Array): void {
  const packed = gzipSync(bytes, { level: 9 });
  writeFileSync(fileURLToPath(new URL(`../data/${name}.bin`, import.meta.url)), packed);
  console.log(`data/${name}.bin: ${packed.length} bytes (${bytes.length} unpacked)`);
}

function measured(layers: readonly Layer[], digits: Digits): string {
  const [all] = inOrder(digits, digits.count);
  const scores = logits(layers, pixels(digits, all), byRunningAverages);
  return `${(100 * accuracy(scores, digits)).toFixed(2)} %`;
}

const saved = fileURLToPath(new URL("../../mnist/out/network.json", import.meta.url));
const { layers, about } = decodeNetwork(JSON.parse(readFileSync(saved, "utf8")));
const { train, test } = loadMnist();

const network = packNetwork(layers, about);
const heldOut = packDigits(every(test, EVERY.heldOut));
write("network", network);
write("held-out", heldOut);
write("training", packDigits(every(train, EVERY.training)));

const unpacked = unpackNetwork(network).layers;
console.log(`all ${test.count} test digits: ${measured(layers, test)} as trained,`);
console.log(`  ${measured(unpacked, test)} with the packed weights`);
const few = unpackDigits(heldOut);
console.log(`the ${few.count} held-out digits: ${measured(layers, every(test, EVERY.heldOut))},`);
console.log(`  ${measured(unpacked, few)} with packed weights and packed digits`);
