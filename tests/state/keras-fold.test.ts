// Whole TensorFlow.js layers models with their batch norms folded: TensorFlow.js gives the same predictions.

import { BatchNormError, OptionError, StateError } from "batchnorm-wasm";
import { type FoldedKeras, foldKeras, readKeras } from "batchnorm-wasm/state";
import "@tensorflow/tfjs-backend-cpu";
import * as tf from "@tensorflow/tfjs-core";
import * as tfl from "@tensorflow/tfjs-layers";
import { beforeAll, describe, expect, test } from "vitest";
import { normals, random } from "../support/data.js";
import { kerasFiles } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";

const { layers } = tfl;
type Tensor = tfl.SymbolicTensor;
type Files = { model: string; weights: Record<string, Uint8Array> };

beforeAll(async () => {
  await tf.setBackend("cpu");
});

/** What `model.save` gives, its weights far from their start, in shards of at most `limit` bytes. */
async function saved(model: tfl.LayersModel, limit = 100): Promise<Files> {
  const normal = normals(7);
  for (const { layer, weights } of weightsOf(model)) {
    layer.setWeights(
      weights.map((weight) => {
        const variance = weight.originalName.endsWith("moving_variance");
        const values = Array.from({ length: weight.read().size }, () => {
          const z = normal();
          return variance ? 0.5 + z * z : 0.1 + 0.4 * z;
        });
        return tf.tensor(values, weight.shape as number[]);
      }),
    );
  }
  let artifacts: tf.io.ModelArtifacts | undefined;
  await model.save(
    tf.io.withSaveHandler(async (all) => {
      artifacts = all;
      return { modelArtifactsInfo: tf.io.getModelArtifactsInfoForJSON(all) };
    }),
  );
  const { weightData, weightSpecs, ...rest } = artifacts!;
  const data = new Uint8Array(tf.io.CompositeArrayBuffer.join(weightData));
  const weights: Record<string, Uint8Array> = {};
  for (let at = 0; at < data.length; at += limit) {
    weights[`part${at / limit}`] = data.subarray(at, at + limit);
  }
  const manifest = [{ paths: Object.keys(weights), weights: weightSpecs }];
  return { model: JSON.stringify({ ...rest, weightsManifest: manifest }), weights };
}

/** The layers of a model that have weights, those of models in it too. */
function weightsOf(
  model: tfl.LayersModel,
): { layer: tfl.layers.Layer; weights: tfl.LayerVariable[] }[] {
  return model.layers.flatMap((layer) =>
    "layers" in layer
      ? weightsOf(layer as unknown as tfl.LayersModel)
      : layer.weights.length > 0
        ? [{ layer, weights: layer.weights }]
        : [],
  );
}

/** The model that TensorFlow.js makes of files. */
function loaded({ model, weights }: Pick<FoldedKeras, "model" | "weights">) {
  const json = JSON.parse(model);
  const groups = json.weightsManifest as { paths: string[]; weights: object[] }[];
  const parts = groups.flatMap(({ paths }) => paths).map((path) => weights[path]!);
  const data = new Uint8Array(Buffer.concat(parts)).buffer;
  const specs = groups.flatMap((group) => group.weights) as tf.io.WeightsManifestEntry[];
  const { modelTopology, format } = json;
  return tfl.loadLayersModel(
    tf.io.fromMemory({ modelTopology, format, weightSpecs: specs, weightData: data }),
  );
}

/** Predictions for data from a seed. */
function predictions(model: tfl.LayersModel): Float32Array[] {
  const next = random(5);
  const x = model.inputs.map(({ shape }) => {
    const sizes = shape.map((size) => size ?? 3);
    const size = sizes.reduce((a, b) => a * b, 1);
    return tf.tensor(
      Array.from({ length: size }, () => 2 * next() - 1),
      sizes,
    );
  });
  const y = [model.predict(x.length === 1 ? x[0]! : x)].flat();
  return y.map((each) => each.dataSync() as Float32Array);
}

/** Folds a model, and has TensorFlow.js compare the predictions before and after. */
async function folded(files: Files): Promise<FoldedKeras> {
  const before = JSON.stringify(files);
  const result = foldKeras(files);
  expect(JSON.stringify(files)).toBe(before);
  const [x, y] = [predictions(await loaded(files)), predictions(await loaded(result))];
  expect(y.length).toBe(x.length);
  for (const [k, values] of x.entries()) {
    const most = values.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
    expect(most).toBeGreaterThan(1e-3);
    for (const [i, v] of values.entries())
      expect(Math.abs(v - y[k]![i]!) / most).toBeLessThan(1e-5);
  }
  // Nothing is left that no layer has: TensorFlow.js would refuse it. Norms that stay are there still.
  expect([...readKeras(result).layers].sort()).toEqual(result.kept.map(({ name }) => name).sort());
  return result;
}

/** The float32 weights of a model by name. */
function numbersIn({ model, weights }: Pick<FoldedKeras, "model" | "weights">) {
  const { paths, weights: entries } = JSON.parse(model).weightsManifest[0];
  const data = new Uint8Array(Buffer.concat(paths.map((path: string) => weights[path]!)));
  let at = 0;
  return Object.fromEntries(
    (entries as { name: string; shape: number[] }[]).map(({ name, shape }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      const values = new Float32Array(data.buffer, at, size);
      at += 4 * size;
      return [name, values];
    }),
  );
}

let count = 0;
const norm = (args: object = {}) => layers.batchNormalization({ name: `bn${count++}`, ...args });
const timed = (layer: tfl.layers.Layer): tfl.layers.Layer => layers.timeDistributed({ layer });
const names = (model: string): string[] => {
  const { config } = JSON.parse(model).modelTopology;
  return (config.layers as { class_name: string }[]).map((layer) => layer.class_name);
};
function stack(shape: number[], all: tfl.layers.Layer[]): tfl.LayersModel {
  const input = tfl.input({ shape, name: `input${count++}` });
  let y = input;
  for (const layer of all) y = layer.apply(y) as Tensor;
  return tfl.model({ inputs: input, outputs: y });
}
const reasons = ({ kept }: FoldedKeras): string[] => kept.map(({ reason }) => reason);

