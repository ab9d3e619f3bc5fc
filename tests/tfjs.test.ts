/**
 * The TensorFlow.js adapter on the cpu backend (on wasm: tfjs-wasm.test.ts), against batch normalization written in tfjs' own
 * operations (tf.moments), whose gradients tfjs derives by itself.
 */

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import * as tfl from "@tensorflow/tfjs-layers";
import {
  BatchNorm,
  calibrate,
  GradientSums,
  MemoryError,
  Moments,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
  UnsupportedError,
} from "batchnorm-wasm";
import { type ApplyOptions, batchNorm, type Pool, TfBatchNorm } from "batchnorm-wasm/tfjs";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { chosen, expectClose, ownTensors, random, useBackend } from "./support/tfjs.js";

const EPSILON = 1e-5;

beforeAll(() => useBackend());

ownTensors();

/** Batch norm in tfjs operations: statistics over all axes but the channels'. */
function reference(
  x: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  { axis = x.rank - 1, running }: { axis?: number; running?: BatchNorm } = {},
): tf.Tensor {
  const broadcast = x.shape.map((size, i) => (i === axis ? size : 1));
  const others = x.shape.map((_, i) => i).filter((i) => i !== axis);
  const { mean, variance } = running
    ? {
        mean: tf.tensor(Float32Array.from(running.runningMean), broadcast),
        variance: tf.tensor(Float32Array.from(running.runningVariance), broadcast),
      }
    : tf.moments(x, others, true);
  const normalized = tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, EPSILON)));
  const scale = tf.reshape(gamma, broadcast);
  return tf.add(tf.mul(normalized, scale), tf.reshape(beta, broadcast));
}

/** A loss whose gradient is different in every element of y. */
function loss(y: tf.Tensor): tf.Scalar {
  const weights = tf.reshape(tf.sin(tf.range(0, y.size)), y.shape);
  return tf.sum(tf.mul(tf.square(y), weights)) as tf.Scalar;
}

function trainedLayer(channels: number, options: ConstructorParameters<typeof BatchNorm>[1] = {}) {
  const layer = new BatchNorm(channels, { epsilon: EPSILON, ...options });
  layer.gamma?.forEach((_, c, gamma) => {
    gamma[c] = 0.5 + c / channels;
  });
  layer.beta?.forEach((_, c, beta) => {
    beta[c] = c - 1;
  });
  layer.runningMean.forEach((_, c, mean) => {
    mean[c] = 0.25 * c;
  });
  layer.runningVariance.forEach((_, c, variance) => {
    variance[c] = 1 + 0.5 * c;
  });
  return layer;
}

/** Value and gradients of `loss(apply(x))`, in x, gamma and beta. */
function derive(norm: TfBatchNorm, x: tf.Tensor, training: boolean) {
  const variables = norm.trainableVariables;
  const input = tf.variable(x);
  const f = () => loss(norm.apply(input, { training }));
  const { value, grads } = tf.variableGrads(f, [input, ...variables]);
  return {
    value,
    dx: grads[input.name] as tf.Tensor,
    dgamma: norm.gamma && (grads[norm.gamma.name] as tf.Tensor),
    dbeta: norm.beta && (grads[norm.beta.name] as tf.Tensor),
  };
}

function deriveReference(norm: TfBatchNorm, x: tf.Tensor, axis?: number, running?: BatchNorm) {
  const gamma = tf.tensor1d(norm.layer.gamma ?? new Float32Array(norm.layer.channels).fill(1));
  const beta = tf.tensor1d(norm.layer.beta ?? new Float32Array(norm.layer.channels));
  const options = { ...(axis === undefined ? {} : { axis }), ...(running ? { running } : {}) };
  const f = (x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) =>
    loss(reference(x, gamma, beta, options));
  const { value, grads } = tf.valueAndGrads(f)([x, gamma, beta]);
  return {
    value,
    dx: grads[0] as tf.Tensor,
    dgamma: grads[1] as tf.Tensor,
    dbeta: grads[2] as tf.Tensor,
  };
}

const LAYOUTS = [
  { layout: "NC", shape: [9, 5], axis: 1 },
  { layout: "NLC", shape: [3, 7, 5], axis: 2 },
  { layout: "NCL", shape: [3, 5, 7], axis: 1 },
  { layout: "NHWC", shape: [2, 3, 4, 5], axis: 3 },
  { layout: "NCHW", shape: [2, 5, 3, 4], axis: 1 },
  { layout: "NDHWC", shape: [2, 2, 3, 2, 5], axis: 4 },
  { layout: "NCDHW", shape: [2, 5, 2, 3, 2], axis: 1 },
] as const;

