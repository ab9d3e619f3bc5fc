// `activation` and `add`: the same bits as the separate steps, each rounded to float32. The steps are the layer
// without them, the sum, and the limits; backward, dy where the value lies strictly between the limits, then the
// layer without them. FC_RUNS=500 npx vitest run tests/block.test.ts -t "separate steps" tries 100,000 random cases, in
// some ten minutes.

import {
  Adapter,
  adapter,
  BatchNorm,
  FrozenBatchNorm,
  fold,
  Kernels,
  OptionError,
  ShapeError,
  StateError,
} from "batchnorm-wasm";
import { FrozenBatchNorm as Small } from "batchnorm-wasm/infer";
import { load, save } from "batchnorm-wasm/state";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  channelsOf,
  dataOf,
  nameOf,
  type Shaped,
  seeds,
  settle,
  shapes,
  sizeOf,
} from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import { PLACES, Placing, put } from "./support/places.js";
import { check, FACTOR } from "./support/property.js";
import { wrong } from "./support/refuse.js";

const KERNELS = new Kernels({ memory: 96 << 20 });

type Activation = "relu" | "relu6" | readonly [number, number] | null;
const ACTIVATIONS: readonly Activation[] = [
  ...(["relu", "relu6", [-0.5, 0.75], [-Infinity, 0.25]] as const),
  // A range that limits nothing, but gates where the value is not finite.
  [-Infinity, Infinity],
  null,
];

function rangeOf(activation: Activation): readonly [number, number] {
  if (activation === "relu") return [0, Infinity];
  return activation === "relu6" ? [0, 6] : (activation ?? [-Infinity, Infinity]);
}

interface Case {
  readonly shaped: Shaped;
  readonly activation: Activation;
  readonly added: boolean;
  readonly masked: boolean;
  readonly statistics: "batch" | "running";
  readonly place: (typeof PLACES)[number] | "each elsewhere";
  readonly seed: number;
}

/** In long runs tensors are smaller, so that more cases are tried in the same time. */
const MOST = FACTOR < 10 ? 20000 : 2000;

const cases: fc.Arbitrary<Case> = fc.record({
  shaped: shapes(3, MOST),
  activation: fc.constantFrom(...ACTIVATIONS),
  added: fc.boolean(),
  masked: fc.boolean(),
  statistics: fc.constantFrom("batch", "running"),
  place: fc.constantFrom(...PLACES, "each elsewhere"),
  seed: seeds,
});

/** Limits as the kernels apply them: NaN stays NaN, and -0 stays as it is where 0 is a limit. */
const limited = (v: number, low: number, high: number): number =>
  v < low ? low : v > high ? high : v;

