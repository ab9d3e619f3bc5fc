// Layers and shapes to test with: every layout, every way that data are walked.

import { BatchNorm, type BatchNormOptions, type Layout } from "batchnorm-wasm";
import fc from "fast-check";
import { normal } from "./data.js";
import type { View } from "./oracle.js";

export const LAYOUTS: readonly Layout[] = ["NC", "NCL", "NCHW", "NCDHW", "NLC", "NHWC", "NDHWC"];

/** A shape in a layout. */
export interface Shaped {
  readonly layout: Layout;
  readonly shape: readonly number[];
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

export const sizeOf = ({ shape }: Shaped): number => product(shape);

export const channelsOf = ({ layout, shape }: Shaped): number => shape[layout.indexOf("C")]!;

/** The shape as (outer, channels, inner): what comes before the axis C, it, and what comes after. */
export function viewOf({ layout, shape }: Shaped): View {
  const axis = layout.indexOf("C");
  return {
    outer: product(shape.slice(0, axis)),
    channels: shape[axis]!,
    inner: product(shape.slice(axis + 1)),
  };
}

/** Where the values of the positions that `holds` accepts lie: position by position, its channels. */
export function placesOf(shaped: Shaped, holds: (position: number) => boolean): number[] {
  const { channels, inner } = viewOf(shaped);
  const places: number[] = [];
  for (let p = 0; p < countOf(shaped); p++) {
    const start = Math.floor(p / inner) * channels * inner + (p % inner);
    for (let c = 0; holds(p) && c < channels; c++) places.push(start + c * inner);
  }
  return places;
}

export const countOf = (shaped: Shaped): number => sizeOf(shaped) / channelsOf(shaped);

/**
 * A shape for each way that data are walked: rows one by one and several at once (few channels,
 * many examples), rows wider than the parameter arrays (1024), arrays that fit a stream buffer (65536
 * values) and beyond, narrow planes taken as rows, planes of less and more than a block (4096) and
 * than a streamed part (32768), planes of more channels than 1024. Tensors that are swept (8 MiB a
 * call) are in memory.test.ts.
 */
export const SHAPES: readonly Shaped[] = (
  [
    ["NC", [2, 1]],
    ["NC", [3, 5]],
    ["NC", [70, 70]],
    ["NC", [127, 3]],
    ["NC", [1003, 3]],
    ["NC", [5000, 1]],
    ["NC", [2049, 7]],
    ["NC", [700, 33]],
    ["NC", [65, 1023]],
    ["NC", [67, 1025]],
    ["NC", [9, 2500]],
    ["NC", [70, 1024]],
    ["NC", [301, 257]],
    ["NC", [70, 4001]],
    ["NC", [4100, 65]],
    ["NLC", [3, 67, 6]],
    ["NHWC", [2, 13, 9, 18]],
    ["NDHWC", [2, 3, 4, 5, 65]],
    ["NCL", [8, 3, 2]],
    ["NCL", [777, 5, 3]],
    ["NCL", [2100, 1, 15]],
    ["NCL", [9, 100, 15]],
    ["NCL", [66, 160, 7]],
    ["NCL", [7, 3, 15]],
    ["NCL", [3, 5, 16]],
    ["NCL", [3, 2, 4099]],
    ["NCL", [2, 3, 16387]],
    ["NCL", [1, 2, 50001]],
    ["NCL", [3, 1030, 17]],
    ["NCL", [4, 1030, 17]],
    ["NCL", [700, 20, 5]],
    ["NCHW", [3, 5, 11, 13]],
    ["NCHW", [5, 67, 15, 15]],
    ["NCDHW", [2, 3, 3, 5, 7]],
  ] as const
).map(([layout, shape]) => ({ layout, shape }));

export const nameOf = ({ layout, shape }: Shaped): string => `${layout} [${shape.join(", ")}]`;

const MOST = 20000;

/** Shapes of at most 20000 values with at least `least` values per channel, in any layout. */
export function shapes(least: number, most = MOST): fc.Arbitrary<Shaped> {
  const channels = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 70 }) },
    { weight: 1, arbitrary: fc.constantFrom(100, 255, 256, 257, 1000, 1023, 1024, 1025, 1500) },
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

/** A layer with a gamma and beta that are not those of a fresh one. */
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

/** Averages as they are after some training. */
export function settle(layer: BatchNorm, seed = 1, mean = 0.5, sigma = 1.5): BatchNorm {
  const { channels } = layer;
  layer.runningMean.set(normal(channels, seed + 103, mean, sigma / 4));
  layer.runningVariance.set(normal(channels, seed + 104).map((z) => sigma ** 2 * Math.exp(z / 4)));
  layer.batchesSeen = 5;
  return layer;
}

/** What a call may change of a layer, as text. */
export const stateOf = (layer: BatchNorm): string => JSON.stringify(layer.snapshot());

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
