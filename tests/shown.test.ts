// What layers and what belongs to them look like: as text, and where Node shows objects.

import { inspect } from "node:util";
import { runInNewContext } from "node:vm";
import * as tf from "@tensorflow/tfjs-core";
import { adapter, BatchNorm, Kernels } from "batchnorm-wasm";
import { FrozenBatchNorm as SmallFrozen } from "batchnorm-wasm/infer";
import { TfBatchNorm } from "batchnorm-wasm/tfjs";
import { startKernels } from "batchnorm-wasm/threads";
import { expect, test } from "vitest";
import { normal } from "./support/data.js";
import { useBackend } from "./support/tfjs.js";

await useBackend();
expect(tf.getBackend()).toBe("cpu");

const trained = (layer: BatchNorm, times: number): BatchNorm => {
  for (let i = 0; i < times; i++) layer.train(normal(64 * 4, i + 1), { shape: [4, 64, 1, 1] });
  return layer;
};
const bn = trained(new BatchNorm(64, { layout: "NCHW" }), 12);
const cumulative = BatchNorm.torch(64, { momentum: null, eps: 1e-7 });
const frozen = bn.freeze();

test.each<[object, string]>([
  [bn, 'BatchNorm(64, { layout: "NCHW", decay: 0.9, epsilon: 0.00001 }), mini-batches seen: 12'],
  [
    cumulative,
    'BatchNorm(64, { layout: "NC", decay: "cumulative", epsilon: 1e-7 }), mini-batches seen: 0',
  ],
  [frozen, 'FrozenBatchNorm(64, { layout: "NCHW" })'],
  [SmallFrozen.fromJSON(frozen.toJSON()), 'FrozenBatchNorm(64, { layout: "NCHW" })'],
  [new Kernels({ memory: 1 << 20 }), "Kernels({ memory: 1048576, threads: 1 })"],
  [bn.moments(normal(256, 1), { shape: [4, 64, 1, 1] }), "Moments(64), values per channel: 4"],
  [
    new BatchNorm(3, { activation: "relu", renorm: { rmax: 4, dmax: Infinity } }),
    'BatchNorm(3, { layout: "NC", decay: 0.9, epsilon: 0.00001, activation: "relu", renorm: { rmax: 4, dmax: Infinity, rmin: 0.25 } }), mini-batches seen: 0',
  ],
  [
    new BatchNorm(3, { activation: [-0.5, Infinity] }).freeze(),
    'FrozenBatchNorm(3, { layout: "NC", activation: [-0.5, Infinity] })',
  ],
  [
    adapter(new BatchNorm(3, { activation: "relu6" }), { prior: 1, memory: 2 }),
    'Adapter(3, { layout: "NC", prior: 1, memory: 2, activation: "relu6" }), examples: 0',
  ],
  [
    adapter(bn, { prior: 16, memory: Infinity }),
    'Adapter(64, { layout: "NCHW", prior: 16, memory: Infinity }), examples: 0',
  ],
  [
    new TfBatchNorm(trained(new BatchNorm(64, { layout: "channelsFirst" }), 1)),
    'TfBatchNorm(64, { layout: "channelsFirst", decay: 0.9, epsilon: 0.00001 }), mini-batches seen: 1',
  ],
])("%s", (object, line) => {
  expect(String(object)).toBe(line);
  expect(inspect(object)).toBe(line);
  expect(inspect({ layers: [object] })).toContain(line);
});

test("kernels of several threads", async () => {
  const kernels = await startKernels({ memory: 1 << 20, threads: 2 });
  expect(String(kernels)).toBe(`Kernels({ memory: ${kernels.memory}, threads: 2 })`);
  kernels.close();
  expect(inspect(kernels)).toBe(`Kernels({ memory: ${kernels.memory}, threads: 1 })`);
});

test("what has no line of its own is shown as any object: prototypes, proxies", () => {
  expect(inspect(new Proxy(bn, {}))).toBe("BatchNorm {}");
  expect(inspect(BatchNorm.prototype)).toMatch(/\{\}$/);
  expect(inspect(BatchNorm)).toMatch(/^\[class BatchNorm extends/);
  expect(inspect(bn.lastBatch)).toContain("shape: [ 4, 64, 1, 1 ]");
});

test("nothing of that is seen where properties are copied or listed", () => {
  const listed: string[] = [];
  for (const key in bn) listed.push(key);
  expect(listed).toEqual([]);
  expect(Reflect.ownKeys(bn)).toEqual([]);
  const moments = bn.moments(normal(256, 1), { shape: [4, 64, 1, 1] });
  expect(Object.keys(structuredClone(moments))).toEqual(Object.keys(moments));
  expect(runInNewContext("Object.keys(moments)", { moments })).toHaveLength(4);
});