/** Compares a layer with the steps that it unites. */
function compare({ shaped, activation, added, masked, statistics, place, seed }: Case): void {
  const { layout } = shaped;
  const channels = channelsOf(shaped);
  const length = sizeOf(shaped);
  const next = random(seed);
  const { data, padding } = dataOf(shaped, masked, next);
  const plain = settle(new BatchNorm(channels, { layout, kernels: KERNELS }), seed);
  const block = settle(new BatchNorm(channels, { layout, kernels: KERNELS, activation }), seed);
  const [low, high] = rangeOf(activation);
  const placing = new Placing(KERNELS);
  const placed = (values: Float32Array): Float32Array => {
    const where = place === "each elsewhere" ? PLACES[Math.floor(next() * PLACES.length)]! : place;
    return placing.put(where, values);
  };
  const x = normal(length, seed + 1, 0.5, 1.5);
  const dy = normal(length, seed + 2);
  const residual = normal(length, seed + 3);
  const sumOf = (v: number, i: number): number =>
    added && !padding.has(i) ? Math.fround(v + residual[i]!) : v;
  const unite = (z: Float32Array): Float32Array => z.map((v, i) => limited(sumOf(v, i), low, high));
  const add = added ? { add: placed(residual) } : {};
  try {
    const z = plain.train(x, { ...data, statistics });
    assertSameBits("train", block.train(placed(x), { ...data, ...add, statistics }), unite(z));
    assertSameBits("mean", block.runningMean, plain.runningMean);
    const kept = dy.map((v, i) => (low < sumOf(z[i]!, i) && sumOf(z[i]!, i) < high ? v : 0));
    const expected = plain.backward(kept);
    const sums = plain.backwardSums(kept);
    const { lastBatch } = block;
    block.train(placed(normal(length, seed + 4)), { ...data, statistics, updateRunning: false });
    const given = { batch: lastBatch! };
    const gated = block.backwardSums(placed(dy), given);
    assertSameBits("sumDy", gated.sumDy, sums.sumDy);
    assertSameBits("sumDyXmu", gated.sumDyXmu, sums.sumDyXmu);
    const inPlace = placed(dy);
    const own = { dx: placed(dy), ...(added ? { dadd: placed(dy) } : {}) };
    for (const [name, from, out] of [
      ["fresh", placed(dy), {}],
      ["given", placed(dy), own],
      ["dx is dy", inPlace, { dx: inPlace }],
    ] as const) {
      const { dx, dgamma, dbeta, dadd } = block.backward(from, { ...given, out });
      assertSameBits(`dx, ${name}`, dx, expected.dx);
      assertSameBits(`dgamma, ${name}`, dgamma!, expected.dgamma!);
      assertSameBits(`dbeta, ${name}`, dbeta!, expected.dbeta!);
      if (added)
        assertSameBits(
          "dadd",
          dadd!,
          kept.map((v, i) => (padding.has(i) ? 0 : v)),
        );
      else expect(dadd).toBe(null);
    }
    if (added) {
      const d = placed(dy);
      assertSameBits(
        "dx, dadd is dy",
        block.backward(d, { ...given, out: { dadd: d } }).dx,
        expected.dx,
      );
    }
    assertSameBits(
      "dx of sums",
      block.backward(placed(dy), { ...given, sums: gated }).dx,
      plain.backward(kept, { sums }).dx,
    );
    // In place: y takes the place of x or of the residual, and backward is given again what it was.
    const still = { ...data, statistics, updateRunning: false };
    const xOver = placed(x);
    const united = unite(z);
    assertSameBits("train, out is x", block.train(xOver, { ...still, ...add, out: xOver }), united);
    assertSameBits("dx, given x", block.backward(placed(dy), { x: placed(x) }).dx, expected.dx);
    if (added) {
      const out = placed(residual);
      assertSameBits(
        "train, out is add",
        block.train(placed(x), { ...still, add: out, out }),
        united,
      );
      const d = placed(dy);
      const again = { add: placed(residual), out: { dx: placed(dy), dadd: d } };
      assertSameBits("dx, given add", block.backward(d, again).dx, expected.dx);
    }
    const y = unite(plain.infer(x, data));
    const frozen = block.freeze();
    const text = JSON.stringify(frozen);
    const ordinary = added ? { add: residual } : {};
    const over = placed(x);
    const frozenOver = placed(x);
    assertSameBits("infer", block.infer(placed(x), { ...data, ...add }), y);
    assertSameBits("out is x", block.infer(over, { ...data, ...add, out: over }), y);
    assertSameBits("frozen", frozen.infer(placed(x), { ...data, ...add }), y);
    assertSameBits(
      "frozen, out is x",
      frozen.infer(frozenOver, { ...data, ...add, out: frozenOver }),
      y,
    );
    assertSameBits("JSON", FrozenBatchNorm.fromJSON(text).infer(x, { ...data, ...ordinary }), y);
    const small = Small.fromJSON(text);
    const ownX = x.slice();
    assertSameBits("small", small.infer(x, { ...data, ...ordinary }), y);
    assertSameBits("small, out is x", small.infer(ownX, { ...data, ...ordinary, out: ownX }), y);
    if (added) {
      for (const [name, layer, out] of [
        ["infer", block, placed(residual)],
        ["frozen", frozen, placed(residual)],
        ["small", small, residual.slice()],
      ] as const) {
        assertSameBits(`${name}, out is add`, layer.infer(x, { ...data, add: out, out }), y);
      }
    }
  } finally {
    placing.free();
  }
}