describe("the activation behind a norm", () => {
  const activationOf = async (...behind: tfl.layers.Layer[]) => {
    const file = readKeras(await saved(stack([5], [norm(), ...behind])));
    const [name] = file.layers as [string];
    expect(file.load(name).activation).toBe(null);
    return file.load(name, { withActivation: true }).activation;
  };

  test("is that of a plain ReLU", async () => {
    expect(await activationOf(layers.reLU())).toBe("relu");
    expect(await activationOf(layers.reLU({ maxValue: 6 }))).toBe("relu6");
    expect(await activationOf(layers.activation({ activation: "relu6" }))).toBe("relu6");
    expect(await activationOf(layers.activation({ activation: "relu" }))).toBe("relu");
  });

  test("is none of anything else", async () => {
    expect(await activationOf()).toBe(null);
    expect(await activationOf(layers.reLU({ maxValue: 4 }))).toBe(null);
    expect(await activationOf(layers.leakyReLU())).toBe(null);
    expect(await activationOf(layers.activation({ activation: "tanh" }))).toBe(null);
  });

  test("is none where something else takes the output as well", async () => {
    const x = tfl.input({ shape: [5], name: `twice${count++}` });
    const n = norm().apply(x) as Tensor;
    const sum = layers.add().apply([layers.reLU().apply(n) as Tensor, n]) as Tensor;
    const file = readKeras(await saved(tfl.model({ inputs: x, outputs: sum })));
    expect(file.load(file.layers[0]!, { withActivation: true }).activation).toBe(null);
  });

  test("is asked for with true or false", async () => {
    const file = readKeras(await saved(stack([5], [norm()])));
    assertRefuses(OptionError, /^withActivation: expected true or false, got "relu"/, () =>
      file.load(file.layers[0]!, wrong({ withActivation: "relu" })),
    );
  });
});

describe("into the layer before", () => {
  test.each<[string, number[], () => tfl.layers.Layer]>([
    ["dense", [5], () => layers.dense({ units: 4 })],
    ["dense of rows", [3, 5], () => layers.dense({ units: 4, useBias: false })],
    ["conv1d", [8, 3], () => layers.conv1d({ filters: 4, kernelSize: 3, padding: "same" })],
    ["conv2d", [6, 6, 3], () => layers.conv2d({ filters: 4, kernelSize: 3, useBias: false })],
    [
      "conv2d with strides",
      [6, 6, 3],
      () => layers.conv2d({ filters: 4, kernelSize: 3, strides: 2 }),
    ],
    ["depthwise", [6, 6, 3], () => layers.depthwiseConv2d({ kernelSize: 3, depthMultiplier: 2 })],
    [
      "depthwise without a bias",
      [6, 6, 3],
      () => layers.depthwiseConv2d({ kernelSize: 3, padding: "same", useBias: false }),
    ],
    ["separable", [6, 6, 3], () => layers.separableConv2d({ filters: 4, kernelSize: 3 })],
    [
      "transposed",
      [4, 4, 3],
      () => layers.conv2dTranspose({ filters: 4, kernelSize: 3, strides: 2, useBias: false }),
    ],
  ])("%s", async (_, shape, make) => {
    for (const options of [{}, { scale: false }, { center: false }]) {
      const files = await saved(stack(shape, [make(), norm(options), layers.reLU()]));
      const result = await folded(files);
      expect([result.folded.length, result.kept]).toEqual([1, []]);
      expect(names(result.model)).toEqual(names(files.model).filter((kind) => !/Norm/.test(kind)));
    }
  });

  // TensorFlow.js does not normalize along these axes as Keras does, or not at all: its weights are compared.
  test.each<[string, number[], () => tfl.layers.Layer, number]>([
    [
      "channels first",
      [3, 6, 6],
      () => layers.conv2d({ filters: 4, kernelSize: 3, dataFormat: "channelsFirst", name: "conv" }),
      1,
    ],
    [
      "channels first, the axis counted from the end",
      [3, 6, 6],
      () => layers.conv2d({ filters: 4, kernelSize: 3, dataFormat: "channelsFirst", name: "conv" }),
      -3,
    ],
    ["conv3d", [4, 4, 4, 2], () => layers.conv3d({ filters: 4, kernelSize: 2, name: "conv" }), -1],
  ])("%s", async (_, shape, make, axis) => {
    const files = await saved(stack(shape, [make(), norm({ name: "bn", axis })]), 1e6);
    const result = foldKeras(files);
    expect([result.folded, result.kept]).toEqual([["bn"], []]);
    const [x, y] = [numbersIn(files), numbersIn(result)];
    const bn = readKeras(files).load("bn", { layout: "channelsLast" });
    const scale = Float64Array.from(
      bn.gamma!,
      (gamma, o) => gamma / Math.sqrt(bn.runningVariance[o]! + bn.epsilon),
    );
    const [kernel, bias] = [y["conv/kernel"]!, y["conv/bias"]!];
    for (const [k, v] of x["conv/kernel"]!.entries()) {
      const right = v * scale[k % 4]!;
      expect(Math.abs(kernel[k]! - right)).toBeLessThanOrEqual(2 ** -23 * Math.abs(right));
    }
    for (const [o, v] of x["conv/bias"]!.entries()) {
      const right = (v - bn.runningMean[o]!) * scale[o]! + bn.beta![o]!;
      expect(Math.abs(bias[o]! - right)).toBeLessThan(1e-6 * Math.max(1, Math.abs(right)));
    }
  });

  test("one after another, and the last one an output", async () => {
    const all = [
      layers.dense({ units: 4, useBias: false }),
      norm(),
      norm(),
      layers.dense({ units: 3 }),
    ];
    const result = await folded(await saved(stack([5], [...all, norm()])));
    expect([result.folded.length, result.kept]).toEqual([3, []]);
    expect(names(result.model)).toEqual(["InputLayer", "Dense", "Dense"]);
  });

  test("a Sequential model, its config an object or, as it was, an array", async () => {
    const model = tfl.sequential();
    model.add(layers.conv2d({ filters: 4, kernelSize: 3, inputShape: [6, 6, 2], useBias: false }));
    model.add(norm());
    model.add(layers.reLU());
    model.add(layers.flatten());
    model.add(layers.dense({ units: 3 }));
    model.add(norm());
    const files = await saved(model);
    const result = await folded(files);
    expect([result.folded.length, result.kept]).toEqual([2, []]);
    const json = JSON.parse(files.model);
    const { config } = json.modelTopology;
    json.modelTopology.config = config.layers;
    const old = await folded({ ...files, model: JSON.stringify(json) });
    expect(JSON.parse(old.model).modelTopology.config).toEqual(
      JSON.parse(result.model).modelTopology.config.layers,
    );
  });

  test("in models in the model", async () => {
    const inner = stack([5], [layers.dense({ units: 4, name: "deep" }), norm({ name: "inner" })]);
    const input = tfl.input({ shape: [5] });
    const twice = [inner.apply(input) as Tensor, inner.apply(input) as Tensor];
    const sum = layers.add().apply(twice) as Tensor;
    const outer = norm({ name: "outer" });
    const y = outer.apply(layers.dense({ units: 3 }).apply(sum)) as Tensor;
    const result = await folded(await saved(tfl.model({ inputs: input, outputs: y })));
    expect([result.folded, result.kept]).toEqual([["inner", "outer"], []]);
  });

  test("weights that are quantized become float32, all others stay as they are", async () => {
    const files = kerasFiles("keras-quantized");
    const result = await folded(files);
    expect(result.folded.length).toBeGreaterThan(0);
    const of = (model: string) =>
      JSON.parse(model).weightsManifest[0].weights as { name: string; quantization?: object }[];
    const before = new Map(of(files.model).map((entry) => [entry.name, entry]));
    for (const entry of of(result.model)) {
      const same = JSON.stringify(before.get(entry.name)) === JSON.stringify(entry);
      expect(same || !("quantization" in entry), entry.name).toBe(true);
    }
  });
});

