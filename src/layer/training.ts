// What `train` does once its options are checked: it normalizes by statistics of one kind or another, leaves these in
// the latest batch, and moves the running averages (Ioffe & Szegedy 2015, algorithm 1 and section 3.1).

import { normalize } from "../engine/affine.js";
import { moveAverages } from "../engine/channel.js";
import type { Machine } from "../engine/machine.js";
import { computeMoments } from "../engine/moments.js";
import { train } from "../engine/train.js";
import { copy } from "../values/arrays.js";
import { countOf } from "../values/layout.js";
import type { Seen } from "../values/mask.js";
import type { Moments } from "../values/moments.js";
import type { Correction, Statistics } from "../values/terms.js";
import { type Collector, checkCount, type LatestBatch } from "./batch.js";
import type { Parameters } from "./parameters.js";
import { correctionOf } from "./renorm.js";
import type { RunningAverages } from "./running-averages.js";

/** The tensors of a `train`: out may be x or add. */
export interface Tensors {
  readonly out: Float32Array;
  readonly x: Float32Array;
  readonly add: Float32Array | null;
  readonly seen: Seen;
}

/** What a layer trains with. */
export interface Parts {
  readonly parameters: Parameters;
  readonly averages: RunningAverages;
  readonly latest: LatestBatch;
}

/** Normalizes by the mini-batch's own statistics. */
export function trainByBatch(
  { parameters, averages, latest: { next } }: Parts,
  machine: Machine,
  { out, x, add, seen: { view, selection } }: Tensors,
  moving: boolean,
): void {
  const update = averages.updateFor(checkCount(countOf(view), selection !== null), moving);
  next.correction = null;
  const normalizer = parameters.with(next, next.meanLow);
  train(machine, normalizer, out, x, view, selection, add, update);
  if (moving) averages.count();
}

/**
 * Normalizes by moments: pooled ones, or the mini-batch's own, which `collector`, if there is one, is given, and which
 * are corrected otherwise if the layer renormalizes. Returns how many values of each channel they are of. `examples` is
 * how many x has.
 */
export function trainByMoments(
  parts: Parts,
  machine: Machine,
  tensors: Tensors,
  statistics: "batch" | Moments,
  moving: boolean,
  collector: Collector | null,
  examples: number,
): number {
  const { view, selection } = tensors.seen;
  const own = statistics === "batch";
  const moments = own ? computeMoments(machine, tensors.x, view, selection) : statistics;
  const count = checkCount(moments.count, !own || selection !== null);
  const { parameters, averages } = parts;
  const update = averages.updateFor(count, moving && collector === null);
  const { mean, meanLow } = moments;
  const variance = moments.variance("population");
  const { renorm, epsilon } = parameters;
  const correction =
    renorm === null || !own || collector !== null
      ? null
      : correctionOf({ mean, variance, meanLow }, averages, epsilon, renorm);
  trainByStatistics(parts, machine, tensors, { mean, variance }, meanLow, correction);
  if (collector !== null) collector(moments, examples);
  else if (update !== null) {
    moveAverages(machine, update, parts.latest.next);
    averages.count();
  }
  return count;
}

/** Normalizes by given statistics, with a correction if there is one, and moves nothing. */
export function trainByStatistics(
  { parameters, latest: { next } }: Parts,
  machine: Machine,
  { out, x, add, seen: { view, selection } }: Tensors,
  { mean, variance }: Statistics,
  meanLow: Float64Array | null,
  correction: Correction | null,
): void {
  next.correction = correction;
  copy(next.mean, mean);
  copy(next.variance, variance);
  if (meanLow === null) next.meanLow.fill(0);
  else copy(next.meanLow, meanLow);
  const normalizer = parameters.with(next, meanLow, correction);
  normalize(machine, out, x, view, normalizer, selection, add);
}
