// What is measured: shapes, operations and the data they are fed, the same for every library.

export type Op = "infer" | "train" | "backward";
/** `step` is train and backward in one: all that some libraries let one measure of a gradient. */
export type PeerOp = Op | "step";
export type Layout = "NC" | "NCHW" | "NHWC";

export const OPS: readonly Op[] = ["infer", "train", "backward"];
export const EPSILON = 1e-5;

export interface Case {
  /** As printed and as `--shape` takes it: `[256,256]`, `[32,64,56,56]`; always N, C, then H, W. */
  readonly name: string;
  readonly layout: Layout;
  /** In the order of memory, as the layout names it. */
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

/** The eight shapes; images once as planes and once with the channels last. */
export const CASES: readonly Case[] = [
  ...ROWS.map((dims) => makeCase(dims, "NC")),
  ...(["NCHW", "NHWC"] as const).flatMap((layout) => IMAGES.map((dims) => makeCase(dims, layout))),
];

/**
 * Rows of 64 channels from one example to 16 Mi floats, for the curves over size. By shifts: `4 ** 5`
 * is a float64 to V8, and its sizes in every case's fields made all loops index by float64.
 */
export const SIZES: readonly Case[] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18].map((power) =>
  makeCase([1 << power, 64], "NC"),
);

/**
 * Values from which a tensor, of 1 MiB then, is large. It lives in the outer cache and in memory, which it
 * shares with all that runs beside it.
 */
export const LARGE = 1 << 18;

/** One value a channel has no variance: `train` refuses, and there is nothing to measure. */
export const opsOf = (c: Case): readonly Op[] => (c.outer * c.inner > 1 ? OPS : ["infer"]);

/** Bytes that an operation has to read and to write at least. */
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
  /** Where given, all ordinary results go into this one array, so that no side has a luckier place in memory. */
  readonly out?: Float32Array<ArrayBuffer>;
}

/** The same numbers in every run: values of standard deviation 1.3 around a mean of each channel. */
export function makeData(c: Case): Data {
  const random = mulberry32(c.size);
  const uniform = (low: number, high: number) => low + (high - low) * random();
  const perChannel = (draw: () => number) => Float32Array.from({ length: c.channels }, draw);
  const mean = perChannel(() => uniform(-1, 1));
  const noise = Float32Array.from({ length: 65537 }, () => gaussian(random));

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

/** mulberry32 by Tommy Ettinger: 32 bits of state, uniform in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Box and Muller 1958. */
const gaussian = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
