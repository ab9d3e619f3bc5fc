// `calibrate` against PreciseBN in float64 (Wu & Johnson 2021, section 3).

import { BatchNorm, calibrate, NonFiniteError, OptionError, StateError } from "batchnorm-wasm";
import { describe, expect, it } from "vitest";
import { normal } from "./support/data.js";
import { moments, standardize } from "./support/oracle.js";

const C = 3;
const SIZES = [40, 7, 64, 2];
const BATCHES = SIZES.map((m, i) => normal(m * C, i + 1, 3 * i, 1 + i));

/** Two layers with a tanh between them: what the first puts out goes into the second. */
const network = (layers: readonly BatchNorm[]) => (x: Float32Array) =>
  layers[1]!.train(layers[0]!.train(x).map(Math.tanh));

const twoLayers = (options = {}) => {
  const layers = [new BatchNorm(C, options), new BatchNorm(C, options)];
  layers.forEach((layer, i) => {
    for (let step = 0; step < 3; step++) layer.train(normal(20 * C, 50 + i + step, 1, 2));
  });
  return layers;
};

/** The inputs of both layers in float64, each batch normalized by itself. */
function inputs(epsilon: number): [number[], number[]] {
  const all: [number[], number[]] = [[], []];
  for (const batch of BATCHES) {
    const view = { outer: batch.length / C, channels: C, inner: 1 };
    const { mean, variance } = moments(batch, view);
    all[0].push(...batch);
    all[1].push(...standardize(batch, view, mean, variance, epsilon).map(Math.tanh));
  }
  return all;
}

const state = (layers: readonly BatchNorm[]) =>
  layers.map((layer) => ({ snapshot: layer.snapshot(), last: layer.lastBatch }));

describe.each(["sample", "population"] as const)("variances of the %s", (runningVarianceOf) => {
  it("are those of all data, each batch normalized by itself", async () => {
    const layers = twoLayers({ runningVarianceOf });
    layers[1]!.batchesSeen = 1000; // more than will be gathered
    const before = layers.map((layer) => layer.snapshot());
    const report = await calibrate(layers, network(layers), BATCHES);
    const count = SIZES.reduce((a, b) => a + b);
    inputs(layers[0]!.epsilon).forEach((values, i) => {
      const exact = moments(values, { outer: count, channels: C, inner: 1 });
      const correction = runningVarianceOf === "sample" ? count / (count - 1) : 1;
      const layer = layers[i]!;
      const { before: was, after, meanDrift, varianceRatio, moments: kept } = report.layers[i]!;
      for (let c = 0; c < C; c++) {
        const variance = exact.variance[c]! * correction;
        const sigma = Math.sqrt(variance);
        expect(Math.abs(layer.runningMean[c]! - exact.mean[c]!) / sigma).toBeLessThan(1e-6);
        expect(Math.abs(layer.runningVariance[c]! / variance - 1)).toBeLessThan(1e-6);
        const root = Math.sqrt(variance + layer.epsilon);
        expect(meanDrift[c]).toBeCloseTo((was.mean[c]! - exact.mean[c]!) / root, 5);
        const ratio = (was.variance[c]! + layer.epsilon) / (variance + layer.epsilon);
        expect(varianceRatio[c]! / ratio).toBeCloseTo(1, 5);
      }
      expect([...was.mean]).toEqual(before[i]!.runningMean);
      expect([...was.variance]).toEqual(before[i]!.runningVariance);
      expect(after).toEqual({ mean: layer.runningMean, variance: layer.runningVariance });
      expect(kept.count).toBe(count);
      expect(layer.batchesSeen).toBe(BATCHES.length);
    });
    expect([report.batches, report.examples]).toEqual([BATCHES.length, count]);
  });
});

