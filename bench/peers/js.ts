// A loop in plain JavaScript, with which all others are compared. It is written to be as fast as JavaScript allows:
//
// - a loop for each order of memory, over typed arrays, without a closure or a call in it;
// - four rows at a time, so that the terms of a channel are read once for four values, or four values of a plane;
// - sums and terms in float64, because numbers in JavaScript are float64 and rounding one costs an instruction;
// - the variance in one pass, of the deviations from the first value of the channel.
//
// docs/tuning.md has the figures.
//
// Ioffe & Szegedy 2015, algorithms 1 and 2 and the gradients of section 3.

import { type Case, type Data, EPSILON, OPS, type PeerOp } from "../cases.js";
import { type Answer, keep, type Peer, type Session } from "./peer.js";

const DECAY = 0.9;

/** The arrays that the loops need, one value per channel, made once. */
class Loop {
  readonly runningMean: Float64Array;
  readonly runningVariance: Float64Array;
  readonly mean: Float64Array;
  readonly invStd: Float64Array;
  readonly scale: Float64Array;
  readonly shift: Float64Array;
  readonly sum: Float64Array;
  readonly squares: Float64Array;

  constructor(
    readonly c: Case,
    readonly gamma: Float32Array,
    readonly beta: Float32Array,
    mean: Float32Array,
    variance: Float32Array,
  ) {
    const make = () => new Float64Array(c.channels);
    this.runningMean = Float64Array.from(mean);
    this.runningVariance = Float64Array.from(variance);
    [this.mean, this.invStd, this.scale, this.shift] = [make(), make(), make(), make()];
    [this.sum, this.squares] = [make(), make()];
  }

  infer(x: Float32Array, y: Float32Array): void {
    const { gamma, beta, runningMean, runningVariance, scale, shift } = this;
    for (let k = 0; k < scale.length; k++) {
      scale[k] = gamma[k] / Math.sqrt(runningVariance[k] + EPSILON);
      shift[k] = beta[k];
    }
    affine(this.c, x, y, runningMean, scale, shift);
  }

  train(x: Float32Array, y: Float32Array): void {
    const { c, gamma, beta, runningMean, runningVariance } = this;
    const { mean, invStd, scale, shift, sum, squares } = this;
    const count = c.outer * c.inner;
    for (let k = 0; k < c.channels; k++) mean[k] = x[k * c.inner];
    deviations(c, x, mean, sum, squares);
    for (let k = 0; k < c.channels; k++) {
      const offset = sum[k] / count;
      const variance = squares[k] / count - offset * offset;
      mean[k] += offset;
      invStd[k] = 1 / Math.sqrt(variance + EPSILON);
      scale[k] = gamma[k] * invStd[k];
      shift[k] = beta[k];
      runningMean[k] += (1 - DECAY) * (mean[k] - runningMean[k]);
      runningVariance[k] += (1 - DECAY) * ((variance * count) / (count - 1) - runningVariance[k]);
    }
    affine(c, x, y, mean, scale, shift);
  }

  /** Call `train` with the same x before. Fills dx, dgamma and dbeta. */
  backward(
    x: Float32Array,
    dy: Float32Array,
    dx: Float32Array,
    dgamma: Float32Array,
    dbeta: Float32Array,
  ): void {
    const { c, gamma, mean, invStd, scale, shift, sum, squares } = this;
    const count = c.outer * c.inner;
    gradientSums(c, x, dy, mean, sum, squares);
    for (let k = 0; k < c.channels; k++) {
      dbeta[k] = sum[k];
      dgamma[k] = squares[k] * invStd[k];
      scale[k] = gamma[k] * invStd[k];
      shift[k] = sum[k] / count;
      squares[k] *= (invStd[k] * invStd[k]) / count;
    }
    gradient(c, x, dy, dx, mean, scale, shift, squares);
  }
}

