// Options are read once each, and all of them before anything else: a getter may throw, take arrays away, or call the
// layer again, and the call is still right, or has changed nothing.

import { deepStrictEqual } from "node:assert";
import {
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
  ShapeError,
} from "batchnorm-wasm";
import { readKerasFile } from "batchnorm-wasm/hdf5";
import {
  foldKeras,
  foldOnnx,
  load,
  readKeras,
  readModel,
  readOnnx,
  readTorch,
  save,
  writeKeras,
  writeOnnx,
  writeTorch,
} from "batchnorm-wasm/state";
import { startKernels } from "batchnorm-wasm/threads";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { goldenBytes } from "../support/golden.js";
import { FIRST, LAYER, READERS, type Reader } from "../support/readers.js";
import { transfer } from "../support/transfer.js";
import { OWN, Ran } from "./arrays.js";
import { C, plainOf, stateOf, type World, worldOf } from "./methods.js";

const ROWS = 12;

/** What looks at each read of a property: its path, and how many reads there were before. */
type Watch = (path: string, reads: number) => void;

/** A copy of options whose every property, those of objects and arrays in them too, is a getter that calls `watch`. */
function watched(value: unknown, watch: Watch): unknown {
  let reads = 0;
  const wrap = (part: unknown, path: string): unknown => {
    if (typeof part !== "object" || part === null || ArrayBuffer.isView(part)) return part;
    if (Array.isArray(part)) {
      return new Proxy(part, {
        get(target, key) {
          if (typeof key === "string" && /^\d+$/.test(key)) watch(`${path}.${key}`, reads++);
          return Reflect.get(target, key);
        },
      });
    }
    if (![Object.prototype, Moments.prototype].includes(Object.getPrototypeOf(part))) return part;
    const copy = {};
    for (const [key, each] of Object.entries(part)) {
      const here = path === "" ? key : `${path}.${key}`;
      const inner = wrap(each, here);
      const get = () => {
        watch(here, reads++);
        return inner;
      };
      Object.defineProperty(copy, key, { get, enumerable: true });
    }
    return copy;
  };
  return wrap(value, "");
}

interface Row {
  readonly name: string;
  /** The options, and what a getter may take away to spoil the call. */
  readonly options: (world: World) => Record<string, unknown>;
  // biome-ignore lint/suspicious/noExplicitAny: these tests pass what types forbid
  readonly call: (world: World, options: any, x: Float32Array) => unknown;
  /** Whether the result depends on nothing that another `train` changes. */
  readonly fixed?: true;
}

const x = normal(ROWS * C, 3, -1, 4);
const dy = normal(ROWS * C, 4);
const shape = [ROWS, C];
const mask = Uint8Array.from({ length: ROWS }, (_, row) => (row % 4 === 2 ? 0 : 1));
const out = () => new Float32Array(ROWS * C).fill(0.5);
const moments = () => new BatchNorm(C).moments(normal(30, 9));
const backwardOut = () => ({ dx: out(), dgamma: new Float32Array(C), dbeta: new Float32Array(C) });