describe("in TimeDistributed", () => {
  const frames = [2, 6, 6, 3];

  test.each<[string, number[], () => tfl.layers.Layer]>([
    ["dense", [3, 5], () => layers.dense({ units: 4 })],
    ["dense of rows", [2, 3, 5], () => layers.dense({ units: 4, useBias: false })],
    ["conv1d", [2, 8, 3], () => layers.conv1d({ filters: 4, kernelSize: 3, padding: "same" })],
    ["conv2d", frames, () => layers.conv2d({ filters: 4, kernelSize: 3, useBias: false })],
    ["depthwise", frames, () => layers.depthwiseConv2d({ kernelSize: 3, useBias: false })],
    ["separable", frames, () => layers.separableConv2d({ filters: 4, kernelSize: 3 })],
    [
      "transposed",
      frames,
      () => layers.conv2dTranspose({ filters: 4, kernelSize: 3, useBias: false }),
    ],
  ])("%s takes in the norm behind it", async (_, shape, make) => {
    const result = await folded(
      await saved(stack(shape, [timed(make()), timed(norm()), layers.reLU()])),
    );
    expect(result.kept).toEqual([]);
    expect(names(result.model)).toEqual(["InputLayer", "TimeDistributed", "ReLU"]);
    // Along the last axis a norm is the same without the wrapper, but TensorFlow.js does not run it on 5 axes.
    const plain = foldKeras(await saved(stack(shape, [timed(make()), norm(), layers.reLU()])));
    expect(plain.kept).toEqual([]);
    expect(predictions(await loaded(plain))).toEqual(predictions(await loaded(result)));
  });

  test.each<[string, number[], () => tfl.layers.Layer[]]>([
    ["a plain layer and a norm", [3, 5], () => [layers.dense({ units: 4 }), timed(norm())]],
    [
      "layers that change nothing between",
      [3, 5],
      () => [
        timed(layers.dense({ units: 4, useBias: false })),
        timed(layers.dropout({ rate: 0.5 })),
        timed(layers.activation({ activation: "linear" })),
        timed(norm()),
        norm(),
      ],
    ],
    ["a norm and a layer", [3, 5], () => [timed(norm()), timed(layers.dense({ units: 4 }))]],
    ["a plain norm and a layer", [3, 5], () => [norm(), timed(layers.dense({ units: 4 }))]],
    [
      "a norm and a plain layer",
      [8, 5],
      () => [timed(norm()), layers.conv1d({ filters: 4, kernelSize: 3, useBias: false })],
    ],
    [
      "a norm and a convolution",
      frames,
      () => [timed(norm()), timed(layers.conv2d({ filters: 4, kernelSize: 3, useBias: false }))],
    ],
  ])("%s", async (_, shape, make) => {
    const result = await folded(await saved(stack(shape, make())));
    expect(result.kept).toEqual([]);
    // In a Sequential model the first layer states the shape of the input.
    const model = tfl.sequential();
    model.add(layers.timeDistributed({ layer: norm(), inputShape: shape }));
    for (const layer of make()) model.add(layer);
    const files = await saved(model);
    const sequential = await folded(files);
    expect(sequential.kept).toEqual([]);
    const { config } = JSON.parse(sequential.model).modelTopology.config.layers[0];
    expect(config.batch_input_shape).toEqual([null, ...shape]);
  });

  test("zeros beside the values of each step stand between", async () => {
    const same = layers.conv2d({ filters: 4, kernelSize: 3, padding: "same" });
    const files = await saved(stack(frames, [timed(norm()), timed(same)]));
    expect(reasons(await folded(files))[0]).toMatch(/after it: .*padding/);
  });

  test("an activation of the layer that is wrapped stands between", async () => {
    const dense = layers.dense({ units: 4, activation: "relu" });
    const files = await saved(stack([3, 5], [timed(dense), timed(norm())]));
    expect(reasons(await folded(files))[0]).toMatch(/before it: its activation stands between/);
  });

  test("behind a mask, in front of a recurrent layer", async () => {
    const all = [
      layers.masking({ maskValue: 0 }),
      timed(layers.dense({ units: 4, useBias: false })),
      timed(norm()),
      layers.simpleRNN({ units: 2, recurrentInitializer: "glorotNormal" }),
    ];
    expect((await folded(await saved(stack([3, 5], all)))).kept).toEqual([]);
  });

  // There are as many steps as channels, and as many rows, so that a norm along another axis has the same weights.
  const conv = (dataFormat: "channelsFirst" | "channelsLast") =>
    layers.conv2d({ filters: 3, kernelSize: 1, dataFormat });
  const plain = (layer: tfl.layers.Layer) => layer;
  type Wrap = typeof timed;
  test.each<[string, number[], () => tfl.layers.Layer, Wrap, number, boolean]>([
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), timed, 1, true],
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), timed, -3, true],
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), timed, 2, false],
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), timed, -1, false],
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), plain, 2, true],
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), plain, -3, true],
    ["steps, channels first", [3, 3, 3, 3], () => timed(conv("channelsFirst")), plain, 1, false],
    ["steps, channels last", [3, 3, 3, 3], () => timed(conv("channelsLast")), timed, 3, true],
    ["steps, channels last", [3, 3, 3, 3], () => timed(conv("channelsLast")), timed, 1, false],
    ["steps, channels last", [3, 3, 3, 3], () => timed(conv("channelsLast")), plain, 4, true],
    ["steps, channels last", [3, 3, 3, 3], () => timed(conv("channelsLast")), plain, 3, false],
    ["channels first", [3, 3, 3], () => conv("channelsFirst"), timed, 1, false],
    ["channels first", [3, 3, 3], () => conv("channelsFirst"), timed, 0, false],
    ["channels first", [3, 3, 3], () => conv("channelsFirst"), timed, -3, false],
    ["channels last", [3, 3, 3], () => conv("channelsLast"), timed, 2, true],
    ["channels last", [3, 3, 3], () => conv("channelsLast"), timed, 1, false],
    ["dense", [3, 3, 3], () => timed(layers.dense({ units: 3 })), timed, 2, true],
    ["dense", [3, 3, 3], () => timed(layers.dense({ units: 3 })), timed, 1, false],
    ["dense", [3, 3, 3], () => timed(layers.dense({ units: 3 })), plain, 3, true],
    ["dense", [3, 3, 3], () => timed(layers.dense({ units: 3 })), plain, 2, false],
  ])("%s %j, the norm along an axis", async (_, shape, make, wrap, axis, folds) => {
    const files = await saved(stack(shape, [make(), wrap(norm({ axis: -1 }))]), 1e6);
    const model = files.model.replace('"axis":-1', `"axis":${axis}`);
    const result = foldKeras({ ...files, model });
    const which = `axis ${axis} is not that of its channels; nothing stands behind it`;
    const right = folds ? [] : [expect.stringContaining(which)];
    expect([wrap === timed, axis, reasons(result)]).toEqual([wrap === timed, axis, right]);
  });

  test("a wrapper that is called twice", async () => {
    const x = tfl.input({ shape: [3, 4], name: `in${count++}` });
    const shared = layers.timeDistributed({ layer: layers.dense({ units: 4 }), name: "shared" });
    const y = [shared.apply(x), shared.apply(shared.apply(x))].map(
      (each) => timed(norm()).apply(each as Tensor) as Tensor,
    );
    const result = await folded(await saved(tfl.model({ inputs: x, outputs: y })));
    for (const reason of reasons(result)) expect(reason).toMatch(/^the output of "shared" is used/);
    expect(result.folded).toEqual([]);
  });

  test("the weights may be named after the wrapped layer, if no other layer has its name", async () => {
    const dense = layers.dense({ units: 4, useBias: false, name: "dense" });
    const wrapper = layers.timeDistributed({ layer: dense, name: "wrapper" });
    const other = layers.dense({ units: 4, name: "other" });
    const files = await saved(stack([3, 5], [other, layers.reLU(), wrapper, timed(norm())]), 1e6);
    const right = numbersIn(foldKeras(files));
    for (const place of ["dense", "wrapper/dense", "model/dense"]) {
      const model = files.model.replace('"wrapper/kernel"', `"${place}/kernel"`);
      const got = numbersIn(foldKeras({ ...files, model }));
      expect(got[`${place}/kernel`]).toEqual(right["wrapper/kernel"]);
      expect(got[`${place}/bias`]).toEqual(right["wrapper/bias"]);
    }
    const model = files.model
      .replace('"wrapper/kernel"', '"model/dense/kernel"')
      .replaceAll('"name":"other"', '"name":"dense"')
      .replaceAll('["other",0,0', '["dense",0,0');
    expect(reasons(foldKeras({ ...files, model }))[0]).toMatch(
      /^"wrapper" before it: weightsManifest: expected "wrapper\/kernel", got none/,
    );
  });

  test("a model in a wrapper takes in its own norms alone", async () => {
    const inside = tfl.sequential({ name: `inside${count++}` });
    inside.add(layers.dense({ units: 4, useBias: false, inputShape: [5], name: "d1" }));
    inside.add(norm({ name: "own" }));
    const files = await saved(stack([3, 5], [timed(inside), timed(norm({ name: "behind" }))]));
    const { folded: gone, kept } = await folded(files);
    expect(gone).toEqual(["own"]);
    expect(kept).toEqual([
      { name: "behind", reason: expect.stringMatching(/no norm can be folded into Sequential; /) },
    ]);
  });

  test("a norm in a wrapper in a wrapper is read, and stays", async () => {
    const dense = () => layers.dense({ units: 4, useBias: false });
    const twice = timed(timed(norm({ name: "inner" })));
    const files = await saved(stack([2, 3, 5], [timed(timed(dense())), twice, norm(), dense()]));
    const { layers: listed } = readKeras(files);
    expect(listed).toHaveLength(2);
    expect(listed[0]).toBe("inner");
    const bn = readKeras(files).load("inner");
    const weights = twice.getWeights().map((weight) => [...weight.dataSync()]);
    expect(
      [bn.gamma, bn.beta, bn.runningMean, bn.runningVariance].map((each) => [...each!]),
    ).toEqual(weights);
    const { folded: gone, kept } = await folded(files);
    expect(gone).toEqual([listed[1]]);
    expect(kept).toEqual([{ name: "inner", reason: "it is in a wrapper" }]);
  });

  test("the activation behind a norm is found", async () => {
    const files = await saved(stack([3, 5], [timed(norm()), timed(layers.reLU())]));
    const file = readKeras(files);
    expect(file.load(file.layers[0]!, { withActivation: true }).activation).toBe("relu");
  });
});

