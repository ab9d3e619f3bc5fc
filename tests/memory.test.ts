// Kernel memory: what `alloc` gives, what is left after many calls, data larger than all of it.

import { BatchNorm, Kernels, MemoryError, StateError } from "batchnorm-wasm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LAYOUTS, layerOf, type Shaped, settle, sizeOf, viewOf } from "./support/cases.js";
import { assertSameBits, assertWithin } from "./support/compare.js";
import { normal, random } from "./support/data.js";
import { bitsOf } from "./support/guards.js";
import { DX_ERROR, Y_ERROR } from "./support/limits.js";
import { moments } from "./support/oracle.js";
import { check } from "./support/property.js";

const MIB = 1 << 20;

/** How many values the largest tensor may have that `kernels` can give now. */
function largest(kernels: Kernels): number {
  let [low, high] = [0, kernels.memory / 4];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    try {
      kernels.free(kernels.alloc(middle));
      low = middle;
    } catch (error) {
      if (!(error instanceof MemoryError)) throw error;
      high = middle - 1;
    }
  }
  return low;
}

describe("alloc and free", () => {
  /** Fresh kernels and how many values the largest tensor may have. */
  function fresh(): { kernels: Kernels; capacity: number } {
    const kernels = new Kernels({ memory: 1.25 * MIB });
    return { kernels, capacity: largest(kernels) };
  }

  type Step = { alloc: number } | { free: number };
  const steps: fc.Arbitrary<Step[]> = fc.array(
    fc.oneof(
      fc.record({
        alloc: fc.oneof(
          fc.integer({ min: 0, max: 70 }),
          fc.integer({ min: 0, max: 9000 }),
          fc.integer({ min: 0, max: 120_000 }),
        ),
      }),
      fc.record({ free: fc.nat() }),
    ),
    { maxLength: 60 },
  );

  interface Tensor {
    view: Float32Array;
    bits: number;
  }

  /** Throws if a tensor does not hold what was written to it. */
  function assertKept({ view, bits }: Tensor): void {
    const at = bitsOf(view).findIndex((word) => word !== bits);
    if (at >= 0) throw new Error(`A tensor at ${view.byteOffset} was overwritten at ${at}`);
  }

  /** Bytes of the largest piece between first and end that no tensor takes. */
  function gapOf(live: readonly Tensor[], first: number, end: number): number {
    const sorted = live.map(({ view }) => view).sort((a, b) => a.byteOffset - b.byteOffset);
    let [from, gap] = [first, 0];
    for (const { byteOffset, byteLength } of sorted) {
      gap = Math.max(gap, byteOffset - from);
      from = byteOffset + byteLength;
    }
    return Math.max(gap, end - from);
  }

  test("tensors are aligned, zeroed, apart from each other, and keep what they hold", () => {
    const { kernels, capacity } = fresh();
    const all = kernels.alloc(capacity);
    const first = all.byteOffset;
    const end = first + all.byteLength;
    kernels.free(all);
    check(
      fc.property(steps, (program) => {
        const live: Tensor[] = [];
        try {
          for (const [k, step] of program.entries()) {
            if ("free" in step) {
              if (live.length === 0) continue;
              const [tensor] = live.splice(step.free % live.length, 1) as [Tensor];
              assertKept(tensor);
              kernels.free(tensor.view);
              continue;
            }
            let view: Float32Array;
            try {
              view = kernels.alloc(step.alloc);
            } catch (error) {
              if (!(error instanceof MemoryError)) throw error;
              // No piece is left for it, its alignment and its distance modulo 4096 included.
              expect(4 * step.alloc).toBeGreaterThan(gapOf(live, first, end) - 4096 - 128);
              live.forEach(assertKept);
              continue;
            }
            expect(view.length).toBe(step.alloc);
            expect(view.byteOffset % 64).toBe(0);
            assertKept({ view, bits: 0 });
            for (const { view: other } of live) {
              const before = view.byteOffset + view.byteLength <= other.byteOffset;
              const behind = other.byteOffset + other.byteLength <= view.byteOffset;
              expect(before || behind).toBe(true);
              expect(view.byteOffset).not.toBe(other.byteOffset);
            }
            const bits = 0x7fc00000 + k + 1;
            bitsOf(view).fill(bits);
            live.push({ view, bits });
          }
          live.forEach(assertKept);
        } finally {
          for (const { view } of live) kernels.free(view);
        }
        // All of it is one piece again, as often as one asks.
        kernels.free(kernels.alloc(capacity));
        kernels.free(kernels.alloc(capacity));
      }),
      150,
    );
    expect(largest(kernels)).toBe(capacity);
  });

  test("only the view that alloc returned is freed: another view of all of it is refused, then and later", () => {
    const kernels = new Kernels({ memory: 1 << 20 });
    const layer = new BatchNorm(4, { kernels });
    const view = kernels.alloc(64);
    const other = view.subarray();
    layer.infer(other, { out: view });
    expect(() => kernels.free(other)).toThrow(StateError);
    layer.infer(view);
    kernels.free(view);
    const again = kernels.alloc(64);
    expect(again.byteOffset).toBe(view.byteOffset);
    // The other view must not free the tensor that has its place now.
    for (const gone of [view, other]) expect(() => kernels.free(gone)).toThrow(StateError);
    expect(() => layer.infer(view)).toThrow(StateError);
    expect(kernels.alloc(64).byteOffset).not.toBe(again.byteOffset);
    layer.infer(again.subarray(8, 16));
    layer.infer(again);
  });

  test("hundreds of tensors, freed in any order, leave one piece", () => {
    const { kernels, capacity } = fresh();
    const next = random(2);
    const views = Array.from({ length: 600 }, (_, k) => kernels.alloc(k % 150).fill(k));
    expect(new Set(views.map((view) => view.byteOffset)).size).toBe(600);
    while (views.length > 0) {
      const [view] = views.splice(Math.floor(next() * views.length), 1) as [Float32Array];
      expect(new Set(view).size).toBe(view.length > 0 ? 1 : 0);
      kernels.free(view);
    }
    expect(largest(kernels)).toBe(capacity);
  });

  test("memory given back is given again, when there is no other", () => {
    const { kernels, capacity } = fresh();
    const views = Array.from({ length: 8 }, () => kernels.alloc(Math.floor(capacity / 9)));
    const room = largest(kernels);
    const rest = kernels.alloc(room);
    for (const k of [3, 0, 7]) {
      expect(() => kernels.alloc(views[k]!.length)).toThrow(MemoryError);
      const { byteOffset, length } = views[k]!;
      kernels.free(views[k]!);
      views[k] = kernels.alloc(length);
      expect(Math.abs(views[k].byteOffset - byteOffset)).toBeLessThan(4096);
    }
    kernels.free(rest);
    for (const view of views) kernels.free(view);
    expect(largest(kernels)).toBe(capacity);
  });

  test("neighbours that fill pages do not start at one address modulo 4096", () => {
    const { kernels } = fresh();
    const views = Array.from({ length: 4 }, () => kernels.alloc(8192));
    const offsets = views.map((view) => view.byteOffset % 4096);
    expect(new Set(offsets).size).toBe(4);
  });

  test("a tensor beyond the memory: MemoryError with both sizes", () => {
    const { kernels, capacity } = fresh();
    expect(() => kernels.alloc(capacity + 1)).toThrow(MemoryError);
    expect(() => kernels.alloc(capacity + 1)).toThrow(
      /^length: expected to fit into 1310720 bytes of kernel memory, of which \d+ are free, got \d+/,
    );
    expect(() => kernels.alloc(2 ** 40)).toThrow(MemoryError);
    expect(() => kernels.alloc(Number.MAX_SAFE_INTEGER)).toThrow(MemoryError);
    expect(largest(kernels)).toBe(capacity);
  });

  test("most of the memory is for tensors, and its size is as asked, in whole pages", () => {
    for (const [asked, given] of [
      [MIB, MIB],
      [MIB + 1, MIB + 65536],
      [5 * MIB, 5 * MIB],
    ] as const) {
      const own = new Kernels({ memory: asked });
      expect(own.memory).toBe(given);
      // Buffers and scratch are some 950 KB, whatever the size.
      expect(4 * largest(own)).toBeGreaterThan(given - 965_000);
    }
    expect(new Kernels().memory).toBe(16 * MIB);
  });
});

