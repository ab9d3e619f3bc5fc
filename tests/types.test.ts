// What users' code has to compile as: `npm run types` checks this file, and it runs as well.

import { BatchNorm, FrozenBatchNorm, Kernels, Moments } from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import { expect, expectTypeOf, test } from "vitest";

const bn = new BatchNorm(3);

test("results that are fresh, or go where an array says, are over an ArrayBuffer", () => {
  let values = new Float32Array(6).map((_, i) => i);
  values = bn.train(values);
  values = bn.infer(values, { shape: [2, 3] });
  values = bn.backward(values).dx;
  values = bn.backward(values, { out: { dx: values } }).dx;
  values = bn.freeze().infer(values, { out: values });
  expect(new Blob([values]).size).toBe(24);
  const tensor = new Kernels().alloc(6);
  expectTypeOf(tensor).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expect(bn.train(new Float32Array(6), { out: tensor })).toBe(tensor);
});

test("a result goes into shared memory as the type of out says", () => {
  const shared = new Float32Array(new SharedArrayBuffer(24));
  const y = bn.infer(new Float32Array(6), { out: shared });
  expectTypeOf(y).toEqualTypeOf<Float32Array<SharedArrayBuffer>>();
  expect(y).toBe(shared);
});

test("JSON files, whose types an import widens, are taken", () => {
  const widened = <T>(value: T): { [K in keyof T]: T[K] extends string ? string : T[K] } =>
    JSON.parse(JSON.stringify(value));
  const frozen = widened(bn.freeze().toJSON());
  const layer = widened(bn.snapshot());
  const moments = widened(bn.moments(new Float32Array(6)).toJSON());
  expectTypeOf(frozen.format).toEqualTypeOf<string>();
  const x = Float32Array.of(1, 2, 3);
  const y = bn.infer(x);
  expect(FrozenBatchNorm.fromJSON(frozen).infer(x)).toEqual(y);
  expect(Small.fromJSON(frozen).infer(x)).toEqual(y);
  expect(BatchNorm.fromSnapshot(layer).infer(x)).toEqual(y);
  expect(Moments.fromJSON(moments).count).toBe(2);
});
