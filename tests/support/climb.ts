// A search for data on which results are as far off as can be. Random data never come near the bounds, because their
// roundings go both ways. This climbs: it changes a column a little and keeps what makes the error larger. It begins
// with what rounding is worst on: one value whose square is just above a power of two, and others whose squares are
// about half an ulp of that, so that adding each of them is rounded the same way.

import { BatchNorm } from "batchnorm-wasm";
import { random } from "./data.js";

export type Walk = "rows" | "planes";

/** A channel: its values, the gradient of y, and the layer's parameters. */
export interface Column {
  x: Float32Array;
  dy: Float32Array;
  gamma: number;
  beta: number;
}

/** How far off a column's results are. Each is a share of what its bound is a share of. */
export interface Errors {
  variance: number;
  y: number;
  /** The same of `infer` by the exact statistics. */
  infer: number;
  dx: number;
  /** max|x̂|·mean|x̂|, on which the bound of dx depends. */
  product: number;
}

/** As many columns are tried in a call as a layer has channels. With so many, rows are not taken several at once. */
const CHANNELS = 256;

/** What a layer without epsilon makes of columns of equal length, one per channel, compared with float64. */
export function errorsOf(walk: Walk, columns: readonly Column[]): Errors[] {
  const channels = columns.length;
  const m = columns[0]!.x.length;
  const at = (c: number, i: number): number => (walk === "rows" ? i * channels + c : c * m + i);
  const spread = (of: (column: Column) => Float32Array): Float32Array => {
    const all = new Float32Array(channels * m);
    for (const [c, column] of columns.entries()) {
      const values = of(column);
      for (let i = 0; i < m; i++) all[at(c, i)] = values[i]!;
    }
    return all;
  };
  const layout = walk === "rows" ? "NC" : "NCL";
  const shape = walk === "rows" ? [m, channels] : [1, channels, m];
  const layer = new BatchNorm(channels, { layout, epsilon: 0 });
  layer.gamma!.set(columns.map(({ gamma }) => gamma));
  layer.beta!.set(columns.map(({ beta }) => beta));
  const x = spread((column) => column.x);
  const y = layer.train(x, { shape });
  const { variance } = layer.lastBatch!;
  const { dx } = layer.backward(spread(({ dy }) => dy));
  const exact = columns.map((column) => momentsOf(column.x));
  layer.runningMean.set(exact.map(({ mean }) => mean));
  layer.runningVariance.set(exact.map((moments) => moments.variance));
  const z = layer.infer(x, { shape });
  return columns.map((column, c) => {
    const places = Array.from(column.x, (_, i) => at(c, i));
    const of = (all: Float32Array) => (i: number) => all[places[i]!]!;
    return compare(column, exact[c]!, variance[c]!, of(y), of(z), of(dx));
  });
}

interface Exact {
  mean: number;
  variance: number;
  /** x - mean of each value. */
  apart: Float64Array;
}

const averageOf = (m: number, of: (i: number) => number): number => {
  let sum = 0;
  for (let i = 0; i < m; i++) sum += of(i);
  return sum / m;
};

function momentsOf(x: Float32Array): Exact {
  const from = x[0]!;
  const rest = averageOf(x.length, (i) => x[i]! - from);
  const apart = Float64Array.from(x, (v) => v - from - rest);
  return { mean: from + rest, variance: averageOf(x.length, (i) => apart[i]! ** 2), apart };
}

function compare(
  { dy, gamma, beta }: Column,
  { variance, apart }: Exact,
  found: number,
  y: (i: number) => number,
  z: (i: number) => number,
  dx: (i: number) => number,
): Errors {
  const m = dy.length;
  const root = Math.sqrt(variance);
  const level = averageOf(m, (i) => dy[i]!);
  const share = averageOf(m, (i) => (apart[i]! / root) * dy[i]!);
  const errors = { variance: Math.abs(found / variance - 1), y: 0, infer: 0, dx: 0, product: 0 };
  let off = 0;
  let unit = 0;
  let most = 0;
  for (let i = 0; i < m; i++) {
    const xhat = apart[i]! / root;
    const scaled = gamma * xhat;
    const size = Math.max(1, Math.abs(scaled), Math.abs(beta));
    errors.y = Math.max(errors.y, Math.abs(y(i) - scaled - beta) / size);
    errors.infer = Math.max(errors.infer, Math.abs(z(i) - scaled - beta) / size);
    const wanted = (gamma / root) * (dy[i]! - level - xhat * share);
    off = Math.max(off, Math.abs(dx(i) - wanted));
    unit = Math.max(unit, Math.abs(wanted), Math.abs((gamma / root) * dy[i]!));
    most = Math.max(most, Math.abs(xhat));
  }
  errors.dx = off / unit;
  errors.product = most * averageOf(m, (i) => Math.abs(apart[i]! / root));
  return errors;
}

