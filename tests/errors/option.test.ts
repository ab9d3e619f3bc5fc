// OptionError: options of layers, of the factories and of kernels.

import { BatchNorm, Kernels, OptionError } from "batchnorm-wasm";
import { describe } from "vitest";
import { wrong } from "../support/refuse.js";
import { refuses } from "./rows.js";

const OF_A_LAYER =
  "layout, epsilon, decay, debias, runningVarianceOf, gamma, beta, activation, renorm, kernels";
const LAYOUTS =
  '"NC", "NCL", "NCHW", "NCDHW", "channelsFirst", "NLC", "NHWC", "NDHWC", "channelsLast"';

const layerWith = (options: object) => () => new BatchNorm(3, options);

describe("channels", () => {
  refuses(OptionError, "OPTION", [
    {
      name: "no channels",
      message: "channels: expected a whole number from 1 to 2^30, got 0",
      call: () => new BatchNorm(0),
    },
    {
      name: "negative channels",
      message: "channels: expected a whole number from 1 to 2^30, got -1",
      call: () => new BatchNorm(-1),
    },
    {
      name: "half a channel",
      message: "channels: expected a whole number from 1 to 2^30, got 1.5",
      call: () => new BatchNorm(1.5),
    },
    {
      name: "channels NaN",
      message: "channels: expected a whole number from 1 to 2^30, got NaN",
      call: () => new BatchNorm(Number.NaN),
    },
    {
      name: "infinite channels",
      message: "channels: expected a whole number from 1 to 2^30, got Infinity",
      call: () => new BatchNorm(Infinity),
    },
    {
      name: "too many channels",
      message: "channels: expected a whole number from 1 to 2^30, got 2147483648",
      call: () => new BatchNorm(2 ** 31),
    },
    {
      name: "channels of text",
      message: 'channels: expected a whole number from 1 to 2^30, got "3"',
      call: () => new BatchNorm(wrong("3")),
    },
    {
      name: "channels left out",
      message: "channels: expected a whole number from 1 to 2^30, got undefined",
      call: () => new BatchNorm(wrong(undefined)),
    },
    {
      name: "channels null",
      message: "channels: expected a whole number from 1 to 2^30, got null",
      call: () => new BatchNorm(wrong(null)),
    },
    {
      name: "a bigint",
      message: "channels: expected a whole number from 1 to 2^30, got 3n",
      call: () => new BatchNorm(wrong(3n)),
    },
  ]);
});

