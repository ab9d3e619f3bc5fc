// SingleValueError: a mini-batch whose variance says nothing.

import { BatchNorm, diagnose, SingleValueError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { fillGuards } from "../support/guards.js";
import { refuses } from "./rows.js";

describe("SingleValueError", () => {
  refuses(SingleValueError, "SINGLE_VALUE", [
    {
      name: "one example",
      message:
        'x: expected at least two values per channel, got one, whose variance says nothing; use infer, or train with { statistics: "running" }',
      call: ({ layer }) =>
        layer.train(new Float32Array(3), { out: fillGuards(new Float32Array(3)) }),
    },
    {
      name: "one example in place",
      message:
        'x: expected at least two values per channel, got one, whose variance says nothing; use infer, or train with { statistics: "running" }',
      call: ({ layer, x }) => layer.train(x.subarray(0, 3), { out: x.subarray(0, 3) }),
    },
    {
      name: "one example of one position",
      message:
        'x: expected at least two values per channel, got one, whose variance says nothing; use infer, or train with { statistics: "running" }',
      call: ({ x, out }) => {
        const layer = new BatchNorm(12, { layout: "NCHW" });
        layer.train(x, { shape: [1, 12, 1, 1], out });
      },
    },
  ]);

  test.each([
    ["one", new Float32Array(3), 1],
    ["no", new Float32Array(0), 0],
  ])("diagnose of %s value per channel asks for more", (_, x, got) => {
    const use = () => diagnose(new BatchNorm(3), x);
    expect(use).toThrow(SingleValueError);
    // Not for `train`, which would refuse these values too.
    expect(use).toThrow(
      `x: expected at least two values per channel, better hundreds, got ${got}, which says nothing of a variance`,
    );
  });

  test("says what to do instead", () => {
    const layer = new BatchNorm(3);
    expect(() => layer.train(new Float32Array(3))).toThrow(/infer.*statistics: "running"/);
  });

  test("two positions of one example are enough", () => {
    const layer = new BatchNorm(3, { layout: "NCL" });
    expect(layer.train(normal(6, 1), { shape: [1, 3, 2] }).length).toBe(6);
  });
});
