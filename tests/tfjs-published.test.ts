/**
 * The batch-norm tests that @tensorflow/tfjs-core publishes in its npm package, run as they are, with
 * this package's `batchNorm` where they call tfjs'. Left out are those of tfjs' own messages about
 * arguments that are no tensors or hold text ("throws …"); ours are in tfjs.test.ts.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import { batchNorm } from "batchnorm-wasm/tfjs";
import { transformSync } from "esbuild";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { BACKENDS, useBackend } from "./support/tfjs.js";

const core = createRequire(import.meta.url).resolve("@tensorflow/tfjs-core");
const published = readFileSync(join(dirname(core), "ops/batchnorm_test.js"), "utf8");
const code = transformSync(published, { format: "cjs" }).code;

const ours = vi.fn(batchNorm);
const leftOut = new Set<string>();

const modules: Record<string, object> = {
  "../index": { ...tf, batchNorm: ours, batchNorm2d: ours, batchNorm3d: ours, batchNorm4d: ours },
  "../jasmine_util": {
    ALL_ENVS: {},
    describeWithFlags: (name: string, _: object, tests: () => void) => describe(name, tests),
  },
  "../test_util": tf.test_util,
};

/** Jasmine's `it`: a test that must have called the function that is tested. */
function it(name: string, run: () => void | Promise<void>): void {
  if (name.startsWith("throws")) {
    leftOut.add(name);
    return;
  }
  test(name, async () => {
    ours.mockClear();
    await run();
    expect(ours).toHaveBeenCalled();
  });
}

describe.each(BACKENDS)("%s", (backend) => {
  beforeAll(() => useBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());
  new Function("require", "module", "it", "expect", code)(
    (name: string) => modules[name],
    { exports: {} },
    it,
    expect,
  );
});

test("what is left out are messages", () => {
  expect([...leftOut].sort()).toEqual([
    "throws error when mean is a string tensor",
    "throws error when offset is a string tensor",
    "throws error when scale is a string tensor",
    "throws error when variance is a string tensor",
    "throws error when x is a string tensor",
    "throws when passed mean as a non-tensor",
    "throws when passed offset as a non-tensor",
    "throws when passed scale as a non-tensor",
    "throws when passed variance as a non-tensor",
    "throws when passed x as a non-tensor",
  ]);
});
