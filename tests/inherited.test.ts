// Which properties of an options object count: known options, whether they are its own or inherited, as the getters of a
// class are; of unknown ones its own alone, as code elsewhere may have put them on Object.prototype.

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
import { afterEach, describe, expect, test } from "vitest";
import { normal } from "./support/data.js";
import { goldenBytes, kerasFiles } from "./support/golden.js";
import { READERS, type Reader } from "./support/readers.js";

const NAMES = ["polluted", "alpha"];

const pollute = (): void => {
  for (const name of NAMES) {
    // biome-ignore lint/suspicious/noExplicitAny: what no program should do
    (Object.prototype as any)[name] = "of all objects";
  }
};
afterEach(() => {
  for (const name of NAMES) Reflect.deleteProperty(Object.prototype, name);
});

test("unknown properties of all objects: layers and functions on them", () => {
  pollute();
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

test("unknown properties of all objects: files", () => {
  pollute();
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

/** An object that has these options from its prototype, as getters. */
function inheriting<T extends object>(options: T): T {
  const getters = Object.entries(options).map(([name, value]) => [name, { get: () => value }]);
  return Object.create(Object.defineProperties({}, Object.fromEntries(getters)));
}

describe("known options that are inherited count as own ones", () => {
  const kernels = new Kernels({ memory: 1 << 20 });
  const warnings: string[] = [];
  const common = { kernels, onWarning: (text: string) => void warnings.push(text) };
  const x = normal(8, 1);

  test("of layers and of functions on them", () => {
    const given = inheriting({ epsilon: 0.5, decay: 0.25, kernels });
    const layer = new BatchNorm(2, given);
    expect([layer.epsilon, layer.decay]).toEqual([0.5, 0.25]);
    expect(layer.kernels).toBe(kernels);
    const out = new Float32Array(8);
    expect(layer.train(x, inheriting({ out }))).toBe(out);
    expect(layer.infer(x, inheriting({ out }))).toBe(out);
    const again = BatchNorm.fromSnapshot(layer.snapshot(), inheriting({ kernels }));
    expect(again.kernels).toBe(kernels);
    const frozen = FrozenBatchNorm.fromJSON(layer.freeze().toJSON(), inheriting({ kernels }));
    expect(frozen.infer(kernels.alloc(2).fill(1))).toEqual(layer.infer(Float32Array.of(1, 1)));
  });

  test.each(Object.entries<Reader>(READERS))("of load: %s", (_, { files, read, needs }) => {
    const file = read(files);
    const [name] = file.layers as [string];
    const given = { ...common, ...needs, momentum: 0.25, layout: "channelsFirst" };
    const layer = file.load(name, inheriting(given));
    expect(layer.kernels).toBe(kernels);
    expect(layer.layout).toBe("channelsFirst");
    expect([0.25, 0.75]).toContain(layer.decay);
    expect(layer.snapshot()).toEqual(file.load(name, given).snapshot());
  });

  test("of load, of what save wrote", () => {
    const bytes = save({ layer: new BatchNorm(2) });
    expect(load(bytes, inheriting({ kernels })).layer!.kernels).toBe(kernels);
  });
});