describe("batches", () => {
  async function* asynchronous() {
    for (const batch of BATCHES) yield batch;
  }
  const promises = BATCHES.map((batch) => Promise.resolve(batch));
  it.each([
    ["a set", () => new Set(BATCHES)],
    ["a generator", () => BATCHES.values()],
    ["an async generator", asynchronous],
    ["promises", () => promises],
  ])("%s, with an async forward", async (_name, batches) => {
    const expected = twoLayers();
    await calibrate(expected, network(expected), BATCHES);
    const layers = twoLayers();
    const forward = network(layers);
    await calibrate(
      layers,
      async (x: Float32Array) => {
        await Promise.resolve();
        forward(x);
      },
      batches(),
    );
    expect(layers.map((layer) => layer.snapshot())).toEqual(
      expected.map((layer) => layer.snapshot()),
    );
  });

  it("are counted for onProgress", async () => {
    const layers = twoLayers();
    const seen: unknown[] = [];
    const onProgress = (progress: object) => seen.push({ ...progress });
    await calibrate(layers, network(layers), BATCHES, { onProgress });
    await calibrate(layers, network(layers), BATCHES.slice(0, 1).values(), { onProgress });
    expect(seen).toEqual([
      { batches: 1, examples: 40, total: 4 },
      { batches: 2, examples: 47, total: 4 },
      { batches: 3, examples: 111, total: 4 },
      { batches: 4, examples: 113, total: 4 },
      { batches: 1, examples: 40, total: undefined },
    ]);
  });

  it("wait for an onProgress that takes its time", async () => {
    const layers = twoLayers();
    const forward = network(layers);
    let drawing = false;
    const onProgress = async () => {
      drawing = true;
      await new Promise((resolve) => setTimeout(resolve, 2));
      drawing = false;
    };
    await calibrate(
      layers,
      (x: Float32Array) => {
        expect(drawing).toBe(false);
        forward(x);
      },
      BATCHES,
      { onProgress },
    );
  });

  it("of images are counted by their first axis, masks and repeated use included", async () => {
    const bn = new BatchNorm(2, { layout: "NCL" });
    const x = normal(3 * 2 * 4, 9, 0, 1);
    const mask = Uint8Array.from({ length: 12 }, (_, i) => Number(i % 4 > 0));
    const forward = () => {
      bn.train(x, { shape: [3, 2, 4], mask });
      bn.train(x, { shape: [3, 2, 4], updateRunning: false });
    };
    const report = await calibrate([bn], forward, [0, 1]);
    expect([report.examples, report.layers[0]!.moments.count, bn.batchesSeen]).toEqual([12, 42, 4]);
    const own = bn.moments(x, { shape: [3, 2, 4], mask });
    const whole = own.merge(bn.moments(x, { shape: [3, 2, 4] }));
    expect(bn.runningMean[1]).toBeCloseTo(whole.mean[1]!, 12);
  });
});

it("meanwhile infer and the state are as before", async () => {
  const layers = twoLayers();
  const before = state(layers);
  const x = BATCHES[0]!;
  const y = layers[0]!.infer(x);
  const forward = network(layers);
  await calibrate(
    layers,
    (batch: Float32Array) => {
      forward(batch);
      layers[0]!.train(batch, { statistics: "running" });
      expect(state(layers)).toEqual(before);
      expect(layers[0]!.lastBatch).toBe(before[0]!.last);
      expect(layers[0]!.infer(x)).toEqual(y);
    },
    BATCHES,
  );
  expect(layers[0]!.lastBatch).toBe(before[0]!.last);
  expect(layers[0]!.infer(x)).not.toEqual(y);
  layers[0]!.train(x); // by itself again
  expect(layers[0]!.batchesSeen).toBe(BATCHES.length + 1);
});

