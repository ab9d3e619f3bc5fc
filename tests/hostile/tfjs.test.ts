// The TensorFlow.js adapter: arrays that tensors were made of, options with getters, and calls that throw half way.

import * as tf from "@tensorflow/tfjs-core";
import {
  BatchNorm,
  type GradientSums,
  type Moments,
  OptionError,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import { type ApplyOptions, batchNorm, TfBatchNorm } from "batchnorm-wasm/tfjs";
import { batchNormalization, normalization } from "batchnorm-wasm/tfjs-layers";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { useBackend } from "../support/tfjs.js";
import { transfer } from "../support/transfer.js";
import { Ran, RIGHT } from "./arrays.js";

beforeAll(() => useBackend());
beforeEach(() => tf.engine().startScope());
afterEach(() => {
  tf.engine().endScope();
  tf.disposeVariables();
});

const values = Array.from(normal(12, 1));
const x = () => tf.tensor2d(values, [4, 3]);

/** The cpu backend keeps the array that a tensor is made of. */
const over = (way: string): tf.Tensor2D =>
  tf.tensor2d(RIGHT[way]!("Float32Array", values) as Float32Array, [4, 3]);

test.each(["a part", "a matrix", "resizable", "shared"])("a tensor over an array %s", (way) => {
  const [norm, other] = [new TfBatchNorm(new BatchNorm(3)), new TfBatchNorm(new BatchNorm(3))];
  const y = norm.apply(over(way), { training: true });
  assertSameBits(
    "y",
    y.dataSync<"float32">(),
    other.apply(x(), { training: true }).dataSync<"float32">(),
  );
  assertSameBits("mean", norm.layer.runningMean, other.layer.runningMean);
});

test("a tensor whose array was transferred away: ShapeError, and nothing moves", () => {
  const array = Float32Array.from(values);
  const norm = new TfBatchNorm(new BatchNorm(3));
  const before = JSON.stringify(norm.layer);
  const gone = tf.tensor2d(array, [4, 3]);
  transfer(array);
  for (const training of [true, false]) {
    expect(() => norm.apply(gone, { training })).toThrow(ShapeError);
  }
  const three = tf.tensor1d([1, 1, 1]);
  expect(() => batchNorm(gone, three, three)).toThrow(ShapeError);
  expect(JSON.stringify(norm.layer)).toBe(before);
});

test("a layer whose array was transferred away: StateError", () => {
  const layer = new BatchNorm(3);
  const norm = new TfBatchNorm(layer);
  transfer(layer.runningMean);
  expect(() => norm.apply(x(), { training: true })).toThrow(StateError);
  const tensors = tf.memory().numTensors;
  expect(() => new TfBatchNorm(layer)).toThrow(StateError);
  expect(tf.memory().numTensors).toBe(tensors);
});

test("a name of which a half is taken: OptionError, and nothing is left behind", () => {
  tf.variable(tf.tensor1d([1, 2]), true, "half/beta");
  const before = [tf.memory().numTensors, Object.keys(tf.engine().registeredVariables)];
  const layer = new BatchNorm(2);
  expect(() => new TfBatchNorm(layer, { name: "half" })).toThrow(OptionError);
  expect(() => new TfBatchNorm(layer, { name: "half" })).toThrow(
    'name: expected one that is new to tfjs, got "half/beta", which a variable has',
  );
  expect([tf.memory().numTensors, Object.keys(tf.engine().registeredVariables)]).toEqual(before);
  // What the layer does not need is not made, so it may be taken.
  new TfBatchNorm(new BatchNorm(2, { beta: false }), { name: "half" });
});

describe("options with getters", () => {
  test("are read once, and nothing has changed where one throws", () => {
    for (const broken of ["training", "updateRunning", ""]) {
      const norm = new TfBatchNorm(new BatchNorm(3));
      const before = JSON.stringify(norm.layer);
      const reads: string[] = [];
      const option = (name: string) => ({
        enumerable: true,
        get() {
          reads.push(name);
          if (name === broken || reads.length > 2) throw new Ran();
          return true;
        },
      });
      const options = Object.defineProperties({} as ApplyOptions, {
        training: option("training"),
        updateRunning: option("updateRunning"),
      });
      if (broken === "") norm.apply(x(), options);
      else expect(() => norm.apply(x(), options)).toThrow(Ran);
      expect(JSON.stringify(norm.layer) === before).toBe(broken !== "");
    }
  });

  test("of the constructor are read once", () => {
    const reads: string[] = [];
    const option = (name: string, value: unknown) => ({
      enumerable: true,
      get() {
        reads.push(name);
        return value;
      },
    });
    const gamma = tf.variable(tf.tensor1d([1, 2, 3]));
    const variables = Object.defineProperties({}, { gamma: option("gamma", gamma) });
    const options = { name: option("name", "once"), variables: option("variables", variables) };
    const norm = new TfBatchNorm(new BatchNorm(3), Object.defineProperties({}, options));
    expect(reads.sort()).toEqual(["gamma", "name", "variables"]);
    expect(norm.gamma).toBe(gamma);
    expect(norm.beta?.name).toBe("once/beta");
  });
});

describe("a call that throws takes nothing over from the variables", () => {
  const make = () => {
    const layer = new BatchNorm(3);
    const variable = (v: number) => tf.variable(tf.tensor1d([v, v, v]), false);
    const variables = { movingMean: variable(0), movingVariance: variable(1) };
    const norm = new TfBatchNorm(layer, { variables });
    return { layer, norm, variables };
  };

  test("a negative variance at test time", () => {
    const { layer, norm, variables } = make();
    const before = JSON.stringify(layer);
    variables.movingMean.assign(tf.tensor1d([5, 5, 5]));
    variables.movingVariance.assign(tf.tensor1d([1, -1, 1]));
    for (let i = 0; i < 2; i++) {
      expect(() => norm.apply(x(), { training: false })).toThrow(StateError);
      expect(JSON.stringify(layer)).toBe(before);
    }
    variables.movingVariance.assign(tf.tensor1d([4, 4, 4]));
    const y = norm.apply(x(), { training: false }).dataSync();
    expect(y[0]).toBeCloseTo((values[0]! - 5) / 2, 4);
    expect(layer.batchesSeen).toBe(1);
  });

  test("NaN in training, while both sides were written", () => {
    const { layer, norm } = make();
    layer.beta!.fill(3);
    norm.gamma!.assign(tf.tensor1d([7, 7, 7]));
    const before = JSON.stringify(layer);
    expect(() => norm.apply(tf.fill([4, 3], Number.NaN), { training: true })).toThrow();
    expect(JSON.stringify(layer)).toBe(before);
    expect(Array.from(norm.beta!.dataSync())).toEqual([0, 0, 0]);
    norm.apply(x(), { training: true });
    expect(Array.from(layer.gamma!)).toEqual([7, 7, 7]);
    expect(Array.from(norm.beta!.dataSync())).toEqual([3, 3, 3]);
  });
});

test.each(["mean", "variance", "offset", "scale"])(
  "batchNorm: %s may be an array of any disguise, and none of its code runs",
  (name) => {
    const given: Record<string, unknown> = {
      x: x(),
      mean: Float32Array.of(1, 2, 3),
      variance: Float32Array.of(4, 5, 6),
      offset: Float32Array.of(0, 1, 0),
      scale: Float32Array.of(1, 2, 1),
    };
    const call = ({ x, mean, variance, offset, scale }: typeof given) =>
      batchNorm(
        x as tf.Tensor2D,
        mean as never,
        variance as never,
        offset as never,
        scale as never,
      ).dataSync<"float32">();
    const expected = call(given);
    for (const way of Object.keys(RIGHT)) {
      const disguised = RIGHT[way]!("Float32Array", Array.from(given[name] as Float32Array));
      assertSameBits(way, call({ ...given, [name]: disguised }), expected);
    }
  },
);

test("the functions of a pool are read once", () => {
  let reads = 0;
  const layer = new BatchNorm(3);
  const pool = {
    get moments() {
      reads++;
      return (own: Moments) => own;
    },
    get sums() {
      reads++;
      return (own: GradientSums) => own;
    },
  };
  const norm = new TfBatchNorm(layer);
  tf.grad((t) => norm.apply(t, { training: true, pool }))(x());
  expect(reads).toBe(2);
});

describe("a layer of a layers model", () => {
  test("behind a proxy: StateError that says to keep the raw object", () => {
    const layer = batchNormalization();
    layer.apply(x());
    const proxy = new Proxy(layer, {});
    const uses: (() => unknown)[] = [
      () => proxy.apply(x()),
      () => proxy.call(x()),
      () => proxy.batchNorm,
      () => proxy.trainableWeights,
      () => proxy.nonTrainableWeights,
      () => proxy.weights,
      () => new Proxy(batchNormalization(), {}).build([null, 3]),
    ];
    for (const use of uses) {
      expect(use).toThrow(StateError);
      expect(use).toThrow(/^this: expected the raw object \(toRaw, .*got a proxy or copy$/);
    }
  });

  test("Normalization behind a proxy: the same", async () => {
    const proxy = new Proxy(normalization(), {});
    const uses = [
      async () => proxy.apply(x()),
      async () => proxy.call(x()),
      async () => proxy.build([null, 3]),
      async () => proxy.getConfig(),
      () => proxy.adapt(x()),
    ];
    for (const use of uses) {
      await expect(use()).rejects.toThrow(StateError);
      await expect(use()).rejects.toThrow(
        /^this: expected the raw object \(toRaw, .*got a proxy or copy$/,
      );
    }
  });

  test("an axis that is no number: OptionError", () => {
    for (const axis of ["1", true, [[1]], { valueOf: () => 1 }, Symbol("axis"), 1n]) {
      const layer = normalization({ axis: axis as never });
      expect(() => layer.build([null, 3])).toThrow(OptionError);
      expect(() => layer.build([null, 3])).toThrow(
        /^axis: expected axes of known size in \[null, 3\]/,
      );
    }
  });

  test("an option out of range: OptionError each time, and nothing is made", () => {
    const { numTensors } = tf.memory();
    const variables = Object.keys(tf.engine().registeredVariables);
    const layer = batchNormalization({ momentum: 2 });
    for (let i = 0; i < 2; i++) {
      expect(() => tf.tidy(() => void layer.apply(x()))).toThrow(OptionError);
      expect(layer.built).toBe(false);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(Object.keys(tf.engine().registeredVariables)).toEqual(variables);
  });
});
