// The entry as built: its layers and errors are those of the main entry.

import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { goldenBytes, kerasFiles } from "../support/golden.js";

const at = (file: string): URL => new URL(`../../${file}`, import.meta.url);
const built = (file: string) =>
  import(/* @vite-ignore */ pathToFileURL(fileURLToPath(at(`dist/${file}.js`))).href);

describe("dist/state.js", async () => {
  const main: typeof import("batchnorm-wasm") = await built("index");
  const state: typeof import("batchnorm-wasm/state") = await built("state");

  test("its layers are those of the main entry", () => {
    const layers = [
      state.readTorch(goldenBytes("bare.safetensors")).load("", { eps: 1e-5 }),
      state.readKeras(kerasFiles("keras")).load("bn_conv"),
      state.readOnnx(goldenBytes("opset15.onnx")).load("h"),
      state.load(state.save({ a: new main.BatchNorm(2) })).a!,
    ];
    for (const layer of layers) expect(layer).toBeInstanceOf(main.BatchNorm);
  });

  test("its errors are those of the main entry", () => {
    const read = () => state.readTorch(new Uint8Array(3));
    expect(read).toThrow(main.StateError);
    expect(read).toThrow(main.BatchNormError);
  });

  test("it has nothing of others", () => {
    const text = readFileSync(at("dist/state.js"), "utf8");
    expect(text).not.toMatch(/node_modules/);
  });
});
