// StateError: a call that does not fit what happened before it, or what a layer holds.

import {
  adapter,
  type Batch,
  BatchNorm,
  NonFiniteError,
  SingleValueError,
  StateError,
} from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { settle, stateOf } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { isGuarded } from "../support/guards.js";
import { wrong } from "../support/refuse.js";
import { Fixture, type Row, refuses } from "./rows.js";

const other = new BatchNorm(3);
other.train(normal(12, 1));

describe("batches", () => {
  refuses(StateError, "STATE", [
    {
      name: "backward before train",
      message: "batch: expected a train before backward, got none",
      call: ({ dy, out: dx }) => new BatchNorm(3).backward(dy, { out: { dx } }),
    },
    {
      name: "backward before train, x or not",
      message: "batch: expected a train before backward, got none",
      call: ({ dy, x }) => new BatchNorm(3).backward(dy, { x }),
    },
    {
      name: "backward after reset",
      message: "batch: expected a train before backward, got none",
      call: ({ dy, x }) => {
        const layer = new BatchNorm(3);
        layer.train(x);
        layer.reset();
        layer.backward(dy);
      },
    },
    {
      name: "backward of a clone",
      message: "batch: expected a train before backward, got none",
      call: ({ layer, dy }) => layer.clone().backward(dy),
    },
    {
      name: "a batch of another layer",
      message: "batch: expected a lastBatch of this layer, got one of another layer",
      call: ({ layer, dy, out: dx }) =>
        layer.backward(dy, { batch: other.lastBatch!, out: { dx } }),
    },
    {
      name: "a batch of the layer that was cloned",
      message: "batch: expected a lastBatch of this layer, got one of another layer",
      call: ({ layer, dy }) => layer.clone().backward(dy, { batch: layer.lastBatch! }),
    },
    // Of a layer whose latest batch nobody has looked at: see LatestBatch.
    ...(["backward", "backwardSums"] as const).map((method) => ({
      name: `null for a batch, ${method}`,
      message: "batch: expected a lastBatch of this layer, got null",
      call: ({ dy, x }: { dy: Float32Array; x: Float32Array }) => {
        const layer = new BatchNorm(3);
        layer.train(x);
        layer[method](dy, { batch: null as unknown as Batch });
      },
    })),
    {
      name: "a structured clone of a batch",
      message: "batch: expected a lastBatch of this layer, got an Object",
      call: ({ layer, dy }) => layer.backward(dy, { batch: structuredClone(layer.lastBatch!) }),
    },
    {
      name: "a batch made by hand",
      message: "batch: expected a lastBatch of this layer, got an Object",
      call: ({ layer, dy }) =>
        layer.backward(dy, { batch: { ...layer.lastBatch! } as unknown as Batch }),
    },
    {
      name: "a fake batch",
      message: "batch: expected a lastBatch of this layer, got a proxy or copy",
      call: ({ layer, dy }) => layer.backward(dy, { batch: Object.create(layer.lastBatch!) }),
    },
    {
      name: "a batch behind a proxy",
      message: "batch: expected a lastBatch of this layer, got a proxy or copy",
      call: ({ layer, dy }) => layer.backward(dy, { batch: new Proxy(layer.lastBatch!, {}) }),
    },
    {
      name: "a number for a batch",
      message: "batch: expected a lastBatch of this layer, got 5",
      call: ({ layer, dy }) => layer.backward(dy, { batch: wrong(5) }),
    },
    {
      name: "a batch of null",
      message: "batch: expected a lastBatch of this layer, got null",
      call: ({ layer, dy }) => layer.backward(dy, { batch: wrong(null) }),
    },
  ]);

  test("backward after an in-place train, and what to do", () => {
    const { layer, dy, out: dx } = new Fixture().trainInPlace();
    const state = stateOf(layer);
    expect(() => layer.backward(dy, { out: { dx } })).toThrow(StateError);
    expect(() => layer.backward(dy)).toThrow(/^x: expected the input of train, got none.*\{ x \}/);
    expect(stateOf(layer)).toBe(state);
    expect(isGuarded(dx)).toBe(true);
  });

  test("a train that throws leaves backward the batch before it", () => {
    for (const channels of [3, 1025, 3000]) {
      const layer = settle(new BatchNorm(channels));
      const x = normal(4 * channels, 1);
      const dy = normal(4 * channels, 2);
      layer.train(x);
      const expected = layer.backward(dy);
      const { mean, variance } = structuredClone(layer.lastBatch!);
      const nan = normal(4 * channels, 3, 5);
      nan[nan.length - 1] = Number.NaN;
      layer.train(x, { updateRunning: false });
      // Nobody asked for lastBatch since, so there may be no copy of its statistics.
      expect(() => layer.train(nan)).toThrow(NonFiniteError);
      expect(() => layer.train(nan.subarray(0, channels))).toThrow(SingleValueError);
      const kept = layer.runningVariance.slice();
      layer.runningVariance[channels - 1] = -1;
      expect(() => layer.train(nan, { statistics: "running" })).toThrow(StateError);
      layer.runningVariance.set(kept);
      assertSameBits("dx", layer.backward(dy).dx, expected.dx);
      assertSameBits("dgamma", layer.backward(dy).dgamma!, expected.dgamma!);
      expect(layer.lastBatch!.x).toBe(x);
      expect(layer.lastBatch!.statistics).toBe("batch");
      assertSameBits("mean", layer.lastBatch!.mean, mean);
      assertSameBits("variance", layer.lastBatch!.variance, variance);
    }
  });
});