describe("options of a layer", () => {
  refuses(OptionError, "OPTION", [
    {
      name: "options null",
      message:
        "options: expected an object { layout, epsilon, decay, debias, runningVarianceOf, gamma, beta, activation, renorm, kernels }, got null",
      call: () => new BatchNorm(3, wrong(null)),
    },
    {
      name: "a number for options",
      message:
        "options: expected an object { layout, epsilon, decay, debias, runningVarianceOf, gamma, beta, activation, renorm, kernels }, got 5",
      call: () => new BatchNorm(3, wrong(5)),
    },
    {
      name: "a mistyped option",
      message: `epsilom: expected an option among ${OF_A_LAYER}, got "epsilom"`,
      call: layerWith({ epsilom: 1e-3 }),
    },
    {
      name: "torch's name",
      message: 'eps: expected epsilon, got "eps"',
      call: layerWith({ eps: 1e-3 }),
    },
    {
      name: "momentum",
      message:
        'momentum: expected decay (1 - momentum in PyTorch), or a factory such as BatchNorm.torch, got "momentum"',
      call: layerWith({ momentum: 0.9 }),
    },
    {
      name: "an option that is undefined",
      message: 'eps: expected epsilon, got "eps"',
      call: layerWith({ eps: undefined }),
    },
    {
      name: "an unknown layout",
      message: `layout: expected one of ${LAYOUTS}, got "NWC"`,
      call: layerWith({ layout: "NWC" }),
    },
    {
      name: "layout null",
      message: `layout: expected one of ${LAYOUTS}, got null`,
      call: layerWith({ layout: null }),
    },
    {
      name: "a layout in small letters",
      message: `layout: expected one of ${LAYOUTS}, got "nchw"`,
      call: layerWith({ layout: "nchw" }),
    },
    {
      name: "epsilon below 0",
      message: "epsilon: expected a finite number >= 0, got -1",
      call: layerWith({ epsilon: -1 }),
    },
    {
      name: "epsilon NaN",
      message: "epsilon: expected a finite number >= 0, got NaN",
      call: layerWith({ epsilon: Number.NaN }),
    },
    {
      name: "epsilon infinite",
      message: "epsilon: expected a finite number >= 0, got Infinity",
      call: layerWith({ epsilon: Infinity }),
    },
    {
      name: "epsilon of text",
      message: 'epsilon: expected a finite number >= 0, got "1"',
      call: layerWith({ epsilon: "1" }),
    },
    {
      name: "epsilon null",
      message: "epsilon: expected a finite number >= 0, got null",
      call: layerWith({ epsilon: null }),
    },
    {
      name: "decay 1",
      message: 'decay: expected 0 <= decay < 1 or "cumulative", got 1',
      call: layerWith({ decay: 1 }),
    },
    {
      name: "decay below 0",
      message: 'decay: expected 0 <= decay < 1 or "cumulative", got -0.1',
      call: layerWith({ decay: -0.1 }),
    },
    {
      name: "decay NaN",
      message: 'decay: expected 0 <= decay < 1 or "cumulative", got NaN',
      call: layerWith({ decay: Number.NaN }),
    },
    {
      name: "decay null",
      message: 'decay: expected 0 <= decay < 1 or "cumulative", got null',
      call: layerWith({ decay: null }),
    },
    {
      name: "decay of other text",
      message: 'decay: expected 0 <= decay < 1 or "cumulative", got "none"',
      call: layerWith({ decay: "none" }),
    },
    {
      name: "debias 1",
      message: "debias: expected true or false, got 1",
      call: layerWith({ debias: 1 }),
    },
    {
      name: "debias null",
      message: "debias: expected true or false, got null",
      call: layerWith({ debias: null }),
    },
    {
      name: "debias of text",
      message: 'debias: expected true or false, got "true"',
      call: layerWith({ debias: "true" }),
    },
    {
      name: "an unknown variance",
      message: 'runningVarianceOf: expected one of "sample", "population", got "biased"',
      call: layerWith({ runningVarianceOf: "biased" }),
    },
    {
      name: "gamma 0",
      message: "gamma: expected true or false, got 0",
      call: layerWith({ gamma: 0 }),
    },
    {
      name: "gamma itself",
      message: "gamma: expected true or false, got a Float32Array of length 3",
      call: layerWith({ gamma: new Float32Array(3) }),
    },
    {
      name: "beta null",
      message: "beta: expected true or false, got null",
      call: layerWith({ beta: null }),
    },
    {
      name: "kernels null",
      message: "kernels: expected a Kernels, got null",
      call: layerWith({ kernels: null }),
    },
    {
      name: "kernels of another kind",
      message: "kernels: expected a Kernels, got an Object",
      call: layerWith({ kernels: {} }),
    },
    {
      name: "an object that looks like kernels inside",
      message: "kernels: expected a Kernels, got an Object",
      call: layerWith({ kernels: { machine: { wasm: 1 } } }),
    },
    {
      name: "a frozen layer",
      message: 'kernels: expected a Kernels, got FrozenBatchNorm(1, { layout: "NC" })',
      call: layerWith({ kernels: new BatchNorm(1).freeze() }),
    },
    {
      name: "the class itself",
      message: "kernels: expected a Kernels, got a function",
      call: layerWith({ kernels: Kernels }),
    },
  ]);
});

describe("options by the names of other packages", () => {
  const OURS: Readonly<Record<string, string>> = {
    axis: "layout",
    eps: "epsilon",
    affine: "gamma and beta",
    scale: "gamma",
    center: "beta",
    use_scale: "gamma",
    useScale: "gamma",
    use_bias: "beta",
    useBias: "beta",
    track_running_stats: "train with { updateRunning }",
    trackRunningStats: "train with { updateRunning }",
    training_mode: "train or infer",
    trainingMode: "train or infer",
  };
  refuses(
    OptionError,
    "OPTION",
    Object.entries(OURS).map(([name, ours]) => ({
      name,
      message: `${name}: expected ${ours}, got "${name}"`,
      call: layerWith({ [name]: false }),
    })),
  );
  refuses(
    OptionError,
    "OPTION",
    ["constructor", "__proto", "toString"].map((name) => ({
      name,
      message: `${name}: expected an option among ${OF_A_LAYER}, got "${name}"`,
      call: layerWith({ [name]: false }),
    })),
  );
});

