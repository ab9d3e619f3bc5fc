// Our own side, in the ways it can be called. The one import of dist/, not of the package by its
// name: bench/ is a package of its own, and what users get is the built file.

import { BatchNorm, Kernels } from "../dist/index.js";
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

function layer(c: Case, data: Data, kernels?: Kernels): BatchNorm {
  const bn = new BatchNorm(c.channels, {
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
function kernelsFor(c: Case): Kernels {
  return new Kernels({ memory: 3 * (4 * c.size + 16384) + 4 * 2 ** 20 + 256 * c.channels });
}

async function openResident(c: Case, op: PeerOp, data: Data): Promise<Session> {
  const kernels = kernelsFor(c);
  const x = kernels.alloc(c.size);
  const out = kernels.alloc(c.size);
  x.set(data.x);
  if (op !== "backward") return session(layer(c, data, kernels), c, op, x, x, out);
  const dy = kernels.alloc(c.size);
  dy.set(data.dy);
  return session(layer(c, data, kernels), c, op, x, dy, out);
}

async function openPlain(c: Case, op: PeerOp, data: Data): Promise<Session> {
  return session(layer(c, data), c, op, data.x, data.dy, new Float32Array(c.size));
}

async function openFresh(c: Case, op: PeerOp, data: Data): Promise<Session> {
  return session(layer(c, data), c, op, data.x, data.dy, null);
}

async function openFrozen(c: Case, _: PeerOp, data: Data): Promise<Session> {
  const frozen = layer(c, data).freeze();
  const options = { shape: c.shape, out: new Float32Array(c.size) };
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

const ours = (name: string, open: Peer["open"], ops: Peer["ops"] = OPS): Peer => ({
  name,
  version: "",
  kind: "ours",
  layouts: ["NC", "NCHW", "NHWC"],
  ops,
  open,
});

export const resident = ours(RESIDENT, openResident);
export const plain = ours(PLAIN, openPlain);
export const fresh = ours(FRESH, openFresh);
export const frozen = ours(FROZEN, openFrozen, ["infer"]);