const METHODS: readonly Row[] = [
  {
    name: "train",
    options: () => ({ shape, mask, out: out(), statistics: "batch", updateRunning: true }),
    call: ({ layer }, options, x) => layer.train(x, options),
  },
  {
    name: "train by moments",
    options: () => ({ shape, out: out(), statistics: { ...moments() }, updateRunning: true }),
    call: ({ layer }, options, x) => layer.train(x, options),
  },
  {
    name: "train with a residual",
    options: ({ x }) => ({ shape, mask, out: out(), add: x }),
    call: ({ block }, options, x) => block.train(x, options),
  },
  {
    name: "infer with a residual",
    options: ({ x }) => ({ shape, mask, out: out(), add: x }),
    call: ({ block }, options, x) => block.infer(x, options),
  },
  {
    name: "frozen infer with a residual",
    options: ({ x }) => ({ shape, mask, out: out(), add: x }),
    call: ({ frozen }, options, x) => frozen.infer(x, options),
  },
  {
    name: "adapter.infer with a residual",
    options: ({ x }) => ({ shape, mask, out: out(), add: x }),
    call: ({ adapter }, options, x) => adapter.infer(x, options),
  },
  {
    name: "backward with a residual",
    options: ({ block, x }) => ({
      batch: block.lastBatch,
      x,
      add: x,
      out: { ...backwardOut(), dadd: out() },
    }),
    call: ({ block }, options) => block.backward(dy, options),
  },
  {
    name: "infer",
    options: () => ({ shape, mask, out: out() }),
    call: ({ layer }, options, x) => layer.infer(x, options),
  },
  {
    name: "frozen infer",
    options: () => ({ shape, mask, out: out() }),
    call: ({ frozen }, options, x) => frozen.infer(x, options),
  },
  {
    name: "infer of the small entry",
    options: () => ({ shape, mask, out: out() }),
    call: ({ small }, options, x) => small.infer(x, options),
  },
  {
    name: "moments",
    options: () => ({ shape, mask }),
    call: ({ layer }, options, x) => layer.moments(x, options),
  },
  {
    name: "backward",
    options: ({ layer, x }) => ({ batch: layer.lastBatch, x, out: backwardOut() }),
    call: ({ layer }, options) => layer.backward(dy, options),
  },
  {
    name: "backward with sums",
    options: ({ layer, x }) => ({
      batch: layer.lastBatch,
      x,
      sums: { ...layer.backwardSums(dy) },
    }),
    call: ({ layer }, options) => layer.backward(dy, options),
  },
  {
    name: "backwardSums",
    options: ({ layer, x }) => ({ batch: layer.lastBatch, x }),
    call: ({ layer }, options) => layer.backwardSums(dy, options),
  },
  {
    name: "setRunning",
    options: () => ({ ...moments() }),
    call: ({ layer }, options) => layer.setRunning(options),
  },
  {
    name: "diagnose",
    options: () => ({ shape, mask }),
    call: ({ layer }, options, x) => diagnose(layer, x, options),
  },
  {
    name: "adapt",
    options: () => ({ prior: 4, shape, mask }),
    call: ({ layer }, options, x) => adapt(layer, x, options).toJSON(),
  },
  {
    name: "adapter",
    options: () => ({ prior: 4, memory: 9 }),
    call: ({ layer }, options) => adapter(layer, options).freeze().toJSON(),
  },
  {
    name: "adapter.infer",
    options: () => ({ shape, mask, out: out() }),
    call: ({ adapter }, options, x) => adapter.infer(x, options),
  },
  {
    name: "fold",
    options: () => ({
      weight: normal(C * 4, 5),
      bias: normal(4, 6),
      shape: [4, C, 1],
      kind: "conv",
      order: "OIL",
      groups: 1,
      padding: [0],
      strides: [1],
      into: "after",
    }),
    call: ({ frozen }, options) => fold(frozen, options),
  },
  {
    name: "new BatchNorm",
    options: () => ({
      layout: "NC",
      epsilon: 1e-3,
      decay: 0.5,
      debias: true,
      runningVarianceOf: "population",
      gamma: true,
      beta: true,
      activation: [-0.5, 2],
      renorm: { rmax: 3, dmax: 5, rmin: 0.5, decay: 0.9 },
      kernels: OWN,
    }),
    call: (_, options) => new BatchNorm(C, options).snapshot(),
  },
  {
    name: "BatchNorm.torch",
    options: () => ({ eps: 1e-3, momentum: 1e-5, affine: true, layout: "NC", kernels: OWN }),
    call: (_, options) => BatchNorm.torch(C, options).snapshot(),
  },
  {
    name: "BatchNorm.keras",
    options: () => ({
      epsilon: 1e-3,
      momentum: 0.5,
      scale: true,
      center: true,
      layout: "NC",
      kernels: OWN,
    }),
    call: (_, options) => BatchNorm.keras(C, options).snapshot(),
  },
  {
    name: "BatchNorm.onnx",
    options: () => ({ epsilon: 1e-3, momentum: 0.5, layout: "NC", kernels: OWN }),
    call: (_, options) => BatchNorm.onnx(C, options).snapshot(),
  },
  {
    name: "BatchNorm.flax",
    options: () => ({
      epsilon: 1e-3,
      momentum: 0.5,
      useScale: true,
      useBias: true,
      layout: "NC",
      kernels: OWN,
    }),
    call: (_, options) => BatchNorm.flax(C, options).snapshot(),
  },
  {
    name: "BatchNorm.fromSnapshot",
    options: () => ({ kernels: OWN }),
    call: (_, options) => BatchNorm.fromSnapshot(LAYER.snapshot(), options).snapshot(),
  },
  {
    name: "FrozenBatchNorm.fromJSON",
    options: () => ({ kernels: OWN }),
    call: ({ frozen }, options) => FrozenBatchNorm.fromJSON(frozen.toJSON(), options).toJSON(),
  },
  {
    name: "FrozenBatchNorm.fromMoments",
    options: () => ({
      layout: "NC",
      epsilon: 1e-3,
      gamma: Float32Array.of(1, -2, 3),
      beta: Float32Array.of(0, 5, -1),
      activation: [-0.5, 2],
      varianceOf: "sample",
      kernels: OWN,
    }),
    call: (_, options) => FrozenBatchNorm.fromMoments(moments(), options).toJSON(),
  },
  {
    name: "FrozenBatchNorm.fromMoments, of moments",
    options: () => ({ ...moments() }),
    call: (_, options) => FrozenBatchNorm.fromMoments(options).toJSON(),
  },
  {
    name: "inverse",
    options: () => ({ shape, out: out() }),
    call: ({ frozen }, options, x) => frozen.inverse(x, options),
  },
  {
    name: "inverse of the small entry",
    options: () => ({ shape, out: out() }),
    call: ({ small }, options, x) => small.inverse(x, options),
  },
  {
    name: "Moments.merge",
    options: () => ({ ...moments() }),
    call: ({ layer, x }, options) => layer.moments(x).merge(options).toJSON(),
  },
  {
    name: "GradientSums.pool",
    options: ({ layer }) => ({ ...layer.backwardSums(dy) }),
    call: (_, options) => GradientSums.pool([options]).toJSON(),
  },
  {
    name: "restore",
    options: ({ layer }) => ({ ...layer.snapshot() }),
    call: ({ layer }, options) => layer.restore(options),
  },
  {
    name: "BatchNorm.fromSnapshot, of the snapshot",
    options: () => ({
      ...new BatchNorm(C, {
        activation: [0, 2],
        renorm: { rmax: 3, dmax: Infinity, decay: 1 },
      }).snapshot(),
    }),
    call: (_, options) => BatchNorm.fromSnapshot(options).snapshot(),
  },
  {
    name: "new Kernels",
    options: () => ({ memory: 1 << 20 }),
    call: (_, options) => new Kernels(options).memory,
  },
];

