// Where a residual and a ReLU follow, `train` keeps a bit for each value, by which `backward` gates dy. Its results have the
// bits of the separate steps, as they have where dy is gated by values that are worked out again: that is so for a batch that
// is not the latest one. Whatever happens between the two calls.

import { BatchNorm, type BatchNormOptions, Kernels, StateError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { channelsOf, dataOf, nameOf, type Shaped, seeds, settle, sizeOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import { PLACES, Placing, put } from "./support/places.js";
import { check } from "./support/property.js";

const KERNELS = new Kernels({ memory: 64 << 20 });

/** Shapes of which rows or planes have a multiple of 16 values, so that bits are kept; and one of too many channels. */
const SHAPES: readonly Shaped[] = [
  { layout: "NC", shape: [3, 16] },
  { layout: "NC", shape: [5, 64] },
  { layout: "NC", shape: [64, 48] },
  { layout: "NC", shape: [67, 80] },
  { layout: "NC", shape: [4, 1024] },
  { layout: "NC", shape: [5, 1040] },
  { layout: "NLC", shape: [2, 9, 32] },
  { layout: "NHWC", shape: [3, 5, 5, 16] },
  { layout: "NCL", shape: [10, 8, 2] },
  { layout: "NCHW", shape: [1, 3, 4, 4] },
  { layout: "NCHW", shape: [2, 5, 8, 6] },
  { layout: "NCHW", shape: [9, 2, 16, 3] },
];

/** Values that a sum, a comparison or a cut to a byte may take for others. */
const SPECIAL = [
  ...[0, -0, 2 ** -149, -(2 ** -149), 2 ** -126, 1e-30, 2 ** -100, 1, 127.5, 32768, 3e38],
  ...[-3e38],
];
const ENDLESS = [Infinity, -Infinity, NaN];

interface Case {
  readonly shaped: Shaped;
  readonly place: (typeof PLACES)[number];
  readonly masked: boolean;
  readonly parameters: readonly [gamma: boolean, beta: boolean];
  /** How much of the residual is special, and whether that includes what is not finite. */
  readonly special: number;
  readonly endless: boolean;
  readonly over: "fresh" | "given" | "add" | "x";
  readonly into: "fresh" | "dx is dy" | "dadd is dy";
  readonly between: "nothing" | "gamma" | "beta" | "infer" | "look";
  readonly seed: number;
}

const cases: fc.Arbitrary<Case> = fc.record({
  shaped: fc.constantFrom(...SHAPES),
  place: fc.constantFrom(...PLACES),
  masked: fc.boolean(),
  parameters: fc.tuple(fc.boolean(), fc.boolean()),
  special: fc.constantFrom(0, 0.1, 1),
  endless: fc.boolean(),
  over: fc.constantFrom("fresh", "given", "add", "x"),
  into: fc.constantFrom("fresh", "dx is dy", "dadd is dy"),
  between: fc.constantFrom("nothing", "gamma", "beta", "infer", "look"),
  seed: seeds,
});

/** Compares `backward` of the latest batch with the separate steps, and with itself after a further `train`. */
function compare(case_: Case): void {
  const { shaped, place, masked, parameters, special, endless, over, into, between, seed } = case_;
  const { layout } = shaped;
  const length = sizeOf(shaped);
  const next = random(seed);
  const { data, padding } = dataOf(shaped, masked, next);
  const [gamma, beta] = parameters;
  const options = { layout, gamma, beta, kernels: KERNELS };
  const channels = channelsOf(shaped);
  const plain = settle(new BatchNorm(channels, options), seed);
  const block = settle(new BatchNorm(channels, { ...options, activation: "relu" }), seed);
  for (const layer of [plain, block]) {
    layer.gamma?.set(normal(channels, seed + 5));
    layer.beta?.set(normal(channels, seed + 6));
  }
  const placing = new Placing(KERNELS);
  const placed = (values: Float32Array): Float32Array => placing.put(place, values);
  const x = normal(length, seed + 1, 0.5, 1.5);
  const dy = normal(length, seed + 2);
  try {
    const z = plain.train(x, data);
    const table = endless ? [...SPECIAL, ...ENDLESS] : SPECIAL;
    const residual = normal(length, seed + 3).map((value, i) => {
      if (next() >= special) return value;
      // What makes the sum 0 is special too.
      return next() < 0.2 ? -z[i]! : table[Math.floor(next() * table.length)]!;
    });
    const [a, b] = [placed(x), placed(residual)];
    const out = { fresh: {}, given: { out: placed(x) }, add: { out: b }, x: { out: a } }[over];
    // The layer's bits of the batch before the last one lie where those of this one will.
    for (let i = 0; i < 2; i++) block.train(placed(dy), { ...data, add: placed(x) });
    const y = block.train(a, { ...data, ...out, add: b });
    const sums = z.map((v, i) => Math.fround(v + residual[i]!));
    const values = sums.map((v, i) => (padding.has(i) ? z[i]! : v));
    assertSameBits(
      "y",
      y,
      values.map((v) => (v < 0 ? 0 : v)),
    );
    if (between === "gamma") for (const layer of [plain, block]) layer.gamma?.fill(-0.75, 0, 1);
    if (between === "beta") for (const layer of [plain, block]) layer.beta?.fill(2, channels - 1);
    if (between === "infer") block.infer(placed(x), data);
    if (between === "look") expect(block.lastBatch!.count).toBe(plain.lastBatch!.count);
    const inputs = {
      ...(over === "x" && { x: placed(x) }),
      ...(over === "add" && { add: placed(residual) }),
    };
    const run = (given: object) => {
      const from = placed(dy);
      const into_ =
        into === "fresh" ? {} : { out: into === "dx is dy" ? { dx: from } : { dadd: from } };
      return block.backward(from, { ...given, ...inputs, ...into_ });
    };
    const latest = run({});
    const again = run({ x: placed(x), add: placed(residual) });
    const batch = block.lastBatch!;
    const named = run({ batch });
    block.train(placed(dy), { ...data, add: placed(x) });
    const earlier = run({ batch });
    const moved = (between === "gamma" && gamma) || (between === "beta" && beta);
    const kept = dy.map((v, i) => (sums[i]! > 0 && sums[i]! < Infinity ? v : 0));
    const steps = moved ? earlier : { ...plain.backward(kept), dadd: kept };
    for (const [name, got] of Object.entries({ latest, again, named, earlier })) {
      for (const key of ["dx", "dgamma", "dbeta", "dadd"] as const) {
        const [value, right] = [got[key], steps[key]];
        if (right === null) expect(value).toBeNull();
        else if (key === "dadd" && !moved) {
          const expected = kept.map((v, i) => (padding.has(i) ? 0 : v));
          assertSameBits(`${key}, ${name}`, value!, expected);
        } else assertSameBits(`${key}, ${name}`, value!, right);
      }
    }
  } finally {
    placing.free();
  }
}

test("backward has the bits of the separate steps, whatever the residual holds and happens in between", () =>
  check(fc.property(cases, compare), 400));

/** Tensors of several parts, in each way to walk them; of the last one, part of a plane is a part. */
const LARGE: readonly Shaped[] = [
  { layout: "NC", shape: [5003, 16] },
  { layout: "NC", shape: [1501, 64] },
  { layout: "NC", shape: [403, 208] },
  { layout: "NC", shape: [70, 1024] },
  { layout: "NCHW", shape: [2, 64, 32, 32] },
  { layout: "NCHW", shape: [10, 3, 64, 48] },
  { layout: "NCL", shape: [1, 2, 70016] },
];

describe.each(LARGE.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
  for (const place of ["ordinary", "tensor"] as const) {
    for (const masked of [false, true]) {
      test(`${place}${masked ? ", masked" : ""}`, () => {
        const parameters = [true, true] as const;
        const rest = { special: 0.1, over: "given", into: "fresh", between: "nothing" } as const;
        const endless = false;
        compare({ shaped, place, masked, parameters, endless, ...rest, seed: 3 });
      });
    }
  }
});

test.each<Shaped>([
  { layout: "NC", shape: [33001, 64] },
  { layout: "NCHW", shape: [33, 64, 32, 32] },
])("more bits than kernel memory has room for: %j", (shaped) => {
  const { layout, shape } = shaped;
  const channels = channelsOf(shaped);
  const bn = new BatchNorm(channels, { layout, activation: "relu", kernels: KERNELS });
  // All of them are tensors: an ordinary `out` would make `train` go in parts for which there is room.
  const placed = [1, 2, 3, 4].map((seed) => {
    const next = random(seed);
    const values = Float32Array.from({ length: sizeOf(shaped) }, () => next() - 0.5);
    return put("tensor", KERNELS, values);
  });
  const [x, add, dy, out] = placed.map(({ array }) => array) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  bn.train(x, { shape, add, out });
  const latest = bn.backward(dy);
  const batch = bn.lastBatch!;
  bn.train(add, { shape, add: x });
  const earlier = bn.backward(dy, { batch });
  for (const key of ["dx", "dgamma", "dbeta", "dadd"] as const) {
    assertSameBits(key, latest[key]!, earlier[key]!);
  }
  for (const { free } of placed) free();
});

/**
 * Whether `backward` reads the residual: it then sees that one of its values has become small. The layer is prepared before
 * `train`, and changed after it.
 */
function reads(
  options: BatchNormOptions,
  shape: readonly number[],
  change: (bn: BatchNorm) => void = () => {},
  prepare: (bn: BatchNorm) => void = () => {},
  mask?: Uint8Array,
): boolean {
  const bn = new BatchNorm(16, { kernels: KERNELS, ...options });
  prepare(bn);
  const length = shape.reduce((a, b) => a * b, 1);
  const x = normal(length, 1);
  const add = normal(length, 2).fill(9, 0, 1);
  bn.train(x, { shape, add, ...(mask && { mask }) });
  change(bn);
  add[0] = -9;
  const { dadd } = bn.backward(new Float32Array(length).fill(1));
  expect([0, 1]).toContain(dadd![0]);
  return dadd![0] === 0;
}

describe("the residual is", () => {
  test.each<[string, BatchNormOptions, readonly number[]]>([
    ["rows", { activation: "relu" }, [8, 16]],
    ["a range that is a ReLU", { activation: [-0, Infinity] }, [8, 16]],
    ["planes", { activation: "relu", layout: "NCHW" }, [2, 16, 4, 4]],
    ["small planes, which are walked as rows", { activation: "relu", layout: "NCL" }, [10, 16, 2]],
    ["without γ and β", { activation: "relu", gamma: false, beta: false }, [8, 16]],
  ])("not read by backward: %s", (_, options, shape) => {
    expect(reads(options, shape)).toBe(false);
  });

  test.each<[string, BatchNormOptions, readonly number[]]>([
    ["another range", { activation: "relu6" }, [8, 16]],
    ["a range from below 0 on", { activation: [-1, Infinity] }, [8, 16]],
    ["a range from above 0 on", { activation: [1, Infinity] }, [8, 16]],
    ["planes of 8 values", { activation: "relu", layout: "NCHW" }, [2, 16, 2, 4]],
    ["planes of odd sizes", { activation: "relu", layout: "NCHW" }, [2, 16, 3, 7]],
    ["renormalized", { activation: "relu", renorm: { rmax: 2, dmax: 1 } }, [8, 16]],
  ])("read by backward: %s", (_, options, shape) => {
    expect(reads(options, shape)).toBe(true);
  });

  test("not read by backward with a mask, which leaves rows of positions in every layout", () => {
    const planes = { activation: "relu", layout: "NCHW" } as const;
    const mask = new Uint8Array(42).fill(1, 0, 41);
    expect(reads(planes, [2, 16, 3, 7], undefined, undefined, mask)).toBe(false);
  });

  test("read by backward after γ or β has changed", () => {
    const relu = { activation: "relu" } as const;
    expect(reads(relu, [8, 16], (bn) => bn.gamma!.fill(1.5, 15))).toBe(true);
    expect(reads(relu, [8, 16], (bn) => bn.beta!.fill(0.5, 0, 1))).toBe(true);
    expect(reads(relu, [8, 16], (bn) => bn.beta!.fill(0))).toBe(false);
  });

  test("not read by backward with any γ and β, as long as they stay", () => {
    const some = (bn: BatchNorm): void => {
      bn.gamma!.set(normal(16, 5));
      bn.beta!.set(normal(16, 6));
    };
    expect(reads({ activation: "relu" }, [8, 16], some, some)).toBe(false);
  });

  test("not read by backward with γ and β that have changed since the steps before", () => {
    const step = (bn: BatchNorm): void => {
      for (let i = 0; i < 2; i++) bn.train(normal(128, i), { add: normal(128, i + 2) });
      bn.gamma!.set(normal(16, 5));
      bn.beta!.set(normal(16, 6));
    };
    expect(reads({ activation: "relu" }, [8, 16], undefined, step)).toBe(false);
  });

  test("not read by backward after steps of other sizes", () => {
    const larger = (bn: BatchNorm): void => {
      for (let i = 0; i < 2; i++) bn.train(normal(160, i), { add: normal(160, i + 2) });
    };
    expect(reads({ activation: "relu" }, [8, 16], undefined, larger)).toBe(false);
  });

  test("read by backward of a batch that is not the latest, whatever is given besides", () => {
    const bn = new BatchNorm(16, { activation: "relu" });
    const x = normal(128, 1);
    const add = normal(128, 2).fill(9, 0, 1);
    bn.train(x, { add });
    add[0] = -9;
    const dy = new Float32Array(128).fill(1);
    const batch = bn.lastBatch!;
    for (const given of [{}, { x }, { add }, { batch }, { batch, x, add }]) {
      expect(bn.backward(dy, given).dadd![0]).toBe(1);
    }
    for (let i = 0; i < 3; i++) {
      bn.train(x, { add: x });
      expect(bn.backward(dy, { batch }).dadd![0]).toBe(0);
    }
    bn.reset();
    expect(bn.backward(dy, { batch }).dadd![0]).toBe(0);
  });

  test("not read by backward after one that has thrown", () => {
    const kernels = new Kernels();
    const bn = new BatchNorm(16, { activation: "relu", kernels });
    const add = normal(128, 2).fill(9, 0, 1);
    bn.train(normal(128, 1), { add });
    add[0] = -9;
    const dx = kernels.alloc(128);
    kernels.free(dx);
    const dy = new Float32Array(128).fill(1);
    expect(() => bn.backward(dy, { out: { dx } })).toThrow(StateError);
    expect(bn.backward(dy).dadd![0]).toBe(1);
  });

  test("read by backward after a train that keeps no bits, where ones before it did", () => {
    const bn = new BatchNorm(16, { activation: "relu" });
    const x = normal(128, 1);
    const add = normal(128, 2).fill(9, 0, 1);
    for (let i = 0; i < 3; i++) bn.train(x, { add });
    bn.train(x, { add, statistics: "running" });
    add[0] = -9;
    expect(bn.backward(new Float32Array(128).fill(1)).dadd![0]).toBe(0);
  });
});

test("a train that throws leaves the bits of the batch before", () => {
  const bn = new BatchNorm(16, { activation: "relu" });
  const [x, add, dy] = [normal(128, 1), normal(128, 2), normal(128, 3)];
  for (let i = 0; i < 3; i++) bn.train(normal(128, 7 + i), { add: normal(128, 17 + i) });
  bn.train(x, { add });
  const { dx, dadd } = bn.backward(dy);
  expect(() => bn.train(normal(128, 5).fill(NaN, 3, 4), { add: normal(128, 6) })).toThrow();
  const again = bn.backward(dy);
  assertSameBits("dx", again.dx, dx);
  assertSameBits("dadd", again.dadd!, dadd!);
});

test("layers that share kernels keep bits of their own, whatever sizes their batches have", () => {
  const kernels = new Kernels();
  const [one, two] = [1, 2].map(() => new BatchNorm(16, { activation: "relu", kernels }));
  const steps = [8, 40, 40, 8, 5000, 8, 8, 40];
  for (const [step, rows] of steps.entries()) {
    const size = 16 * rows;
    const calls = [one!, two!].map((bn, k) => {
      const [x, add, dy] = [1, 2, 3].map((seed) => normal(size, 10 * step + 100 * k + seed));
      bn.train(x!, { add: add!, updateRunning: step % 2 === 0 });
      return { bn, x: x!, add: add!, dy: dy! };
    });
    for (const { bn, x, add, dy } of calls) {
      const { dx, dadd } = bn.backward(dy);
      const plain = new BatchNorm(16, { kernels });
      const z = plain.train(x);
      const kept = dy.map((v, i) => (Math.fround(z[i]! + add[i]!) > 0 ? v : 0));
      assertSameBits("dadd", dadd!, kept);
      assertSameBits("dx", dx, plain.backward(kept).dx);
    }
  }
});

test("a state that is restored between train and backward counts, and a copy has no bits", () => {
  const bn = new BatchNorm(16, { activation: "relu" });
  const other = bn.snapshot();
  const [x, add, dy] = [normal(128, 1), normal(128, 2), normal(128, 3)];
  bn.gamma!.fill(-2);
  bn.train(x, { add });
  expect(() => bn.clone().backward(dy)).toThrow(StateError);
  bn.restore(other);
  const { dadd } = bn.backward(dy);
  const z = new BatchNorm(16).train(x);
  assertSameBits(
    "dadd",
    dadd!,
    dy.map((v, i) => (Math.fround(z[i]! + add[i]!) > 0 ? v : 0)),
  );
});

test("a residual that has been overwritten, or freed, is refused as ever", () => {
  const kernels = new Kernels();
  const bn = new BatchNorm(16, { activation: "relu", kernels });
  const add = kernels.alloc(128);
  const [x, dy] = [normal(128, 1), normal(128, 3)];
  bn.train(x, { add });
  add.fill(7);
  expect(() => bn.backward(dy)).toThrow("add: expected what train added, got other values");
  add.fill(0);
  kernels.free(add);
  expect(() => bn.backward(dy)).toThrow(StateError);
});