describe("values and gradients", () => {
  test.each(LAYOUTS)("training, $layout", ({ layout, shape, axis }) => {
    const norm = new TfBatchNorm(trainedLayer(5, { layout }));
    const x = random([...shape], 1);
    const expected = deriveReference(norm, x, axis);
    const actual = derive(norm, x, true);
    expectClose(actual.value, expected.value);
    expectClose(actual.dx, expected.dx);
    expectClose(actual.dgamma as tf.Tensor, expected.dgamma);
    expectClose(actual.dbeta as tf.Tensor, expected.dbeta);
  });

  test.each(LAYOUTS)("test time (frozen gradient), $layout", ({ layout, shape, axis }) => {
    const norm = new TfBatchNorm(trainedLayer(5, { layout }));
    const x = random([...shape], 2);
    const expected = deriveReference(norm, x, axis, norm.layer);
    const before = norm.layer.snapshot();
    const actual = derive(norm, x, false);
    expectClose(actual.value, expected.value);
    expectClose(actual.dx, expected.dx);
    expectClose(actual.dgamma as tf.Tensor, expected.dgamma);
    expectClose(actual.dbeta as tf.Tensor, expected.dbeta);
    expect(norm.layer.snapshot()).toEqual(before);
  });

  test.each([
    { gamma: false, beta: true },
    { gamma: true, beta: false },
    { gamma: false, beta: false },
  ])("gamma: $gamma, beta: $beta", (options) => {
    const norm = new TfBatchNorm(trainedLayer(4, options));
    expect(norm.trainableVariables).toHaveLength(Number(options.gamma) + Number(options.beta));
    const x = random([11, 4], 3);
    for (const training of [true, false]) {
      const expected = deriveReference(norm, x, 1, training ? undefined : norm.layer);
      const actual = derive(norm, x, training);
      expectClose(actual.value, expected.value);
      expectClose(actual.dx, expected.dx);
      if (options.gamma) expectClose(actual.dgamma as tf.Tensor, expected.dgamma);
      else expect(actual.dgamma).toBeNull();
      if (options.beta) expectClose(actual.dbeta as tf.Tensor, expected.dbeta);
      else expect(actual.dbeta).toBeNull();
    }
  });

  test.each([true, false])("the layer's own bits, training: %s", (training) => {
    const norm = new TfBatchNorm(trainedLayer(7));
    const alone = trainedLayer(7);
    const x = random([12, 7], 5);
    const weights = random([12, 7], 6);
    const input = tf.variable(x);
    const variables = [input, ...norm.trainableVariables];
    const f = () => tf.sum(tf.mul(norm.apply(input, { training }), weights)) as tf.Scalar;
    const { grads } = tf.variableGrads(f, variables);
    alone.train(x.dataSync<"float32">(), { statistics: training ? "batch" : "running" });
    const { dx, dgamma, dbeta } = alone.backward(weights.dataSync<"float32">());
    expect(variables.map((v) => grads[v.name]?.dataSync())).toEqual([dx, dgamma, dbeta]);
  });

  test("training moves the running averages as the layer by itself does", () => {
    const alone = trainedLayer(6);
    const norm = new TfBatchNorm(trainedLayer(6));
    for (let step = 0; step < 3; step++) {
      const x = random([10, 6], 10 + step);
      const y = norm.apply(x, { training: true });
      expect(y.dataSync()).toEqual(alone.train(x.dataSync<"float32">()));
    }
    expect(norm.layer.snapshot()).toEqual(alone.snapshot());
  });

  test("a gradient moves the running averages once, updateRunning: false not at all", () => {
    const norm = new TfBatchNorm(trainedLayer(6));
    derive(norm, random([10, 6], 20), true);
    expect(norm.layer.batchesSeen).toBe(1);
    const before = norm.layer.snapshot();
    norm.apply(random([10, 6], 21), { training: true, updateRunning: false });
    expect(norm.layer.snapshot()).toEqual(before);
  });

  test("test time gives the bits of infer, with and without a gradient", () => {
    const norm = new TfBatchNorm(trainedLayer(6));
    const x = random([10, 6], 22);
    const expected = norm.layer.infer(x.dataSync<"float32">());
    expect(norm.apply(x, { training: false }).dataSync()).toEqual(expected);
    let inside: Float32Array | undefined;
    tf.grad((x: tf.Tensor) => {
      const y = norm.apply(x, { training: false });
      inside = y.dataSync<"float32">();
      return loss(y);
    })(x);
    expect(inside).toEqual(expected);
  });
});

describe("inside a network", () => {
  test("one layer used several times before its gradient", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const gamma = tf.tensor1d(norm.layer.gamma as Float32Array);
    const beta = tf.tensor1d(norm.layer.beta as Float32Array);
    const a = random([8, 3], 30);
    const b = random([5, 3], 31, -3, 0.5);
    const twice = (use: (x: tf.Tensor) => tf.Tensor) => (a: tf.Tensor, b: tf.Tensor) =>
      tf.add(
        loss(use(use(a))),
        tf.add(loss(use(b)), loss(norm.apply(b, { training: false }))),
      ) as tf.Scalar;
    const frozen = norm.layer.clone();
    const expected = tf.grads((a: tf.Tensor, b: tf.Tensor) => {
      const use = (x: tf.Tensor) => reference(x, gamma, beta);
      const running = reference(b, gamma, beta, { running: frozen });
      return tf.add(loss(use(use(a))), tf.add(loss(use(b)), loss(running))) as tf.Scalar;
    })([a, b]);
    const actual = tf.grads(twice((x) => norm.apply(x, { training: true, updateRunning: false })))([
      a,
      b,
    ]);
    expectClose(actual[0] as tf.Tensor, expected[0] as tf.Tensor);
    expectClose(actual[1] as tf.Tensor, expected[1] as tf.Tensor);
  });

  test("the gradient of a use belongs to the gamma of that use", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const gamma = tf.tensor1d(norm.layer.gamma as Float32Array);
    const beta = tf.tensor1d(norm.layer.beta as Float32Array);
    const x = random([8, 3], 32);
    const expected = tf.grad((x: tf.Tensor) => loss(reference(x, gamma, beta)))(x);
    const actual = tf.grad((x: tf.Tensor) => {
      const y = norm.apply(x, { training: true });
      norm.gamma?.assign(tf.tensor1d([7, 8, 9]));
      norm.apply(x, { training: false });
      return loss(y);
    })(x);
    expectClose(actual, expected);
    expect([...(norm.layer.gamma ?? [])]).toEqual([7, 8, 9]);
  });

  test.each([
    { name: "sgd", optimizer: () => tf.train.sgd(0.05) },
    { name: "momentum", optimizer: () => tf.train.momentum(0.02, 0.9) },
    { name: "adam", optimizer: () => tf.train.adam(0.05) },
  ])("$name trains gamma and beta as it trains the reference's", ({ optimizer }) => {
    const norm = new TfBatchNorm(trainedLayer(4));
    const gamma = tf.variable(tf.tensor1d(norm.layer.gamma as Float32Array));
    const beta = tf.variable(tf.tensor1d(norm.layer.beta as Float32Array));
    const target = random([16, 4], 40, 2, 3);
    const distance = (y: tf.Tensor) => tf.mean(tf.squaredDifference(y, target)) as tf.Scalar;
    const ours = optimizer();
    const theirs = optimizer();
    for (let step = 0; step < 20; step++) {
      const x = random([16, 4], 50 + step);
      ours.minimize(
        () => distance(norm.apply(x, { training: true })),
        false,
        norm.trainableVariables,
      );
      theirs.minimize(() => distance(reference(x, gamma, beta)), false, [gamma, beta]);
    }
    expectClose(norm.gamma as tf.Tensor, gamma);
    expectClose(norm.beta as tf.Tensor, beta);
    expect([...(norm.layer.gamma ?? [])]).not.toEqual([...(trainedLayer(4).gamma ?? [])]);
    expect(norm.layer.gamma).toEqual(norm.gamma?.dataSync());
  });

  test("optimizers find gamma and beta among tfjs' variables", () => {
    const norm = new TfBatchNorm(new BatchNorm(2), { name: "first" });
    expect(norm.gamma?.name).toBe("first/gamma");
    expect(norm.beta?.name).toBe("first/beta");
    expect(norm.gamma?.trainable).toBe(true);
    tf.train.sgd(0.1).minimize(() => loss(norm.apply(random([6, 2], 60), { training: true })));
    expect([...(norm.layer.gamma ?? [])]).not.toEqual([1, 1]);
    expect([...(norm.layer.beta ?? [])]).not.toEqual([0, 0]);
  });

  test("names are made up where none is given", () => {
    const names = [new TfBatchNorm(new BatchNorm(2)), new TfBatchNorm(new BatchNorm(2))].map(
      (norm) => norm.gamma?.name,
    );
    expect(new Set(names).size).toBe(2);
    for (const name of names) expect(name).toMatch(/^batch_norm(_\d+)?\/gamma$/);
  });

  test("names that another copy of the package has made up are passed over", () => {
    const { name } = new TfBatchNorm(new BatchNorm(2)).gamma as tf.Variable;
    const next = Number(/\d+/.exec(name)?.[0] ?? 0) + 1;
    const taken = [`batch_norm_${next}/gamma`, `batch_norm_${next + 1}/beta`].map((each) =>
      tf.variable(tf.zeros([2]), true, each),
    );
    expect(new TfBatchNorm(new BatchNorm(2)).gamma?.name).toBe(`batch_norm_${next + 2}/gamma`);
    tf.dispose(taken);
  });

  test("steps leave no tensors behind, with and without a tidy around them", () => {
    const norm = new TfBatchNorm(new BatchNorm(4));
    const optimizer = tf.train.sgd(0.1);
    const x = random([6, 4], 61);
    const step = () => {
      optimizer.minimize(() => loss(norm.apply(x, { training: true })));
      tf.tidy(() => {
        tf.tidy(() => norm.apply(norm.apply(x, { training: true }), { training: false }));
        tf.grad((x: tf.Tensor) => loss(tf.tidy(() => norm.apply(x, { training: false }))))(x);
      });
      norm.apply(x, { training: false }).dispose();
      norm.layer.gamma?.fill(2);
      norm.layer.freeze();
    };
    step();
    const { numTensors, numDataBuffers } = tf.memory();
    for (let i = 0; i < 10; i++) step();
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(tf.memory().numDataBuffers).toBe(numDataBuffers);
  });

  test("the input is left as it is", () => {
    const norm = new TfBatchNorm(trainedLayer(4));
    const x = random([6, 4], 62);
    const before = x.dataSync().slice();
    derive(norm, x, true);
    norm.apply(x, { training: false });
    expect(x.dataSync()).toEqual(before);
  });
});

