// The layer against what PyTorch and the ONNX package themselves gave: see tests/golden/README.md.

import { BatchNorm } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { assertWithin } from "./support/compare.js";
import {
  assertPass,
  type Channel,
  type Given,
  join,
  meanBound,
  type Passed,
  type Statistics,
  split,
  statisticsOf as statisticsOfChannel,
  varianceBound,
} from "./support/frameworks.js";
import {
  type ChannelsFirst,
  onnxCases,
  type Pass,
  type TorchCase,
  type TorchStep,
  torchCases,
  type UpdateBnCase,
  updateBnCases,
} from "./support/golden.js";

/**
 * PyTorch's float32 modules keep the mean in float32. That moves x - mean by a few roundings, of
 * 2^-24 = 6e-8 each, of the size of the data, and y, dx and dgamma with it. So their float32
 * results get, on top of our own bounds, this share of them times (size of the data) /
 * sqrt(variance + eps). In these files at most 0.28 of it is needed.
 */
const TORCH_SLACK = 0.5;

/** The float32 running mean, against the size of the data; at most 1.2e-7 in these files. */
const TORCH_MEAN_ERROR = 2.5e-7;

/**
 * The float32 running variance, relative; at most 1.1e-6 in these files, at mean 1e4 sigma, where
 * the mean is off by 1e-3 sigma and the variance by its square.
 */
const TORCH_VARIANCE_ERROR = 1.5e-6;

/**
 * The ONNX package works its node tests out in NumPy's float32, sums of 40 numbers included: a few
 * roundings of 6e-8 of numbers of the order of one.
 */
const ONNX_ERROR = 1e-6;

/**
 * Data of the order of one, twice through a layer: 5e-7 for y, the second layer's input, and 1e-6
 * for its variance. At most 1e-7 from float64 and 3e-7 from float32 in these files.
 */
const UPDATE_ERROR = 1e-6;

type Layout = ChannelsFirst | "NLC" | "NHWC" | "NDHWC";

const CHANNELS_LAST = { NC: "NC", NCL: "NLC", NCHW: "NHWC", NCDHW: "NDHWC" } as const;

/** A layer, and the layout that channels-first golden data is rearranged into for it. */
interface Subject {
  layer: BatchNorm;
  layout: Layout;
}

const SUBJECTS: Record<string, (golden: TorchCase) => Subject> = {
  "BatchNorm.torch": ({ channels, options, layout }) => ({
    layer: BatchNorm.torch(channels, { ...options, layout }),
    layout,
  }),
  "new BatchNorm": (golden) => inOwnWords(golden, golden.layout),
  "new BatchNorm, channels last": (golden) => inOwnWords(golden, CHANNELS_LAST[golden.layout]),
};

function inOwnWords({ channels, options }: TorchCase, layout: Layout): Subject {
  const { eps = 1e-5, momentum = 0.1, affine = true } = options;
  const layer = new BatchNorm(channels, {
    layout,
    epsilon: eps,
    decay: momentum === null ? "cumulative" : 1 - momentum,
    runningVarianceOf: "sample",
    gamma: affine,
    beta: affine,
  });
  return { layer, layout };
}

describe.each(torchCases())("PyTorch, $layout: $name", (golden) => {
  const epsilon = golden.options.eps ?? 1e-5;
  const ways = Object.keys(SUBJECTS).filter(
    (way) => !way.endsWith("channels last") || golden.layout !== "NC",
  );

  test.each(ways)("%s", (way) => {
    const subject = SUBJECTS[way](golden);
    const { layer } = subject;

    const seen: Statistics[][] = [];
    for (const step of golden.steps) {
      const statistics = statisticsOf(step);
      seen.push(statistics);
      comparePass(step, statistics, epsilon, run(subject, step, "batch"));
      compareLastBatch(layer, statistics);
      compareRunning(layer, step, seen);
    }

    const last = golden.steps.at(-1) as TorchStep;
    const statistics = runningOf(last);
    const before = layer.snapshot();
    const frozen = run(subject, golden.eval, "running");
    comparePass(golden.eval, statistics, epsilon, frozen);
    const y = unpack(layer.infer(...input(subject, golden.eval)), golden.eval, subject.layout);
    comparePass(golden.eval, statistics, epsilon, { ...frozen, y });

    learn(layer, last);
    expect(layer.snapshot(), "a frozen pass and infer move nothing").toEqual(before);
  });
});

