import { BatchNorm, Moments } from "batchnorm-wasm";
import { expect, it } from "vitest";
import { Random } from "../mnist/random.js";
import { type Part, pooling } from "./combine.js";

const PARTS = 100;
const norms = [new BatchNorm(3), new BatchNorm(5)];
const { createAccumulator, addInput, mergeAccumulators, extractOutput } = pooling;

/** What Beam does to a value between machines. */
const sent = <T>(value: T): T => JSON.parse(JSON.stringify(value));

const partOf = (xs: readonly Float32Array[]): Part => ({
  batches: 1,
  layers: xs.map((x, i) => norms[i].moments(x).toJSON()),
});

/** What goes into each layer: means of up to 2000 σ; in the last channel nothing but -0. */
function batch(random: Random): Float32Array[] {
  const rows = 1 + Math.floor(40 * random.uniform());
  return norms.map(({ channels }) =>
    Float32Array.from({ length: rows * channels }, (_, i) => {
      const channel = i % channels;
      return channel === channels - 1 ? -0 : 500 * (channel + 1) + random.normal();
    }),
  );
}

/** Count, mean and Σ(x - mean)² of each channel, in float64. */
function onePass(batches: readonly Float32Array[], channels: number) {
  const values = batches.flatMap((x) => [...x]);
  return Array.from({ length: channels }, (_, c) => {
    const own = values.filter((_, i) => i % channels === c);
    const apart = own.reduce((sum, x) => sum + (x - own[0]), 0) / own.length;
    const m2 = own.reduce((sum, x) => sum + (x - own[0] - apart) ** 2, 0);
    return { count: own.length, mean: own[0] + apart, m2 };
  });
}

/** `values` in runs, some of them empty. */
function bundles<T>(values: readonly T[], random: Random): T[][] {
  const runs: T[][] = [[]];
  for (const value of values) {
    while (random.uniform() < 0.2) runs.push([]);
    runs[runs.length - 1].push(value);
  }
  return runs;
}

it.each([1, 2, 3, 4, 5])("parts pool as one pass would, in any bundles (seed %i)", (seed) => {
  const random = new Random(seed);
  const batches = Array.from({ length: PARTS }, () => batch(random));
  const parts = batches.map(partOf);
  const order = random.shuffle(Uint32Array.from({ length: PARTS }, (_, i) => i));
  const accumulators = bundles([...order], random).map((bundle) =>
    sent(bundle.map((i) => sent(parts[i])).reduce<Part>(addInput, createAccumulator())),
  );
  expect(accumulators.filter(({ batches }) => batches > 0).length).toBeGreaterThan(10);
  const groups = bundles(accumulators, random).map((group) => sent(mergeAccumulators(group)));

  for (const merged of [mergeAccumulators(accumulators), mergeAccumulators(groups)]) {
    const pooled = extractOutput(sent(merged));
    expect(pooled.batches).toBe(PARTS);
    expect(pooled.layers.length).toBe(norms.length);
    pooled.layers.forEach((layer, i) => {
      const { count, mean, m2 } = Moments.fromJSON(layer);
      const own = parts.map(({ layers }) => Moments.fromJSON(layers[i]));
      const values = batches.map((xs) => xs[i]);
      onePass(values, mean.length).forEach((expected, c) => {
        expect(count).toBe(expected.count);
        const deviation = Math.sqrt(expected.m2 / count);
        expect(Math.abs(mean[c] - expected.mean)).toBeLessThanOrEqual(1e-12 * deviation);
        // The kernels sum squares in float32 lanes (assembly/moments.ts), which bounds each part's m2 …
        const m2Error = Math.abs(m2[c] - expected.m2);
        expect(m2Error).toBeLessThanOrEqual(19 * 2 ** -24 * expected.m2);
        // … and pooling the parts adds nothing to that.
        const within = own.reduce((sum, part) => sum + part.m2[c], 0);
        const between = own.reduce(
          (sum, part) => sum + part.count * (part.mean[c] - expected.mean) ** 2,
          0,
        );
        const poolError = Math.abs(m2[c] - within - between);
        expect(poolError).toBeLessThanOrEqual(1e-12 * expected.m2);
      });
    });
  }
});

it("accumulators of nothing change nothing, and stay as they are", () => {
  const part = partOf(batch(new Random(1)));
  const before = sent(part);
  const empty = createAccumulator();
  expect(addInput(empty, part)).toEqual(before);
  expect(mergeAccumulators([empty, part, createAccumulator()])).toEqual(before);
  expect(mergeAccumulators([])).toEqual(createAccumulator());
  addInput(part, part);
  expect(part).toEqual(before);
  expect(empty).toEqual({ batches: 0, layers: [] });
});

it("refuses parts of another network", () => {
  const part = partOf(batch(new Random(1)));
  const other = { batches: 1, layers: part.layers.slice(1) };
  expect(() => addInput(part, other)).toThrow("expected 2 layers, got 1");
});
