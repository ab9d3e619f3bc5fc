// OptionError: options of the methods of a layer.

import { runInNewContext } from "node:vm";
import {
  adapt,
  adapter,
  BatchNorm,
  diagnose,
  FrozenBatchNorm,
  fold,
  Kernels,
  OptionError,
} from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { stateOf } from "../support/cases.js";
import { wrong } from "../support/refuse.js";
import { Fixture, refuses } from "./rows.js";

const OF_TRAIN = "shape, out, mask, statistics, updateRunning, add";
const OF_INFER = "shape, out, mask, add";
const OF_BACKWARD = "batch, x, add, out, sums";

describe("options of methods", () => {
  refuses(OptionError, "OPTION", [
    {
      name: "train: a typo",
      message: `shpae: expected an option among ${OF_TRAIN}, got "shpae"`,
      call: ({ layer, x, out }) => layer.train(x, wrong({ out, shpae: [4, 3] })),
    },
    {
      name: "train: options null",
      message:
        "options: expected an object { shape, out, mask, statistics, updateRunning, add }, got null",
      call: ({ layer, x }) => layer.train(x, wrong(null)),
    },
    {
      name: "train: statistics",
      message: 'statistics: expected "batch", "running" or Moments, got "moving"',
      call: ({ layer, x, out }) => layer.train(x, { out, statistics: wrong("moving") }),
    },
    {
      name: "train: statistics null",
      message: 'statistics: expected "batch", "running" or Moments, got null',
      call: ({ layer, x, out }) => layer.train(x, { out, statistics: wrong(null) }),
    },
    {
      name: "train: updateRunning 0",
      message: "updateRunning: expected true or false, got 0",
      call: ({ layer, x, out }) => layer.train(x, { out, updateRunning: wrong(0) }),
    },
    {
      name: "train: updateRunning null",
      message: "updateRunning: expected true or false, got null",
      call: ({ layer, x, out }) => layer.train(x, { out, updateRunning: wrong(null) }),
    },
    {
      name: "infer: train's option",
      message: `statistics: expected an option among ${OF_INFER}, got "statistics"`,
      call: ({ layer, x, out }) => layer.infer(x, wrong({ out, statistics: "running" })),
    },
    {
      name: "infer: a typo",
      message: `maks: expected an option among ${OF_INFER}, got "maks"`,
      call: ({ layer, x, out }) => layer.infer(x, wrong({ out, maks: new Uint8Array(4) })),
    },
    {
      name: "infer: options null",
      message: "options: expected an object { shape, out, mask, add }, got null",
      call: ({ layer, x }) => layer.infer(x, wrong(null)),
    },
    {
      name: "infer: out by itself",
      message: `options: expected an object { ${OF_INFER} }, got a Float32Array of length 12`,
      call: ({ layer, x, out }) => layer.infer(x, wrong(out)),
    },
    {
      name: "frozen: out by itself",
      message: `options: expected an object { ${OF_INFER} }, got a Float32Array of length 12`,
      call: ({ layer, x, out }) => layer.freeze().infer(x, wrong(out)),
    },
    {
      name: "train: out by itself",
      message: `options: expected an object { ${OF_TRAIN} }, got a Float32Array of length 12`,
      call: ({ layer, x, out }) => layer.train(x, wrong(out)),
    },
    {
      name: "train: shape by itself",
      message: `options: expected an object { ${OF_TRAIN} }, got an Array of length 2`,
      call: ({ layer, x }) => layer.train(x, wrong([4, 3])),
    },
    {
      name: "backward: dx by itself",
      message: `out: expected an object { dx, dgamma, dbeta, dadd }, got a Float32Array of length 12`,
      call: ({ layer, dy, out }) => layer.backward(dy, { out: wrong(out) }),
    },
    {
      name: "frozen: a typo",
      message: `otu: expected an option among ${OF_INFER}, got "otu"`,
      call: ({ layer, x, out }) => layer.freeze().infer(x, wrong({ otu: out })),
    },
    {
      name: "backward: a typo",
      message: `bacth: expected an option among ${OF_BACKWARD}, got "bacth"`,
      call: ({ layer, dy }) => layer.backward(dy, wrong({ bacth: layer.lastBatch })),
    },
    {
      name: "backward: options null",
      message: "options: expected an object { batch, x, add, out, sums }, got null",
      call: ({ layer, dy }) => layer.backward(dy, wrong(null)),
    },
    {
      name: "backward: a typo in out",
      message: 'gamma: expected an option among dx, dgamma, dbeta, dadd, got "gamma"',
      call: ({ layer, dy, out }) =>
        layer.backward(dy, { out: wrong({ dx: out, gamma: new Float32Array(3) }) }),
    },
    {
      name: "backward: a number for out",
      message: "out: expected an object { dx, dgamma, dbeta, dadd }, got 5",
      call: ({ layer, dy }) => layer.backward(dy, { out: wrong(5) }),
    },
    {
      name: "backward: out null",
      message: "out: expected an object { dx, dgamma, dbeta, dadd }, got null",
      call: ({ layer, dy }) => layer.backward(dy, { out: wrong(null) }),
    },
    {
      name: "backward: dgamma without gamma",
      message:
        "out.dgamma: expected none, since the layer has no gamma, got a Float32Array of length 3",
      call: ({ x, dy, out }) => {
        const layer = new BatchNorm(3, { gamma: false });
        layer.train(x);
        layer.backward(dy, { out: { dx: out, dgamma: new Float32Array(3) } });
      },
    },
    {
      name: "backward: dbeta without beta",
      message:
        "out.dbeta: expected none, since the layer has no beta, got a Float32Array of length 3",
      call: ({ x, dy, out }) => {
        const layer = new BatchNorm(3, { beta: false });
        layer.train(x);
        layer.backward(dy, { out: { dx: out, dbeta: new Float32Array(3) } });
      },
    },
  ]);

  test.each<[string, object]>([
    ["a result's array", new Float32Array(12)],
    ["a shape", [4, 3]],
    ["an empty result", new Float32Array(0)],
    ["an empty mask", new Uint8Array(0)],
    ["an empty shape", []],
    ["an array of holes", new Array(3)],
    ["an array of another realm", runInNewContext("[]")],
    ["a typed array of another realm", runInNewContext("new Float32Array(0)")],
    ["a view without a length", new DataView(new ArrayBuffer(4))],
    ["an array that has an option", Object.assign([], { shape: [4, 3] })],
    // The keys of a large tensor are as many as its values: to list them would take seconds.
    [
      "an array whose keys nobody may list",
      new Proxy([1], { ownKeys: () => expect.fail("its keys were listed") }),
    ],
  ])("an array in place of options: %s", (_, array) => {
    const { layer, x, dy } = new Fixture();
    const given = wrong(array);
    const frozen = layer.freeze();
    const calls: Readonly<Record<string, () => unknown>> = {
      "new BatchNorm": () => new BatchNorm(3, given),
      renorm: () => new BatchNorm(3, { renorm: given }),
      torch: () => BatchNorm.torch(3, given),
      train: () => layer.train(x, given),
      infer: () => layer.infer(x, given),
      moments: () => layer.moments(x, given),
      backward: () => layer.backward(dy, given),
      "backward's out": () => layer.backward(dy, { out: given }),
      backwardSums: () => layer.backwardSums(dy, given),
      "infer, frozen": () => frozen.infer(x, given),
      inverse: () => frozen.inverse(x, given),
      fromJSON: () => FrozenBatchNorm.fromJSON(frozen.toJSON(), given),
      fromMoments: () => FrozenBatchNorm.fromMoments(layer.moments(x), given),
      diagnose: () => diagnose(layer, x, given),
      adapt: () => adapt(layer, x, given),
      adapter: () => adapter(layer, given),
      fold: () => fold(frozen, given),
      Kernels: () => new Kernels(given),
    };
    const before = stateOf(layer);
    for (const [name, call] of Object.entries(calls)) {
      expect(call, name).toThrow(OptionError);
      expect(call, name).toThrow(/^(options|out|renorm): expected an object \{ .+ \}, got an? /);
    }
    expect(stateOf(layer)).toEqual(before);
  });
});
