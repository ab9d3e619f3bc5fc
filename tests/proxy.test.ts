// Reactive state puts a proxy before whatever is stored in it. Private members are those of the object alone, so none
// of ours works through one: Vue is told to leave them alone, and all else to keep the object itself.

import * as tf from "@tensorflow/tfjs-core";
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
  StateError,
} from "batchnorm-wasm";
import { FrozenBatchNorm as SmallFrozen } from "batchnorm-wasm/infer";
import { save } from "batchnorm-wasm/state";
import { TfBatchNorm } from "batchnorm-wasm/tfjs";
import { batchNormalization } from "batchnorm-wasm/tfjs-layers";
import { describe, expect, test } from "vitest";
import { normal } from "./support/data.js";
import { useBackend } from "./support/tfjs.js";

await useBackend();

const x = normal(12, 1);
const kernels = new Kernels({ memory: 1 << 20 });
const bn = new BatchNorm(3, { kernels });
bn.train(x);
const frozen = bn.freeze();
const view = kernels.alloc(3);

/** What users hold that has private members, and arguments for the methods of each. */
const HELD: readonly (readonly [string, object, Readonly<Record<string, readonly unknown[]>>])[] = [
  [
    "BatchNorm",
    bn,
    {
      train: [x],
      backward: [x],
      backwardSums: [x],
      infer: [x],
      moments: [x],
      collectInto: [null],
      setRunning: [bn.moments(x)],
      restore: [bn.snapshot()],
      setState: [bn.clone()],
    },
  ],
  ["FrozenBatchNorm", frozen, { infer: [x] }],
  [
    "FrozenBatchNorm of batchnorm-wasm/infer",
    SmallFrozen.fromJSON(frozen.toJSON()),
    { infer: [x] },
  ],
  ["Kernels", kernels, { alloc: [3], free: [view] }],
  ["Adapter", adapter(bn, { prior: 1, memory: 10 }), { infer: [x] }],
  ["TfBatchNorm", new TfBatchNorm(new BatchNorm(3)), { apply: [tf.tensor2d(x, [4, 3])] }],
];

/** What is no matter of users, or reads nothing private. */
const OTHERS = ["constructor", "itself", "__v_skip", "trainableVariables"];

/** Getters, setters and methods of an object's classes. */
function membersOf(object: object): Map<string, PropertyDescriptor> {
  const found = new Map<string, PropertyDescriptor>();
  for (let at = Object.getPrototypeOf(object); at !== Object.prototype; ) {
    for (const [name, member] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (!found.has(name) && !OTHERS.includes(name)) found.set(name, member);
    }
    at = Object.getPrototypeOf(at);
  }
  return found;
}

const REFUSAL = "this: expected the raw object (toRaw, markRaw, shallowRef), got a proxy or copy";

describe.each(HELD)("%s", (_, object, given) => {
  const members = membersOf(object);
  const argumentsOf = new Map(Object.entries(given));

  test.each([
    ["a proxy", new Proxy(object, {})],
    ["an object of its prototype", Object.create(Object.getPrototypeOf(object))],
  ])("every member of %s says that it is not the object itself", (_, other) => {
    expect(members.size).toBeGreaterThan(2);
    for (const [name, { get, set, value }] of members) {
      const uses = [
        get && (() => get.call(other)),
        set && (() => set.call(other, 1)),
        value && (() => value.call(other, ...(argumentsOf.get(name) ?? []))),
      ].filter((use) => use !== undefined);
      for (const use of uses) {
        expect(use, name).toThrow(StateError);
        expect(use, name).toThrow(REFUSAL);
      }
    }
  });

  test("Vue leaves it alone", () => {
    expect((object as { __v_skip?: unknown }).__v_skip).toBe(true);
    expect(Object.keys(object)).not.toContain("__v_skip");
  });
});

test("Vue leaves batches, moments and layers of tfjs alone as well", () => {
  for (const object of [bn.lastBatch, bn.moments(x), batchNormalization()]) {
    expect((object as { __v_skip?: unknown }).__v_skip).toBe(true);
  }
});

test("moments have nothing private, and work through a proxy", () => {
  const moments = new Proxy(bn.moments(x), {});
  expect(moments.merge(moments).count).toBe(8);
  expect([...Moments.pool([moments]).variance("sample")]).toEqual([...moments.variance("sample")]);
});

/** A proxy of an object, and one of each object that is read from it. */
const deep = <T extends object>(object: T): T =>
  new Proxy(object, {
    get(target, key) {
      const value = Reflect.get(target, key);
      return typeof value === "object" && value !== null ? deep(value) : value;
    },
  });

const sums = bn.backwardSums(x);

test.each<[string, () => unknown]>([
  ["merge", () => deep(bn.moments(x)).merge(bn.moments(x))],
  ["variance", () => deep(bn.moments(x)).variance("sample")],
  ["toJSON", () => JSON.stringify(deep(bn.moments(x)))],
  ["merge of sums", () => deep(sums).merge(sums)],
  ["toJSON of sums", () => JSON.stringify({ sums: deep(sums) })],
  ["merge of a prototype", () => Object.create(Moments.prototype).merge(bn.moments(x))],
  ["merge of a prototype of sums", () => Object.create(GradientSums.prototype).merge(sums)],
])("moments whose arrays are proxies too are told so: %s", (_, use) => {
  expect(use).toThrow(StateError);
  expect(use).toThrow(REFUSAL);
});