describe("a layer with activation and residual", () => {
  test("has the bits of the separate steps", () => check(fc.property(cases, compare), 200));

  /** Tensors of which each way to walk has several parts, tiles or both. */
  const LARGE: readonly Shaped[] = [
    { layout: "NC", shape: [70, 1500] },
    { layout: "NC", shape: [20, 1500] },
    { layout: "NC", shape: [2000, 200] },
    { layout: "NC", shape: [20000, 4] },
    { layout: "NC", shape: [12000, 64] },
    { layout: "NCHW", shape: [2, 2, 200, 190] },
    { layout: "NCHW", shape: [8, 64, 32, 32] },
    { layout: "NCHW", shape: [9, 1100, 3, 3] },
  ];
  describe.each(LARGE.map((shaped) => [nameOf(shaped), shaped] as const))("%s", (_, shaped) => {
    for (const place of ["ordinary", "tensor", "each elsewhere"] as const) {
      for (const masked of [false, true]) {
        test(`${place}${masked ? ", masked" : ""}`, () => {
          for (const added of [false, true]) {
            compare({
              shaped,
              activation: "relu",
              added,
              masked,
              statistics: "batch",
              place,
              seed: 7,
            });
          }
        });
      }
    }
  });

  test("stays NaN where x is NaN", () => {
    const y = new BatchNorm(1, { activation: "relu6" }).infer(Float32Array.of(NaN, 9, -9));
    expect([...y]).toEqual([NaN, 6, 0]);
  });

  test("without an activation, dy is the gradient of a residual, also where the sum is not finite", () => {
    for (const place of PLACES) {
      const layer = new BatchNorm(2, { kernels: KERNELS });
      const x = normal(2000, 3);
      const residual = normal(2000, 4);
      residual.set([NaN, Infinity, -Infinity]);
      const add = put(place, KERNELS, residual);
      layer.train(x, { add: add.array });
      const dy = normal(2000, 5);
      const given = put(place, KERNELS, dy);
      const { dx, dadd } = layer.backward(given.array, { out: { dx: given.array } });
      assertSameBits("dadd", dadd!, dy);
      const plain = new BatchNorm(2);
      plain.train(x);
      assertSameBits("dx", dx, plain.backward(dy).dx);
      assertSameBits("sums", layer.backwardSums(dy).sumDyXmu, plain.backwardSums(dy).sumDyXmu);
      for (const { free } of [add, given]) free();
    }
  });

  test("gives no gradient at its limits", () => {
    const layer = new BatchNorm(1, { activation: "relu" });
    layer.train(Float32Array.of(-1, 0, 1), { statistics: "running" });
    const { dbeta } = layer.backward(Float32Array.of(1, 2, 4));
    expect([...dbeta!]).toEqual([4]);
  });

  test("is kept by snapshots, clones, frozen layers of both entries, adapters and our own file", () => {
    for (const activation of ACTIVATIONS) {
      const layer = new BatchNorm(2, { activation });
      const text = JSON.stringify(layer);
      const frozen = JSON.stringify(layer.freeze());
      const stream = JSON.stringify(adapter(layer, { prior: 1, memory: 9 }));
      for (const other of [
        ...[layer, layer.clone(), BatchNorm.fromSnapshot(text), layer.freeze()],
        ...[FrozenBatchNorm.fromJSON(frozen), Small.fromJSON(frozen)],
        ...[Adapter.fromJSON(stream).freeze(), load(save({ layer })).layer!],
      ]) {
        expect(other.activation).toEqual(activation);
      }
    }
  });

  test("has JSON that readers without activations refuse, and that only states what was given", () => {
    const layer = new BatchNorm(1, { activation: [-Infinity, 0.5] });
    expect(layer.snapshot()).toMatchObject({ version: 2, activation: ["-Infinity", 0.5] });
    expect(layer.freeze().toJSON()).toMatchObject({ version: 2, activation: ["-Infinity", 0.5] });
    const plain = new BatchNorm(1).snapshot();
    expect(plain).toMatchObject({ version: 1 });
    expect(plain).not.toHaveProperty("activation");
    expect(() => BatchNorm.fromSnapshot({ ...layer.snapshot(), activation: [1, "NaN"] })).toThrow(
      'snapshot.activation: expected "relu", "relu6" or [low, high], low < high, got [1, NaN]',
    );
    expect(() =>
      FrozenBatchNorm.fromJSON({ ...layer.freeze().toJSON(), activation: wrong("gelu") }),
    ).toThrow(StateError);
  });

  test("of an adapter is added after adapting", () => {
    const layer = new BatchNorm(2, { activation: "relu" });
    const stream = adapter(layer, { prior: 4, memory: 100 });
    const x = normal(20, 3);
    const add = normal(20, 4);
    const y = stream.infer(x, { add });
    assertSameBits("y", y, stream.freeze().infer(x, { add }));
    expect(y).not.toEqual(stream.freeze().infer(x));
  });

  test("is carried along by fold into the layer before, and refused by the layer after", () => {
    const frozen = new BatchNorm(2, { activation: "relu" }).freeze();
    const weight = Float32Array.of(1, 2, 3, 4);
    const linear = { weight, shape: [2, 2], kind: "linear", order: "OI" } as const;
    expect(fold(frozen, { ...linear, into: "before" }).activation).toBe("relu");
    expect(() => fold(frozen, { ...linear, into: "after" })).toThrow(
      'into: expected "before", since an activation follows the norm, got "after"',
    );
  });
});