describe("a part of a mini-batch, pooled with the others", () => {
  test("values and gradients of the whole", () => {
    const x = random([8, 3], 11) as tf.Tensor2D;
    const norm = new TfBatchNorm(trainedLayer(3));
    const other = trainedLayer(3);
    const whole = trainedLayer(3);
    const { gamma, beta } = norm as { gamma: tf.Tensor; beta: tf.Tensor };

    const weights = tf.reshape(tf.sin(tf.range(0, x.size)), x.shape) as tf.Tensor2D;
    const y = reference(x, gamma, beta) as tf.Tensor2D;
    const dy = tf.mul<tf.Tensor2D>(tf.mul(2, y), weights);
    const [dx, dgamma, dbeta] = tf.grads((x, gamma, beta) => loss(reference(x, gamma, beta)))([
      x,
      gamma,
      beta,
    ]);
    whole.train(x.dataSync<"float32">());

    const first = (t: tf.Tensor) => tf.slice(t, [0, 0], [5, 3]) as tf.Tensor2D;
    const last = (t: tf.Tensor) => tf.slice(t, [5, 0]).dataSync<"float32">();
    const theirs = last(x);
    const pool: Pool = {
      moments(own) {
        const pooled = Moments.pool([own, other.moments(theirs)]);
        other.train(theirs, { statistics: pooled });
        return pooled;
      },
      sums(own) {
        const sums = other.backwardSums(last(dy));
        return GradientSums.pool([own, sums]);
      },
    };
    const apply = (part: tf.Tensor2D) => norm.apply(part, { training: true, pool });
    const part = first(x);
    const { value, grads } = tf.valueAndGrads((part) => {
      const product = tf.mul(tf.square(apply(part as tf.Tensor2D)), first(weights));
      return tf.sum(product) as tf.Scalar;
    })([part]);
    const expected = tf.sum(first(tf.mul(tf.square(y), weights)));
    expectClose(value, expected);
    expectClose(grads[0]!, first(dx!));
    expect(norm.layer.batchesSeen).toBe(1);
    norm.layer.runningMean.forEach((mean, c) => {
      expect(mean).toBeCloseTo(whole.runningMean[c]!, 12);
    });

    // Of gamma and beta: of the whole mini-batch.
    const { grads: named } = tf.variableGrads(() => {
      const product = tf.mul(tf.square(apply(part)), first(weights));
      return tf.sum(product) as tf.Scalar;
    });
    expectClose(named[norm.gamma!.name]!, dgamma!);
    expectClose(named[norm.beta!.name]!, dbeta!);
  });
});