/** The paths that are read, in order. */
function readsOf({ options, call }: Row): string[] {
  const world = worldOf(ROWS);
  const paths: string[] = [];
  call(
    world,
    watched(options(world), (path) => paths.push(path)),
    x.slice(),
  );
  return paths;
}

/** All paths of properties in options. */
function pathsIn(value: unknown, path = ""): string[] {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return [path];
  if (![Object.prototype, Array.prototype].includes(Object.getPrototypeOf(value))) return [path];
  const within = Object.entries(value).flatMap(([key, each]) =>
    pathsIn(each, path === "" ? key : `${path}.${key}`),
  );
  return path === "" ? within : [path, ...within];
}

describe.each(METHODS.map((row) => [row.name, row] as const))("%s", (_, row) => {
  test("reads each option once", () => {
    expect(readsOf(row).sort()).toEqual(pathsIn(row.options(worldOf(ROWS))).sort());
  });

  test("has changed nothing where a getter throws, whichever it is", () => {
    for (let n = readsOf(row).length - 1; n >= 0; n--) {
      const world = worldOf(ROWS);
      const options = row.options(world);
      const before = plainOf([options, stateOf(world)]);
      const { lastBatch } = world.layer;
      const own = x.slice();
      const spoiled = watched(options, (_path, reads) => {
        if (reads === n) throw new Ran();
      });
      expect(() => row.call(world, spoiled, own)).toThrow(Ran);
      deepStrictEqual(plainOf([options, stateOf(world)]), before);
      expect(world.layer.lastBatch).toBe(lastBatch);
      deepStrictEqual(own, x);
    }
  });

  test("is right where a getter calls the layer, whichever it is", () => {
    const again = ({ layer, adapter }: World): void => {
      layer.train(normal(ROWS * C, 21, 3));
      layer.infer(normal(600, 22));
      layer.moments(normal(600, 23));
      adapter.infer(normal(ROWS * C, 24));
    };
    for (let n = readsOf(row).length - 1; n >= 0; n--) {
      const [world, other] = [worldOf(ROWS), worldOf(ROWS)];
      const options = row.options(other);
      again(other);
      const right = plainOf([row.call(other, options, x.slice()), options, stateOf(other)]);
      const given = row.options(world);
      const spoiled = watched(given, (_path, reads) => {
        if (reads === n) again(world);
      });
      const answer = row.call(world, spoiled, x.slice());
      deepStrictEqual(plainOf([answer, given, stateOf(world)]), right);
      // The layer is as usable as the other one afterwards.
      for (const { layer } of [world, other]) layer.train(x);
      deepStrictEqual(plainOf(world.layer.backward(dy)), plainOf(other.layer.backward(dy)));
    }
  });
});

