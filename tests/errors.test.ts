// Every error that the package can throw: the class, its code, a message that names the argument, what
// was expected and what came; and a call that throws has changed nothing.

import { createContext, runInContext, runInNewContext } from "node:vm";
import type * as api from "batchnorm-wasm";
import {
  type Batch,
  BatchNorm,
  BatchNormError,
  Kernels,
  MemoryError,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
  UnsupportedError,
} from "batchnorm-wasm";
import { afterEach, describe, expect, test, vi } from "vitest";
import { layerOf, nameOf, SHAPES, settle, sizeOf, stateOf, viewOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal } from "./support/data.js";
import { fillGuards, isGuarded } from "./support/guards.js";
import { wrong } from "./support/refuse.js";

const KERNELS = new Kernels({ memory: 1 << 20 });

/** A trained layer of three channels with data of four examples, and an array nothing may touch. */
class Fixture {
  readonly kernels = KERNELS;
  readonly layer = settle(layerOf({ layout: "NC", shape: [4, 3] }, { kernels: KERNELS }));
  readonly x = normal(12, 1);
  readonly dy = normal(12, 2);
  readonly out = fillGuards(new Float32Array(12));

  constructor() {
    this.layer.train(this.x);
  }

  /** A tensor that is freed already. */
  freed(length = 12): Float32Array {
    const view = this.kernels.alloc(length);
    this.kernels.free(view);
    return view;
  }

  /** A batch of this layer whose x was overwritten in place. */
  trainInPlace(): Fixture {
    const same = this.x.slice();
    this.layer.train(same, { out: same });
    return this;
  }
}

type ErrorClass = new (message: string) => BatchNormError;
type Call = (f: Fixture) => unknown;

/** What is wrong, the argument it names, what it expects, what it says came, and the call. */
type Case = readonly [name: string, argument: string, expected: string, came: string, call: Call];

