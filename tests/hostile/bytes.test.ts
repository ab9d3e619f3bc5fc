// The bytes of a file, in every disguise of arrays.ts: every reader and every `into` gives what it gives for a plain array, and
// no code of the array runs; what is no such array is refused.

import { BatchNorm, BatchNormError } from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import {
  foldOnnx,
  load,
  readKeras,
  readModel,
  readOnnx,
  readTorch,
  save,
  tapOnnx,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { goldenBytes } from "../support/golden.js";
import { RIGHT, WRONG } from "./arrays.js";

const LAYER = new BatchNorm(3, { layout: "NHWC" });
LAYER.train(normal(12, 1), { shape: [4, 1, 1, 3] });
const FIRST = new BatchNorm(3, { layout: "NCHW" });
const keras = writeKeras({ LAYER });
const [shard] = Object.keys(keras.weights) as [string];

/** What reads bytes, the bytes, and what it gives. */
const READERS: Readonly<Record<string, readonly [Uint8Array, (bytes: never) => unknown]>> = {
  load: [save({ LAYER }), (bytes) => load(bytes)],
  readTorch: [writeTorch({ LAYER }), (bytes) => readTorch(bytes).loadAll({ eps: 1e-5 })],
  "readTorch of torch.save": [
    goldenBytes("torch/bare.pt"),
    (bytes) => readTorch(bytes).loadAll({ eps: 1e-5 }),
  ],
  readModel: [writeOnnx({ FIRST }), (bytes) => readModel(bytes).layers],
  readOnnx: [writeOnnx({ FIRST }), (bytes) => readOnnx(bytes).loadAll()],
  "readOnnx, a file beside it": [
    goldenBytes("opset15-external.bin"),
    (bytes) =>
      readOnnx(goldenBytes("opset15-external.onnx"), {
        external: { "weights.bin": bytes },
      }).loadAll(),
  ],
  readKeras: [
    keras.weights[shard] as Uint8Array,
    (bytes) => readKeras({ ...keras, weights: { [shard]: bytes } }).loadAll(),
  ],
  readKerasFile: [
    goldenBytes("keras-files/sequential.keras"),
    (bytes) => readKerasFile(bytes).loadAll(),
  ],
  "save into": [save({ LAYER }), (into) => save({ LAYER }, { into })],
  "writeTorch into": [writeTorch({ LAYER }), (into) => writeTorch({ LAYER }, { into })],
  "writeOnnx into": [writeOnnx({ FIRST }), (into) => writeOnnx({ FIRST }, { into })],
  foldOnnx: [writeOnnx({ FIRST }), (bytes) => foldOnnx(bytes)],
  tapOnnx: [writeOnnx({ FIRST }), (bytes) => tapOnnx(bytes, ["FIRST"])],
};

const plainOf = (value: unknown): string =>
  JSON.stringify(value, (_, each) =>
    ArrayBuffer.isView(each) ? Array.from(each as Uint8Array) : each,
  );

describe.each(Object.entries(READERS))("%s", (_, [bytes, read]) => {
  test.each(Object.keys(RIGHT))("%s", (way) => {
    const given = RIGHT[way]!("Uint8Array", [...bytes]) as never;
    expect(plainOf(read(given))).toBe(plainOf(read(Uint8Array.from(bytes) as never)));
  });

  // A value more is a file that some formats take.
  test.each(Object.keys(WRONG).filter((way) => way !== "one value too long"))(
    "%s: refused",
    (way) => {
      const given = WRONG[way]!("Uint8Array", [...bytes]) as never;
      expect(() => read(given)).toThrow(BatchNormError);
    },
  );
});

test("what Vue's markRaw marked is what it was: the object of files, and bytes", () => {
  const marked = <T extends object>(value: T): T =>
    Object.defineProperty(value, "__v_skip", { value: true });
  const [model, weights] = ["onnx", "bin"].map((end) => goldenBytes(`opset15-external.${end}`));
  const { buffer } = Uint8Array.from(model!);
  const external = marked({ "weights.bin": weights! });
  expect(plainOf(readOnnx(marked(buffer), { external }).loadAll())).toBe(
    plainOf(readOnnx(model!, { external: { "weights.bin": weights! } }).loadAll()),
  );
  expect(() => readOnnx(marked([1]) as never)).toThrow("got an Array of length 1");
});