describe("activation and residual, one operation with one gradient", () => {
  // On wasm, tfjs copies what it saves for a gradient. It takes the second copy for a leak, but frees it with the first.
  beforeAll(() => tf.env().set("IS_TEST", chosen.backend !== "wasm"));
  afterAll(() => tf.env().set("IS_TEST", true));

  const limited = (y: tf.Tensor, low: number, high: number) => tf.minimum(tf.maximum(y, low), high);
  const CASES = [
    { name: "relu", activation: "relu" as const, low: 0, high: 1e30, residual: false },
    { name: "a residual", activation: null, low: -1e30, high: 1e30, residual: true },
    {
      name: "a residual and relu",
      activation: "relu" as const,
      low: 0,
      high: 1e30,
      residual: true,
    },
    {
      name: "a residual and limits",
      activation: [-1, 2] as const,
      low: -1,
      high: 2,
      residual: true,
    },
  ];

  describe.each(CASES)("$name", ({ activation, low, high, residual }) => {
    test.each([
      { layout: "NC", shape: [9, 5], axis: 1 },
      { layout: "NHWC", shape: [2, 3, 4, 5], axis: 3 },
      { layout: "NCHW", shape: [2, 5, 3, 4], axis: 1 },
    ] as const)(
      "$layout: values and gradients of the separate operations",
      ({ layout, shape, axis }) => {
        const norm = new TfBatchNorm(trainedLayer(5, { layout, activation }));
        const [x, add] = [random([...shape], 51), random([...shape], 52)] as const;
        const [gamma, beta] = norm.trainableVariables.map((v) => tf.tensor1d(v.dataSync()));
        for (const training of [true, false]) {
          const running = training ? {} : { running: norm.layer.clone() };
          const separate = (x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, add?: tf.Tensor) => {
            const y = reference(x, gamma, beta, { axis, ...running });
            return loss(limited(add ? tf.add(y, add) : y, low, high));
          };
          const inputs = [x, gamma!, beta!, ...(residual ? [add] : [])];
          const expected = tf.valueAndGrads(separate as (...of: tf.Tensor[]) => tf.Scalar)(inputs);
          const xs = [tf.variable(x), tf.variable(add)] as const;
          const fused = () =>
            loss(norm.apply(xs[0], { training, ...(residual && { add: xs[1] }) }));
          const variables = [xs[0], ...norm.trainableVariables, ...(residual ? [xs[1]] : [])];
          const actual = tf.variableGrads(fused, variables);
          expectClose(actual.value, expected.value);
          variables.forEach(({ name }, i) => {
            expectClose(actual.grads[name]!, expected.grads[i]!);
          });
          // Test time has the bits of infer.
          if (training) continue;
          const y = norm.apply(x, { training, ...(residual && { add }) });
          const of = residual ? { add: add.dataSync<"float32">() } : {};
          expect(y.dataSync()).toEqual(
            norm.layer.infer(x.dataSync<"float32">(), { shape: [...shape], ...of }),
          );
        }
      },
    );
  });

  test("the gradient of a use belongs to the gamma and beta of that use", () => {
    const norm = new TfBatchNorm(trainedLayer(3, { activation: "relu" }));
    const [gamma, beta] = norm.trainableVariables.map((v) => tf.tensor1d(v.dataSync()));
    const x = random([8, 3], 53);
    const expected = tf.grad((x: tf.Tensor) =>
      loss(tf.relu(reference(x, gamma as tf.Tensor, beta as tf.Tensor))),
    )(x);
    const actual = tf.grad((x: tf.Tensor) => {
      const y = norm.apply(x, { training: true });
      norm.beta?.assign(tf.tensor1d([7, 8, -9]));
      norm.apply(x, { training: false });
      return loss(y);
    })(x);
    expectClose(actual, expected);
    expect([...(norm.layer.beta ?? [])]).toEqual([7, 8, -9]);
  });

  test("pooled over parts, as the whole", () => {
    const [norm, other] = [0, 1].map(
      () => new TfBatchNorm(trainedLayer(3, { activation: "relu" })),
    );
    const whole = new TfBatchNorm(trainedLayer(3, { activation: "relu" }));
    const [x, add] = [random([8, 3], 54), random([8, 3], 55)] as [tf.Tensor2D, tf.Tensor2D];
    const parts = (t: tf.Tensor2D) => tf.split(t, [5, 3]) as [tf.Tensor2D, tf.Tensor2D];
    const run = (norm: TfBatchNorm, x: tf.Tensor, add: tf.Tensor, pool?: Pool) =>
      tf.valueAndGrads((x, add) =>
        tf.sum(tf.square(norm.apply(x, { training: true, add, ...(pool && { pool }) }))),
      )([x, add]);
    const expected = run(whole, x, add);
    const [xs, adds] = [parts(x), parts(add)];
    const theirs = { x: xs[1].dataSync<"float32">(), add: adds[1].dataSync<"float32">() };
    const pool: Pool = {
      moments(own) {
        const pooled = Moments.pool([own, other!.layer.moments(theirs.x)]);
        other!.layer.train(theirs.x, { statistics: pooled, add: theirs.add });
        return pooled;
      },
      sums(own) {
        const y = other!.layer.train(theirs.x, {
          statistics: other!.layer.lastBatch!.statistics as Moments,
          add: theirs.add,
          updateRunning: false,
        });
        const dy = y.map((value) => 2 * value);
        return GradientSums.pool([own, other!.layer.backwardSums(dy)]);
      },
    };
    const actual = run(norm!, xs[0], adds[0], pool);
    actual.grads.forEach((grad, i) => {
      expectClose(grad, parts(expected.grads[i] as tf.Tensor2D)[0]);
    });
  });

  test("lastBatch refers to neither tensor, and nothing is left behind", () => {
    const norm = new TfBatchNorm(trainedLayer(3, { activation: "relu" }));
    const [x, add] = [random([6, 3], 56), random([6, 3], 57)] as const;
    const step = () =>
      tf.tidy(() => tf.grads((x, add) => loss(norm.apply(x, { training: true, add })))([x, add]));
    tf.dispose(step());
    expect([norm.layer.lastBatch?.x, norm.layer.lastBatch?.add]).toEqual([null, null]);
    const { numTensors, numDataBuffers } = tf.memory();
    for (let i = 0; i < 4; i++) tf.dispose(step());
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(tf.memory().numDataBuffers).toBe(numDataBuffers);
  });

  test("a residual is found where memory has grown before the gradient is taken", () => {
    const norm = new TfBatchNorm(trainedLayer(3, { activation: "relu" }));
    const [x, add] = [random([50, 3], 58), random([50, 3], 59)];
    const of = (before: () => void) =>
      tf.grads((x, add) => {
        const y = loss(norm.apply(tf.mul(x, 1), { training: true, add: tf.mul(add, 1) }));
        before();
        return y;
      })([x!, add!]);
    const expected = of(() => {}).map((grad) => grad.dataSync().slice());
    expect(of(grow).map((grad) => grad.dataSync())).toEqual(expected);
  });

  test("a residual that does not fit is refused", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = random([6, 3], 60);
    const apply = (add: unknown) => () => norm.apply(x, { training: true, add: add as tf.Tensor });
    expect(apply(random([1, 3], 61))).toThrow("add: expected shape [6, 3], got [1, 3]");
    expect(apply(tf.zeros([6, 3], "int32"))).toThrow(
      "add: expected a tensor of float32, got int32",
    );
    expect(apply([1, 2])).toThrow("add: expected a tf.Tensor, got an Array of length 2");
    expect(apply(1)).toThrow(OptionError);
    expect(norm.layer.batchesSeen).toBe(0);
  });
});

