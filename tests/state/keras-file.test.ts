// Keras' own files, `.keras` and `.h5`, made by h5py to Keras' layout: see tests/golden/state/keras-files.py.

import { readdirSync } from "node:fs";
import {
  type BatchNorm,
  type BatchNormError,
  OptionError,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import { type KerasFileLoadOptions, readKerasFile } from "batchnorm-wasm/hdf5";
import { describe, expect, test } from "vitest";
import { goldenBytes, kerasFilesGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { entriesOf } from "./zip-entries.js";
import { zip } from "./zip-files.js";

const golden = kerasFilesGolden();
const bytesOf = (name: string) => goldenBytes(`keras-files/${name}`);
const quiet = { onWarning: () => {} };

/** What has no config in a file needs it here: files of weights alone, layers inside of one's own. */
const isAlone = (name: string): boolean => /weights|subclassed|custom/.test(name);

/** The values of a layer by the names that Keras has for them. */
const weightsOf = ({
  gamma,
  beta,
  runningMean,
  runningVariance,
  renorm,
  renormMean,
  renormDeviation,
}: BatchNorm) => ({
  ...(gamma === null ? {} : { gamma: [...gamma] }),
  ...(beta === null ? {} : { beta: [...beta] }),
  moving_mean: [...runningMean],
  moving_variance: [...runningVariance],
  ...(renorm === null ? {} : { renorm_mean: [...renormMean], renorm_stddev: [...renormDeviation] }),
});

describe("layers have the numbers that were written", () => {
  test.each(Object.keys(golden))("%s", (name) => {
    const file = readKerasFile(bytesOf(name));
    const expected = golden[name]!;
    expect([...file.layers].sort()).toEqual(Object.keys(expected).sort());
    for (const [layer, { weights, epsilon, momentum }] of Object.entries(expected)) {
      const three = Object.keys(weights).length === 3;
      const own = { epsilon, momentum, ...(three && !weights.gamma ? { scale: false } : {}) };
      const bn = file.load(layer, isAlone(name) ? { ...quiet, ...own } : quiet);
      const half = name.startsWith("half");
      for (const [weight, values] of Object.entries(weightsOf(bn))) {
        const wanted = weights[weight]!;
        expect(values.length).toBe(wanted.length);
        for (const [c, value] of values.entries()) {
          // Eleven digits of a float16, below 2^-14 fewer; all others hold these values exactly.
          const bound = half ? 2 ** -11 * Math.max(Math.abs(wanted[c]!), 2 ** -14) : 0;
          expect(Math.abs(value - wanted[c]!)).toBeLessThanOrEqual(bound);
        }
      }
      expect(Object.keys(weightsOf(bn)).sort()).toEqual(Object.keys(weights).sort());
      expect([bn.epsilon, bn.decay, bn.runningVarianceOf]).toEqual([
        epsilon,
        momentum,
        "population",
      ]);
      expect([bn.batchesSeen, bn.ageKnown]).toEqual([1, false]);
    }
  });

  test("layouts: of axis and input shape; of weights alone the last axis, as is Keras' default", () => {
    const { bn_conv, bn_head, bn_first } = readKerasFile(bytesOf("sequential.keras")).loadAll();
    expect([bn_conv!.layout, bn_head!.layout, bn_first!.layout]).toEqual(["NHWC", "NC", "NCHW"]);
    const { bn_0 } = readKerasFile(bytesOf("functional.h5")).loadAll();
    expect(bn_0!.layout).toBe("NHWC");
    const alone = readKerasFile(bytesOf("half.weights.h5"));
    expect(alone.load("bn_a", { epsilon: 1e-3 }).layout).toBe("channelsLast");
    expect(alone.load("bn_a", { epsilon: 1e-3, layout: "NCHW" }).layout).toBe("NCHW");
  });

  test("renorm has the limits and the momentum of the config", () => {
    const { bn_own, bn_0 } = readKerasFile(bytesOf("nested.keras")).loadAll();
    expect([bn_own!.renorm, bn_0!.renorm]).toEqual([
      { rmax: Infinity, dmax: Infinity, rmin: 0, decay: 0.99 },
      null,
    ]);
  });

  test("modes of Keras 1 that do not use the averages are refused", () => {
    const of = (mode: number) => {
      const config = { name: "bn", epsilon: 1e-3, mode };
      return readKerasFile(bytesOf("keras-1.weights.h5"), {
        config: {
          class_name: "Sequential",
          config: [{ class_name: "BatchNormalization", config }],
        },
      }).load("bn");
    };
    expect(of(0).channels).toBe(3);
    for (const mode of [1, 2]) {
      const message = `^layer "bn": expected mode 0 of Keras 1, which uses the averages, got ${mode}$`;
      assertRefuses(StateError, new RegExp(message), () => of(mode));
    }
  });

  test("bytes at an odd offset, in an ArrayBuffer, in shared memory", () => {
    const bytes = bytesOf("functional.h5");
    const expected = readKerasFile(bytes).load("bn_0").snapshot();
    const odd = new Uint8Array(bytes.length + 3);
    odd.set(bytes, 3);
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    for (const given of [odd.subarray(3), bytes.buffer as ArrayBuffer, shared]) {
      expect(readKerasFile(given).load("bn_0").snapshot()).toEqual(expected);
    }
  });
});

describe("a config that is kept apart from the weights", () => {
  const text = new TextDecoder().decode(bytesOf("config.json"));
  const expected = readKerasFile(bytesOf("functional.h5")).loadAll();

  test.each<[string, object | string | Uint8Array]>([
    ["text", text],
    ["parsed", JSON.parse(text)],
    ["bytes", bytesOf("config.json")],
  ])("%s", (_, config) => {
    const layers = readKerasFile(bytesOf("weights.h5"), { config }).loadAll();
    expect(Object.keys(layers)).toEqual(Object.keys(expected));
    for (const [name, layer] of Object.entries(layers)) {
      expect(layer.snapshot()).toEqual(expected[name]!.snapshot());
    }
  });

  test("for the weights of Keras 3", () => {
    const entries = entriesOf(bytesOf("sequential.keras"));
    const of = (name: string) => entries.find((each) => each.name === name)!.data;
    const whole = readKerasFile(bytesOf("sequential.keras"));
    const apart = readKerasFile(of("model.weights.h5"), { config: of("config.json") });
    expect(apart.layers).toEqual(whole.layers);
    for (const name of whole.layers) {
      expect(apart.load(name).snapshot()).toEqual(whole.load(name).snapshot());
    }
  });

  test("it goes before the one in the file", () => {
    const config = JSON.parse(text);
    config.config.layers[1].config.epsilon = 0.125;
    const layers = readKerasFile(bytesOf("functional.h5"), { config }).loadAll();
    expect(layers.bn_0!.epsilon).toBe(0.125);
  });

  test("a layer whose weights are not in the file", () => {
    const config = JSON.parse(text);
    const item = config.config.layers[1];
    config.config.layers.push({ ...item, config: { ...item.config, name: "more" } });
    const old = readKerasFile(bytesOf("weights.h5"), { config });
    assertRefuses(
      StateError,
      /^layer "more": expected the weights of 1 batch norms in the group "more", got those of 0$/,
      () => old.load("more"),
    );
    expect(old.load("bn_0").snapshot()).toEqual(expected.bn_0!.snapshot());
    const saved = readKerasFile(bytesOf("half.weights.h5"), { config });
    assertRefuses(
      StateError,
      /^layer "left\/bn": expected an array of moving_mean, got none$/,
      () => saved.load("left/bn"),
    );
  });
});

describe("weights alone", () => {
  test.each([
    ["weights.h5", "bn_0"],
    ["brain.weights.h5", "bn_a"],
    ["subclassed.keras", "stem_bn"],
    ["custom.h5", "rb/bn1"],
    ["custom.h5", "frozen"],
    ["keras-1.weights.h5", "bn"],
  ])("%s: epsilon is asked for", (name, layer) => {
    const file = readKerasFile(bytesOf(name));
    const message = `^epsilon: expected for layer "${layer}", of which the file has weights alone, got none$`;
    assertRefuses(OptionError, new RegExp(message), () => file.load(layer));
    expect(file.load(layer, { epsilon: 0.5 }).epsilon).toBe(0.5);
    assertRefuses(OptionError, /^epsilon: /, () => file.load(layer, { epsilon: -1 }));
  });

  test("three arrays may have gamma or beta: which is asked for", () => {
    const file = readKerasFile(bytesOf("unnamed.weights.h5"));
    const load = (options: KerasFileLoadOptions) =>
      file.load("batch_normalization_1", { epsilon: 1e-3, ...options });
    for (const [options, got] of [
      [{}, "neither"],
      [{ scale: true }, "neither"],
      [{ scale: false, center: false }, "both"],
    ] as const) {
      const message = new RegExp(`^scale, center: expected one of them false .* got ${got}$`);
      assertRefuses(OptionError, message, () => load(options));
    }
    const { gamma, beta } = load({ center: false });
    const other = load({ scale: false });
    expect([other.gamma, beta]).toEqual([null, null]);
    expect(gamma).toEqual(other.beta);
  });
});

describe("what is not as Keras writes it is refused", () => {
  const messages: Record<string, RegExp> = {
    "dense.h5": /^bytes: expected an HDF5 file as h5py .*, got attributes in a fractal heap/,
    "external-data.h5":
      /^bytes: expected the values of "\/bn\/moving_mean:0" in the file, got other/,
    "external-link.h5":
      /^bytes: expected what "\/bn\/moving_mean:0" .*, got a link that is external$/,
    "soft-link.h5": /^bytes: expected what "\/bn\/moving_mean:0" .*, got a link that is soft$/,
    "gzip.h5": /^bytes: .* one after another, .* got them in chunks, .*h5repack -l CONTI -f NONE$/,
    "virtual.h5": /^bytes: .* one after another, .* got them as a virtual one/,
    "huge.h5": /^bytes: expected the 4398046511104 bytes of "\/bn\/moving_mean:0", got 0$/,
    "integers.h5":
      /^bytes: expected float16, bfloat16, float32 or float64 in "\/bn\/moving_mean:0"/,
    "matrix.h5": /^layer "bn": expected an array of one axis, .* for moving_mean, got \[3, 1\]$/,
    "nothing.h5": /^bytes: expected values of "\/bn\/moving_mean:0", got none$/,
    "same.h5": /^bytes: expected an HDF5 file, got arrays that lie upon each other, "\/bn\d\//,
    "numbers.h5":
      /^moving_mean:0: expected a "gamma" of the same number for each "moving_mean", or none, got "gamma:0"$/,
    "other-length.h5": /^layer "bn": expected 4 values of runningVariance, as of the mean, got 3$/,
  };

  test("every file has a case", () => {
    const folder = new URL("../golden/state/keras-files/refused/", import.meta.url);
    expect(readdirSync(folder).sort()).toEqual(Object.keys(messages).sort());
  });

  test.each(Object.keys(messages))("%s", (name) => {
    const load = () => readKerasFile(bytesOf(`refused/${name}`)).loadAll({ epsilon: 1e-3 });
    assertRefuses(StateError, messages[name]!, load);
  });
});

describe("refusals", () => {
  const text = (words: string) => new TextEncoder().encode(words);
  const entries = entriesOf(bytesOf("sequential.keras"));
  const without = (name: string) => zip(entries.filter((entry) => entry.name !== name));
  const functional = bytesOf("functional.h5");
  const torchFile = zip([{ name: "archive/data.pkl", data: text("") }]);

  test.each<[string, unknown, new (message: string) => BatchNormError, RegExp]>([
    ["no bytes", "model.keras", ShapeError, /^bytes: expected a Uint8Array or ArrayBuffer, got "/],
    ["nothing", new Uint8Array(0), StateError, /^bytes: expected a \.keras file, .* no bytes: /],
    [
      "an index of sharded weights",
      text('{"metadata":{"total_size":4},"weight_map":{}}'),
      StateError,
      /^bytes: expected a \.keras file, a zip .* got JSON: .* an index lists other files$/,
    ],
    [
      "a model of torch.save",
      torchFile,
      StateError,
      /got a file of torch\.save: readTorch reads it$/,
    ],
    ["noise", Uint8Array.of(1, 2, 3), StateError, /^bytes: .* got bytes that begin as neither$/],
    ["cut short", functional.subarray(0, 20000), StateError, /^bytes: .* got 20000: truncated$/],
    ["a signature alone", functional.subarray(0, 8), StateError, /^bytes: expected an HDF5 file/],
    [
      "no config",
      without("config.json"),
      StateError,
      /^bytes: expected an archive of config\.json/,
    ],
    [
      "no weights",
      without("model.weights.h5"),
      StateError,
      /^bytes: expected an archive of config/,
    ],
    [
      "NumPy's weights",
      zip([...entries.slice(0, 2), { name: "model.weights.npz", data: new Uint8Array(3) }]),
      StateError,
      /^bytes: expected an archive of .* got one of "metadata\.json", "config\.json", "model\.weights\.npz"$/,
    ],
    [
      "a packed entry",
      zip(entries.map((entry) => ({ ...entry, method: 8 }))),
      StateError,
      /^bytes: expected a zip archive of stored entries/,
    ],
    [
      "a config that is no JSON",
      zip(
        entries.map(({ name, data }) => ({
          name,
          data: name === "config.json" ? text("{") : data,
        })),
      ),
      StateError,
      /^config\.json: expected JSON/,
    ],
  ])("%s", (_, bytes, error, message) => {
    assertRefuses(error, message, () => readKerasFile(wrong(bytes)));
  });

  test("options unknown, and a config that is none", () => {
    const file = readKerasFile(functional);
    assertRefuses(OptionError, /^eps: expected an option among momentum, layout, /, () =>
      file.load("bn_0", wrong({ eps: 1 })),
    );
    assertRefuses(OptionError, /^conf: /, () => readKerasFile(functional, wrong({ conf: {} })));
    assertRefuses(OptionError, /^config: expected JSON, parsed, as text or bytes, got 3$/, () =>
      readKerasFile(functional, { config: wrong(3) }),
    );
    // What json.dump(model.to_json(), file) writes in Python.
    const twice = JSON.stringify(new TextDecoder().decode(bytesOf("config.json")));
    for (const config of [twice, new TextEncoder().encode(twice)]) {
      assertRefuses(
        StateError,
        /^config: expected JSON of an object, got JSON of a text; JSON\.parse gives that text$/,
        () => readKerasFile(bytesOf("weights.h5"), { config }),
      );
    }
    assertRefuses(OptionError, /^name: expected one of "bn_0", "conv1\/bn"/, () => file.load("bn"));
  });
});