describe("tensors at the very end of the memory", () => {
  test.each<Shaped>([
    { layout: "NC", shape: [7, 1] },
    { layout: "NC", shape: [301, 33] },
    { layout: "NC", shape: [3, 1025] },
    { layout: "NC", shape: [3, 90_001] },
    { layout: "NC", shape: [150, 2001] },
    { layout: "NC", shape: [3001, 97] },
    { layout: "NCL", shape: [9, 500, 3] },
    { layout: "NCL", shape: [3, 7, 4099] },
    { layout: "NCL", shape: [2, 2001, 19] },
  ])("$layout $shape", (shaped) => {
    // Kernels read whole vectors: past the last tensor there must be something left to read.
    const kernels = new Kernels({ memory: 8 * MIB });
    const size = sizeOf(shaped);
    const { shape } = shaped;
    const x = normal(size, 1);
    const dy = normal(size, 2);
    const layer = settle(layerOf(shaped, { kernels }));
    const y = layer.train(x, { shape });
    const { dx } = layer.backward(dy);
    const z = layer.infer(x, { shape });
    const tensors = [kernels.alloc(size), kernels.alloc(size)] as [Float32Array, Float32Array];
    const rest = kernels.alloc(largest(kernels));
    const last = rest.subarray(rest.length - size);
    const end = last.byteOffset + last.byteLength;
    expect(kernels.memory - end).toBeLessThan(256);
    // Each of the three operands takes its turn at the end.
    for (const [p, q, r] of [
      [last, ...tensors],
      [tensors[0], last, tensors[1]],
      [...tensors, last],
    ] as [Float32Array, Float32Array, Float32Array][]) {
      const fresh = settle(layerOf(shaped, { kernels }));
      p.set(x);
      q.set(dy);
      assertSameBits("y", fresh.train(p, { shape, out: r }), y);
      assertSameBits("dx", fresh.backward(q, { out: { dx: r } }).dx, dx);
      assertSameBits("z", fresh.infer(p, { shape, out: r }), z);
    }
  });
});

