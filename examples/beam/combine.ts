/**
 * How Beam pools what it knows of the batches: a CombineFn of the batch-norm layers' `Moments`. Beam
 * adds batches to accumulators wherever it works, and merges these in any grouping and order. No
 * Beam in here.
 */

import { Moments, type MomentsJSON } from "batchnorm-wasm";

/**
 * What is known of some batches. A plain object, since between machines Beam turns all values into
 * BSON, which makes other things of typed arrays and instances of classes.
 */
export interface Part {
  readonly batches: number;
  /** One per batch-norm layer; none where there are no batches. */
  readonly layers: readonly MomentsJSON[];
}

const nothing = (): Part => ({ batches: 0, layers: [] });

/** What is known of the batches of both. */
function merge(a: Part, b: Part): Part {
  if (a.batches === 0) return b;
  if (b.batches === 0) return a;
  if (a.layers.length !== b.layers.length) {
    throw new Error(`parts: expected ${a.layers.length} layers, got ${b.layers.length}.`);
  }
  const layers = a.layers.map((layer, i) =>
    Moments.fromJSON(layer).merge(Moments.fromJSON(b.layers[i])).toJSON(),
  );
  return { batches: a.batches + b.batches, layers };
}

/** The CombineFn. What goes in, the accumulators and what comes out are all alike. */
export const pooling = {
  createAccumulator: nothing,
  addInput: merge,
  mergeAccumulators: (parts: Iterable<Part>): Part => [...parts].reduce(merge, nothing()),
  extractOutput: (part: Part): Part => part,
};