describe("past layers that change nothing at test time", () => {
  test("withActivation does not pass them over: what stands between changes training", async () => {
    const all = [norm(), layers.gaussianNoise({ stddev: 1 }), layers.reLU()];
    const file = readKeras(await saved(stack([3], all)));
    expect(file.load(file.layers[0]!, { withActivation: true }).activation).toBeNull();
  });

  test("before and after the norm", async () => {
    const all = [
      layers.conv2d({ filters: 4, kernelSize: 3 }),
      layers.dropout({ rate: 0.5 }),
      norm(),
      layers.reLU(),
      norm(),
      layers.dropout({ rate: 0.5 }),
      layers.conv2d({ filters: 3, kernelSize: 2 }),
      layers.activation({ activation: "linear" }),
      layers.gaussianNoise({ stddev: 1 }),
      norm(),
      layers.gaussianDropout({ rate: 0.5 }),
      layers.flatten(),
      norm(),
      layers.alphaDropout({ rate: 0.5 }),
      layers.dropout({ rate: 0.5 }),
      layers.dense({ units: 3, activation: "tanh" }),
    ];
    const files = await saved(stack([7, 7, 2], all));
    const result = await folded(files);
    expect([result.folded.length, result.kept]).toEqual([4, []]);
    expect(names(result.model)).toEqual(names(files.model).filter((kind) => !/Norm/.test(kind)));
  });

  test("but not past a dropout that is on, or whose class is another", async () => {
    const all = [
      layers.dense({ units: 4, activation: "relu" }),
      norm({ name: "bn" }),
      layers.dropout({ rate: 0.5, name: "drop" }),
      layers.dense({ units: 2 }),
    ];
    const { model, weights } = await saved(stack([5], all));
    const change = (edit: (item: { class_name: string; inbound_nodes: unknown }) => void) => {
      const json = JSON.parse(model);
      edit(json.modelTopology.config.layers[3]);
      return reasons(foldKeras({ model: json, weights }))[0];
    };
    expect(change(() => {})).toBeUndefined();
    const on = change((item) => {
      item.inbound_nodes = [[["bn", 0, 0, { training: true }]]];
    });
    expect(on).toMatch(/; "drop" after it: no norm can be folded into Dropout$/);
    const other = change((item) => {
      item.class_name = "MonteCarloDropout";
    });
    expect(other).toMatch(/; "drop" after it: no norm can be folded into MonteCarloDropout$/);
  });
});

