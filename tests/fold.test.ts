// `fold`, against running both layers one after the other in float64.

import {
  BatchNorm,
  type Folded,
  type FoldOptions,
  FrozenBatchNorm,
  fold,
  Kernels,
  OptionError,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { layerOf, seeds, settle } from "./support/cases.js";
import { assertSameBits, assertWithin } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import { guardedCopy } from "./support/guards.js";
import * as oracle from "./support/oracle.js";
import { check } from "./support/property.js";

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

// ---- the layers, naively ----------------------------------------------------------------------

/** Values [channels, D, H, W]; axes that a layer does not have are 1. */
interface Tensor {
  channels: number;
  size: number[];
  data: Float64Array;
}

const positions = ([d, h, w]: number[]): number[][] =>
  range(d).flatMap((i) => range(h).flatMap((j) => range(w).map((k) => [i, j, k])));

const indexIn = ({ size }: Tensor, c: number, at: number[]): number =>
  ((c * size[0] + at[0]) * size[1] + at[1]) * size[2] + at[2];

/** A linear or convolution layer as its framework has it. */
interface Layer extends Pick<FoldOptions, "kind" | "order" | "shape"> {
  groups: number;
  stride: number;
  dilation: number;
  pad: number;
}

const sizeAlong = ({ order, shape }: Layer, letter: string): number =>
  order.includes(letter) ? shape[order.indexOf(letter)] : 1;

/** The spatial axes of the layer, in the order of the alphabet, and "-" for those it lacks. */
function spatialOf({ order }: Layer): string[] {
  const letters = [...order].filter((letter) => letter !== "O" && letter !== "I").sort();
  return [...letters, "-", "-", "-"].slice(0, 3);
}

const kernelSize = (layer: Layer): number[] => spatialOf(layer).map((l) => sizeAlong(layer, l));

/** W[o, i, tap] by the letters of the axes. */
function weightAt(layer: Layer, weight: ArrayLike<number>, o: number, i: number, tap: number[]) {
  const where: Record<string, number> = { O: o, I: i };
  for (const [axis, letter] of spatialOf(layer).entries()) where[letter] = tap[axis];
  let at = 0;
  for (const [axis, letter] of [...layer.order].entries()) {
    at = at * layer.shape[axis] + where[letter];
  }
  return weight[at];
}

const insOf = (layer: Layer): number =>
  sizeAlong(layer, "I") * (layer.kind === "convTranspose" ? 1 : layer.groups);
const outsOf = (layer: Layer): number =>
  sizeAlong(layer, "O") * (layer.kind === "convTranspose" ? layer.groups : 1);

/** The layer on one example; axes that it lacks are neither strided nor padded. */
function apply(layer: Layer, w: ArrayLike<number>, b: ArrayLike<number>, x: Tensor): Tensor {
  const { stride, dilation, pad, groups } = layer;
  const kernel = kernelSize(layer);
  const used = spatialOf(layer).map((letter) => letter !== "-");
  const strides = used.map((is) => (is ? stride : 1));
  const pads = used.map((is) => (is ? pad : 0));
  const reach = kernel.map((k) => (k - 1) * dilation + 1);
  const transposed = layer.kind === "convTranspose";
  const size = x.size.map((n, a) =>
    transposed
      ? (n - 1) * strides[a] - 2 * pads[a] + reach[a]
      : Math.floor((n + 2 * pads[a] - reach[a]) / strides[a]) + 1,
  );
  const channels = outsOf(layer);
  const y: Tensor = { channels, size, data: new Float64Array(channels * product(size)) };
  for (const o of range(channels)) {
    for (const at of positions(size)) y.data[indexIn(y, o, at)] = b[o];
  }
  const [insEach, outsEach] = [insOf(layer) / groups, channels / groups];
  for (const g of range(groups)) {
    for (const o of range(outsEach)) {
      for (const i of range(insEach)) {
        for (const tap of positions(kernel)) {
          // PyTorch: conv weight [out, in/groups, …], transposed [in, out/groups, …].
          const value = transposed
            ? weightAt(layer, w, o, g * insEach + i, tap)
            : weightAt(layer, w, g * outsEach + o, i, tap);
          // A convolution reads at position·stride + tap; the transposed one writes there.
          for (const near of positions(transposed ? x.size : size)) {
            const far = near.map((n, a) => n * strides[a] + tap[a] * dilation - pads[a]);
            const bounds = transposed ? size : x.size;
            if (far.some((n, a) => n < 0 || n >= bounds[a])) continue;
            const [to, from] = transposed ? [far, near] : [near, far];
            y.data[indexIn(y, g * outsEach + o, to)] +=
              value * x.data[indexIn(x, g * insEach + i, from)];
          }
        }
      }
    }
  }
  return y;
}

/** The batch norm as the paper writes it, on one example. */
function normalize(bn: BatchNorm, x: Tensor): Tensor {
  const view = { outer: 1, channels: x.channels, inner: product(x.size) };
  const { runningMean, runningVariance, epsilon, gamma, beta } = bn;
  const xhat = oracle.standardize(x.data, view, runningMean, runningVariance, epsilon);
  return { ...x, data: oracle.affine(xhat, view, gamma, beta) };
}

const absolute = (values: ArrayLike<number>): Float64Array => Float64Array.from(values, Math.abs);

/** One example for a layer, a few positions larger than its kernel. */
function exampleFor(layer: Layer, seed: number): Tensor {
  const size = spatialOf(layer).map((letter) =>
    letter === "-" ? 1 : (sizeAlong(layer, letter) - 1) * layer.dilation + 1 + (seed % 3),
  );
  const channels = insOf(layer);
  return { channels, size, data: Float64Array.from(normal(channels * product(size), seed + 2)) };
}

/** Folds, and throws unless the one layer does what both did, to float32 rounding of the terms. */
function checkFold(
  bn: BatchNorm,
  layer: Layer,
  into: "before" | "after",
  biased: boolean,
  seed: number,
  padding?: FoldOptions["padding"],
  strides?: FoldOptions["strides"],
) {
  const { shape, order, kind, groups } = layer;
  const given = normal(product(shape), seed);
  const weight = guardedCopy(given, 1);
  const bias = biased ? normal(outsOf(layer), seed + 1) : null;
  const before = JSON.stringify([bn.snapshot(), bias]);
  const folded = fold(bn.freeze(), {
    weight: weight.array,
    shape,
    order,
    kind,
    into,
    ...(biased || seed % 2 ? { bias } : {}),
    ...(groups > 1 || seed % 3 ? { groups } : {}),
    ...(padding === undefined ? {} : { padding }),
    ...(strides === undefined ? {} : { strides }),
  });
  weight.assertIntact();
  assertSameBits("weight", weight.array, given);
  expect(JSON.stringify([bn.snapshot(), bias])).toBe(before);
  expect(folded.bias.length).toBe(outsOf(layer));
  expect(folded.weight.buffer).not.toBe(weight.array.buffer);
  assertFolded(folded, bn, layer, into, given, bias, exampleFor(layer, seed));
  return folded;
}

/** On one example, with float64 as the oracle has it. */
function assertFolded(
  folded: Folded,
  bn: BatchNorm,
  layer: Layer,
  into: "before" | "after",
  weight: Float32Array,
  bias: Float32Array | null,
  x: Tensor,
): void {
  const b = bias ?? new Float64Array(outsOf(layer));
  const both =
    into === "before"
      ? normalize(bn, apply(layer, weight, b, x))
      : apply(layer, weight, b, normalize(bn, x));
  const one = apply(layer, folded.weight, folded.bias, x);
  expect(one.size).toEqual(both.size);
  const terms = apply(layer, absolute(folded.weight), absolute(folded.bias), {
    ...x,
    data: absolute(x.data),
  });
  // A few roundings to float32, 6e-8 each, of the terms that meet in an output, the layer's own
  // (mean and beta of the order of 1) among them.
  assertWithin("y", one.data, both.data, (i) => 5e-7 * (2 + terms.data[i]));
  expect(folded.maxDifference).toBeLessThan(2e-5);
}

const linear = (order: string, shape: number[]): Layer => ({
  kind: "linear",
  order,
  shape,
  groups: 1,
  stride: 1,
  dilation: 1,
  pad: 0,
});

const conv = (
  order: string,
  shape: number[],
  more: Partial<Layer> = {},
  kind: Layer["kind"] = "conv",
): Layer => ({ ...linear(order, shape), kind, ...more });

/** A layer of random averages, gamma and beta. */
const bnOf = (channels: number, seed: number, options: { gamma?: boolean; beta?: boolean } = {}) =>
  settle(layerOf({ layout: "NC", shape: [1, channels] }, options, seed), seed);

/** One that maps 0 to 0. */
function steady(channels: number, seed: number): BatchNorm {
  const bn = bnOf(channels, seed, { beta: false });
  bn.runningMean.fill(0);
  return bn;
}

// ---- properties -------------------------------------------------------------------------------

const SPATIAL = ["L", "W", "H", "HW", "DH", "DHW", "LHW"] as const;

/** Any linear or convolution layer of a few hundred weights. */
const layers = (kinds: readonly Layer["kind"][]): fc.Arbitrary<Layer> =>
  fc
    .record({
      kind: fc.constantFrom(...kinds),
      letters: fc.constantFrom(...SPATIAL),
      shuffle: fc.array(fc.nat(), { minLength: 5, maxLength: 5 }),
      sizes: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 3, maxLength: 3 }),
      groups: fc.integer({ min: 1, max: 4 }),
      insEach: fc.integer({ min: 1, max: 4 }),
      outsEach: fc.integer({ min: 1, max: 4 }),
      stride: fc.integer({ min: 1, max: 3 }),
      dilation: fc.integer({ min: 1, max: 2 }),
      pad: fc.integer({ min: 0, max: 2 }),
    })
    .map(({ kind, letters, shuffle, sizes, insEach, outsEach, pad, ...rest }) => {
      const axes = ["O", "I", ...(kind === "linear" ? "" : letters)];
      const order = axes
        .map((letter, i) => ({ letter, rank: shuffle[i] }))
        .sort((a, b) => a.rank - b.rank)
        .map(({ letter }) => letter)
        .join("");
      const transposed = kind === "convTranspose";
      const { groups } = rest;
      const along: Record<string, number> = {
        O: transposed ? outsEach : outsEach * groups,
        I: transposed ? insEach * groups : insEach,
      };
      [...letters].forEach((letter, i) => {
        along[letter] = sizes[i];
      });
      const kernel = kind === "linear" ? [] : sizes.slice(0, letters.length);
      return {
        ...rest,
        kind,
        order,
        shape: [...order].map((letter) => along[letter]),
        // PyTorch's transposed convolution takes no more padding than its kernel reaches.
        pad: transposed ? Math.min(pad, ...kernel.map((k) => (k - 1) * rest.dilation)) : pad,
      };
    });