describe("averages and their count", () => {
  refuses(StateError, "STATE", [
    ...[-1, -1e-300, Number.NaN, Number.POSITIVE_INFINITY].flatMap((bad): Row[] => {
      const broken = (f: Fixture): BatchNorm => {
        const layer = f.layer.clone();
        layer.runningVariance[1] = bad;
        return layer;
      };
      return [
        {
          name: `infer with a variance of ${bad}`,
          message: `runningVariance: expected finite numbers >= 0, got ${bad} for channel 1`,
          call: (f) => broken(f).infer(f.x, { out: f.out }),
        },
        {
          name: `freeze with a variance of ${bad}`,
          message: `runningVariance: expected finite numbers >= 0, got ${bad} for channel 1`,
          call: (f) => broken(f).freeze(),
        },
        {
          name: `train by one of ${bad}`,
          message: `runningVariance: expected finite numbers >= 0, got ${bad} for channel 1`,
          call: (f) => broken(f).train(f.x, { out: f.out, statistics: "running" }),
        },
      ];
    }),
    ...[-1, 0.5, Number.NaN, "3", null].map(
      (bad): Row => ({
        name: `train with batchesSeen ${bad}`,
        message: `batchesSeen: expected a whole number >= 0, got ${typeof bad === "string" ? JSON.stringify(bad) : bad}`,
        call: ({ layer, x, out }) => {
          const broken = layer.clone();
          broken.batchesSeen = wrong(bad);
          broken.train(x, { out });
        },
      }),
    ),
    // JSON has no such number, so what they write could not be read again.
    ...(["snapshot", "toJSON"] as const).map(
      (method): Row => ({
        name: `${method} with batchesSeen NaN`,
        message: "batchesSeen: expected a whole number >= 0, got NaN",
        call: ({ layer }) => {
          const broken = layer.clone();
          broken.batchesSeen = Number.NaN;
          broken[method]();
        },
      }),
    ),
    {
      name: "toJSON of an adapter with batchesSeen 3n",
      message: "batchesSeen: expected a whole number >= 0, got 3n",
      call: ({ layer }) => {
        const broken = layer.clone();
        broken.batchesSeen = wrong(3n);
        adapter(broken, { prior: 1, memory: 2 }).toJSON();
      },
    },
  ]);
});