describe("gamma and beta, on both sides", () => {
  test("freeze, infer and snapshot see what tfjs wrote", () => {
    const norm = new TfBatchNorm(new BatchNorm(2));
    norm.gamma?.assign(tf.tensor1d([3, 4]));
    norm.beta?.assign(tf.tensor1d([-1, 1]));
    const x = Float32Array.of(0, 0, 1, 1);
    const expected = norm.layer.infer(x);
    expect(expected[0]).toBeCloseTo(-1, 4);
    expect(expected[3]).toBeCloseTo(5, 4);
    expect(norm.layer.freeze().infer(x)).toEqual(expected);
    expect(BatchNorm.fromSnapshot(norm.layer.snapshot()).infer(x)).toEqual(expected);
  });

  test("what is written into the layer reaches the variables", () => {
    const norm = new TfBatchNorm(new BatchNorm(2));
    const saved = trainedLayer(2).snapshot();
    norm.layer.restore(saved);
    const y = norm.apply(tf.tensor2d([[0, 0]]), { training: false });
    expect(y.dataSync()).toEqual(BatchNorm.fromSnapshot(saved).infer(new Float32Array(2)));
    expect(norm.gamma?.dataSync()).toEqual(trainedLayer(2).gamma);
    expect(norm.beta?.dataSync()).toEqual(trainedLayer(2).beta);
  });

  test("where both were written the variable wins", () => {
    const norm = new TfBatchNorm(new BatchNorm(2));
    const layer = norm.layer;
    norm.gamma?.assign(tf.tensor1d([3, 4]));
    layer.gamma?.fill(9);
    expect([...(norm.layer.gamma ?? [])]).toEqual([3, 4]);
  });

  test("the variables have arrays of their own", () => {
    const layer = new BatchNorm(2);
    const norm = new TfBatchNorm(layer);
    layer.gamma?.fill(5);
    expect([...(norm.gamma?.dataSync() ?? [])]).toEqual([1, 1]);
  });

  test("dispose frees the variables and leaves the layer with their values", () => {
    const { numTensors } = tf.memory();
    const norm = new TfBatchNorm(new BatchNorm(2));
    tf.tidy(() => norm.gamma?.assign(tf.tensor1d([3, 4])));
    norm.dispose();
    norm.dispose();
    expect([...(norm.layer.gamma ?? [])]).toEqual([3, 4]);
    expect(norm.gamma?.isDisposed).toBe(true);
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(() => norm.apply(tf.zeros([3, 2]), { training: false })).toThrow(StateError);
  });
});

describe("variables that are given", () => {
  const given = (values: number[]) => tf.variable(tf.tensor1d(values));

  test("win over the layer, follow it, and are followed", () => {
    const layer = new BatchNorm(2, { decay: 0.5 });
    const gamma = given([3, 4]);
    const movingMean = given([1, 2]);
    const movingVariance = given([4, 9]);
    const norm = new TfBatchNorm(layer, { variables: { gamma, movingMean, movingVariance } });
    expect(norm.gamma).toBe(gamma);
    expect([...layer.runningMean, ...layer.runningVariance]).toEqual([1, 2, 4, 9]);
    expect([...(layer.gamma ?? [])]).toEqual([3, 4]);

    norm.apply(tf.tensor2d([0, 0, 2, 0.2], [2, 2]), { training: true });
    expect([...movingMean.dataSync()]).toEqual([1, Math.fround(1.05)]);
    expect(layer.runningMean[1]).toBeCloseTo(1.05, 7); // 0.2 is a float32
    expect(layer.batchesSeen).toBe(1);
    const before = layer.runningMean[1];
    norm.apply(tf.zeros([1, 2]), { training: false });
    expect(layer.runningMean[1]).toBe(before); // not rounded by the way through the variable

    movingVariance.assign(tf.tensor1d([1, 16]));
    expect([...norm.layer.runningVariance]).toEqual([1, 16]);
    layer.runningMean.fill(-1);
    norm.apply(tf.zeros([1, 2]), { training: false });
    expect([...movingMean.dataSync()]).toEqual([-1, -1]);
  });

  test("averages from elsewhere count as seen", () => {
    const movingMean = given([0, 0]);
    const norm = new TfBatchNorm(new BatchNorm(2), { variables: { movingMean } });
    expect(norm.layer.batchesSeen).toBe(0);
    movingMean.assign(tf.tensor1d([1, 2]));
    expect(norm.layer.batchesSeen).toBe(1);
  });

  test("stay when the adapter is disposed", () => {
    const gamma = given([3, 4]);
    const norm = new TfBatchNorm(new BatchNorm(2), { variables: { gamma } });
    norm.dispose();
    expect(gamma.isDisposed).toBe(false);
    expect(norm.beta?.isDisposed).toBe(true);
  });

  test("are refused where they do not fit", () => {
    const create = (variables: object, options = {}) => {
      return () => new TfBatchNorm(new BatchNorm(2, options), { variables });
    };
    expect(create({ gamma: given([1, 2, 3]) })).toThrow(ShapeError);
    expect(create({ gamma: given([1]) })).toThrow("variables.gamma: expected shape [2], got [1]");
    expect(create({ beta: tf.zeros([2]) })).toThrow("variables.beta: expected a tf.Variable, got");
    expect(create({ mean: given([1, 2]) })).toThrow('movingVariance, got "mean"');
    expect(create({ gamma: given([1, 2]) }, { gamma: false })).toThrow("since gamma is left out");
    expect(create({ beta: tf.variable(tf.zeros([2], "int32")) })).toThrow("float32, got int32");
  });
});

/** Makes the wasm backend's memory grow, so that views of it are detached. */
function grow(): void {
  if (chosen.backend !== "wasm") return;
  const heap = () =>
    (tf.backend() as tf.KernelBackend & { wasm: { HEAPU8: Uint8Array } }).wasm.HEAPU8;
  const before = heap();
  tf.zeros([before.length / 4]).dispose();
  expect(heap().length).toBeGreaterThan(before.length);
  expect(before.length).toBe(0);
}

