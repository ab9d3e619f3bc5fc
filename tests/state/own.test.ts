// Our own file: all state, to the bit; training goes on as if it had never stopped.

import { BatchNorm, Kernels, OptionError, StateError } from "batchnorm-wasm";
import { load, readTorch, save, writeKeras, writeOnnx, writeTorch } from "batchnorm-wasm/state";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { options, seeds } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { anyBits, normal } from "../support/data.js";
import { goldenBytes } from "../support/golden.js";
import { check } from "../support/property.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { safetensors } from "./files.js";

const doubles = fc.oneof(
  fc.double(),
  fc.constantFrom(Number.NaN, Infinity, -Infinity, -0, 5e-324, 1 / 3),
);

describe("training that goes on", () => {
  const step = (layer: BatchNorm, t: number) => {
    const x = normal(45, t, t);
    const y = layer.train(x, { shape: [9, 5] });
    const { dx, dgamma, dbeta } = layer.backward(y.map((v) => v - 0.5));
    layer.gamma?.forEach((g, c, all) => {
      all[c] = g - 0.01 * dgamma![c]!;
    });
    layer.beta?.forEach((b, c, all) => {
      all[c] = b - 0.01 * dbeta![c]!;
    });
    return [y, dx, layer.infer(x, { shape: [9, 5] }), layer.runningMean, layer.runningVariance];
  };

  test("from a file: bit for bit as without", () => {
    check(
      fc.property(
        fc.constantFrom(0.9, 0.999, 1 / 3, "cumulative" as const),
        fc.boolean(),
        fc.constantFrom("sample" as const, "population" as const),
        fc.boolean(),
        fc.integer({ min: 0, max: 4 }),
        (decay, debias, runningVarianceOf, affine, before) => {
          const settings = { decay, debias, runningVarianceOf, gamma: affine, beta: affine };
          const layer = new BatchNorm(5, { ...settings, epsilon: 1e-3 / 7 });
          for (let t = 0; t < before; t++) step(layer, t);
          let other = load(save({ "block.bn": layer }))["block.bn"]!;
          for (let t = before; t < before + 4; t++) {
            const expected = step(layer, t);
            for (const [i, actual] of step(other, t).entries()) {
              assertSameBits(`${i}`, actual, expected[i]!);
            }
            expect(other.snapshot()).toEqual(layer.snapshot());
            other = load(save({ a: other })).a!; // interrupted after every step
          }
        },
      ),
      40,
    );
  });
});

describe("there and back", () => {
  test("any options and numbers, to the bit", () => {
    check(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        options,
        seeds,
        fc.array(doubles, { minLength: 40, maxLength: 40 }),
        fc.nat(),
        (channels, settings, seed, large, seen) => {
          const layer = new BatchNorm(channels, settings);
          layer.gamma?.set(anyBits(channels, seed));
          layer.beta?.set(anyBits(channels, seed + 1));
          layer.runningMean.set(large.slice(0, channels));
          layer.runningVariance.set(large.slice(20, 20 + channels));
          layer.batchesSeen = seen;
          const { bn } = load(save({ bn: layer }));
          expect(bn).toBeInstanceOf(BatchNorm);
          expect(bn!.snapshot()).toEqual(layer.snapshot());
        },
      ),
      100,
    );
  });

  test("names of any kind", () => {
    const names = ["", "a", "a.b", "__proto__", "ä→😀", "constructor", 'q"u\\o', "0"];
    const layers = Object.fromEntries(names.map((name, i) => [name, new BatchNorm(i + 1)]));
    const loaded = load(save(layers));
    expect(Object.keys(loaded).sort()).toEqual([...names].sort());
    for (const [i, name] of names.entries()) {
      expect(Object.getOwnPropertyDescriptor(loaded, name)?.value.channels).toBe(i + 1);
    }
  });

  test("an unknown age stays unknown", () => {
    const { head } = readTorch(goldenBytes("old.safetensors")).loadAll({ eps: 1e-5, layout: "NC" });
    head!.train(normal(40, 1));
    const again = load(save({ head: head! })).head!;
    expect([again.batchesSeen, again.ageKnown]).toEqual([2, false]);
  });

  test("kernels may be given", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    expect(load(save({ a: new BatchNorm(2) }), { kernels }).a!.kernels).toBe(kernels);
  });
});

