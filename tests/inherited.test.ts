// What code elsewhere puts on Object.prototype is nobody's option: own properties count.

import {
  adapt,
  adapter,
  BatchNorm,
  diagnose,
  FrozenBatchNorm,
  Kernels,
  Moments,
} from "batchnorm-wasm";
import {
  foldOnnx,
  load,
  readKeras,
  readModel,
  readOnnx,
  readTorch,
  save,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { afterEach, beforeEach, expect, test } from "vitest";
import { normal } from "./support/data.js";
import { goldenBytes, kerasFiles } from "./support/golden.js";

const NAMES = ["polluted", "alpha"];

beforeEach(() => {
  for (const name of NAMES) {
    // biome-ignore lint/suspicious/noExplicitAny: what no program should do
    (Object.prototype as any)[name] = "of all objects";
  }
});
afterEach(() => {
  for (const name of NAMES) Reflect.deleteProperty(Object.prototype, name);
});

test("of layers and of functions on them", () => {
  const layer = new BatchNorm(2, { epsilon: 1 });
  const x = normal(8, 1);
  layer.train(x, { updateRunning: true });
  layer.backward(x, { out: {} });
  layer.infer(x, { out: new Float32Array(8) });
  layer.moments(x, { shape: [4, 2] });
  layer.backwardSums(x, {});
  new Kernels({ memory: 1 << 20 });
  diagnose(layer, x, { shape: [4, 2] });
  adapt(layer, x, { prior: 1 });
  adapter(layer, { prior: 1, memory: 2 }).infer(x, {});
  const json = JSON.stringify(layer.freeze());
  expect(FrozenBatchNorm.fromJSON(json, {}).infer(x, {})).toEqual(layer.infer(x));
  expect(BatchNorm.fromSnapshot(JSON.stringify(layer), {}).snapshot()).toEqual(layer.snapshot());
  expect(Moments.fromJSON(JSON.stringify(layer.moments(x)))).toEqual(layer.moments(x));
});

test("of files", () => {
  const layer = new BatchNorm(2);
  expect(load(save({ layer }, {}), {}).layer!.snapshot()).toEqual(layer.snapshot());
  const own = readModel(save({ layer }), {} as { key?: string });
  if (own.format === "batchnorm-wasm") own.load("layer", {});
  expect(own.layers).toEqual(["layer"]);
  readTorch(writeTorch({ layer }, { onWarning: () => {} })).loadAll({ eps: 1, momentum: 0.5 });
  expect(readTorch(goldenBytes("torch/module.pt")).layers).toContain("bn1");
  readTorch(goldenBytes("torch/module.pt")).load("bn1", { layout: "NC" });
  readOnnx(writeOnnx({ layer }, { momentum: 0.5 })).loadAll({ momentum: 0.5 });
  foldOnnx(goldenBytes("networks/residual.onnx"), { external: {} });
  const { model, weights } = writeKeras({ layer }, { momentum: 0.5 });
  readKeras({ model, weights }).loadAll({ momentum: 0.5 });
  expect(readKeras(kerasFiles("keras")).layers.length).toBeGreaterThan(0);
});
