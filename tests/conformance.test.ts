// The suite that every runtime runs (npm run test:runtimes), here on the sources.

import * as library from "batchnorm-wasm";
import { expect, test } from "vitest";
import { conformance } from "./conformance/suite.js";

test("conformance", async () => {
  const outcome = await conformance(library, library);
  expect(outcome.failures).toEqual([]);
  expect(outcome.checks).toBeGreaterThan(400);
  // Nothing of an earlier run shows in the results.
  expect(await conformance(library, library)).toEqual(outcome);
});
