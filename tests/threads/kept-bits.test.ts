// The bits that `train` keeps for `backward` where the two calls go through machines of several threads and of one: the
// kernels of several threads have none, and do not know what to do with them.

import { BatchNorm } from "batchnorm-wasm";
import { startKernels, type ThreadedKernels } from "batchnorm-wasm/threads";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";

let kernels: ThreadedKernels;
beforeAll(async () => {
  kernels = await startKernels({ threads: 2, memory: 32 << 20 });
});
afterAll(() => kernels.close());

test.each([
  ["two threads", 2, false, true],
  ["one thread", 1, false, false],
  ["one thread once they are closed", 2, true, false],
])(
  "backward reads the residual on %s: it keeps bits on one thread alone",
  async (_, threads, closes, reads) => {
    const own = await startKernels({ threads });
    if (closes) own.close();
    const bn = new BatchNorm(16, { activation: "relu", kernels: own });
    const [x, add] = [1, 2].map((seed) => {
      const tensor = own.alloc(16_384);
      tensor.set(normal(16_384, seed));
      return tensor;
    });
    add![0] = 9;
    // Which one thread alone would do.
    const keepRows = vi.spyOn(own.machine.wasm, "keepRows");
    bn.train(x!, { add: add! });
    expect(keepRows).toHaveBeenCalledTimes(reads ? 0 : 1);
    add![0] = -9;
    const { dadd } = bn.backward(new Float32Array(16_384).fill(1));
    expect(dadd![0]).toBe(reads ? 0 : 1);
    own.close();
  },
);

const PLACES = ["ordinary", "tensor"] as const;
type Place = (typeof PLACES)[number];

const SHAPES = [
  { layout: "NC", shape: [40, 64] },
  { layout: "NC", shape: [5000, 64] },
  { layout: "NCHW", shape: [5, 64, 32, 32] },
] as const;

describe.each(SHAPES)("$layout $shape", ({ layout, shape }) => {
  const length = (shape as readonly number[]).reduce((a, b) => a * b, 1);
  const [x, add, dy] = [normal(length, 1), normal(length, 2), normal(length, 3)];
  const expected = new BatchNorm(64, { layout, activation: "relu" });
  expected.train(x, { shape, add });
  const batch = expected.lastBatch!;
  expected.train(add, { shape, add: x });
  const right = expected.backward(dy, { batch }); // Of an earlier batch, so without bits.

  for (const first of PLACES) {
    for (const second of PLACES) {
      test(`train of ${first} arrays, backward of ${second} ones`, () => {
        const bn = new BatchNorm(64, { layout, activation: "relu", kernels });
        const freed: Float32Array[] = [];
        const placed = (place: Place, values: Float32Array): Float32Array => {
          if (place === "ordinary") return values.slice();
          const tensor = kernels.alloc(length);
          freed.push(tensor);
          tensor.set(values);
          return tensor;
        };
        bn.train(placed(first, x), { shape, add: placed(first, add) });
        const out = { dx: placed(second, dy), dadd: placed(second, dy) };
        const given = placed(second, dy);
        for (let i = 0; i < 2; i++) {
          const got = bn.backward(given, { out });
          for (const key of ["dx", "dgamma", "dbeta", "dadd"] as const) {
            assertSameBits(key, got[key]!, right[key]!);
          }
        }
        expect(kernels.threads).toBe(2);
        for (const tensor of freed) kernels.free(tensor);
      });
    }
  }
});