const OTHER = "a proxy or copy; give the raw object";

describe("arrays that are proxies", () => {
  const plain = { ...bn.moments(x) };
  const given = "expected mean, m2, meanLow of 3 channels, as fromJSON makes, got mean";
  const sumsGiven = "expected sumDy, sumDyXmu of 3 channels, as fromJSON makes, got sumDy";

  test.each<[string, () => unknown, string]>([
    ["train", () => bn.train(x, { statistics: deep(bn.moments(x)) }), `statistics: ${given}`],
    ["train, a clone", () => bn.train(x, { statistics: deep(plain) }), `statistics: ${given}`],
    ["merge", () => bn.moments(x).merge(deep(plain)), `other: ${given}`],
    ["pool", () => Moments.pool(deep([bn.moments(x)])), "parts[0]: expected mean, m2, meanLow of"],
    ["setRunning", () => bn.setRunning(deep(bn.moments(x))), `moments: ${given}`],
    [
      "fromMoments",
      () => FrozenBatchNorm.fromMoments(deep(bn.moments(x))),
      "moments: expected mean, m2, meanLow of",
    ],
    ["backward", () => bn.backward(x, { sums: deep(sums) }), `sums: ${sumsGiven}`],
    ["merge of sums", () => sums.merge(deep({ ...sums })), `other: ${sumsGiven}`],
    [
      "pool of sums",
      () => GradientSums.pool([deep(sums)]),
      "parts[0]: expected sumDy, sumDyXmu of",
    ],
  ])("in statistics: %s", (_, use, message) => {
    expect(use).toThrow(ShapeError);
    expect(use).toThrow(message);
    expect(use).toThrow(OTHER);
  });

  const x12 = deep(normal(12, 1));
  const three = deep(new Float32Array(3));
  const mask = deep(new Uint8Array(4));
  const folding = { shape: [3, 3], kind: "linear", order: "OI", into: "before" } as const;

  // tests/errors/shape.test.ts has other arguments.
  test.each<[string, () => unknown]>([
    ["x", () => bn.moments(x12)],
    ["x", () => diagnose(bn, x12)],
    ["x", () => adapt(bn, x12, { prior: 1 })],
    ["x", () => adapter(bn, { prior: 1, memory: 10 }).infer(x12)],
    ["x", () => SmallFrozen.fromJSON(frozen.toJSON()).infer(x12)],
    ["y", () => frozen.inverse(x12)],
    ["dy", () => bn.backwardSums(x12)],
    ["add", () => bn.train(x, { add: x12 })],
    ["add", () => frozen.infer(x, { add: x12 })],
    ["mask", () => bn.train(x, { mask })],
    ["mask", () => bn.infer(x, { mask })],
    ["mask", () => frozen.infer(x, { mask })],
    ["gamma", () => FrozenBatchNorm.fromMoments(bn.moments(x), { gamma: three })],
    ["beta", () => FrozenBatchNorm.fromMoments(bn.moments(x), { beta: three })],
    ["weight", () => fold(frozen, { ...folding, weight: deep(normal(9, 1)) })],
    ["bias", () => fold(frozen, { ...folding, weight: normal(9, 1), bias: three })],
  ])("as an argument: %s", (name, use) => {
    expect(use).toThrow(ShapeError);
    expect(use).toThrow(new RegExp(`^${name}: expected a (Float32|Uint8)Array.*, got ${OTHER}$`));
  });
});

describe("functions that are given a proxy say so", () => {
  const layer = new Proxy(bn, {});
  const REST = { weight: normal(9, 1), shape: [3, 3], kind: "linear", order: "OI" } as const;

  test.each<[string, () => unknown, string]>([
    ["diagnose", () => diagnose(layer, x), REFUSAL],
    ["adapt", () => adapt(layer, x, { prior: 1 }), REFUSAL],
    ["adapter", () => adapter(layer, { prior: 1, memory: 1 }), REFUSAL],
    ["save", () => save({ layer }), REFUSAL],
    ["fold", () => fold(new Proxy(frozen, {}), { ...REST, into: "before" }), REFUSAL],
    ["new BatchNorm", () => new BatchNorm(3, { kernels: new Proxy(kernels, {}) }), REFUSAL],
    ["new TfBatchNorm", () => new TfBatchNorm(layer), REFUSAL],
    [
      "FrozenBatchNorm.fromJSON",
      () => FrozenBatchNorm.fromJSON(frozen.toJSON(), { kernels: new Proxy(kernels, {}) }),
      REFUSAL,
    ],
    [
      "backward",
      () => bn.backward(x, { batch: new Proxy(bn.lastBatch!, {}) }),
      "batch: expected a lastBatch of this layer, got a proxy or copy",
    ],
  ])("%s", (_, use, message) => {
    expect(use).toThrow(StateError);
    expect(use).toThrow(message);
  });

  test("calibrate", async () => {
    const calibrating = calibrate([layer], () => {}, [0]);
    await expect(calibrating).rejects.toThrow(StateError);
    await expect(calibrating).rejects.toThrow(REFUSAL);
  });
});
