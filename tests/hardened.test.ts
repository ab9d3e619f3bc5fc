// Hardened JavaScript (SES, https://github.com/endojs/endo) freezes what programs share: classes and prototypes. The package
// works as it does elsewhere, though it is frozen before the first object is made.

import * as api from "batchnorm-wasm";
import * as small from "batchnorm-wasm/infer";
import * as state from "batchnorm-wasm/state";
import { expect, test } from "vitest";
import { normal } from "./support/data.js";

const ENDS: readonly unknown[] = [null, Object.prototype, Function.prototype];

/** Freezes a class, its prototype, and those that they inherit from, up to those of the language. */
function harden(value: unknown): void {
  for (let at = value; !ENDS.includes(at); at = Object.getPrototypeOf(at)) {
    Object.freeze(at);
    const { prototype } = at as { prototype?: object };
    if (typeof at === "function" && prototype !== undefined) harden(prototype);
  }
}

test("all works with frozen classes and prototypes", async () => {
  for (const entry of [api, small, state]) {
    for (const each of Object.values(entry)) if (typeof each === "function") harden(each);
  }
  expect(Object.isFrozen(Object.getPrototypeOf(api.BatchNorm.prototype))).toBe(true);

  const x = normal(12, 1);
  const kernels = new api.Kernels({ memory: 1 << 20 });
  const bn = new api.BatchNorm(3, { kernels });
  const y = bn.train(x);
  expect(bn.backward(y).dx).toHaveLength(12);
  const moments = bn.moments(x);
  expect(moments.merge(moments).count).toBe(8);
  expect(api.GradientSums.pool([bn.backwardSums(y)]).toJSON().count).toBe(4);
  await api.calibrate([bn], () => bn.train(x), [1]);
  expect(api.diagnose(bn, x).channels.dead).toEqual([]);
  expect(api.adapter(bn, { prior: 1, memory: 9 }).infer(x)).toHaveLength(12);
  expect(state.load(state.save({ bn })).bn!.infer(x)).toEqual(bn.infer(x));
  expect(small.FrozenBatchNorm.fromJSON(bn.freeze().toJSON()).infer(x)).toEqual(bn.infer(x));
  expect(() => bn.infer(x.subarray(1))).toThrow(api.ShapeError);
  expect(String(bn)).toMatch(/^BatchNorm\(3, /);
});
