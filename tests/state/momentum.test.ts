// A momentum under which no average moves, as files have it: it is kept, written again, and only a `train` that is to
// move averages asks for another. And a momentum so small that 1 - momentum loses its digits.

import {
  BatchNorm,
  calibrate,
  diagnose,
  FrozenBatchNorm,
  Moments,
  OptionError,
  StateError,
} from "batchnorm-wasm";
import {
  load,
  readKeras,
  readOnnx,
  readTorch,
  save,
  writeKeras,
  writeOnnx,
} from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { goldenBytes, kerasFiles } from "../support/golden.js";
import { assertRefuses } from "../support/refuse.js";
import { archive, float, module, ONE_TWO_THREE, tensor } from "./torch-files.js";

const BATCH_NORM = "torch.nn.modules.batchnorm.BatchNorm2d";

/** A pickled BatchNorm2d of three channels. */
const torchModule = (momentum: number) =>
  archive(
    module(BATCH_NORM, {
      more: { eps: float(0.5), momentum: float(momentum) },
      buffers: { running_mean: tensor(), running_var: tensor() },
    }),
    ONE_TWO_THREE,
  );

function kerasModel() {
  const { model, weights } = kerasFiles("keras");
  return { model: model.replaceAll(/"momentum":0\.\d+/g, '"momentum":1'), weights };
}

const quiet = { layout: "NC", onWarning: () => {} } as const;
const LAYERS: readonly (readonly [string, () => BatchNorm])[] = [
  ["PyTorch's 0", () => readTorch(torchModule(0)).load("", quiet)],
  ["PyTorch's 1e-30", () => readTorch(torchModule(1e-30)).load("", quiet)],
  ["Keras' 1", () => readKeras(kerasModel()).load("bn_head", quiet)],
  ["ONNX' 1", () => readOnnx(goldenBytes("opset15-momentum1.onnx")).load("norm_a", quiet)],
];

describe.each(LAYERS)("a momentum under which nothing moves: %s", (_, make) => {
  const given = () => {
    const layer = make();
    return { layer, x: normal(8 * layer.channels, 1, 3) };
  };
  const REFUSED = /^decay: expected one below 1, .* momentum .* \{ updateRunning: false \}, got 1$/;

  test("is kept", () => {
    expect(given().layer.decay).toBe(1);
  });

  test("train refuses to move averages by it, and changes nothing", () => {
    const { layer, x } = given();
    assertRefuses(StateError, REFUSED, () => layer.train(x), layer);
    const moments = layer.moments(x);
    assertRefuses(StateError, REFUSED, () => layer.train(x, { statistics: moments }), layer);
  });

  test("all else works", async () => {
    const { layer, x } = given();
    const state = JSON.stringify(layer);
    const y = layer.train(x, { updateRunning: false });
    const { weight: _still, ...snapshot } = layer.snapshot();
    expect(y).toEqual(BatchNorm.fromSnapshot({ ...snapshot, decay: 0.5 }).train(x));
    expect(layer.backward(x).dx.every(Number.isFinite)).toBe(true);
    const z = layer.train(x, { statistics: "running" });
    expect(layer.backward(x).dx.every(Number.isFinite)).toBe(true);
    expect(layer.infer(x)).toEqual(z);
    expect(layer.freeze().infer(x)).toEqual(z);
    expect(FrozenBatchNorm.fromJSON(JSON.stringify(layer.freeze())).infer(x)).toEqual(z);
    layer.train(x, { statistics: layer.moments(x), updateRunning: false });
    expect(diagnose(layer, x).verdict).toBe("drifted");
    expect(JSON.stringify(layer)).toBe(state);
    const moments = layer.moments(x);
    layer.setRunning(moments);
    expect(layer.runningMean).toEqual(moments.mean);
    const report = await calibrate([layer], (batch) => layer.train(batch), [normal(x.length, 2)]);
    expect(layer.runningMean).toEqual(report.layers[0]!.after.mean);
  });

  test("snapshots, clones and files keep it", () => {
    const { layer, x } = given();
    const [own, clone, json] = [
      load(save({ layer })).layer!,
      layer.clone(),
      BatchNorm.fromSnapshot(JSON.stringify(layer)),
    ];
    for (const again of [own, clone, json]) {
      expect(again.snapshot()).toEqual(layer.snapshot());
      assertRefuses(StateError, REFUSED, () => again.train(x));
    }
    expect(readOnnx(writeOnnx({ layer })).load("layer").decay).toBe(1);
    expect(readKeras(writeKeras({ layer })).load("layer").decay).toBe(1);
    // The way back: a decay in its place.
    const { weight, ...snapshot } = layer.snapshot();
    expect(weight).toBeLessThan(1e-20);
    const moving = BatchNorm.fromSnapshot({ ...snapshot, decay: 0.5 });
    moving.train(x);
    expect(moving.decay).toBe(0.5);
  });
});

test("written into the file that it came from, every byte stays", () => {
  const onnx = goldenBytes("opset15-momentum1.onnx");
  expect(writeOnnx(readOnnx(onnx).loadAll(quiet), { into: onnx })).toEqual(onnx);
  const keras = kerasModel();
  expect(writeKeras(readKeras(keras).loadAll(quiet), { into: keras }).model).toBe(keras.model);
});

describe("a small momentum of PyTorch is the weight of the new value", () => {
  const MOMENTA = [1e-5, 1e-7, 3e-9, 1e-12, 2 ** -52, 1.2e-16];

  test.each(MOMENTA)("%d: itself, in files too", (momentum) => {
    const layer = BatchNorm.torch(1, { momentum });
    const others = [
      layer.clone(),
      BatchNorm.fromSnapshot(JSON.stringify(layer)),
      load(save({ layer })).layer!,
      readTorch(torchModule(momentum)).load("", quiet),
      readTorch(torchModule(0.5)).load("", { ...quiet, momentum }),
    ];
    for (const each of [layer, ...others]) {
      each.runningMean.fill(0);
      each.train(
        Float32Array.from({ length: 4 * each.channels }, (_, i) => (i % 2 ? 1 : 3)),
        {
          statistics: new Moments(
            4,
            new Float64Array(each.channels).fill(2),
            new Float64Array(each.channels).fill(4),
            new Float64Array(each.channels),
          ),
        },
      );
      expect(each.runningMean[0]).toBe(momentum * 2);
      expect(each.decay).toBe(1 - momentum);
    }
  });

  test("usual ones leave snapshots as they were", () => {
    for (const momentum of [1e-4, 0.01, 0.1, 1]) {
      expect(BatchNorm.torch(1, { momentum }).snapshot()).not.toHaveProperty("weight");
    }
    assertRefuses(OptionError, /^momentum: .*updateRunning: false/, () =>
      BatchNorm.torch(1, { momentum: 1e-17 }),
    );
  });

  test.each([0.5, "1e-12", Number.NaN, null, -1e-12])(
    "a snapshot's weight of %o is refused",
    (weight) => {
      const snapshot = { ...BatchNorm.torch(1, { momentum: 1e-12 }).snapshot(), weight };
      assertRefuses(StateError, /^snapshot\.weight: expected 1 - decay, or none, got /, () =>
        BatchNorm.fromSnapshot(JSON.stringify(snapshot)),
      );
    },
  );
});
