// The entry as built: its layers and errors are those of the main entry.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { goldenBytes, kerasFiles } from "../support/golden.js";

const at = (file: string): URL => new URL(`../../${file}`, import.meta.url);
const built = (file: string) =>
  import(/* @vite-ignore */ pathToFileURL(fileURLToPath(at(`dist/${file}.js`))).href);

describe("dist/state.js and dist/hdf5.js", async () => {
  const main: typeof import("batchnorm-wasm") = await built("index");
  const state: typeof import("batchnorm-wasm/state") = await built("state");
  const hdf5: typeof import("batchnorm-wasm/hdf5") = await built("hdf5");

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

  test("a layer of a Keras file is one of the main entry, and its errors are caught by its classes", () => {
    const bytes = goldenBytes("keras-files/functional.h5");
    expect(hdf5.readKerasFile(bytes).load("bn_0")).toBeInstanceOf(main.BatchNorm);
    expect(() => hdf5.readKerasFile(bytes.subarray(0, 100))).toThrow(main.StateError);
  });

  test("it has nothing of others", () => {
    const text = readFileSync(at("dist/state.js"), "utf8");
    expect(text).not.toMatch(/node_modules/);
  });

  test("it can be imported where there is no TextDecoder, and says so when it needs one", async () => {
    const program = `
      delete globalThis.TextDecoder;
      const state = await import(${JSON.stringify(at("dist/state.js").href)});
      const { BatchNorm } = await import(${JSON.stringify(at("dist/index.js").href)});
      const bytes = state.writeTorch({ a: new BatchNorm(1) });
      try {
        state.readTorch(bytes);
      } catch (error) {
        console.log(String(error));
      }`;
    const flags = ["--input-type=module", "--eval", program];
    const { stdout } = await promisify(execFile)(process.execPath, flags);
    expect(stdout).toBe(
      "UnsupportedError: TextDecoder: expected one, to read the text in files, got a runtime without it\n",
    );
  });
});
