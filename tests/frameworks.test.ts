// The factories BatchNorm.torch, .keras, .onnx and .flax: each framework's names, defaults and
// conventions, over random trajectories, against its own formulas (tests/support/frameworks.ts).

import { BatchNorm, OptionError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assertWithin } from "./support/compare.js";
import {
  assertPass,
  type Channel,
  expectedOf,
  flaxStep,
  join,
  kerasStep,
  meanBound,
  onnxStep,
  type Passed,
  type State,
  type Statistics,
  type Step,
  split,
  statisticsOf,
  torchStep,
  varianceBound,
} from "./support/frameworks.js";

type Layout = "NC" | "NCL" | "NCHW" | "NCDHW" | "NLC" | "NHWC" | "NDHWC";
type Options = Record<string, unknown>;

/** A framework: how our layer of it is made, and what it computes, in its own names. */
interface Framework {
  make(channels: number, options?: Options): BatchNorm;
  layouts: Layout[];
  /** Options at random, each left out now and then so that the defaults take part. */
  options: fc.Arbitrary<Options>;
  /** The names of "there is a gamma" and "there is a beta" among the options. */
  parameters: { gamma: string | null; beta: string | null };
  epsilon(options: Options): number;
  step: Step<Options>;
  /** The momentum under which the running averages would never move. */
  stuck: number;
}

const CHANNELS_FIRST: Layout[] = ["NC", "NCL", "NCHW", "NCDHW"];
/** Keras and Flax name an axis: the last one by default, or any other. */
const ANY: Layout[] = [...CHANNELS_FIRST, "NLC", "NHWC", "NDHWC"];

const anyEpsilon = fc.constantFrom(1e-12, 1e-7, 1e-5, 1e-3, 0.1, 1);
/** The weight of the old value: 0 keeps only the latest batch, 1 would never move. */
const anyDecay = fc.oneof(
  fc.constantFrom(0, 0.5, 0.9, 0.999),
  fc.double({ min: 0, max: 0.9999, noNaN: true }),
);
const optional = { requiredKeys: [] };

const FRAMEWORKS: Record<string, Framework> = {
  torch: {
    make: (channels, options) => BatchNorm.torch(channels, options),
    layouts: CHANNELS_FIRST,
    options: fc.record(
      {
        eps: anyEpsilon,
        momentum: fc.oneof(
          fc.constant(null),
          anyDecay.map((decay) => 1 - decay),
        ),
        affine: fc.boolean(),
      },
      optional,
    ),
    parameters: { gamma: "affine", beta: "affine" },
    epsilon: ({ eps = 1e-5 }) => eps as number,
    step: torchStep,
    stuck: 0,
  },
  keras: {
    make: (channels, options) => BatchNorm.keras(channels, options),
    layouts: ANY,
    options: fc.record(
      { epsilon: anyEpsilon, momentum: anyDecay, scale: fc.boolean(), center: fc.boolean() },
      optional,
    ),
    parameters: { gamma: "scale", beta: "center" },
    epsilon: ({ epsilon = 1e-3 }) => epsilon as number,
    step: kerasStep,
    stuck: 1,
  },
  onnx: {
    make: (channels, options) => BatchNorm.onnx(channels, options),
    layouts: CHANNELS_FIRST,
    options: fc.record({ epsilon: anyEpsilon, momentum: anyDecay }, optional),
    parameters: { gamma: null, beta: null },
    epsilon: ({ epsilon = 1e-5 }) => epsilon as number,
    step: onnxStep,
    stuck: 1,
  },
  flax: {
    make: (channels, options) => BatchNorm.flax(channels, options),
    layouts: ANY,
    options: fc.record(
      { epsilon: anyEpsilon, momentum: anyDecay, useScale: fc.boolean(), useBias: fc.boolean() },
      optional,
    ),
    parameters: { gamma: "useScale", beta: "useBias" },
    epsilon: ({ epsilon = 1e-5 }) => epsilon as number,
    step: flaxStep,
    stuck: 1,
  },
};

const names = Object.keys(FRAMEWORKS);

