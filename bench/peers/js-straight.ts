// The JavaScript loop as one writes it first: the formulas of Ioffe & Szegedy 2015, one value after the other in
// the order of memory. The terms of a channel are worked out before the loop. Ratios are not taken of this loop
// but of js.ts, which is the same written as fast as JavaScript allows.

import { type Case, type Data, EPSILON, OPS, type PeerOp } from "../cases.js";
import { type Answer, keep, type Peer, type Session } from "./peer.js";

interface Terms {
  readonly mean: Float64Array;
  readonly invStd: Float64Array;
  readonly scale: Float64Array;
}

/** The mean, then the variance, in two passes over x. */
function statistics(c: Case, x: Float32Array): { mean: Float64Array; variance: Float64Array } {
  const { outer, channels, inner } = c;
  const mean = new Float64Array(channels);
  const variance = new Float64Array(channels);
  if (inner === 1) {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++, i++) mean[k] += x[i];
    }
  } else {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++) {
        let sum = 0;
        for (let p = 0; p < inner; p++, i++) sum += x[i];
        mean[k] += sum;
      }
    }
  }
  for (let k = 0; k < channels; k++) mean[k] /= outer * inner;
  if (inner === 1) {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++, i++) {
        const d = x[i] - mean[k];
        variance[k] += d * d;
      }
    }
  } else {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++) {
        const m = mean[k];
        let sum = 0;
        for (let p = 0; p < inner; p++, i++) sum += (x[i] - m) * (x[i] - m);
        variance[k] += sum;
      }
    }
  }
  for (let k = 0; k < channels; k++) variance[k] /= outer * inner;
  return { mean, variance };
}

function terms(mean: Float64Array, variance: Float64Array, gamma: Float32Array): Terms {
  const invStd = new Float64Array(mean.length);
  const scale = new Float64Array(mean.length);
  for (let k = 0; k < mean.length; k++) {
    invStd[k] = 1 / Math.sqrt(variance[k] + EPSILON);
    scale[k] = gamma[k] * invStd[k];
  }
  return { mean, invStd, scale };
}

function normalize(
  { outer, channels, inner }: Case,
  x: Float32Array,
  { mean, scale }: Terms,
  beta: Float32Array,
  y: Float32Array,
): void {
  if (inner === 1) {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++, i++) y[i] = (x[i] - mean[k]) * scale[k] + beta[k];
    }
    return;
  }
  for (let o = 0, i = 0; o < outer; o++) {
    for (let k = 0; k < channels; k++) {
      const m = mean[k];
      const s = scale[k];
      const b = beta[k];
      for (let p = 0; p < inner; p++, i++) y[i] = (x[i] - m) * s + b;
    }
  }
}

function backward(
  { outer, channels, inner }: Case,
  { x, dy }: Data,
  { mean, invStd, scale }: Terms,
  dx: Float32Array,
): Answer {
  const dgamma = new Float64Array(channels);
  const dbeta = new Float64Array(channels);
  if (inner === 1) {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++, i++) {
        dbeta[k] += dy[i];
        dgamma[k] += dy[i] * (x[i] - mean[k]);
      }
    }
  } else {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++) {
        const m = mean[k];
        let sum = 0;
        let products = 0;
        for (let p = 0; p < inner; p++, i++) {
          sum += dy[i];
          products += dy[i] * (x[i] - m);
        }
        dbeta[k] += sum;
        dgamma[k] += products;
      }
    }
  }
  const average = new Float64Array(channels);
  const slope = new Float64Array(channels);
  for (let k = 0; k < channels; k++) {
    dgamma[k] *= invStd[k];
    average[k] = dbeta[k] / (outer * inner);
    slope[k] = (dgamma[k] * invStd[k]) / (outer * inner);
  }
  if (inner === 1) {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++, i++) {
        dx[i] = scale[k] * (dy[i] - average[k] - (x[i] - mean[k]) * slope[k]);
      }
    }
  } else {
    for (let o = 0, i = 0; o < outer; o++) {
      for (let k = 0; k < channels; k++) {
        const [m, s, a, l] = [mean[k], scale[k], average[k], slope[k]];
        for (let p = 0; p < inner; p++, i++) dx[i] = s * (dy[i] - a - (x[i] - m) * l);
      }
    }
  }
  return { dx, dgamma: Float32Array.from(dgamma), dbeta: Float32Array.from(dbeta) };
}

async function open(c: Case, op: PeerOp, data: Data): Promise<Session> {
  const out = new Float32Array(c.size);
  const running = {
    mean: Float64Array.from(data.mean),
    variance: Float64Array.from(data.variance),
  };
  const of = statistics(c, data.x);
  const saved = terms(of.mean, of.variance, data.gamma);
  const call = (): Answer => {
    if (op === "backward") return backward(c, data, saved, out);
    const { mean, variance } = op === "infer" ? running : statistics(c, data.x);
    normalize(c, data.x, terms(mean, variance, data.gamma), data.beta, out);
    return { y: out };
  };
  return {
    answer: call,
    sample(calls) {
      const start = performance.now();
      for (let i = 0; i < calls; i++) call();
      const spent = performance.now() - start;
      keep(out);
      return spent;
    },
  };
}

export const jsStraight: Peer = {
  name: "js-straight",
  version: `V8 ${process.versions.v8}`,
  kind: "javascript",
  layouts: ["NC", "NCHW", "NHWC"],
  ops: OPS,
  open,
};