const options = fc.record({ gamma: fc.boolean(), beta: fc.boolean() });

describe("one layer does what both did", () => {
  test("the layer before: any kind, order of axes, groups, stride, dilation and padding", () => {
    check(
      fc.property(
        layers(["linear", "conv", "convTranspose"]),
        options,
        fc.boolean(),
        seeds,
        (layer, parameters, biased, seed) => {
          checkFold(bnOf(outsOf(layer), seed, parameters), layer, "before", biased, seed);
        },
      ),
      400,
    );
  });

  test("the layer after: linear, and convolutions without padding", () => {
    check(
      fc.property(
        layers(["linear", "conv"]),
        options,
        fc.boolean(),
        fc.constantFrom<FoldOptions["padding"]>("valid", 0, [0], [0, 0, 0]),
        seeds,
        (layer, parameters, biased, padding, seed) => {
          const bn = bnOf(insOf(layer), seed, parameters);
          checkFold(bn, { ...layer, pad: 0 }, "after", biased, seed, padding);
        },
      ),
      400,
    );
  });

  test("the layer after: transposed convolutions of a single tap, their strides 1", () => {
    check(
      fc.property(
        layers(["convTranspose"]),
        options,
        fc.boolean(),
        fc.constantFrom<FoldOptions["strides"]>(1, [1], [1, 1, 1]),
        seeds,
        (layer, parameters, biased, strides, seed) => {
          const bn = bnOf(insOf(layer), seed, parameters);
          const shape = layer.shape.map((n, axis) => ("OI".includes(layer.order[axis]) ? n : 1));
          const single = { ...layer, shape, stride: 1, pad: 0 };
          checkFold(bn, single, "after", biased, seed, undefined, strides);
        },
      ),
      200,
    );
  });

  test("the layer after, any kind and padding, if the batch norm maps 0 to 0", () => {
    check(
      fc.property(
        layers(["linear", "conv", "convTranspose"]),
        fc.boolean(),
        seeds,
        (layer, biased, seed) => {
          checkFold(steady(insOf(layer), seed), layer, "after", biased, seed);
        },
      ),
      200,
    );
  });

  test.each<[string, Layer]>([
    ["linear of PyTorch", linear("OI", [5, 67])],
    ["linear of Keras", linear("IO", [67, 5])],
    ["conv of PyTorch", conv("OIHW", [6, 4, 3, 2], { groups: 2, stride: 2, pad: 1 })],
    ["conv of Keras", conv("HWIO", [3, 2, 4, 6], { groups: 2, stride: 2, pad: 1 })],
    ["depthwise", conv("OIHW", [6, 1, 3, 3], { groups: 6, pad: 1 })],
    ["1d", conv("OIL", [3, 4, 5], { pad: 2 })],
    ["1d, last", conv("LIO", [5, 4, 3], { pad: 2 })],
    ["3d", conv("OIDHW", [3, 2, 2, 3, 2], { pad: 1 })],
    ["3d, last", conv("DHWIO", [2, 3, 2, 2, 3], { pad: 1 })],
    ["transposed", conv("IOHW", [4, 3, 3, 2], { stride: 2 }, "convTranspose")],
    ["transposed in groups", conv("IOHW", [6, 2, 3, 3], { groups: 3, stride: 2 }, "convTranspose")],
    ["transposed of Keras", conv("HWOI", [3, 2, 3, 4], { stride: 2 }, "convTranspose")],
  ])("%s", (_, layer) => {
    for (const biased of [true, false]) {
      checkFold(bnOf(outsOf(layer), 7), layer, "before", biased, 7);
      if (layer.kind === "convTranspose") continue;
      checkFold(bnOf(insOf(layer), 7), { ...layer, pad: 0 }, "after", biased, 7, "valid");
    }
  });

  test("a depthwise kernel of TensorFlow [kH, kW, in, multiplier] is HWIO [kH, kW, 1, in·multiplier]", () => {
    const [H, W, ins, multiplier] = [2, 3, 4, 2];
    const bn = bnOf(ins * multiplier, 3);
    const weight = normal(H * W * ins * multiplier, 5);
    const folded = fold(bn.freeze(), {
      weight,
      shape: [H, W, 1, ins * multiplier],
      kind: "conv",
      order: "HWIO",
      groups: ins,
      into: "before",
    });
    const after = bnOf(ins, 4);
    const behind = fold(after.freeze(), {
      weight,
      shape: [H, W, 1, ins * multiplier],
      kind: "conv",
      order: "HWIO",
      groups: ins,
      into: "after",
      padding: "valid",
    });
    // tf.nn.depthwise_conv2d: output[k·multiplier + q] = Σ filter[di, dj, k, q]·input[di, dj, k].
    const depthwise = (
      filter: Float32Array,
      x: (k: number, tap: number) => number,
      k: number,
      q: number,
    ) =>
      range(H * W).reduce((s, tap) => s + filter[(tap * ins + k) * multiplier + q] * x(k, tap), 0);
    const x = normal(ins * H * W, 9);
    const at = (k: number, tap: number): number => x[k * H * W + tap];
    const normalized = normalize(after, {
      channels: ins,
      size: [1, H, W],
      data: Float64Array.from(x),
    });
    for (const k of range(ins)) {
      for (const q of range(multiplier)) {
        const o = k * multiplier + q;
        const xhat =
          (depthwise(weight, at, k, q) - bn.runningMean[o]) /
          Math.sqrt(bn.runningVariance[o] + bn.epsilon);
        const y = bn.gamma![o] * xhat + bn.beta![o];
        expect(depthwise(folded.weight, at, k, q) + folded.bias[o]).toBeCloseTo(y, 5);
        const z = depthwise(weight, (c, tap) => normalized.data[c * H * W + tap], k, q);
        expect(depthwise(behind.weight, at, k, q) + behind.bias[o]).toBeCloseTo(z, 5);
      }
    }
  });

  test("by hand", () => {
    const bn = new BatchNorm(2, { epsilon: 0 });
    bn.gamma!.set([2, 3]);
    bn.beta!.set([10, 20]);
    bn.runningMean.set([1, 2]);
    bn.runningVariance.set([4, 9]);
    // y = (x - 1) + 10 and (x - 2) + 20, after a variance of 4 and 9 is divided out.
    const weight = Float32Array.of(1, 2, 3, 4);
    const of = { weight, shape: [2, 2], kind: "linear", order: "OI" } as const;
    const before = fold(bn.freeze(), { ...of, bias: Float32Array.of(5, 6), into: "before" });
    expect([...before.weight]).toEqual([1, 2, 3, 4]);
    expect([...before.bias]).toEqual([14, 24]);
    bn.runningVariance.set([1, 9]); // y = 2(x - 1) + 10 = 2x + 8, and x + 18
    const after = fold(bn.freeze(), { ...of, into: "after" });
    expect([...after.weight]).toEqual([2, 2, 6, 4]);
    expect([...after.bias]).toEqual([8 + 2 * 18, 3 * 8 + 4 * 18]);
    expect(before.maxDifference).toBeLessThan(1e-5);
    expect(after.maxDifference).toBeLessThan(1e-4);
  });

  test("rounded once: each weight is the float32 nearest to the product, the bias to its sum", () => {
    const frozen = bnOf(5, 3).freeze();
    const { center, scale, shift } = frozen.toJSON() as unknown as Record<string, number[]>;
    const [weight, bias] = [normal(35, 1), normal(5, 2)];
    const of = { weight, kind: "linear", order: "OI" } as const;
    const before = fold(frozen, { ...of, shape: [5, 7], bias, into: "before" });
    assertSameBits(
      "weight",
      before.weight,
      weight.map((w, k) => w * scale[Math.floor(k / 7)]),
    );
    assertSameBits(
      "bias",
      before.bias,
      bias.map((b, o) => (b - center[o]) * scale[o] + shift[o]),
    );
    const after = fold(frozen, { ...of, shape: [7, 5], into: "after" });
    assertSameBits(
      "weight",
      after.weight,
      weight.map((w, k) => w * scale[k % 5]),
    );
    const sums = range(7).map((o) =>
      range(5).reduce((s, i) => s + weight[o * 5 + i] * (shift[i] - center[i] * scale[i]), 0),
    );
    assertSameBits("bias", after.bias, Float32Array.from(sums));
  });

  test("the same through JSON, and for tensors in kernel memory", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    const bn = settle(layerOf({ layout: "NC", shape: [1, 3] }, { kernels }));
    const weight = kernels.alloc(12);
    weight.set(normal(12, 1));
    const of = { shape: [3, 4], kind: "linear", order: "OI", into: "before" } as const;
    const folded = fold(bn.freeze(), { ...of, weight });
    const again = FrozenBatchNorm.fromJSON(JSON.stringify(bn.freeze()));
    expect(fold(again, { ...of, weight: weight.slice() })).toEqual(folded);
    const bias = kernels.alloc(3);
    kernels.free(bias);
    expect(() => fold(bn.freeze(), { ...of, weight, bias })).toThrow(StateError);
    kernels.free(weight);
    expect(() => fold(bn.freeze(), { ...of, weight })).toThrow(StateError);
  });
});

