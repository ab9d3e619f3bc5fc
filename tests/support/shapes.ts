// Shapes to test with. They cover every layout and every way in which data are walked. This runs in every runtime.

import type { Layout } from "batchnorm-wasm";
import type { View } from "./oracle.js";

/** The layouts that name each axis by a letter. */
export const LAYOUTS: readonly Layout[] = ["NC", "NCL", "NCHW", "NCDHW", "NLC", "NHWC", "NDHWC"];

/** A tensor of a layout of any rank, and the same numbers in a layout that names its axes. */
export interface Twin {
  readonly shaped: Shaped;
  readonly named: Shaped;
}

/**
 * Tensors of two to six axes, [N, C, …] or [N, …, C]. No layout names six axes: there all
 * sides count as one, and in rows they count as examples.
 */
export function twins(examples: number, channels: number): Twin[] {
  const sides = [2, 3, 2, 3];
  return [0, 1, 2, 3, 4].flatMap((rank): Twin[] => {
    const own = sides.slice(0, rank);
    const first = [examples, channels, ...own];
    const last = [examples, ...own, channels];
    const firstNamed: Shaped =
      rank === 4
        ? { layout: "NCL", shape: [examples, channels, product(own)] }
        : { layout: (["NC", "NCL", "NCHW", "NCDHW"] as const)[rank]!, shape: first };
    const lastNamed: Shaped =
      rank === 4
        ? { layout: "NC", shape: [examples * product(own), channels] }
        : { layout: (["NC", "NLC", "NHWC", "NDHWC"] as const)[rank]!, shape: last };
    return [
      { shaped: { layout: "channelsFirst", shape: first }, named: firstNamed },
      { shaped: { layout: "channelsLast", shape: last }, named: lastNamed },
    ];
  });
}

/** A shape in a layout. */
export interface Shaped {
  readonly layout: Layout;
  readonly shape: readonly number[];
}

export const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

export const sizeOf = ({ shape }: Shaped): number => product(shape);

/** Which axis of a shape the channels are. */
const axisOf = ({ layout, shape }: Shaped): number =>
  layout === "channelsFirst"
    ? 1
    : layout === "channelsLast"
      ? shape.length - 1
      : layout.indexOf("C");

export const channelsOf = (shaped: Shaped): number => shaped.shape[axisOf(shaped)]!;

/** A shape as (outer, channels, inner): the size of the axes before C, of C, and of the axes after C. */
export function viewOf(shaped: Shaped): View {
  const { shape } = shaped;
  const axis = axisOf(shaped);
  return {
    outer: product(shape.slice(0, axis)),
    channels: shape[axis]!,
    inner: product(shape.slice(axis + 1)),
  };
}

/** The indices of the values at the positions that `holds` accepts: position by position, all channels of each. */
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
 * At least one shape for each way in which data are walked:
 *
 * - rows one by one, and several at once (few channels, many examples);
 * - rows wider than the parameter arrays (1024 columns);
 * - arrays that fit a stream buffer (65536 values), and larger ones;
 * - wide rows of more values than a block of moments has (131072);
 * - narrow planes, which are walked as rows;
 * - planes shorter and longer than a block (4096 values), and longer than a stream buffer;
 * - planes of more than 1024 channels;
 * - planes of which `backward` takes some channels at a time ([2, 3, 16387], [4, 1030, 17], [3, 1400, 20],
 *   [5, 67, 15, 15]), and planes too short for that ([40, 11, 13, 13]).
 *
 * Tensors that are swept, which are larger than 8 MiB a call, are in memory.test.ts.
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
    ["NC", [131, 1024]],
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
    ["NCL", [1, 2, 70001]],
    ["NCL", [3, 1030, 17]],
    ["NCL", [4, 1030, 17]],
    ["NCL", [3, 1400, 20]],
    ["NCL", [700, 20, 5]],
    ["NCHW", [3, 5, 11, 13]],
    ["NCHW", [5, 67, 15, 15]],
    ["NCHW", [40, 11, 13, 13]],
    ["NCDHW", [2, 3, 3, 5, 7]],
  ] as const
).map(([layout, shape]) => ({ layout, shape }));

export const nameOf = ({ layout, shape }: Shaped): string => `${layout} [${shape.join(", ")}]`;

/**
 * Whether the conformance suite compares results of this shape with the oracle, which takes its time. Of larger
 * ones it only looks at whether their bits are the same everywhere: the other tests compare those.
 */
export const isCompared = (shaped: Shaped): boolean => sizeOf(shaped) <= 30_000;

/** What is left of SHAPES for them, by name. */
export const LARGE_SHAPES = SHAPES.filter((shaped) => !isCompared(shaped)).map(
  (shaped) => [nameOf(shaped), shaped] as const,
);