describe("options of the factories", () => {
  refuses(OptionError, "OPTION", [
    {
      name: "torch: keras' name",
      message:
        'epsilon: expected an option among eps, momentum, affine, layout, kernels, got "epsilon"',
      call: () => BatchNorm.torch(3, wrong({ epsilon: 1e-3 })),
    },
    {
      name: "torch: options null",
      message: "options: expected an object { eps, momentum, affine, layout, kernels }, got null",
      call: () => BatchNorm.torch(3, wrong(null)),
    },
    {
      name: "torch: a layout it lacks",
      message: 'layout: expected one of "NC", "NCL", "NCHW", "NCDHW", "channelsFirst", got "NHWC"',
      call: () => BatchNorm.torch(3, { layout: "NHWC" }),
    },
    {
      name: "keras: our name",
      message:
        'decay: expected an option among epsilon, momentum, scale, center, layout, kernels, got "decay"',
      call: () => BatchNorm.keras(3, wrong({ decay: 0.9 })),
    },
    {
      name: "onnx: affine",
      message: 'affine: expected an option among epsilon, momentum, layout, kernels, got "affine"',
      call: () => BatchNorm.onnx(3, wrong({ affine: false })),
    },
    {
      name: "torch: track_running_stats",
      message:
        'track_running_stats: expected train with { updateRunning }, got "track_running_stats"',
      call: () => BatchNorm.torch(3, wrong({ track_running_stats: false })),
    },
    {
      name: "keras: axis",
      message: 'axis: expected layout, got "axis"',
      call: () => BatchNorm.keras(3, wrong({ axis: 1 })),
    },
    {
      name: "onnx: training_mode",
      message: 'training_mode: expected train or infer, got "training_mode"',
      call: () => BatchNorm.onnx(3, wrong({ training_mode: 1 })),
    },
    {
      name: "flax: use_scale",
      message:
        'use_scale: expected an option among epsilon, momentum, useScale, useBias, layout, kernels, got "use_scale"',
      call: () => BatchNorm.flax(3, wrong({ use_scale: false })),
    },
  ]);
});

describe("kernels", () => {
  refuses(OptionError, "OPTION", [
    {
      name: "Kernels: no memory",
      message: "memory: expected 1048576 to 4294967296 bytes, got 0",
      call: () => new Kernels({ memory: 0 }),
    },
    {
      name: "Kernels: a byte too little",
      message: "memory: expected 1048576 to 4294967296 bytes, got 1048575",
      call: () => new Kernels({ memory: (1 << 20) - 1 }),
    },
    {
      name: "Kernels: too much",
      message: "memory: expected 1048576 to 4294967296 bytes, got 4294967297",
      call: () => new Kernels({ memory: 2 ** 32 + 1 }),
    },
    {
      name: "Kernels: memory NaN",
      message: "memory: expected 1048576 to 4294967296 bytes, got NaN",
      call: () => new Kernels({ memory: Number.NaN }),
    },
    {
      name: "Kernels: memory of text",
      message: 'memory: expected 1048576 to 4294967296 bytes, got "16 MB"',
      call: () => new Kernels({ memory: wrong("16 MB") }),
    },
    {
      name: "Kernels: memory null",
      message: "memory: expected 1048576 to 4294967296 bytes, got null",
      call: () => new Kernels({ memory: wrong(null) }),
    },
    {
      name: "Kernels: half a byte",
      message: "memory: expected 1048576 to 4294967296 bytes, got 1048576.5",
      call: () => new Kernels({ memory: 1048576.5 }),
    },
    {
      name: "Kernels: a typo",
      message: 'bytes: expected an option among memory, got "bytes"',
      call: () => new Kernels(wrong({ bytes: 1 << 20 })),
    },
    {
      name: "Kernels: options null",
      message: "options: expected an object { memory }, got null",
      call: () => new Kernels(wrong(null)),
    },
    {
      name: "Kernels: a number for options",
      message: "options: expected an object { memory }, got 1048576",
      call: () => new Kernels(wrong(1 << 20)),
    },
    {
      name: "alloc: below 0",
      message: "length: expected a whole number of values >= 0, got -1",
      call: ({ kernels }) => kernels.alloc(-1),
    },
    {
      name: "alloc: half a value",
      message: "length: expected a whole number of values >= 0, got 1.5",
      call: ({ kernels }) => kernels.alloc(1.5),
    },
    {
      name: "alloc: NaN",
      message: "length: expected a whole number of values >= 0, got NaN",
      call: ({ kernels }) => kernels.alloc(Number.NaN),
    },
    {
      name: "alloc: nothing",
      message: "length: expected a whole number of values >= 0, got undefined",
      call: ({ kernels }) => kernels.alloc(wrong(undefined)),
    },
    {
      name: "alloc: a shape",
      message: "length: expected a whole number of values >= 0, got an Array of length 2",
      call: ({ kernels }) => kernels.alloc(wrong([4, 3])),
    },
  ]);
});