describe("the values of tensors", () => {
  test("stay tfjs' own: lastBatch does not refer to them", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = random([6, 3], 80);
    norm.apply(x, { training: true });
    expect(norm.layer.lastBatch?.x).toBe(null);
    expect(norm.layer.lastBatch?.count).toBe(6);
    const dy = new Float32Array(18).fill(1);
    expect(() => norm.layer.backward(dy)).toThrow(StateError);
    expect(() => norm.layer.backward(dy)).toThrow("x: expected the input of train, got none");
    norm.layer.backward(dy, { x: x.dataSync<"float32">() });
  });

  test("are found where memory has grown, and moved, before the gradient is taken", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = random([50, 3], 81);
    const expected = tf.grad((x: tf.Tensor) => loss(norm.apply(x, { training: true })))(x);
    const actual = tf.grad((x: tf.Tensor) => {
      const y = loss(norm.apply(tf.mul(x, 1), { training: true }));
      grow();
      return y;
    })(x);
    expect(actual.dataSync()).toEqual(expected.dataSync());
  });

  test.runIf(chosen.backend === "wasm")("are found where dx itself makes memory grow", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = random([50, 3], 84);
    const gradient = tf.grad((x: tf.Tensor) => loss(norm.apply(x, { training: true })));
    const backend = tf.backend() as unknown as { makeOutput(...of: unknown[]): tf.TensorInfo };
    const { makeOutput } = backend;
    let [made, grown, ofDx] = [0, 0, 0];
    backend.makeOutput = (...of) => {
      if (++made === grown) grow();
      return makeOutput.call(backend, ...of);
    };
    const backward = vi.spyOn(norm.layer, "backward").mockImplementation((...of) => {
      ofDx = made;
      return BatchNorm.prototype.backward.apply(norm.layer, of);
    });
    try {
      const expected = gradient(x).dataSync().slice();
      [made, grown] = [0, ofDx];
      expect(gradient(x).dataSync()).toEqual(expected);
      expect(ofDx).toBe(grown);
    } finally {
      backend.makeOutput = makeOutput;
      backward.mockRestore();
    }
  });

  test.each(["int32", "bool"] as const)(
    "of %s, cast to float32, which the cpu backend keeps as they are",
    (dtype) => {
      const norm = new TfBatchNorm(trainedLayer(2));
      const x = tf.tensor2d([1, 0, 1, 1], [2, 2], dtype);
      const expected = norm.layer.infer(Float32Array.of(1, 0, 1, 1));
      expect(norm.apply(tf.cast(x, "float32"), { training: false }).dataSync()).toEqual(expected);
    },
  );

  test("of another backend come along", async () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const [other] = ["cpu", "wasm"].filter((name) => name !== chosen.backend) as ["cpu" | "wasm"];
    await useBackend(other);
    const x = random([5, 3], 82);
    const values = x.dataSync<"float32">().slice();
    await useBackend();
    expect(norm.apply(x, { training: false }).dataSync()).toEqual(norm.layer.infer(values));
  });

  test.runIf(chosen.backend === "wasm")("have no room: an error, and nothing is written", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = random([5, 3], 83);
    const backend = tf.backend() as unknown as { makeOutput(...of: unknown[]): tf.TensorInfo };
    const { makeOutput } = backend;
    // What tfjs' own malloc gives when it fails: address 0.
    backend.makeOutput = (shape, dtype) => makeOutput.call(backend, shape, dtype, 0);
    try {
      expect(() => norm.apply(x, { training: true })).toThrow(MemoryError);
      expect(() => norm.apply(x, { training: false })).toThrow(
        "x: expected room for 15 more values in tfjs, got none",
      );
    } finally {
      backend.makeOutput = makeOutput;
    }
    expect(norm.layer.batchesSeen).toBe(0);
    norm.apply(x, { training: true });
  });

  test("of a call that throws leave nothing behind", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = tf.tensor2d([Number.NaN, 1, 2, 3, 4, 5], [2, 3]);
    const { numTensors, numDataBuffers } = tf.memory();
    expect(() => norm.apply(x, { training: true })).toThrow(NonFiniteError);
    expect(() => tf.grad(() => loss(norm.apply(x, { training: true })))(x)).toThrow(NonFiniteError);
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(tf.memory().numDataBuffers).toBe(numDataBuffers);
  });
});