const OF_X = METHODS.filter(({ call }) => call.length === 3);

describe.each(OF_X.map((row) => [row.name, row] as const))("%s", (_, row) => {
  test("refuses x where a getter takes it away, whichever it is", () => {
    for (let n = readsOf(row).length - 1; n >= 0; n--) {
      const world = worldOf(ROWS);
      const options = row.options(world);
      const before = plainOf([options, stateOf(world)]);
      const own = x.slice();
      const spoiled = watched(options, (_path, reads) => {
        if (reads === n) transfer(own);
      });
      expect(() => row.call(world, spoiled, own)).toThrow(ShapeError);
      deepStrictEqual(plainOf([options, stateOf(world)]), before);
    }
  });
});

const { model: OUTSIDE, ...EXTERNAL } = READERS["readOnnx with a file beside it"].files;
const warn = () => undefined;
const loading = () => ({ momentum: 0.5, layout: "NC", onWarning: warn, kernels: OWN });

/** Functions on files, and their options; files by name among them. Each calls all that may read one of them later. */
const FILES: readonly [string, Record<string, unknown>, (options: never) => unknown][] = [
  ...Object.entries<Reader>(READERS).map(
    ([name, { files, read, needs }]): (typeof FILES)[number] => [
      `load, ${name}`,
      { ...needs, ...loading() },
      (options) => {
        const file = read(files);
        return file.load(file.layers[0]!, options);
      },
    ],
  ),
  ["save", { into: writeTorch({ LAYER }) }, (options) => save({ LAYER }, options)],
  ["load", { kernels: OWN }, (options) => load(save({ LAYER }), options)],
  ["readTorch", { key: undefined }, (options) => readTorch(writeTorch({ LAYER }), options)],
  [
    "writeTorch",
    { into: writeTorch({ LAYER }), key: undefined, onWarning: warn },
    (options) => writeTorch({ LAYER }, options),
  ],
  [
    "readOnnx",
    { external: EXTERNAL },
    (options) => {
      const file = readOnnx(OUTSIDE, options);
      return [file.load("norm_a"), file.loadAll()];
    },
  ],
  ["writeOnnx", { momentum: 0.5, external: {} }, (options) => writeOnnx({ FIRST }, options)],
  ["writeOnnx into", { into: writeOnnx({ FIRST }) }, (options) => writeOnnx({ FIRST }, options)],
  [
    "writeOnnx into a model with files",
    { into: OUTSIDE, external: EXTERNAL },
    (options) => writeOnnx(readOnnx(OUTSIDE, { external: EXTERNAL }).loadAll(), options),
  ],
  ["foldOnnx", { external: EXTERNAL }, (options) => foldOnnx(OUTSIDE, options)],
  ["readKeras", { ...writeKeras({ LAYER }) }, (options) => readKeras(options).loadAll()],
  ["writeKeras", { momentum: 0.5 }, (options) => writeKeras({ LAYER }, options)],
  ["writeKeras into", { into: writeKeras({ LAYER }) }, (options) => writeKeras({ LAYER }, options)],
  ["foldKeras", { ...writeKeras({ LAYER }) }, (options) => foldKeras(options)],
  [
    "readKerasFile",
    { config: goldenBytes("keras-files/config.json") },
    (options) => readKerasFile(goldenBytes("keras-files/big.weights.h5"), options),
  ],
  [
    "readKerasFile.load",
    { epsilon: 0.5, scale: true, center: true, ...loading() },
    (options) => {
      const file = readKerasFile(goldenBytes("keras-files/weights.h5"));
      return file.load(file.layers[0]!, options);
    },
  ],
  ["readModel", { key: undefined }, (options) => readModel(writeTorch({ LAYER }), options)],
];