describe("into the layer after", () => {
  test("dense and convolutions without padding", async () => {
    const all = [
      norm(),
      layers.conv2d({ filters: 4, kernelSize: 3, useBias: false }),
      layers.reLU(),
      norm(),
      layers.depthwiseConv2d({ kernelSize: 2, depthMultiplier: 2 }),
      layers.reLU(),
      norm(),
      layers.conv2d({ filters: 3, kernelSize: 1, padding: "same" }),
      layers.flatten(),
      norm(),
      layers.dense({ units: 3, activation: "tanh" }),
    ];
    const result = await folded(await saved(stack([7, 7, 2], all)));
    expect([result.folded.length, result.kept]).toEqual([4, []]);
  });

  test("one after another", async () => {
    const all = [norm(), norm(), norm(), layers.dense({ units: 3 })];
    const result = await folded(await saved(stack([5], all)));
    expect([result.folded.length, result.kept]).toEqual([3, []]);
  });

  test("one after another, whatever the order in which the file lists them", async () => {
    const behind = [norm(), norm(), norm(), layers.dense({ units: 3, activation: "relu" })];
    const all = [layers.dense({ units: 4, activation: "relu" }), ...behind, norm(), norm(), norm()];
    const { model, weights } = await saved(stack([5], [...all, layers.dense({ units: 2 })]));
    for (const order of [
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
      [0, 1, 3, 2, 4, 5, 7, 6, 8, 9],
      [4, 3, 2, 8, 6, 7, 9, 0, 5, 1],
    ]) {
      const json = JSON.parse(model);
      const { config } = json.modelTopology;
      config.layers = order.map((at) => config.layers[at]);
      const result = await folded({ model: JSON.stringify(json), weights });
      expect([result.folded.length, result.kept]).toEqual([6, []]);
    }
  });

  test("the first layer of a Sequential model, which says what its input is", async () => {
    const model = tfl.sequential();
    model.add(norm({ inputShape: [5] }));
    model.add(layers.dense({ units: 3 }));
    const result = await folded(await saved(model));
    expect(result.folded.length).toBe(1);
    expect(names(result.model)).toEqual(["Dense"]);
  });

  test("before a layer that moves 0 padding takes only a norm that does not", async () => {
    const same = layers.conv2d({ filters: 3, kernelSize: 3, padding: "same" });
    const result = await folded(await saved(stack([5, 5, 2], [norm(), same])));
    expect(reasons(result)).toEqual([
      expect.stringMatching(
        /^"input\d+" before it: no norm can be folded into InputLayer; "conv2d_.*" after it: padding: expected 0/,
      ),
    ]);
  });
});

