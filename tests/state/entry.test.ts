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

  /** What a program prints in a process of its own. */
  const printedBy = async (program: string): Promise<string> => {
    const flags = ["--input-type=module", "--eval", program];
    return (await promisify(execFile)(process.execPath, flags)).stdout;
  };

  test("without TextDecoder and TextEncoder every entry can be imported, and says so when it needs one", async () => {
    const has = (entry: string) => JSON.stringify(at(`dist/${entry}.js`).href);
    const layers = { a: new main.BatchNorm(1) };
    const keras = goldenBytes("keras-files/big.weights.h5");
    const files = [state.writeTorch(layers), state.writeOnnx(layers), state.save(layers), keras];
    const texts = files.map((file) => Buffer.from(file).toString("base64"));
    const printed = await printedBy(`
      delete globalThis.TextDecoder;
      delete globalThis.TextEncoder;
      const files = ${JSON.stringify(texts)}.map((text) => Buffer.from(text, "base64"));
      const { BatchNorm } = await import(${has("index")});
      const layers = { a: new BatchNorm(1) };
      const state = await import(${has("state")});
      const { readKerasFile } = await import(${has("hdf5")});
      await import(${has("infer")});
      await import(${has("tfjs")});
      await import(${has("tfjs-layers")});
      for (const use of [
        () => state.readTorch(files[0]),
        () => state.readOnnx(files[1]),
        () => state.load(files[2]),
        () => readKerasFile(files[3]),
        () => state.writeTorch(layers),
        () => state.writeOnnx(layers),
        () => state.save(layers),
      ]) {
        try {
          use();
          console.log("nothing");
        } catch (error) {
          console.log(String(error));
        }
      }`);
    const reading =
      "UnsupportedError: TextDecoder: expected one, to read the text in files, got a runtime without it\n";
    const writing = reading.replace("TextDecoder", "TextEncoder").replace("read ", "write ");
    expect(printed).toBe(reading.repeat(4) + writing.repeat(3));
  });
});