/** y = (x − mean)·scale + shift */
function affine(
  c: Case,
  x: Float32Array,
  y: Float32Array,
  mean: Float64Array,
  scale: Float64Array,
  shift: Float64Array,
): void {
  if (c.inner > 1) affinePlanes(c.outer, c.channels, c.inner, x, y, mean, scale, shift);
  else affineRows(c.outer, c.channels, x, y, mean, scale, shift);
}

function affineRows(
  outer: number,
  channels: number,
  x: Float32Array,
  y: Float32Array,
  mean: Float64Array,
  scale: Float64Array,
  shift: Float64Array,
): void {
  const c1 = channels;
  const c2 = 2 * c1;
  const c3 = 3 * c1;
  let i = 0;
  let row = 0;
  for (; row + 4 <= outer; row += 4, i += c3) {
    for (let k = 0; k < c1; k++, i++) {
      const m = mean[k];
      const s = scale[k];
      const b = shift[k];
      y[i] = (x[i] - m) * s + b;
      y[i + c1] = (x[i + c1] - m) * s + b;
      y[i + c2] = (x[i + c2] - m) * s + b;
      y[i + c3] = (x[i + c3] - m) * s + b;
    }
  }
  for (; row < outer; row++) {
    for (let k = 0; k < c1; k++, i++) y[i] = (x[i] - mean[k]) * scale[k] + shift[k];
  }
}

function affinePlanes(
  outer: number,
  channels: number,
  inner: number,
  x: Float32Array,
  y: Float32Array,
  mean: Float64Array,
  scale: Float64Array,
  shift: Float64Array,
): void {
  let i = 0;
  for (let o = 0; o < outer; o++) {
    for (let k = 0; k < channels; k++) {
      const m = mean[k];
      const s = scale[k];
      const b = shift[k];
      const end = i + inner;
      for (const whole = end - 3; i < whole; i += 4) {
        y[i] = (x[i] - m) * s + b;
        y[i + 1] = (x[i + 1] - m) * s + b;
        y[i + 2] = (x[i + 2] - m) * s + b;
        y[i + 3] = (x[i + 3] - m) * s + b;
      }
      for (; i < end; i++) y[i] = (x[i] - m) * s + b;
    }
  }
}

/** sum = Σd, squares = Σd² with d = x − origin */
function deviations(
  c: Case,
  x: Float32Array,
  origin: Float64Array,
  sum: Float64Array,
  squares: Float64Array,
): void {
  sum.fill(0);
  squares.fill(0);
  if (c.inner > 1) deviationsPlanes(c.outer, c.channels, c.inner, x, origin, sum, squares);
  else deviationsRows(c.outer, c.channels, x, origin, sum, squares);
}

function deviationsRows(
  outer: number,
  channels: number,
  x: Float32Array,
  origin: Float64Array,
  sum: Float64Array,
  squares: Float64Array,
): void {
  const c1 = channels;
  const c2 = 2 * c1;
  const c3 = 3 * c1;
  let i = 0;
  let row = 0;
  for (; row + 4 <= outer; row += 4, i += c3) {
    for (let k = 0; k < c1; k++, i++) {
      const m = origin[k];
      const d0 = x[i] - m;
      const d1 = x[i + c1] - m;
      const d2 = x[i + c2] - m;
      const d3 = x[i + c3] - m;
      sum[k] += d0 + d1 + (d2 + d3);
      squares[k] += d0 * d0 + d1 * d1 + (d2 * d2 + d3 * d3);
    }
  }
  for (; row < outer; row++) {
    for (let k = 0; k < c1; k++, i++) {
      const d = x[i] - origin[k];
      sum[k] += d;
      squares[k] += d * d;
    }
  }
}