test("an activation that is a range cannot be changed, and is not the array that was given", () => {
  const given: [number, number] = [-1, 2];
  const bn = new BatchNorm(2, { activation: given });
  given[1] = 5;
  for (const each of [bn, bn.clone(), BatchNorm.fromSnapshot(bn.snapshot())]) {
    expect(Object.isFrozen(each.activation)).toBe(true);
    expect(each.activation).toEqual([-1, 2]);
  }
});

describe("refused", () => {
  const layer = (): BatchNorm => new BatchNorm(2);
  const x = (): Float32Array => Float32Array.of(1, 2, 3, 5);

  test.each([["gelu"], [0], [[1]], [[1, 1]], [[2, 1]], [[NaN, 1]], [[0, "1"]], [[0, 1e-60]]])(
    "activation %j",
    (activation) => {
      expect(() => new BatchNorm(2, { activation: wrong(activation) })).toThrow(OptionError);
    },
  );

  test("a residual that is none", () => {
    for (const add of [null, [1, 2, 3, 5], new Float32Array(3), new Float64Array(4)]) {
      expect(() => layer().train(x(), { add: wrong(add) })).toThrow(ShapeError);
      expect(() => layer().infer(x(), { add: wrong(add) })).toThrow(ShapeError);
      expect(() =>
        layer()
          .freeze()
          .infer(x(), { add: wrong(add) }),
      ).toThrow(ShapeError);
    }
  });

  test("an output that overlaps the residual without being it", () => {
    const memory = new Float32Array(5);
    const add = memory.subarray(0, 4);
    const out = memory.subarray(1);
    expect(() => layer().train(x(), { add, out })).toThrow(
      "out: expected memory of its own, got some of that of add",
    );
  });

  test("backward with a residual that has other values since", () => {
    const bn = layer();
    const add = x();
    bn.train(x(), { add });
    add[3] = 7;
    expect(() => bn.backward(x())).toThrow(
      "add: expected what train added, got other values: give backward a copy of it, { add }",
    );
    expect(bn.backward(x(), { add: x() }).dadd).toEqual(x());
  });

  test("backward without the residual that out has overwritten", () => {
    const bn = layer();
    const add = x();
    const copy = add.slice();
    bn.train(x(), { add, out: add });
    expect(() => bn.backward(x())).toThrow(StateError);
    expect(() => bn.backward(x())).toThrow("add: expected what train added");
    expect(bn.backward(x(), { add: copy }).dadd).toEqual(x());
  });

  test("a residual, or an array for its gradient, where there was none", () => {
    const bn = layer();
    bn.train(x());
    expect(() => bn.backward(x(), { add: x() })).toThrow(OptionError);
    expect(() => bn.backward(x(), { out: { dadd: x() } })).toThrow(OptionError);
  });
});