function refuses(errorClass: ErrorClass, code: string, cases: readonly Case[]): void {
  test.each(cases)("%s", (_, argument, expected, came, call) => {
    const f = new Fixture();
    const { layer } = f;
    const state = stateOf(layer);
    const last = layer.lastBatch;
    const [x, dy] = [f.x.slice(), f.dy.slice()];
    let thrown: unknown;
    try {
      call(f);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(errorClass);
    const { message, name, code: thrownCode } = thrown as BatchNormError;
    expect(message.startsWith(`${argument}: expected `), message).toBe(true);
    expect(message).toContain(`expected ${expected}`);
    expect(message).toContain(`got ${came}`);
    expect([name, thrownCode]).toEqual([errorClass.name, code]);
    expect(stateOf(layer)).toBe(state);
    expect(layer.lastBatch).toBe(last);
    expect(isGuarded(f.out)).toBe(true);
    assertSameBits("x", f.x, x);
    assertSameBits("dy", f.dy, dy);
  });
}

test("every error extends BatchNormError and Error", () => {
  for (const [Class, name] of [
    [OptionError, "OptionError"],
    [ShapeError, "ShapeError"],
    [SingleValueError, "SingleValueError"],
    [NonFiniteError, "NonFiniteError"],
    [StateError, "StateError"],
    [MemoryError, "MemoryError"],
    [UnsupportedError, "UnsupportedError"],
  ] as const) {
    const error = new Class("why");
    expect(error).toBeInstanceOf(BatchNormError);
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe(name);
    expect(error.message).toBe("why");
    expect(error.code).toMatch(/^[A-Z_]+$/);
  }
});

describe("OptionError", () => {
  const layerWith = (options: object) => () => new BatchNorm(3, options);
  const CHANNELS = "a whole number from 1 to 2^30";

  refuses(OptionError, "OPTION", [
    ["no channels", "channels", CHANNELS, "0", () => new BatchNorm(0)],
    ["negative channels", "channels", CHANNELS, "-1", () => new BatchNorm(-1)],
    ["half a channel", "channels", CHANNELS, "1.5", () => new BatchNorm(1.5)],
    ["channels NaN", "channels", CHANNELS, "NaN", () => new BatchNorm(Number.NaN)],
    ["infinite channels", "channels", CHANNELS, "Infinity", () => new BatchNorm(Infinity)],
    ["too many channels", "channels", CHANNELS, "2147483648", () => new BatchNorm(2 ** 31)],
    ["channels of text", "channels", CHANNELS, '"3"', () => new BatchNorm(wrong("3"))],
    ["channels left out", "channels", CHANNELS, "undefined", () => new BatchNorm(wrong(undefined))],
    ["channels null", "channels", CHANNELS, "null", () => new BatchNorm(wrong(null))],
    ["a bigint", "channels", CHANNELS, "3", () => new BatchNorm(wrong(3n))],

    ["options null", "options", "an object", "null", () => new BatchNorm(3, wrong(null))],
    ["a number for options", "options", "an object", "5", () => new BatchNorm(3, wrong(5))],
    ["a mistyped option", "epsilom", "an option among", '"epsilom"', layerWith({ epsilom: 1e-3 })],
    ["torch's name", "eps", "an option among", '"eps"', layerWith({ eps: 1e-3 })],
    ["momentum", "momentum", "decay, the weight of", "momentum", layerWith({ momentum: 0.9 })],
    [
      "an option that is undefined",
      "eps",
      "an option among",
      '"eps"',
      layerWith({ eps: undefined }),
    ],
    ["an unknown layout", "layout", 'one of "NC"', '"NWC"', layerWith({ layout: "NWC" })],
    ["layout null", "layout", 'one of "NC"', "null", layerWith({ layout: null })],
    ["a layout in small letters", "layout", 'one of "NC"', '"nchw"', layerWith({ layout: "nchw" })],
    ["epsilon below 0", "epsilon", "a finite number >= 0", "-1", layerWith({ epsilon: -1 })],
    ["epsilon NaN", "epsilon", "a finite number >= 0", "NaN", layerWith({ epsilon: Number.NaN })],
    [
      "epsilon infinite",
      "epsilon",
      "a finite number",
      "Infinity",
      layerWith({ epsilon: Infinity }),
    ],
    ["epsilon of text", "epsilon", "a finite number >= 0", '"1"', layerWith({ epsilon: "1" })],
    ["epsilon null", "epsilon", "a finite number >= 0", "null", layerWith({ epsilon: null })],
    ["decay 1", "decay", '0 <= decay < 1 or "cumulative"', "1", layerWith({ decay: 1 })],
    ["decay below 0", "decay", "0 <= decay < 1", "-0.1", layerWith({ decay: -0.1 })],
    ["decay NaN", "decay", "0 <= decay < 1", "NaN", layerWith({ decay: Number.NaN })],
    ["decay null", "decay", "0 <= decay < 1", "null", layerWith({ decay: null })],
    ["decay of other text", "decay", "0 <= decay < 1", '"none"', layerWith({ decay: "none" })],
    ["debias 1", "debias", "true or false", "1", layerWith({ debias: 1 })],
    ["debias null", "debias", "true or false", "null", layerWith({ debias: null })],
    ["debias of text", "debias", "true or false", '"true"', layerWith({ debias: "true" })],
    [
      "an unknown variance",
      "runningVarianceOf",
      '"sample" or "population"',
      '"biased"',
      layerWith({ runningVarianceOf: "biased" }),
    ],
    ["gamma 0", "gamma", "true or false", "0", layerWith({ gamma: 0 })],
    [
      "gamma itself",
      "gamma",
      "true or false",
      "a Float32Array of length 3",
      layerWith({ gamma: new Float32Array(3) }),
    ],
    ["beta null", "beta", "true or false", "null", layerWith({ beta: null })],
    ["kernels null", "kernels", "a Kernels", "null", layerWith({ kernels: null })],
    ["kernels of another kind", "kernels", "a Kernels", "an Object", layerWith({ kernels: {} })],
    ["the class itself", "kernels", "a Kernels", "a function", layerWith({ kernels: Kernels })],
    [
      "a fake",
      "kernels",
      "a Kernels",
      "an Object",
      layerWith({ kernels: Object.create(Kernels.prototype) }),
    ],

    [
      "train: a typo",
      "shpae",
      "an option among",
      '"shpae"',
      ({ layer, x, out }) => layer.train(x, wrong({ out, shpae: [4, 3] })),
    ],
    [
      "train: options null",
      "options",
      "an object",
      "null",
      ({ layer, x }) => layer.train(x, wrong(null)),
    ],
    [
      "train: statistics",
      "statistics",
      '"batch" or "running"',
      '"moving"',
      ({ layer, x, out }) => layer.train(x, { out, statistics: wrong("moving") }),
    ],
    [
      "train: statistics null",
      "statistics",
      '"batch" or "running"',
      "null",
      ({ layer, x, out }) => layer.train(x, { out, statistics: wrong(null) }),
    ],
    [
      "train: updateRunning 0",
      "updateRunning",
      "true or false",
      "0",
      ({ layer, x, out }) => layer.train(x, { out, updateRunning: wrong(0) }),
    ],
    [
      "train: updateRunning null",
      "updateRunning",
      "true or false",
      "null",
      ({ layer, x, out }) => layer.train(x, { out, updateRunning: wrong(null) }),
    ],
    [
      "infer: train's option",
      "statistics",
      "an option among",
      '"statistics"',
      ({ layer, x, out }) => layer.infer(x, wrong({ out, statistics: "running" })),
    ],
    [
      "infer: a typo",
      "maks",
      "an option among",
      '"maks"',
      ({ layer, x, out }) => layer.infer(x, wrong({ out, maks: new Uint8Array(4) })),
    ],
    [
      "infer: options null",
      "options",
      "an object",
      "null",
      ({ layer, x }) => layer.infer(x, wrong(null)),
    ],
    [
      "frozen: a typo",
      "otu",
      "an option among",
      '"otu"',
      ({ layer, x, out }) => layer.freeze().infer(x, wrong({ otu: out })),
    ],
    [
      "backward: a typo",
      "bacth",
      "an option among",
      '"bacth"',
      ({ layer, dy }) => layer.backward(dy, wrong({ bacth: layer.lastBatch })),
    ],
    [
      "backward: options null",
      "options",
      "an object",
      "null",
      ({ layer, dy }) => layer.backward(dy, wrong(null)),
    ],
    [
      "backward: a typo in out",
      "gamma",
      "an option among",
      '"gamma"',
      ({ layer, dy, out }) =>
        layer.backward(dy, { out: wrong({ dx: out, gamma: new Float32Array(3) }) }),
    ],
    [
      "backward: a number for out",
      "out",
      "an object",
      "5",
      ({ layer, dy }) => layer.backward(dy, { out: wrong(5) }),
    ],
    [
      "backward: out null",
      "out",
      "an object",
      "null",
      ({ layer, dy }) => layer.backward(dy, { out: wrong(null) }),
    ],
    [
      "backward: dgamma without gamma",
      "out.dgamma",
      "none",
      "a Float32Array of length 3",
      ({ x, dy, out }) => {
        const layer = new BatchNorm(3, { gamma: false });
        layer.train(x);
        layer.backward(dy, { out: { dx: out, dgamma: new Float32Array(3) } });
      },
    ],
    [
      "backward: dbeta without beta",
      "out.dbeta",
      "none",
      "a Float32Array of length 3",
      ({ x, dy, out }) => {
        const layer = new BatchNorm(3, { beta: false });
        layer.train(x);
        layer.backward(dy, { out: { dx: out, dbeta: new Float32Array(3) } });
      },
    ],

    [
      "Kernels: no memory",
      "memory",
      "1048576 to 4294967296 bytes",
      "0",
      () => new Kernels({ memory: 0 }),
    ],
    [
      "Kernels: a byte too little",
      "memory",
      "1048576 to",
      "1048575",
      () => new Kernels({ memory: (1 << 20) - 1 }),
    ],
    [
      "Kernels: too much",
      "memory",
      "1048576 to 4294967296 bytes",
      "4294967297",
      () => new Kernels({ memory: 2 ** 32 + 1 }),
    ],
    [
      "Kernels: memory NaN",
      "memory",
      "1048576 to",
      "NaN",
      () => new Kernels({ memory: Number.NaN }),
    ],
    [
      "Kernels: memory of text",
      "memory",
      "1048576 to",
      '"16 MB"',
      () => new Kernels({ memory: wrong("16 MB") }),
    ],
    [
      "Kernels: memory null",
      "memory",
      "1048576 to",
      "null",
      () => new Kernels({ memory: wrong(null) }),
    ],
    [
      "Kernels: half a byte",
      "memory",
      "1048576 to",
      "1048576.5",
      () => new Kernels({ memory: 1048576.5 }),
    ],
    ["Kernels: a typo", "bytes", "", '"bytes"', () => new Kernels(wrong({ bytes: 1 << 20 }))],
    ["Kernels: options null", "options", "an object", "null", () => new Kernels(wrong(null))],
    [
      "Kernels: a number for options",
      "options",
      "an object",
      "1048576",
      () => new Kernels(wrong(1 << 20)),
    ],
    [
      "alloc: below 0",
      "length",
      "a whole number of values >= 0",
      "-1",
      ({ kernels }) => kernels.alloc(-1),
    ],
    [
      "alloc: half a value",
      "length",
      "a whole number of values >= 0",
      "1.5",
      ({ kernels }) => kernels.alloc(1.5),
    ],
    [
      "alloc: NaN",
      "length",
      "a whole number of values >= 0",
      "NaN",
      ({ kernels }) => kernels.alloc(Number.NaN),
    ],
    [
      "alloc: nothing",
      "length",
      "a whole number of values >= 0",
      "undefined",
      ({ kernels }) => kernels.alloc(wrong(undefined)),
    ],
    [
      "alloc: a shape",
      "length",
      "a whole number of values >= 0",
      "an Array of length 2",
      ({ kernels }) => kernels.alloc(wrong([4, 3])),
    ],

    [
      "torch: keras' name",
      "epsilon",
      "an option among",
      '"epsilon"',
      () => BatchNorm.torch(3, wrong({ epsilon: 1e-3 })),
    ],
    ["torch: options null", "options", "an object", "null", () => BatchNorm.torch(3, wrong(null))],
    [
      "torch: a layout it lacks",
      "layout",
      'one of "NC", "NCL", "NCHW", "NCDHW"',
      '"NHWC"',
      () => BatchNorm.torch(3, { layout: "NHWC" }),
    ],
    [
      "keras: our name",
      "decay",
      "an option among",
      '"decay"',
      () => BatchNorm.keras(3, wrong({ decay: 0.9 })),
    ],
    [
      "onnx: affine",
      "affine",
      "an option among",
      '"affine"',
      () => BatchNorm.onnx(3, wrong({ affine: false })),
    ],
    [
      "flax: use_scale",
      "use_scale",
      "an option among",
      '"use_scale"',
      () => BatchNorm.flax(3, wrong({ use_scale: false })),
    ],
  ]);

  test("an array in place of options: out or a shape, given without its name", () => {
    const { layer, x, dy, out } = new Fixture();
    for (const given of [out, [4, 3]]) {
      expect(() => layer.train(x, wrong(given))).toThrow(OptionError);
      expect(() => layer.infer(x, wrong(given))).toThrow(OptionError);
      expect(() => layer.backward(dy, wrong(given))).toThrow(OptionError);
    }
    expect(isGuarded(out)).toBe(true);
  });
});

describe("ShapeError", () => {
  class Pretender {
    get [Symbol.toStringTag](): string {
      return "Float32Array";
    }
    readonly length = 12;
  }

  /** What is no Float32Array, and how a message calls it. */
  const IMPOSTORS: [string, () => unknown, string][] = [
    ["an array of numbers", () => [1, 2, 3], "an Array of length 3"],
    ["a Float64Array", () => new Float64Array(12), "a Float64Array of length 12"],
    ["an Int32Array", () => new Int32Array(12), "an Int32Array of length 12"],
    ["a Float64Array of another realm", () => runInNewContext("new Float64Array(12)"), "a Float64"],
    ["a buffer", () => new ArrayBuffer(48), "an ArrayBuffer"],
    ["a DataView", () => new DataView(new ArrayBuffer(48)), "a DataView"],
    ["null", () => null, "null"],
    ["a number", () => 5, "5"],
    ["text", () => "x", '"x"'],
    ["a symbol", () => Symbol("x"), "Symbol(x)"],
    ["a function", () => () => {}, "a function"],
    ["an object of its prototype", () => Object.create(Float32Array.prototype), ""],
    ["a proxy of one", () => new Proxy(new Float32Array(12), {}), ""],
    ["an object that says it is one", () => new Pretender(), ""],
    [
      "one whose buffer is detached",
      () => {
        const array = new Float32Array(12);
        structuredClone(array.buffer, { transfer: [array.buffer] });
        return array;
      },
      "one whose buffer is detached",
    ],
  ];

  const USES: [name: string, argument: string, call: (f: Fixture, value: unknown) => unknown][] = [
    ["train", "x", ({ layer, out }, x) => layer.train(wrong(x), { out })],
    ["train out", "out", ({ layer, x }, out) => layer.train(x, { out: wrong(out) })],
    ["infer", "x", ({ layer, out }, x) => layer.infer(wrong(x), { out })],
    ["infer out", "out", ({ layer, x }, out) => layer.infer(x, { out: wrong(out) })],
    ["frozen infer", "x", ({ layer, out }, x) => layer.freeze().infer(wrong(x), { out })],
    ["frozen out", "out", ({ layer, x }, out) => layer.freeze().infer(x, { out: wrong(out) })],
    ["backward", "dy", ({ layer, out: dx }, dy) => layer.backward(wrong(dy), { out: { dx } })],
    [
      "backward x",
      "x",
      ({ layer, dy, out: dx }, x) => layer.backward(dy, { x: wrong(x), out: { dx } }),
    ],
    [
      "backward dx",
      "out.dx",
      ({ layer, dy }, dx) => layer.backward(dy, { out: { dx: wrong(dx) } }),
    ],
    [
      "backward dgamma",
      "out.dgamma",
      ({ layer, dy, out: dx }, dgamma) =>
        layer.backward(dy, { out: { dx, dgamma: wrong(dgamma) } }),
    ],
    [
      "backward dbeta",
      "out.dbeta",
      ({ layer, dy, out: dx }, dbeta) => layer.backward(dy, { out: { dx, dbeta: wrong(dbeta) } }),
    ],
    ["free", "view", ({ kernels }, view) => kernels.free(wrong(view))],
  ];

  describe.each(USES)("%s: not a Float32Array", (_, argument, call) => {
    refuses(
      ShapeError,
      "SHAPE",
      IMPOSTORS.map(
        ([name, make, came]): Case => [
          name,
          argument,
          "a Float32Array",
          came,
          (f) => call(f, make()),
        ],
      ),
    );
  });

  const LENGTHS: Case[] = USES.slice(0, -1).map(([name, argument, call]) => {
    const rows = argument === "x" && !name.startsWith("backward");
    const length = argument.startsWith("out.d") && argument !== "out.dx" ? 3 : 12;
    return [
      `${name}: a value too many`,
      argument,
      rows ? "rows of 3 channels" : `${length} values`,
      `${length + 1}`,
      (f) => call(f, new Float32Array(length + 1)),
    ];
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

  refuses(ShapeError, "SHAPE", [
    ...LENGTHS,
    [
      "a value too few",
      "x",
      "rows of 3 channels",
      "11 values",
      ({ layer, out }) => layer.train(new Float32Array(11), { out }),
    ],
    [
      "no shape where one is needed",
      "shape",
      'for layout "NCL"',
      "none",
      ({ x, out }) => planes().infer(x, { out }),
    ],
    ["shape null", "shape", "3 sizes [N, C, L]", "null", shaped(null)],
    ["a shape of text", "shape", "3 sizes [N, C, L]", '"2,3,2"', shaped("2,3,2")],
    [
      "a shape of typed numbers",
      "shape",
      "3 sizes",
      "an Int32Array",
      shaped(Int32Array.of(2, 3, 2)),
    ],
    ["a size of text", "shape", "3 sizes [N, C, L]", "[2, 3, 2]", shaped([2, 3, "2"])],
    ["an axis too few", "shape", "3 sizes [N, C, L]", "[4, 3]", shaped([4, 3])],
    ["an axis too many", "shape", "3 sizes [N, C, L]", "[2, 3, 2, 1]", shaped([2, 3, 2, 1])],
    ["a negative size", "shape", "3 sizes", "[-2, 3, -2]", shaped([-2, 3, -2])],
    ["half a size", "shape", "3 sizes", "[0.5, 3, 8]", shaped([0.5, 3, 8])],
    ["a size NaN", "shape", "3 sizes", "[NaN, 3, 2]", shaped([Number.NaN, 3, 2])],
    ["other channels", "shape", '3 channels on axis 1 of "NCL"', "[3, 2, 2]", shaped([3, 2, 2])],
    ["another size", "shape", "the 12 values of x", "[2, 3, 3], which is 18", shaped([2, 3, 3])],
    ["train: another size", "shape", "the 12 values of x", "[5, 3]", trained([5, 3])],
    ["train: other channels", "shape", '3 channels on axis 1 of "NC"', "[3, 4]", trained([3, 4])],
    [
      "no examples",
      "x",
      "at least two values per channel",
      "a batch of zero",
      ({ layer }) => layer.train(new Float32Array(0)),
    ],
    [
      "no positions",
      "x",
      "at least two values per channel",
      "a batch of zero",
      () => planes().train(new Float32Array(0), { shape: [9, 3, 0] }),
    ],
  ]);

  describe("overlap", () => {
    /** Parts of one memory, `apart` values from each other. */
    const parts = (memory: Float32Array, apart: number, ...lengths: number[]): Float32Array[] =>
      lengths.map((length, i) => memory.subarray(i * apart, i * apart + length));

    const MEMORIES: [string, (length: number) => Float32Array][] = [
      ["an ordinary array", (length) => new Float32Array(length)],
      ["a shared array", (length) => new Float32Array(new SharedArrayBuffer(4 * length))],
      ["a tensor", (length) => KERNELS.alloc(length)],
    ];

    const train =
      (a: Float32Array, b: Float32Array) =>
      ({ layer }: Fixture) =>
        layer.train(a, { out: b });
    const cases = MEMORIES.flatMap(([memory, make]): Case[] => {
      const own = "memory of its own";
      const forward = parts(make(40), 11, 12, 12) as [Float32Array, Float32Array];
      const next = parts(make(40), 1, 12, 12) as [Float32Array, Float32Array];
      const [dg, db] = parts(make(40), 2, 3, 3) as [Float32Array, Float32Array];
      const all = make(12);
      for (const each of [...forward, ...next, all]) each.set(normal(12, 1));
      return [
        [
          `out before x, in ${memory}`,
          "out",
          own,
          "some of that of x",
          (f) => train(forward[1], forward[0])(f),
        ],
        [
          `out behind x, in ${memory}`,
          "out",
          own,
          "some of that of x",
          (f) => train(forward[0], forward[1])(f),
        ],
        [
          `out one value behind x, in ${memory}`,
          "out",
          own,
          "some of that of x",
          (f) => train(next[0], next[1])(f),
        ],
        [
          `infer: out behind x, in ${memory}`,
          "out",
          own,
          "some of that of x",
          ({ layer }) => layer.infer(forward[0], { out: forward[1] }),
        ],
        [
          `frozen: out before x, in ${memory}`,
          "out",
          own,
          "some of that of x",
          ({ layer }) => layer.freeze().infer(forward[1], { out: forward[0] }),
        ],
        [
          `dx behind dy, in ${memory}`,
          "out.dx",
          own,
          "some of that of dy",
          ({ layer }) => layer.backward(forward[0], { out: { dx: forward[1] } }),
        ],
        [
          `dx before dy, in ${memory}`,
          "out.dx",
          own,
          "some of that of dy",
          ({ layer }) => layer.backward(forward[1], { out: { dx: forward[0] } }),
        ],
        [
          `dx is x, in ${memory}`,
          "out.dx",
          own,
          "some of that of x",
          ({ layer, dy }) => layer.backward(dy, { x: all, out: { dx: all } }),
        ],
        [
          `dx behind x, in ${memory}`,
          "out.dx",
          own,
          "some of that of x",
          ({ layer, dy }) => layer.backward(dy, { x: forward[0], out: { dx: forward[1] } }),
        ],
        [
          `dgamma in dx, in ${memory}`,
          "out.dgamma",
          own,
          "some of that of out.dx",
          ({ layer, dy }) => layer.backward(dy, { out: { dx: all, dgamma: all.subarray(9) } }),
        ],
        [
          `dbeta in dy, in ${memory}`,
          "out.dbeta",
          own,
          "some of that of dy",
          ({ layer, out: dx }) => layer.backward(all, { out: { dx, dbeta: all.subarray(0, 3) } }),
        ],
        [
          `dbeta in x, in ${memory}`,
          "out.dbeta",
          own,
          "some of that of x",
          ({ layer, dy, out: dx }) =>
            layer.backward(dy, { x: all, out: { dx, dbeta: all.subarray(4, 7) } }),
        ],
        [
          `dbeta in dgamma, in ${memory}`,
          "out.dbeta",
          own,
          "some of that of out.dgamma",
          ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dgamma: dg, dbeta: db } }),
        ],
      ];
    });
    refuses(ShapeError, "SHAPE", [
      ...cases,
      [
        "dgamma is dbeta",
        "out.dbeta",
        "memory of its own",
        "some of that of out.dgamma",
        ({ layer, dy, out: dx }) => {
          const same = new Float32Array(3);
          layer.backward(dy, { out: { dx, dgamma: same, dbeta: same } });
        },
      ],
      [
        "dgamma is gamma",
        "out.dgamma",
        "memory of its own",
        "some of that of gamma",
        ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dgamma: layer.gamma! } }),
      ],
      [
        "dbeta is beta",
        "out.dbeta",
        "memory of its own",
        "some of that of beta",
        ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dbeta: layer.beta! } }),
      ],
      [
        "dgamma is beta",
        "out.dgamma",
        "memory of its own",
        "some of that of beta",
        ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dgamma: layer.beta! } }),
      ],
    ]);

    test("neighbours in one memory do not overlap", () => {
      for (const [, make] of MEMORIES) {
        const memory = make(36);
        memory.set(normal(36, 1));
        const { layer, dy } = new Fixture();
        const [before, x, behind] = parts(memory, 12, 12, 12, 12) as Float32Array[];
        const y = layer.infer(x!.slice());
        assertSameBits("y", layer.infer(x!, { out: before! }), y);
        assertSameBits("y", layer.infer(x!, { out: behind! }), y);
        layer.train(x!, { out: behind! });
        layer.backward(dy, { out: { dx: before! } });
      }
    });
  });
});