describe("into a transposed convolution of a single tap after", () => {
  const single = (args: object = {}) =>
    layers.conv2dTranspose({ filters: 4, kernelSize: 1, name: "up", ...args });

  test.each<[string, number[], () => tfl.layers.Layer]>([
    ["with a bias", [4, 5, 3], () => single()],
    ["without a bias", [4, 5, 3], () => single({ useBias: false, strides: [1, 1] })],
    ["of which the size stays", [4, 5, 3], () => single({ padding: "same", activation: "tanh" })],
  ])("%s", async (_, shape, make) => {
    const files = await saved(stack(shape, [layers.reLU(), norm(), norm(), make(), norm()]));
    const result = await folded(files);
    // The norm behind the layer is folded only where no activation stands between.
    const kept = /tanh/.test(files.model) ? 1 : 0;
    expect([result.folded.length, result.kept.length]).toEqual([3 - kept, kept]);
  });

  test("with strides: only a norm that moves no 0", async () => {
    const up = single({ strides: [1, 2] });
    const { kept } = await folded(await saved(stack([4, 5, 3], [norm(), up])));
    expect(kept[0]!.reason).toMatch(
      /"up" after it: into: expected "before" for a convTranspose, unless it has a single tap, /,
    );
    const files = await saved(stack([4, 5, 3], [norm({ name: "bn", center: false }), up]), 1e6);
    const numbers = numbersIn(files);
    numbers["bn/moving_mean"]!.fill(0);
    const part0 = new Uint8Array(Object.values(numbers)[0]!.buffer);
    const still = await folded({ model: files.model, weights: { part0 } });
    expect([still.folded, still.kept]).toEqual([["bn"], []]);
  });

  test("what TensorFlow.js does not run: channels first, one or three spatial axes, output padding", async () => {
    const files = await saved(stack([1, 5, 3], [norm({ name: "bn" }), single()]), 1e6);
    const edited = (change: (bn: Item, up: Item, entry: { shape: number[] }) => void) => {
      const json = JSON.parse(files.model);
      const [, bn, up] = json.modelTopology.config.layers;
      const entries = json.weightsManifest[0].weights as { name: string; shape: number[] }[];
      change(bn, up, entries.find(({ name }) => name === "up/kernel")!);
      return foldKeras({ model: JSON.stringify(json), weights: files.weights });
    };
    interface Item {
      class_name: string;
      config: Record<string, unknown>;
    }
    const right = numbersIn(await folded(files));
    const first = edited((bn, up) => {
      bn.config.axis = 1;
      up.config.data_format = "channels_first";
    });
    const one = edited((_, up, kernel) => {
      up.class_name = "Conv1DTranspose";
      up.config.strides = [1];
      kernel.shape.shift();
    });
    const three = edited((_, up, kernel) => {
      up.class_name = "Conv3DTranspose";
      up.config.strides = [1, 1, 1];
      kernel.shape.unshift(1);
    });
    const usual = edited((_, { config }) => {
      delete config.strides;
      config.output_padding = [0, 0];
    });
    for (const result of [first, one, three, usual]) {
      expect([result.folded, result.kept]).toEqual([["bn"], []]);
      expect(numbersIn(result)).toEqual(right);
    }
    for (const added of [1, [0, 1]]) {
      const { kept } = edited((_, { config }) => {
        config.output_padding = added;
      });
      expect(kept[0]!.reason).toMatch(
        /"up" after it: into: expected "before" for a convTranspose, /,
      );
    }
  });
});

describe("into a separable convolution after", () => {
  const separable = (args: object = {}) =>
    layers.separableConv2d({ filters: 4, kernelSize: 3, name: "separable", ...args });

  /** What `saved` gives, and the `depth_multiplier` of separable convolutions, which TensorFlow.js leaves out. */
  async function savedWhole(model: tfl.LayersModel): Promise<Files> {
    const files = await saved(model, 1e6);
    const json = JSON.parse(files.model);
    for (const { class_name: kind, config } of json.modelTopology.config.layers) {
      const layer = model.getLayer(config.name) as { depthMultiplier?: number };
      if (kind === "SeparableConv2D") config.depth_multiplier = layer.depthMultiplier;
    }
    return { ...files, model: JSON.stringify(json) };
  }

  test.each<[string, object]>([
    ["with a bias", {}],
    ["without a bias", { useBias: false }],
    ["with several outputs for each input", { depthMultiplier: 2, activation: "tanh" }],
    ["with strides", { strides: 2, kernelSize: [2, 3] }],
    ["of a single tap", { kernelSize: 1, padding: "same" }],
  ])("%s", async (_, args) => {
    for (const options of [{}, { scale: false }, { center: false }]) {
      const files = await savedWhole(stack([7, 7, 3], [norm(options), separable(args)]));
      const result = await folded(files);
      expect([result.folded.length, result.kept]).toEqual([1, []]);
      expect(names(result.model)).toEqual(["InputLayer", "SeparableConv2D"]);
    }
  });

  test.each([true, false])("norms before and behind it, its use_bias %s", async (useBias) => {
    const all = [norm(), norm(), separable({ useBias, depthMultiplier: 2 }), norm(), norm()];
    const result = await folded(await savedWhole(stack([6, 6, 3], all)));
    expect([result.folded.length, result.kept]).toEqual([4, []]);
  });

  /** The files of a model with zeros for some of the weights. */
  function withZeros(files: Files, zeros: readonly string[]): Files {
    const numbers = numbersIn(files);
    for (const name of zeros) numbers[name]!.fill(0);
    const bytes = new Uint8Array(Object.values(numbers)[0]!.buffer);
    const [path] = Object.keys(files.weights);
    return { model: files.model, weights: { [path!]: bytes } };
  }

  test.each([
    separable({ padding: "same" }),
    layers.conv2d({ filters: 4, kernelSize: 3, padding: "same" }),
    layers.depthwiseConv2d({ kernelSize: 3, padding: "same" }),
    layers.conv2dTranspose({ filters: 4, kernelSize: 3, strides: 2 }),
  ])(
    "with zeros beside its values, as other convolutions: only a norm that moves no 0",
    async (layer) => {
      const files = await saved(stack([5, 5, 2], [norm({ name: "bn" }), layer]), 1e6);
      expect(reasons(await folded(files))).toEqual([
        expect.stringMatching(
          / after it: (padding: expected 0 or "valid"|into: expected "before") /,
        ),
      ]);
      const still = await folded(withZeros(files, ["bn/beta", "bn/moving_mean"]));
      expect([still.folded, still.kept]).toEqual([["bn"], []]);
    },
  );

  /** Files in which the norm "bn" and the layer "separable" are changed. */
  async function edited(
    change: (parts: {
      norm: { axis: unknown };
      config: Record<string, unknown>;
      layer: { class_name: string };
      shapes: number[][];
    }) => void,
  ): Promise<Files> {
    const all = [norm({ name: "bn" }), separable({ kernelSize: [1, 3], depthMultiplier: 2 })];
    const { model, weights } = await savedWhole(stack([1, 7, 3], all));
    const json = JSON.parse(model);
    const [, bn, layer] = json.modelTopology.config.layers;
    const entries = json.weightsManifest[0].weights as { name: string; shape: number[] }[];
    const kernels = entries.filter(({ name }) => /wise_kernel$/.test(name));
    const shapes = kernels.map(({ shape }) => shape);
    change({ norm: bn.config, config: layer.config, layer, shapes });
    return { model: JSON.stringify(json), weights };
  }

  test("what TensorFlow.js does not run: channels first, and a single spatial axis", async () => {
    const right = numbersIn(await folded(await edited(() => {})));
    const first = foldKeras(
      await edited((parts) => {
        parts.norm.axis = 1;
        parts.config.data_format = "channels_first";
      }),
    );
    const one = foldKeras(
      await edited(({ layer, shapes }) => {
        layer.class_name = "SeparableConv1D";
        for (const shape of shapes) shape.shift();
      }),
    );
    for (const result of [first, one]) {
      expect([result.folded, result.kept]).toEqual([["bn"], []]);
      expect(numbersIn(result)).toEqual(right);
    }
  });

  test("kernels that do not fit each other, and zeros before the first value alone", async () => {
    const apart = await edited(({ shapes }) => {
      shapes[1] = shapes[1]!.splice(2, 2, 8, 3);
    });
    expect(reasons(foldKeras(apart))).toEqual([
      expect.stringMatching(/"separable" after it: shape: expected 6 in channels, got 8$/),
    ]);
    const causal = await edited(({ config }) => {
      config.padding = "causal";
    });
    expect(reasons(foldKeras(causal))).toEqual([
      expect.stringMatching(/"separable" after it: padding: expected 0 or "valid" .* got 1$/),
    ]);
  });

  test("weights that would leave float32 leave all as it was", async () => {
    const files = await saved(stack([6, 6, 2], [norm({ name: "bn" }), separable()]), 1e6);
    const numbers = numbersIn(files);
    numbers["bn/beta"]!.fill(3e38);
    const part0 = new Uint8Array(Object.values(numbers)[0]!.buffer);
    const { model, weights, kept } = foldKeras({ model: files.model, weights: { part0 } });
    expect(kept[0]!.reason).toMatch(/"separable" after it: /);
    expect({ model, weights }).toEqual({ model: files.model, weights: { part0 } });
  });
});

