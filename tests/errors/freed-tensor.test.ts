// StateError: tensors of kernel memory that are freed already, and views that `free` is not meant for.

import { BatchNorm, Kernels, StateError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { normal } from "../support/data.js";
import { Fixture, refuses } from "./rows.js";

describe("use of a freed tensor", () => {
  refuses(StateError, "STATE", [
    {
      name: "infer of one by a layer on other kernels",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => new BatchNorm(f.layer.channels, { kernels: new Kernels() }).infer(f.freed()),
    },
    {
      name: "infer of one by a frozen layer on other kernels",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) =>
        new BatchNorm(f.layer.channels, { kernels: new Kernels() }).freeze().infer(f.freed()),
    },
    {
      name: "train on a freed tensor",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.train(f.freed(), { out: f.out }),
    },
    {
      name: "train into one",
      message:
        "out: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.train(f.x, { out: f.freed() }),
    },
    {
      name: "infer of one",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.infer(f.freed(), { out: f.out }),
    },
    {
      name: "infer into one",
      message:
        "out: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.infer(f.x, { out: f.freed() }),
    },
    {
      name: "a frozen layer's infer of one",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.freeze().infer(f.freed(), { out: f.out }),
    },
    {
      name: "a frozen layer's infer into one",
      message:
        "out: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.freeze().infer(f.x, { out: f.freed() }),
    },
    {
      name: "a frozen layer's infer of a large one",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.freeze().infer(f.freed(3000)),
    },
    {
      name: "backward of one",
      message: "dy: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.backward(f.freed(), { out: { dx: f.out } }),
    },
    {
      name: "backward with its x",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.backward(f.dy, { x: f.freed(), out: { dx: f.out } }),
    },
    {
      name: "backward into one",
      message:
        "out.dx: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.backward(f.dy, { out: { dx: f.freed() } }),
    },
    {
      name: "backward: dgamma into one",
      message:
        "out.dgamma: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.backward(f.dy, { out: { dx: f.out, dgamma: f.freed(3) } }),
    },
    {
      name: "backward: dbeta into one",
      message:
        "out.dbeta: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.backward(f.dy, { out: { dx: f.out, dbeta: f.freed(3) } }),
    },
    {
      name: "backward after its x was freed",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: ({ kernels, x: values, dy, out: dx }) => {
        const layer = new BatchNorm(3, { kernels });
        const x = kernels.alloc(12);
        x.set(values);
        layer.train(x);
        kernels.free(x);
        layer.backward(dy, { out: { dx } });
      },
    },
    {
      name: "a part of a freed tensor",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: (f) => f.layer.infer(f.freed(40).subarray(5, 17)),
    },
    {
      name: "a view of the kernels' own scratch",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: ({ layer, kernels }) => {
        const view = kernels.alloc(1);
        kernels.free(view);
        layer.infer(new Float32Array(view.buffer, 0, 12));
      },
    },
    {
      name: "a view over two tensors",
      message: "x: expected a tensor of kernel memory in use, got one that is freed, or no tensor",
      call: ({ layer, kernels }) => {
        const [a, b] = [kernels.alloc(64), kernels.alloc(64)];
        try {
          layer.infer(new Float32Array(a.buffer, Math.min(a.byteOffset, b.byteOffset), 66));
        } finally {
          kernels.free(a);
          kernels.free(b);
        }
      },
    },
  ]);
});

describe("free", () => {
  refuses(StateError, "STATE", [
    {
      name: "free twice",
      message:
        "view: expected a tensor as alloc returned it, got one that is freed already or a part",
      call: ({ kernels }) => {
        const view = kernels.alloc(12);
        kernels.free(view);
        kernels.free(view);
      },
    },
    {
      name: "free the beginning of a tensor",
      message:
        "view: expected a tensor as alloc returned it, got one that is freed already or a part",
      call: ({ kernels }) => kernels.free(kernels.alloc(12).subarray(0, 6)),
    },
    {
      name: "free the end of a tensor",
      message:
        "view: expected a tensor as alloc returned it, got one that is freed already or a part",
      call: ({ kernels }) => kernels.free(kernels.alloc(12).subarray(6)),
    },
    {
      name: "free more than a tensor",
      message:
        "view: expected a tensor as alloc returned it, got one that is freed already or a part",
      call: ({ kernels }) => {
        const { buffer, byteOffset } = kernels.alloc(12);
        kernels.free(new Float32Array(buffer, byteOffset, 16));
      },
    },
    {
      name: "free an ordinary array",
      message: "view: expected a tensor as alloc returned it, got an array of other memory",
      call: ({ kernels }) => kernels.free(new Float32Array(12)),
    },
    {
      name: "free a tensor of other kernels",
      message: "view: expected a tensor as alloc returned it, got an array of other memory",
      call: ({ kernels }) => {
        const others = new Kernels({ memory: 1 << 20 });
        kernels.free(others.alloc(12));
      },
    },
  ]);
});

describe("a freed tensor whose place another has", () => {
  const { kernels, layer } = new Fixture();
  const stale = kernels.alloc(12);
  kernels.free(stale);
  const next = kernels.alloc(12).fill(7);

  test("is not freed again", () => {
    expect(next.byteOffset).toBe(stale.byteOffset);
    expect(() => kernels.free(stale)).toThrow(StateError);
    // What has the place now is still its owner's.
    expect(kernels.alloc(12).byteOffset).not.toBe(next.byteOffset);
  });

  test("is not used", () => {
    expect(() => layer.infer(stale)).toThrow(StateError);
    expect(() => layer.infer(normal(12, 1), { out: stale })).toThrow(StateError);
    expect(next.every((value) => value === 7)).toBe(true);
  });
});