describe("100,000 mixed calls", () => {
  test("leave kernel memory as it was, and no view detached", () => {
    const kernels = new Kernels({ memory: MIB });
    const next = random(1);
    const below = (n: number): number => Math.floor(next() * n);
    const layers = LAYOUTS.flatMap((layout) =>
      [1, 5, 33].map((channels) => settle(new BatchNorm(channels, { layout, kernels }))),
    );
    const capacity = largest(kernels);
    const kept = kernels.alloc(1001).fill(7);
    const { buffer } = kept;
    const room = largest(kernels);
    const plain = normal(9 * 27 * 33, 1);
    const views: Float32Array[] = [];
    const operand = (length: number): Float32Array => {
      if (below(2)) return plain.slice(0, length);
      const view = kernels.alloc(length);
      view.set(plain.subarray(0, length));
      views.push(view);
      return view;
    };
    let calls = 0;
    const count = { train: 0, backward: 0, infer: 0, freeze: 0, refused: 0, alloc: 0, free: 0 };
    while (calls < 100_000) {
      const layer = layers[below(layers.length)]!;
      const { layout, channels } = layer;
      const shape = [...layout].map((axis) => (axis === "C" ? channels : 1 + below(3)));
      shape[0] = 2 + below(8);
      const length = shape.reduce((a, b) => a * b, 1);
      const x = operand(length);
      const out = below(2) ? operand(length) : undefined;
      const options = out ? { shape, out } : { shape };
      switch (below(5)) {
        case 0: {
          const y = layer.infer(x, options);
          if (!Number.isFinite(y[length - 1])) throw new Error("infer gave no number");
          count.infer++;
          break;
        }
        case 1: {
          layer.freeze().infer(x, options);
          count.freeze += 2;
          break;
        }
        case 2: {
          // A call that throws leaves nothing behind either.
          x[below(length)] = Number.NaN;
          expect(() => layer.train(x, options)).toThrow("expected finite values");
          count.refused++;
          break;
        }
        default: {
          layer.train(x, options);
          const { dx } = layer.backward(operand(length), out ? { out: { dx: out } } : {});
          if (!Number.isFinite(dx[0])) throw new Error("backward gave no number");
          count.train++;
          count.backward++;
        }
      }
      // Some tensors live on for a while.
      while (views.length > below(12)) {
        const [view] = views.splice(below(views.length), 1) as [Float32Array];
        if (view.buffer !== buffer) throw new Error("A view was detached");
        kernels.free(view);
        count.free++;
      }
      count.alloc = count.free + views.length;
      calls = Object.values(count).reduce((sum, n) => sum + n, 0);
    }
    for (const view of views) kernels.free(view);
    for (const n of Object.values(count)) expect(n).toBeGreaterThan(1000);
    expect(kept.length).toBe(1001);
    expect(kept.every((value) => value === 7)).toBe(true);
    expect(kept.buffer).toBe(buffer);
    expect(buffer.byteLength).toBe(MIB);
    expect(kernels.memory).toBe(MIB);
    expect(largest(kernels)).toBe(room);
    kernels.free(kept);
    expect(largest(kernels)).toBe(capacity);
  });
});