describe.each(updateBnCases())("update_bn, $layout: $name", (golden) => {
  const { layout, channels, momentum, parameters, before, batches, layers } = golden;

  /** Batch norm, ReLU, batch norm. */
  function pass(
    network: readonly BatchNorm[],
    { x, shape }: UpdateBnCase["batches"][number],
  ): void {
    const hidden = network[0].train(x, { shape }).map((value) => Math.max(0, value));
    network[1].train(hidden, { shape });
  }

  test("cumulative averages from a reset on", () => {
    const network = parameters.map((given) => {
      const layer = BatchNorm.torch(channels, { momentum, layout });
      layer.gamma?.set(given.gamma);
      layer.beta?.set(given.beta);
      return layer;
    });
    for (const batch of before) pass(network, batch);

    const updated = network.map((layer) => {
      const copy = BatchNorm.torch(channels, { momentum: null, layout });
      copy.restore(layer.snapshot());
      copy.reset();
      return copy;
    });
    for (const batch of batches) pass(updated, batch);
    network.forEach((layer, i) => {
      layer.restore(updated[i].snapshot());
      const { float32, float64 } = layers[i];
      expect(layer.batchesSeen).toBe(golden.batchesTracked);
      expect(layer.decay).toBe(momentum === null ? "cumulative" : 1 - momentum);
      for (const torch of [float64, float32]) {
        for (const name of ["runningMean", "runningVariance"] as const) {
          const bounds = torch[name].map((value) => UPDATE_ERROR * Math.max(1, Math.abs(value)));
          assertWithin(`layer ${i} ${name}`, layer[name], torch[name], (c) => bounds[c]);
        }
      }
    });
  });
});

describe.each(onnxCases())("ONNX node test $name", (golden) => {
  const { name, attributes, shape, x, scale, bias, inputMean, inputVariance, expected } = golden;

  test("BatchNorm.onnx", () => {
    const { training_mode = 0, ...options } = attributes;
    const layer = BatchNorm.onnx(scale.length, { ...options, layout: "NCHW" });
    layer.gamma?.set(scale);
    layer.beta?.set(bias);
    layer.runningMean.set(inputMean);
    layer.runningVariance.set(inputVariance);

    const y = training_mode === 1 ? layer.train(x, { shape }) : layer.infer(x, { shape });
    assertWithin(`${name} y`, y, expected.y, onnxBound(expected.y));
    if (training_mode === 1) {
      const { outputMean, outputVariance } = expected as Required<typeof expected>;
      assertWithin("mean", layer.runningMean, outputMean, onnxBound(outputMean));
      assertWithin("variance", layer.runningVariance, outputVariance, onnxBound(outputVariance));
    }
  });
});

const onnxBound = (expected: Float64Array) => (i: number) =>
  ONNX_ERROR * Math.max(1, Math.abs(expected[i]));

// ---- one pass through a layer -----------------------------------------------------------------

/** What a layer gave, the tensors by channel. */
interface Results {
  y: number[][];
  dx: number[][];
  dgamma: ArrayLike<number> | null;
  dbeta: ArrayLike<number> | null;
}

function run(subject: Subject, pass: Pass, statistics: "batch" | "running"): Results {
  const { layer, layout } = subject;
  learn(layer, pass);
  const [x, { shape }] = input(subject, pass);
  const y = layer.train(x, { shape, statistics });
  const { dx, dgamma, dbeta } = layer.backward(pack(pass.dy, pass, layout));
  return { y: unpack(y, pass, layout), dx: unpack(dx, pass, layout), dgamma, dbeta };
}

function learn({ gamma, beta }: BatchNorm, pass: Pass): void {
  expect([gamma === null, beta === null]).toEqual([pass.gamma === null, pass.beta === null]);
  if (pass.gamma) gamma?.set(pass.gamma);
  if (pass.beta) beta?.set(pass.beta);
}

function input({ layout }: Subject, pass: Pass): [Float32Array, { shape: number[] }] {
  return [pack(pass.x, pass, layout), { shape: shapeIn(layout, pass) }];
}

function pack(tensor: Float32Array, pass: Pass, layout: Layout): Float32Array {
  return Float32Array.from(join(byChannel(tensor, pass), shapeIn(layout, pass), layout));
}