describe("SingleValueError", () => {
  refuses(SingleValueError, "SINGLE_VALUE", [
    [
      "one example",
      "x",
      "at least two values per channel",
      "one",
      ({ layer }) => layer.train(new Float32Array(3), { out: fillGuards(new Float32Array(3)) }),
    ],
    [
      "one example in place",
      "x",
      "at least two values per channel",
      "one",
      ({ layer, x }) => layer.train(x.subarray(0, 3), { out: x.subarray(0, 3) }),
    ],
    [
      "one example of one position",
      "x",
      "at least two values per channel",
      "one",
      ({ x, out }) => {
        const layer = new BatchNorm(12, { layout: "NCHW" });
        layer.train(x, { shape: [1, 12, 1, 1], out });
      },
    ],
  ]);

  test("says what to do instead", () => {
    const layer = new BatchNorm(3);
    expect(() => layer.train(new Float32Array(3))).toThrow(/infer.*statistics: "running"/);
  });

  test("two positions of one example are enough", () => {
    const layer = new BatchNorm(3, { layout: "NCL" });
    expect(layer.train(normal(6, 1), { shape: [1, 3, 2] }).length).toBe(6);
  });
});

describe("NonFiniteError", () => {
  const BAD = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

  describe.each(
    SHAPES.filter((each) => sizeOf(each) < 120_000).map((each) => [nameOf(each), each] as const),
  )("%s", (_, shaped) => {
    test("anywhere in x: names the channel and changes nothing", () => {
      const { shape } = shaped;
      const view = viewOf(shaped);
      const size = sizeOf(shaped);
      const layer = settle(layerOf(shaped));
      layer.train(normal(size, 2), { shape });
      const state = stateOf(layer);
      const last = layer.lastBatch;
      const x = normal(size, 1);
      const out = fillGuards(new Float32Array(size));
      // First and last value, the last of the first row or plane, and others in between.
      const row = view.inner === 1 ? view.channels : view.inner;
      const places = [0, 1, row - 1, row, size >> 2, size >> 1, size - 17, size - 2, size - 1];
      for (const [k, place] of places.filter((i) => i >= 0 && i < size).entries()) {
        const clean = x[place]!;
        x[place] = BAD[k % 3]!;
        const before = x.slice();
        const channel = Math.floor(place / view.inner) % view.channels;
        for (const into of [out, x, undefined]) {
          let thrown: unknown;
          try {
            layer.train(x, { shape, ...(into && { out: into }) });
          } catch (error) {
            thrown = error;
          }
          expect(thrown).toBeInstanceOf(NonFiniteError);
          expect((thrown as NonFiniteError).code).toBe("NON_FINITE");
          expect((thrown as NonFiniteError).message).toMatch(
            new RegExp(`^x: expected finite values .* got .* in channel ${channel}$`),
          );
        }
        assertSameBits("x", x, before);
        x[place] = clean;
      }
      expect(isGuarded(out)).toBe(true);
      expect(stateOf(layer)).toBe(state);
      expect(layer.lastBatch).toBe(last);
      // The layer works as before.
      layer.train(x, { shape, out });
      expect(out.every(Number.isFinite)).toBe(true);
    });
  });

  test("names the first four channels", () => {
    for (const channels of [9, 1500]) {
      const layer = new BatchNorm(channels);
      const x = normal(3 * channels, 1);
      const message = (): string => {
        try {
          layer.train(x);
          return "";
        } catch (error) {
          return (error as Error).message;
        }
      };
      for (const [bad, names] of [
        [channels - 1, `${channels - 1}`],
        [7, `7, ${channels - 1}`],
        [1, `1, 7, ${channels - 1}`],
        [2, `1, 2, 7, ${channels - 1}`],
        [3, "1, 2, 3, 7, …"],
      ] as const) {
        x[channels + bad] = Number.NaN;
        expect(message().endsWith(`in channel ${names}`), message()).toBe(true);
      }
    }
  });

  test("in kernel memory as well", () => {
    const { kernels, layer } = new Fixture();
    const x = kernels.alloc(12);
    const out = kernels.alloc(12).fill(7);
    x.set(normal(12, 1));
    x[5] = Number.NaN;
    expect(() => layer.train(x, { out })).toThrow(NonFiniteError);
    expect(out.every((value) => value === 7)).toBe(true);
    kernels.free(x);
    kernels.free(out);
  });

  test("values that are finite but overflow", () => {
    const layer = new BatchNorm(2);
    expect(() => layer.train(Float32Array.of(1, 3e38, 2, -3e38))).toThrow(NonFiniteError);
    expect(layer.batchesSeen).toBe(0);
  });

  test('not by the running averages: NaN passes to its own outputs of "running" and infer', () => {
    const { layer, x } = new Fixture();
    x[4] = Number.NaN;
    for (const y of [layer.infer(x), layer.train(x, { statistics: "running" })]) {
      expect([...y].map(Number.isNaN)).toEqual([...x].map(Number.isNaN));
    }
  });
});

