// What is measured: the shapes, the operations and their data, which are the same for every library.

import { gaussian, random } from "../tests/support/data.js";

export type Op = "infer" | "train" | "backward";
/** `step` is train and backward in one call. Some libraries cannot give a gradient in any other way. */
export type PeerOp = Op | "step";
export type Layout = "NC" | "NCHW" | "NHWC";

export const OPS: readonly Op[] = ["infer", "train", "backward"];
export const EPSILON = 1e-5;

export interface Case {
  /** The sizes N, C and, for images, H, W, as they are printed and as `--shape` takes them: `[32,64,56,56]`. */
  readonly name: string;
  readonly layout: Layout;
  /** The sizes in the order of the layout. */
  readonly shape: readonly number[];
  readonly size: number;
  readonly outer: number;
  readonly channels: number;
  readonly inner: number;
}

export function makeCase(dims: readonly number[], layout: Layout): Case {
  const [n, channels, h = 1, w = 1] = dims as [number, number, number?, number?];
  const planes = layout === "NCHW";
  return {
    name: `[${dims.join(",")}]`,
    layout,
    shape: layout === "NHWC" ? [n, h, w, channels] : dims,
    size: n * channels * h * w,
    outer: planes ? n : n * h * w,
    channels,
    inner: planes ? h * w : 1,
  };
}

const ROWS = [
  [1, 64],
  [64, 64],
  [256, 256],
  [1024, 1024],
  [16384, 256],
];

const IMAGES = [
  [1, 64, 32, 32],
  [8, 128, 28, 28],
  [32, 64, 56, 56],
];

/** Rows, and images in two layouts: channels first and channels last. */
export const CASES: readonly Case[] = [
  ...ROWS.map((dims) => makeCase(dims, "NC")),
  ...(["NCHW", "NHWC"] as const).flatMap((layout) => IMAGES.map((dims) => makeCase(dims, layout))),
];

/**
 * Rows of 64 channels, from one example to 16 Mi floats, for the curves over size. The sizes are made by
 * shifts, because V8 keeps the result of `4 ** 5` as a float64 and then runs every loop over such a size with
 * float64 indices.
 */
export const SIZES: readonly Case[] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18].map((power) =>
  makeCase([1 << power, 64], "NC"),
);

/**
 * From how many values on a tensor counts as large: 1 MiB. A large tensor lives in the outer cache and in
 * memory, which it shares with all other programs.
 */
export const LARGE = 1 << 18;

/** `train` refuses a batch with one value per channel, whose variance says nothing. */
export const opsOf = (c: Case): readonly Op[] => (c.outer * c.inner > 1 ? OPS : ["infer"]);

/** The least bytes that an operation has to read and write. */
export const bytesOf = (op: PeerOp, size: number): number =>
  4 * size * { infer: 2, train: 2, backward: 3, step: 5 }[op];

export interface Data {
  readonly x: Float32Array<ArrayBuffer>;
  readonly dy: Float32Array<ArrayBuffer>;
  readonly gamma: Float32Array<ArrayBuffer>;
  readonly beta: Float32Array<ArrayBuffer>;
  /** Running mean and variance, as `infer` uses them. */
  readonly mean: Float32Array<ArrayBuffer>;
  readonly variance: Float32Array<ArrayBuffer>;
  /** If given, all ordinary results go into this one array, so that no side has a luckier place in memory. */
  readonly out?: Float32Array<ArrayBuffer>;
}

/** Makes the same numbers in every run: of standard deviation 1.3, around a mean of its own in each channel. */
export function makeData(c: Case): Data {
  const next = random(c.size);
  const uniform = (low: number, high: number) => low + (high - low) * next();
  const perChannel = (draw: () => number) => Float32Array.from({ length: c.channels }, draw);
  const mean = perChannel(() => uniform(-1, 1));
  const noise = Float32Array.from({ length: 65537 }, () => gaussian(next));

  const x = new Float32Array(c.size);
  let i = 0;
  for (let o = 0; o < c.outer; o++) {
    for (let k = 0; k < c.channels; k++) {
      for (const end = i + c.inner; i < end; i++) x[i] = mean[k] + 1.3 * noise[i % 65537];
    }
  }
  const dy = new Float32Array(c.size);
  for (let j = 0; j < dy.length; j++) dy[j] = noise[(j * 7 + 3) % 65537];
  return {
    x,
    dy,
    gamma: perChannel(() => uniform(0.5, 2)),
    beta: perChannel(() => uniform(-1, 1)),
    mean,
    variance: perChannel(() => uniform(0.5, 2.5)),
  };
}