describe("kept, with the reason", () => {
  const input = (shape: number[]) => tfl.input({ shape, name: `in${count++}` });

  test("behind a sum", async () => {
    const x = input([5]);
    const a = layers.dense({ units: 4 }).apply(x) as Tensor;
    const b = layers.dense({ units: 4 }).apply(x) as Tensor;
    const sum = layers.add({ name: "sum" }).apply([a, b]) as Tensor;
    const y = layers.reLU({ name: "relu" }).apply(norm().apply(sum)) as Tensor;
    const result = await folded(await saved(tfl.model({ inputs: x, outputs: y })));
    expect(reasons(result)).toEqual([
      '"sum" before it: no norm can be folded into Add; "relu" after it: no norm can be folded into ReLU',
    ]);
  });

  test("a layer that others use too, one that is called twice, one that is an output", async () => {
    const x = input([4]);
    const used = layers.dense({ units: 4, name: "used" });
    const a = used.apply(x) as Tensor;
    const sum = layers.add().apply([norm().apply(a) as Tensor, a]) as Tensor;
    const shared = layers.dense({ units: 4, name: "shared" });
    const [b, c] = [shared.apply(sum) as Tensor, shared.apply(a) as Tensor];
    const ends = [norm().apply(b), layers.reLU().apply(c)] as Tensor[];
    const shown = layers.dense({ units: 4, name: "shown" }).apply(x) as Tensor;
    const outputs = [...ends, shown, norm().apply(shown) as Tensor];
    const result = await folded(await saved(tfl.model({ inputs: x, outputs })));
    expect(reasons(result)).toEqual([
      expect.stringMatching(
        /^the output of "used" is used 3 times; "add_.*" does not have one input/,
      ),
      'the output of "shared" is used 2 times; nothing stands behind it',
      'the output of "shown" is used 2 times; nothing stands behind it',
    ]);
  });

  test("a norm that is called twice", async () => {
    const x = input([4]);
    const bn = norm();
    const y = [1, 2].map(
      (k) => bn.apply(layers.dense({ units: 3, name: `d${k}` }).apply(x)) as Tensor,
    );
    const result = await folded(await saved(tfl.model({ inputs: x, outputs: y })));
    expect(reasons(result)).toEqual([
      expect.stringMatching(/^"bn\d+" does not have one input, in one call$/),
    ]);
  });

  test("an activation between", async () => {
    const conv = layers.conv2d({ filters: 3, kernelSize: 3, activation: "relu", name: "conv" });
    const result = await folded(await saved(stack([6, 6, 2], [conv, norm()])));
    expect(reasons(result)).toEqual([
      '"conv" before it: its activation stands between; nothing stands behind it',
    ]);
  });

  test("another axis than that of the channels, or one that may be", async () => {
    const dense = layers.dense({ units: 4, name: "dense" });
    const rows = await folded(await saved(stack([3, 5], [dense, norm({ axis: 1 })])));
    expect(reasons(rows)[0]).toMatch(/^"dense" before it: axis 1 is not that of its channels; /);
    const last = layers.dense({ units: 4 });
    const fine = await folded(await saved(stack([3, 5], [last, norm({ axis: 2 })])));
    expect(fine.kept).toEqual([]);
    const lost = [layers.permute({ dims: [2, 1] }), layers.dense({ units: 4, name: "lost" })];
    const unknown = await folded(await saved(stack([3, 5], [...lost, norm({ axis: 1 })])));
    expect(reasons(unknown)[0]).toMatch(
      /^"lost" before it: whether axis 1 is that of its channels is not known; /,
    );
  });

  test("a layer in a custom layer, which the config does not list", async () => {
    /** A layer with a batch norm of its own, as programs write them. */
    class Block extends layers.Layer {
      static className = "Block";
      readonly norm = layers.batchNormalization({ name: "inner" });
      override build(shape: [null, number]): void {
        this.norm.build(shape);
        this.trainableWeights = this.norm.trainableWeights;
        this.nonTrainableWeights = this.norm.nonTrainableWeights;
        this.built = true;
      }
      override call(x: tf.Tensor): tf.Tensor {
        return this.norm.call(x, { training: false }) as tf.Tensor;
      }
    }
    tf.serialization.registerClass(
      Block as unknown as tf.serialization.SerializableConstructor<Block>,
    );
    const model = stack([3], [layers.dense({ units: 4 }), new Block({ name: "block" }), norm()]);
    const files = await saved(model);
    // TensorFlow.js names the weights after the outer layer.
    const name = "block";
    expect(readKeras(files).layers.slice(1)).toEqual([name]);
    const result = await folded(files);
    expect(result.kept.at(-1)).toEqual({ name, reason: "the config does not list it" });
    const bn = readKeras(files).load(name, { epsilon: 1e-3 });
    const x = Float32Array.of(1, 2, 3, 4);
    const y = model.getLayer("block").apply(tf.tensor(x, [1, 4])) as tf.Tensor;
    for (const [c, value] of bn.infer(x).entries()) {
      expect(value).toBeCloseTo(y.dataSync()[c]!, 5);
    }
  });

  test("a layer in a wrapper of a wrapper, or in one that is not TimeDistributed", async () => {
    const twice = timed(timed(norm({ name: "inner" })));
    const all = [timed(timed(layers.dense({ units: 4 }))), twice];
    const files = await saved(stack([2, 3, 5], all));
    const { model, weights, kept } = await folded(files);
    expect(kept[0]).toEqual({ name: "inner", reason: "it is in a wrapper" });
    expect({ model, weights }).toEqual(files);
    const simple = await saved(stack([3, 5], [layers.dense({ units: 4 }), timed(norm())]));
    const other = simple.model.replace('"class_name":"TimeDistributed"', '"class_name":"Windowed"');
    expect(reasons(foldKeras({ ...simple, model: other }))).toEqual(["it is in a wrapper"]);
  });

  test("a layer called with options, calls as Keras 3 writes them, names in options", async () => {
    const all = [layers.dense({ units: 4, name: "dense" }), norm(), layers.reLU()];
    const { model, weights } = await saved(stack([5], all));
    const change = (edit: (items: { inbound_nodes: unknown }[]) => void) => {
      const json = JSON.parse(model);
      edit(json.modelTopology.config.layers);
      return reasons(foldKeras({ model: json, weights }))[0];
    };
    const call = (name: string, options: object) => [[[name, 0, 0, options]]];
    const training = change((items) => {
      items[2]!.inbound_nodes = call("dense", { training: true });
    });
    expect(training).toBe("it is called with options");
    const quiet = change((items) => {
      items[2]!.inbound_nodes = call("dense", { training: false, mask: null });
    });
    expect(quiet).toBeUndefined();
    const later = change((items) => {
      items[2]!.inbound_nodes = [{ args: [{ class_name: "__keras_tensor__" }], kwargs: {} }];
    });
    expect(later).toBe("the calls of layers are not as Keras 2 writes them");
    const named = change((items) => {
      items[3]!.inbound_nodes = call("bn", { initial: ["dense", 0, 0] });
    });
    const again = change((items) => {
      const [first] = items[1]!.inbound_nodes as unknown[];
      items[1]!.inbound_nodes = [first, first];
    });
    expect(again).toMatch(/^the output of "dense" is used 2 times; /);
    expect(named).toMatch(/^"dense" is named in the options of a call; /);
  });

  test("statistics that are none, weights that would leave float32", async () => {
    const dense = layers.dense({ units: 1, name: "dense" });
    const files = await saved(stack([2], [dense, norm({ name: "bn" })]), 1e6);
    const withFirst = (changes: Record<string, number>) => {
      const part0 = files.weights.part0!.slice();
      const numbers = numbersIn({ model: files.model, weights: { part0 } });
      for (const [name, value] of Object.entries(changes)) numbers[name]![0] = value;
      const all = new Uint8Array(Object.values(numbers)[0]!.buffer);
      return reasons(foldKeras({ model: files.model, weights: { part0: all } }))[0];
    };
    expect(withFirst({ "bn/moving_variance": -1 })).toMatch(
      /^"dense" before it: runningVariance: expected finite/,
    );
    expect(withFirst({ "bn/gamma": 1e38, "dense/kernel": 100 })).toMatch(
      /^"dense" before it: its weight would be too large for float32, or is not finite; /,
    );
    expect(withFirst({ "bn/gamma": 1 })).toBeUndefined();
  });
});

