// All readers of models, each with files of its format. Files are given by name, so that a test can hand over any of
// them in another form.

import { BatchNorm } from "batchnorm-wasm";
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
import { normal } from "./data.js";
import { goldenBytes } from "./golden.js";

/** A layer with the channels last, and one with the channels first, as ONNX has them. */
export const LAYER = new BatchNorm(3, { layout: "NHWC" });
LAYER.train(normal(12, 1), { shape: [4, 1, 1, 3] });
export const FIRST = new BatchNorm(3, { layout: "NCHW" });

/** What all formats have in common. */
export interface ModelFile {
  readonly layers: readonly string[];
  load(name: string, options?: object): BatchNorm;
  loadAll(options?: object): Readonly<Record<string, BatchNorm>>;
}

export interface Reader {
  /** The files of a model by name, as plain arrays. */
  readonly files: Readonly<Record<string, Uint8Array>>;
  readonly read: (files: Readonly<Record<string, Uint8Array>>) => ModelFile;
  /** Options of `load` that the files cannot do without. */
  readonly needs?: { readonly eps?: number; readonly epsilon?: number };
}

const keras = writeKeras({ LAYER });
const torch = (model: Uint8Array): Reader => ({
  files: { model },
  read: ({ model }) => readTorch(model!) as ModelFile,
  needs: { eps: 1e-5 },
});
const kerasFile = (path: string, needs = {}): Reader => ({
  files: { model: goldenBytes(path) },
  read: ({ model }) => readKerasFile(model!) as ModelFile,
  needs,
});

export const READERS = {
  "readTorch of safetensors": torch(writeTorch({ LAYER })),
  "readTorch of a file of save": torch(save({ LAYER })),
  "readTorch of torch.save": torch(goldenBytes("torch/bare.pt")),
  "readModel of PyTorch's": {
    files: { model: writeTorch({ LAYER }) },
    read: ({ model }) => readModel(model!) as ModelFile,
    needs: { eps: 1e-5 },
  },
  "readModel of ONNX": {
    files: { model: writeOnnx({ FIRST }) },
    read: ({ model }) => readModel(model!) as ModelFile,
  },
  readOnnx: {
    files: { model: writeOnnx({ FIRST }) },
    read: ({ model }) => readOnnx(model!),
  },
  "readOnnx with a file beside it": {
    files: {
      model: goldenBytes("opset15-external.onnx"),
      "weights.bin": goldenBytes("opset15-external.bin"),
    },
    read: ({ model, ...external }) => readOnnx(model!, { external }),
  },
  readKeras: {
    files: keras.weights as Record<string, Uint8Array>,
    read: (weights) => readKeras({ ...keras, weights }),
  },
  "readKerasFile of .h5": kerasFile("keras-files/weights.h5", { epsilon: 0.5 }),
  "readKerasFile of .keras": kerasFile("keras-files/sequential.keras"),
} satisfies Readonly<Record<string, Reader>>;
