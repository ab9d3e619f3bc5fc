// What `train` does: it reads its options, normalizes by statistics of one kind or another, leaves these in the latest
// batch, and moves the running averages (Ioffe & Szegedy 2015, algorithm 1 and section 3.1).

import { normalize } from "../engine/affine.js";
import { moveAverages } from "../engine/channel.js";
import type { Machine } from "../engine/machine.js";
import { computeMoments } from "../engine/moments.js";
import { train } from "../engine/train.js";
import { checkKeys } from "../errors.js";
import { copy, isSame, residualOf } from "../values/arrays.js";
import { flag } from "../values/check.js";
import { countOf, sizeOf, sizesOf } from "../values/layout.js";
import { type Seen, seenBy } from "../values/mask.js";
import type { Moments } from "../values/moments.js";
import { type Correction, checkVariances, type Given } from "../values/terms.js";
import { checkCount, marksOf } from "./batch.js";
import { outputFor } from "./gradient-arrays.js";
import { statisticsOf, type TrainOptions } from "./options.js";
import { kernelsOf, type Parts } from "./properties.js";
import { correctionOf, moveDeviations, ownAverages } from "./renorm.js";

const KEYS = ["shape", "out", "mask", "statistics", "updateRunning", "add"];

/** The tensors of a `train`, and where they are computed with; out may be x or add. */
interface Tensors {
  readonly machine: Machine;
  readonly out: Float32Array;
  readonly x: Float32Array;
  readonly add: Float32Array | null;
  readonly seen: Seen;
}

/** The work of `bn.train`: see there. */
export function trainLayer(
  parts: Parts,
  x: Float32Array,
  options: Readonly<TrainOptions>,
): Float32Array {
  checkKeys("options", options, KEYS);
  // Every option is read once, and all before anything else: a getter may do anything, even train this layer.
  const { mask, out: into, updateRunning, statistics: by, add: residual } = options;
  const { channels, settings } = parts;
  const shape = sizesOf(options.shape);
  const statistics = statisticsOf(by, channels);
  const moving = flag("updateRunning", updateRunning, true);
  const seen = seenBy(settings.layout, channels, x, shape, mask);
  const size = sizeOf(seen.full);
  const add = residualOf(residual, size);
  const out = outputFor(into, x, add, size, parts.buffers);
  const marks = marksOf(x, seen);
  const addMarks = add && marksOf(add, seen);
  const { collector } = parts;
  const tensors = { machine: kernelsOf(parts).machine, out, x, add, seen };
  let count = countOf(seen.view);
  if (statistics === "running") {
    trainByStatistics(parts, tensors, parts.averages, null);
  } else if (statistics === "batch" && collector === null && settings.renorm === null) {
    trainByBatch(parts, tensors, moving);
  } else {
    const examples = shape?.[0] ?? seen.full.outer;
    count = trainByMoments(parts, tensors, statistics, moving, examples);
  }
  if (collector !== null) return out;
  parts.latest.commit({
    seen,
    mask: mask ?? null,
    count,
    x: isSame(out, x) ? null : x,
    marks,
    add: add === null || isSame(out, add) ? null : add,
    addMarks,
    shape,
    statistics,
  });
  return out;
}

/** Normalizes by the mini-batch's own statistics. */
function trainByBatch(
  { parameters, averages, latest: { next } }: Parts,
  { machine, out, x, add, seen: { view, selection } }: Tensors,
  moving: boolean,
): void {
  const update = averages.updateFor(checkCount(countOf(view), selection !== null), moving);
  next.correction = null;
  const normalizer = parameters.with(next);
  next.bits = train(machine, normalizer, out, x, view, selection, add, update, next.bits);
  if (moving) averages.count();
}

/**
 * Normalizes by moments: pooled ones, or the mini-batch's own, which `collector`, if there is one, is given, and which
 * are corrected otherwise if the layer renormalizes. Returns how many values of each channel they are of. `examples` is
 * how many x has.
 */
function trainByMoments(
  parts: Parts,
  tensors: Tensors,
  statistics: "batch" | Moments,
  moving: boolean,
  examples: number,
): number {
  const { machine, x, seen } = tensors;
  const { view, selection } = seen;
  const own = statistics === "batch";
  const moments = own ? computeMoments(machine, x, view, selection) : statistics;
  const count = checkCount(moments.count, !own || selection !== null);
  const { averages, collector } = parts;
  const update = averages.updateFor(count, moving && collector === null);
  const { mean, meanLow } = moments;
  const normalizing = { mean, meanLow, variance: moments.variance("population") };
  const { renorm, epsilon } = parts.settings;
  const deviations = ownAverages(renorm, averages);
  const correction =
    renorm === null || !own || collector !== null
      ? null
      : correctionOf(normalizing, averages, deviations, epsilon, renorm);
  if (deviations !== null && update !== null) checkVariances(update.runningVariance);
  trainByStatistics(parts, tensors, normalizing, correction);
  if (collector !== null) collector(moments, examples);
  else if (update !== null) {
    if (deviations === null) moveAverages(machine, update, parts.latest.next);
    else moveDeviations(deviations, update, normalizing, epsilon);
    averages.count();
  }
  return count;
}

/** Normalizes by given statistics, with a correction if there is one, and moves nothing. */
function trainByStatistics(
  { parameters, latest: { next } }: Parts,
  { machine, out, x, add, seen: { view, selection } }: Tensors,
  { mean, variance, meanLow }: Given,
  correction: Correction | null,
): void {
  next.correction = correction;
  next.bits = null;
  copy(next.mean, mean);
  copy(next.variance, variance);
  if (meanLow) copy(next.meanLow, meanLow);
  else next.meanLow.fill(0);
  normalize(machine, out, x, view, parameters.with(next), selection, add);
}