describe("the rest of the files", () => {
  test("names of layers that begin with that of a norm keep their weights", async () => {
    const all = [
      layers.dense({ units: 4, name: "block/dense" }),
      norm({ name: "block" }),
      layers.dense({ units: 4, name: "block/more" }),
    ];
    const result = await folded(await saved(stack([5], all)));
    expect(result.folded).toEqual(["block"]);
  });

  test("an optimizer's state is left out", async () => {
    const files = await saved(stack([5], [layers.dense({ units: 4 }), norm()]), 1e6);
    const json = JSON.parse(files.model);
    const [group] = json.weightsManifest;
    group.weights.push({ name: "iter", shape: [2], dtype: "float32", group: "optimizer" });
    const part0 = new Uint8Array(Buffer.concat([files.weights.part0!, Buffer.alloc(8)]));
    const result = foldKeras({ model: json, weights: { part0 } });
    expect(result.model).not.toContain("optimizer");
    expect(result).toEqual(foldKeras(files));
    // With nothing to fold it is the state of this model still.
    const plain = await saved(stack([5], [layers.dense({ units: 4 })]), 1e6);
    const other = JSON.parse(plain.model);
    other.weightsManifest[0].weights.push(group.weights.at(-1));
    const rest = new Uint8Array(Buffer.concat([plain.weights.part0!, Buffer.alloc(8)]));
    expect(foldKeras({ model: other, weights: { part0: rest } }).weights.part0).toEqual(rest);
  });

  test("files that nothing is left for are left out", async () => {
    const files = await saved(stack([5], [layers.dense({ units: 4 }), norm()]), 16);
    const result = await folded(files);
    const { paths } = JSON.parse(result.model).weightsManifest[0];
    expect(paths).toEqual(Object.keys(result.weights));
    expect(paths.length).toBeLessThan(Object.keys(files.weights).length);
    for (const path of paths.slice(0, -1)) expect(result.weights[path]!.length).toBe(16);
  });

  test("nothing to fold: the same files", async () => {
    const files = await saved(stack([5], [layers.dense({ units: 4 })]));
    expect(foldKeras(files)).toEqual({ ...files, folded: [], kept: [] });
  });

  test("graph models are refused, and what is no model", () => {
    const model = { modelTopology: { node: [] }, weightsManifest: [] };
    assertRefuses(StateError, /^model: expected a layers model, got a graph model/, () =>
      foldKeras({ model, weights: {} }),
    );
    expect(() => foldKeras({ model: "{", weights: {} })).toThrow(BatchNormError);
  });
});
