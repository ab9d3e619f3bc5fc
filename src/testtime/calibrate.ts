// Exact statistics for test time: the whole training set goes through the trained network, and every layer
// gathers the statistics of what reaches it. All layers do so in one pass, and meanwhile each normalizes by its
// mini-batch, as in PreciseBN (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).

import { checkKeys, describe, NonFiniteError, OptionError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { copyOf } from "../values/arrays.js";
import { NO_OPTIONS } from "../values/check.js";
import { type Moments, pool } from "../values/moments.js";
import { isVariance, type Statistics } from "../values/terms.js";
import { type Drift, driftOf } from "./drift.js";

/** How far a `calibrate` has come. */
export interface CalibrationProgress {
  /** Batches that went through the network. */
  readonly batches: number;
  /** Examples in these batches, as counted by the layer that `forward` reached first. */
  readonly examples: number;
  /** How many batches there are, if `batches` is an array. */
  readonly total: number | undefined;
}

/** Options of `calibrate`. */
export interface CalibrationOptions {
  /** Called after each batch. If it returns a promise, that is awaited, so that a page can draw meanwhile. */
  onProgress?: (progress: CalibrationProgress) => unknown;
}

/** What `calibrate` did to a layer. The drift says how far the averages before are from those after. */
export interface LayerCalibration extends Drift {
  /** Running mean and variance before, [channels] each. */
  readonly before: Statistics;
  /** Running mean and variance now, [channels] each. */
  readonly after: Statistics;
  /** What was gathered: to keep, or to pool with the moments of other machines. */
  readonly moments: Moments;
}

/** What `calibrate` returns. */
export interface CalibrationReport {
  /** Batches that went through the network. */
  readonly batches: number;
  /** Examples in these batches, as counted by the layer that `forward` reached first. */
  readonly examples: number;
  /** What happened to each layer, in the order of `layers`. */
  readonly layers: readonly LayerCalibration[];
}

interface Gathering {
  readonly layer: BatchNorm;
  moments: Moments | null;
  /** Mini-batches gathered. */
  seen: number;
}

/**
 * Sets the running averages of layers to the exact statistics of a whole training set. Every value weighs the
 * same, whatever the size of its batch. While this runs, `train` of these layers normalizes by its mini-batch
 * and leaves averages, `batchesSeen` and `lastBatch` alone; `infer` works as before. If it is given pooled moments
 * as `statistics`, it normalizes by those, and they are gathered in place of the mini-batch's own. For all layers but
 * the first, what reaches them depends on how earlier ones normalize; here that is by mini-batch, as PreciseBN
 * defines it (Wu & Johnson 2021, section 3).
 *
 * @param layers the network's batch-norm layers.
 * @param forward runs the network on one batch, and calls `train` on each layer; may be async.
 * @param batches a sync or async iterable of whatever `forward` takes.
 * @returns for each layer what moved and by how much.
 * @throws OptionError if an argument is not what it should be, or for an unknown option; StateError without
 * batches, for a layer that `forward` never reached, one that another `calibrate` works on, or one with an array whose
 * buffer was transferred; NonFiniteError if the variance of all batches together overflows; whatever
 * `forward`, `batches` and `onProgress` throw. When it throws, nothing has changed.
 *
 * @example
 * await calibrate([bn1, bn2], (x) => network(x, { training: true }), batches, {
 *   onProgress: ({ batches, total }) => console.log(`${batches} of ${total}`),
 * });
 */
export async function calibrate<B>(
  layers: Iterable<BatchNorm>,
  forward: (batch: B) => unknown,
  batches: Iterable<B | PromiseLike<B>> | AsyncIterable<B>,
  options: CalibrationOptions = NO_OPTIONS,
): Promise<CalibrationReport> {
  checkKeys("options", options, ["onProgress"]);
  const { onProgress } = options;
  if (typeof forward !== "function") wrong("forward", "a function", forward);
  if (onProgress !== undefined && typeof onProgress !== "function") {
    wrong("onProgress", "a function", onProgress);
  }
  if (!has(layers, Symbol.iterator)) wrong("layers", "an iterable of layers", layers);
  if (!has(batches, Symbol.iterator) && !has(batches, Symbol.asyncIterator)) {
    wrong("batches", "an iterable", batches);
  }
  const list = [...layers].map((layer): Gathering => {
    if (typeof (Object(layer) as Partial<BatchNorm>).collectInto !== "function")
      wrong("layers", "layers of this package", layer);
    return { layer, moments: null, seen: 0 };
  });
  if (list.length === 0) wrong("layers", "at least one layer", list);

  let done = 0;
  let examples = 0;
  let counting: Gathering | undefined;
  const taken: Gathering[] = [];
  try {
    for (const each of list) {
      const before = each.layer.collectInto((moments, n) => {
        each.moments = each.moments === null ? moments : pool(each.moments, moments);
        each.seen++;
        counting ??= each;
        if (counting === each) examples += n;
      });
      if (before !== null) {
        each.layer.collectInto(before);
        throw new StateError(
          "layers",
          "layers that no calibrate works on",
          "one twice, or one of another",
        );
      }
      taken.push(each);
    }
    const total = Array.isArray(batches) ? batches.length : undefined;
    for await (const batch of batches) {
      await forward(batch);
      done++;
      await onProgress?.({ batches: done, examples, total });
    }
    if (done === 0) throw new StateError("batches", "at least one", "none");
    list.forEach(({ seen }, i) => {
      if (seen > 0) return;
      throw new StateError(
        `layers[${i}]`,
        'forward to call its train, without statistics "running"',
        "no such call",
      );
    });
  } finally {
    for (const { layer } of taken) layer.collectInto(null);
  }
  // All is worked out before the first layer changes.
  const settled = list.map(settle);
  for (const { layer, state } of settled) layer.setState(state);
  return { batches: done, examples, layers: settled.map(({ report }) => report) };
}

/** Works out what a layer's averages become by what was gathered, and the report about it. */
function settle({ layer, moments, seen }: Gathering, i: number) {
  const gathered = moments as Moments;
  // All arrays of the layer are asked for, since one of them may be gone.
  const { gamma, beta, runningMean, runningVariance, runningVarianceOf, epsilon } = layer;
  const before = { mean: copyOf(runningMean), variance: copyOf(runningVariance) };
  const after = { mean: gathered.mean.slice(), variance: gathered.variance(runningVarianceOf) };
  if (!gathered.m2.every(isVariance) || !gathered.mean.every(Number.isFinite)) {
    throw new NonFiniteError(`layers[${i}]`, "finite variances", "an overflow, all batches pooled");
  }
  const report: LayerCalibration = {
    before,
    after,
    moments: gathered,
    ...driftOf(before, after, epsilon),
  };
  const state = {
    gamma,
    beta,
    runningMean: after.mean,
    runningVariance: after.variance,
    batchesSeen: seen,
    ageKnown: true,
  };
  return { layer, state, report };
}

const has = (value: unknown, method: PropertyKey): boolean =>
  typeof Object(value)[method] === "function";

function wrong(name: string, expected: string, value: unknown): never {
  throw new OptionError(name, expected, describe(value));
}