describe("batchNorm by given statistics (see also tfjs-published.test.ts)", () => {
  const channel = (values: number[]) => tf.tensor1d(values);
  const mean = () => channel([1, -1, 0.5]);
  const variance = () => channel([2, 0.5, 1]);

  test.each([[[7, 3]], [[2, 5, 3]], [[2, 3, 4, 3]], [[2, 2, 2, 2, 3]], [[3]]])("%j", (shape) => {
    const x = random(shape, 90);
    const args = [x, mean(), variance(), channel([1, 2, 3]), channel([0.5, -2, 1])];
    const apply =
      (normalize: typeof batchNorm) =>
      (...all: tf.Tensor[]) => {
        const [x, mean, variance, offset, scale] = all as [
          tf.Tensor,
          tf.Tensor,
          tf.Tensor,
          ...tf.Tensor[],
        ];
        return loss(normalize(x, mean, variance, offset, scale, 0.01));
      };
    const formula = (...[x, mean, variance, offset, scale, e]: Parameters<typeof batchNorm>) => {
      const deviations = tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, e as number)));
      return tf.add(tf.mul(deviations, scale as tf.Tensor), offset as tf.Tensor);
    };
    const actual = tf.valueAndGrads(apply(batchNorm))(args);
    const expected = tf.valueAndGrads(apply(formula as typeof batchNorm))(args);
    expectClose(actual.value, expected.value);
    actual.grads.forEach((grad, i) => {
      expectClose(grad, expected.grads[i] as tf.Tensor);
    });
  });

  test.each([
    { name: "[1, …, C]", x: [2, 3, 4, 3], mean: [1, 1, 1, 3], others: [3] },
    { name: "[1, C]", x: [7, 3], mean: [1, 3], others: [1, 3] },
    { name: "scalars", x: [7, 3], mean: [], others: [] },
    { name: "[1] among [C]", x: [7, 3], mean: [1], others: [3] },
    { name: "[N, 1]", x: [7, 3], mean: [7, 1], others: [3] },
    { name: "[1, C, 1, 1]", x: [2, 3, 4, 3], mean: [1, 3, 1, 1], others: [1, 3, 1, 1] },
    { name: "the shape of x and [C]", x: [7, 3], mean: [7, 3], others: [3] },
    { name: "one value", x: [], mean: [], others: [] },
  ])("broadcasts $name", ({ x: shape, mean: means, others }) => {
    const x = random(shape, 96);
    const positive = (seed: number, of: number[]) => tf.add(0.5, tf.abs(random(of, seed)));
    const args = [x, random(means, 101), positive(98, others)];
    args.push(random(others, 99), random(others, 100));
    const formula = (x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, ...rest: tf.Tensor[]) => {
      const [offset, scale] = rest as [tf.Tensor, tf.Tensor];
      const deviations = tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, 1e-3)));
      return tf.add(tf.mul(deviations, scale), offset);
    };
    const of = (f: typeof formula) =>
      tf.valueAndGrads((...all: tf.Tensor[]) => loss(f(...(all as Parameters<typeof formula>))));
    const actual = of(batchNorm as unknown as typeof formula)(args);
    const expected = of(formula)(args);
    expectClose(actual.value, expected.value);
    actual.grads.forEach((grad, i) => {
      expectClose(grad, expected.grads[i]!);
    });
  });

  test("numbers", () => {
    expectClose(batchNorm([[1, 2, 3]], 1, 4, 10, 3, 0), tf.tensor2d([[10, 11.5, 13]]));
    expectClose(batchNorm(5, 1, 4, null, null, 0), tf.scalar(2));
    const [one, four] = [Int32Array.of(1, 1), Uint8Array.of(4, 4)];
    expectClose(batchNorm([[3, 5]], one, four, null, null, 0), tf.tensor2d([[1, 2]]));
  });

  test("variance and epsilon 0: beta, and gradients of 0", () => {
    const of = (x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) =>
      batchNorm(x, mean, variance, [5, 6, 7], null, 0);
    const args = [random([4, 3], 95), mean(), tf.zeros([3])] as const;
    expect([...of(...args).dataSync()]).toEqual([5, 6, 7, 5, 6, 7, 5, 6, 7, 5, 6, 7]);
    const grads = tf.grads((...all) => of(...(all as unknown as typeof args)))([...args]);
    for (const grad of grads) expect(tf.max(tf.abs(grad)).dataSync()[0]).toBe(0);
  });

  test("epsilon is 1e-3 where left out, as in tfjs", () => {
    const x = random([4, 3], 91);
    const expected = tf.batchNorm(x, mean(), variance());
    expectClose(batchNorm(x, mean(), variance()), expected, 1e-6);
    expectClose(batchNorm(x, mean(), variance(), null, null, null), expected, 1e-6);
  });

  test("no examples", () => {
    expect(batchNorm(tf.zeros([0, 3]), mean(), variance()).shape).toEqual([0, 3]);
  });

  test("leaves no tensors behind", () => {
    const x = random([4, 3], 92);
    const [m, v] = [mean(), variance()];
    const { numTensors } = tf.memory();
    batchNorm(x, m, v, [1, 2, 3]).dispose();
    tf.dispose(tf.grads((x, m, v) => loss(batchNorm(x, m, v)))([x, m, v]));
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  test("a second derivative is refused", () => {
    const first = tf.grad((x: tf.Tensor) => loss(batchNorm(x, mean(), variance())));
    const second = tf.grad((x: tf.Tensor) => tf.sum(tf.square(first(x))));
    expect(() => second(random([4, 3], 93))).toThrow(UnsupportedError);
  });

  test("errors name the argument", () => {
    const x = random([4, 3], 94);
    const text = ["a", "b", "c"] as unknown as tf.Tensor;
    expect(() => batchNorm({} as tf.Tensor, mean(), variance())).toThrow("x: expected a tf.Tensor");
    expect(() => batchNorm(x, text, variance())).toThrow("mean: expected a tensor of float32, got");
    expect(() => batchNorm(x, channel([1, 2]), variance())).toThrow(
      "mean: expected a shape that broadcasts to [4, 3], got [2]",
    );
    expect(() => batchNorm(x, tf.zeros([1, 4, 3]), variance())).toThrow("got [1, 4, 3]");
    expect(() => batchNorm(x, mean(), channel([1, 2]))).toThrow("variance: expected a shape that");
    const negative = () => batchNorm(x, mean(), channel([1, -2, 1]));
    expect(negative).toThrow(StateError);
    expect(negative).toThrow("variance: expected finite numbers >= 0, got -2 at 1");
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => batchNorm(x, mean(), channel([1, 1, value]))).toThrow(
        `variance: expected finite numbers >= 0, got ${value} at 2`,
      );
    }
    expect(() => batchNorm(x, mean(), variance(), [1, 2])).toThrow("offset: expected a sh");
    expect(() => batchNorm(x, mean(), variance(), null, [1, 2])).toThrow("scale: expected a sh");
    expect(() => batchNorm(x, mean(), variance(), null, null, -1)).toThrow("varianceEpsilon");
    const none = undefined as unknown as tf.Tensor;
    expect(() => batchNorm(x, mean(), none)).toThrow("variance: expected a tf.Tensor, got undef");
    const wide = new Float64Array(3) as unknown as tf.TensorLike;
    expect(() => batchNorm(wide, mean(), variance())).toThrow(ShapeError);
    expect(() => batchNorm(wide, mean(), variance())).toThrow("x: expected what tf.tensor takes");
  });
});

