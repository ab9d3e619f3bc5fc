// What the writers of all formats refuse alike.

import { adapter, BatchNorm, OptionError } from "batchnorm-wasm";
import { FrozenBatchNorm as SmallFrozen } from "batchnorm-wasm/infer";
import { save, writeKeras, writeOnnx, writeTorch } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { BatchNorm as Other } from "../../dist/index.js";
import { normal } from "../support/data.js";
import { assertRefuses, wrong } from "../support/refuse.js";

const bn = new BatchNorm(2);
const frozen = bn.freeze();

describe.each([save, writeKeras, writeOnnx, writeTorch])("$name", (write) => {
  test.each([
    ["", frozen],
    [" of batchnorm-wasm/infer", SmallFrozen.fromJSON(frozen.toJSON())],
  ])("names a FrozenBatchNorm%s, and says what to give", (_, value) => {
    assertRefuses(
      OptionError,
      /^layers\["a"\]: expected a BatchNorm, the layer itself and not what freeze made of it, got FrozenBatchNorm\(2, \{ layout: "NC" \}\)$/,
      () => write(wrong({ a: value })),
    );
  });

  test.each([
    [adapter(bn, { prior: 1, memory: 2 }), "Adapter"],
    [bn.moments(Float32Array.of(1, 2)), "Moments"],
    [bn.kernels, "Kernels"],
  ])("names other objects of this package", (value, name) => {
    assertRefuses(
      OptionError,
      new RegExp(`^layers\\["a"\\]: expected a BatchNorm, got ${name}\\(`),
      () => write(wrong({ a: value })),
    );
  });
});

// Each bundle of a program has a copy of its own: that of dist/ is one beside src/.
test.each([save, writeOnnx, writeTorch])("$name takes a layer of another copy", (write) => {
  const other = new Other(3, { renorm: { rmax: 3, dmax: 5, decay: 0.5 } });
  other.train(normal(12, 1));
  const own = BatchNorm.fromSnapshot(other.snapshot());
  expect(write(wrong({ a: other }))).toEqual(write({ a: own }));
});
