// Random layers and shapes to test with. They cover every layout and every way in which data are walked.

import { BatchNorm, type BatchNormOptions } from "batchnorm-wasm";
import fc from "fast-check";
import { normal } from "./data.js";
import { channelsOf, countOf, LAYOUTS, placesOf, product, type Shaped } from "./shapes.js";

export * from "./shapes.js";

const MOST = 20000;
const FEW = 70;
/** Numbers of channels around those at which the walks and the arrays of parameters change. */
const MANY = [100, 255, 256, 257, 1000, 1023, 1024, 1025, 1500];

/** Every small number of channels, and the large ones. */
export const CHANNEL_COUNTS = [...Array.from({ length: FEW }, (_, i) => i + 1), ...MANY];

/** Shapes of at most 20000 values with at least `least` values per channel, in any layout. */
export function shapes(least: number, most = MOST): fc.Arbitrary<Shaped> {
  const channels = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 1, max: FEW }) },
    { weight: 1, arbitrary: fc.constantFrom(...MANY) },
  );
  return fc
    .record({
      layout: fc.constantFrom(...LAYOUTS),
      examples: fc.oneof(
        { weight: 3, arbitrary: fc.integer({ min: 1, max: 70 }) },
        { weight: 1, arbitrary: fc.integer({ min: 71, max: 2000 }) },
      ),
      channels,
      sides: fc.tuple(
        fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70 })),
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 5 }),
      ),
    })
    .map(({ layout, examples, channels, sides }) => {
      let room = Math.max(1, Math.floor(most / (channels * least)));
      const spatial = sides.slice(0, layout.length - 2).map((side) => {
        const fit = Math.min(side, room);
        room = Math.floor(room / fit);
        return fit;
      });
      const inner = product(spatial);
      const fit = Math.max(1, Math.floor(most / (channels * inner)));
      const n = Math.max(Math.min(examples, fit), Math.ceil(least / inner));
      const shape = layout[1] === "C" ? [n, channels, ...spatial] : [n, ...spatial, channels];
      return { layout, shape };
    });
}

export const seeds = fc.integer({ min: 1, max: 2 ** 31 - 1 });

/** A layer whose gamma and beta differ from the initial 1 and 0. */
export function layerOf(
  shaped: Shaped,
  options: Omit<BatchNormOptions, "layout"> = {},
  seed = 1,
): BatchNorm {
  const channels = channelsOf(shaped);
  const layer = new BatchNorm(channels, { ...options, layout: shaped.layout });
  layer.gamma?.set(normal(channels, seed + 101, 1, 0.5));
  layer.beta?.set(normal(channels, seed + 102));
  return layer;
}

/** Gives a layer running averages such as it has after some training. */
export function settle(layer: BatchNorm, seed = 1, mean = 0.5, sigma = 1.5): BatchNorm {
  const { channels } = layer;
  layer.runningMean.set(normal(channels, seed + 103, mean, sigma / 4));
  layer.runningVariance.set(normal(channels, seed + 104).map((z) => sigma ** 2 * Math.exp(z / 4)));
  layer.batchesSeen = 5;
  return layer;
}

/** What a call is told of its data, with a random mask if `masked`, and the indices of the values that it leaves out. */
export function dataOf(shaped: Shaped, masked: boolean, next: () => number) {
  const { shape } = shaped;
  const mask = Uint8Array.from({ length: countOf(shaped) }, (_, i) =>
    i < 2 || next() < 0.7 ? 1 : 0,
  );
  const padding = new Set(masked ? placesOf(shaped, (position) => mask[position] === 0) : []);
  return { data: masked ? { shape, mask } : { shape }, padding };
}

/** All of a layer that a call may change, as text to compare. */
export function stateOf(layer: BatchNorm): string {
  const copy = layer.clone();
  copy.batchesSeen = 0; // A snapshot refuses what is no count.
  return JSON.stringify([copy.snapshot(), String(layer.batchesSeen), layer.ageKnown]);
}

/** Any options of a layer but its kernels. */
export const options: fc.Arbitrary<Omit<BatchNormOptions, "kernels">> = fc.record({
  layout: fc.constantFrom(...LAYOUTS),
  epsilon: fc.double({ min: 0, max: 1e300, noNaN: true }),
  decay: fc.oneof(
    fc.constant("cumulative" as const),
    fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  ),
  debias: fc.boolean(),
  runningVarianceOf: fc.constantFrom("sample" as const, "population" as const),
  gamma: fc.boolean(),
  beta: fc.boolean(),
});