describe.each(names)("BatchNorm.%s", (name) => {
  const framework = FRAMEWORKS[name];

  test("random trajectories are the framework's", () => {
    fc.assert(
      fc.property(trajectories(framework), (t) => follow(framework, t)),
      { numRuns: 150 },
    );
  });

  test("a trajectory by the defaults is the framework's, in every layout", () => {
    for (const layout of framework.layouts) {
      const shape = [3, ...[2, 5, 3].slice(0, layout.length - 2)];
      shape.splice(layout.indexOf("C"), 0, 5);
      follow(framework, { layout, shape, options: {}, offset: 1, batches: 6, seed: 7 });
    }
  });
});

// ---- random trajectories ----------------------------------------------------------------------

interface Trajectory {
  layout: Layout;
  shape: number[];
  options: Options;
  /** |mean| / sigma of the data. */
  offset: number;
  batches: number;
  seed: number;
}

function trajectories({ layouts, options }: Framework): fc.Arbitrary<Trajectory> {
  return fc
    .record({
      layout: fc.constantFrom(...layouts),
      channels: fc.integer({ min: 1, max: 21 }),
      examples: fc.integer({ min: 1, max: 6 }),
      spatial: fc.tuple(...[3, 4, 7].map((max) => fc.integer({ min: 1, max }))),
      options,
      offset: fc.constantFrom(0, 1, 100, 1e4),
      batches: fc.integer({ min: 5, max: 7 }),
      seed: fc.integer(),
    })
    .map(({ channels, examples, spatial, ...rest }) => {
      const shape = [examples, ...spatial.slice(0, rest.layout.length - 2)];
      shape.splice(rest.layout.indexOf("C"), 0, channels);
      return { ...rest, shape };
    })
    .filter(({ shape, layout }) => product(shape) / shape[layout.indexOf("C")] >= 2);
}

const product = (factors: number[]): number => factors.reduce((a, b) => a * b, 1);

