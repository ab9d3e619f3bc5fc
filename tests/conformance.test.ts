// The suite that every runtime runs (npm run test:runtimes), here on the sources.

import * as library from "batchnorm-wasm";
import * as testTime from "batchnorm-wasm/infer";
import { expect, test } from "vitest";
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
