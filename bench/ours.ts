// This package, in the ways in which it can be called. It is imported as it is built, from dist/, because that
// is what users get.

import * as thisBuild from "../dist/index.js";
import { type Case, type Data, EPSILON, OPS, type PeerOp } from "./cases.js";
import { type Answer, keep, type Peer, type Session } from "./peers/peer.js";

/** All tensors lie in kernel memory (`kernels.alloc`). Nothing is copied. */
export const RESIDENT = "resident";
/** Ordinary arrays, and an ordinary array that is given for the result. */
export const PLAIN = "plain";
/** Ordinary arrays, and a new array for each result, as libraries make one that return their result. */
export const FRESH = "plain, fresh out";
/** As PLAIN, by `freeze().infer`. */
export const FROZEN = "plain, frozen";

/** What the benchmark uses of a build of the package: `--against` measures a second one. */
export type Build = Pick<typeof thisBuild, "BatchNorm" | "Kernels">;
type BatchNorm = thisBuild.BatchNorm;
type Kernels = thisBuild.Kernels;

function layer(build: Build, c: Case, data: Data, kernels?: Kernels): BatchNorm {
  const bn = new build.BatchNorm(c.channels, {
    layout: c.layout,
    epsilon: EPSILON,
    ...(kernels ? { kernels } : {}),
  });
  bn.gamma?.set(data.gamma);
  bn.beta?.set(data.beta);
  bn.runningMean.set(data.mean);
  bn.runningVariance.set(data.variance);
  return bn;
}

/** Kernels with room for x, dy and one result, for the space before each of them, and for what a call needs itself. */
function kernelsFor(build: Build, c: Case): Kernels {
  return new build.Kernels({ memory: 3 * (4 * c.size + 131072) + 4 * 2 ** 20 + 256 * c.channels });
}

/**
 * A tensor behind 96 KiB of unused memory. against.ts runs two builds in one memory, whose tensors may lie a
 * little apart; with this space no tensor of one lies where the other has a different one. The space is made of
 * tensors of three 4 KiB pages each: so small that `alloc` does not stagger them, and of whole pages, so that
 * addresses modulo 4096, on which speed depends, are as without it.
 */
function spaced(kernels: Kernels, length: number): Float32Array {
  for (let i = 0; i < 8; i++) kernels.alloc(3072);
  return kernels.alloc(length);
}

function openResident(build: Build, c: Case, op: PeerOp, data: Data): Session {
  const kernels = kernelsFor(build, c);
  const bn = layer(build, c, data, kernels);
  const x = spaced(kernels, c.size);
  const out = spaced(kernels, c.size);
  x.set(data.x);
  if (op !== "backward") return session(bn, c, op, x, x, out);
  const dy = spaced(kernels, c.size);
  dy.set(data.dy);
  return session(bn, c, op, x, dy, out);
}

function openPlain(build: Build, c: Case, op: PeerOp, data: Data): Session {
  const out = data.out ?? new Float32Array(c.size);
  return session(layer(build, c, data), c, op, data.x, data.dy, out);
}

function openFresh(build: Build, c: Case, op: PeerOp, data: Data): Session {
  return session(layer(build, c, data), c, op, data.x, data.dy, null);
}

function openFrozen(build: Build, c: Case, _: PeerOp, data: Data): Session {
  const frozen = layer(build, c, data).freeze();
  const options = { shape: c.shape, out: data.out ?? new Float32Array(c.size) };
  return {
    answer: () => ({ y: frozen.infer(data.x, options) }),
    sample(calls) {
      const start = performance.now();
      for (let i = 0; i < calls; i++) frozen.infer(data.x, options);
      const spent = performance.now() - start;
      keep(options.out);
      return spent;
    },
  };
}

function session(
  bn: BatchNorm,
  c: Case,
  op: PeerOp,
  x: Float32Array,
  dy: Float32Array,
  out: Float32Array | null,
): Session {
  const options = { shape: c.shape, ...(out && { out }) };
  if (op === "infer") {
    return {
      answer: () => ({ y: bn.infer(x, options) }),
      sample(calls) {
        const start = performance.now();
        let last = x;
        for (let i = 0; i < calls; i++) last = bn.infer(x, options);
        const spent = performance.now() - start;
        keep(last);
        return spent;
      },
    };
  }
  if (op === "train") {
    return {
      answer: () => ({ y: bn.train(x, options) }),
      sample(calls) {
        const start = performance.now();
        let last = x;
        for (let i = 0; i < calls; i++) last = bn.train(x, options);
        const spent = performance.now() - start;
        keep(last);
        return spent;
      },
    };
  }
  bn.train(x, { shape: c.shape });
  const dgamma = new Float32Array(c.channels);
  const dbeta = new Float32Array(c.channels);
  const given = out ? { out: { dx: out, dgamma, dbeta } } : {};
  return {
    answer: () => bn.backward(dy, given) as Answer,
    sample(calls) {
      const start = performance.now();
      let last = x;
      for (let i = 0; i < calls; i++) last = bn.backward(dy, given).dx;
      const spent = performance.now() - start;
      keep(last);
      return spent;
    },
  };
}

const peer = (name: string, open: Peer["open"], ops: Peer["ops"] = OPS): Peer => ({
  name,
  version: "",
  kind: "ours",
  layouts: ["NC", "NCHW", "NHWC"],
  ops,
  open,
});

/** The ways in which a build can be called, each as a side of the benchmark. */
export function waysOf(build: Build) {
  return {
    resident: peer(RESIDENT, async (...what) => openResident(build, ...what)),
    plain: peer(PLAIN, async (...what) => openPlain(build, ...what)),
    fresh: peer(FRESH, async (...what) => openFresh(build, ...what)),
    frozen: peer(FROZEN, async (...what) => openFrozen(build, ...what), ["infer"]),
  };
}

export const ours = waysOf(thisBuild);