function unpack(tensor: Float32Array, pass: Pass, layout: Layout): number[][] {
  return split(tensor, shapeIn(layout, pass), layout);
}

/** Golden tensors are channels-first, of any rank: the channels are axis 1, as in "NC". */
function byChannel(tensor: ArrayLike<number>, { shape }: Pass): number[][] {
  return split(tensor, shape, "NC");
}

function shapeIn(layout: Layout, { shape: [n = 0, c = 0, ...spatial] }: Pass): number[] {
  return layout === "NC" || !layout.endsWith("C") ? [n, c, ...spatial] : [n, ...spatial, c];
}

// ---- comparisons ------------------------------------------------------------------------------

function statisticsOf(pass: Pass): Statistics[] {
  return byChannel(pass.x, pass).map(statisticsOfChannel);
}

function runningOf({ float64: { runningMean, runningVariance } }: TorchStep): Statistics[] {
  return Array.from(runningMean, (mean, c) => ({ mean, variance: runningVariance[c] }));
}

function comparePass(pass: Pass, statistics: Statistics[], epsilon: number, actual: Results): void {
  const [x, dy] = [byChannel(pass.x, pass), byChannel(pass.dy, pass)];
  for (const precision of ["float64", "float32"] as const) {
    const wanted = pass[precision];
    const expected = { ...wanted, y: byChannel(wanted.y, pass), dx: byChannel(wanted.dx, pass) };
    statistics.forEach((normalizer, c) => {
      const state = { gamma: pass.gamma?.[c] ?? 1, beta: pass.beta?.[c] ?? 0, ...normalizer };
      const given = { x: x[c], dy: dy[c], state, epsilon };
      const slack = precision === "float64" ? 1 : torchSlack(given);
      assertPass(`${precision}, channel ${c}`, of(actual, c), of(expected, c), given, slack);
    });
  }
}

/** One channel of a pass. */
function of({ y, dx, dgamma, dbeta }: Results, c: number): Passed {
  return { y: y[c], dx: dx[c], dgamma: dgamma?.[c] ?? null, dbeta: dbeta?.[c] ?? null };
}

function torchSlack({ x, state, epsilon }: Given): number {
  // Eval folds the running mean into one term, as large as the data or as that mean itself.
  const size = Math.hypot(rootMeanSquare(x), state.mean);
  return 1 + (TORCH_SLACK * size) / Math.sqrt(state.variance + epsilon);
}

const rootMeanSquare = (x: Channel) => Math.hypot(...x) / Math.sqrt(x.length);

function compareLastBatch({ lastBatch }: BatchNorm, statistics: Statistics[]): void {
  const means = statistics.map(({ mean }) => mean);
  const variances = statistics.map(({ variance }) => variance);
  const { mean = [], variance = [] } = lastBatch ?? {};
  assertWithin("batch mean", mean, means, (c) => meanBound(statistics[c]));
  assertWithin("batch variance", variance, variances, (c) => varianceBound(statistics[c]));
}

/** The averages weigh the mini-batches seen so far, and their errors with them. */
function compareRunning(layer: BatchNorm, step: TorchStep, seen: Statistics[][]): void {
  const { runningMean, runningVariance, batchesSeen } = layer;
  const largest = (size: (of: Statistics) => number) =>
    Array.from(runningMean, (_, c) => Math.max(...seen.map((batch) => size(batch[c]))));
  const { float64, float32 } = step;

  const meanBounds = largest(meanBound);
  const varianceBounds = runningOf(step).map(varianceBound);
  assertWithin("float64 running mean", runningMean, float64.runningMean, (c) => meanBounds[c]);
  assertWithin(
    "float64 running variance",
    runningVariance,
    float64.runningVariance,
    (c) => varianceBounds[c],
  );

  const size = largest(({ mean, variance }) => Math.sqrt(mean ** 2 + variance));
  const torchMean = (c: number) => meanBounds[c] + TORCH_MEAN_ERROR * size[c];
  const torchVariance = (c: number) =>
    varianceBounds[c] + TORCH_VARIANCE_ERROR * float32.runningVariance[c];
  assertWithin("float32 running mean", runningMean, float32.runningMean, torchMean);
  assertWithin("float32 running variance", runningVariance, float32.runningVariance, torchVariance);

  expect(batchesSeen).toBe(step.batchesTracked);
}
