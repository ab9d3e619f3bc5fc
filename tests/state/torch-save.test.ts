// Files of torch.save: what PyTorch wrote gives what PyTorch gives, and each way in which a file can be
// another is read right, or refused in words of its own.

import { OptionError, StateError } from "batchnorm-wasm";
import { readTorch, type TorchLoadOptions, writeTorch } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { goldenBytes, torchFilesGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { safetensors } from "./files.js";
import {
  archive,
  type Code,
  call,
  dict,
  float,
  list,
  module,
  NONE,
  named,
  ORDERED,
  object,
  pickle,
  row,
  type Storages,
  tensor,
  text,
  tuple,
  whole,
} from "./torch-files.js";
import { zip } from "./zip-files.js";

const golden = torchFilesGolden();
const FILES = Object.keys(golden);
const bytesOf = (file: string): Uint8Array => goldenBytes(`torch/${file}.pt`);
const open = (file: string) =>
  readTorch(bytesOf(file), file === "several" ? { key: "ema.model" } : {});
const WHOLE = ["module", "module-row", "bare", "pruned-module", "several"];
const LAYOUTS = ["", "", "NC", "NCL", "NCHW", "NCDHW"] as const;

describe("files that PyTorch wrote", () => {
  test("are of every kind", () => {
    expect(FILES.length).toBeGreaterThan(15);
  });

  test.each(FILES)("%s: the same eval outputs, to 1e-6", (file) => {
    const { layers, load } = open(file);
    expect([...layers].sort()).toEqual(Object.keys(golden[file]!).sort());
    for (const name of layers) {
      const { x, y, shape, eps, momentum, batchesTracked } = golden[file]![name]!;
      const warnings: string[] = [];
      const options: TorchLoadOptions = { onWarning: (message) => warnings.push(message) };
      // A whole module has its own.
      if (!WHOLE.includes(file)) Object.assign(options, { eps, momentum });
      const layer = load(name, { ...options, layout: LAYOUTS[shape.length] as "NC" });
      expect(layer.epsilon).toBe(eps);
      const moving = WHOLE.includes(file) ? momentum : momentum || 0.1;
      expect(layer.decay).toBe(momentum === null ? "cumulative" : 1 - moving!);
      expect([layer.batchesSeen, layer.ageKnown]).toEqual([batchesTracked, true]);
      expect(warnings).toEqual([]);
      const result = layer.infer(x, { shape });
      expect(result.length).toBe(y.length);
      result.forEach((value, i) => {
        expect(Math.abs(value - y[i]!)).toBeLessThan(1e-6 * Math.max(1, Math.abs(y[i]!)));
      });
    }
  });

  test.each(FILES.filter((file) => file !== "several"))(
    "%s: written into, it is safetensors with the same numbers",
    (file) => {
      const { layers, loadAll } = open(file);
      const loaded = loadAll({ eps: 1, layout: "NC", onWarning: () => {} });
      const written = writeTorch(loaded, { into: bytesOf(file) });
      const again = readTorch(written).loadAll({ eps: 1, momentum: 0.5, layout: "NC" });
      expect(Object.keys(again).sort()).toEqual([...layers].sort());
      for (const name of layers) {
        for (const part of [
          "gamma",
          "beta",
          "runningMean",
          "runningVariance",
          "batchesSeen",
        ] as const) {
          expect(again[name]![part]).toEqual(loaded[name]![part]);
        }
      }
    },
  );

  test("written into, other tensors of a file stay", () => {
    const bytes = bytesOf("views");
    const layers = open("views").loadAll({ eps: 1, layout: "NC" });
    const written = safetensors(writeTorch(layers, { into: bytes })).tensors;
    const plain = safetensors(goldenBytes("network.safetensors")).tensors;
    expect([...written.keys()].sort()).toEqual([...plain.keys()].sort());
    // Its axes lie the other way round in the file.
    for (const key of ["block.0.weight", "conv1.weight", "fc.bias", "bn1.num_batches_tracked"]) {
      expect(written.get(key)).toEqual(plain.get(key));
    }
  });

  test("a whole module says its eps, its momentum and how many axes there are", () => {
    const { bn1, head, "block.1": block } = readTorch(bytesOf("module")).loadAll();
    expect([bn1!.epsilon, bn1!.layout, bn1!.decay]).toEqual([1e-5, "NCHW", 0.9]);
    expect([block!.epsilon, block!.layout, block!.decay]).toEqual([1e-3, "NCHW", 0.7]);
    expect([head!.epsilon, head!.gamma]).toEqual([1e-5, null]);
    const file = readTorch(bytesOf("module-row"));
    const layer = file.load("0", { onWarning: () => {} });
    expect([layer.layout, layer.epsilon]).toEqual(["NCDHW", 0.25]);
    // What is given goes before what the file says.
    const options = { eps: 0.5, momentum: 0.25, layout: "NHWC" } as const;
    const other = readTorch(bytesOf("module")).load("block.1", options);
    expect([other.epsilon, other.decay, other.layout]).toEqual([0.5, 0.75, "NHWC"]);
  });

  test("several models in one: they are listed, and one is chosen", () => {
    const bytes = bytesOf("several");
    assertRefuses(
      OptionError,
      /^key: expected one of "model", "ema\.model", "pair\.0", got none$/,
      () => readTorch(bytes),
    );
    assertRefuses(OptionError, /^key: expected one of "model", .*, got "ema"$/, () =>
      readTorch(bytes, { key: "ema" }),
    );
    assertRefuses(OptionError, /^keys: expected an option among key, got "keys"$/, () =>
      readTorch(bytes, wrong({ keys: 1 })),
    );
    assertRefuses(OptionError, /^key: expected one of "state_dict", got "model"$/, () =>
      readTorch(bytesOf("checkpoint"), { key: "model" }),
    );
    assertRefuses(
      OptionError,
      /^key: expected none, since the whole file is one model, got "model"$/,
      () => readTorch(bytesOf("state-dict"), { key: "model" }),
    );
    const means = ["model", "ema.model", "pair.0"].map(
      (key) => readTorch(bytes, { key }).load("bn1", { eps: 1 }).runningMean[0]!,
    );
    expect(means[0]).not.toBe(means[1]);
    expect(means[1]).toBe(means[2]);
    const layer = readTorch(bytes, { key: "model" }).load("bn1");
    const written = readTorch(writeTorch({ bn1: layer }, { into: bytes, key: "model" }));
    expect(written.load("head", { eps: 1 }).runningMean[0]).toBe(
      readTorch(bytes, { key: "model" }).load("head").runningMean[0],
    );
  });

  test("a TorchScript archive is named, with what makes it readable", () => {
    assertRefuses(
      StateError,
      /^bytes: expected a PyTorch model.*, got a TorchScript archive: .*torch\.jit\.load\(path\)\.state_dict\(\)/,
      () => readTorch(bytesOf("script")),
    );
  });

  test.each(["state-dict", "state-dict-row"])("%s: every beginning is refused", (file) => {
    const bytes = bytesOf(file);
    for (let length = 0; length < bytes.length; length += 7) {
      assertRefuses(StateError, /^bytes: expected/, () => readTorch(bytes.subarray(0, length)));
    }
  });
});

/** A state_dict of one batch norm, some tensors of which are others. */
const norm = (change: Record<string, Code> = {}, made = ORDERED): Code =>
  dict({ "bn.running_mean": tensor(), "bn.running_var": tensor(), ...change }, made);

const load = (bytes: Uint8Array, options: TorchLoadOptions = { eps: 1 }) => {
  const file = readTorch(bytes);
  expect(file.layers).toHaveLength(1);
  return file.load(file.layers[0]!, { layout: "NC", ...options });
};
const meanOf = (bytes: Uint8Array) => [...load(bytes).runningMean];
/** A file whose one batch norm has this mean. */
const withMean = (mean: Code, storages?: Storages): Uint8Array =>
  archive(norm({ "bn.running_mean": mean }), storages);

describe("tensors", () => {
  const typed = (values: { buffer: ArrayBufferLike }): Storages => ({
    0: [1, 2, 3],
    m: new Uint8Array(values.buffer),
  });

  test.each<[string, Code, Storages, number[]]>([
    [
      "float64",
      tensor({ type: "torch.DoubleStorage", key: "m" }),
      typed(Float64Array.of(0.1, 2, 3)),
      [0.1, 2, 3],
    ],
    [
      "float16",
      tensor({ type: "torch.HalfStorage", key: "m" }),
      typed(Uint16Array.of(0x3c00, 0x4000, 0x4200)),
      [1, 2, 3],
    ],
    [
      "bfloat16",
      tensor({ type: "torch.BFloat16Storage", key: "m" }),
      typed(Uint16Array.of(0x3f80, 0x4000, 0x4040)),
      [1, 2, 3],
    ],
    ["of a GPU", tensor({ type: "torch.cuda.FloatStorage" }), typed(Uint8Array.of()), [1, 2, 3]],
    [
      "part of a storage",
      tensor({ key: "m", length: 5, offset: 1, shape: [3] }),
      { 0: [1, 2, 3], m: [9, 7, 8, 6, 9] },
      [7, 8, 6],
    ],
    [
      "every second value",
      tensor({ key: "m", length: 6, offset: 1, shape: [3], strides: [2] }),
      { 0: [1, 2, 3], m: [9, 7, 9, 8, 9, 6] },
      [7, 8, 6],
    ],
    [
      "one value three times",
      tensor({ key: "m", length: 1, shape: [3], strides: [0] }),
      { 0: [1, 2, 3], m: [5] },
      [5, 5, 5],
    ],
    [
      "a larger storage than it says",
      tensor({ key: "m", length: 3 }),
      { 0: [1, 2, 3], m: [4, 5, 6, 7] },
      [4, 5, 6],
    ],
    [
      "a parameter",
      call("torch._utils._rebuild_parameter", tensor(), "\x88", ORDERED),
      { 0: [1, 2, 3] },
      [1, 2, 3],
    ],
    [
      "a parameter with attributes",
      call("torch._utils._rebuild_parameter_with_state", tensor(), "\x88", ORDERED, dict({})),
      { 0: [1, 2, 3] },
      [1, 2, 3],
    ],
    [
      "a parameter of PyTorch 0.4",
      call("torch.nn.parameter.Parameter", tensor(), "\x88"),
      { 0: [1, 2, 3] },
      [1, 2, 3],
    ],
    [
      "without what came later",
      tensor({ function: "_rebuild_tensor" }),
      { 0: [1, 2, 3] },
      [1, 2, 3],
    ],
    [
      "with empty metadata",
      tensor({ more: [dict({}).replace("(u", "")] }),
      { 0: [1, 2, 3] },
      [1, 2, 3],
    ],
    [
      "a subclass",
      call(
        "torch._tensor._rebuild_from_type_v2",
        named("torch._utils._rebuild_tensor_v2"),
        named("a.Tensor"),
        tuple(
          `${tuple(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), "K\x03")}Q`,
          "K\x00",
          tuple("K\x03"),
          tuple("K\x01"),
          "\x89",
          ORDERED,
        ),
        dict({}),
      ),
      { 0: [1, 2, 3] },
      [1, 2, 3],
    ],
  ])("%s", (_, mean, storages, values) => {
    expect(meanOf(withMean(mean, storages))).toEqual(values);
  });

  const metadata = dict({ neg: "\x88" });
  test.each<[string, Code, RegExp]>([
    [
      "of whole numbers",
      tensor({ type: "torch.LongStorage", key: "n", length: 1 }),
      /^bn\.running_mean: expected F16, .* got I64 \[1\]$/,
    ],
    [
      "of two axes",
      tensor({ shape: [3, 1], strides: [1, 1] }),
      /^bn\.running_mean: .* got F32 \[3, 1\]$/,
    ],
    [
      "complex",
      tensor({ type: "torch.ComplexFloatStorage", key: "n", length: 1 }),
      /got a tensor of ComplexFloat$/,
    ],
    ["of a type that is none", tensor({ type: "torch.NewStorage" }), /got a tensor of New$/],
    [
      "of a type that came later",
      tensor({ function: "_rebuild_tensor_v3", more: [named("torch.float4")] }),
      /got an object of torch\._utils\._rebuild_tensor_v3$/,
    ],
    [
      "a parameter of a type that came later",
      call(
        "torch._utils._rebuild_parameter",
        tensor({ function: "_rebuild_tensor_v3" }),
        "\x88",
        ORDERED,
      ),
      /got an object of torch\._utils\._rebuild_tensor_v3$/,
    ],
    [
      "of a type that came later, in a class of its own",
      call(
        "torch._tensor._rebuild_from_type_v2",
        named("torch._utils._rebuild_tensor_v3"),
        named("a.Tensor"),
        tuple(),
        dict({}),
      ),
      /got an object of torch\._utils\._rebuild_tensor_v3$/,
    ],
    ["with its sign to be taken", tensor({ more: [metadata] }), /got a tensor of negated F32$/],
    [
      "quantized",
      call("torch._utils._rebuild_qtensor", tensor()),
      /got an object of torch\._utils\._rebuild_qtensor$/,
    ],
    [
      "an array of NumPy",
      call("numpy.core.multiarray._reconstruct", NONE),
      /got an object of numpy\.core\.multiarray\._reconstruct/,
    ],
    [
      "of a storage that is not there",
      tensor({ key: "x" }),
      /^bytes: .* within storage x of 3 values, which has 0 bytes, got/,
    ],
    [
      "of fewer values than its storage has",
      tensor({ length: 4, shape: [3] }),
      /within storage 0 of 4 values, which has 12 bytes/,
    ],
    [
      "beyond its storage",
      tensor({ shape: [2], strides: [3] }),
      /within storage 0 of 3 values, .* sizes \[2\] and strides \[3\] from value 0 on$/,
    ],
    ["of fewer strides than sizes", tensor({ strides: [] }), /sizes \[3\] and strides \[\] from/],
    [
      "of no channels",
      tensor({ shape: [0] }),
      /^bn\.running_mean: expected F16, .* got F32 \[0\]$/,
    ],
  ])("%s: refused, loading", (_, mean, message) => {
    const file = readTorch(withMean(mean, { 0: [1, 2, 3], n: new Uint8Array(8) }));
    assertRefuses(StateError, message, () => file.load("bn", { eps: 1 }));
  });

  test.each<[string, Code, RegExp]>([
    [
      "without a storage",
      call("torch._utils._rebuild_tensor_v2", NONE, "K\x00", tuple(), tuple()),
      /^bytes: expected a tensor that has a storage, an offset, sizes and strides, got another$/,
    ],
    [
      "of a persistent id that is none",
      `${text("a")}Q`,
      /expected a storage that has a type, a key and a length, got another$/,
    ],
    [
      "of a storage without a type",
      `${tuple(text("storage"), NONE, text("0"), text("cpu"), "K\x03")}Q`,
      /expected a storage that has a type, a key/,
    ],
    [
      "of a storage without a length",
      `${tuple(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), NONE)}Q`,
      /expected a storage that has a type, a key and a length/,
    ],
  ])("%s: refused", (_, mean, message) => {
    assertRefuses(StateError, message, () => readTorch(withMean(mean)));
  });
});

describe("what is saved", () => {
  const bn = (
    more: Record<string, Code> = {},
    path = "torch.nn.modules.batchnorm.BatchNorm2d",
  ): Code =>
    module(path, {
      parameters: { weight: tensor(), bias: NONE },
      buffers: { running_mean: tensor(), running_var: tensor() },
      more: { eps: float(0.5), momentum: float(0.25), ...more },
    });
  const quiet: TorchLoadOptions = { onWarning: () => {} };

  test.each<[string, Code]>([
    ["a state_dict", norm()],
    ["a dict", norm({}, "}")],
    [
      "as Python 2 writes an OrderedDict",
      call(
        "collections.OrderedDict",
        list(list(text("bn.running_mean"), tensor()), list(text("bn.running_var"), tensor())),
      ),
    ],
    [
      "a state_dict with its metadata",
      `${norm()}${dict({ _metadata: dict({ "": dict({ version: "K\x02" }) }, ORDERED) })}b`,
    ],
    ["in a checkpoint", dict({ epoch: "K\x05", anything: norm() })],
    ["three levels down", dict({ a: dict({ b: list(NONE, dict({ c: norm() })) }) })],
    [
      "six levels down",
      ["a", "b", "c", "d", "e", "f"].reduceRight((saved, key) => dict({ [key]: saved }), norm()),
    ],
    ["under a number", `}K\x05${norm()}s`],
    ["under a tuple", `}${tuple(text("fold"), "K\x01")}${norm()}s`],
    ["in a pair, as fastai has it", tuple(norm(), dict({ lr: float(0.1) }))],
    ["twice the same", `}(${text("a")}${norm()}q\x00${text("b")}h\x00u`],
    [
      "beside other values",
      dict({
        "bn.running_mean": tensor(),
        "bn.running_var": tensor(),
        version: "K\x01",
        "bn.note": text("x"),
      }),
    ],
  ])("%s", (_, saved) => {
    for (const bytes of [archive(saved), row(saved)]) expect(meanOf(bytes)).toEqual([1, 2, 3]);
  });

  test.each<[string, string, number]>([
    ["uint16", "U16", 2],
    ["uint32", "U32", 4],
    ["uint64", "U64", 8],
    ["float8_e4m3fn", "F8_E4M3", 1],
    ["float8_e5m2", "F8_E5M2", 1],
  ])("a tensor of %s, whose storage is one of bytes", (type, dtype, size) => {
    // The second and third of four values, each of which has other bytes.
    const bytes = Uint8Array.from({ length: 4 * size }, (_, i) => (i < 4 ? 64 : 0) + i);
    const later = (shape: number[], dimensions = shape.map(() => 1)) =>
      tensor({
        type: "torch.storage.UntypedStorage",
        key: "u",
        length: bytes.length,
        offset: 1,
        shape,
        strides: dimensions,
        function: "_rebuild_tensor_v3",
        more: [named(`torch.${type}`)],
      });
    const open = (other: Code) =>
      archive(norm({ other, "bn.num_batches_tracked": later([]) }), { 0: [1, 2, 3], u: bytes });
    const file = open(later([2]));
    const warnings: string[] = [];
    const bn = readTorch(file).load("bn", { eps: 1, onWarning: (each) => warnings.push(each) });
    const count = Number(
      `0x${[...bytes.subarray(size, 2 * size)]
        .reverse()
        .map((byte) => byte.toString(16).padStart(2, "0"))
        .join("")}`,
    );
    const counts = type.startsWith("u") && Number.isSafeInteger(count);
    expect([bn.batchesSeen, bn.ageKnown]).toEqual(counts ? [count, true] : [1, false]);
    expect(warnings.length).toBe(counts ? 0 : 1);
    const { tensors } = safetensors(writeTorch({ bn }, { into: file }));
    const written = tensors.get("other")!;
    expect([written.dtype, written.shape]).toEqual([dtype, [2]]);
    expect(Uint8Array.from(written.data)).toEqual(bytes.slice(size, 3 * size));
    assertRefuses(StateError, /within storage u of 4 values, .* from value 1 on$/, () =>
      writeTorch({ bn }, { into: open(later([4])) }),
    );
  });

  test.each<[string, string, number | null]>([
    ["a whole number", "K\x07", 7],
    ["a number below 0", whole(-7), null],
    ["a float64", float(7), 7],
    ["a truth value", "\x88", null],
    [
      "complex",
      tensor({ type: "torch.ComplexFloatStorage", key: "1", length: 1, shape: [] }),
      null,
    ],
    ["of a kind that is not known", call("torch._utils._rebuild_tensor_v9"), null],
  ])("a counter that is no tensor of real numbers: %s", (_, counter, count) => {
    const bytes = archive(norm({ "bn.num_batches_tracked": counter }));
    const warnings: string[] = [];
    const bn = readTorch(bytes).load("bn", {
      eps: 1e-5,
      onWarning: (message) => void warnings.push(message),
    });
    expect([bn.batchesSeen, bn.ageKnown]).toEqual([count ?? 1, count !== null]);
    expect(warnings.length).toBe(count === null ? 1 : 0);
    if (count === null) expect(warnings[0]).toMatch(/^bn\.num_batches_tracked: .* age .* unknown$/);
    const written = readTorch(writeTorch({ bn }, { into: bytes })).load("bn", { eps: 1e-5 });
    expect([written.batchesSeen, written.ageKnown]).toEqual([count ?? 1, count !== null]);
  });

  test.each([2, 3, 4, 5])("before PyTorch 1.6, in protocol %i", (protocol) => {
    expect(meanOf(row(norm(), undefined, { protocol }))).toEqual([1, 2, 3]);
  });

  test("with the order of bytes that is read here", () => {
    expect(meanOf(archive(norm(), undefined, { byteorder: "little" }))).toEqual([1, 2, 3]);
    const big = /^bytes: expected little-endian values, got big-endian ones$/;
    assertRefuses(StateError, big, () =>
      readTorch(archive(norm(), undefined, { byteorder: "big" })),
    );
    assertRefuses(StateError, big, () =>
      readTorch(row(norm(), undefined, { machine: dict({ little_endian: "\x89" }) })),
    );
  });

  test("nothing with batch norms", () => {
    for (const saved of [
      NONE,
      "K\x05",
      text("a"),
      list(),
      dict({}),
      tensor(),
      dict({ a: tensor() }),
    ]) {
      expect(readTorch(archive(saved)).layers).toEqual([]);
    }
    const other = object("a.B", { x: norm() });
    expect(readTorch(archive(other)).layers).toEqual([]);
    assertRefuses(
      OptionError,
      /^key: expected none, since nothing in the file has batch norms, got "a"$/,
      () => readTorch(archive(NONE), { key: "a" }),
    );
  });

  test.each<[string, string, "NC" | "NCHW" | "NCDHW"]>([
    ["torch.nn.modules.batchnorm.BatchNorm3d", "NCDHW", "NCDHW"],
    ["torchvision.ops.misc.FrozenBatchNorm2d", "NCHW", "NCHW"],
    ["timm.layers.norm_act.BatchNormAct2d", "NCHW", "NCHW"],
    ["torch.nn.modules.batchnorm.SyncBatchNorm", "any", "NC"],
  ])("a module %s: %s", (path, _, layout) => {
    const file = readTorch(archive(bn({}, path)));
    const layer = layout === "NC" ? file.load("", { ...quiet, layout }) : file.load("", quiet);
    expect([layer.layout, layer.epsilon, layer.decay]).toEqual([layout, 0.5, 0.75]);
    expect([...layer.gamma!]).toEqual([1, 2, 3]);
    expect(layer.beta).toBe(null);
  });

  test("modules within modules, named as named_modules names them", () => {
    const shared = `${bn()}q\x07`;
    const inner = module("a.Block", {
      modules: { bn1: shared, none: NONE, act: module("a.Relu", {}) },
    });
    const saved = module("a.Net", { modules: { stem: inner, again: "h\x07", head: bn() } });
    const instance = "torch.nn.modules.instancenorm.InstanceNorm2d";
    expect(readTorch(archive(saved)).layers).toEqual(["stem.bn1", "head"]);
    expect(readTorch(archive(dict({ model: saved, ema: NONE }))).layers).toHaveLength(2);
    expect(
      readTorch(archive(module("a.Net", { modules: { m: bn({}, instance), n: bn() } }))).layers,
    ).toEqual(["n"]);
    const parallel = module("torch.nn.parallel.DataParallel", { modules: { module: saved } });
    const file = readTorch(archive(parallel));
    expect(file.layers).toEqual(["stem.bn1", "head"]);
    expect(file.load("head", quiet).epsilon).toBe(0.5);
    const own = module("a.Net", { modules: { m: `]q\x08h\x08a`, n: bn() } });
    expect(readTorch(archive(own)).layers).toEqual(["n"]);
    const cycle = `${object("a.Net", {})}q\x09${dict({ _buffers: dict({}), _modules: dict({ a: "h\x09", n: bn() }) })}b`;
    expect(readTorch(archive(cycle)).layers).toEqual(["n"]);
  });

  test("before 1.6 a class stands beside its source", () => {
    const path = "torch.nn.modules.batchnorm.BatchNorm2d";
    const source = `${tuple(text("module"), named(path), text("batchnorm.py"), text("class …"))}Q`;
    expect(load(row(bn().replace(named(path), () => source)), quiet).epsilon).toBe(0.5);
  });

  test.each<[string, Record<string, Code>, TorchLoadOptions, number | string]>([
    ["null, the plain average", { momentum: NONE }, quiet, "cumulative"],
    ["a whole number", { momentum: "K\x01" }, quiet, 0],
    ["0, which moves nothing", { momentum: float(0) }, quiet, 1],
    ["1e-300, which moves nothing", { momentum: float(1e-300) }, quiet, 1],
    ["0, and another given", { momentum: float(0) }, { ...quiet, momentum: 0.5 }, 0.5],
  ])("a momentum of %s", (_, more, options, decay) => {
    expect(load(archive(bn(more)), options).decay).toBe(decay);
  });

  test.each<[string, Record<string, Code>, RegExp]>([
    [
      "a negative eps",
      { eps: float(-1) },
      /^module "": eps: expected a finite number >= 0, got -1$/,
    ],
    [
      "an eps that is text",
      { eps: text("a") },
      /^module "": eps: expected a finite number >= 0, got "a"$/,
    ],
    [
      "a negative momentum",
      { momentum: float(-1) },
      /^module "": momentum: expected 2\^-54 < momentum <= 1 or null/,
    ],
    ["a momentum above 1", { momentum: float(2) }, /^module "": momentum: .* got 2$/],
  ])("%s is the fault of the file", (_, more, message) => {
    assertRefuses(StateError, message, () => load(archive(bn(more)), quiet));
  });

  test("without an eps it is asked for", () => {
    const without = module("a.FrozenBatchNorm2d", {
      buffers: { running_mean: tensor(), running_var: tensor() },
    });
    assertRefuses(
      OptionError,
      /^eps: expected the eps of module "", which a state_dict does not hold/,
      () => load(archive(without), {}),
    );
    expect(load(archive(without)).epsilon).toBe(1);
  });
});

describe("is refused", () => {
  const many = (count: number): Code => {
    const one = (i: number): string => text(`m${i}`) + norm();
    return `}(${Array.from({ length: count }, (_, i) => one(i)).join("")}u`;
  };

  test.each<[string, Uint8Array, RegExp]>([
    [
      "a pickle that is none",
      archive(Uint8Array.of(1)),
      /^bytes: expected a pickle, got the unknown opcode 0x1 at 1$/,
    ],
    [
      "a deflated pickle",
      zip([{ name: "a/data.pkl", data: pickle(norm()), method: 8 }]),
      /"a\/data\.pkl", which is compressed/,
    ],
    ["an opcode of protocol 0", archive("I5\n"), /got the unknown opcode 0x49/],
    [
      "a key of no storage, before 1.6",
      row(norm(), undefined, { keys: list(text("9")) }),
      /expected a storage of 0 values of type unknown at \d+, got other bytes/,
    ],
    [
      "a key twice, before 1.6",
      row(norm(), { 0: [1, 2, 3], 1: [1] }, { keys: list(text("0"), text("0")) }),
      /expected a storage of 3 values of type F32 at \d+, got other bytes/,
    ],
    [
      "fewer values than a storage has, before 1.6",
      row(norm(), { 0: [1, 2] }),
      /^bytes: expected a storage of 3 values of type F32 at \d+, got other bytes: trunc/,
    ],
  ])("%s", (_, bytes, message) => {
    assertRefuses(StateError, message, () => readTorch(bytes));
  });

  test("a storage that is not there, before 1.6", () => {
    for (const keys of [list(), NONE]) {
      const file = readTorch(row(norm(), {}, { keys }));
      assertRefuses(StateError, /within storage 0 of 3 values, which has 0 bytes, got/, () =>
        file.load("bn", { eps: 1 }),
      );
    }
  });

  test("more models than a message has room for", () => {
    assertRefuses(
      OptionError,
      /^key: expected one of "m0", .*"m7", … \(9 in all\), got none$/,
      () => readTorch(archive(many(9))),
    );
  });

  test("a key that is a tuple is named by its place", () => {
    const bytes = archive(
      `}${tuple(text("a"))}${norm()}s${tuple(text("b"))}${dict({ c: norm() })}s`,
    );
    assertRefuses(OptionError, /^key: expected one of "\[0\]", "\[1\]\.c", got none$/, () =>
      readTorch(bytes),
    );
    expect(readTorch(bytes, { key: "[1].c" }).layers).toEqual(["bn"]);
  });

  test("a mask without the parameter that it belongs to", () => {
    const bytes = archive(norm({ "bn.weight": tensor(), "bn.weight_mask": tensor() }));
    assertRefuses(
      StateError,
      /^bn\.weight_mask: expected a tensor that batch norms have, got/,
      () => load(bytes),
    );
  });

  test("a key for a file of safetensors", () => {
    assertRefuses(OptionError, /^key: expected none for a safetensors file, .* got "model"$/, () =>
      readTorch(goldenBytes("network.safetensors"), { key: "model" }),
    );
  });

  test("into a file with what no safetensors file can hold", () => {
    const bytes = archive(norm({ other: call("a.B") }));
    const layer = load(bytes);
    assertRefuses(
      StateError,
      /^other: expected a tensor of plain values, got an object of a\.B$/,
      () => writeTorch({ bn: layer }, { into: bytes }),
    );
  });
});
