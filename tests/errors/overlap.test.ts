// ShapeError: results that would be written over what they are computed from, or over each other.

import { ShapeError } from "batchnorm-wasm";
import { describe, test } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { Fixture, KERNELS, type Row, refuses } from "./rows.js";

interface Memory {
  readonly memory: string;
  readonly make: (length: number) => Float32Array;
}

const MEMORIES: readonly Memory[] = [
  { memory: "an ordinary array", make: (length) => new Float32Array(length) },
  {
    memory: "a shared array",
    make: (length) => new Float32Array(new SharedArrayBuffer(4 * length)),
  },
  { memory: "a tensor", make: (length) => KERNELS.alloc(length) },
];

/** Parts of one memory, `apart` values from each other. */
const parts = (memory: Float32Array, apart: number, ...lengths: number[]): Float32Array[] =>
  lengths.map((length, i) => memory.subarray(i * apart, i * apart + length));

/** Arrays that share memory. */
interface Shared {
  /** Twelve values each, of which the last and the first are the same. */
  readonly first: Float32Array;
  readonly second: Float32Array;
  /** Twelve values each, the second one value further on. */
  readonly next: readonly [Float32Array, Float32Array];
  /** Three values each, of which the last and the first are the same. */
  readonly small: readonly [Float32Array, Float32Array];
  /** Twelve values, of which parts are taken. */
  readonly all: Float32Array;
}

function sharedIn(make: Memory["make"]): Shared {
  const [first, second] = parts(make(40), 11, 12, 12) as [Float32Array, Float32Array];
  const next = parts(make(40), 1, 12, 12) as [Float32Array, Float32Array];
  const small = parts(make(40), 2, 3, 3) as [Float32Array, Float32Array];
  const all = make(12);
  for (const each of [second, first, ...next, all]) each.set(normal(12, 1));
  return { first, second, next, small, all };
}

interface Overlap {
  readonly name: string;
  readonly message: string;
  readonly call: (f: Fixture, shared: Shared) => unknown;
}

const OVERLAPS: readonly Overlap[] = [
  {
    name: "out before x",
    message: "out: expected memory of its own, got some of that of x",
    call: ({ layer }, { first, second }) => layer.train(second, { out: first }),
  },
  {
    name: "out behind x",
    message: "out: expected memory of its own, got some of that of x",
    call: ({ layer }, { first, second }) => layer.train(first, { out: second }),
  },
  {
    name: "out one value behind x",
    message: "out: expected memory of its own, got some of that of x",
    call: ({ layer }, { next }) => layer.train(next[0], { out: next[1] }),
  },
  {
    name: "infer: out behind x",
    message: "out: expected memory of its own, got some of that of x",
    call: ({ layer }, { first, second }) => layer.infer(first, { out: second }),
  },
  {
    name: "frozen: out before x",
    message: "out: expected memory of its own, got some of that of x",
    call: ({ layer }, { first, second }) => layer.freeze().infer(second, { out: first }),
  },
  {
    name: "dx behind dy",
    message: "out.dx: expected memory of its own, got some of that of dy",
    call: ({ layer }, { first, second }) => layer.backward(first, { out: { dx: second } }),
  },
  {
    name: "dx before dy",
    message: "out.dx: expected memory of its own, got some of that of dy",
    call: ({ layer }, { first, second }) => layer.backward(second, { out: { dx: first } }),
  },
  {
    name: "dx is x",
    message: "out.dx: expected memory of its own, got some of that of x",
    call: ({ layer, dy }, { all }) => layer.backward(dy, { x: all, out: { dx: all } }),
  },
  {
    name: "dx behind x",
    message: "out.dx: expected memory of its own, got some of that of x",
    call: ({ layer, dy }, { first, second }) =>
      layer.backward(dy, { x: first, out: { dx: second } }),
  },
  {
    name: "dgamma in dx",
    message: "out.dgamma: expected memory of its own, got some of that of out.dx",
    call: ({ layer, dy }, { all }) =>
      layer.backward(dy, { out: { dx: all, dgamma: all.subarray(9) } }),
  },
  {
    name: "dbeta in dy",
    message: "out.dbeta: expected memory of its own, got some of that of dy",
    call: ({ layer, out: dx }, { all }) =>
      layer.backward(all, { out: { dx, dbeta: all.subarray(0, 3) } }),
  },
  {
    name: "dbeta in x",
    message: "out.dbeta: expected memory of its own, got some of that of x",
    call: ({ layer, dy, out: dx }, { all }) =>
      layer.backward(dy, { x: all, out: { dx, dbeta: all.subarray(4, 7) } }),
  },
  {
    name: "dbeta in dgamma",
    message: "out.dbeta: expected memory of its own, got some of that of out.dgamma",
    call: ({ layer, dy, out: dx }, { small: [dgamma, dbeta] }) =>
      layer.backward(dy, { out: { dx, dgamma, dbeta } }),
  },
];

describe.each(MEMORIES.map(({ memory, make }) => [memory, make] as const))("in %s", (_, make) => {
  const shared = sharedIn(make);
  refuses(
    ShapeError,
    "SHAPE",
    OVERLAPS.map(
      ({ name, message, call }): Row => ({ name, message, call: (f) => call(f, shared) }),
    ),
  );
});

describe("of parameters and their gradients", () => {
  refuses(ShapeError, "SHAPE", [
    {
      name: "dgamma is dbeta",
      message: "out.dbeta: expected memory of its own, got some of that of out.dgamma",
      call: ({ layer, dy, out: dx }) => {
        const same = new Float32Array(3);
        layer.backward(dy, { out: { dx, dgamma: same, dbeta: same } });
      },
    },
    {
      name: "dgamma is gamma",
      message: "out.dgamma: expected memory of its own, got some of that of gamma",
      call: ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dgamma: layer.gamma! } }),
    },
    {
      name: "dbeta is beta",
      message: "out.dbeta: expected memory of its own, got some of that of beta",
      call: ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dbeta: layer.beta! } }),
    },
    {
      name: "dgamma is beta",
      message: "out.dgamma: expected memory of its own, got some of that of beta",
      call: ({ layer, dy, out: dx }) => layer.backward(dy, { out: { dx, dgamma: layer.beta! } }),
    },
  ]);
});

test("neighbours in one memory do not overlap", () => {
  for (const { make } of MEMORIES) {
    const memory = make(36);
    memory.set(normal(36, 1));
    const { layer, dy } = new Fixture();
    const [before, x, behind] = parts(memory, 12, 12, 12, 12) as Float32Array[];
    const y = layer.infer(x!.slice());
    assertSameBits("y", layer.infer(x!, { out: before! }), y);
    assertSameBits("y", layer.infer(x!, { out: behind! }), y);
    layer.train(x!, { out: behind! });
    layer.backward(dy, { out: { dx: before! } });
    // The same neighbours on both sides of dy, all three in one memory.
    const [left, between, right] = parts(make(36), 12, 12, 12, 12) as Float32Array[];
    between!.set(dy);
    const wanted = layer.backward(dy).dx!;
    for (const dx of [left!, right!]) {
      assertSameBits("dx", layer.backward(between!, { out: { dx } }).dx!, wanted);
    }
  }
});
