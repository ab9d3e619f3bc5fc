// PyTorch's state_dict in safetensors: files that PyTorch's tensors were written into, and back.

import { BatchNorm, diagnose, OptionError, ShapeError, StateError } from "batchnorm-wasm";
import { readTorch, type TorchLoadOptions, writeTorch } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { goldenBytes, networkGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { safetensors } from "./files.js";

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
    for (const name of ["layout", "epsilon", "decay", "debias", "runningVarianceOf"] as const) {
      expect(layer[name]).toBe(like[name]);
    }
    expect(layer).toBeInstanceOf(BatchNorm);
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
    const layer = readTorch(safetensors.write(tensors)).load("bn", { eps: 1e-5 });
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
    ["no object", null, {}, /^layers: expected layers by name, got null$/],
    ["no layers", {}, {}, /^layers: expected at least one layer, got none$/],
    ["no layer", { a: 5 }, {}, /^layers\["a"\]: expected a BatchNorm, got 5$/],
    [
      "an option unknown",
      { a: new BatchNorm(1) },
      { onto: 1 },
      /^onto: expected an option among into/,
    ],
  ])("%s", (_, layers, options, message) => {
    assertRefuses(OptionError, message, () => writeTorch(wrong(layers), wrong(options)));
  });

  test("changes neither layers nor the file written into", () => {
    const into = goldenBytes("network.safetensors");
    const { bn1 } = readTorch(into).loadAll({ eps: 1e-5 });
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
      /^bn1\.weight: expected F16, BF16, F32 or F64 \[3\], as the layer has, .* got F32 \[4\]$/,
      () => writeTorch({ bn1: new BatchNorm(3) }, { into: goldenBytes("network.safetensors") }),
    );
  });
});

describe("refusals", () => {
  const file = () => readTorch(goldenBytes("network.safetensors"));

  test("eps is asked for, and why is said", () => {
    assertRefuses(
      OptionError,
      /^eps: expected the eps of module "bn1", since a state_dict holds tensors and eps is none of them \(.*1e-5.*\), got none$/,
      () => (file().load as (name: string) => unknown)("bn1"),
    );
    assertRefuses(OptionError, /^eps: expected the eps of module/, () =>
      (file().loadAll as () => unknown)(),
    );
  });

  test.each<[string, string, unknown, RegExp]>([
    ["a name unknown", "bn9", { eps: 1 }, /^name: expected one of ".*", ".*", ".*", got "bn9"$/],
    ["a negative eps", "bn1", { eps: -1 }, /^eps: expected a finite number >= 0, got -1$/],
    ["channels last", "bn1", { eps: 1, layout: "NHWC" }, /^layout: expected one of "NC"/],
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
    ["text", "bn1", /got "bn1"$/],
  ])("%s instead of bytes", (_, bytes, message) => {
    assertRefuses(ShapeError, message, () => readTorch(wrong(bytes)));
  });
});