describe("StateError", () => {
  const other = new BatchNorm(3);
  other.train(normal(12, 1));
  const VARIANCE = "finite numbers >= 0";
  const TENSOR = "a tensor of kernel memory in use";

  refuses(StateError, "STATE", [
    [
      "backward before train",
      "batch",
      "a train before backward",
      "none",
      ({ dy, out: dx }) => new BatchNorm(3).backward(dy, { out: { dx } }),
    ],
    [
      "backward before train, x or not",
      "batch",
      "a train before backward",
      "none",
      ({ dy, x }) => new BatchNorm(3).backward(dy, { x }),
    ],
    [
      "backward after reset",
      "batch",
      "a train before backward",
      "none",
      ({ dy, x }) => {
        const layer = new BatchNorm(3);
        layer.train(x);
        layer.reset();
        layer.backward(dy);
      },
    ],
    [
      "backward of a clone",
      "batch",
      "a train before backward",
      "none",
      ({ layer, dy }) => layer.clone().backward(dy),
    ],
    [
      "a batch of another layer",
      "batch",
      "a lastBatch of this layer",
      "one of another layer",
      ({ layer, dy, out: dx }) => layer.backward(dy, { batch: other.lastBatch!, out: { dx } }),
    ],
    [
      "a batch of the layer that was cloned",
      "batch",
      "a lastBatch of this layer",
      "one of another",
      ({ layer, dy }) => layer.clone().backward(dy, { batch: layer.lastBatch! }),
    ],
    [
      "a structured clone of a batch",
      "batch",
      "a lastBatch of this layer",
      "an Object",
      ({ layer, dy }) => layer.backward(dy, { batch: structuredClone(layer.lastBatch!) }),
    ],
    [
      "a batch made by hand",
      "batch",
      "a lastBatch of this layer",
      "an Object",
      ({ layer, dy }) => layer.backward(dy, { batch: { ...layer.lastBatch! } as unknown as Batch }),
    ],
    [
      "a fake batch",
      "batch",
      "a lastBatch of this layer",
      "an Object",
      ({ layer, dy }) => layer.backward(dy, { batch: Object.create(layer.lastBatch!) }),
    ],
    [
      "a number for a batch",
      "batch",
      "a lastBatch of this layer",
      "5",
      ({ layer, dy }) => layer.backward(dy, { batch: wrong(5) }),
    ],
    [
      "a batch of null",
      "batch",
      "a lastBatch of this layer",
      "null",
      ({ layer, dy }) => layer.backward(dy, { batch: wrong(null) }),
    ],

    ...[-1, -1e-300, Number.NaN, Number.POSITIVE_INFINITY].flatMap((bad): Case[] => {
      const broken = (f: Fixture): BatchNorm => {
        const layer = f.layer.clone();
        layer.runningVariance[1] = bad;
        return layer;
      };
      const came = `${bad} for channel 1`;
      return [
        [
          `infer with a variance of ${bad}`,
          "runningVariance",
          VARIANCE,
          came,
          (f) => broken(f).infer(f.x, { out: f.out }),
        ],
        [
          `freeze with a variance of ${bad}`,
          "runningVariance",
          VARIANCE,
          came,
          (f) => broken(f).freeze(),
        ],
        [
          `train by one of ${bad}`,
          "runningVariance",
          VARIANCE,
          came,
          (f) => broken(f).train(f.x, { out: f.out, statistics: "running" }),
        ],
      ];
    }),
    ...[-1, 0.5, Number.NaN, "3", null].map(
      (bad): Case => [
        `train with batchesSeen ${bad}`,
        "batchesSeen",
        "a whole number >= 0",
        typeof bad === "string" ? JSON.stringify(bad) : String(bad),
        ({ layer, x, out }) => {
          const broken = layer.clone();
          broken.batchesSeen = wrong(bad);
          broken.train(x, { out });
        },
      ],
    ),

    [
      "train on a freed tensor",
      "x",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.train(f.freed(), { out: f.out }),
    ],
    [
      "train into one",
      "out",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.train(f.x, { out: f.freed() }),
    ],
    [
      "infer of one",
      "x",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.infer(f.freed(), { out: f.out }),
    ],
    [
      "infer into one",
      "out",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.infer(f.x, { out: f.freed() }),
    ],
    [
      "a frozen layer's infer of one",
      "x",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.freeze().infer(f.freed(), { out: f.out }),
    ],
    [
      "a frozen layer's infer into one",
      "out",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.freeze().infer(f.x, { out: f.freed() }),
    ],
    [
      "a frozen layer's infer of a large one",
      "x",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.freeze().infer(f.freed(3000)),
    ],
    [
      "backward of one",
      "dy",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.backward(f.freed(), { out: { dx: f.out } }),
    ],
    [
      "backward with its x",
      "x",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.backward(f.dy, { x: f.freed(), out: { dx: f.out } }),
    ],
    [
      "backward into one",
      "out.dx",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.backward(f.dy, { out: { dx: f.freed() } }),
    ],
    [
      "backward: dgamma into one",
      "out.dgamma",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.backward(f.dy, { out: { dx: f.out, dgamma: f.freed(3) } }),
    ],
    [
      "backward: dbeta into one",
      "out.dbeta",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.backward(f.dy, { out: { dx: f.out, dbeta: f.freed(3) } }),
    ],
    [
      "backward after its x was freed",
      "x",
      TENSOR,
      "one that is freed already",
      ({ kernels, x: values, dy, out: dx }) => {
        const layer = new BatchNorm(3, { kernels });
        const x = kernels.alloc(12);
        x.set(values);
        layer.train(x);
        kernels.free(x);
        layer.backward(dy, { out: { dx } });
      },
    ],
    [
      "a part of a freed tensor",
      "x",
      TENSOR,
      "one that is freed already",
      (f) => f.layer.infer(f.freed(40).subarray(5, 17)),
    ],
    [
      "a view of the kernels' own scratch",
      "x",
      TENSOR,
      "",
      ({ layer, kernels }) => {
        const view = kernels.alloc(1);
        kernels.free(view);
        layer.infer(new Float32Array(view.buffer, 0, 12));
      },
    ],
    [
      "a view over two tensors",
      "x",
      TENSOR,
      "",
      ({ layer, kernels }) => {
        const [a, b] = [kernels.alloc(64), kernels.alloc(64)];
        try {
          layer.infer(new Float32Array(a.buffer, Math.min(a.byteOffset, b.byteOffset), 66));
        } finally {
          kernels.free(a);
          kernels.free(b);
        }
      },
    ],

    [
      "free twice",
      "view",
      "a tensor as alloc returned it",
      "one that is freed already",
      ({ kernels }) => {
        const view = kernels.alloc(12);
        kernels.free(view);
        kernels.free(view);
      },
    ],
    [
      "free the beginning of a tensor",
      "view",
      "a tensor as alloc returned it",
      "",
      ({ kernels }) => kernels.free(kernels.alloc(12).subarray(0, 6)),
    ],
    [
      "free the end of a tensor",
      "view",
      "a tensor as alloc returned it",
      "",
      ({ kernels }) => kernels.free(kernels.alloc(12).subarray(6)),
    ],
    [
      "free more than a tensor",
      "view",
      "a tensor as alloc returned it",
      "",
      ({ kernels }) => {
        const { buffer, byteOffset } = kernels.alloc(12);
        kernels.free(new Float32Array(buffer, byteOffset, 16));
      },
    ],
    [
      "free an ordinary array",
      "view",
      "a tensor of these kernels",
      "an array of other memory",
      ({ kernels }) => kernels.free(new Float32Array(12)),
    ],
    [
      "free a tensor of other kernels",
      "view",
      "a tensor of these kernels",
      "an array of other",
      ({ kernels }) => {
        const others = new Kernels({ memory: 1 << 20 });
        kernels.free(others.alloc(12));
      },
    ],
  ]);

  test("backward after an in-place train, and what to do", () => {
    const { layer, dy, out: dx } = new Fixture().trainInPlace();
    const state = stateOf(layer);
    expect(() => layer.backward(dy, { out: { dx } })).toThrow(StateError);
    expect(() => layer.backward(dy)).toThrow(/^x: expected the input of train, got none.*\{ x \}/);
    expect(stateOf(layer)).toBe(state);
    expect(isGuarded(dx)).toBe(true);
  });

  test("a train that throws leaves backward the batch before it", () => {
    for (const channels of [3, 1025, 3000]) {
      const layer = settle(new BatchNorm(channels));
      const x = normal(4 * channels, 1);
      const dy = normal(4 * channels, 2);
      layer.train(x);
      const expected = layer.backward(dy);
      const { mean, variance } = structuredClone(layer.lastBatch!);
      const nan = normal(4 * channels, 3, 5);
      nan[nan.length - 1] = Number.NaN;
      layer.train(x, { updateRunning: false });
      // Nobody asked for lastBatch since, so there may be no copy of its statistics.
      expect(() => layer.train(nan)).toThrow(NonFiniteError);
      expect(() => layer.train(nan.subarray(0, channels))).toThrow(SingleValueError);
      const kept = layer.runningVariance.slice();
      layer.runningVariance[channels - 1] = -1;
      expect(() => layer.train(nan, { statistics: "running" })).toThrow(StateError);
      layer.runningVariance.set(kept);
      assertSameBits("dx", layer.backward(dy).dx, expected.dx);
      assertSameBits("dgamma", layer.backward(dy).dgamma!, expected.dgamma!);
      expect(layer.lastBatch!.x).toBe(x);
      expect(layer.lastBatch!.statistics).toBe("batch");
      assertSameBits("mean", layer.lastBatch!.mean, mean);
      assertSameBits("variance", layer.lastBatch!.variance, variance);
    }
  });

  describe("a freed tensor whose place another has", () => {
    const { kernels, layer } = new Fixture();
    const stale = kernels.alloc(12);
    kernels.free(stale);
    const next = kernels.alloc(12).fill(7);

    test("is not freed again", () => {
      expect(next.byteOffset).toBe(stale.byteOffset);
      expect(() => kernels.free(stale)).toThrow(StateError);
      // What has the place now is still its owner's.
      expect(kernels.alloc(12).byteOffset).not.toBe(next.byteOffset);
    });

    test("is not used", () => {
      expect(() => layer.infer(stale)).toThrow(StateError);
      expect(() => layer.infer(normal(12, 1), { out: stale })).toThrow(StateError);
      expect(next.every((value) => value === 7)).toBe(true);
    });
  });
});

