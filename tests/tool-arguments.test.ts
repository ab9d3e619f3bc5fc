// What the functions that are built on a layer take for one: `fold` a frozen layer of either entry, `adapt`,
// `adapter` and `diagnose` a layer.

import {
  adapt,
  adapter,
  BatchNorm,
  diagnose,
  type FoldOptions,
  fold,
  OptionError,
} from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import { describe, expect, test } from "vitest";
import { layerOf, settle } from "./support/cases.js";
import { normal } from "./support/data.js";
import { wrong } from "./support/refuse.js";

const make = () => settle(layerOf({ layout: "NC", shape: [4, 6] }));

const FOLDS: Readonly<Record<string, FoldOptions>> = {
  "a linear layer before": {
    weight: normal(60, 1),
    bias: normal(6, 2),
    shape: [6, 10],
    kind: "linear",
    order: "OI",
    into: "before",
  },
  "a convolution after": {
    weight: normal(6 * 4 * 9, 3),
    shape: [4, 6, 3, 3],
    kind: "conv",
    order: "OIHW",
    into: "after",
    padding: "valid",
  },
};

test.each(Object.entries(FOLDS))(
  "fold of a layer of batchnorm-wasm/infer: into %s",
  (_, options) => {
    const frozen = make().freeze();
    expect(fold(Small.fromJSON(JSON.stringify(frozen)), options)).toEqual(fold(frozen, options));
  },
);

const NONE: readonly (readonly [name: string, value: unknown, got: string])[] = [
  ["nothing", undefined, "undefined"],
  ["null", null, "null"],
  ["a number", 64, "64"],
  ["text", "bn", '"bn"'],
  ["an object", {}, "an Object"],
  ["an array", normal(3, 1), "a Float32Array of length 3"],
  ["the class", BatchNorm, "a function"],
];

describe("what is no frozen layer", () => {
  const cases = [
    ...NONE,
    ["a layer", make(), `${make()}`],
    ["JSON of one", make().freeze().toJSON(), "an Object"],
  ] as const;
  test.each(cases)("fold refuses %s", (_, value, got) => {
    expect(() => fold(wrong(value), FOLDS["a linear layer before"]!)).toThrow(
      new OptionError(`frozen: expected a frozen layer, as bn.freeze() gives it, got ${got}`),
    );
  });
});

describe("what is no layer", () => {
  const x = normal(24, 1);
  const cases = [
    ...NONE,
    ["a frozen layer", make().freeze(), `${make().freeze()}`],
    ["a snapshot", make().snapshot(), "an Object"],
  ] as const;
  test.each(cases)("adapt, adapter and diagnose refuse %s", (_, value, got) => {
    const error = new OptionError(`bn: expected a BatchNorm, got ${got}`);
    expect(() => adapt(wrong(value), x, { prior: 1 })).toThrow(error);
    expect(() => adapter(wrong(value), { prior: 1, memory: 1 })).toThrow(error);
    expect(() => diagnose(wrong(value), x)).toThrow(error);
  });
});
