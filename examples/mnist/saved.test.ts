import { BatchNorm } from "batchnorm-wasm";
import { expect, test } from "vitest";
import { initialWeights, SIZES, untrained } from "./layers.js";
import { Random } from "./random.js";
import { type About, decodeNetwork, encodeNetwork, type SavedNetwork } from "./saved.js";

const ABOUT: About = { steps: 3, seed: 5, learningRate: 0.5, batchSize: 60, testAccuracy: 0.25 };

function saved(): SavedNetwork {
  const layers = untrained(initialWeights(new Random(5), 0.1), { decay: 0.75 });
  const norm = layers[0].norm as BatchNorm;
  norm.train(Float32Array.from({ length: 300 }, (_, i) => Math.sin(i)));
  return JSON.parse(JSON.stringify(encodeNetwork(layers, ABOUT)));
}

test("a network comes back from JSON with the same numbers", () => {
  const layers = untrained(initialWeights(new Random(5), 0.1), { decay: 0.75 });
  const loaded = decodeNetwork(saved());
  expect(loaded.about).toEqual(ABOUT);
  expect(loaded.layers.map(({ inputs, outputs }) => [inputs, outputs])).toEqual(
    SIZES.slice(1).map((outputs, i) => [SIZES[i], outputs]),
  );
  expect(loaded.layers.map(({ weight }) => weight)).toEqual(layers.map(({ weight }) => weight));
  expect(loaded.layers.map(({ bias }) => bias)).toEqual(layers.map(({ bias }) => bias));
  expect(loaded.layers.map(({ norm }) => norm?.batchesSeen ?? null)).toEqual([1, 0, 0, null]);
  expect(loaded.layers[0].norm?.snapshot()).toEqual(saved().layers[0].norm);
});

test("a network without batch norm has biases instead", () => {
  const layers = untrained(initialWeights(new Random(5), 0.1), null);
  const loaded = decodeNetwork(encodeNetwork(layers, ABOUT));
  expect(loaded.layers.map(({ norm }) => norm)).toEqual([null, null, null, null]);
  expect(loaded.layers.map(({ bias }) => bias?.length)).toEqual([100, 100, 100, 10]);
});

test.each<{ what: string; change: (network: SavedNetwork) => unknown; message: string }>([
  { what: "nothing", change: () => null, message: "got undefined version undefined" },
  { what: "a later version", change: (n) => ({ ...n, version: 2 }), message: "got batchnorm-wasm" },
  {
    what: "layers that do not meet",
    change: (n) => ({ ...n, layers: [n.layers[0], { ...n.layers[1], inputs: 99 }] }),
    message: "layer 1: expected 100 inputs, got 99",
  },
  {
    what: "weights cut short",
    change: (n) => ({
      ...n,
      layers: [{ ...n.layers[0], weight: n.layers[0].weight.slice(0, 400) }],
    }),
    message: "layer 0, weight: expected 313600 bytes, got 300",
  },
  {
    what: "a norm of another width",
    change: (n) => ({ ...n, layers: [{ ...n.layers[0], norm: new BatchNorm(99).snapshot() }] }),
    message: "layer 0: expected a norm of 100, got 99",
  },
])("refuses $what", ({ change, message }) => {
  expect(() => decodeNetwork(change(saved()) as SavedNetwork)).toThrow(message);
});