describe("errors", () => {
  test("a tensor that does not fit the layout", () => {
    const norm = new TfBatchNorm(new BatchNorm(3, { layout: "NHWC" }));
    for (const training of [true, false]) {
      expect(() => norm.apply(tf.zeros([4, 3]), { training })).toThrow(ShapeError);
      expect(() => norm.apply(tf.zeros([2, 3, 4, 4]), { training })).toThrow(ShapeError);
      expect(() => norm.apply(tf.zeros([2, 3, 4, 4]), { training })).toThrow(/2, ?3, ?4, ?4/);
    }
    expect(norm.layer.batchesSeen).toBe(0);
  });

  test("no tensor of float32", () => {
    const norm = new TfBatchNorm(new BatchNorm(2));
    expect(() => norm.apply(tf.zeros([3, 2], "int32"), { training: false })).toThrow(
      "x: expected a tensor of float32, got int32",
    );
    const array = new Float32Array(4) as unknown as tf.Tensor;
    expect(() => norm.apply(array, { training: false })).toThrow(
      "x: expected a tf.Tensor, got a Float32Array of length 4",
    );
    expect(() => norm.apply(array, { training: false })).toThrow(ShapeError);
  });

  test("in a layers model, each place names the layer that belongs there", () => {
    const make = () => new TfBatchNorm(new BatchNorm(2)) as unknown as tfl.layers.Layer;
    const named = "batchNormalization() of batchnorm-wasm/tfjs-layers";
    expect(() => tfl.sequential().add(make())).toThrow(OptionError);
    expect(() => tfl.sequential().add(make())).toThrow(named);
    const model = tfl.sequential({ layers: [tfl.layers.dense({ units: 2, inputShape: [3] })] });
    expect(() => model.add(make())).toThrow(ShapeError);
    expect(() => model.add(make())).toThrow(named);
  });

  test("options that are unknown or of another type, and what is no layer", () => {
    const norm = new TfBatchNorm(new BatchNorm(2));
    const x = tf.zeros([3, 2]);
    const apply = (options: object) => () => norm.apply(x, options as ApplyOptions);
    expect(apply({ trainig: true })).toThrow(OptionError);
    expect(apply({ trainig: true })).toThrow(
      'trainig: expected an option among training, updateRunning, add, pool, got "trainig"',
    );
    expect(apply({ training: 1 })).toThrow("training: expected a boolean, got 1");
    for (const none of [{}, { training: undefined }, { updateRunning: false }, undefined, null]) {
      expect(apply(none as object)).toThrow(OptionError);
      expect(apply(none as object)).toThrow(
        "training: expected true in a training step, false at test time, got none",
      );
    }
    expect(norm.layer.batchesSeen).toBe(0);
    expect(apply(7 as unknown as object)).toThrow(
      "options: expected an object { training, updateRunning, add, pool }, got 7",
    );
    expect(apply({ training: true, pool: {} })).toThrow(
      "pool: expected functions moments and sums, got an Object",
    );
    const create = (layer: unknown, options = {}) => {
      return () => new TfBatchNorm(layer as BatchNorm, options);
    };
    expect(create(64)).toThrow("layer: expected a BatchNorm; a layers model takes");
    expect(create(undefined)).toThrow(
      "batchNormalization() of batchnorm-wasm/tfjs-layers, got und",
    );
    expect(create(new BatchNorm(2).freeze())).toThrow(OptionError);
    expect(create(new BatchNorm(2), { name: 5 })).toThrow("name: expected a string, got 5");
    expect(create(new BatchNorm(2), null as unknown as object)).toThrow(OptionError);
  });

  test("one value per channel, or NaN, in training: nothing moves", () => {
    const norm = new TfBatchNorm(trainedLayer(2));
    const before = norm.layer.snapshot();
    expect(() => norm.apply(tf.zeros([1, 2]), { training: true })).toThrow(SingleValueError);
    const x = tf.tensor2d([
      [1, Number.NaN],
      [2, 3],
    ]);
    expect(() => norm.apply(x, { training: true })).toThrow(NonFiniteError);
    expect(norm.layer.snapshot()).toEqual(before);
  });

  test("a second derivative is refused, where it passes through the layer", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const x = random([5, 3], 70);
    for (const training of [true, false]) {
      const first = tf.grad((x: tf.Tensor) => loss(norm.apply(x, { training })));
      const second = tf.grad((x: tf.Tensor) => tf.sum(tf.square(first(x))));
      expect(() => second(x)).toThrow(UnsupportedError);
      expect(() => second(x)).toThrow(/gradient of a gradient/);
    }
  });

  test("a gradient inside another that does not pass through the layer", () => {
    const norm = new TfBatchNorm(trainedLayer(3));
    const other = random([5, 3], 71);
    const outer = tf.grad((w: tf.Tensor) => {
      const dx = tf.grad((x: tf.Tensor) => loss(norm.apply(x, { training: true })))(other);
      return tf.add(tf.sum(tf.square(w)), tf.mul(0, tf.sum(dx)));
    });
    expectClose(outer(tf.tensor1d([1, 2])), tf.tensor1d([2, 4]));
  });

  test.each(["webgl", "webgpu"])("the %s backend is refused", async (name) => {
    const norm = new TfBatchNorm(new BatchNorm(2));
    const x = tf.zeros([3, 2]);
    class FakeBackend extends tf.KernelBackend {
      override dispose(): void {}
    }
    tf.registerBackend(name, () => new FakeBackend());
    try {
      await tf.setBackend(name);
      expect(() => norm.apply(x, { training: false })).toThrow(UnsupportedError);
      expect(() => norm.apply(x, { training: true })).toThrow(`got "${name}"`);
      expect(() => new TfBatchNorm(new BatchNorm(2))).toThrow('await tf.setBackend("wasm")');
      expect(() => new TfBatchNorm(new BatchNorm(2))).toThrow(
        "new TfBatchNorm: expected a tfjs ba",
      );
      const given = () => batchNorm([1, 2], 0, 1);
      expect(given).toThrow("batchNorm: expected a tfjs backend with its data in main memory");
      expect(given).toThrow(
        'no gradient of conv2d: train convolutions on "cpu", or in Node on "tensorflow"',
      );
    } finally {
      await tf.setBackend(chosen.backend);
      tf.removeBackend(name);
    }
    expect(norm.apply(x, { training: false }).shape).toEqual([3, 2]);
  });
});

test("inside a calibrate there is no gradient, and an earlier batch is left as it was", async () => {
  const norm = new TfBatchNorm(new BatchNorm(2));
  const x = random([4, 2], 1);
  const earlier = Float32Array.of(1, 2, 3, 5);
  norm.layer.train(earlier);
  const derive = () => tf.grad((t) => loss(norm.apply(t, { training: true })))(x);
  await expect(calibrate([norm.layer], derive, [0])).rejects.toThrow(
    new StateError(
      "apply: expected gradients outside calibrate, whose training calls keep no batch, got one inside",
    ),
  );
  expect(norm.layer.lastBatch?.x).toBe(earlier);
  expect(derive().shape).toEqual([4, 2]);
});