describe("nothing has changed, and the layers are free, when", () => {
  const boom = new Error("boom");
  const failing = (at: number) => {
    let n = 0;
    return () => {
      if (n++ === at) throw boom;
    };
  };
  type Call = (layers: BatchNorm[], forward: (x: Float32Array) => unknown) => Promise<unknown>;
  const cases: [string, Call, unknown, string][] = [
    [
      "forward throws",
      (layers, forward) => {
        const fail = failing(2);
        const forwardOrFail = (x: Float32Array) => {
          fail();
          forward(x);
        };
        return calibrate(layers, forwardOrFail, BATCHES);
      },
      Error,
      "boom",
    ],
    [
      "forward rejects",
      (layers, forward) =>
        calibrate(
          layers,
          (x: Float32Array) => Promise.reject(boom).finally(() => forward(x)),
          BATCHES,
        ),
      Error,
      "boom",
    ],
    [
      "onProgress throws",
      (layers, forward) => calibrate(layers, forward, BATCHES, { onProgress: failing(3) }),
      Error,
      "boom",
    ],
    [
      "onProgress rejects",
      (layers, forward) =>
        calibrate(layers, forward, BATCHES, { onProgress: () => Promise.reject(boom) }),
      Error,
      "boom",
    ],
    [
      "the iterator throws",
      (layers, forward) =>
        calibrate(
          layers,
          forward,
          (function* () {
            yield* BATCHES;
            throw boom;
          })(),
        ),
      Error,
      "boom",
    ],
    [
      "a batch holds NaN",
      (layers, forward) => calibrate(layers, forward, [...BATCHES, new Float32Array(12).fill(NaN)]),
      NonFiniteError,
      "channel 0, 1, 2",
    ],
    [
      "there are no batches",
      (layers, forward) => calibrate(layers, forward, []),
      StateError,
      "batches: expected at least one, got none",
    ],
    [
      "a layer is not reached",
      (layers) => calibrate(layers, (x: Float32Array) => layers[0]!.train(x), BATCHES),
      StateError,
      'layers[1]: expected forward to call its train, without statistics "running", got no such call',
    ],
    [
      "a layer is frozen",
      (layers) =>
        calibrate(
          layers,
          (x: Float32Array) => layers.map((bn) => bn.train(x, { statistics: "running" })),
          BATCHES,
        ),
      StateError,
      "layers[0]: expected forward",
    ],
    [
      "a layer is named twice",
      (layers, forward) => calibrate([...layers, layers[0]!], forward, BATCHES),
      StateError,
      "got one twice, or one of another",
    ],
    [
      "what is no layer is named",
      (layers, forward) => calibrate([...layers, {} as BatchNorm], forward, BATCHES),
      OptionError,
      "layers: expected layers of this package",
    ],
    [
      "there are no layers",
      (_, forward) => calibrate([], forward, BATCHES),
      OptionError,
      "at least one",
    ],
    [
      "layers are none",
      (layers, forward) => calibrate(layers[0] as never, forward, BATCHES),
      OptionError,
      "layers: expected an iterable",
    ],
    [
      "forward is none",
      (layers) => calibrate(layers, 1 as never, BATCHES),
      OptionError,
      "forward: expected a function, got 1",
    ],
    [
      "batches are none",
      (layers, forward) => calibrate(layers, forward, 5 as never),
      OptionError,
      "batches: expected an iterable, got 5",
    ],
    [
      "batches are not iterable",
      (layers, forward) => calibrate(layers, forward, { [Symbol.iterator]: 5 } as never),
      OptionError,
      "batches: expected an iterable, got an Object",
    ],
    [
      "onProgress is none",
      (layers, forward) => calibrate(layers, forward, BATCHES, { onProgress: 1 as never }),
      OptionError,
      "onProgress: expected a function",
    ],
    [
      "an option is unknown",
      (layers, forward) => calibrate(layers, forward, BATCHES, { progress: 1 } as never),
      OptionError,
      'got "progress"',
    ],
  ];
  it.each(cases)("%s", async (_name, call, kind, message) => {
    const layers = twoLayers();
    const before = state(layers);
    const failed = call(layers, network(layers));
    await expect(failed).rejects.toBeInstanceOf(kind);
    await expect(failed).rejects.toThrow(message);
    expect(state(layers)).toEqual(before);
    expect(layers.every((layer, i) => layer.lastBatch === before[i]!.last)).toBe(true);
    await calibrate(layers, network(layers), BATCHES);
    expect(layers[0]!.batchesSeen).toBe(BATCHES.length);
  });

  it("a layer is in another calibrate, which is not disturbed", async () => {
    const layers = twoLayers();
    const expected = twoLayers();
    await calibrate(expected, network(expected), BATCHES);
    let refused: unknown;
    const forward = network(layers);
    await calibrate(
      layers,
      async (x: Float32Array) => {
        refused ??= await calibrate(layers.slice(1), forward, BATCHES).catch((error) => error);
        forward(x);
      },
      BATCHES,
    );
    expect(refused).toBeInstanceOf(StateError);
    expect(layers.map((layer) => layer.snapshot())).toEqual(
      expected.map((layer) => layer.snapshot()),
    );
  });
});

it("moments that overflow when they are pooled are refused, and no layer has changed", async () => {
  const [first, second] = [new BatchNorm(1), new BatchNorm(1)];
  const before = JSON.stringify([first, second]);
  const large = {
    count: 4,
    mean: new Float64Array(1),
    m2: Float64Array.of(1.5e308),
  };
  const call = calibrate(
    [first, second],
    (x: Float32Array) => {
      first.train(x);
      second.train(x, { statistics: large });
    },
    [Float32Array.of(1, 2), Float32Array.of(3, 4)],
  );
  await expect(call).rejects.toThrow(NonFiniteError);
  expect(JSON.stringify([first, second])).toBe(before);
});