// ---- maxDifference ----------------------------------------------------------------------------

/** The largest difference on many inputs, every layer summed in float64 and rounded to float32. */
function measured(
  frozen: FrozenBatchNorm,
  weight: Float32Array,
  into: "before" | "after",
  input: (i: number, z: number) => number,
): { difference: number; said: number } {
  const ins = into === "after" ? frozen.channels : weight.length / frozen.channels;
  const outs = weight.length / ins;
  const folded = fold(frozen, { weight, shape: [outs, ins], kind: "linear", order: "OI", into });
  const run = (w: Float32Array, b: (o: number) => number, x: Float32Array): Float32Array =>
    Float32Array.from(range(outs), (o) =>
      range(ins).reduce((s, i) => s + w[o * ins + i] * x[i], b(o)),
    );
  let difference = 0;
  for (const seed of range(500)) {
    const uniform = random(seed);
    const x = Float32Array.from(range(ins), (i) => input(i, 2 * uniform() - 1));
    const both =
      into === "before"
        ? frozen.infer(run(weight, () => 0, x))
        : run(weight, () => 0, frozen.infer(x));
    const one = run(folded.weight, (o) => folded.bias[o], x);
    for (const o of range(outs)) difference = Math.max(difference, Math.abs(both[o] - one[o]));
  }
  return { difference, said: folded.maxDifference };
}

