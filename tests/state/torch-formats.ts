// Files of torch.save, and of any reader of readModel, for fuzz.ts: how they are damaged, and what counts
// as a right load.

import { type BatchNorm, OptionError } from "batchnorm-wasm";
import { readModel, readTorch, writeTorch } from "batchnorm-wasm/state";
import { goldenBytes } from "../support/golden.js";
import { safetensors } from "./files.js";
import type { Format } from "./fuzz.js";
import { BYTES, type Mutation, pick, upTo } from "./mutations.js";
import { type PlainDict, type PlainTorchTensor, plainTorch } from "./torch-files.js";
import { zip } from "./zip-files.js";

type Layers = Record<string, BatchNorm>;

/** The opcodes that PyTorch writes, and some others. */
const OPCODES = Buffer.from(
  "\x80\x85\x86\x87\x88\x89\x8a\x8c\x94()]}.02KMJNQRXabcehjqrstu",
  "latin1",
);

const otherOpcode: Mutation = (bytes, next) => {
  const changed = bytes.slice();
  for (let i = 1 + upTo(next, 2); i > 0; i--) {
    let at = upTo(next, bytes.length);
    while (at < bytes.length && !OPCODES.includes(changed[at]!)) at++;
    if (at < bytes.length) changed[at] = pick(next, [...OPCODES]);
  }
  return changed;
};

/** Small numbers, sizes and offsets among them, become others. */
const otherNumber: Mutation = (bytes, next) => {
  const changed = bytes.slice();
  for (let i = 1 + upTo(next, 2); i > 0; i--) {
    const at = bytes.indexOf("K".charCodeAt(0), upTo(next, bytes.length));
    if (at >= 0 && at + 1 < bytes.length)
      changed[at + 1] = pick(next, [0, 1, 2, 3, 4, 6, 127, 255]);
  }
  return changed;
};

const PICKLES: readonly Mutation[] = [
  ...BYTES,
  ...Array(4).fill(otherOpcode),
  ...Array(4).fill(otherNumber),
];

const isArchive = (file: Uint8Array): boolean => file[0] === 0x50;

/** Another pickle in the archive, or in the row; now and then any bytes of the file. */
const mutate: Mutation = (file, next) => {
  if (next() < 0.35) return pick(next, BYTES)(file, next);
  const mutation = pick(next, PICKLES);
  if (!isArchive(file)) {
    const length = 2500; // of the pickles, in the files that are damaged here
    const head = mutation(file.subarray(0, length), next);
    return new Uint8Array(Buffer.concat([head, file.subarray(length)]));
  }
  const entries = [...plainTorch.entries(file)].map(([name, data]) => ({
    name,
    data: name.endsWith("data.pkl") ? mutation(data, next) : data,
  }));
  return zip(entries, { zip64: next() < 0.5 });
};

/** The values of a tensor of a dict, `null` where it has none of this name. */
function valuesIn(dict: PlainDict, keys: readonly string[]): PlainTorchTensor | null {
  for (const key of keys) {
    const found = dict.entries.get(key);
    if (typeof found === "object" && found !== null && "values" in found) {
      return found as PlainTorchTensor;
    }
  }
  return null;
}

const equal = (tensor: PlainTorchTensor, values: ArrayLike<number>): boolean => {
  if (!/^F(32|64)$/.test(tensor.dtype)) return true;
  return (
    tensor.values.length === values.length && tensor.values.every((v, c) => Object.is(v, values[c]))
  );
};

/** Throws unless each layer's averages are those that the file has somewhere under its name. */
function checkAverages(layers: Layers, dicts: readonly PlainDict[]): void {
  for (const [name, layer] of Object.entries(layers)) {
    const found = dicts.some((dict) =>
      (["running_mean", "running_var"] as const).every((tensor) => {
        const wrappers = ["", "module.", "_orig_mod."];
        // Those of a module that was saved go by their own names alone.
        const keys = [...wrappers.map((prefix) => `${prefix}${name}.${tensor}`), tensor];
        const values = valuesIn(dict, keys);
        const own = tensor === "running_mean" ? layer.runningMean : layer.runningVariance;
        return values !== null && equal(values, own);
      }),
    );
    if (!found) throw new Error(`${name}: other averages than in the file`);
  }
}

/** How many files the plain reader could not read, of those that were loaded. */
const count = { loaded: 0, unread: 0 };
process.on("exit", () => {
  // A check that checks little is none.
  if (count.unread > count.loaded / 3) throw new Error(`not compared: ${JSON.stringify(count)}`);
});

const quiet = { eps: 1e-5, layout: "NC", onWarning: () => {} } as const;

/** The model in a file, or one of several. */
function opened(file: Uint8Array) {
  try {
    return { file: readTorch(file), key: {} };
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    const key = { key: "ema.model" };
    return { file: readTorch(file, key), key };
  }
}

function loadSaved(file: Uint8Array): Layers {
  const { file: opening, key } = opened(file);
  const layers = opening.loadAll(quiet);
  if (Object.keys(layers).length === 0) return layers;
  count.loaded++;
  let dicts: PlainDict[] | null = null;
  try {
    dicts = plainTorch(file);
  } catch {
    count.unread++;
  }
  if (dicts !== null) checkAverages(layers, dicts);
  if (count.loaded % 4 > 0) return layers;
  const written = writeTorch(layers, { into: file, ...key, onWarning: () => {} });
  safetensors(written);
  const again = readTorch(written).loadAll(quiet);
  for (const [name, layer] of Object.entries(layers)) {
    for (const part of ["gamma", "beta", "runningMean", "runningVariance"] as const) {
      // A module may have one parameter alone; in safetensors it has both.
      const [before, after] = [layer[part], again[name]![part]];
      if (before !== null && String(before) !== String(after)) throw new Error(`${name}: ${part}`);
    }
  }
  return layers;
}

const SAVED = [
  "state-dict",
  "state-dict-protocol-4",
  "state-dict-row",
  "checkpoint",
  "several",
  "module",
  "module-row",
  "bare",
  "parallel",
  "half",
  "views",
  "pruned",
].map((name) => goldenBytes(`torch/${name}.pt`));

const ANY = ["network.safetensors", "opset15.onnx", "opset7.onnx", "bare.safetensors"].map(
  goldenBytes,
);

export const torchFormats: Record<string, Format<Uint8Array>> = {
  pt: { seeds: SAVED, mutate, load: loadSaved },
  model: {
    seeds: [...SAVED.slice(0, 4), ...ANY],
    mutate: (file, next) =>
      next() < 0.5
        ? pick(next, BYTES)(file, next)
        : isArchive(file)
          ? mutate(file, next)
          : pick(next, BYTES)(file, next),
    load(file) {
      const model = readModel(file);
      if (model.format === "torch") return model.loadAll(quiet);
      return model.format === "onnx"
        ? model.loadAll({ layout: "NC", onWarning: () => {} })
        : model.loadAll();
    },
  },
};