/**
 * Climbs from seeded columns of `m` values towards the largest `height` of their errors, for as many rounds as are
 * given. Returns the column that it ends at.
 */
export function climb(
  walk: Walk,
  m: number,
  seed: number,
  rounds: number,
  height: (errors: Errors) => number,
  begin: Column | null = null,
): { column: Column; errors: Errors } {
  const next = random(seed);
  let column = begin ?? first(m, next);
  let errors = errorsOf(
    walk,
    Array.from({ length: CHANNELS }, () => column),
  )[0]!;
  for (let round = 0; round < rounds; round++) {
    const tried = Array.from({ length: CHANNELS }, () => changed(column, next));
    for (const [c, found] of errorsOf(walk, tried).entries()) {
      // As high is enough, so that the climb does not stop at what many columns share.
      if (height(found) < height(errors)) continue;
      column = tried[c]!;
      errors = found;
    }
  }
  return { column, errors };
}

/** One value with a square just above 1, others around half an ulp of that. */
function first(m: number, next: () => number): Column {
  const small = (): number => (next() < 0.5 ? -1 : 1) * halfUlp(next);
  const x = Float32Array.from({ length: m }, (_, i) => (i === 0 ? 1 + next() / 1000 : small()));
  const dy = Float32Array.from({ length: m }, (_, i) => (i === 0 ? -1 : 1) * (1 + next() / 1000));
  // With these, γ·x̂ of the first value and β are alike, and just above a power of two.
  const beta = Math.fround(2 ** Math.floor(3 * next()) * (1 + next() / 1000));
  return { x, dy, gamma: Math.fround(beta / Math.sqrt(m)), beta };
}

/** A value whose square is a few times 2^-24, or a little less or more than half of it. */
const halfUlp = (next: () => number): number =>
  Math.sqrt(2 ** (-25 + Math.floor(4 * next()))) * (1 + (next() - 0.5) / 2 ** (8 * next()));

/** The column with one to four things changed: a value, a whole class of places, a slope, a parameter. */
function changed({ x, dy, gamma, beta }: Column, next: () => number): Column {
  const column = { x: x.slice(), dy: dy.slice(), gamma, beta };
  const m = x.length;
  const nudge = (value: number): number =>
    Math.fround(value * (1 + (next() - 0.5) / 2 ** (24 * next())));
  for (let left = 1 + Math.floor(4 * next()); left > 0; left--) {
    const i = Math.floor(m * next() ** 2);
    const kind = next();
    if (kind < 0.25) column.x[i] = nudge(column.x[i]!);
    else if (kind < 0.4) column.x[i] = (next() < 0.5 ? -1 : 1) * halfUlp(next);
    else if (kind < 0.45) column.x[i] = -column.x[i]!;
    else if (kind < 0.5) column.x[0] = nudge(column.x[0]!);
    else if (kind < 0.65) {
      // Every fourth, eighth … value from somewhere on, as lanes and groups of kernels meet them.
      const step = 2 ** Math.floor(7 * next());
      const value = (next() < 0.5 ? -1 : 1) * halfUlp(next);
      for (let k = i % step || step; k < m; k += step) column.x[k] = k % 2 ? value : -value;
    } else if (kind < 0.75) column.dy[i] = nudge(column.dy[i]!);
    else if (kind < 0.8) column.dy[i] = -column.dy[i]!;
    else if (kind < 0.9) column.gamma = nudge(column.gamma);
    else column.beta = next() < 0.3 ? 2 ** Math.floor(4 * next()) : nudge(column.beta);
  }
  return column;
}