describe("maxDifference", () => {
  test.each([
    [0, 1],
    [1, 1],
    [1e3, 1],
    [1e6, 1],
    [1e3, 1e5],
    [0, 1e-4],
  ])("near what many inputs give, for a mean of %d and a sigma of %d", (mean, spread) => {
    for (const into of ["before", "after"] as const) {
      const bn = settle(layerOf({ layout: "NC", shape: [1, 16] }, {}, 3), 3, 0, spread);
      bn.runningMean.set(normal(16, 8, mean, 0.1));
      const frozen = bn.freeze();
      const sigma = bn.runningVariance.map((v, c) => Math.sqrt(v + bn.epsilon) / bn.gamma![c]);
      const { difference, said } = measured(frozen, normal(16 * 24, 5), into, (i, z) =>
        into === "before" ? z : bn.runningMean[i] + sigma[i] * z,
      );
      expect(difference).toBeGreaterThan(0);
      // The probe has 4 inputs, here are 500.
      expect(said).toBeGreaterThan(difference / 6);
      expect(said).toBeLessThan(difference * 2);
    }
  });

  test("of convolutions as of the same linear layer, and the same at every call", () => {
    const frozen = bnOf(4, 3).freeze();
    for (const seed of range(10)) {
      const weight = normal(4 * 3 * 6, seed);
      const conv = { weight, shape: [4, 3, 2, 3], order: "OIHW", into: "before" } as const;
      const linear = { ...conv, shape: [4, 18], kind: "linear", order: "OI" } as const;
      const { maxDifference } = fold(frozen, linear);
      expect(maxDifference).toBeGreaterThan(0);
      expect(fold(frozen, linear).maxDifference).toBe(maxDifference);
      expect(fold(frozen, { ...conv, kind: "conv" }).maxDifference).toBe(maxDifference);
    }
  });

  test("0 where nothing is rounded", () => {
    const bn = new BatchNorm(6, { epsilon: 0 });
    const of = { weight: normal(36, 1), shape: [6, 6], kind: "linear", order: "OI" } as const;
    for (const into of ["before", "after"] as const) {
      bn.gamma!.fill(1);
      expect(fold(bn.freeze(), { ...of, into }).maxDifference).toBe(0);
      bn.gamma!.fill(4);
      expect(fold(bn.freeze(), { ...of, into }).maxDifference).toBe(0);
    }
  });

  test("a gamma of 0", () => {
    for (const into of ["before", "after"] as const) {
      const bn = bnOf(4, 2);
      bn.gamma!.fill(0);
      const weight = normal(16, 1);
      const of = { weight, shape: [4, 4], kind: "linear", order: "OI", into } as const;
      const folded = fold(bn.freeze(), of);
      expect(folded.weight.every((w) => w === 0)).toBe(true);
      expect(folded.maxDifference).toBeLessThan(1e-6);
    }
  });

  test("parameters that are not finite give what is not finite, in their channels only", () => {
    const bn = bnOf(3, 2);
    bn.gamma![1] = Number.NaN;
    const weight = normal(9, 1);
    const of = { weight, shape: [3, 3], kind: "linear", order: "OI" } as const;
    const before = fold(bn.freeze(), { ...of, into: "before" });
    expect([...before.weight].map(Number.isNaN)).toEqual([0, 0, 0, 1, 1, 1, 0, 0, 0].map(Boolean));
    expect([...before.bias].map(Number.isNaN)).toEqual([false, true, false]);
    expect(before.maxDifference).toBeNaN();
    const after = fold(bn.freeze(), { ...of, into: "after" });
    expect([...after.weight].map(Number.isNaN)).toEqual([0, 1, 0, 0, 1, 0, 0, 1, 0].map(Boolean));
    expect(after.bias.every(Number.isNaN)).toBe(true);
    bn.gamma!.fill(1);
    bn.beta![0] = Number.POSITIVE_INFINITY;
    expect(fold(bn.freeze(), { ...of, into: "before" }).bias[0]).toBe(Number.POSITIVE_INFINITY);
  });
});