describe("MemoryError", () => {
  refuses(MemoryError, "MEMORY", [
    [
      "a tensor beyond the memory",
      "length",
      "to fit into 1048576 bytes",
      "262144 values",
      ({ kernels }) => kernels.alloc(262144),
    ],
  ]);

  test("tensors stay as they were, and what fits is given", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    const view = kernels.alloc(50_000).fill(7);
    expect(() => kernels.alloc(60_000)).toThrow(MemoryError);
    expect(view.every((value) => value === 7)).toBe(true);
    expect(kernels.alloc(40_000).length).toBe(40_000);
  });

  test("a memory that the runtime does not give", () => {
    const memory = vi.spyOn(WebAssembly, "Memory").mockImplementation(
      class {
        constructor() {
          throw new RangeError("could not allocate memory");
        }
      } as never,
    );
    try {
      const create = () => new Kernels({ memory: 3 << 20 });
      expect(create).toThrow(MemoryError);
      expect(create).toThrow(/^memory: expected a size that this runtime can give, got 3145728 b/);
    } finally {
      memory.mockRestore();
    }
  });
});

describe("UnsupportedError", () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
  });

  /** The package as loaded where WebAssembly is `replacement`. */
  async function loadedWhere(replacement: unknown): Promise<typeof api> {
    vi.resetModules();
    vi.stubGlobal("WebAssembly", replacement);
    return import("batchnorm-wasm");
  }

  const expectUnsupported = (fresh: typeof api, message: RegExp): void => {
    const layer = new fresh.BatchNorm(3);
    const state = JSON.stringify(layer.snapshot());
    for (const use of [
      () => layer.train(normal(12, 1)),
      () => layer.infer(normal(3000, 1)),
      () => new fresh.Kernels(),
    ]) {
      expect(use).toThrow(fresh.UnsupportedError);
      expect(use).toThrow(message);
    }
    expect(JSON.stringify(layer.snapshot())).toBe(state);
    expect(layer.lastBatch).toBeNull();
  };

  test("no WebAssembly", async () => {
    expectUnsupported(await loadedWhere(undefined), /^WebAssembly: expected .*got/);
  });

  test("no SIMD", async () => {
    const { CompileError } = WebAssembly;
    class Module {
      constructor() {
        throw new CompileError("invalid value type 's128'");
      }
    }
    const without = { ...WebAssembly, CompileError, Module, validate: () => false };
    expectUnsupported(await loadedWhere(without), /^WebAssembly: expected .*SIMD.*got/);
  });

  test("compiling forbidden: the directive that allows it", async () => {
    const context = createContext({}, { codeGeneration: { strings: true, wasm: false } });
    const forbidding = runInContext("WebAssembly", context);
    expect(() => new forbidding.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))).toThrow();
    const fresh = await loadedWhere(forbidding);
    expectUnsupported(fresh, /^WebAssembly: expected .*got/);
    expectUnsupported(fresh, /Content-Security-Policy.*'wasm-unsafe-eval'.*script-src/);
  });

  test("instances forbidden, as by WebKit: the same", async () => {
    const { CompileError } = WebAssembly;
    class Instance {
      constructor() {
        throw new CompileError("Refused to create a WebAssembly object");
      }
    }
    const { Module, Memory, validate } = WebAssembly;
    const fresh = await loadedWhere({ Module, Memory, validate, Instance });
    expectUnsupported(fresh, /Content-Security-Policy.*'wasm-unsafe-eval'.*script-src.*Refused/);
  });

  test("where it is allowed again, the same layer works", async () => {
    const fresh = await loadedWhere(undefined);
    const layer = new fresh.BatchNorm(3);
    expect(() => layer.infer(normal(3000, 1))).toThrow(fresh.UnsupportedError);
    vi.unstubAllGlobals();
    assertSameBits("y", layer.infer(normal(3000, 1)), new BatchNorm(3).infer(normal(3000, 1)));
  });
});