test.each(FILES)("%s reads each option, and each file, once", (_, options, call) => {
  const reads: string[] = [];
  call(watched(options, (path) => reads.push(path)) as never);
  expect(reads.sort()).toEqual(pathsIn(options).sort());
});

test("startKernels reads each option once", async () => {
  const options = { memory: 1 << 20, threads: 1, worker: undefined };
  const paths: string[] = [];
  await startKernels(watched(options, (path) => paths.push(path)) as never);
  expect(paths.sort()).toEqual(Object.keys(options).sort());
});

test("calibrate reads onProgress once, before the first batch", async () => {
  const { layer } = worldOf(ROWS);
  const paths: string[] = [];
  const options = watched({ onProgress: () => undefined }, (path) => paths.push(path));
  await calibrate([layer], () => layer.train(x), [1, 2, 3], options as never);
  expect(paths).toEqual(["onProgress"]);
});

test("a shape of a subclass of Array, and one that changes while it is read", () => {
  class Shape extends Array<number> {
    constructor() {
      super();
      throw new Ran();
    }
  }
  const { layer } = worldOf(ROWS);
  const given = Object.setPrototypeOf([ROWS, C], Shape.prototype) as number[];
  const y = layer.train(x, { shape: given });
  given[0] = 99;
  expect(layer.lastBatch?.shape).toEqual([ROWS, C]);
  expect(Array.isArray(layer.lastBatch?.shape)).toBe(true);
  expect(y).toEqual(worldOf(ROWS).layer.train(x));
});

test("what somebody put on Object.prototype is no option", () => {
  Object.defineProperty(Object.prototype, "polluted", {
    value: 1,
    enumerable: true,
    configurable: true,
  });
  let y: Float32Array;
  try {
    y = worldOf(ROWS).layer.infer(x, { shape });
  } finally {
    delete (Object.prototype as { polluted?: number }).polluted;
  }
  expect(y).toEqual(worldOf(ROWS).layer.infer(x, { shape }));
});
