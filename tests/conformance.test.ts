// The suite that every runtime runs (npm run test:runtimes), here on the sources.

import * as library from "batchnorm-wasm";
import * as testTime from "batchnorm-wasm/infer";
import { expect, test } from "vitest";
import { Checks, type Outcome } from "./conformance/checks.js";
import { layersOf, type Suite } from "./conformance/section.js";
import { keptBits } from "./conformance/sections/kept-bits.js";
import { conformance } from "./conformance/suite.js";

test("conformance", async () => {
  const outcome = await conformance(library, testTime);
  expect(outcome.failures).toEqual([]);
  // The bits of these checks have been the same since they were written. Who changes them on purpose changes the
  // hash here, and says so in the changelog; a check that is added goes to a section behind them.
  expect(outcome.first).toEqual({ checks: 545, hash: "ee7edc982f3f7730" });
  expect(outcome.checks).toBeGreaterThan(600);
  // Nothing of an earlier run shows in the results.
  expect(await conformance(library, testTime)).toEqual(outcome);
});

/** The section on the bits that `train` keeps, by itself. */
function bitsOf(layerOf: Suite["layerOf"]): Pick<Outcome, "checks" | "failures" | "hash"> {
  const checks = new Checks();
  keptBits({ checks, library, testTime, layerOf });
  const { checks: count, failures, hash } = checks.outcome;
  return { checks: count, failures, hash };
}

test("the bits that train keeps, and values that are worked out again, give the same", () => {
  const expected = { checks: 252, failures: [], hash: "0afdf87787665828" };
  const layerOf = layersOf(library);
  expect(bitsOf(layerOf)).toEqual(expected);
  // `backward` has no bits of a batch that is not the latest one.
  const again: Suite["layerOf"] = (...how) => {
    const layer = layerOf(...how);
    const backward = layer.backward.bind(layer);
    let batch = layer.lastBatch;
    layer.backward = (dy, options) => {
      const { lastBatch } = layer;
      if (lastBatch!.statistics === "batch") batch = lastBatch;
      layer.train(dy, { shape: batch!.shape, statistics: "running" });
      return backward(dy, { ...options, batch: batch! });
    };
    return layer;
  };
  expect(bitsOf(again)).toEqual(expected);
});