function deviationsPlanes(
  outer: number,
  channels: number,
  inner: number,
  x: Float32Array,
  origin: Float64Array,
  sum: Float64Array,
  squares: Float64Array,
): void {
  let i = 0;
  for (let o = 0; o < outer; o++) {
    for (let k = 0; k < channels; k++) {
      const m = origin[k];
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let q0 = 0;
      let q1 = 0;
      let q2 = 0;
      let q3 = 0;
      const end = i + inner;
      for (const whole = end - 3; i < whole; i += 4) {
        const d0 = x[i] - m;
        const d1 = x[i + 1] - m;
        const d2 = x[i + 2] - m;
        const d3 = x[i + 3] - m;
        s0 += d0;
        s1 += d1;
        s2 += d2;
        s3 += d3;
        q0 += d0 * d0;
        q1 += d1 * d1;
        q2 += d2 * d2;
        q3 += d3 * d3;
      }
      for (; i < end; i++) {
        const d = x[i] - m;
        s0 += d;
        q0 += d * d;
      }
      sum[k] += s0 + s1 + (s2 + s3);
      squares[k] += q0 + q1 + (q2 + q3);
    }
  }
}

/** sum = Σdy, products = Σdy·(x − mean) */
function gradientSums(
  c: Case,
  x: Float32Array,
  dy: Float32Array,
  mean: Float64Array,
  sum: Float64Array,
  products: Float64Array,
): void {
  sum.fill(0);
  products.fill(0);
  if (c.inner > 1) gradientSumsPlanes(c.outer, c.channels, c.inner, x, dy, mean, sum, products);
  else gradientSumsRows(c.outer, c.channels, x, dy, mean, sum, products);
}

function gradientSumsRows(
  outer: number,
  channels: number,
  x: Float32Array,
  dy: Float32Array,
  mean: Float64Array,
  sum: Float64Array,
  products: Float64Array,
): void {
  const c1 = channels;
  const c2 = 2 * c1;
  const c3 = 3 * c1;
  let i = 0;
  let row = 0;
  for (; row + 4 <= outer; row += 4, i += c3) {
    for (let k = 0; k < c1; k++, i++) {
      const m = mean[k];
      const g0 = dy[i];
      const g1 = dy[i + c1];
      const g2 = dy[i + c2];
      const g3 = dy[i + c3];
      sum[k] += g0 + g1 + (g2 + g3);
      products[k] +=
        g0 * (x[i] - m) + g1 * (x[i + c1] - m) + (g2 * (x[i + c2] - m) + g3 * (x[i + c3] - m));
    }
  }
  for (; row < outer; row++) {
    for (let k = 0; k < c1; k++, i++) {
      sum[k] += dy[i];
      products[k] += dy[i] * (x[i] - mean[k]);
    }
  }
}

function gradientSumsPlanes(
  outer: number,
  channels: number,
  inner: number,
  x: Float32Array,
  dy: Float32Array,
  mean: Float64Array,
  sum: Float64Array,
  products: Float64Array,
): void {
  let i = 0;
  for (let o = 0; o < outer; o++) {
    for (let k = 0; k < channels; k++) {
      const m = mean[k];
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let p0 = 0;
      let p1 = 0;
      let p2 = 0;
      let p3 = 0;
      const end = i + inner;
      for (const whole = end - 3; i < whole; i += 4) {
        const g0 = dy[i];
        const g1 = dy[i + 1];
        const g2 = dy[i + 2];
        const g3 = dy[i + 3];
        s0 += g0;
        s1 += g1;
        s2 += g2;
        s3 += g3;
        p0 += g0 * (x[i] - m);
        p1 += g1 * (x[i + 1] - m);
        p2 += g2 * (x[i + 2] - m);
        p3 += g3 * (x[i + 3] - m);
      }
      for (; i < end; i++) {
        s0 += dy[i];
        p0 += dy[i] * (x[i] - m);
      }
      sum[k] += s0 + s1 + (s2 + s3);
      products[k] += p0 + p1 + (p2 + p3);
    }
  }
}

/** dx = scale·(dy − average − (x − mean)·slope) */
function gradient(
  c: Case,
  x: Float32Array,
  dy: Float32Array,
  dx: Float32Array,
  mean: Float64Array,
  scale: Float64Array,
  average: Float64Array,
  slope: Float64Array,
): void {
  if (c.inner > 1)
    gradientPlanes(c.outer, c.channels, c.inner, x, dy, dx, mean, scale, average, slope);
  else gradientRows(c.outer, c.channels, x, dy, dx, mean, scale, average, slope);
}

