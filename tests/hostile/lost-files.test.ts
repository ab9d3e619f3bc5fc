// Readers do not copy the bytes of a file, and load layers from them later. Bytes that were transferred away meanwhile are
// missed by all formats in the same way.

import { BatchNorm, StateError } from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import {
  readKeras,
  readModel,
  readOnnx,
  readTorch,
  save,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { goldenBytes } from "../support/golden.js";

const LAYER = new BatchNorm(3, { layout: "NHWC" });
LAYER.train(normal(12, 1), { shape: [4, 1, 1, 3] });
const FIRST = new BatchNorm(3, { layout: "NCHW" });

type Files = Readonly<Record<string, Uint8Array>>;

/** What all formats have in common. Options that a format needs are not looked at, as the bytes come first. */
interface File {
  readonly layers: readonly string[];
  load(name: string): BatchNorm;
}

/** The files of each format by name, and how they are read. */
const FORMATS: Readonly<Record<string, readonly [files: Files, read: (files: Files) => unknown]>> =
  {
    safetensors: [{ model: writeTorch({ LAYER }) }, ({ model }) => readTorch(model!)],
    "a file of save, as PyTorch's": [{ model: save({ LAYER }) }, ({ model }) => readTorch(model!)],
    "torch.save": [{ model: goldenBytes("torch/bare.pt") }, ({ model }) => readTorch(model!)],
    "any model": [{ model: writeTorch({ LAYER }) }, ({ model }) => readModel(model!)],
    ONNX: [{ model: writeOnnx({ FIRST }) }, ({ model }) => readOnnx(model!)],
    "ONNX and a file beside it": [
      {
        model: goldenBytes("opset15-external.onnx"),
        "weights.bin": goldenBytes("opset15-external.bin"),
      },
      ({ model, ...external }) => readOnnx(model!, { external }),
    ],
    "TensorFlow.js": [
      writeKeras({ LAYER }).weights as Files,
      (weights) => readKeras({ ...writeKeras({ LAYER }), weights }),
    ],
    HDF5: [{ model: goldenBytes("keras-files/weights.h5") }, ({ model }) => readKerasFile(model!)],
    ".keras": [
      { model: goldenBytes("keras-files/sequential.keras") },
      ({ model }) => readKerasFile(model!),
    ],
  };

describe.each(Object.entries(FORMATS))("%s", (_, [files, read]) => {
  test.each(Object.keys(files))("%s was transferred: StateError", (name) => {
    const own = Object.fromEntries(
      Object.entries(files).map(([name, bytes]) => [name, Uint8Array.from(bytes)]),
    );
    const file = read(own) as File;
    const [first] = file.layers;
    structuredClone(own[name]!, { transfer: [own[name]!.buffer as ArrayBuffer] });
    const load = () => file.load(first!);
    expect(load).toThrow(StateError);
    expect(load).toThrow(/^bytes: expected its values, got none: its buffer was transferred$/);
  });
});
