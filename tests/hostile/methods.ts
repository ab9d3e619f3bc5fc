// Every public method that takes arrays, with the arrays that it takes, as a table.

import {
  type Adapter,
  adapt,
  adapter,
  BatchNorm,
  calibrate,
  diagnose,
  FrozenBatchNorm,
  fold,
  GradientSums,
  Kernels,
  Moments,
} from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import { normal } from "../support/data.js";
import { isTyped, type Kind, OWN, type Typed, valuesIn } from "./arrays.js";

export const C = 3;

/** A value that kernel memory is filled with before a call. No answer may have anything of it. */
export const MARKER = 8234.5;

/** A trained layer, and what is made of one. */
export interface World {
  readonly layer: BatchNorm;
  readonly frozen: FrozenBatchNorm;
  readonly small: Small;
  readonly adapter: Adapter;
  /** A layer with an activation, whose latest `train` was given `x` and added `x` to its output. */
  readonly block: BatchNorm;
  /** The input of the latest `train`. */
  readonly x: Float32Array;
}

/** All memory of the kernels. */
const MEMORY = new Float32Array(OWN.alloc(1).buffer);

export function worldOf(rows: number): World {
  const layer = new BatchNorm(C, { kernels: OWN });
  layer.gamma!.set([1.5, -0.5, 2]);
  layer.beta!.set([0.25, 1, -3]);
  const x = normal(rows * C, 7, 1, 2);
  layer.train(x);
  const frozen = layer.freeze();
  const stream = adapter(layer, { prior: 5, memory: 50 });
  stream.infer(normal(4 * C, 8));
  const block = new BatchNorm(C, { activation: [-0.5, 1], kernels: OWN });
  block.train(x, { add: x });
  const small = Small.fromJSON(frozen.toJSON());
  MEMORY.fill(MARKER);
  return { layer, frozen, small, adapter: stream, block, x };
}

/** All of a world that a call may change, to compare. */
export const stateOf = ({ layer, block, adapter }: World): unknown => [
  block.snapshot(),
  block.lastBatch && plainOf(block.lastBatch),
  layer.snapshot(),
  layer.lastBatch && plainOf(layer.lastBatch),
  adapter.freeze().toJSON(),
  adapter.examples,
];

/** An answer without the classes of its arrays. */
export function plainOf(value: unknown): unknown {
  if (isTyped(value)) return valuesIn(value);
  if (typeof value === "function") return String((value as () => unknown)());
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Kernels) return "kernels";
  if (Array.isArray(value)) return value.map(plainOf);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plainOf(each)]));
}

/** An array that a method takes: its kind, and its values for so many rows. */
export interface Slot {
  readonly kind: Kind;
  readonly of: (rows: number, world: World) => readonly number[];
  /** Whether the method writes it. */
  readonly written?: true;
}

export interface Method {
  readonly name: string;
  readonly slots: Readonly<Record<string, Slot>>;
  // biome-ignore lint/suspicious/noExplicitAny: these tests pass what types forbid
  readonly call: (world: World, arrays: Record<string, any>, rows: number) => unknown;
}

const list = (values: Typed): number[] => Array.from(values);
const float32 = (of: Slot["of"]): Slot => ({ kind: "Float32Array", of });
const float64 = (values: readonly number[]): Slot => ({ kind: "Float64Array", of: () => values });
const written = (length: (rows: number) => number): Slot => ({
  kind: "Float32Array",
  of: (rows) => new Array(length(rows)).fill(0.5),
  written: true,
});

