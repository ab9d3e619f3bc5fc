// One format's mutated files, in a process of its own whose memory is measured:
//
//   node --max-old-space-size=64 --import tsx tests/state/fuzz.ts torch|own|keras|onnx|… [files]
//
// Every file gives an error of ours or a correct load: for safetensors the numbers are those that a
// plain reader finds in it, and written back `into` the file they leave it as it is. Prints what
// happened as JSON; a file that breaks this ends the process, its number and seed printed.

import { BatchNorm, BatchNormError } from "batchnorm-wasm";
import {
  foldKeras,
  foldOnnx,
  type KerasFiles,
  load,
  readKeras,
  readOnnx,
  readTorch,
  save,
  tapOnnx,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { random } from "../support/data.js";
import { goldenBytes, kerasFiles } from "../support/golden.js";
import { container, safetensors } from "./files.js";
import { kerasFormats } from "./keras-formats.js";
import { BYTES, deepJson, otherJson, pick, type Random, upTo } from "./mutations.js";
import { torchFormats } from "./torch-formats.js";

type Layers = Record<string, BatchNorm>;

// ---- formats ----------------------------------------------------------------------------------

export interface Format<File> {
  readonly seeds: readonly File[];
  mutate(file: File, next: Random): File;
  /** Loads all layers, or throws; throws a plain Error where they are not what the file says. */
  load(file: File): Layers;
}

/** A safetensors file with another header, its length right or wrong. */
function otherHeader(bytes: Uint8Array, next: Random): Uint8Array {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const text = new TextDecoder().decode(bytes.subarray(8, 8 + length));
  const data = bytes.subarray(8 + length);
  if (next() < 0.15) {
    const changed = bytes.slice();
    const lengths = [0n, 1n, BigInt(length + 8), BigInt(length - 8), 1n << 20n, 1n << 53n, -1n];
    new DataView(changed.buffer).setBigInt64(0, pick(next, lengths), true);
    return changed;
  }
  return container(next() < 0.1 ? deepJson(text, next) : otherJson(JSON.parse(text), next), data);
}

/**
 * Throws unless the numbers of layers are those that a plain reader finds. Written, a parameter that
 * was left out beside the other is there.
 */
function checkNumbers(layers: Layers, bytes: Uint8Array, written = false): void {
  const { tensors } = safetensors(bytes);
  for (const [name, layer] of Object.entries(layers)) {
    for (const [tensor, values] of [
      ["weight", layer.gamma],
      ["bias", layer.beta],
      ["running_mean", layer.runningMean],
      ["running_var", layer.runningVariance],
    ] as const) {
      const found = tensors.get(name === "" ? tensor : `${name}.${tensor}`);
      if (values === null ? !(found === undefined || written) : found === undefined)
        throw new Error(`${name}.${tensor}`);
      if (found === undefined || values === null || !/^F(32|64)$/.test(found.dtype)) continue;
      const array = found.dtype === "F32" ? Float32Array : Float64Array;
      const wanted = new array(new Uint8Array(found.data).buffer);
      if (wanted.length !== values!.length) throw new Error(`${name}.${tensor}: length`);
      const exact = (v: number): number => (values instanceof Float32Array ? Math.fround(v) : v);
      wanted.forEach((v, c) => {
        if (!Object.is(exact(v), values![c])) throw new Error(`${name}.${tensor}[${c}]`);
      });
    }
  }
}

const tensorFiles = ["network", "network-f16", "network-bf16", "network-f64", "old", "bare"];
const mutateTensors = (file: Uint8Array, next: Random): Uint8Array =>
  next() < 0.5 ? otherHeader(file, next) : pick(next, BYTES)(file, next);

const torch: Format<Uint8Array> = {
  seeds: tensorFiles.map((name) => goldenBytes(`${name}.safetensors`)),
  mutate: mutateTensors,
  load(file) {
    const layers = readTorch(file).loadAll({ eps: 1e-5, onWarning: () => {} });
    checkNumbers(layers, file);
    if (Object.keys(layers).length > 0) {
      checkNumbers(layers, writeTorch(layers, { into: file, onWarning: () => {} }), true);
    }
    return layers;
  },
};

const own: Format<Uint8Array> = {
  seeds: [
    save({ a: new BatchNorm(3), "b.c": BatchNorm.torch(5, { affine: false, momentum: null }) }),
    save(
      { bn1: readTorch(torch.seeds[0]!).load("bn1", { eps: 0.1, layout: "NCHW" }) },
      { into: torch.seeds[0]! },
    ),
  ],
  mutate(file, next) {
    const { tensors, metadata } = safetensors(file);
    const key = pick(
      next,
      Object.keys(metadata).filter((each) => each.startsWith("batchnorm-wasm:")),
    );
    const text = metadata[key]!;
    const what = next();
    if (what > 0.4) return mutateTensors(file, next);
    const record =
      what < 0.05 ? deepJson(text, next) : JSON.stringify(otherJson(JSON.parse(text), next));
    return safetensors.write(tensors, { ...metadata, [key]: record });
  },
  load(file) {
    const layers = load(file);
    checkNumbers(layers, file);
    if (Object.keys(layers).length > 0) {
      const again = load(save(layers, { into: file }));
      if (JSON.stringify(again) !== JSON.stringify(layers)) throw new Error("save and load");
    }
    return layers;
  },
};

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(Buffer.from(b));
const quiet = { layout: "NC", onWarning: () => {} } as const;

const onnx: Format<Uint8Array> = {
  seeds: [
    "opset7",
    "opset9",
    "opset14",
    "opset15-training",
    "opset15-float16-data",
    "opset15-double-data",
    "opset15-bfloat16",
    "opset15-constants",
    "opset15-identity",
  ].map((name) => goldenBytes(`${name}.onnx`)),
  mutate(file, next) {
    const what = next();
    if (what > 0.25) return pick(next, BYTES)(file, next);
    // Another file's bytes in the middle; a varint that is as large as they get; many small fields.
    const other =
      what < 0.1
        ? pick(next, onnx.seeds)
        : what < 0.2
          ? Uint8Array.of(255, 255, 255, 255, pick(next, [15, 127, 255]), 255, 255, 255, 255, 1)
          : new Uint8Array(2 * 10 ** (next() < 0.03 ? 5 : upTo(next, 5))).map((_, i) =>
              i % 2 ? 0 : 0x0a,
            );
    const begin = upTo(next, other.length);
    const at = upTo(next, file.length);
    return Buffer.concat([
      file.subarray(0, at),
      other.subarray(begin, begin + (what < 0.1 ? upTo(next, 200) : other.length)),
      file.subarray(what < 0.1 ? at : at + upTo(next, 10)),
    ]);
  },
  load(file) {
    const layers = readOnnx(file).loadAll(quiet);
    if (Object.keys(layers).length > 0) {
      if (!same(writeOnnx(layers, { into: file }), file)) throw new Error("written back: differs");
    }
    return layers;
  },
};

/** Whole networks: folded, and tapped at every norm. Folding again changes nothing more. */
const networks: Format<Uint8Array> = {
  seeds: [
    ...["residual", "mobile", "dense", "upward", "perceptron", "twice"].map((name) =>
      goldenBytes(`networks/${name}.onnx`),
    ),
    goldenBytes("opset15-constants.onnx"),
  ],
  mutate: onnx.mutate,
  load(file) {
    const { layers } = readOnnx(file);
    readOnnx(tapOnnx(file, layers));
    const { bytes, folded, kept } = foldOnnx(file);
    if (folded.length + kept.length !== layers.length) throw new Error("folded and kept");
    if (folded.length === 0 && !same(bytes, file)) throw new Error("not folded: differs");
    if (!same(foldOnnx(bytes).bytes, bytes)) throw new Error("folded again: differs");
    return readOnnx(bytes).loadAll(quiet);
  },
};

const keras: Format<KerasFiles> = {
  seeds: [kerasFiles("keras"), kerasFiles("keras-quantized")],
  mutate({ model, weights }, next) {
    const text = model as string;
    const what = next();
    if (what < 0.4) return { model: otherJson(JSON.parse(text), next) as object, weights };
    if (what < 0.45) return { model: deepJson(text, next), weights };
    if (what < 0.7) {
      return { model: pick(next, BYTES)(new TextEncoder().encode(text), next), weights };
    }
    const path = pick(next, Object.keys(weights));
    const shard = pick(next, BYTES)(weights[path] as Uint8Array, next);
    const { [path]: _left, ...rest } = weights;
    return { model, weights: next() < 0.05 ? rest : { ...weights, [path]: shard } };
  },
  load(files) {
    const layers = readKeras(files).loadAll(quiet);
    if (Object.keys(layers).length > 0) {
      const again = readKeras(writeKeras(layers, { into: files })).loadAll(quiet);
      if (JSON.stringify(again) !== JSON.stringify(layers))
        throw new Error("written back: differs");
    }
    return layers;
  },
};

/** Folded models: their norms are those that stay, with the numbers that they had. */
const fold: Format<KerasFiles> = {
  ...keras,
  load(files) {
    const result = foldKeras(files);
    const [before, after] = [readKeras(files), readKeras(result)];
    const stayed = result.kept.map(({ name }) => name);
    const names = [...result.folded, ...stayed].sort();
    if (JSON.stringify(names) !== JSON.stringify([...before.layers].sort()))
      throw new Error("names");
    const layers: Layers = {};
    for (const name of stayed) {
      let layer: BatchNorm;
      try {
        layer = before.load(name, quiet);
      } catch (error) {
        if (error instanceof BatchNormError) continue;
        throw error;
      }
      // Where two layers had one name one may be gone.
      const own = after.layers.includes(name) ? name : name.replace(/.*\//, "");
      layers[name] = after.load(own, quiet);
      if (JSON.stringify(layer) !== JSON.stringify(layers[name]))
        throw new Error(`${name}: differs`);
    }
    return layers;
  },
};

// ---- the run ----------------------------------------------------------------------------------

/** Throws unless every layer is whole. */
function checkWhole(layers: Layers): void {
  for (const layer of Object.values(layers)) {
    const { channels, gamma, beta, runningMean, runningVariance, batchesSeen } = layer;
    for (const values of [gamma, beta, runningMean, runningVariance]) {
      if (values !== null && values.length !== channels) throw new Error("length");
    }
    if (!(channels >= 1 && Number.isSafeInteger(batchesSeen))) throw new Error("channels");
    if (!(layer.epsilon >= 0 && layer.epsilon < Infinity)) throw new Error("epsilon");
  }
}

/** How long this process has computed, in milliseconds: on a machine that has other work, a clock would count that too. */
function computed(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Loads files number `from` up to `to`; counts what came of them. Returns the milliseconds of the slowest one. */
function run<File>(format: Format<File>, from: number, to: number, count: Record<string, number>) {
  let slowest = 0;
  for (let i = from; i < to; i++) {
    const next = random(i);
    const file = format.mutate(pick(next, format.seeds), next);
    const start = computed();
    let what = "loaded";
    try {
      checkWhole(format.load(file));
    } catch (error) {
      if (!(error instanceof BatchNormError)) {
        console.error(`file ${i} (its seed): ${(error as Error).stack}`);
        process.exit(1);
      }
      what = error.name;
    }
    slowest = Math.max(slowest, computed() - start);
    count[what] = (count[what] ?? 0) + 1;
  }
  return slowest;
}

const formats: Record<string, Format<never>> = {
  torch,
  own,
  keras,
  fold,
  onnx,
  networks,
  ...torchFormats,
  ...kerasFormats,
} as never;
const [name = "", files = "10000"] = process.argv.slice(2);
const format = formats[name]!;
run(format, Number(files), Number(files) + 300, {}); // warm
const before = process.resourceUsage().maxRSS;
const start = performance.now();
const results: Record<string, number> = {};
const slowest = run(format, 0, Number(files), results);
const seconds = (performance.now() - start) / 1000;
const mebibytes = (process.resourceUsage().maxRSS - before) / 1024;
console.log(
  JSON.stringify({ format: name, files: Number(files), results, seconds, slowest, mebibytes }),
);