// ---- refusals ---------------------------------------------------------------------------------

describe("refused", () => {
  const frozen = bnOf(4, 1).freeze();
  const valid = {
    weight: normal(4 * 2 * 9, 1),
    shape: [4, 2, 3, 3],
    kind: "conv",
    order: "OIHW",
    into: "before",
  } as const;
  const after = {
    ...valid,
    weight: normal(72, 1),
    shape: [2, 4, 3, 3],
    into: "after",
  } as const;
  const single = { ...after, kind: "convTranspose", shape: [4, 18, 1, 1], order: "IOHW" } as const;
  const folding = (options: object) => () => fold(frozen, options as FoldOptions);

  test("nothing of these", () => {
    for (const of of [
      valid,
      { ...valid, bias: undefined, groups: undefined, padding: undefined },
      { ...valid, bias: null, padding: 1 },
      { ...valid, groups: 2 },
      { ...after, padding: 0 },
      { ...after, padding: [0, 0] },
      { ...after, padding: "valid" },
      { ...after, shape: [18, 4, 1, 1], padding: "same" },
      { ...single, strides: 1 },
      { ...single, strides: [1, 1] },
    ]) {
      expect(folding(of)).not.toThrow();
    }
  });

  const zeros =
    'padding: expected 0 or "valid" for a conv after the layer, which would have to normalize ' +
    "the zeros too, got ";
  const alone =
    'into: expected "before" for a convTranspose, unless it has a single tap, strides stated as 1, ' +
    'and no output padding, got "after"';
  test("more strides than a shape has axes", () => {
    const strides = Array(65).fill(1);
    expect(folding({ ...single, strides })).toThrow(ShapeError);
    expect(folding({ ...single, strides })).toThrow(/^strides: expected at most 64 axes, got 65$/);
  });

  test.each<[string, object, string]>([
    ["no padding given", after, `${zeros}undefined`],
    ["padding", { ...after, padding: 1 }, `${zeros}1`],
    ["padding on one side", { ...after, padding: [0, 1] }, `${zeros}[0, 1]`],
    ["padding of no axis", { ...after, padding: [] }, `${zeros}[]`],
    ["same padding of several taps", { ...after, padding: "same" }, `${zeros}"same"`],
    ["unknown padding", { ...after, padding: "full" }, `${zeros}"full"`],
    ["NaN for padding", { ...after, padding: Number.NaN }, `${zeros}NaN`],
    [
      "a transposed convolution after",
      { ...after, kind: "convTranspose", shape: [4, 2, 3, 3], order: "IOHW", padding: 0 },
      alone,
    ],
    ["one of several taps", { ...single, shape: [4, 9, 1, 2], strides: 1 }, alone],
    ["no strides given", single, alone],
    ["strides", { ...single, strides: 2 }, alone],
    ["strides along one axis", { ...single, strides: [1, 2] }, alone],
    ["strides of no axis", { ...single, strides: [] }, alone],
    ["unknown strides", { ...single, strides: "1" }, alone],
    ["NaN for strides", { ...single, strides: Number.NaN }, alone],
    [
      "no into",
      { ...valid, into: undefined },
      'into: expected one of "before", "after", got undefined',
    ],
    [
      "another into",
      { ...valid, into: "beside" },
      'into: expected one of "before", "after", got "beside"',
    ],
    [
      "no kind",
      { ...valid, kind: undefined },
      'kind: expected one of "linear", "conv", "convTranspose", got undefined',
    ],
    [
      "another kind",
      { ...valid, kind: "dense" },
      'kind: expected one of "linear", "conv", "convTranspose", got "dense"',
    ],
    ["no order", { ...valid, order: undefined }, "order: expected O and I, and one to three of D"],
    ["order of no string", { ...valid, order: ["OIHW"] }, "got an Array of length 1"],
    ["order without O", { ...valid, order: "NIHW" }, 'of D, H, W, L, got "NIHW"'],
    ["a letter twice", { ...valid, order: "OIHH" }, 'got "OIHH"'],
    ["two O", { ...valid, order: "OOIW" }, 'got "OOIW"'],
    ["lower case", { ...valid, order: "oihw" }, 'got "oihw"'],
    ["order of four spatial axes", { ...valid, order: "OIDHWL" }, 'got "OIDHWL"'],
    ["order without spatial axes", { ...valid, order: "OI" }, 'got "OI"'],
    [
      "linear with spatial axes",
      { ...valid, kind: "linear" },
      'order: expected O and I alone, got "OIHW"',
    ],
    [
      "groups 0",
      { ...valid, groups: 0 },
      "groups: expected a divisor of the 4 out channels, got 0",
    ],
    ["groups of 4/3", { ...valid, groups: 3 }, "a divisor of the 4 out channels, got 3"],
    ["half a group", { ...valid, groups: 0.5 }, "a divisor of the 4 out channels, got 0.5"],
    ["groups as text", { ...valid, groups: "2" }, 'a divisor of the 4 out channels, got "2"'],
    [
      "groups of a transposed convolution",
      { ...valid, kind: "convTranspose", shape: [2, 4, 3, 3], order: "IOHW", groups: 4 },
      "groups: expected a divisor of the 2 in channels, got 4",
    ],
    ["an unknown option", { ...valid, stride: 2 }, "stride: expected an option among weight, bias"],
    [
      "no options",
      null as unknown as object,
      "options: expected an object { weight, bias, shape, kind, order, groups, padding, strides, into }, got null",
    ],
  ])("%s: OptionError", (_, options, message) => {
    expect(folding(options)).toThrow(OptionError);
    expect(folding(options)).toThrow(message);
  });

  test.each<[string, object, string]>([
    [
      "no weight",
      { ...valid, weight: undefined },
      "weight: expected a Float32Array, got undefined",
    ],
    [
      "numbers",
      { ...valid, weight: [1, 2] },
      "weight: expected a Float32Array, as Float32Array.from(weight) makes, got an Array",
    ],
    ["a long weight", { ...valid, weight: normal(73, 1) }, "weight: expected 72 values, got 73"],
    ["a vast shape", { ...valid, shape: [4, 2, 2 ** 40, 3] }, "got 72"],
    ["a short bias", { ...valid, bias: normal(3, 1) }, "bias: expected 4 values, got 3"],
    [
      "float64 bias",
      { ...valid, bias: new Float64Array(4) },
      "bias: expected a Float32Array, as Float32Array.from(bias) makes, got a",
    ],
    [
      "no shape",
      { ...valid, shape: undefined },
      "shape: expected 4 sizes >= 1 [O, I, H, W], got u",
    ],
    [
      "a short shape",
      { ...valid, shape: [4, 18] },
      "shape: expected 4 sizes >= 1 [O, I, H, W], got [",
    ],
    ["a size of 0", { ...valid, shape: [4, 2, 0, 3] }, "[O, I, H, W], got [4, 2, 0, 3]"],
    ["half a size", { ...valid, shape: [4, 4, 4.5, 1] }, "[O, I, H, W], got [4, 4, 4.5, 1]"],
    ["other channels", { ...valid, shape: [2, 4, 3, 3] }, "shape: expected 4 out channels, got 2"],
    [
      "other channels after",
      { ...after, shape: [4, 2, 3, 3], padding: 0 },
      "shape: expected 4 in channels, got 2",
    ],
    [
      "channels of one group",
      { ...after, groups: 2, padding: 0 },
      "shape: expected 4 in channels, got 8",
    ],
  ])("%s: ShapeError", (_, options, message) => {
    expect(folding(options)).toThrow(ShapeError);
    expect(folding(options)).toThrow(message);
  });

  test("one channel that moves 0 is enough", () => {
    const bn = steady(4, 1);
    const refused = { ...after, padding: 1 } as const;
    expect(() => fold(bn.freeze(), refused)).not.toThrow();
    bn.runningMean[3] = 1e-3;
    expect(() => fold(bn.freeze(), refused)).toThrow(OptionError);
  });
});