describe("ordinary arrays larger than the memory", () => {
  const kernels = new Kernels({ memory: MIB });

  /** Two values a and b per channel have mean (a + b)/2 and variance ((a - b)/2)². */
  test.each<Shaped>([
    { layout: "NC", shape: [2, 1_000_000] },
    { layout: "NCL", shape: [1, 1_000_000, 2] },
  ])("a million channels: $layout $shape", (shaped) => {
    const { layout, shape } = shaped;
    const C = 1_000_000;
    const layer = new BatchNorm(C, { layout, kernels });
    layer.gamma!.set(normal(C, 1, 1, 0.1));
    layer.beta!.set(normal(C, 2));
    const { gamma, beta } = layer as { gamma: Float32Array; beta: Float32Array };
    const x = normal(2 * C, 3, 2);
    const dy = normal(2 * C, 4, 0.5);
    const step = layout === "NC" ? C : 1;
    const channelOf = (i: number): number => (layout === "NC" ? i % C : i >> 1);
    const channels = Float64Array.from({ length: C }, (_, c) => (layout === "NC" ? c : 2 * c));
    const mean = channels.map((i) => (x[i]! + x[i + step]!) / 2);
    const variance = channels.map((i) => ((x[i]! - x[i + step]!) / 2) ** 2);
    const root = variance.map((v) => Math.sqrt(v + 1e-5));

    const y = layer.train(x, { shape });
    const xhat = Float64Array.from(x);
    for (let i = 0; i < 2 * C; i++) {
      const c = channelOf(i);
      xhat[i] = (xhat[i]! - mean[c]!) / root[c]!;
    }
    const affine = (v: number, i: number): number => gamma[channelOf(i)]! * v + beta[channelOf(i)]!;
    const bound = (i: number): number => {
      const c = channelOf(i);
      return Y_ERROR * Math.max(1, Math.abs(gamma[c]! * xhat[i]!), Math.abs(beta[c]!));
    };
    assertWithin("y", y, xhat.map(affine), bound);
    const { runningMean, runningVariance } = layer;
    assertWithin(
      "runningMean",
      runningMean,
      mean.map((m) => 0.1 * m),
      () => 1e-12,
    );
    const moved = variance.map((v) => 0.9 + 0.1 * 2 * v);
    assertWithin("runningVariance", runningVariance, moved, (c) => 2e-7 * moved[c]!);

    const { dx, dgamma, dbeta } = layer.backward(dy);
    const sums = channels.map((i) => dy[i]! + dy[i + step]!);
    const products = channels.map((i) => dy[i]! * xhat[i]! + dy[i + step]! * xhat[i + step]!);
    assertWithin("dbeta", dbeta!, sums, () => 1e-6);
    assertWithin("dgamma", dgamma!, products, () => 2e-6);
    const scale = root.map((r, c) => gamma[c]! / r);
    const most = channels.map((i) => Math.max(Math.abs(dy[i]!), Math.abs(dy[i + step]!)));
    const slopes = xhat.map((v, i) => {
      const c = channelOf(i);
      return scale[c]! * (dy[i]! - sums[c]! / 2 - (v * products[c]!) / 2);
    });
    assertWithin("dx", dx, slopes, (i) => {
      const c = channelOf(i);
      return DX_ERROR * Math.abs(scale[c]! * most[c]!);
    });

    const z = layer.infer(x, { shape });
    const expected = Float64Array.from(x, (value, i) => {
      const c = channelOf(i);
      const r = Math.sqrt(runningVariance[c]! + 1e-5);
      return (gamma[c]! * (value - runningMean[c]!)) / r + beta[c]!;
    });
    assertWithin("infer", z, expected, (i) => {
      const b = beta[channelOf(i)]!;
      return Y_ERROR * Math.max(1, Math.abs(expected[i]! - b), Math.abs(b));
    });
    assertSameBits("frozen", layer.freeze().infer(x, { shape }), z);
    expect(kernels.memory).toBe(MIB);
  });

  test.each<Shaped>([
    { layout: "NC", shape: [4001, 300] },
    { layout: "NC", shape: [600_001, 2] },
    { layout: "NC", shape: [1100, 1025] },
    { layout: "NCL", shape: [100, 700, 15] },
    { layout: "NCL", shape: [3, 4, 100_003] },
    { layout: "NHWC", shape: [40, 61, 61, 8] },
    // More than 2 Mi values: narrow rows by 480 and 256 columns, with rows left over.
    { layout: "NC", shape: [40_007, 60] },
    { layout: "NHWC", shape: [5, 59, 61, 128] },
  ])("$layout $shape: the bits of a memory that holds them", (shaped) => {
    const roomy = new Kernels({ memory: 48 * MIB });
    const { shape } = shaped;
    const x = normal(sizeOf(shaped), 1, 3);
    const resident = [0, 1, 2].map(() => roomy.alloc(x.length)) as Float32Array[];
    const [p, q, r] = resident as [Float32Array, Float32Array, Float32Array];
    p.set(x);
    q.set(x.subarray().reverse());
    const dy = q.slice();
    x.reverse();
    const small = layerOf(shaped, { kernels });
    const large = layerOf(shaped, { kernels: roomy });
    assertSameBits("y", small.train(x, { shape }), large.train(p, { shape, out: r }));
    for (const name of ["mean", "variance"] as const) {
      assertSameBits(name, small.lastBatch![name], large.lastBatch![name]);
    }
    assertSameBits("dx", small.backward(dy).dx, large.backward(q, { out: { dx: r } }).dx);
    assertSameBits("z", small.infer(x, { shape }), large.infer(p, { shape, out: r }));
  });

  test("40,007 rows of 60 channels that drift: the statistics of float64", () => {
    const shaped = { layout: "NC", shape: [40_007, 60] } as const;
    const x = normal(sizeOf(shaped), 5, 1.3);
    for (let i = 0; i < x.length; i++) x[i] = x[i]! + Math.floor(i / 60) / 1000;
    const layer = new BatchNorm(60, { kernels });
    layer.train(x, { out: new Float32Array(x.length) });
    const { mean, variance } = moments(x, viewOf(shaped));
    const { lastBatch } = layer;
    assertWithin("mean", lastBatch!.mean, mean, (c) => 1e-12 * Math.sqrt(variance[c]!));
    assertWithin("variance", lastBatch!.variance, variance, (c) => 2e-7 * variance[c]!);
  });
});