function gradientRows(
  outer: number,
  channels: number,
  x: Float32Array,
  dy: Float32Array,
  dx: Float32Array,
  mean: Float64Array,
  scale: Float64Array,
  average: Float64Array,
  slope: Float64Array,
): void {
  const c1 = channels;
  const c2 = 2 * c1;
  const c3 = 3 * c1;
  let i = 0;
  let row = 0;
  for (; row + 4 <= outer; row += 4, i += c3) {
    for (let k = 0; k < c1; k++, i++) {
      const m = mean[k];
      const s = scale[k];
      const a = average[k];
      const p = slope[k];
      dx[i] = s * (dy[i] - a - (x[i] - m) * p);
      dx[i + c1] = s * (dy[i + c1] - a - (x[i + c1] - m) * p);
      dx[i + c2] = s * (dy[i + c2] - a - (x[i + c2] - m) * p);
      dx[i + c3] = s * (dy[i + c3] - a - (x[i + c3] - m) * p);
    }
  }
  for (; row < outer; row++) {
    for (let k = 0; k < c1; k++, i++) {
      dx[i] = scale[k] * (dy[i] - average[k] - (x[i] - mean[k]) * slope[k]);
    }
  }
}

function gradientPlanes(
  outer: number,
  channels: number,
  inner: number,
  x: Float32Array,
  dy: Float32Array,
  dx: Float32Array,
  mean: Float64Array,
  scale: Float64Array,
  average: Float64Array,
  slope: Float64Array,
): void {
  let i = 0;
  for (let o = 0; o < outer; o++) {
    for (let k = 0; k < channels; k++) {
      const m = mean[k];
      const s = scale[k];
      const a = average[k];
      const p = slope[k];
      const end = i + inner;
      for (const whole = end - 3; i < whole; i += 4) {
        dx[i] = s * (dy[i] - a - (x[i] - m) * p);
        dx[i + 1] = s * (dy[i + 1] - a - (x[i + 1] - m) * p);
        dx[i + 2] = s * (dy[i + 2] - a - (x[i + 2] - m) * p);
        dx[i + 3] = s * (dy[i + 3] - a - (x[i + 3] - m) * p);
      }
      for (; i < end; i++) dx[i] = s * (dy[i] - a - (x[i] - m) * p);
    }
  }
}

async function open(c: Case, op: PeerOp, data: Data): Promise<Session> {
  const { x, dy, gamma, beta, mean, variance } = data;
  const loop = new Loop(c, gamma, beta, mean, variance);
  const out = new Float32Array(c.size);
  if (op === "backward") {
    const dgamma = new Float32Array(c.channels);
    const dbeta = new Float32Array(c.channels);
    loop.train(x, out);
    return {
      answer(): Answer {
        loop.backward(x, dy, out, dgamma, dbeta);
        return { dx: out, dgamma, dbeta };
      },
      sample(calls) {
        const start = performance.now();
        for (let i = 0; i < calls; i++) loop.backward(x, dy, out, dgamma, dbeta);
        const spent = performance.now() - start;
        keep(out);
        return spent;
      },
    };
  }
  if (op === "infer") {
    return {
      answer() {
        loop.infer(x, out);
        return { y: out };
      },
      sample(calls) {
        const start = performance.now();
        for (let i = 0; i < calls; i++) loop.infer(x, out);
        const spent = performance.now() - start;
        keep(out);
        return spent;
      },
    };
  }
  return {
    answer() {
      loop.train(x, out);
      return { y: out };
    },
    sample(calls) {
      const start = performance.now();
      for (let i = 0; i < calls; i++) loop.train(x, out);
      const spent = performance.now() - start;
      keep(out);
      return spent;
    },
  };
}

export const js: Peer = {
  name: "js",
  version: `V8 ${process.versions.v8}`,
  kind: "javascript",
  layouts: ["NC", "NCHW", "NHWC"],
  ops: OPS,
  open,
};
