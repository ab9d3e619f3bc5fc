// PyTorch's state_dict in safetensors: files that PyTorch's tensors were written into, and back.

import { BatchNorm, diagnose, OptionError, ShapeError, StateError } from "batchnorm-wasm";
import { load, readTorch, save, type TorchLoadOptions, writeTorch } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { goldenBytes, networkGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { type PlainTensor, safetensors } from "./files.js";

const golden = networkGolden();
const LAYOUTS = { bn1: "NCHW", "block.1": "NCHW", head: "NC" } as const;
type Name = keyof typeof LAYOUTS;
const NAMES = Object.keys(LAYOUTS) as Name[];

const optionsOf = (name: string): TorchLoadOptions => ({
  ...golden.options[name]!,
  layout: LAYOUTS[name as Name],
});

/** Largest difference, in units of the larger of 1 and the number itself. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    worst = Math.max(
      worst,
      Math.abs(actual[i]! - expected[i]!) / Math.max(1, Math.abs(expected[i]!)),
    );
  }
  return worst;
}

describe("a network of PyTorch", () => {
  test.each(Object.keys(golden.evaluations))("%s: the same eval outputs, to 1e-6", (file) => {
    const { layers, loadAll } = readTorch(goldenBytes(`${file}.safetensors`));
    expect([...layers].sort()).toEqual([...NAMES].sort());
    const loaded = loadAll(optionsOf);
    for (const name of NAMES) {
      const { x, y, shape } = golden.evaluations[file]![name]!;
      expect(difference(loaded[name]!.infer(x, { shape }), y), name).toBeLessThan(1e-6);
      expect(loaded[name]!.batchesSeen).toBe(7);
      expect(loaded[name]!.ageKnown).toBe(true);
    }
  });

  test("trains on as PyTorch does", () => {
    const loaded = readTorch(goldenBytes("network.safetensors")).loadAll(optionsOf);
    for (const name of NAMES) {
      const step = golden.step[name]!;
      const layer = loaded[name]!;
      const y = layer.train(step.x, { shape: step.shape });
      const { dx, dgamma, dbeta } = layer.backward(step.dy);
      // PyTorch sums in float32 here; its own error is of this order.
      expect(difference(y, step.y), name).toBeLessThan(2e-6);
      expect(difference(dx, step.dx), name).toBeLessThan(2e-6);
      expect(difference(layer.runningMean, step.runningMean), name).toBeLessThan(1e-6);
      expect(difference(layer.runningVariance, step.runningVariance), name).toBeLessThan(1e-6);
      expect(layer.batchesSeen).toBe(step.batchesTracked);
      expect([dgamma === null, dbeta === null]).toEqual([
        step.dgamma === null,
        step.dbeta === null,
      ]);
      if (dgamma) expect(difference(dgamma, step.dgamma!), name).toBeLessThan(5e-6);
      if (dbeta) expect(difference(dbeta, step.dbeta!), name).toBeLessThan(5e-6);
    }
  });

  test("there and back: the bytes that PyTorch's tensors were written as", () => {
    const bytes = goldenBytes("norms.safetensors");
    const loaded = readTorch(goldenBytes("network.safetensors")).loadAll(optionsOf);
    expect(writeTorch(loaded)).toEqual(bytes);
  });

  test.each(["network", "network-f16", "network-bf16", "network-f64", "old", "bare"])(
    "into %s: all that did not change stays, to the byte",
    (file) => {
      const bytes = goldenBytes(`${file}.safetensors`);
      const { loadAll } = readTorch(bytes);
      const loaded = loadAll({ eps: 1e-5 });
      expect(writeTorch(loaded, { into: bytes })).toEqual(bytes);

      const first = Object.keys(loaded)[0]!;
      loaded[first]!.runningMean[0]! += 1;
      const [before, after] = [
        safetensors(bytes),
        safetensors(writeTorch({ [first]: loaded[first]! }, { into: bytes })),
      ];
      expect(after.metadata).toEqual(before.metadata);
      expect([...after.tensors.keys()].sort()).toEqual([...before.tensors.keys()].sort());
      for (const [key, tensor] of before.tensors) {
        const changed = key === (first === "" ? "running_mean" : `${first}.running_mean`);
        const now = after.tensors.get(key)!;
        expect([now.dtype, now.shape]).toEqual([tensor.dtype, tensor.shape]);
        if (changed) expect(now.data).not.toEqual(tensor.data);
        else expect(now.data).toEqual(tensor.data);
      }
    },
  );

  test("a bare module is the layer of the empty name", () => {
    const file = readTorch(goldenBytes("bare.safetensors"));
    expect(file.layers).toEqual([""]);
    const whole = readTorch(goldenBytes("network.safetensors"));
    expect(file.load("", { eps: 1e-5 }).snapshot()).toEqual(
      whole.load("bn1", { eps: 1e-5 }).snapshot(),
    );
    expect(writeTorch(file.loadAll({ eps: 1e-5 }))).toEqual(goldenBytes("bare.safetensors"));
  });

  test("has the conventions of BatchNorm.torch", () => {
    const layer = readTorch(goldenBytes("network.safetensors")).load("bn1", { eps: 0.25 });
    const like = BatchNorm.torch(4, { eps: 0.25 });
    expect(layer.layout).toBe("channelsFirst");
    for (const name of ["epsilon", "decay", "debias", "runningVarianceOf"] as const) {
      expect(layer[name]).toBe(like[name]);
    }
    expect(layer).toBeInstanceOf(BatchNorm);
  });

  test("a state_dict does not say how many axes there are: any, channels first, and shape is asked for", () => {
    const bytes = fileOf({
      "bn.running_mean": [0, 10],
      "bn.running_var": [1, 4],
      "bn.weight": [1, 2],
      "bn.bias": [0, 1],
    });
    const layer = readTorch(bytes).load("bn", { eps: 1e-5 });
    expect(layer.layout).toBe("channelsFirst");
    const x = Float32Array.of(0, 1, 2, 3, 0, 1, 2, 3);
    assertRefuses(
      ShapeError,
      /^shape: expected the sizes of all axes for layout "channelsFirst"/,
      () => layer.infer(x),
    );
    const wanted = [0, 1, 2, 3, -9, -8, -7, -6];
    for (const shape of [
      [1, 2, 2, 2],
      [1, 2, 4],
      [1, 2, 1, 2, 1, 2],
    ]) {
      layer.infer(x, { shape }).forEach((y, i) => {
        expect(y).toBeCloseTo(wanted[i]!, 3);
      });
    }
    const last = readTorch(bytes).load("bn", { eps: 1e-5, layout: "NHWC" });
    expect(last.infer(Float32Array.of(0, 0), { shape: [1, 1, 1, 2] })[1]).toBeCloseTo(-9, 3);
  });

  test("bytes of any kind", () => {
    const bytes = goldenBytes("network.safetensors");
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    const offset = new Uint8Array(bytes.length + 3).subarray(3);
    offset.set(bytes);
    const { layers } = readTorch(bytes);
    for (const given of [bytes.buffer as ArrayBuffer, Buffer.from(bytes), shared, offset]) {
      const file = readTorch(given);
      expect(file.layers).toEqual(layers);
      expect(file.load("bn1", { eps: 1 }).snapshot()).toEqual(
        readTorch(bytes).load("bn1", { eps: 1 }).snapshot(),
      );
    }
  });
});

describe("a file without a counter", () => {
  const load = () => readTorch(goldenBytes("old.safetensors")).loadAll(optionsOf);

  test("batchesSeen is 1, and diagnose says that the age is unknown", () => {
    const layer = load().bn1!;
    expect([layer.batchesSeen, layer.ageKnown]).toEqual([1, false]);
    const fits = Float32Array.from(normal(4 * 600, 1), (z, i) => {
      const c = Math.floor(i / 300) % 4;
      return layer.runningMean[c]! + z * Math.sqrt(layer.runningVariance[c]!);
    });
    const diagnosis = diagnose(layer, fits, { shape: [2, 4, 15, 20] });
    expect(diagnosis).toMatchObject({ verdict: "fit", batchesSeen: 1, ageKnown: false });
    expect(diagnosis.advice).toMatch(/The age of the averages is unknown/);
    expect(String(diagnosis)).toMatch(/mini-batches seen {3}1 or more/);
    // As averages are after one mini-batch of such data, if they are that young.
    const far = normal(1200, 2, 5, 2);
    layer.runningMean.fill(0.5);
    layer.runningVariance.fill(0.9 + 0.1 * 4);
    expect(diagnose(layer, far, { shape: [1, 4, 15, 20] }).verdict).toBe("drifted");
    layer.batchesSeen = 1;
    const known = diagnose(layer, far, { shape: [1, 4, 15, 20] });
    expect(known.verdict).toBe("undertrained");
    expect(known.advice).not.toMatch(/unknown/);
    expect(String(known)).toMatch(/mini-batches seen {3}1\n/);
  });

  test("the age stays unknown in training, clones and snapshots, until it is set", async () => {
    const layer = load().head!;
    layer.train(normal(40, 1));
    expect([layer.batchesSeen, layer.ageKnown]).toEqual([2, false]);
    const copies = [layer.clone(), BatchNorm.fromSnapshot(JSON.stringify(layer))];
    const restored = new BatchNorm(5, { gamma: false, beta: false });
    restored.restore(layer.snapshot());
    for (const copy of [...copies, restored]) {
      expect([copy.batchesSeen, copy.ageKnown]).toEqual([2, false]);
      expect(copy.snapshot()).toMatchObject({ batchesSeen: 2, ageKnown: false });
    }
    for (const learn of [
      (bn: BatchNorm) => bn.reset(),
      (bn: BatchNorm) => bn.setRunning(bn.moments(normal(40, 2))),
      (bn: BatchNorm) => bn.restore(new BatchNorm(5, { gamma: false, beta: false }).snapshot()),
    ]) {
      const copy = layer.clone();
      learn(copy);
      expect(copy.ageKnown).toBe(true);
      expect("ageKnown" in copy.snapshot()).toBe(false);
    }
  });

  test("untrained averages are untrained whatever the age", () => {
    const bytes = writeTorch({ bn: new BatchNorm(2) });
    const { tensors } = safetensors(bytes);
    tensors.delete("bn.num_batches_tracked");
    const layer = readTorch(safetensors.write(tensors)).load("bn", { eps: 1e-5, layout: "NC" });
    expect(diagnose(layer, normal(200, 1)).verdict).toBe("untrained");
  });
});

describe("writing", () => {
  test("one parameter alone is written as both", () => {
    const bytes = writeTorch({
      a: new BatchNorm(2, { gamma: false }),
      b: new BatchNorm(2, { beta: false }),
      c: new BatchNorm(2, { gamma: false, beta: false }),
    });
    const { a, b, c } = readTorch(bytes).loadAll({ eps: 1e-5 });
    expect([[...a!.gamma!], [...b!.beta!]]).toEqual([
      [1, 1],
      [0, 0],
    ]);
    expect([c!.gamma, c!.beta]).toEqual([null, null]);
  });

  test("a layer without parameters, into a file that has them", () => {
    const layer = new BatchNorm(4, { gamma: false, beta: false });
    const bytes = writeTorch({ bn1: layer }, { into: goldenBytes("network.safetensors") });
    const { gamma, beta } = readTorch(bytes).load("bn1", { eps: 1e-5 });
    expect([...gamma!, ...beta!]).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
  });

  test("numbers finer than a parameter's stay in the file, as long as it is the same", () => {
    const fine = (value: number) => ({
      dtype: "F64",
      shape: [1],
      data: new Uint8Array(Float64Array.of(value).buffer),
    });
    const keys = ["weight", "bias", "running_mean", "running_var"];
    const into = safetensors.write(new Map(keys.map((key, i) => [`a.${key}`, fine(i + 1 / 3)])));
    const { a } = readTorch(into).loadAll({ eps: 1 });
    expect(a!.gamma![0]).toBe(Math.fround(1 / 3));
    const written = safetensors(writeTorch({ a: a! }, { into }));
    for (const [i, key] of keys.entries()) {
      expect(written.tensors.get(`a.${key}`)).toEqual(fine(i + 1 / 3));
    }
  });

  test("a value that float16 cannot hold", () => {
    const layer = readTorch(goldenBytes("network-f16.safetensors")).load("bn1", { eps: 1e-5 });
    layer.runningVariance[2] = 7e4;
    assertRefuses(
      StateError,
      /^bn1\.running_var\[2\]: expected a value within 16 bits, got 70000$/,
      () => writeTorch({ bn1: layer }, { into: goldenBytes("network-f16.safetensors") }),
      layer,
    );
  });

  test.each<[string, unknown, unknown, RegExp]>([
    ["no object", null, {}, /^layers: expected an object of layers by name, got null$/],
    [
      "no layers",
      {},
      {},
      /^layers: expected at least one layer, \{ name: layer \}, got an Object$/,
    ],
    ["no layer", { a: 5 }, {}, /^layers\["a"\]: expected a BatchNorm, got 5$/],
    [
      "moments",
      { a: new BatchNorm(1).moments(new Float32Array(3)) },
      {},
      /^layers\["a"\]: expected a BatchNorm, got Moments\(1\), values per channel: 3$/,
    ],
    [
      "an option unknown",
      { a: new BatchNorm(1) },
      { onto: 1 },
      /^onto: expected an option among into/,
    ],
  ])("%s", (_, layers, options, message) => {
    assertRefuses(OptionError, message, () => writeTorch(wrong(layers), wrong(options)));
  });

  test("a name that the file has not", () => {
    assertRefuses(OptionError, /^name: expected one of ".*", ".*", ".*", got "bn9"$/, () =>
      writeTorch({ bn9: new BatchNorm(4) }, { into: goldenBytes("network.safetensors") }),
    );
  });

  test.each([
    ["F16", 1e-9],
    ["F32", 1e-60],
  ])("a variance that %s rounds to 0 is warned about", (dtype, variance) => {
    const golden = dtype === "F16" ? "network-f16.safetensors" : "network.safetensors";
    const into = goldenBytes(golden);
    const layer = readTorch(into).load("bn1", { eps: 1e-5 });
    const warnings: string[] = [];
    const onWarning = (message: string) => warnings.push(message);
    writeTorch({ bn1: layer }, { into, onWarning });
    layer.runningVariance[3] = 0;
    writeTorch({ bn1: layer }, { into, onWarning });
    expect(warnings).toEqual([]);
    layer.runningVariance[2] = variance;
    const { tensors } = safetensors(writeTorch({ bn1: layer }, { into, onWarning }));
    expect(tensors.get("bn1.running_var")!.dtype).toBe(dtype);
    expect(warnings).toEqual([
      `bn1.running_var[2]: ${variance} becomes 0 in ${dtype}, so that only eps is left under the square root`,
    ]);
  });

  test.each<[string, string, RegExp]>([
    [
      "a name longer than readers take",
      "x".repeat(17_000),
      /^"x{100}" …: .* at most 16384 bytes, got one of 170\d\d/,
    ],
    ["one whose characters take several bytes", "…".repeat(5_500), /got one of 55\d\d characters$/],
  ])("%s in a name", (_, name, message) => {
    const layers = { [name]: new BatchNorm(1) };
    assertRefuses(StateError, message, () => writeTorch(layers));
    assertRefuses(StateError, message, () => save(layers));
  });

  test("a name as long as readers take", () => {
    const name = "…".repeat(5_400);
    expect(readTorch(writeTorch({ [name]: new BatchNorm(1) })).layers).toEqual([name]);
    expect(Object.keys(load(save({ [name]: new BatchNorm(1) })))).toEqual([name]);
  });

  test("changes neither layers nor the file written into", () => {
    const into = goldenBytes("network.safetensors");
    const { bn1 } = readTorch(into).loadAll({ eps: 1e-5, layout: "NC" });
    bn1!.train(normal(400, 3));
    const state = JSON.stringify(bn1);
    const written = writeTorch({ bn1: bn1! }, { into });
    written.fill(0);
    expect(JSON.stringify(bn1)).toBe(state);
    expect(into).toEqual(goldenBytes("network.safetensors"));
  });

  test("other channels", () => {
    assertRefuses(
      StateError,
      /^bn1\.weight: expected F16, BF16, F32 or F64 \[3\], got F32 \[4\]$/,
      () => writeTorch({ bn1: new BatchNorm(3) }, { into: goldenBytes("network.safetensors") }),
    );
  });
});

/** A safetensors file of float32 rows and of anything else, by their names. */
function fileOf(tensors: Record<string, number[] | PlainTensor>): Uint8Array {
  const all = Object.entries(tensors).map(([name, values]): [string, PlainTensor] => {
    if (!Array.isArray(values)) return [name, values];
    const data = new Uint8Array(Float32Array.from(values).buffer);
    return [name, { dtype: "F32", shape: [values.length], data }];
  });
  return safetensors.write(new Map(all));
}

/** A batch norm of two channels beside these tensors. */
const withTensors = (tensors: Record<string, number[] | PlainTensor>, name = "bn"): Uint8Array =>
  fileOf({ [`${name}.running_mean`]: [1, 2], [`${name}.running_var`]: [3, 4], ...tensors });

/** What a file holds, whatever the order and the length of its header. */
const contents = (bytes: Uint8Array): unknown => Object.fromEntries(safetensors(bytes).tensors);

/** Loads the layer `bn`; what it warns about. */
function loaded(bytes: Uint8Array, name = "bn"): { layer: BatchNorm; warnings: string[] } {
  const warnings: string[] = [];
  const onWarning = (message: string) => warnings.push(message);
  return { layer: readTorch(bytes).load(name, { eps: 1e-5, onWarning }), warnings };
}

describe("counters", () => {
  const KEY = "bn.num_batches_tracked";
  const counter = (dtype: string, shape: number[], data: ArrayBufferView): PlainTensor => ({
    dtype,
    shape,
    data: new Uint8Array(data.buffer),
  });

  test.each<[string, PlainTensor, number]>([
    ["F32 [1], as tinygrad writes it", counter("F32", [1], Float32Array.of(70)), 70],
    ["I32 []", counter("I32", [], Int32Array.of(70)), 70],
    ["I64 [1]", counter("I64", [1], BigInt64Array.of(70n)), 70],
    ["F16 []", counter("F16", [], Uint16Array.of(0x5460)), 70],
    ["BF16 []", counter("BF16", [], Uint16Array.of(0x428c)), 70],
    ["F64, an average of several", counter("F64", [], Float64Array.of(70.75)), 70],
    ["U8", counter("U8", [], Uint8Array.of(200)), 200],
    ["I8", counter("I8", [1], Int8Array.of(100)), 100],
    ["U16", counter("U16", [], Uint16Array.of(65535)), 65535],
    ["U32", counter("U32", [], Uint32Array.of(2 ** 32 - 1)), 2 ** 32 - 1],
    ["U64", counter("U64", [], BigUint64Array.of(2n ** 53n - 1n)), 2 ** 53 - 1],
    ["BOOL", counter("BOOL", [], Uint8Array.of(1)), 1],
    ["a little less than 0", counter("F32", [], Float32Array.of(-0.5)), 0],
  ])("%s", (_, tensor, count) => {
    const bytes = withTensors({ [KEY]: tensor });
    const { layer, warnings } = loaded(bytes);
    expect([layer.batchesSeen, layer.ageKnown, warnings]).toEqual([count, true, []]);
    // Unchanged, it stays in the file as it is; changed, it is as PyTorch has it.
    expect(contents(writeTorch({ bn: layer }, { into: bytes }))).toEqual(contents(bytes));
    layer.batchesSeen = 71;
    const again = writeTorch({ bn: layer }, { into: bytes });
    expect(loaded(again).layer.batchesSeen).toBe(71);
    const written = safetensors(again).tensors.get(KEY)!;
    expect(written.shape).toEqual(tensor.shape);
    expect(written.dtype).toBe("I64");
  });

  test.each<[string, PlainTensor, RegExp]>([
    ["-1", counter("I64", [], BigInt64Array.of(-1n)), /got -1: the age/],
    ["2^53", counter("I64", [], BigInt64Array.of(2n ** 53n)), /got 9007199254740992: the age/],
    ["NaN", counter("F32", [], Float32Array.of(Number.NaN)), /got NaN: the age/],
    ["infinity", counter("F32", [1], Float32Array.of(Infinity)), /got Infinity: the age/],
    ["of two", counter("I64", [2], BigInt64Array.of(1n, 2n)), /got I64 \[2\]: the age/],
    ["of two axes", counter("I64", [1, 1], BigInt64Array.of(1n)), /got I64 \[1, 1\]: the age/],
    ["of none", counter("I64", [0], new BigInt64Array(0)), /got I64 \[0\]: the age/],
    ["of another type", counter("F8_E4M3", [], Uint8Array.of(1)), /got F8_E4M3 \[\]: the age/],
  ])("%s: the age is unknown, with a warning", (_, tensor, message) => {
    const { layer, warnings } = loaded(withTensors({ [KEY]: tensor }));
    expect([layer.batchesSeen, layer.ageKnown]).toEqual([1, false]);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(
      /^bn\.num_batches_tracked: expected one number from 0 to 2\^53 - 1/,
    );
    expect(warnings[0]).toMatch(message);
  });
});

describe("parameters by other names", () => {
  const numbers = ({ gamma, beta }: BatchNorm) => [gamma && [...gamma], beta && [...beta]];

  test("gamma and beta, as Burn writes them", () => {
    const bytes = withTensors({ "bn.gamma": [5, 6], "bn.beta": [7, 8] });
    const { layer, warnings } = loaded(bytes);
    expect(numbers(layer)).toEqual([
      [5, 6],
      [7, 8],
    ]);
    expect(warnings).toEqual([]);
    layer.gamma![0] = 9;
    const { tensors } = safetensors(writeTorch({ bn: layer }, { into: bytes }));
    expect([...tensors.keys()].filter((key) => /gamma|beta|weight|bias/.test(key)).sort()).toEqual([
      "bn.beta",
      "bn.gamma",
    ]);
    expect([...new Float32Array(tensors.get("bn.gamma")!.data.buffer)]).toEqual([9, 6]);
  });

  const PRUNED = {
    "bn.running_mean": [1, 1, 1],
    "bn.running_var": [1, 1, 1],
    "bn.weight_orig": [1, 2, 3],
    "bn.weight_mask": [0, 1, 1],
    "bn.bias": [4, 5, 6],
  };

  test("of a pruned module: the product with its mask", () => {
    const bytes = fileOf(PRUNED);
    const { layer, warnings } = loaded(bytes);
    expect(numbers(layer)).toEqual([
      [0, 2, 3],
      [4, 5, 6],
    ]);
    expect(warnings).toEqual([]);
    expect(contents(writeTorch({ bn: layer }, { into: bytes }))).toEqual(contents(bytes));
    layer.runningMean[0] = 9;
    const written = writeTorch({ bn: layer }, { into: bytes });
    expect(loaded(written).layer.runningMean[0]).toBe(9);
    const { tensors } = safetensors(written);
    for (const key of ["bn.weight_orig", "bn.weight_mask"]) {
      expect(tensors.get(key)).toEqual(safetensors(bytes).tensors.get(key));
    }
  });

  test("of a pruned module: it cannot be changed", () => {
    const { layer } = loaded(fileOf(PRUNED));
    layer.gamma![0] = 5;
    assertRefuses(
      StateError,
      /^bn\.weight_orig: expected the parameter of a pruned module unchanged, got other .*prune\.remove/,
      () => writeTorch({ bn: layer }, { into: fileOf(PRUNED) }),
      layer,
    );
  });

  test.each<[string, Record<string, number[]>, RegExp]>([
    [
      "a pruned weight without its mask",
      { "bn.weight_orig": [1, 2] },
      /^bn\.weight_mask: expected F16, .* got none$/,
    ],
    [
      "a mask of other channels",
      { "bn.weight_orig": [1, 2], "bn.weight_mask": [1] },
      /^bn\.weight_mask: expected F16, .* \[2\], got F32 \[1\]$/,
    ],
    [
      "a weight that is there twice",
      { "bn.weight": [1, 2], "bn.gamma": [1, 2] },
      /^bn\.weight: expected one tensor for it, got both weight and gamma$/,
    ],
    [
      "weight norm",
      { "bn.weight_g": [1, 2], "bn.weight_v": [1, 2] },
      /^bn\.weight_g: .* remove_parametrizations in Python$/,
    ],
    [
      "a parametrization",
      { "bn.parametrizations.weight.0.scale": [1] },
      /^bn\.parametrizations\.weight/,
    ],
    [
      "a standard deviation",
      { "bn.running_std": [1, 2] },
      /^bn\.running_std: expected a tensor that batch norms have/,
    ],
    [
      "a module within",
      { "bn.act.weight": [1] },
      /^bn\.act\.weight: expected a tensor that batch norms have, got another;/,
    ],
  ])("%s", (_, tensors, message) => {
    const bytes = withTensors({ "bn.bias": [0, 0], ...tensors });
    assertRefuses(StateError, message, () => loaded(bytes));
  });

  test("what is beside a batch norm, or a batch norm within one, is no part of it", () => {
    const bytes = withTensors({
      "bn2.weight_g": [1],
      "b.n": [1],
      bn: [1],
      "bn.inner.running_mean": [1, 2],
      "bn.inner.running_var": [1, 2],
      "bn.inner.weight": [1, 2],
      "bn.inner.bias": [1, 2],
    });
    expect(readTorch(bytes).layers).toEqual(["bn", "bn.inner"]);
    expect(loaded(bytes, "bn.inner").layer.gamma).toEqual(Float32Array.of(1, 2));
    const whole = fileOf({
      running_mean: [1],
      running_var: [1],
      "head.weight": [1],
    });
    expect(loaded(whole, "").layer.gamma).toBe(null);
    assertRefuses(StateError, /^scale: expected a tensor that batch norms have/, () =>
      loaded(fileOf({ running_mean: [1], running_var: [1], scale: [1] }), ""),
    );
  });

  test.each(["weight", "bias"])("a %s alone is read, with a warning", (tensor) => {
    const { layer, warnings } = loaded(withTensors({ [`bn.${tensor}`]: [5, 6] }));
    const wanted = tensor === "weight" ? [[5, 6], null] : [null, [5, 6]];
    expect(numbers(layer)).toEqual(wanted);
    const other = tensor === "weight" ? "bias" : "weight";
    expect(warnings).toEqual([`module "bn": has a ${tensor} and no ${other}; so has the layer`]);
  });
});

describe("names of a model that was wrapped", () => {
  const wrapped = (prefix: string, more: Record<string, number[]> = {}): Uint8Array =>
    withTensors({ [`${prefix}fc.weight`]: [1], ...more }, `${prefix}bn`);

  test.each<[string, Uint8Array, string]>([
    ["DataParallel", wrapped("module."), "bn"],
    ["torch.compile", wrapped("_orig_mod."), "bn"],
    ["both", wrapped("_orig_mod.module."), "bn"],
    ["an average of models", wrapped("module.", { n_averaged: [3] }), "bn"],
    ["a module of that name beside others", wrapped("module.", { fc: [1] }), "module.bn"],
  ])("%s", (_, bytes, name) => {
    const file = readTorch(bytes);
    expect(file.layers).toEqual([name]);
    const layer = file.load(name, { eps: 1e-5 });
    expect(contents(writeTorch({ [name]: layer }, { into: bytes }))).toEqual(contents(bytes));
    layer.runningMean[0] = 9;
    const again = readTorch(writeTorch({ [name]: layer }, { into: bytes }));
    expect(again.layers).toEqual([name]);
    expect([...again.load(name, { eps: 1e-5 }).runningMean]).toEqual([9, 2]);
  });

  test("a batch norm alone", () => {
    const bytes = fileOf({ "module.running_mean": [1, 2], "module.running_var": [3, 4] });
    expect(readTorch(bytes).layers).toEqual([""]);
    const { layer } = loaded(bytes, "");
    expect(contents(writeTorch({ "": layer }, { into: bytes }))).toEqual(contents(bytes));
  });
});

describe("refusals", () => {
  const file = () => readTorch(goldenBytes("network.safetensors"));

  test("eps is asked for, and why is said", () => {
    assertRefuses(
      OptionError,
      /^eps: expected the eps of module "bn1", which a state_dict does not hold \(.*1e-5.*\), got none$/,
      () => (file().load as (name: string) => unknown)("bn1"),
    );
    assertRefuses(OptionError, /^eps: expected the eps of module/, () =>
      (file().loadAll as () => unknown)(),
    );
  });

  test.each<[string, string, unknown, RegExp]>([
    ["a name unknown", "bn9", { eps: 1 }, /^name: expected one of ".*", ".*", ".*", got "bn9"$/],
    ["a negative eps", "bn1", { eps: -1 }, /^eps: expected a finite number >= 0, got -1$/],
    ["a layout of none", "bn1", { eps: 1, layout: "NWC" }, /^layout: expected one of "NC"/],
    [
      "a warning to nobody",
      "bn1",
      { eps: 1, onWarning: 1 },
      /^onWarning: expected a function, got 1$/,
    ],
    ["affine, which the file says", "bn1", { eps: 1, affine: true }, /^affine: expected an option/],
    ["a momentum of 0", "bn1", { eps: 1, momentum: 0 }, /^momentum: .* updateRunning: false/],
    ["no kernels", "bn1", { eps: 1, kernels: 1 }, /^kernels: expected a Kernels, got 1$/],
  ])("%s", (_, name, options, message) => {
    assertRefuses(OptionError, message, () => file().load(name, wrong(options)));
  });

  test("a file without batch norms", () => {
    const bytes = safetensors.write(new Map());
    expect(readTorch(bytes).layers).toEqual([]);
    assertRefuses(
      OptionError,
      /^name: expected none, since the file has no batch-norm layers/,
      () => readTorch(bytes).load("bn1", { eps: 1 }),
    );
  });

  test.each<[string, unknown, RegExp]>([
    [
      "a number array",
      [1, 2],
      /^bytes: expected a Uint8Array or ArrayBuffer, got an Array of length 2$/,
    ],
    ["undefined", undefined, /got undefined$/],
    ["a Float32Array", new Float32Array(2), /got a Float32Array of length 2$/],
    ["text", "bn1.pt", /got "bn1\.pt"; readFileSync\(path\) of node:fs gives the bytes$/],
  ])("%s instead of bytes", (_, bytes, message) => {
    assertRefuses(ShapeError, message, () => readTorch(wrong(bytes)));
  });
});