describe("arrays of other realms are Float32Arrays", () => {
  test("as x, dy, out, dx, dgamma and dbeta, with options and a shape of theirs", () => {
    const foreign = (length: number): Float32Array =>
      runInNewContext("new Float32Array(length)", { length });
    const { layer, x, dy } = new Fixture();
    const theirs = { x: foreign(12), dy: foreign(12) };
    expect(theirs.x).not.toBeInstanceOf(Float32Array);
    theirs.x.set(x);
    theirs.dy.set(dy);
    const reference = layer.clone();
    const out = foreign(12);
    const shape = runInNewContext("[4, 3]");
    expect(layer.train(theirs.x, { shape, out })).toBe(out);
    assertSameBits("y", out, reference.train(x));
    const into = { dx: foreign(12), dgamma: foreign(3), dbeta: foreign(3) };
    const actual = layer.backward(theirs.dy, { out: into });
    const expected = reference.backward(dy);
    for (const name of ["dx", "dgamma", "dbeta"] as const) {
      expect(actual[name]).toBe(into[name]);
      assertSameBits(name, into[name], expected[name]!);
    }
    const snapshot = runInNewContext(`(${JSON.stringify(layer.snapshot())})`);
    expect(stateOf(BatchNorm.fromSnapshot(snapshot))).toBe(stateOf(layer));
  });

  test("and so are subclasses", () => {
    class Named extends Float32Array {}
    const { layer, x } = new Fixture();
    const own = new Named(12);
    own.set(x);
    assertSameBits("y", layer.infer(own), layer.infer(x));
    expect(layer.infer(x, { out: own })).toBe(own);
  });
});
