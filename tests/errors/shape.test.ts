// ShapeError: what is no Float32Array, and lengths and shapes that do not fit.

import { runInNewContext } from "node:vm";
import { adapt, adapter, BatchNorm, diagnose, fold, ShapeError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { layerOf, settle } from "../support/cases.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { transfer } from "../support/transfer.js";
import { type Call, type Fixture, type Row, refuses } from "./rows.js";

class Pretender {
  get [Symbol.toStringTag](): string {
    return "Float32Array";
  }
  readonly length = 12;
}

function detached(): Float32Array {
  const array = new Float32Array(12);
  transfer(array);
  return array;
}

interface Impostor {
  readonly name: string;
  readonly make: () => unknown;
  /** How a message calls it. */
  readonly got: string;
  /** Whether Float32Array.from makes one of it. */
  readonly numbers?: true;
}

/** What messages say of what inherits from a typed array, but is none. */
const OTHER = "a proxy or copy; give the raw object";

/** What is no Float32Array. */
const IMPOSTORS: readonly Impostor[] = [
  {
    name: "an array of numbers",
    make: () => [1, 2, 3],
    got: "an Array of length 3",
    numbers: true,
  },
  // Float32Array.from would make NaN of these, or throw.
  { name: "rows of numbers", make: () => [[1, 2, 3]], got: "an Array of length 1" },
  { name: "rows", make: () => [new Float32Array(12)], got: "an Array of length 1" },
  { name: "BigInts", make: () => new BigInt64Array(12), got: "a BigInt64Array of length 12" },
  {
    name: "an array with a getter that throws",
    make: () =>
      Object.defineProperty([], 0, {
        get() {
          throw new TypeError("a user's");
        },
      }),
    got: "an Array of length 1",
  },
  {
    name: "a Float64Array",
    make: () => new Float64Array(12),
    got: "a Float64Array of length 12",
    numbers: true,
  },
  {
    name: "an Int32Array",
    make: () => new Int32Array(12),
    got: "an Int32Array of length 12",
    numbers: true,
  },
  {
    name: "a Float64Array of another realm",
    make: () => runInNewContext("new Float64Array(12)"),
    got: "a Float64Array of length 12",
    numbers: true,
  },
  { name: "a buffer", make: () => new ArrayBuffer(48), got: "an ArrayBuffer" },
  {
    name: "a DataView",
    make: () => new DataView(new ArrayBuffer(48)),
    got: "a DataView",
  },
  { name: "null", make: () => null, got: "null" },
  { name: "a number", make: () => 5, got: "5" },
  { name: "text", make: () => "x", got: '"x"' },
  { name: "a symbol", make: () => Symbol("x"), got: "Symbol(x)" },
  { name: "a function", make: () => () => {}, got: "a function" },
  {
    name: "an object of its prototype",
    make: () => Object.create(Float32Array.prototype),
    got: OTHER,
  },
  { name: "a proxy of one", make: () => new Proxy(new Float32Array(12), {}), got: OTHER },
  {
    name: "a proxy that passes for one",
    // It reads the tag of the array itself.
    make: () => new Proxy(new Float32Array(12), { get: (target, key) => Reflect.get(target, key) }),
    got: OTHER,
  },
  { name: "an object that says it is one", make: () => new Pretender(), got: "a Float32Array" },
  {
    name: "one whose buffer is detached",
    make: detached,
    got: "one whose buffer is detached or too short",
  },
];

/** A call that takes a Float32Array. */
interface Use {
  readonly name: string;
  /** What its errors call that array. */
  readonly argument: string;
  /** What its errors say of an array that is one value too long. */
  readonly tooLong?: string;
  readonly call: (f: Fixture, value: unknown) => unknown;
}

const ROWS_OF_3 = "expected rows of 3 channels, got 13 values";
const VALUES_12 = "expected 12 values, got 13";
const VALUES_3 = "expected 3 values, got 4";

const USES: readonly Use[] = [
  {
    name: "train",
    argument: "x",
    tooLong: ROWS_OF_3,
    call: ({ layer, out }, x) => layer.train(wrong(x), { out }),
  },
  {
    name: "train out",
    argument: "out",
    tooLong: VALUES_12,
    call: ({ layer, x }, out) => layer.train(x, { out: wrong(out) }),
  },
  {
    name: "infer",
    argument: "x",
    tooLong: ROWS_OF_3,
    call: ({ layer, out }, x) => layer.infer(wrong(x), { out }),
  },
  {
    name: "infer out",
    argument: "out",
    tooLong: VALUES_12,
    call: ({ layer, x }, out) => layer.infer(x, { out: wrong(out) }),
  },
  {
    name: "frozen infer",
    argument: "x",
    tooLong: ROWS_OF_3,
    call: ({ layer, out }, x) => layer.freeze().infer(wrong(x), { out }),
  },
  {
    name: "frozen out",
    argument: "out",
    tooLong: VALUES_12,
    call: ({ layer, x }, out) => layer.freeze().infer(x, { out: wrong(out) }),
  },
  {
    name: "backward",
    argument: "dy",
    tooLong: VALUES_12,
    call: ({ layer, out: dx }, dy) => layer.backward(wrong(dy), { out: { dx } }),
  },
  {
    name: "backward x",
    argument: "x",
    tooLong: VALUES_12,
    call: ({ layer, dy, out: dx }, x) => layer.backward(dy, { x: wrong(x), out: { dx } }),
  },
  {
    name: "backward dx",
    argument: "out.dx",
    tooLong: VALUES_12,
    call: ({ layer, dy }, dx) => layer.backward(dy, { out: { dx: wrong(dx) } }),
  },
  {
    name: "backward dgamma",
    argument: "out.dgamma",
    tooLong: VALUES_3,
    call: ({ layer, dy, out: dx }, dgamma) =>
      layer.backward(dy, { out: { dx, dgamma: wrong(dgamma) } }),
  },
  {
    name: "backward dbeta",
    argument: "out.dbeta",
    tooLong: VALUES_3,
    call: ({ layer, dy, out: dx }, dbeta) =>
      layer.backward(dy, { out: { dx, dbeta: wrong(dbeta) } }),
  },
  { name: "free", argument: "view", call: ({ kernels }, view) => kernels.free(wrong(view)) },
];

describe.each(USES.map((use) => [use.name, use] as const))(
  "%s: not a Float32Array",
  (_, { argument, call }) => {
    refuses(
      ShapeError,
      "SHAPE",
      IMPOSTORS.map(({ name, make, got, numbers }): Row => {
        const cure = numbers ? `, as Float32Array.from(${argument}) makes` : "";
        const message = `${argument}: expected a Float32Array${cure}, got ${got}`;
        return { name, message, call: (f) => call(f, make()) };
      }),
    );
  },
);

describe("lengths", () => {
  refuses(
    ShapeError,
    "SHAPE",
    USES.flatMap(({ name, argument, tooLong, call }): Row[] => {
      if (tooLong === undefined) return [];
      const length = tooLong === VALUES_3 ? 4 : 13;
      return [
        {
          name: `${name}: a value too many`,
          message: `${argument}: ${tooLong}`,
          call: (f) => call(f, new Float32Array(length)),
        },
      ];
    }),
  );
});

const planes = () => settle(layerOf({ layout: "NCL", shape: [2, 3, 2] }));
const shaped =
  (shape: unknown): Call =>
  ({ x, out }) =>
    planes().infer(x, { shape: wrong(shape), out });
const trained =
  (shape: unknown): Call =>
  ({ layer, x, out }) =>
    layer.train(x, { shape: wrong(shape), out });

describe("shapes", () => {
  refuses(ShapeError, "SHAPE", [
    {
      name: "a value too few",
      message: "x: expected rows of 3 channels, got 11 values",
      call: ({ layer, out }) => layer.train(new Float32Array(11), { out }),
    },
    {
      name: "no shape where one is needed",
      message:
        'shape: expected the sizes of all axes for layout "NCL", as a length does not tell them, got none',
      call: ({ x, out }) => planes().infer(x, { out }),
    },
    {
      name: "shape null",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got null`,
      call: shaped(null),
    },
    {
      name: "a shape of text",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got "2,3,2"`,
      call: shaped("2,3,2"),
    },
    {
      name: "a shape of typed numbers",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got an Int32Array of length 3`,
      call: shaped(Int32Array.of(2, 3, 2)),
    },
    {
      name: "a size of text",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [2, 3, "2"]`,
      call: shaped([2, 3, "2"]),
    },
    {
      name: "a size that is a BigInt",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [2, 3, 2n]`,
      call: shaped([2, 3, 2n]),
    },
    {
      name: "a size that is a symbol",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [2, 3, Symbol(two)]`,
      call: shaped([2, 3, Symbol("two")]),
    },
    {
      name: "a size that no text can be made of",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [2, 3, an Object]`,
      call: shaped([2, 3, Object.create(null)]),
    },
    {
      name: "an axis too few",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [4, 3]`,
      call: shaped([4, 3]),
    },
    {
      name: "an axis too many",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [2, 3, 2, 1]`,
      call: shaped([2, 3, 2, 1]),
    },
    {
      name: "a negative size",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [-2, 3, -2]`,
      call: shaped([-2, 3, -2]),
    },
    {
      name: "half a size",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [0.5, 3, 8]`,
      call: shaped([0.5, 3, 8]),
    },
    {
      name: "a size NaN",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [NaN, 3, 2]`,
      call: shaped([Number.NaN, 3, 2]),
    },
    {
      name: "other channels",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [3, 2, 2]`,
      call: shaped([3, 2, 2]),
    },
    {
      name: "another size",
      message: `shape: expected sizes [N, C, L] with C = 3, 12 values in all, for layout "NCL", got [2, 3, 3]`,
      call: shaped([2, 3, 3]),
    },
    {
      name: "train: another size",
      message:
        'shape: expected sizes [N, C] with C = 3, 12 values in all, for layout "NC", got [5, 3]',
      call: trained([5, 3]),
    },
    {
      name: "train: other channels",
      message:
        'shape: expected sizes [N, C] with C = 3, 12 values in all, for layout "NC", got [3, 4]',
      call: trained([3, 4]),
    },
    {
      name: "no examples",
      message: "x: expected at least two values per channel, got a batch of zero examples",
      call: ({ layer }) => layer.train(new Float32Array(0)),
    },
    {
      name: "no positions",
      message: "x: expected at least two values per channel, got a batch of zero examples",
      call: () => planes().train(new Float32Array(0), { shape: [9, 3, 0] }),
    },
  ]);
});

describe("a list of more sizes than any shape has", () => {
  const layer = settle(layerOf({ layout: "channelsFirst", shape: [4, 3] }));
  const x = new Float32Array(12).map((_, i) => i * i);
  const shape = [4, 3, ...new Array<number>(63).fill(1)];
  const message = /^shape: expected at most 64 axes, got 65$/;
  const CALLS: readonly (readonly [string, () => unknown])[] = [
    ["train", () => layer.train(x, { shape })],
    ["infer", () => layer.infer(x, { shape })],
    ["frozen infer", () => layer.freeze().infer(x, { shape })],
    ["moments", () => layer.moments(x, { shape })],
    ["diagnose", () => diagnose(layer, x, { shape })],
    ["adapt", () => adapt(layer, x, { shape, prior: 1 })],
    ["adapter", () => adapter(layer, { prior: 1, memory: 1 }).infer(x, { shape })],
    ["four billion holes", () => layer.train(x, { shape: new Array(2 ** 32 - 1) })],
  ];
  test.each(CALLS)("%s", (_, call) => {
    assertRefuses(ShapeError, /^shape: expected at most 64 axes, got \d+$/, call, layer);
  });

  test("one of 64 is read", () => {
    layer.train(x, { shape: shape.slice(0, 64) });
    expect(layer.lastBatch!.shape).toHaveLength(64);
  });

  test("the padding of fold is named", () => {
    const frozen = new BatchNorm(2).freeze();
    const options = { kind: "conv", order: "OIHW", shape: [2, 2, 1, 1], into: "before" } as const;
    const weight = new Float32Array(4);
    const padding = new Array<number>(65).fill(0);
    assertRefuses(ShapeError, /^padding: expected at most 64 axes, got 65$/, () =>
      fold(frozen, { ...options, weight, padding }),
    );
    assertRefuses(ShapeError, message, () => fold(frozen, { ...options, weight, shape }));
  });
});
