// Whole networks that PyTorch exported: how many axes what their batch norms take has.

import { readOnnx } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { assertWithin } from "../support/compare.js";
import { goldenBytes, networksGolden, operatorsGolden } from "../support/golden.js";
import { runModel } from "./onnx-run.js";

const networks = Object.entries(networksGolden());
const bytesOf = (name: string) => goldenBytes(`networks/${name}.onnx`);

/** Axes that onnx.shape_inference leaves open: of sizes that the network puts together as it runs. */
const BY_HAND: Readonly<Record<string, readonly number[]>> = {
  signal: [3, 3],
  "Reshape.42.0": [4],
  "Reshape.45.0": [3],
  "Reshape.48.0": [3],
};
const LAYOUTS: Readonly<Record<number, string>> = { 2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW" };

describe.each(networks)("%s", (name, { ranks, shape, x, outputs }) => {
  test("every layout is that of the axes", () => {
    const known = ranks.map((rank, i) => rank ?? BY_HAND[name]?.[i]);
    const layers = Object.values(readOnnx(bytesOf(name)).loadAll());
    expect(layers.map(({ layout }) => layout)).toEqual(
      known.map((rank) => LAYOUTS[rank!] ?? "channelsFirst"),
    );
  });

  // What the other tests of these networks lean on. PyTorch sums up to a hundred products in float32.
  test("the plain runner gives what PyTorch gave", () => {
    const given = Object.values(runModel(bytesOf(name), shape, x));
    expect(given.map((y) => y.shape)).toEqual(outputs.map((y) => y.shape));
    for (const [i, { y }] of outputs.entries()) {
      assertWithin(name, given[i]!.data, y, () => 1e-5);
    }
  });
});

test("behind each operation there are as many axes as onnx.shape_inference says", () => {
  const { layers, nodes, loadAll } = readOnnx(bytesOf("operators"));
  const found = loadAll({ onWarning: () => {} });
  const layouts = layers.map((name) => [nodes[name]!.input, found[name]!.layout]);
  const expected = Object.entries(operatorsGolden()).map(([input, rank]) => [
    input,
    LAYOUTS[rank ?? BY_HAND[input]![0]!] ?? "channelsFirst",
  ]);
  expect(layouts).toEqual(expected);
});