describe("the file", () => {
  const layer = () => {
    const bn = new BatchNorm(3, { layout: "NCHW", decay: "cumulative" });
    bn.runningVariance.set([1 / 3, 2 / 3, 1]);
    bn.batchesSeen = 12;
    return bn;
  };

  test("has PyTorch's names and shapes, averages in float64", () => {
    const { tensors, metadata } = safetensors(save({ bn1: layer() }));
    const kinds = [...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]);
    expect(kinds.sort()).toEqual([
      ["bn1.bias", "F32", [3]],
      ["bn1.num_batches_tracked", "I64", []],
      ["bn1.running_mean", "F64", [3]],
      ["bn1.running_var", "F64", [3]],
      ["bn1.weight", "F32", [3]],
    ]);
    expect(metadata.format).toBe("pt");
    expect(metadata["batchnorm-wasm"]).toBe("1");
    expect(JSON.parse(metadata["batchnorm-wasm:bn1"]!)).toMatchObject({
      layout: "NCHW",
      decay: "cumulative",
      epsilon: 1e-5,
    });
  });

  test("is one of PyTorch as well", () => {
    const bytes = save({ bn1: layer() });
    const read = readTorch(bytes).load("bn1", { eps: 1e-5, momentum: null, layout: "NCHW" });
    expect(read.snapshot()).toEqual(layer().snapshot());
  });

  test("written into another keeps what else is there, layers of ours included", () => {
    const network = goldenBytes("network.safetensors");
    const { bn1, head } = readTorch(network).loadAll({ eps: 1e-5 });
    const first = save({ bn1: bn1! }, { into: network });
    const second = save({ head: head! }, { into: first });
    expect(Object.keys(load(second)).sort()).toEqual(["bn1", "head"]);
    expect(load(second).bn1!.snapshot()).toEqual(bn1!.snapshot());
    const [before, after] = [safetensors(network), safetensors(second)];
    expect([...after.tensors.keys()].sort()).toEqual([...before.tensors.keys()].sort());
    for (const [name, tensor] of before.tensors) {
      if (/^(bn1|head)\.running/.test(name)) expect(after.tensors.get(name)!.dtype).toBe("F64");
      else expect(after.tensors.get(name)).toEqual(tensor);
    }
  });
});