/** Numbers of a normal distribution (Box-Muller) from a seeded generator (mulberry32). */
function normals(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Trains our layer and the framework's formulas side by side; throws where they part. */
function follow(framework: Framework, trajectory: Trajectory): void {
  const { layout, shape, options, batches } = trajectory;
  const data = dataOf(trajectory);
  const layer = framework.make(data.channels, { ...options, layout });
  const epsilon = framework.epsilon(options);
  const { gamma, beta } = framework.parameters;
  expect(layer.gamma === null, "gamma left out").toBe(gamma !== null && options[gamma] === false);
  expect(layer.beta === null, "beta left out").toBe(beta !== null && options[beta] === false);

  const states = data.each((): State => ({ gamma: 1, beta: 0, mean: 0, variance: 1 }));
  const seen: Statistics[][] = [];

  for (let batch = 1; batch <= batches; batch++) {
    for (const [c, state] of states.entries()) {
      if (layer.gamma) state.gamma = layer.gamma[c] = data.parameter();
      if (layer.beta) state.beta = layer.beta[c] = data.parameter();
    }
    const [x, dy] = [data.x(), data.dy()];
    const actual = run(layer, x, dy, trajectory, "batch");
    const own = x.map(statisticsOf);
    seen.push(own);

    for (const [c, state] of states.entries()) {
      const what = `batch ${batch}, channel ${c}`;
      const given = { x: x[c], dy: dy[c], state: { ...state, ...own[c] }, epsilon };
      assertPass(what, actual[c], withParameters(layer, expectedOf(given, false)), given);
      Object.assign(state, framework.step(x[c], state, options, batch));
      compareRunning(what, layer, c, state, seen);
    }
    expect(layer.batchesSeen).toBe(batch);
  }

  const [x, dy] = [data.x(), data.dy()];
  const actual = run(layer, x, dy, trajectory, "running");
  const inferred = split(layer.infer(pack(x, trajectory), { shape }), shape, layout);
  for (const [c, state] of states.entries()) {
    const given = { x: x[c], dy: dy[c], state, epsilon };
    const expected = withParameters(layer, expectedOf(given, true));
    assertPass(`frozen, channel ${c}`, actual[c], expected, given);
    assertPass(`infer, channel ${c}`, { ...actual[c], y: inferred[c] }, expected, given);
  }
  expect(layer.batchesSeen).toBe(batches);
}

/** Seeded data of a trajectory: float32 values by channel. */
function dataOf({ layout, shape, offset, seed }: Trajectory) {
  const normal = normals(seed);
  const channels = shape[layout.indexOf("C")];
  const count = product(shape) / channels;
  const each = <T>(f: (c: number) => T) => Array.from({ length: channels }, (_, c) => f(c));
  const values = (f: () => number) => Array.from({ length: count }, () => Math.fround(f()));
  const sigma = each(() => Math.exp(normal()));
  const mean = sigma.map((s, c) => (c % 2 === 0 ? s : -s) * offset);
  return {
    channels,
    each,
    x: () => each((c) => values(() => mean[c] + sigma[c] * normal())),
    dy: () => each(() => values(normal)),
    parameter: () => Math.fround(2 * normal()),
  };
}

function pack(values: Channel[], { shape, layout }: Trajectory): Float32Array {
  return Float32Array.from(join(values, shape, layout));
}

/** Forward and backward through our layer, by channel. */
function run(
  layer: BatchNorm,
  x: Channel[],
  dy: Channel[],
  trajectory: Trajectory,
  statistics: "batch" | "running",
): Passed[] {
  const { shape, layout } = trajectory;
  const y = split(layer.train(pack(x, trajectory), { shape, statistics }), shape, layout);
  const { dgamma, dbeta, ...gradient } = layer.backward(pack(dy, trajectory));
  const dx = split(gradient.dx, shape, layout);
  return y.map((_, c) => ({
    y: y[c],
    dx: dx[c],
    dgamma: dgamma?.[c] ?? null,
    dbeta: dbeta?.[c] ?? null,
  }));
}

/** A layer without gamma or beta gives no gradient for it. */
function withParameters({ gamma, beta }: BatchNorm, { dgamma, dbeta, ...rest }: Passed): Passed {
  return { ...rest, dgamma: gamma && dgamma, dbeta: beta && dbeta };
}

/** The averages weigh the mini-batches seen so far, and their errors with them. */
function compareRunning(
  what: string,
  { runningMean, runningVariance }: BatchNorm,
  c: number,
  { mean, variance }: Statistics,
  seen: Statistics[][],
): void {
  const worst = Math.max(...seen.map((batch) => meanBound(batch[c])));
  assertWithin(`${what}: running mean`, [runningMean[c]], [mean], () => worst);
  // And float64 rounds by the average from before, of which a tiny momentum keeps less than that.
  const before = Math.max(1, ...seen.map((batch) => batch[c].variance));
  const bound = varianceBound({ mean, variance }) + 2 * Number.EPSILON * before;
  assertWithin(`${what}: running variance`, [runningVariance[c]], [variance], () => bound);
}

// ---- conventions, by hand ---------------------------------------------------------------------

describe("what each framework means, worked out by hand", () => {
  // One channel, the values 0 and 4: mean 2, variance 4 of the population, 8 of the sample.
  const x = Float32Array.of(0, 4);

  test.each([
    ["torch", { mean: 0.1 * 2, variance: 0.9 + 0.1 * 8, epsilon: 1e-5 }],
    ["keras", { mean: 0.01 * 2, variance: 0.99 + 0.01 * 4, epsilon: 1e-3 }],
    ["onnx", { mean: 0.1 * 2, variance: 0.9 + 0.1 * 4, epsilon: 1e-5 }],
    ["flax", { mean: 0.01 * 2, variance: 0.99 + 0.01 * 4, epsilon: 1e-5 }],
  ])("defaults of %s", (name, { mean, variance, epsilon }) => {
    const layer = FRAMEWORKS[name].make(1);
    const y = layer.train(x);
    expect(layer.runningMean[0]).toBeCloseTo(mean, 14);
    expect(layer.runningVariance[0]).toBeCloseTo(variance, 14);
    expect(y[1]).toBeCloseTo(2 / Math.sqrt(4 + epsilon), 6);
    expect([layer.gamma, layer.beta]).toEqual([Float32Array.of(1), Float32Array.of(0)]);
  });

  test("momentum 0.75 weighs the new value in PyTorch, the old value elsewhere", () => {
    const meanAfter = (name: string) => {
      const layer = FRAMEWORKS[name].make(1, { momentum: 0.75 });
      layer.train(x);
      return layer.runningMean[0];
    };
    expect(names.map(meanAfter)).toEqual([1.5, 0.5, 0.5, 0.5]);
  });

  test("momentum null is PyTorch's plain average over all mini-batches", () => {
    const layer = BatchNorm.torch(1, { momentum: null });
    for (const shift of [0, 1, 5]) layer.train(x.map((value) => value + shift));
    expect(layer.runningMean[0]).toBeCloseTo(2 + (0 + 1 + 5) / 3, 13);
    expect(layer.runningVariance[0]).toBeCloseTo(8, 13);
  });
});

// ---- options ----------------------------------------------------------------------------------

const messageOf = (make: () => unknown): string => {
  try {
    make();
  } catch (error) {
    expect(error).toBeInstanceOf(OptionError);
    return (error as Error).message;
  }
  throw new Error("expected an OptionError, nothing was thrown");
};

describe.each(names)("options of BatchNorm.%s", (name) => {
  const { make, layouts, parameters, stuck } = FRAMEWORKS[name];
  const epsilon = name === "torch" ? "eps" : "epsilon";
  const booleans = [...new Set([parameters.gamma, parameters.beta])].filter((p) => p !== null);

  test("a momentum that would never move anything names the way to say so", () => {
    const message = messageOf(() => make(3, { momentum: stuck }));
    expect(message).toContain("momentum");
    expect(message).toContain("updateRunning: false");
  });

  test("the other end of momentum is allowed: only the latest batch counts", () => {
    const layer = make(1, { momentum: 1 - stuck });
    layer.train(Float32Array.of(1, 2));
    layer.train(Float32Array.of(5, 7));
    expect(layer.runningMean[0]).toBe(6);
  });

  test("what is out of range is refused by name", () => {
    const notNumbers = [Number.NaN, Number.POSITIVE_INFINITY, "0.1", {}];
    const momenta = [-0.1, 1.1, ...notNumbers, ...(name === "torch" ? [] : [null])];
    for (const momentum of momenta) {
      expect(messageOf(() => make(3, { momentum }))).toContain("momentum");
    }
    for (const value of [-1e-9, ...notNumbers, null]) {
      expect(messageOf(() => make(3, { [epsilon]: value }))).toContain(epsilon);
    }
    const foreign = ANY.filter((layout) => !layouts.includes(layout));
    for (const layout of ["CN", "nchw", "", null, 3, ...foreign]) {
      expect(messageOf(() => make(3, { layout }))).toContain("layout");
    }
    for (const parameter of booleans) {
      expect(messageOf(() => make(3, { [parameter]: "yes" }))).toContain(parameter);
    }
    for (const channels of [0, -1, 2.5, Number.NaN, "3"]) {
      expect(messageOf(() => make(channels as number))).toContain("channels");
    }
  });

  test("another framework's names are refused by name", () => {
    const known = ["momentum", "layout", epsilon, ...booleans];
    const others = ["eps", "epsilon", "decay", "affine", "scale", "center", "useScale", "axis"];
    const unknown = others.filter((option) => !known.includes(option));
    expect(unknown.length).toBeGreaterThanOrEqual(5);
    for (const option of unknown) {
      expect(messageOf(() => make(3, { [option]: 1 }))).toMatch(new RegExp(`\\b${option}\\b`));
    }
  });
});

test("the limit that the error about PyTorch's momentum names is the least that is refused", () => {
  const limit = 2 ** -54;
  for (const momentum of [1e-17, limit]) {
    const message = messageOf(() => BatchNorm.torch(1, { momentum }));
    expect(message).toContain(`expected 2^-54 < momentum <= 1 or null`);
    expect(message).toContain(`got ${momentum}`);
  }
  const least = limit * (1 + 2 ** -52);
  const bn = BatchNorm.torch(1, { momentum: least });
  bn.train(Float32Array.of(1, 3));
  expect(bn.runningMean[0]).toBe(2 * least);
});

test("a PyTorch momentum too small to move anything is told apart by its name, too", () => {
  const message = messageOf(() => BatchNorm.torch(3, { momentum: 1e-20 }));
  expect(message).toContain("momentum");
  expect(message).toContain("updateRunning: false");
});
