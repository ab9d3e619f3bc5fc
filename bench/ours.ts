// Our own side, in the ways it can be called. The one import of dist/, not of the package by its
// name: bench/ is a package of its own, and what users get is the built file.

import * as thisBuild from "../dist/index.js";
import { type Case, type Data, EPSILON, OPS, type PeerOp } from "./cases.js";
import { type Answer, keep, type Peer, type Session } from "./peers/peer.js";

/** Views from `kernels.alloc`, nothing is copied. */
export const RESIDENT = "resident";
/** Ordinary arrays in, results into an ordinary array that is given. */
export const PLAIN = "plain";
/** Ordinary arrays in, a fresh ordinary array out: what a peer that returns its result does too. */
export const FRESH = "plain, fresh out";
/** As plain, by `freeze().infer`. */
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

/** Room for x, dy and one result, each with some space before it, and the scratch of a call. */
function kernelsFor(build: Build, c: Case): Kernels {
  return new build.Kernels({ memory: 3 * (4 * c.size + 131072) + 4 * 2 ** 20 + 256 * c.channels });
}

/**
 * A tensor, behind 96 KiB of unused memory: so two builds in one memory (against.ts) have none of their
 * tensors where the other has another one. Made of small parts, as large tensors are staggered, and of
 * 4 KiB pages, so that two tensors keep the distance modulo 4096 that they have without it.
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