describe("refusals", () => {
  const bytes = save({ a: new BatchNorm(2), b: new BatchNorm(3) });
  const changed = (key: string, record: object | string) => {
    const { tensors, metadata } = safetensors(bytes);
    const text = typeof record === "string" ? record : JSON.stringify(record);
    return safetensors.write(tensors, { ...metadata, [key]: text });
  };

  const RECORD = {
    layout: "NC",
    epsilon: 1e-5,
    decay: 0.9,
    debias: false,
    runningVarianceOf: "sample",
  };
  const left = (name: string) => {
    const { [name]: _left, ...rest } = RECORD as Record<string, unknown>;
    return rest;
  };

  test.each(Object.keys(RECORD))("a layer whose record lacks %s", (name) => {
    const message = new RegExp(`^layer "b": ${name}: expected a value, got none$`);
    assertRefuses(StateError, message, () => load(changed("batchnorm-wasm:b", left(name))));
  });

  test("a layer whose record is lost", () => {
    const { tensors, metadata } = safetensors(bytes);
    const { "batchnorm-wasm:a": _lost, ...rest } = metadata;
    const message = /^__metadata__: expected options of 2 layers, got those of 1$/;
    assertRefuses(StateError, message, () => load(safetensors.write(tensors, rest)));
    // Files of before do not say how many layers they have.
    const { "batchnorm-wasm-layers": count, ...before } = rest;
    expect(count).toBe("2");
    expect(Object.keys(load(safetensors.write(tensors, before)))).toEqual(["b"]);
    expect(load(save({ c: new BatchNorm(1) }, { into: bytes }))).toHaveProperty("c");
  });

  test.each<[string, Uint8Array, RegExp]>([
    ["no options", changed("batchnorm-wasm:b", {}), /^layer "b": layout: expected a value, got/],
    [
      "a row",
      changed("batchnorm-wasm:b", []),
      /^layer "b": options: expected an object \{ .* \}, got an Array of length 0$/,
    ],
    [
      "a weight of another decay",
      changed("batchnorm-wasm:b", { ...RECORD, weight: 0.5 }),
      /^layer "b": weight: expected 1 - decay, or none, got 0\.5$/,
    ],
    [
      "a decay of 1 without its weight",
      changed("batchnorm-wasm:b", { ...RECORD, decay: 1 }),
      /^layer "b": decay: expected 0 <= decay < 1/,
    ],
    [
      "a file of PyTorch",
      writeTorch({ a: new BatchNorm(2) }),
      /^__metadata__: expected "batchnorm-wasm" of version 1, as save writes it, got null; readTorch/,
    ],
    ["another version", changed("batchnorm-wasm", "2"), /^__metadata__: .* got "2"; readTorch/],
    [
      "a layer without tensors",
      changed("batchnorm-wasm:c", {}),
      /^c\.running_mean: expected F16, .* \[channels\], got none$/,
    ],
    [
      "a negative epsilon",
      changed("batchnorm-wasm:b", { ...RECORD, epsilon: -1 }),
      /^layer "b": epsilon: expected a finite number >= 0, got -1$/,
    ],
    [
      "an option unknown",
      changed("batchnorm-wasm:b", { kernels: {} }),
      /^layer "b": kernels: expected an option among layout, /,
    ],
    [
      "an age that is no flag",
      changed("batchnorm-wasm:a", { ...RECORD, ageKnown: 1 }),
      /^layer "a": ageKnown: expected true or false, got 1$/,
    ],
    [
      "a layer without a counter",
      (() => {
        const { tensors, metadata } = safetensors(bytes);
        tensors.delete("a.num_batches_tracked");
        return safetensors.write(tensors, metadata);
      })(),
      /^a\.num_batches_tracked: expected a tensor, got none$/,
    ],
    ["no JSON", changed("batchnorm-wasm:a", "{"), /^batchnorm-wasm:a: expected JSON, got text/],
    [
      "options without end",
      changed("batchnorm-wasm:a", " ".repeat(1001)),
      /^layer "a": options: expected an object \{ layout, .*\}, got null$/,
    ],
  ])("%s", (_, file, message) => {
    assertRefuses(StateError, message, () => load(file));
  });

  test("a name with half a character: no writer takes it", () => {
    const layers = { "a\ud800b": new BatchNorm(1) };
    for (const write of [save, writeTorch, writeOnnx, writeKeras]) {
      assertRefuses(
        OptionError,
        /^layers\["a\\ud800b"\]: expected a name that has UTF-8, got one with half a character in it$/,
        () => write(layers),
      );
    }
    expect(Object.keys(load(save({ "a😀b": new BatchNorm(1) })))).toEqual(["a😀b"]);
  });

  test("a count that is none", () => {
    const layer = new BatchNorm(2);
    layer.batchesSeen = 0.5;
    assertRefuses(StateError, /^batchesSeen: /, () => save({ a: layer }), layer);
  });

  test("options unknown", () => {
    assertRefuses(OptionError, /^eps: expected an option among kernels/, () =>
      load(bytes, wrong({ eps: 1 })),
    );
    assertRefuses(OptionError, /^kernels: expected a Kernels, got 3$/, () =>
      load(bytes, wrong({ kernels: 3 })),
    );
  });
});