const x = float32((rows) => list(normal(rows * C, 3, -1, 4)));
const dy = float32((rows) => list(normal(rows * C, 4)));
const add = float32((rows) => list(normal(rows * C, 13)));
const same = float32((_rows, world) => list(world.x));
const out = written((rows) => rows * C);
const mask: Slot = {
  kind: "Uint8Array",
  of: (rows) => Array.from({ length: rows }, (_, row) => (row % 4 === 2 ? 0 : 1)),
};
const moments = {
  mean: float64([1, -2, 0.5]),
  m2: float64([9, 2, 33]),
  meanLow: float64([0, 1e-18, 0]),
};
const sums = { sumDy: float64([1, -2, 0.5]), sumDyXmu: float64([9, 2, -33]) };
const weight = float32(() => list(normal(4 * C, 5)));
const bias = float32(() => list(normal(4, 6)));

export const METHODS: readonly Method[] = [
  { name: "train", slots: { x, out }, call: ({ layer }, { x, out }) => layer.train(x, { out }) },
  {
    name: "train with a mask",
    slots: { x, mask, out },
    call: ({ layer }, { x, mask, out }) => layer.train(x, { mask, out, updateRunning: true }),
  },
  {
    name: "train by running averages",
    slots: { x, mask },
    call: ({ layer }, { x, mask }) => layer.train(x, { mask, statistics: "running" }),
  },
  {
    name: "train by moments",
    slots: { x, out, ...moments },
    call: ({ layer }, { x, out, mean, m2, meanLow }) =>
      layer.train(x, { out, statistics: { count: 5, mean, m2, meanLow } }),
  },
  {
    name: "train in place",
    slots: { x: { ...x, written: true } },
    call: ({ layer }, { x }) => layer.train(x, { out: x }),
  },
  {
    name: "infer",
    slots: { x, mask, out },
    call: ({ layer }, { x, mask, out }, rows) => layer.infer(x, { mask, out, shape: [rows, C] }),
  },
  {
    name: "train with a residual",
    slots: { x, add, mask, out },
    call: ({ block }, { x, add, mask, out }) => block.train(x, { add, mask, out }),
  },
  {
    name: "train into the residual",
    slots: { x, add: { ...add, written: true } },
    call: ({ block }, { x, add }) => block.train(x, { add, out: add }),
  },
  {
    name: "infer with a residual",
    slots: { x, add, out },
    call: ({ block }, { x, add, out }) => block.infer(x, { add, out }),
  },
  {
    name: "frozen infer with a residual",
    slots: { x, add, out },
    call: ({ frozen }, { x, add, out }) => frozen.infer(x, { add, out }),
  },
  {
    name: "infer of the small entry with a residual",
    slots: { x, add, out },
    call: ({ small }, { x, add, out }) => small.infer(x, { add, out }),
  },
  {
    name: "backward with a residual",
    slots: { dy, x: same, add: same, dx: out, dadd: out },
    call: ({ block }, { dy, x, add, ...out }) => block.backward(dy, { x, add, out }),
  },
  {
    name: "backwardSums with a residual",
    slots: { dy, x: same, add: same },
    call: ({ block }, { dy, x, add }) => block.backwardSums(dy, { x, add }),
  },
  { name: "infer of x alone", slots: { x }, call: ({ layer }, { x }) => layer.infer(x) },
  {
    name: "frozen infer",
    slots: { x, mask, out },
    call: ({ frozen }, { x, mask, out }) => frozen.infer(x, { mask, out }),
  },
  {
    name: "train with renorm",
    slots: { x, mask, out },
    call: (_world, { x, mask, out }) =>
      new BatchNorm(C, { renorm: { rmax: 2, dmax: 1 }, kernels: OWN }).train(x, { mask, out }),
  },
  {
    name: "train with renorm by averages of its own",
    slots: { x, mask, out },
    call: (_world, { x, mask, out }) => {
      const renorm = { rmax: 2, dmax: 1, decay: 0.5 };
      return new BatchNorm(C, { renorm, kernels: OWN }).train(x, { mask, out });
    },
  },
  {
    name: "a frozen layer of moments",
    slots: {
      x,
      out,
      gamma: float32(() => [1, -2, 3]),
      beta: float32(() => [0, 5, -1]),
      ...moments,
    },
    call: (_world, { x, out, gamma, beta, mean, m2, meanLow }) =>
      FrozenBatchNorm.fromMoments(
        { count: 5, mean, m2, meanLow },
        { gamma, beta, kernels: OWN },
      ).infer(x, { out }),
  },
  {
    name: "inverse",
    slots: { y: x, out },
    call: ({ frozen }, { y, out }) => frozen.inverse(y, { out }),
  },
  {
    name: "inverse of the small entry",
    slots: { y: x, out },
    call: ({ small }, { y, out }) => small.inverse(y, { out }),
  },
  {
    name: "infer of the small entry",
    slots: { x, mask, out },
    call: ({ small }, { x, mask, out }) => small.infer(x, { mask, out }),
  },
  {
    name: "moments",
    slots: { x, mask },
    call: ({ layer }, { x, mask }) => layer.moments(x, { mask }),
  },
  {
    name: "backward",
    slots: {
      dy,
      x: same,
      dx: out,
      dgamma: written(() => C),
      dbeta: written(() => C),
    },
    call: ({ layer }, { dy, x, ...out }) => layer.backward(dy, { x, out }),
  },
  {
    name: "backward with sums",
    slots: { dy, x: same, ...sums },
    call: ({ layer }, { dy, x, sumDy, sumDyXmu }, rows) =>
      layer.backward(dy, { x, sums: { count: rows, sumDy, sumDyXmu } }),
  },
  {
    name: "backwardSums",
    slots: { dy, x: same },
    call: ({ layer }, { dy, x }) => layer.backwardSums(dy, { x }),
  },
  {
    name: "setRunning",
    slots: moments,
    call: ({ layer }, arrays) => layer.setRunning({ count: 5, ...arrays } as never),
  },
  {
    name: "Moments.merge",
    slots: moments,
    call: ({ layer, x }, arrays) => layer.moments(x).merge({ count: 5, ...arrays } as never),
  },
  {
    name: "Moments.pool",
    slots: moments,
    call: (_, arrays) => Moments.pool([{ count: 5, ...arrays } as never]),
  },
  {
    name: "GradientSums.pool",
    slots: sums,
    call: (_, arrays) => GradientSums.pool([{ count: 5, ...arrays } as never]),
  },
  {
    name: "GradientSums.merge",
    slots: sums,
    call: ({ layer }, arrays) =>
      layer.backwardSums(layer.lastBatch!.x!).merge({ count: 5, ...arrays } as never),
  },
  {
    name: "Moments.fromJSON of what merge gives",
    slots: moments,
    call: (_, arrays) =>
      Moments.fromJSON(Moments.pool([{ count: 5, ...arrays } as never]).toJSON()),
  },
  {
    name: "diagnose",
    slots: { x, mask },
    call: ({ layer }, { x, mask }) => diagnose(layer, x, { mask }),
  },
  {
    name: "adapt",
    slots: { x, mask },
    call: ({ layer }, { x, mask }) => adapt(layer, x, { mask, prior: 3 }).toJSON(),
  },
  {
    name: "adapter.infer",
    slots: { x, mask, out },
    call: ({ adapter }, { x, mask, out }) => adapter.infer(x, { mask, out }),
  },
  {
    name: "fold before",
    slots: { weight, bias: float32(() => list(normal(C, 6))) },
    call: ({ frozen }, { weight, bias }) =>
      fold(frozen, { weight, bias, shape: [C, 4], kind: "linear", order: "OI", into: "before" }),
  },
  {
    name: "fold after",
    slots: { weight, bias },
    call: ({ frozen }, { weight, bias }) =>
      fold(frozen, { weight, bias, shape: [4, C], kind: "linear", order: "OI", into: "after" }),
  },
  {
    name: "calibrate",
    slots: { x, mask },
    call: ({ layer }, { x, mask }) => calibrate([layer], () => layer.train(x, { mask }), [1, 2]),
  },
];
